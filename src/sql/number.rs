//! CONNECTION_ID() in a statement, answered by the session's own number, which no server knows.
//!
//! In: the text of a statement, the number in the client's greeting. Out: the text with the number
//! in place of the call. Must not: touch what stands in quotes, or a definition that is kept on the
//! server for others (CREATE, ALTER). Read first: facts/sql.md trap 47; `kill`.
//!
//! A client that asks for its number to KILL by it later means the one that the splitter knows.

use super::lexer::{Lexer, Mode, Token};
use super::words::{is, is_in};

/// The text to send instead, if the call is in it and can be told from what only looks like it.
#[must_use]
pub fn fill_in(text: &[u8], number: u32) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(text, Mode::ALL[0]);
    let mut out = Vec::with_capacity(text.len() + 32);
    let (mut depth, mut copied, mut tokens) = (0usize, 0, 0usize);
    let (mut is_list, mut before) = (false, Token::Symbol(b';'));
    // Where the name began, whether it is a column of its own, how many tokens of it were seen.
    let mut call: Option<(usize, bool, u8)> = None;
    loop {
        let token = lexer.next();
        let (start, end) = lexer.span();
        if let Some((from, is_column, 3)) = call {
            let written = text.get(from..copied)?;
            if is_column && ends_column(token) {
                out.extend_from_slice(format!("{number} AS `").as_bytes());
                out.extend(written.iter().filter(|&&byte| byte != b'`'));
                out.push(b'`');
            } else {
                // Not the bare number, which ORDER BY takes for a column.
                out.extend_from_slice(format!("(0+{number})").as_bytes());
            }
            call = None;
        }
        let Some(token) = token else { break };
        if tokens == 0 && !is_kept_here(token) {
            return None;
        }
        tokens += 1;
        call = match (call, token) {
            (None, Token::Word(word)) if is(word, "CONNECTION_ID") && !qualifies(before) => {
                out.extend_from_slice(text.get(copied..start)?);
                copied = start;
                Some((start, is_list && depth == 0 && begins_column(before), 1))
            }
            (Some((from, is_column, 1)), Token::Symbol(b'(')) => Some((from, is_column, 2)),
            (Some((from, is_column, 2)), Token::Symbol(b')')) => {
                copied = end;
                Some((from, is_column, 3))
            }
            (Some(_), _) | (None, _) => None,
        };
        match token {
            Token::Symbol(b'(') => depth += 1,
            Token::Symbol(b')') => depth = depth.saturating_sub(1),
            Token::Word(word) if depth == 0 && is(word, "SELECT") => is_list = true,
            Token::Word(word) if depth == 0 && is_in(AFTER_COLUMNS, word) => is_list = false,
            Token::Broken => return None,
            Token::Word(_)
            | Token::Name(_)
            | Token::Text(_)
            | Token::Ambiguous(_)
            | Token::Number
            | Token::UserVariable
            | Token::SystemVariable(..)
            | Token::Symbol(_) => {}
        }
        before = token;
    }
    out.extend_from_slice(text.get(copied..)?);
    let is_certain = !lexer.has_backslash && !lexer.has_executable;
    (is_certain && out != text).then_some(out)
}

fn is_kept_here(first: Token<'_>) -> bool {
    !matches!(first, Token::Word(word) if is(word, "CREATE") || is(word, "ALTER"))
}

fn qualifies(token: Token<'_>) -> bool {
    token == Token::Symbol(b'.')
}

fn begins_column(before: Token<'_>) -> bool {
    before == Token::Symbol(b',') || matches!(before, Token::Word(word) if is(word, "SELECT"))
}

fn ends_column(after: Option<Token<'_>>) -> bool {
    match after {
        None | Some(Token::Symbol(b',' | b';')) => true,
        Some(Token::Word(word)) => is_in(AFTER_COLUMNS, word),
        Some(_) => false,
    }
}

/// What may follow the columns of a SELECT.
const AFTER_COLUMNS: &[&str] = &[
    "EXCEPT",
    "FOR",
    "FROM",
    "GROUP",
    "HAVING",
    "INTERSECT",
    "INTO",
    "LIMIT",
    "LOCK",
    "ORDER",
    "UNION",
    "WHERE",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(text: &str) -> Option<String> {
        fill_in(text.as_bytes(), 7).map(|it| String::from_utf8(it).expect("text"))
    }

    #[test]
    fn the_number_stands_where_the_call_stood() {
        for (text, expected) in [
            ("SELECT CONNECTION_ID()", "SELECT 7 AS `CONNECTION_ID()`"),
            ("select connection_id ( );", "select 7 AS `connection_id ( )`;"),
            ("SELECT CONNECTION_ID() AS id", "SELECT (0+7) AS id"),
            ("SELECT CONNECTION_ID() id, 'CONNECTION_ID()'", "SELECT (0+7) id, 'CONNECTION_ID()'"),
            ("SELECT 1, CONNECTION_ID() FROM t", "SELECT 1, 7 AS `CONNECTION_ID()` FROM t"),
            ("SELECT CONNECTION_ID() + 1", "SELECT (0+7) + 1"),
            ("SELECT 1 ORDER BY 2, CONNECTION_ID()", "SELECT 1 ORDER BY 2, (0+7)"),
            (
                "INSERT INTO t VALUES (1, CONNECTION_ID()), (2, CONNECTION_ID())",
                "INSERT INTO t VALUES (1, (0+7)), (2, (0+7))",
            ),
        ] {
            assert_eq!(filled(text).as_deref(), Some(expected), "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_it_stays() {
        for text in [
            "SELECT connection_id FROM t",
            "SELECT 'CONNECTION_ID()'",
            "SELECT `CONNECTION_ID`()",
            "SELECT db.CONNECTION_ID()",
            "SELECT CONNECTION_ID(1)",
            "SELECT '\\'', CONNECTION_ID()",
            "CREATE VIEW v AS SELECT CONNECTION_ID()",
            "/*! SELECT CONNECTION_ID() */",
            "SELECT CONNECTION_ID() /* x",
        ] {
            assert_eq!(filled(text), None, "{text}");
        }
    }

    #[test]
    fn the_words_are_sorted_for_the_search() {
        assert!(AFTER_COLUMNS.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
