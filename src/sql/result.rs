//! Boundaries of replies: tells where a server's reply to one command ends, without reading rows.
//!
//! In: bytes from the server. Out: how many belong to the reply, its last status flags, its error.
//! Must not: copy or change a byte. Read first: facts/sql.md 5.4.
//!
//! ```text
//! Head --OK/ERR--> done, or Head again while MORE_RESULTS
//!   |--n columns--> Definitions --n--> DefinitionsEnd (old protocol's EOF) --> Rows --EOF--> as OK
//! ```

use crate::wire::Reader;

use super::packet::{self, Packet, Walker, mark, status};

/// The shape of the reply that a command gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// OK, ERR or result sets: COM_QUERY, COM_STMT_EXECUTE.
    Results,
    /// COM_STMT_PREPARE.
    Prepared,
    /// Packets up to an EOF: COM_FIELD_LIST, COM_STMT_FETCH.
    Rows,
    /// One packet: COM_INIT_DB, COM_STATISTICS, COM_STMT_RESET.
    Single,
    /// Nothing at all: COM_STMT_CLOSE, COM_STMT_SEND_LONG_DATA.
    Silent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Head,
    Definitions {
        left: u64,
    },
    DefinitionsEnd,
    Rows,
    /// Definitions (and their EOFs) after a COM_STMT_PREPARE OK.
    Skip {
        left: u64,
    },
    Done,
}

/// Follows one reply.
#[derive(Debug, Clone)]
pub struct Reply {
    walker: Walker,
    kind: Kind,
    stage: Stage,
    is_eof_deprecated: bool,
    /// OUT parameters are being sent, and an OK follows them.
    has_out_parameters: bool,
    /// Status flags of the last OK or EOF packet.
    pub status: Option<u16>,
    /// Code of the ERR packet that ended the reply.
    pub error: Option<u16>,
    /// The id that COM_STMT_PREPARE gave out.
    pub statement: Option<u32>,
    /// Rows and bytes so far, for the slow log.
    pub rows: u64,
    pub bytes: u64,
    /// How many parameters that statement has.
    pub parameters: u16,
    /// Whether at least one packet of the reply is complete.
    pub is_begun: bool,
    /// The client offered to send local files, and the server asked for one: its bytes go to the
    /// server before the reply goes on.
    pub may_ask_for_file: bool,
    pub is_file_wanted: bool,
    /// The server broke the protocol (or asked for a local file, which was not offered).
    pub is_broken: bool,
}

impl Reply {
    #[must_use]
    pub fn new(kind: Kind, is_eof_deprecated: bool) -> Self {
        Self {
            walker: Walker::default(),
            kind,
            stage: match kind {
                Kind::Results | Kind::Prepared | Kind::Single => Stage::Head,
                Kind::Rows => Stage::Rows,
                Kind::Silent => Stage::Done,
            },
            is_eof_deprecated,
            has_out_parameters: false,
            status: None,
            error: None,
            statement: None,
            parameters: 0,
            rows: 0,
            bytes: 0,
            is_begun: false,
            may_ask_for_file: false,
            is_file_wanted: false,
            is_broken: false,
        }
    }

    #[must_use]
    pub fn is_done(&self) -> bool {
        self.stage == Stage::Done
    }

    /// Takes the bytes that belong to this reply from the front of `bytes`; returns how many.
    pub fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut used = 0;
        let mut walker = std::mem::take(&mut self.walker);
        while self.stage != Stage::Done {
            let rest = bytes.get(used..).unwrap_or(&[]);
            let (walked, packet) = walker.walk(rest);
            used += walked;
            let Some(packet) = packet else { break };
            self.is_begun = true;
            if !packet.is_continuation {
                self.packet(packet);
            }
        }
        self.walker = walker;
        self.bytes += u64::try_from(used).unwrap_or(0);
        used
    }

    fn packet(&mut self, packet: Packet<'_>) {
        let first = packet.head.first().copied();
        self.stage = match self.stage {
            Stage::Head => self.head(packet, first),
            Stage::Definitions { left: 2.. } if let Stage::Definitions { left } = self.stage => {
                Stage::Definitions { left: left - 1 }
            }
            Stage::Definitions { .. } if self.is_eof_deprecated => Stage::Rows,
            Stage::Definitions { .. } => Stage::DefinitionsEnd,
            Stage::DefinitionsEnd => {
                self.status = eof_status(packet.head);
                self.has_out_parameters = self.has(status::PS_OUT_PARAMS);
                if self.has(status::CURSOR_EXISTS) { self.end() } else { Stage::Rows }
            }
            Stage::Rows => self.row(packet, first),
            Stage::Skip { left: 2.. } if let Stage::Skip { left } = self.stage => {
                Stage::Skip { left: left - 1 }
            }
            Stage::Skip { .. } | Stage::Done => Stage::Done,
        };
    }

    fn head(&mut self, packet: Packet<'_>, first: Option<u8>) -> Stage {
        if first == Some(mark::ERR) {
            return self.fail(packet.head);
        }
        match self.kind {
            Kind::Single => {
                self.status = match first {
                    Some(mark::OK) => ok_status(packet.head),
                    _ => None,
                };
                Stage::Done
            }
            Kind::Prepared => self.prepared(packet.head),
            Kind::Results | Kind::Rows | Kind::Silent => match first {
                Some(mark::OK) => {
                    self.status = ok_status(packet.head);
                    self.end()
                }
                Some(mark::LOCAL_INFILE) if self.may_ask_for_file => {
                    self.is_file_wanted = true;
                    Stage::Head
                }
                Some(mark::LOCAL_INFILE) | None => self.breach(),
                Some(_) => match packet::lenenc(&mut Reader::new(packet.head)) {
                    Ok(left) if left > 0 => Stage::Definitions { left },
                    Ok(_) | Err(_) => self.breach(),
                },
            },
        }
    }

    /// A row, or the EOF after the last one (which has the OK format with DEPRECATE_EOF). A row
    /// that starts with 0xfe has a first field above 16 MB, so its packet is full.
    fn row(&mut self, packet: Packet<'_>, first: Option<u8>) -> Stage {
        match first {
            Some(mark::ERR) => self.fail(packet.head),
            Some(mark::EOF) if self.is_eof_deprecated && packet.length < packet::PAYLOAD_MAX => {
                // COM_FIELD_LIST keeps the old EOF in some servers: 5 bytes, warnings first.
                self.status = if packet.length == 5 {
                    eof_status(packet.head)
                } else {
                    ok_status(packet.head)
                };
                self.end()
            }
            Some(mark::EOF) if packet.length < 9 => {
                self.status = eof_status(packet.head);
                self.end()
            }
            Some(_) | None => {
                self.rows += 1;
                Stage::Rows
            }
        }
    }

    /// COM_STMT_PREPARE_OK: id, columns, parameters; then a block of definitions for each.
    fn prepared(&mut self, head: &[u8]) -> Stage {
        let mut reader = Reader::new(head);
        let (Ok(mark::OK), Ok(id), Ok(columns), Ok(parameters)) =
            (reader.u8(), reader.u32_le(), reader.u16_le(), reader.u16_le())
        else {
            return self.breach();
        };
        (self.statement, self.parameters) = (Some(id), parameters);
        let block = |count: u16| u64::from(count) + u64::from(count > 0 && !self.is_eof_deprecated);
        match block(columns) + block(parameters) {
            0 => Stage::Done,
            left => Stage::Skip { left },
        }
    }

    /// MySQL sets MORE_RESULTS for OUT parameters only before their row, not after it (libmysql:
    /// cli_read_binary_rows).
    fn end(&mut self) -> Stage {
        let has_more =
            std::mem::take(&mut self.has_out_parameters) || self.has(status::MORE_RESULTS);
        if self.kind == Kind::Results && has_more { Stage::Head } else { Stage::Done }
    }

    fn fail(&mut self, head: &[u8]) -> Stage {
        let mut reader = Reader::new(head);
        self.error = Some(reader.take(1).and_then(|_| reader.u16_le()).unwrap_or(0));
        Stage::Done
    }

    fn breach(&mut self) -> Stage {
        self.is_broken = true;
        Stage::Done
    }

    fn has(&self, flag: u16) -> bool {
        self.status.is_some_and(|status| status & flag != 0)
    }
}

/// Status flags of an OK packet, also of one that stands for EOF.
fn ok_status(head: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(head);
    reader.take(1).ok()?;
    packet::lenenc(&mut reader).ok()?;
    packet::lenenc(&mut reader).ok()?;
    reader.u16_le().ok()
}

fn eof_status(head: &[u8]) -> Option<u16> {
    let mut reader = Reader::new(head);
    reader.take(3).ok()?;
    reader.u16_le().ok()
}

/// The text of a result set with one column and one row, in a whole reply of the old protocol.
/// `None` when it is anything else: an error, NULL, no row.
#[must_use]
pub fn only_value(reply: &[u8]) -> Option<&str> {
    let (_, count, rest) = packet::split(reply)?;
    let (_, _definition, rest) = packet::split(rest)?;
    let (_, _end_of_definitions, rest) = packet::split(rest)?;
    let (header, row, _) = packet::split(rest)?;
    let is_row = count == [1] && !(row.first() == Some(&mark::EOF) && header.length < 9);
    let value = packet::lenenc_bytes(&mut Reader::new(row)).ok().filter(|_| is_row)?;
    std::str::from_utf8(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            packet::frame(&mut out, 1, |out| out.extend_from_slice(payload));
        }
        out
    }

    const OK: &[u8] = b"\0\0\0\x02\0\0\0";
    const EOF: &[u8] = b"\xfe\0\0\x22\0";
    const DEFINITION: &[u8] = b"\x03def\0\0\0";

    /// Feeds in one piece, then byte by byte, with a tail that must stay; checks both agree.
    fn follow(kind: Kind, is_eof_deprecated: bool, payloads: &[&[u8]]) -> Reply {
        let stream = packets(payloads);
        let mut whole = Reply::new(kind, is_eof_deprecated);
        let mut tailed = stream.clone();
        tailed.extend_from_slice(b"\x01\0\0\0\xff");
        assert_eq!(whole.feed(&tailed), stream.len(), "{payloads:?}");
        assert!(whole.is_done());
        let mut slow = Reply::new(kind, is_eof_deprecated);
        for (index, byte) in stream.iter().enumerate() {
            assert!(!slow.is_done(), "done before byte {index} of {}", stream.len());
            assert_eq!(slow.feed(&[*byte]), 1);
        }
        assert!(slow.is_done());
        assert_eq!((slow.status, slow.error), (whole.status, whole.error));
        whole
    }

    #[test]
    fn results_end_where_the_server_ends_them() {
        let reply = follow(Kind::Results, false, &[OK]);
        assert_eq!(reply.status, Some(2));
        let rows = [b"\x01".as_slice(), DEFINITION, EOF, b"\x01a", b"\xfb", EOF];
        assert_eq!(follow(Kind::Results, false, &rows).status, Some(0x22));
        let rows = [b"\x01".as_slice(), DEFINITION, b"\x01a", b"\xfe\0\0\x02\0\0\0"];
        assert_eq!(follow(Kind::Results, true, &rows).status, Some(2));
        let rows = [b"\x01".as_slice(), DEFINITION, EOF, b"\x01a", b"\xff\x15\x04#HY000x"];
        assert_eq!(follow(Kind::Results, false, &rows).error, Some(1045));
    }

    #[test]
    fn more_results_follow_a_flag() {
        let more = b"\0\0\0\x0a\0\0\0".as_slice();
        let reply = follow(Kind::Results, false, &[more, b"\x01", DEFINITION, EOF, EOF]);
        assert_eq!(reply.status, Some(0x22));
        let end = b"\xfe\0\0\x0a\0".as_slice();
        follow(Kind::Results, false, &[b"\x01", DEFINITION, EOF, b"\x01a", end, OK]);
        follow(Kind::Results, false, &[more, b"\xff\x28\x04#42000x"]);
    }

    #[test]
    fn an_ok_follows_out_parameters_whatever_their_end_says() {
        let (begin, end) = (b"\xfe\0\0\x0a\x10".as_slice(), b"\xfe\0\0\x02\0".as_slice());
        follow(Kind::Results, false, &[b"\x01", DEFINITION, begin, b"\0\0\x05", end, OK]);
    }

    #[test]
    fn a_cursor_sends_no_rows() {
        let end = b"\xfe\0\0\x42\0".as_slice();
        follow(Kind::Results, false, &[b"\x02", DEFINITION, DEFINITION, end]);
    }

    #[test]
    fn prepare_counts_its_definitions() {
        let ok = b"\0\x07\0\0\0\x01\0\x02\0\0\0\0".as_slice();
        let blocks = [ok, DEFINITION, DEFINITION, EOF, DEFINITION, EOF];
        assert_eq!(follow(Kind::Prepared, false, &blocks).statement, Some(7));
        follow(Kind::Prepared, true, &[ok, DEFINITION, DEFINITION, DEFINITION]);
        follow(Kind::Prepared, false, &[b"\0\x07\0\0\0\0\0\0\0\0\0\0"]);
        assert_eq!(follow(Kind::Prepared, false, &[b"\xff\x15\x04"]).error, Some(1045));
    }

    #[test]
    fn single_and_rows_end_at_their_packet() {
        follow(Kind::Single, false, &[b"Uptime: 1"]);
        follow(Kind::Single, false, &[OK]);
        follow(Kind::Rows, false, &[DEFINITION, DEFINITION, EOF]);
        follow(Kind::Rows, true, &[DEFINITION, b"\xfe\0\0\x02\0\0\0"]);
        assert!(Reply::new(Kind::Silent, false).is_done());
    }

    #[test]
    fn a_request_for_a_local_file_is_a_breach() {
        assert!(follow(Kind::Results, false, &[b"\xfb/etc/passwd"]).is_broken);
        assert!(follow(Kind::Results, false, &[b""]).is_broken);
    }

    #[test]
    fn a_file_may_be_asked_for_where_it_was_offered() {
        let stream = packets(&[b"\xfb/tmp/x", OK]);
        let mut reply = Reply::new(Kind::Results, false);
        reply.may_ask_for_file = true;
        assert_eq!(reply.feed(&stream[..11]), 11);
        assert!(reply.is_file_wanted && !reply.is_done());
        assert_eq!(reply.feed(&stream[11..]), stream.len() - 11);
        assert!(reply.is_done() && !reply.is_broken);
    }

    #[test]
    fn flipped_bits_never_panic() {
        let stream = packets(&[b"\x01", DEFINITION, EOF, b"\x01a", EOF]);
        for kind in [Kind::Results, Kind::Prepared, Kind::Rows, Kind::Single] {
            for index in 0..stream.len() * 8 {
                let mut broken = stream.clone();
                broken[index / 8] ^= 1 << (index % 8);
                Reply::new(kind, index % 2 == 0).feed(&broken);
            }
        }
    }
}
