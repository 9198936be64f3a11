//! Port: what a web server in front asks for by FastCGI, record by record, as if we were php-fpm.
//!
//! In: bytes of one of its connections. Out: `Demand`s about the one request that runs, and the
//! records by which the protocol itself is answered. Must not: multiplex, keep a request's body,
//! know a script from another. Read first: FastCGI 1.0, sections 3 to 5; facts/web.md 7, "Relay
//! detail"; `gateway` for what becomes of a demand.
//!
//! ```text
//!            BEGIN               empty PARAMS           empty STDIN
//!     Idle --------> Params --------------------> Stdin ------------> Whole --answered--> Idle
//!                      |                            |                   |
//!                      +----- ABORT, or refused ----+-------------------+--------------> Idle
//! ```
//! Records of any other request are skipped: of one that was refused, or is over. A BEGIN with
//! another id while one runs is multiplexing, which is refused; one with the same id after the
//! request is whole is the next request, sent ahead, which waits for its turn as in php-fpm.

use super::fastcgi::{self, Error, Header, Kind, MANAGEMENT_ID, ProtocolStatus};
use crate::limits;
use crate::wire::Reader;

/// The front's side of one connection.
#[derive(Debug, Default)]
pub struct Port {
    header: heapless::Vec<u8, 8>,
    record: Option<Record>,
    /// What is kept of a record that means something only as a whole.
    body: Vec<u8>,
    running: Option<Running>,
    /// The request that was sent ahead.
    next: Option<Begin>,
    params: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct Record {
    purpose: Purpose,
    content_left: usize,
    padding_left: usize,
}

/// What the content of a record is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Begin { request_id: u16 },
    Values,
    Params,
    Stdin,
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Running {
    request_id: u16,
    stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Params,
    Stdin,
    Whole,
}

/// FastCGI 1.0, 5.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Begin {
    request_id: u16,
    is_kept: bool,
}

/// What the front wants of us.
#[derive(Debug, PartialEq, Eq)]
pub enum Demand<'a> {
    /// A request begins. `is_kept`: the connection is to stay when it is answered.
    Began { is_kept: bool },
    /// The parameters are whole: `take_params`.
    Params,
    /// The parameters are more than anybody sends.
    ParamsTooLarge,
    /// A piece of the request's body.
    Stdin(&'a [u8]),
    /// The request is whole.
    Whole,
    /// The front wants the answer no more.
    Aborted,
    /// A request was refused on a connection that is to be closed after that.
    Over,
    /// The bytes are used up, or the rest waits for the end of the request that runs.
    More,
}

/// FastCGI 1.0, 4.1: the variables that a responder answers, and 5.1: role and flag.
const VARIABLES: [&[u8]; 3] = [b"FCGI_MAX_CONNS", b"FCGI_MAX_REQS", b"FCGI_MPXS_CONNS"];
const RESPONDER: u16 = 1;
const KEEP_CONN: u8 = 1;

impl Port {
    /// The id of the request that runs.
    #[must_use]
    pub fn request_id(&self) -> Option<u16> {
        self.running.map(|running| running.request_id)
    }

    /// Whether a request was sent ahead: nothing more is read before its turn.
    #[must_use]
    pub const fn is_ahead(&self) -> bool {
        self.next.is_some()
    }

    /// The parameters, pair after pair.
    #[must_use]
    pub fn take_params(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.params)
    }

    /// The request that runs is over: what more comes of it is skipped.
    pub fn end(&mut self) {
        self.running = None;
        self.params = Vec::new();
    }

    /// Takes the next demand off the front of `bytes`. `requests_max`: what a front is told that
    /// asks how many requests it may send at once. Answers of the protocol go to `out`.
    pub fn next<'a>(
        &mut self,
        bytes: &mut &'a [u8],
        requests_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Demand<'a>, Error> {
        loop {
            if let Some(begin) = self.next {
                if self.running.is_some() {
                    return Ok(Demand::More);
                }
                self.next = None;
                return Ok(self.begin(begin));
            }
            let Some(mut record) = self.record else {
                let Some((&byte, rest)) = bytes.split_first() else { return Ok(Demand::More) };
                *bytes = rest;
                self.header.push(byte).map_err(|_full| Error::Short)?;
                if self.header.is_full() {
                    let header = Header::parse(&mut Reader::new(&self.header))?;
                    self.header.clear();
                    if let Some(demand) = self.announced(header, out)? {
                        return Ok(demand);
                    }
                }
                continue;
            };
            if record.content_left > 0 {
                let (content, rest) = bytes.split_at(record.content_left.min(bytes.len()));
                *bytes = rest;
                if content.is_empty() {
                    return Ok(Demand::More);
                }
                record.content_left -= content.len();
                self.record = Some(record);
                if let Some(demand) = self.received(record, content, requests_max, out)? {
                    return Ok(demand);
                }
                continue;
            }
            let count = record.padding_left.min(bytes.len());
            *bytes = bytes.get(count..).unwrap_or_default();
            record.padding_left -= count;
            self.record = Some(record).filter(|record| record.padding_left > 0);
            if self.record.is_some() {
                return Ok(Demand::More);
            }
        }
    }

    /// A record's header is here: what its content is for, and what it means if it has none.
    fn announced(
        &mut self,
        header: Header,
        out: &mut Vec<u8>,
    ) -> Result<Option<Demand<'static>>, Error> {
        let Header { kind, request_id, .. } = header;
        let is_empty = header.content_bytes == 0;
        let is_managing = request_id == MANAGEMENT_ID && kind != Kind::GetValues;
        let (purpose, demand) = if is_managing || matches!(kind, Kind::Unknown(_)) {
            // FastCGI 1.0, 4.2.
            fastcgi::emit_unknown_type(out, kind.code());
            (Purpose::Nothing, None)
        } else if is_empty && kind == Kind::GetValues {
            fastcgi::emit_values(out, &[]);
            (Purpose::Nothing, None)
        } else {
            self.purpose_of(header)?
        };
        self.body.clear();
        self.record = Some(Record {
            purpose,
            content_left: header.content_bytes.into(),
            padding_left: header.padding_bytes.into(),
        });
        Ok(demand)
    }

    fn purpose_of(&mut self, header: Header) -> Result<(Purpose, Option<Demand<'static>>), Error> {
        let Header { kind, request_id, content_bytes, .. } = header;
        let is_empty = content_bytes == 0;
        let running = self.running.as_mut().filter(|running| running.request_id == request_id);
        Ok(match (kind, running) {
            (Kind::GetValues, _) => (Purpose::Values, None),
            (Kind::BeginRequest, _) if content_bytes < 8 => return Err(Error::Short),
            (Kind::BeginRequest, _) => (Purpose::Begin { request_id }, None),
            (Kind::AbortRequest, Some(_)) => (Purpose::Nothing, Some(Demand::Aborted)),
            (Kind::Params, Some(Running { stage: stage @ Stage::Params, .. })) => {
                if is_empty {
                    *stage = Stage::Stdin;
                    (Purpose::Nothing, Some(Demand::Params))
                } else {
                    (Purpose::Params, None)
                }
            }
            (Kind::Stdin, Some(Running { stage: stage @ Stage::Stdin, .. })) => {
                if is_empty {
                    *stage = Stage::Whole;
                    (Purpose::Nothing, Some(Demand::Whole))
                } else {
                    (Purpose::Stdin, None)
                }
            }
            // FastCGI 1.0, 6.4: DATA is of a filter, which we are not.
            (Kind::AbortRequest | Kind::Params | Kind::Stdin, None) | (Kind::Data, _) => {
                (Purpose::Nothing, None)
            }
            (
                Kind::Params
                | Kind::Stdin
                | Kind::EndRequest
                | Kind::Stdout
                | Kind::Stderr
                | Kind::GetValuesResult
                | Kind::UnknownType
                | Kind::Unknown(_),
                _,
            ) => return Err(Error::Kind(kind)),
        })
    }

    /// A piece of a record's content, `record` being what is left behind it.
    fn received<'a>(
        &mut self,
        record: Record,
        content: &'a [u8],
        requests_max: usize,
        out: &mut Vec<u8>,
    ) -> Result<Option<Demand<'a>>, Error> {
        match record.purpose {
            Purpose::Nothing => {}
            Purpose::Stdin => return Ok(Some(Demand::Stdin(content))),
            Purpose::Params => {
                self.params.extend_from_slice(content);
                if self.params.len() > limits::WEB_PARAMS_BYTES_MAX {
                    return Ok(Some(Demand::ParamsTooLarge));
                }
            }
            Purpose::Begin { .. } | Purpose::Values => {
                self.body.extend_from_slice(content);
                if record.content_left > 0 {
                    return Ok(None);
                }
                let body = std::mem::take(&mut self.body);
                if let Purpose::Begin { request_id } = record.purpose {
                    return self.asked(request_id, &body, out);
                }
                tell_values(&body, requests_max, out);
            }
        }
        Ok(None)
    }

    /// BEGIN_REQUEST is whole.
    fn asked(
        &mut self,
        request_id: u16,
        body: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Demand<'static>>, Error> {
        let mut reader = Reader::new(body);
        let (role, flags) = (reader.u16()?, reader.u8()?);
        let begin = Begin { request_id, is_kept: flags & KEEP_CONN != 0 };
        let refusal = match self.running {
            Some(running) if running.request_id != request_id => ProtocolStatus::CantMpxConn,
            // The request that runs is not even whole: two of one id cannot be told apart.
            Some(running) if running.stage != Stage::Whole => {
                return Err(Error::Kind(Kind::BeginRequest));
            }
            Some(_) | None if role != RESPONDER => ProtocolStatus::UnknownRole,
            Some(_) => {
                self.next = Some(begin);
                return Ok(None);
            }
            None => return Ok(Some(self.begin(begin))),
        };
        fastcgi::emit_end_request(out, request_id, 0, refusal);
        let is_over = self.running.is_none() && !begin.is_kept;
        Ok(is_over.then_some(Demand::Over))
    }

    fn begin(&mut self, begin: Begin) -> Demand<'static> {
        self.running = Some(Running { request_id: begin.request_id, stage: Stage::Params });
        Demand::Began { is_kept: begin.is_kept }
    }
}

/// FastCGI 1.0, 4.1: only what was asked for is told, and what nobody knows is left out.
fn tell_values(body: &[u8], requests_max: usize, out: &mut Vec<u8>) {
    let requests_max = requests_max.to_string();
    let mut reader = Reader::new(body);
    let mut told = heapless::Vec::<(&[u8], &[u8]), { VARIABLES.len() }>::new();
    while let Ok((name, _)) = fastcgi::parse_pair(&mut reader) {
        let is_fresh = !told.iter().any(|&(other, _)| other == name);
        if is_fresh && VARIABLES.contains(&name) {
            let is_flag = name == b"FCGI_MPXS_CONNS";
            // It holds every variable that there is.
            let _is_full = told.push((name, if is_flag { b"0" } else { requests_max.as_bytes() }));
        }
    }
    fastcgi::emit_values(out, &told);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u8, id: u16, content: &[u8], padding: u8) -> Vec<u8> {
        let [id_high, id_low] = id.to_be_bytes();
        let length = u8::try_from(content.len()).expect("short");
        let mut out = vec![1, kind, id_high, id_low, 0, length, padding, 0xAA];
        out.extend_from_slice(content);
        out.extend((0..padding).map(|_| 0x55));
        out
    }

    fn begin(id: u16, role: u8, flags: u8) -> Vec<u8> {
        record(1, id, &[0, role, flags, 0, 0, 0, 0, 0], 0)
    }

    fn request(id: u16, flags: u8, params: &[u8], stdin: &[u8]) -> Vec<u8> {
        let ends = [record(4, id, b"", 1), record(5, id, stdin, 5), record(5, id, b"", 0)];
        [&[begin(id, 1, flags), record(4, id, params, 3)], &ends[..]].concat().concat()
    }

    /// As we emit it: reserved and padding bytes are zero.
    fn answer(kind: u8, id: u16, content: &[u8]) -> Vec<u8> {
        let padding = u8::try_from((8 - content.len() % 8) % 8).expect("below 8");
        let mut out = record(kind, id, content, padding);
        out[7] = 0;
        let content_end = 8 + content.len();
        out[content_end..].fill(0);
        out
    }

    /// Feeds the bytes in pieces of that size: demands in words, and what was answered.
    fn feed(port: &mut Port, bytes: &[u8], size: usize) -> (Vec<String>, Vec<u8>) {
        let (mut told, mut out) = (Vec::<String>::new(), Vec::new());
        for mut piece in bytes.chunks(size) {
            loop {
                let word = match port.next(&mut piece, 32, &mut out) {
                    Ok(Demand::More) => break,
                    Ok(Demand::Stdin(bytes)) => {
                        let text = String::from_utf8_lossy(bytes).into_owned();
                        match told.last_mut().filter(|last| last.starts_with("in ")) {
                            Some(last) => last.push_str(&text),
                            None => told.push(format!("in {text}")),
                        }
                        continue;
                    }
                    Ok(demand) => format!("{demand:?}"),
                    Err(error) => {
                        told.push(error.to_string());
                        return (told, out);
                    }
                };
                told.push(word);
            }
        }
        (told, out)
    }

    const BEGAN: &str = "Began { is_kept: true }";

    #[test]
    fn a_request_is_told_whatever_the_pieces() {
        let bytes = request(300, 1, b"\x01\x01AB", b"hello");
        for size in 1..=bytes.len() {
            let mut port = Port::default();
            let (told, out) = feed(&mut port, &bytes, size);
            assert_eq!(told, [BEGAN, "Params", "in hello", "Whole"], "{size}");
            assert_eq!((port.request_id(), out.len()), (Some(300), 0));
            assert_eq!(port.take_params(), b"\x01\x01AB");
        }
    }

    #[test]
    fn a_second_request_at_once_is_refused_and_skipped() {
        let other = request(9, 1, b"x", b"y");
        for size in 1..other.len() {
            let mut port = Port::default();
            feed(&mut port, &begin(1, 1, 1), 99);
            let (told, out) = feed(&mut port, &other, size);
            assert!(told.is_empty(), "{told:?}");
            assert_eq!(out, answer(3, 9, &[0, 0, 0, 0, 1, 0, 0, 0]), "{size}");
            assert_eq!(port.request_id(), Some(1));
        }
    }

    #[test]
    fn a_request_sent_ahead_waits_for_its_turn() {
        let mut port = Port::default();
        let bytes = [request(1, 1, b"\x01\x01AB", b"x"), begin(1, 1, 0)].concat();
        let (told, out) = feed(&mut port, &bytes, 7);
        assert_eq!(told, [BEGAN, "Params", "in x", "Whole"]);
        assert!(port.is_ahead() && out.is_empty());
        let rest = record(4, 1, b"", 0);
        let mut unread = rest.as_slice();
        assert_eq!(port.next(&mut unread, 1, &mut Vec::new()), Ok(Demand::More));
        assert_eq!(unread.len(), rest.len(), "nothing more is read");
        port.end();
        let (told, _) = feed(&mut port, &rest, 1);
        assert_eq!(told, ["Began { is_kept: false }", "Params"]);
    }

    #[test]
    fn other_roles_are_refused_and_end_a_connection_that_is_not_kept() {
        for (flags, expected) in [(0, vec!["Over"]), (1, vec![])] {
            let mut port = Port::default();
            let (told, out) = feed(&mut port, &begin(7, 2, flags), 5);
            assert_eq!(told, expected);
            assert_eq!(out, answer(3, 7, &[0, 0, 0, 0, 3, 0, 0, 0]));
        }
    }

    #[test]
    fn values_are_told_and_unknown_types_too() {
        let names =
            b"\x0e\x00FCGI_MAX_CONNS\x03\x00FOO\x0f\x00FCGI_MPXS_CONNS\x0d\x00FCGI_MAX_REQS";
        let told = b"\x0e\x02FCGI_MAX_CONNS32\x0f\x01FCGI_MPXS_CONNS0\x0d\x02FCGI_MAX_REQS32";
        for size in [1, 3, 99] {
            let mut port = Port::default();
            let (demands, out) = feed(&mut port, &record(9, 0, names, 2), size);
            assert!(demands.is_empty());
            assert_eq!(out, answer(10, 0, told));
            let (_, out) = feed(&mut port, &record(77, 0, b"abc", 0), size);
            assert_eq!(out, answer(11, 0, &[77, 0, 0, 0, 0, 0, 0, 0]));
            let (_, out) = feed(&mut port, &record(9, 0, b"", 0), size);
            assert_eq!(out, answer(10, 0, b""));
        }
    }

    #[test]
    fn an_abort_counts_for_the_request_that_runs() {
        let mut port = Port::default();
        feed(&mut port, &begin(5, 1, 1), 99);
        assert_eq!(feed(&mut port, &record(2, 6, b"", 0), 99).0, [""; 0]);
        assert_eq!(feed(&mut port, &record(2, 5, b"", 0), 99).0, ["Aborted"]);
        port.end();
        assert_eq!(feed(&mut port, &record(5, 5, b"late", 0), 99).0, [""; 0]);
    }

    #[test]
    fn refuses_what_makes_no_sense() {
        let stdin_first = [begin(1, 1, 1), record(5, 1, b"x", 0)].concat();
        let twice = [begin(1, 1, 1), begin(1, 1, 1)].concat();
        for bytes in [
            stdin_first,
            twice,
            record(6, 1, b"x", 0),
            record(1, 1, b"x", 0),
            vec![2, 1, 0, 1, 0, 0, 0, 0],
        ] {
            let (told, _) = feed(&mut Port::default(), &bytes, 3);
            assert!(told.last().is_some_and(|last| last.contains("record")), "{told:?}");
        }
    }

    #[test]
    fn parameters_have_a_bound() {
        let mut port = Port::default();
        feed(&mut port, &begin(1, 1, 1), 99);
        let piece = record(4, 1, &[b'x'; 200], 0);
        let told = (0..700).find_map(|_| feed(&mut port, &piece, 999).0.pop());
        assert_eq!(told.as_deref(), Some("ParamsTooLarge"));
        assert!(port.params.len() <= limits::WEB_PARAMS_BYTES_MAX + 200);
    }

    #[test]
    fn any_bit_flipped_never_panics() {
        let bytes = request(1, 1, b"\x01\x01AB", b"hello");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            feed(&mut Port::default(), &flipped, 1 + bit % 13);
        }
    }
}
