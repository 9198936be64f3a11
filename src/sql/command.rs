//! What each command of a client is: answered here, refused, or forwarded and how.
//!
//! In: the payload of a command packet. Out: a `Plan`. Must not: know the session's state.
//! Read first: MySQL internals, "Command Phase"; facts/sql.md traps 47 to 55.

use super::kill::{self, Kill};
use super::packet::ServerError;
use super::result::Kind;
use super::route::{self, Effect, Reading, Verdict};

/// What the session does with a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    Forward(Kind, Verdict),
    Quit,
    /// COM_PING: OK without a server.
    Pong,
    /// COM_RESET_CONNECTION: both connections are given back and the session starts over.
    Reset,
    ChangeUser,
    /// KILL and COM_PROCESS_KILL, by the splitter's own numbers.
    Kill(Kill),
    Refuse(ServerError),
}

/// Command bytes that are looked at in more than one place.
pub mod code {
    pub const INIT_DB: u8 = 0x02;
    pub const QUERY: u8 = 0x03;
    pub const STMT_PREPARE: u8 = 0x16;
    pub const STMT_EXECUTE: u8 = 0x17;
    pub const STMT_SEND_LONG_DATA: u8 = 0x18;
    pub const STMT_CLOSE: u8 = 0x19;
    pub const STMT_RESET: u8 = 0x1a;
    pub const STMT_FETCH: u8 = 0x1c;
    pub const RESET_CONNECTION: u8 = 0x1f;
}

/// `payload` is whole, or at least the start of it when `is_whole` is false.
#[must_use]
pub fn plan(payload: &[u8], is_whole: bool, reading: Reading) -> Plan {
    let Some((&command, argument)) = payload.split_first() else {
        return refuse(1047, b"08S01", "Unknown command");
    };
    match command {
        0x01 => Plan::Quit,
        code::INIT_DB => {
            let effect = Effect::Use(argument.to_vec());
            Plan::Forward(Kind::Single, Verdict { effect, ..Verdict::READ })
        }
        // Too long to be looked at in full: it may do anything, so the session stays with it.
        code::QUERY if !is_whole => Plan::Forward(Kind::Results, opaque()),
        code::QUERY => query(argument, reading),
        0x04 => Plan::Forward(Kind::Rows, Verdict::READ),
        0x07 => Plan::Forward(Kind::Single, Verdict::WRITE),
        0x09 => Plan::Forward(Kind::Single, Verdict::SOURCE),
        0x0a => Plan::Forward(Kind::Results, Verdict::SOURCE),
        0x0c => kill_or_refuse(Kill::of_command(argument)),
        0x0e => Plan::Pong,
        0x11 => Plan::ChangeUser,
        code::STMT_PREPARE => prepared(argument, reading),
        code::STMT_EXECUTE => Plan::Forward(Kind::Results, Verdict::WRITE),
        code::STMT_SEND_LONG_DATA | code::STMT_CLOSE => {
            Plan::Forward(Kind::Silent, Verdict::SOURCE)
        }
        code::STMT_RESET => Plan::Forward(Kind::Single, Verdict::SOURCE),
        // COM_SET_OPTION changes what a reset does not change back.
        0x1b => Plan::Forward(Kind::Single, Verdict { is_write: false, ..Verdict::OPAQUE }),
        code::STMT_FETCH => Plan::Forward(Kind::Rows, Verdict::SOURCE),
        code::RESET_CONNECTION => Plan::Reset,
        // COM_SHUTDOWN, COM_BINLOG_DUMP, COM_TABLE_DUMP, COM_REGISTER_SLAVE, COM_BINLOG_DUMP_GTID.
        0x08 | 0x12 | 0x13 | 0x15 | 0x1e => {
            let text = "Access denied; ask the server itself, not the splitter, for this operation";
            refuse(1227, b"42000", text)
        }
        _ => refuse(1047, b"08S01", "Unknown command"),
    }
}

fn query(text: &[u8], reading: Reading) -> Plan {
    let verdict = route::classify(text, reading);
    if verdict.effect == Effect::Kill {
        return kill_or_refuse(Kill::parse(text));
    }
    Plan::Forward(Kind::Results, verdict)
}

/// A proved read may be prepared on the replica, and again on the source when it must run there.
fn prepared(text: &[u8], reading: Reading) -> Plan {
    let verdict = route::classify(text, reading);
    if verdict.effect == Effect::Kill {
        let text = "This command is not supported in the prepared statement protocol yet";
        return refuse(1295, b"HY000", text);
    }
    let verdict = if verdict.effect != Effect::None || verdict.is_multiple {
        Verdict { is_risky: verdict.is_risky, ..opaque() }
    } else {
        let is_about_last = verdict.class == route::Class::Last;
        let class = if is_about_last { route::Class::Source } else { verdict.class };
        Verdict { class, ..verdict }
    };
    Plan::Forward(Kind::Prepared, verdict)
}

fn opaque() -> Verdict {
    Verdict { is_multiple: true, ..Verdict::OPAQUE }
}

/// Numbers on the servers belong to somebody else, so no KILL is ever passed on as it is.
fn kill_or_refuse(kill: Option<Kill>) -> Plan {
    kill.map_or_else(|| Plan::Refuse(kill::unknown("not a number of a session")), Plan::Kill)
}

/// What Atlas says to what its blocklist has.
#[must_use]
pub fn forbidden() -> ServerError {
    ServerError::new(1105, b"07000", "Proxy Warning - Syntax Forbidden")
}

fn refuse(code: u16, state: &[u8; 5], text: &str) -> Plan {
    Plan::Refuse(ServerError::new(code, state, text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::route::{Charset, Class};

    const READING: Reading = Reading { charset: Charset::Utf8, has_escapes: false };

    #[test]
    fn a_kill_never_leaves_the_splitter() {
        for payload in
            [&b"\x03KILL 5"[..], b"\x03kill query 5", b"\x0c\x05\0\0\0", b"\x03/*x*/KILL 5"]
        {
            let Plan::Kill(kill) = plan(payload, true, READING) else { panic!("{payload:?}") };
            assert_eq!(kill.thread, 5);
        }
        for (payload, code) in [(&b"\x03KILL USER app"[..], 1094), (b"\x16KILL 5", 1295)] {
            let plan = plan(payload, true, READING);
            assert!(matches!(plan, Plan::Refuse(error) if error.code == code));
        }
    }

    #[test]
    fn replication_commands_are_refused() {
        for command in [0x12u8, 0x15, 0x1e, 0x08] {
            let plan = plan(&[command, 0], true, READING);
            assert!(matches!(plan, Plan::Refuse(error) if error.code == 1227));
        }
        assert!(matches!(plan(b"", true, READING), Plan::Refuse(error) if error.code == 1047));
        assert!(matches!(plan(b"\x7f", true, READING), Plan::Refuse(error) if error.code == 1047));
    }

    #[test]
    fn what_is_too_long_to_read_stays_on_the_source() {
        let Plan::Forward(_, verdict) = plan(b"\x03SELECT 1", false, READING) else { panic!() };
        assert_eq!(verdict.class, Class::SourcePin);
    }

    #[test]
    fn a_prepared_read_is_a_read() {
        let Plan::Forward(Kind::Prepared, verdict) = plan(b"\x16SELECT ?", true, READING) else {
            panic!()
        };
        assert_eq!((verdict.class, verdict.is_write), (Class::Replica, false));
        let text = b"\x16SELECT FOUND_ROWS()";
        let Plan::Forward(_, verdict) = plan(text, true, READING) else { panic!() };
        assert_eq!(verdict.class, Class::Source);
        let Plan::Forward(_, verdict) = plan(b"\x16USE x", true, READING) else { panic!() };
        assert_eq!(verdict.class, Class::SourcePin);
    }
}
