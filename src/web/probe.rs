//! Probe: a FastCGI ping, which proves that a worker answers where a connection proves nothing; and
//! the pool's own status, which is answered while every worker is busy.
//!
//! In: bytes of the probe's connection. Out: the request, and whether an answer is whole.
//! Must not: judge what a ping was answered; a 404 for /ping comes from a living worker too.
//! Read first: facts/web.md, fact 4, and 1.2 "ping.path", "pm.status_listen".

use serde::Deserialize;

use crate::limits;

use super::fastcgi::{self, Decoder, Event, Kind, Params};
use super::upstream::Pool;

/// The request of a ping, php-fpm's `ping.path = /ping`.
#[must_use]
pub fn ping() -> Vec<u8> {
    request("/ping", "")
}

/// The request of a pool's status.
#[must_use]
pub fn pool(path: &str) -> Vec<u8> {
    request(path, "json")
}

fn request(path: &str, query: &str) -> Vec<u8> {
    let mut params = Params::new();
    for (name, value) in [
        ("SCRIPT_NAME", path),
        ("SCRIPT_FILENAME", path),
        ("REQUEST_URI", path),
        ("REQUEST_METHOD", "GET"),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("GATEWAY_INTERFACE", "CGI/1.1"),
        ("QUERY_STRING", query),
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

/// Reads a probe's answer to its end.
#[derive(Debug, Default)]
pub struct Probe {
    decoder: Decoder,
    answer: Vec<u8>,
}

/// php-fpm's status as JSON, as far as it is wanted.
#[derive(Debug, Deserialize)]
struct Told {
    #[serde(rename = "process manager")]
    manager: String,
    #[serde(rename = "total processes")]
    workers: usize,
    #[serde(rename = "listen queue", default)]
    waiting: usize,
}

impl Probe {
    /// Some(true): an answer is whole. Some(false): it is no FastCGI. None: more is to come.
    #[must_use]
    pub fn handle(&mut self, mut bytes: &[u8]) -> Option<bool> {
        loop {
            match self.decoder.next(&mut bytes) {
                Ok(Event::Stdout(piece)) => {
                    let room = limits::WEB_PROBE_BYTES_MAX.saturating_sub(self.answer.len());
                    let kept = piece.get(..room).unwrap_or(piece);
                    self.answer.extend_from_slice(kept);
                }
                Ok(Event::Stderr(_)) => {}
                Ok(Event::End { .. }) => return Some(true),
                Ok(Event::More) => return None,
                Err(_) => return Some(false),
            }
        }
    }

    /// What a pool's status said, once its answer is whole.
    #[must_use]
    pub fn told(&self) -> Option<Pool> {
        let start = self.answer.iter().position(|&byte| byte == b'{')?;
        let told: Told = serde_json::from_slice(self.answer.get(start..)?).ok()?;
        let workers = (told.manager == "static").then_some(told.workers);
        Some(Pool { workers, waiting: told.waiting })
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

    #[test]
    fn a_pools_status_tells_its_workers_if_their_number_is_fixed() {
        for (manager, workers) in [("static", Some(7)), ("dynamic", None)] {
            let text = format!(
                "Content-Type: application/json\r\n\r\n{{\"pool\":\"www\",\
                 \"process manager\":\"{manager}\",\"listen queue\":2,\
                 \"total processes\":7}}"
            );
            let length = u8::try_from(text.len()).expect("short");
            let mut probe = Probe::default();
            let head = [1, 6, 0, 1, 0, length, 0, 0];
            assert_eq!(probe.handle(&[&head, text.as_bytes()].concat()), None);
            assert_eq!(probe.handle(&[1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Some(true));
            assert_eq!(probe.told(), Some(Pool { workers, waiting: 2 }));
        }
        assert_eq!(Probe::default().told(), None);
    }
}
