//! Prepared statements, by numbers of the session's own, so that any connection can run them.
//!
//! In: what a client prepared, commands that name a statement. Out: the same commands for one
//! server, with that server's number and the parameter types it has not seen. Must not: prepare a
//! text again where names or quotes may mean something else (`freeze`).
//! Read first: MySQL internals, "COM_STMT_EXECUTE"; facts/sql.md traps 51 and 52.
//!
//! ```text
//!  0        1        5       6         10              10+(n+7)/8
//! +--------+--------+-------+---------+---------------+-------+---------------+----- - -
//! | 0x17   | number | flags | 1       | NULL bits     | bound | 2n types if 1 | values
//! +--------+--------+-------+---------+---------------+-------+---------------+----- - -
//! ```

use super::command::code;
use super::packet::{self, HEADER_BYTES};
use super::route::{Class, Verdict};

/// What a client has prepared.
#[derive(Debug)]
pub struct Statement {
    /// The number that the client knows.
    pub id: u32,
    /// The payload of its COM_STMT_PREPARE; `None` when it cannot be prepared again.
    pub text: Option<Box<[u8]>>,
    pub class: Class,
    pub is_write: bool,
    pub parameters: u16,
    /// The types of its parameters, as a client sent them last.
    pub types: Box<[u8]>,
    /// Parts of parameters or a cursor live on the source's connection.
    pub is_bound: bool,
}

impl Statement {
    /// Names and quotes in the text may have got another meaning: it runs where it is prepared.
    pub fn freeze(&mut self) {
        self.text = None;
    }

    /// Whether it is gone with the source's connection.
    #[must_use]
    pub const fn is_state(&self) -> bool {
        self.text.is_none() || self.is_bound
    }

    /// Where a command that names it goes.
    pub fn verdict(&mut self, payload: &[u8], is_on_source: bool) -> Verdict {
        match payload.first() {
            Some(&code::STMT_EXECUTE) => {
                // A cursor stays where it was opened.
                self.is_bound |= payload.get(5).is_some_and(|&flags| flags != 0);
                let is_stuck = self.is_bound || (self.text.is_none() && is_on_source);
                if self.class == Class::Replica && !is_stuck {
                    Verdict::READ
                } else if self.is_write {
                    Verdict::WRITE
                } else {
                    Verdict::SOURCE
                }
            }
            Some(&code::STMT_RESET) => {
                self.is_bound = false;
                Verdict::SOURCE
            }
            Some(&code::STMT_SEND_LONG_DATA) => {
                self.is_bound = true;
                Verdict::SOURCE
            }
            Some(_) | None => Verdict::SOURCE,
        }
    }

    /// Writes the command for a server, and learns the types it carries. `None`: it lacks types
    /// and cannot be given them.
    pub fn emit(
        &mut self,
        packets: &[u8],
        is_whole: bool,
        handle: &mut Handle,
        out: &mut Vec<u8>,
    ) -> Option<()> {
        let payload = packets.get(HEADER_BYTES..)?;
        let number = handle.server.to_le_bytes();
        if payload.first() == Some(&code::STMT_EXECUTE) && self.parameters > 0 {
            let bound_at = 10 + usize::from(self.parameters).div_ceil(8);
            let values_at = bound_at + 1 + 2 * usize::from(self.parameters);
            match payload.get(bound_at) {
                Some(1) => {
                    self.types = payload.get(bound_at + 1..values_at)?.into();
                    handle.has_types = true;
                }
                Some(_) if !handle.has_types => {
                    if !is_whole || self.types.is_empty() {
                        return None;
                    }
                    let (head, values) = (payload.get(5..bound_at)?, payload.get(bound_at + 1..)?);
                    packet::frame(out, 0, |out| {
                        out.push(code::STMT_EXECUTE);
                        out.extend_from_slice(&number);
                        out.extend_from_slice(head);
                        out.push(1);
                        out.extend_from_slice(&self.types);
                        out.extend_from_slice(values);
                    });
                    handle.has_types = true;
                    return Some(());
                }
                Some(_) => {}
                None => return None,
            }
        }
        let start = out.len();
        out.extend_from_slice(packets);
        out.get_mut(start + HEADER_BYTES + 1..start + HEADER_BYTES + 5)?.copy_from_slice(&number);
        Some(())
    }
}

/// A statement on one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Handle {
    /// The client's number, and the server's.
    pub id: u32,
    pub server: u32,
    pub has_types: bool,
}

/// What a client means by the statement that it prepared last (MariaDB's connectors do).
pub const LAST_ID: u32 = u32::MAX;

#[cfg(test)]
mod tests {
    use super::*;

    fn statement() -> Statement {
        Statement {
            id: 1,
            text: Some(b"\x16SELECT ?"[..].into()),
            class: Class::Replica,
            is_write: false,
            parameters: 1,
            types: Box::default(),
            is_bound: false,
        }
    }

    /// One long parameter, 5: with its type, and as every execution after the first.
    const FULL: &[u8] = b"\x0f\0\0\0\x17\x01\0\0\0\0\x01\0\0\0\0\x01\x03\0\x05";
    const SHORT: &[u8] = b"\x0d\0\0\0\x17\x01\0\0\0\0\x01\0\0\0\0\0\x05";

    #[test]
    fn types_are_given_to_a_server_that_has_not_seen_them() {
        let mut statement = statement();
        let mut first = Handle { id: 1, server: 7, has_types: false };
        let mut second = Handle { id: 1, server: 0x0102, has_types: false };
        let mut out = Vec::new();
        assert_eq!(statement.emit(SHORT, true, &mut first, &mut out), None, "nobody knows them");
        statement.emit(FULL, true, &mut first, &mut out).expect("emits");
        assert_eq!(out[5..9], [7, 0, 0, 0]);
        assert_eq!((&*statement.types, first.has_types), (&b"\x03\0"[..], true));
        out.clear();
        statement.emit(SHORT, true, &mut second, &mut out).expect("emits");
        let mut expected = FULL.to_vec();
        expected[5..9].copy_from_slice(&[2, 1, 0, 0]);
        assert_eq!(out, expected);
        out.clear();
        statement.emit(SHORT, true, &mut second, &mut out).expect("emits");
        assert_eq!(out.len(), SHORT.len(), "once is enough");
    }

    #[test]
    fn reads_are_free_until_something_lives_on_the_source() {
        let mut statement = statement();
        let execute = &FULL[4..];
        assert_eq!(statement.verdict(execute, true), Verdict::READ);
        assert_eq!(statement.verdict(b"\x18\x01\0\0\0\0\0x", true), Verdict::SOURCE);
        assert_eq!(statement.verdict(execute, true), Verdict::SOURCE, "long data");
        assert!(statement.is_state());
        statement.verdict(b"\x1a\x01\0\0\0", true);
        assert_eq!(statement.verdict(execute, true), Verdict::READ);
        statement.freeze();
        assert_eq!(statement.verdict(execute, true), Verdict::SOURCE);
        assert_eq!(statement.verdict(execute, false), Verdict::READ, "it is nowhere else");
        let mut cursor = execute.to_vec();
        cursor[5] = 1;
        assert_eq!(statement.verdict(&cursor, false), Verdict::SOURCE);
    }

    #[test]
    fn truncated_commands_never_panic() {
        for cut in 0..FULL.len() {
            let mut handle = Handle { id: 1, server: 7, has_types: false };
            let _ = statement().emit(&FULL[..cut], true, &mut handle, &mut Vec::new());
            let _ = statement().verdict(FULL.get(4..cut).unwrap_or(&[]), true);
        }
    }
}
