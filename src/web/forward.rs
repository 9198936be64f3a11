//! Forward: a script's answer passed on as it is to a web server that speaks FastCGI itself.
//!
//! In: pieces of FastCGI stdout and stderr. Out: records of the front's own request, and the status
//! for the log. Must not: send a byte of stdout before the script's header is whole (until then
//! another host may be asked), change or judge what the script said (the front does that): a line
//! of ours is only added to its header.
//! Read first: `answer`, which does the same for a client that speaks HTTP; FastCGI 1.0, 6.2.
//!
//! A piece becomes a record of its own, whatever record it was cut out of. It is the same one copy,
//! and a record that php-fpm broke off never leaves the front in the middle of one.

use super::answer::{Ending, HEADER_BYTES_MAX, find_end};
use super::fastcgi::{self, Kind, ProtocolStatus};

/// One script's answer.
#[derive(Debug)]
pub struct Forward {
    /// The front's own.
    request_id: u16,
    stage: Stage,
    /// The header as far as it is here, then the body that came with it.
    held: Vec<u8>,
    body_bytes: u64,
    /// A header line of ours that goes with it, unless it is 304.
    line: Vec<u8>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Header,
    /// The header is whole; nothing of it went to the front.
    Ready {
        status: u16,
        header_bytes: usize,
    },
    Sent {
        status: u16,
    },
}

impl Forward {
    #[must_use]
    pub const fn new(request_id: u16, line: Vec<u8>) -> Self {
        Self { request_id, stage: Stage::Header, held: Vec::new(), body_bytes: 0, line }
    }

    #[must_use]
    pub const fn request_id(&self) -> u16 {
        self.request_id
    }

    #[must_use]
    pub const fn is_sent(&self) -> bool {
        matches!(self.stage, Stage::Sent { .. })
    }

    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.stage, Stage::Ready { .. })
    }

    #[must_use]
    pub const fn is_holding_much(&self) -> bool {
        self.held.len() > HEADER_BYTES_MAX
    }

    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self.stage {
            Stage::Header => None,
            Stage::Ready { status, .. } | Stage::Sent { status } => Some(status),
        }
    }

    /// Bytes of body that went to the front.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// Takes a piece of stdout. A header without an end in sight is passed on: whether to take it
    /// is the front's decision.
    pub fn stdout(&mut self, bytes: &[u8], out: &mut Vec<u8>) {
        match self.stage {
            Stage::Header => {
                let scanned = self.held.len();
                self.held.extend_from_slice(bytes);
                let end = find_end(&self.held, scanned);
                if end.is_some() || self.is_holding_much() {
                    let header_bytes = end.unwrap_or(self.held.len());
                    let status = status_of(self.held.get(..header_bytes).unwrap_or_default());
                    self.stage = Stage::Ready { status, header_bytes };
                }
            }
            Stage::Ready { .. } => self.held.extend_from_slice(bytes),
            Stage::Sent { .. } => {
                self.body_bytes += length(bytes.len());
                fastcgi::emit_stream_of(out, self.request_id, Kind::Stdout, bytes);
            }
        }
    }

    /// Passes on what the script logs, at once: it is no part of the answer.
    pub fn stderr(&self, bytes: &[u8], out: &mut Vec<u8>) {
        fastcgi::emit_stream_of(out, self.request_id, Kind::Stderr, bytes);
    }

    /// Sends what is held, if the header is whole.
    pub fn start(&mut self, out: &mut Vec<u8>) {
        let Stage::Ready { status, header_bytes } = self.stage else { return };
        let mut held = std::mem::take(&mut self.held);
        self.body_bytes += length(held.len().saturating_sub(header_bytes));
        if status != 304 {
            held.splice(..0, self.line.drain(..));
        }
        fastcgi::emit_stream_of(out, self.request_id, Kind::Stdout, &held);
        self.stage = Stage::Sent { status };
    }

    /// The script is done; `app_status` is its exit code, or `None` if php-fpm closed the
    /// connection without END_REQUEST, which the front then sees as well.
    pub fn finish(&self, app_status: Option<u32>, out: &mut Vec<u8>) -> Ending {
        let Some(app_status) = app_status else { return Ending::Close };
        let complete = ProtocolStatus::RequestComplete;
        fastcgi::emit_end_request(out, self.request_id, app_status, complete);
        Ending::Whole
    }
}

/// RFC 3875, 6.3.3; nginx answers 302 where there is a Location and no status.
fn status_of(header: &[u8]) -> u16 {
    let mut status = None;
    let mut has_location = false;
    for line in header.split(|&byte| byte == b'\n') {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        if name.eq_ignore_ascii_case(b"status") {
            let digits = value.get(1..).unwrap_or_default().trim_ascii().get(..3);
            status = digits
                .and_then(|digits| std::str::from_utf8(digits).ok())
                .and_then(|digits| digits.parse().ok())
                .filter(|status| (100..600).contains(status));
        }
        has_location |= name.eq_ignore_ascii_case(b"location");
    }
    status.unwrap_or(if has_location { 302 } else { 200 })
}

fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_goes_out_before_the_header_is_whole_whatever_the_pieces() {
        let text = b"Status: 404 Not Found\r\nA: b\r\n\r\nhello";
        for size in 1..=text.len() {
            let (mut forward, mut out) = (Forward::new(300, Vec::new()), Vec::new());
            let mut seen = 0;
            for piece in text.chunks(size) {
                seen += piece.len();
                forward.stdout(piece, &mut out);
                forward.start(&mut out);
                assert_eq!(forward.is_sent(), seen >= 31, "{seen} of {size}");
                assert_eq!(out.is_empty(), seen < 31, "{seen} of {size}");
            }
            assert_eq!((forward.status(), forward.body_bytes()), (Some(404), 5));
            assert_eq!(forward.finish(Some(9), &mut out), Ending::Whole);
            assert_eq!(stdout_of(&out), text, "{size}");
            assert!(out.ends_with(&[1, 3, 1, 44, 0, 8, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0]));
        }
    }

    /// The contents of the STDOUT records of request 300.
    fn stdout_of(mut out: &[u8]) -> Vec<u8> {
        let mut text = Vec::new();
        while let [1, 6, 1, 44, high, low, padding, 0, rest @ ..] = out {
            let count = usize::from(u16::from_be_bytes([*high, *low]));
            text.extend_from_slice(&rest[..count]);
            out = &rest[count + usize::from(*padding)..];
        }
        text
    }

    #[test]
    fn the_log_gets_the_status_that_the_front_will_see() {
        for (header, status) in [
            ("A: b\r\n\r\n", 200),
            ("status:201\n\n", 201),
            ("Location: /x\r\n\r\n", 302),
            ("Status: 301 Moved\r\nLocation: /x\r\n\r\n", 301),
            ("Status: abc\r\n\r\n", 200),
            ("\r\n", 200),
        ] {
            assert_eq!(status_of(header.as_bytes()), status, "{header:?}");
        }
    }

    #[test]
    fn an_endless_header_is_passed_on() {
        let (mut forward, mut out) = (Forward::new(1, Vec::new()), Vec::new());
        while !forward.is_ready() {
            forward.stdout(&[b'x'; 5000], &mut out);
        }
        assert!(forward.is_holding_much() && out.is_empty());
        forward.start(&mut out);
        assert!(out.len() > HEADER_BYTES_MAX && forward.is_sent());
    }

    #[test]
    fn a_line_of_ours_comes_first_but_not_with_304() {
        for (text, expected) in [
            ("A: b\r\n\r\nhi", "C: d\r\nA: b\r\n\r\nhi"),
            ("Status: 304 Not Modified\r\n\r\n", "Status: 304 Not Modified\r\n\r\n"),
        ] {
            let (mut forward, mut out) = (Forward::new(300, b"C: d\r\n".to_vec()), Vec::new());
            forward.stdout(text.as_bytes(), &mut out);
            forward.start(&mut out);
            assert_eq!(stdout_of(&out), expected.as_bytes());
            assert_eq!(forward.body_bytes(), if expected.ends_with("hi") { 2 } else { 0 });
        }
    }

    #[test]
    fn a_connection_closed_without_an_end_gives_none() {
        let mut out = Vec::new();
        assert_eq!(Forward::new(1, Vec::new()).finish(None, &mut out), Ending::Close);
        assert!(out.is_empty());
    }
}
