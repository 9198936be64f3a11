//! Access log: one line a request in nginx's combined format, then upstream, time and tries.
//!
//! In: what is known of an answered request. Out: a line. Must not: write it, or let a client put a
//! line end or a quote into it. Read first: nginx ngx_http_log_module, "combined".

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Civil;
use crate::wire::HostId;

/// One answered request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub client: SocketAddr,
    pub request: Words,
    pub status: u16,
    pub body_bytes: u64,
    pub elapsed: Duration,
    /// The host whose php-fpm answered or was tried last, and how many were tried.
    pub upstream: Option<HostId>,
    pub tries: u8,
}

/// The words of the request that the log repeats.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words {
    pub line: Vec<u8>,
    pub referer: Vec<u8>,
    pub agent: Vec<u8>,
    /// The user that logged in, if one did.
    pub user: Vec<u8>,
}

impl Entry {
    /// Appends the line.
    pub fn emit(&self, out: &mut Vec<u8>, log_date: &str, host_names: &[String; 2]) {
        let client = self.client;
        out.extend_from_slice(format!("{} - ", client.ip()).as_bytes());
        escape(out, or_dash(&self.request.user));
        out.extend_from_slice(format!(" [{log_date}] \"").as_bytes());
        escape(out, &self.request.line);
        out.extend_from_slice(format!("\" {} {} \"", self.status, self.body_bytes).as_bytes());
        escape(out, or_dash(&self.request.referer));
        out.extend_from_slice(b"\" \"");
        escape(out, or_dash(&self.request.agent));
        let upstream = self.upstream.map_or("-", |host| host_names[host.index()].as_str());
        let (seconds, milliseconds) = (self.elapsed.as_secs(), self.elapsed.subsec_millis());
        let tail = format!("\" {upstream} {seconds}.{milliseconds:03} {}\n", self.tries);
        out.extend_from_slice(tail.as_bytes());
    }
}

const fn or_dash(bytes: &[u8]) -> &[u8] {
    if bytes.is_empty() { b"-" } else { bytes }
}

/// nginx: ngx_http_log_escape.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    for &byte in bytes {
        if matches!(byte, b'"' | b'\\' | 0..=31 | 127..) {
            out.extend_from_slice(format!("\\x{byte:02X}").as_bytes());
        } else {
            out.push(byte);
        }
    }
}

/// "14/Nov/2023:22:13:20 +0000"
#[must_use]
pub fn date(unix_seconds: u64) -> String {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let Civil { year, month, day, hour, minute, second } = Civil::of(unix_seconds);
    let place = usize::try_from(month).ok().and_then(|month| month.checked_sub(1));
    let name = place.and_then(|place| MONTHS.get(place)).unwrap_or(&"???");
    format!("{day:02}/{name}/{year}:{hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_combined_then_upstream_time_tries() {
        let entry = Entry {
            client: "192.0.2.1:5".parse().expect("an address"),
            request: Words {
                line: b"GET /\"\n HTTP/1.1".to_vec(),
                referer: Vec::new(),
                agent: b"curl/8".to_vec(),
                user: b"ann \"".to_vec(),
            },
            status: 200,
            body_bytes: 12,
            elapsed: Duration::from_millis(1012),
            upstream: Some(HostId::Second),
            tries: 2,
        };
        let mut out = Vec::new();
        entry.emit(&mut out, &date(1_700_000_000), &["a".into(), "b".into()]);
        assert_eq!(
            String::from_utf8(out).expect("text"),
            "192.0.2.1 - ann \\x22 [14/Nov/2023:22:13:20 +0000] \
             \"GET /\\x22\\x0A HTTP/1.1\" 200 12 \"-\" \"curl/8\" b 1.012 2\n"
        );
    }

    #[test]
    fn dates_follow_the_calendar() {
        for (seconds, expected) in [
            (0, "01/Jan/1970:00:00:00 +0000"),
            (951_782_399, "28/Feb/2000:23:59:59 +0000"),
            (951_782_400, "29/Feb/2000:00:00:00 +0000"),
            (1_735_689_599, "31/Dec/2024:23:59:59 +0000"),
        ] {
            assert_eq!(date(seconds), expected);
        }
    }
}
