//! Content codings: what a client accepts, what is worth it, and gzip of a script's answer.
//!
//! In: Accept-Encoding, a media type, pieces of a body. Out: compressed pieces.
//! Must not: code what is coded already, or a range, or an event stream (it would sit in the
//! window). Read first: RFC 9110, 12.5.3; nginx ngx_http_gzip_filter_module.

use std::fmt;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::request::{self, Head};

/// A coding of a file that lies beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Brotli,
    Gzip,
}

impl Coding {
    pub const ALL: [Self; 2] = [Self::Brotli, Self::Gzip];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Brotli => "br",
            Self::Gzip => "gzip",
        }
    }

    /// What follows the name of the plain file.
    #[must_use]
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Brotli => ".br",
            Self::Gzip => ".gz",
        }
    }
}

/// The codings that a client accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    brotli: bool,
    gzip: bool,
}

impl Accepted {
    #[must_use]
    pub fn of(head: &Head<'_>) -> Self {
        let mut accepted = Self::default();
        let lists = request::values(head.headers, "accept-encoding");
        for part in lists.flat_map(|list| list.split(|&byte| byte == b',')) {
            let mut words = part.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
            let name = words.next().unwrap_or_default();
            let is_refused = words.any(|word| {
                let weight = word.strip_prefix(b"q=").or_else(|| word.strip_prefix(b"Q="));
                weight.is_some_and(|weight| weight.iter().all(|byte| b"0.".contains(byte)))
            });
            if name.eq_ignore_ascii_case(b"br") {
                accepted.brotli = !is_refused;
            } else if name.eq_ignore_ascii_case(b"gzip") {
                accepted.gzip = !is_refused;
            }
        }
        accepted
    }

    #[must_use]
    pub const fn takes(self, coding: Coding) -> bool {
        match coding {
            Coding::Brotli => self.brotli,
            Coding::Gzip => self.gzip,
        }
    }
}

/// Whether a media type is text that shrinks.
#[must_use]
pub fn is_text(media_type: &[u8]) -> bool {
    let name = media_type.split(|&byte| byte == b';').next().unwrap_or_default();
    let name = name.trim_ascii().to_ascii_lowercase();
    let is_plain = name.starts_with(b"text/") && name != b"text/event-stream";
    let others: [&[u8]; 4] = [
        b"application/json",
        b"application/javascript",
        b"application/xml",
        b"application/manifest+json",
    ];
    is_plain || others.contains(&name.as_slice()) || name.ends_with(b"+xml")
}

/// One answer's compressor. Its window and tables take about 300 KB, so only requests in php-fpm,
/// whose number is bounded, have one.
pub struct Gzip {
    encoder: GzEncoder<Vec<u8>>,
}

impl fmt::Debug for Gzip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gzip(..)")
    }
}

/// nginx: gzip_comp_level 1. More costs much time for a few percent.
const LEVEL: u32 = 1;

impl Gzip {
    #[must_use]
    pub fn new() -> Self {
        Self { encoder: GzEncoder::new(Vec::new(), Compression::new(LEVEL)) }
    }

    /// Takes a piece; returns what came out, often nothing.
    pub fn add(&mut self, bytes: &[u8]) -> Vec<u8> {
        // A Vec takes everything.
        let _never = self.encoder.write_all(bytes);
        std::mem::take(self.encoder.get_mut())
    }

    /// The rest.
    pub fn finish(&mut self) -> Vec<u8> {
        let _never = self.encoder.try_finish();
        std::mem::take(self.encoder.get_mut())
    }
}

impl Default for Gzip {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::request::{header_room, parse};

    #[test]
    fn accepted_codings_follow_their_weights() {
        for (value, expected) in [
            ("gzip, deflate, br", [true, true]),
            ("GZIP;q=0.5", [false, true]),
            ("gzip;q=0, br;q=0.000", [false, false]),
            ("identity", [false, false]),
            ("x-gzip", [false, false]),
            ("*", [false, false]),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: {value}\r\n\r\n");
            let mut room = header_room();
            let head = parse(text.as_bytes(), &mut room).expect("a good head");
            let accepted = Accepted::of(&head);
            assert_eq!(Coding::ALL.map(|coding| accepted.takes(coding)), expected, "{value}");
        }
    }

    #[test]
    fn text_shrinks_and_streams_do_not_wait() {
        for (media_type, expected) in [
            ("text/html; charset=UTF-8", true),
            ("Application/JSON", true),
            ("image/svg+xml", true),
            ("text/event-stream", false),
            ("image/png", false),
            ("", false),
        ] {
            assert_eq!(is_text(media_type.as_bytes()), expected, "{media_type}");
        }
    }
}
