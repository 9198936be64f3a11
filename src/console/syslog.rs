//! A note as a message of syslog.
//!
//! In: a `Record`. Out: the bytes of one datagram. Read first: RFC 5424 section 6.

use super::message::Level;
use super::note::{Record, timestamp};

/// "daemon" (RFC 5424 section 6.2.1).
const FACILITY: u8 = 3;

/// `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID STRUCTURED-DATA MSG`; the note's name is the
/// MSGID. Text beyond ASCII is UTF-8 and says so by a byte order mark (section 6.4).
#[must_use]
pub fn message(host: &str, process: u32, record: &Record) -> Vec<u8> {
    let severity = match record.level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
    };
    let priority = FACILITY * 8 + severity;
    let is_name = |c: &char| c.is_ascii_graphic();
    let host: String = host.chars().filter(is_name).take(255).collect();
    let host = if host.is_empty() { "-" } else { &host };
    let mark = if record.text.is_ascii() { "" } else { "\u{feff}" };
    format!(
        "<{priority}>1 {} {host} tandem {process} {} - {mark}{}",
        timestamp(record.at_ms),
        record.name,
        record.text
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(level: Level, text: &str) -> Record {
        let (name, text) = ("role-changed".to_owned(), text.to_owned());
        Record { number: 7, at_ms: 1_764_275_015_003, level, name, text }
    }

    #[test]
    fn a_note_is_one_message_of_rfc_5424() {
        let bytes = message("server1", 42, &record(Level::Warn, "standby -> active: alone"));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            "<28>1 2025-11-27T20:23:35.003Z server1 tandem 42 role-changed - standby -> active: \
             alone"
        );
        let bytes = message(" ", 1, &record(Level::Error, "d\u{e9}j\u{e0}"));
        let text = String::from_utf8(bytes).unwrap();
        assert!(text.starts_with("<27>1 ") && text.contains("Z - tandem 1 "), "{text}");
        assert!(text.ends_with("- \u{feff}d\u{e9}j\u{e0}"), "{text}");
    }
}
