//! Probe: a FastCGI ping, which proves that a worker answers where a connection proves nothing.
//!
//! In: bytes of the ping's connection. Out: the request, and whether an answer is whole.
//! Must not: judge what was answered; a 404 for /ping comes from a living worker too.
//! Read first: facts/web.md, fact 4, and 1.2 "ping.path".

use super::fastcgi::{self, Decoder, Event, Kind, Params};

/// The request of a ping, php-fpm's `ping.path = /ping`.
#[must_use]
pub fn request() -> Vec<u8> {
    let mut params = Params::new();
    for (name, value) in [
        ("SCRIPT_NAME", "/ping"),
        ("SCRIPT_FILENAME", "/ping"),
        ("REQUEST_URI", "/ping"),
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("QUERY_STRING", ""),
        ("CONTENT_LENGTH", ""),
        ("REDIRECT_STATUS", "200"),
    ] {
        let is_added = params.add(name.as_bytes(), value.as_bytes());
        debug_assert!(is_added, "short pairs fit a record");
    }
    let mut request = params.finish();
    fastcgi::emit_end(&mut request, Kind::Stdin);
    request
}

/// Reads a ping's answer to its end.
#[derive(Debug, Default)]
pub struct Probe {
    decoder: Decoder,
}

impl Probe {
    /// Some(true): an answer is whole. Some(false): it is no FastCGI. None: more is to come.
    #[must_use]
    pub fn handle(&mut self, mut bytes: &[u8]) -> Option<bool> {
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Event::Stdout(_) | Event::Stderr(_)) => {}
                Ok(Event::End { .. }) => return Some(true),
                Ok(Event::More) => return None,
                Err(_) => return Some(false),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_complete_answer_counts() {
        let answer = [1, 6, 0, 1, 0, 1, 0, 0, b'x', 1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let mut probe = Probe::default();
        for byte in &answer[..24] {
            assert_eq!(probe.handle(&[*byte]), None);
        }
        assert_eq!(probe.handle(&answer[24..]), Some(true));
        assert_eq!(Probe::default().handle(b"HTTP/1.1"), Some(false));
    }
}
