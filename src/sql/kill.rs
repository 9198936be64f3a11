//! KILL by the splitter's own session numbers.
//!
//! In: the text of a KILL, or COM_PROCESS_KILL. Out: whom it means. Must not: let a number that a
//! client wrote reach a server, where it belongs to somebody else.
//! Read first: MySQL manual, "KILL Statement"; facts/sql.md trap 47.

use crate::wire::Reader;

use super::lexer::{Lexer, Mode, Token};
use super::packet::ServerError;
use super::words::is;

/// What a client wants to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// The number in the greeting of the session that is meant.
    pub thread: u32,
    /// Only its statement.
    pub is_query: bool,
}

impl Kill {
    /// `KILL [HARD|SOFT] [CONNECTION|QUERY] number`. What else servers know (a user, a query id)
    /// has no meaning here.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut lexer = Lexer::new(text, Mode::ALL[0]);
        let mut kill = None;
        let (mut is_query, mut words) = (false, 0);
        while let Some(token) = lexer.next() {
            match token {
                Token::Word(word) if words == 0 && is(word, "KILL") => {}
                Token::Word(word) if kill.is_none() && (is(word, "HARD") || is(word, "SOFT")) => {}
                Token::Word(word) if kill.is_none() && is(word, "CONNECTION") => {}
                Token::Word(word) if kill.is_none() && is(word, "QUERY") => is_query = true,
                Token::Number if kill.is_none() => {
                    let thread = std::str::from_utf8(lexer.lexeme()).ok()?.parse().ok()?;
                    kill = Some(Self { thread, is_query });
                }
                Token::Symbol(b';') if kill.is_some() => {}
                Token::Word(_)
                | Token::Name(_)
                | Token::Text(_)
                | Token::Ambiguous(_)
                | Token::Number
                | Token::UserVariable
                | Token::SystemVariable(..)
                | Token::Symbol(_)
                | Token::Broken => return None,
            }
            words += 1;
        }
        kill
    }

    /// The argument of COM_PROCESS_KILL.
    #[must_use]
    pub fn of_command(argument: &[u8]) -> Option<Self> {
        let thread = Reader::new(argument).u32_le().ok()?;
        Some(Self { thread, is_query: false })
    }
}

/// What the server is asked, on which the session has this number. The session itself is ended
/// here, so that its client is told 1317 and not that a connection was lost.
#[must_use]
pub fn statement(thread: u32) -> String {
    format!("KILL QUERY {thread}")
}

/// Nobody here has this number.
#[must_use]
pub fn unknown(thread: impl std::fmt::Display) -> ServerError {
    ServerError::new(1094, b"HY000", format!("Unknown thread id: {thread}"))
}

/// Somebody has, whose statements are none of this user's business.
#[must_use]
pub fn foreign(thread: u32) -> ServerError {
    ServerError::new(1095, b"HY000", format!("You are not owner of thread {thread}"))
}

/// What the statement that was ended gets.
#[must_use]
pub fn interrupted() -> ServerError {
    ServerError::new(1317, b"70100", "Query execution was interrupted")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_every_form_with_a_number() {
        let kill = |thread, is_query| Some(Kill { thread, is_query });
        assert_eq!(Kill::parse(b"KILL 5"), kill(5, false));
        assert_eq!(Kill::parse(b"/* 1 */ kill connection 5;"), kill(5, false));
        assert_eq!(Kill::parse(b"KILL QUERY 7"), kill(7, true));
        assert_eq!(Kill::parse(b"KILL HARD QUERY 7 -- x"), kill(7, true));
        assert_eq!(Kill::of_command(b"\x05\0\0\0"), kill(5, false));
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        for text in [
            "KILL",
            "KILL USER app",
            "KILL QUERY ID 5",
            "KILL @a",
            "KILL 5 6",
            "KILL 5; SELECT 1",
            "KILL 99999999999",
            "KILL 1.5",
        ] {
            assert_eq!(Kill::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Kill::of_command(b"\x05"), None);
    }
}
