//! Target of the FastCGI port: a session whose client is a web server in front.
//!
//! In: any bytes as that web server's. Out: a panic where a law is broken. Must not: know a socket.
//! Read first: `targets`; web::port and web::gateway.

use std::net::Ipv4Addr;

use tandem::time::Instant;
use tandem::web::Config;
use tandem::web::exchange::Phase;
use tandem::web::fastcgi::{Header, Kind, parse_pair};
use tandem::web::params::Ends;
use tandem::web::reply::Stamp;
use tandem::web::rules::Rules;
use tandem::web::session::{Context, Input, Output, Session};
use tandem::wire::{HostId, Reader};

/// STDERR, then STDOUT with a header and a body, then END_REQUEST.
const ANSWER: &[u8] = b"\x01\x07\0\x01\0\x04\0\0oops\x01\x06\0\x01\0\x0a\x02\0A: b\r\n\r\nhi\0\0\
\x01\x03\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0";

/// What becomes of a request that wants a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Luck {
    Answered,
    Waits,
    Refused,
}

/// The hands, played.
struct Hands {
    rules: Rules,
    stamp: Stamp,
    session: Session,
    luck: Luck,
    peer: Option<HostId>,
    is_waiting: bool,
    /// Whether php-fpm was asked to keep the connection of the request that runs; whether it came
    /// from another request; whether one waits for the next.
    keeps: bool,
    is_reused: bool,
    is_kept: bool,
    connections: usize,
    reuses: usize,
    is_closed: bool,
    /// What went to the web server in front, to php-fpm of the request that runs, to the file.
    told: Vec<u8>,
    sent: Vec<u8>,
    spooled: Vec<u8>,
}

/// The first byte chooses the peers' luck and where the stream is cut. A request holds at most one
/// peer or place, and gives it back; what php-fpm gets is in form; what the front gets are whole
/// records, the same ones wherever the stream is cut.
pub fn port(input: &[u8]) {
    let Some((&control, stream)) = input.split_first() else { return };
    let luck = match control >> 6 {
        0 | 1 => Luck::Answered,
        2 => Luck::Waits,
        _ => Luck::Refused,
    };
    let whole = Hands::play(luck, stream, stream.len().max(1));
    let cut = Hands::play(luck, stream, 1 + usize::from(control & 0x3f));
    if luck != Luck::Waits {
        assert_eq!(cut, whole);
    }
}

impl Hands {
    /// The bytes that the web server in front is told.
    fn play(luck: Luck, stream: &[u8], size: usize) -> Vec<u8> {
        let config = Config { access_log: "log".into(), ..Config::default() };
        let client = (Ipv4Addr::LOCALHOST, 1).into();
        let ends = Ends { client, local: client, is_https: false };
        let mut hands = Self {
            session: Session::of_port(Instant::ZERO, &config, ends),
            rules: Rules::new(config),
            stamp: Stamp::new(0),
            luck,
            peer: None,
            is_waiting: false,
            keeps: false,
            is_reused: false,
            is_kept: false,
            connections: 0,
            reuses: 0,
            is_closed: false,
            told: Vec::new(),
            sent: Vec::new(),
            spooled: Vec::new(),
        };
        for piece in stream.chunks(size) {
            if !hands.is_closed && hands.session.wants_client() {
                hands.feed(Input::Received(piece));
                hands.settle();
            }
        }
        if !hands.is_closed {
            hands.feed(Input::Gone);
        }
        assert!(hands.is_closed && hands.peer.is_none() && !hands.is_waiting);
        let mut reader = Reader::new(&hands.told);
        while !reader.is_empty() {
            let header = Header::parse(&mut reader).expect("a header");
            let bytes = usize::from(header.content_bytes) + usize::from(header.padding_bytes);
            reader.take(bytes).expect("a whole record");
        }
        hands.told
    }

    fn feed(&mut self, input: Input<'_>) {
        let Self { rules, stamp, session, .. } = self;
        let cx = Context { now: Instant::ZERO, rules, stamp, is_draining: false };
        session.handle(cx, input);
        while let Some(output) = self.session.poll_output() {
            match output {
                Output::Acquire { .. } => {
                    assert!(self.peer.is_none() && !self.is_waiting);
                    match self.luck {
                        Luck::Answered => {
                            self.peer = Some(HostId::First);
                            self.feed(Input::Assigned(HostId::First));
                        }
                        Luck::Waits => self.is_waiting = true,
                        Luck::Refused => self.feed(Input::Unassigned),
                    }
                }
                Output::LeaveQueue => assert!(std::mem::take(&mut self.is_waiting)),
                Output::Connect(host) => {
                    assert_eq!(self.peer, Some(host));
                    self.connect();
                }
                Output::Release(host, _) => assert_eq!(self.peer.take(), Some(host)),
                Output::Keep(host) => {
                    assert_eq!(self.peer.take(), Some(host));
                    self.is_kept = self.keeps;
                }
                Output::Spool => self.spooled.extend(self.session.take_stored()),
                Output::Finished => {
                    assert!(self.session.take_finished().is_some());
                    self.sent.clear();
                    self.spooled.clear();
                }
                Output::Shutdown => {}
                Output::Close => self.is_closed = true,
                Output::Look => panic!("a web server in front looks for files itself"),
                Output::AskRead => panic!("time stands still"),
                Output::Count => panic!("the PROXY protocol is not spoken here"),
            }
        }
    }

    /// A kept connection where there is one and it will do, else one that is to be kept or not.
    fn connect(&mut self) {
        self.sent.clear();
        self.is_reused = self.is_kept && self.session.may_reuse();
        if self.is_reused {
            self.is_kept = false;
            self.reuses += 1;
            self.keeps = true;
            self.feed(Input::Reused);
        } else {
            self.connections += 1;
            self.keeps = !self.connections.is_multiple_of(3);
            self.feed(Input::Connecting { keeps: self.keeps });
        }
    }

    /// Does what can be done until nothing can, answers first: whether a second request came while
    /// the first one ran must not depend on the cuts.
    fn settle(&mut self) {
        while !self.is_closed {
            let exchange = self.session.exchange();
            let phase = exchange.map(|exchange| exchange.phase());
            let due = exchange.and_then(|exchange| exchange.stdin_due());
            if let Some(Phase::Connecting(_)) = phase {
                self.feed(Input::Connected);
            } else if let Some((offset, count)) = due {
                let offset = usize::try_from(offset).unwrap();
                let bytes = self.spooled[offset..offset + count].to_vec();
                self.feed(Input::StdinBytes(&bytes));
            } else if let (Some(Phase::Talking(_)), Some(exchange)) = (phase, exchange) {
                let pending = exchange.pending().to_vec();
                self.sent.extend_from_slice(&pending);
                if pending.is_empty() {
                    check_request(&self.sent, self.keeps);
                }
                if pending.is_empty() && self.is_reused && self.reuses.is_multiple_of(2) {
                    // php-fpm had closed it: nobody is told anything of that.
                    self.is_reused = false;
                    self.feed(Input::AnswerEnded);
                } else if pending.is_empty() {
                    self.feed(Input::Answered { bytes: ANSWER, is_closing: false });
                } else {
                    self.feed(Input::UpstreamWrote(pending.len()));
                }
            } else if self.session.is_head_due() {
                self.feed(Input::Proceed);
            } else if !self.session.pending().is_empty() {
                let pending = self.session.pending().to_vec();
                self.told.extend_from_slice(&pending);
                self.feed(Input::Wrote(pending.len()));
            } else {
                return;
            }
        }
    }
}

/// facts/web.md, facts 6 and 7.
fn check_request(bytes: &[u8], keeps: bool) {
    let mut reader = Reader::new(bytes);
    let (mut stdin_bytes, mut length) = (0, None);
    let mut kinds = Vec::new();
    while !reader.is_empty() {
        let header = Header::parse(&mut reader).expect("a header");
        let bytes = usize::from(header.content_bytes) + usize::from(header.padding_bytes);
        assert!(header.request_id == 1 && bytes <= 65_535);
        let content = reader.take(header.content_bytes.into()).expect("content");
        reader.take(header.padding_bytes.into()).expect("padding");
        kinds.push(header.kind);
        match header.kind {
            Kind::BeginRequest => assert_eq!(content, [0, 1, keeps.into(), 0, 0, 0, 0, 0]),
            Kind::Params => {
                let mut pairs = Reader::new(content);
                while !pairs.is_empty() {
                    let (name, value) = parse_pair(&mut pairs).expect("no pair straddles records");
                    assert!(name != b"PHP_VALUE" && name != b"PHP_ADMIN_VALUE");
                    if name == b"CONTENT_LENGTH" {
                        let text = std::str::from_utf8(value).expect("digits");
                        assert!(length.replace(text.parse().unwrap_or(0)).is_none());
                    }
                }
            }
            Kind::Stdin => stdin_bytes += content.len(),
            other => panic!("{other:?} to php-fpm"),
        }
    }
    assert_eq!(length, Some(stdin_bytes));
    kinds.dedup();
    assert_eq!(kinds, [Kind::BeginRequest, Kind::Params, Kind::Stdin]);
}
