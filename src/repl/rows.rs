//! What comes back from a server: rows of text, or why there are none.
//!
//! In: nothing. Out: `Rows`, `ServerError`. Must not: name a driver (os/mysql.rs fills these in).
//! Read first: facts/repl.md section 2.

use std::fmt;

/// A result set, everything as the server's text protocol spells it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Option<String>>>,
}

impl Rows {
    /// The value in `row` of the first of `names` that is a column: old and new servers name the
    /// same thing differently, and no column keeps its place.
    #[must_use]
    pub fn value(&self, row: usize, names: &[&str]) -> Option<&str> {
        let index = names
            .iter()
            .find_map(|name| self.columns.iter().position(|c| c.eq_ignore_ascii_case(name)))?;
        self.rows.get(row)?.get(index)?.as_deref()
    }
}

/// Why a query has no rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerError {
    /// The server answered with an error: it is alive.
    Refused { code: u16, message: String },
    /// No connection, or it broke.
    Unreachable(String),
    /// No answer within the query's limit. Whether it was executed is unknown.
    TimedOut,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { code, message } => write!(f, "error {code}: {message}"),
            Self::Unreachable(reason) => f.write_str(reason),
            Self::TimedOut => f.write_str("no answer in time"),
        }
    }
}
