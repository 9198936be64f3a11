//! SET of session variables that the other connection can repeat, and the history of them.
//!
//! In: the text of a SET. Out: a `Setting` when every part of it is understood; from a history,
//! what a connection has still to be told. Must not: understand half a statement; repeat what may
//! mean something else on another host or later (a subquery, a clock, a user variable).
//! Read first: facts/sql.md traps 32 to 39; MySQL manual, "SET Syntax for Variable Assignment".
//!
//! A later setting of the same variables takes the place of an earlier one, so that the history of
//! a session that keeps switching one variable stays short.

use crate::limits;

use super::lexer::{Lexer, Mode, Scope, Token};
use super::route::Charset;
use super::words::is;

/// One SET, as far as repeating it needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// The variables it sets, as places in `VARIABLES`.
    variables: u128,
    /// Its result depends on nothing that was set before.
    is_plain: bool,
    /// SET CHARACTER SET, whose result depends on the default database.
    pub follows_database: bool,
    /// The client's character set, if it sets that.
    pub charset: Option<Charset>,
}

impl Setting {
    /// Reads a whole SET statement. `None`: it does something that cannot be repeated.
    #[must_use]
    pub fn parse(text: &[u8]) -> Option<Self> {
        let mut parser = Parser::new(text)?;
        if text.len() > limits::SQL_SETTINGS_BYTES_MAX || !text.is_ascii() {
            return None;
        }
        let mut setting =
            Self { variables: 0, is_plain: true, follows_database: false, charset: None };
        loop {
            parser.item(&mut setting)?;
            match parser.next() {
                Some(Token::Symbol(b',')) => {}
                Some(Token::Symbol(b';')) => {
                    return (parser.next().is_none() && parser.is_clean()).then_some(setting);
                }
                None => return parser.is_clean().then_some(setting),
                Some(_) => return None,
            }
        }
    }

    /// After `self`, nothing of `older` is left.
    const fn replaces(&self, older: &Self) -> bool {
        self.is_plain && older.variables & !self.variables == 0
    }

    fn add(&mut self, variable: &str) -> Option<()> {
        let place = VARIABLES.binary_search(&variable).ok()?;
        self.variables |= 1 << place;
        Some(())
    }

    fn add_charsets(&mut self) -> Option<()> {
        self.add("CHARACTER_SET_CLIENT")?;
        self.add("CHARACTER_SET_CONNECTION")?;
        self.add("CHARACTER_SET_RESULTS")?;
        self.add("COLLATION_CONNECTION")
    }
}

/// The tokens of a SET, one ahead.
struct Parser<'a> {
    lexer: Lexer<'a>,
    ahead: Option<Token<'a>>,
    /// The bytes of the token that `next` returned last.
    lexeme: &'a [u8],
}

impl<'a> Parser<'a> {
    fn new(text: &'a [u8]) -> Option<Self> {
        let mut lexer = Lexer::new(text, Mode::ALL[0]);
        match lexer.next() {
            Some(Token::Word(word)) if is(word, "SET") => {}
            Some(_) | None => return None,
        }
        let ahead = lexer.next();
        Some(Self { lexer, ahead, lexeme: &[] })
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.lexeme = self.lexer.lexeme();
        std::mem::replace(&mut self.ahead, self.lexer.next())
    }

    /// Nothing in the text can be read in another way.
    const fn is_clean(&self) -> bool {
        !self.lexer.has_backslash && !self.lexer.has_executable && !self.lexer.has_source_hint
    }

    fn takes_word(&mut self, keyword: &str) -> bool {
        let is_next = matches!(self.ahead, Some(Token::Word(word)) if is(word, keyword));
        if is_next {
            self.next();
        }
        is_next
    }

    fn item(&mut self, setting: &mut Setting) -> Option<()> {
        let is_character = self.takes_word("CHARACTER");
        if is_character || self.takes_word("CHARSET") {
            if is_character && !self.takes_word("SET") {
                return None;
            }
            let name = self.name()?;
            setting.follows_database = true;
            setting.charset = Some(Charset::of(name));
            return setting.add_charsets();
        }
        if self.takes_word("NAMES") {
            let name = self.name()?;
            if self.takes_word("COLLATE") {
                self.name()?;
            }
            setting.charset = Some(Charset::of(name));
            return setting.add_charsets();
        }
        let is_session = self.takes_word("SESSION") || self.takes_word("LOCAL");
        if is_session && self.takes_word("TRANSACTION") {
            return self.isolation(setting);
        }
        let (scope, name) = match self.next() {
            Some(Token::Word(name)) if is_session => (Scope::Session, name),
            Some(Token::Word(name)) => (Scope::Plain, name),
            Some(Token::SystemVariable(scope, name)) if !is_session => {
                let is_isolation = is(name, "TRANSACTION_ISOLATION") || is(name, "TX_ISOLATION");
                if scope == Scope::Beyond || (is_isolation && scope == Scope::Plain) {
                    // `@@transaction_isolation` alone means the next transaction only.
                    return None;
                }
                (scope, name)
            }
            Some(_) | None => return None,
        };
        debug_assert!(scope != Scope::Beyond, "refused above");
        if self.ahead == Some(Token::Symbol(b':')) {
            self.next();
        }
        if self.next()? != Token::Symbol(b'=') {
            return None;
        }
        self.value(name, setting)
    }

    /// SET SESSION TRANSACTION ISOLATION LEVEL.
    fn isolation(&mut self, setting: &mut Setting) -> Option<()> {
        if !self.takes_word("ISOLATION") || !self.takes_word("LEVEL") {
            return None;
        }
        let is_known = if self.takes_word("REPEATABLE") {
            self.takes_word("READ")
        } else {
            // SERIALIZABLE makes reads lock, so they belong on the source.
            self.takes_word("READ")
                && (self.takes_word("COMMITTED") || self.takes_word("UNCOMMITTED"))
        };
        if !is_known {
            return None;
        }
        setting.add("TRANSACTION_ISOLATION")?;
        setting.add("TX_ISOLATION")
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        match self.next() {
            Some(Token::Word(name) | Token::Text(name) | Token::Ambiguous(name)) => Some(name),
            Some(_) | None => None,
        }
    }

    /// The right side: literals and signs, or CONCAT and REPLACE over the variable itself.
    fn value(&mut self, name: &[u8], setting: &mut Setting) -> Option<()> {
        let upper = name.to_ascii_uppercase();
        let variable = std::str::from_utf8(&upper).ok()?;
        let (mut only, mut count, mut depth) = (None, 0usize, 0usize);
        loop {
            match self.ahead {
                None | Some(Token::Symbol(b';')) => break,
                Some(Token::Symbol(b',')) if depth == 0 => break,
                Some(_) => {}
            }
            let token = self.next();
            count += 1;
            only = match token {
                Some(Token::Text(text) | Token::Ambiguous(text)) => Some(text),
                Some(_) | None => Some(self.lexeme),
            }
            .filter(|_| count == 1);
            match token {
                // Another grammar.
                Some(Token::Text(text) | Token::Ambiguous(text))
                    if variable == "SQL_MODE"
                        && (is_part(text, b"ORACLE") || is_part(text, b"MSSQL")) =>
                {
                    return None;
                }
                Some(Token::Text(_) | Token::Ambiguous(_) | Token::Number) => {}
                Some(Token::Symbol(b'-' | b'+' | b',')) => {}
                Some(Token::Symbol(b'(')) if depth > 0 => depth += 1,
                Some(Token::Symbol(b')')) if depth > 0 => depth -= 1,
                Some(Token::Word(word)) if self.ahead == Some(Token::Symbol(b'(')) => {
                    if !is(word, "CONCAT") && !is(word, "REPLACE") {
                        return None;
                    }
                    self.next();
                    depth += 1;
                    setting.is_plain = false;
                }
                Some(Token::Word(_)) if depth == 0 => {}
                Some(Token::SystemVariable(Scope::Plain | Scope::Session, other))
                    if other.eq_ignore_ascii_case(name) =>
                {
                    setting.is_plain = false;
                }
                Some(_) | None => return None,
            }
        }
        if depth > 0 || count == 0 {
            return None;
        }
        assign(variable, only, setting)
    }
}

/// Notes one assignment, unless this variable cannot have this value on another connection.
/// `only` is the value if it is a single token.
fn assign(variable: &str, only: Option<&[u8]>, setting: &mut Setting) -> Option<()> {
    let says = |words: &[&str]| only.is_some_and(|text| words.iter().any(|word| is(text, word)));
    match variable {
        // The status flags tell the truth about it; on is what every connection starts with.
        "AUTOCOMMIT" if !says(&["ON", "TRUE", "1"]) => return None,
        "SQL_AUTO_IS_NULL" if !says(&["OFF", "FALSE", "0"]) => return None,
        // SERIALIZABLE makes reads lock, so they belong on the source.
        "TRANSACTION_ISOLATION" | "TX_ISOLATION" => {
            if !says(&["REPEATABLE-READ", "READ-COMMITTED", "READ-UNCOMMITTED"]) {
                return None;
            }
            setting.add("TRANSACTION_ISOLATION")?;
            setting.add("TX_ISOLATION")?;
        }
        "CHARACTER_SET_CLIENT" => {
            setting.charset = Some(Charset::of(only?));
        }
        "CHARACTER_SET_CONNECTION" | "COLLATION_CONNECTION" => {
            setting.add("CHARACTER_SET_CONNECTION")?;
            setting.add("COLLATION_CONNECTION")?;
        }
        // A list of flags: what it does not name keeps its value.
        "OPTIMIZER_SWITCH" => setting.is_plain = false,
        _ => {}
    }
    setting.add(variable)
}

fn is_part(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word))
}

/// What was set in a session, in order.
#[derive(Debug, Default)]
pub struct History {
    entries: Vec<Entry>,
    /// Settings so far, those that were replaced included.
    version: u32,
}

#[derive(Debug)]
struct Entry {
    version: u32,
    /// The payload of its COM_QUERY.
    payload: Box<[u8]>,
    setting: Setting,
}

impl History {
    /// Notes a setting that a connection has taken; returns the version that this connection has.
    pub fn note(&mut self, payload: &[u8], setting: Setting) -> u32 {
        self.entries.retain(|entry| !setting.replaces(&entry.setting));
        self.version += 1;
        self.entries.push(Entry { version: self.version, payload: payload.into(), setting });
        self.version
    }

    /// What a connection at `version` has to be told next: the payload, and its version then.
    #[must_use]
    pub fn after(&self, version: u32) -> Option<(&[u8], u32)> {
        let entry = self.entries.iter().find(|entry| entry.version > version)?;
        Some((&entry.payload, entry.version))
    }

    /// It is time to stop noting and stay on the source, which then has them all.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.entries.len() >= limits::SQL_SETTINGS_MAX
            || self.entries.iter().map(|entry| entry.payload.len()).sum::<usize>()
                > limits::SQL_SETTINGS_BYTES_MAX
    }

    /// Something in it depends on the default database.
    #[must_use]
    pub fn follows_database(&self) -> bool {
        self.entries.iter().any(|entry| entry.setting.follows_database)
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

/// The session variables that mean the same on both hosts, sorted; at most 128.
const VARIABLES: &[&str] = &[
    "AUTOCOMMIT",
    "BIG_TABLES",
    "BLOCK_ENCRYPTION_MODE",
    "BULK_INSERT_BUFFER_SIZE",
    "CHARACTER_SET_CLIENT",
    "CHARACTER_SET_CONNECTION",
    "CHARACTER_SET_RESULTS",
    "COLLATION_CONNECTION",
    "CTE_MAX_RECURSION_DEPTH",
    "DEFAULT_STORAGE_ENGINE",
    "DEFAULT_TMP_STORAGE_ENGINE",
    "DEFAULT_WEEK_FORMAT",
    "DIV_PRECISION_INCREMENT",
    "EQ_RANGE_INDEX_DIVE_LIMIT",
    "EXPLICIT_DEFAULTS_FOR_TIMESTAMP",
    "FOREIGN_KEY_CHECKS",
    "GROUP_CONCAT_MAX_LEN",
    "INFORMATION_SCHEMA_STATS_EXPIRY",
    "INNODB_LOCK_WAIT_TIMEOUT",
    "INNODB_STRICT_MODE",
    "INTERACTIVE_TIMEOUT",
    "JOIN_BUFFER_SIZE",
    "LC_MESSAGES",
    "LC_TIME_NAMES",
    "LOCK_WAIT_TIMEOUT",
    "LONG_QUERY_TIME",
    "LOW_PRIORITY_UPDATES",
    "MAX_ERROR_COUNT",
    "MAX_EXECUTION_TIME",
    "MAX_HEAP_TABLE_SIZE",
    "MAX_JOIN_SIZE",
    "MAX_LENGTH_FOR_SORT_DATA",
    "MAX_RECURSIVE_ITERATIONS",
    "MAX_SEEKS_FOR_KEY",
    "MAX_SORT_LENGTH",
    "MAX_STATEMENT_TIME",
    "MIN_EXAMINED_ROW_LIMIT",
    "NET_READ_TIMEOUT",
    "NET_RETRY_COUNT",
    "NET_WRITE_TIMEOUT",
    "OLD_ALTER_TABLE",
    "OPTIMIZER_PRUNE_LEVEL",
    "OPTIMIZER_SEARCH_DEPTH",
    "OPTIMIZER_SWITCH",
    "OPTIMIZER_USE_CONDITION_SELECTIVITY",
    "QUERY_CACHE_TYPE",
    "RANGE_OPTIMIZER_MAX_MEM_SIZE",
    "READ_BUFFER_SIZE",
    "READ_RND_BUFFER_SIZE",
    "SESSION_TRACK_GTIDS",
    "SESSION_TRACK_SCHEMA",
    "SESSION_TRACK_STATE_CHANGE",
    "SESSION_TRACK_SYSTEM_VARIABLES",
    "SESSION_TRACK_TRANSACTION_INFO",
    "SHOW_CREATE_TABLE_VERBOSITY",
    "SORT_BUFFER_SIZE",
    "SQL_AUTO_IS_NULL",
    "SQL_BIG_SELECTS",
    "SQL_BUFFER_RESULT",
    "SQL_MODE",
    "SQL_NOTES",
    "SQL_QUOTE_SHOW_CREATE",
    "SQL_SAFE_UPDATES",
    "SQL_SELECT_LIMIT",
    "SQL_WARNINGS",
    "STORAGE_ENGINE",
    "TIMESTAMP",
    "TIME_ZONE",
    "TMP_TABLE_SIZE",
    "TRANSACTION_ISOLATION",
    "TX_ISOLATION",
    "UNIQUE_CHECKS",
    "UPDATABLE_VIEWS_WITH_LIMIT",
    "WAIT_TIMEOUT",
    "WINDOWING_USE_HIGH_PRECISION",
];

const _: () = assert!(VARIABLES.len() <= 128, "a place for each in the mask");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frameworks_set_is_understood() {
        let texts = r#"
            SET NAMES utf8mb4
            set names 'utf8' collate utf8_bin;
            SET NAMES "latin1"
            SET CHARACTER SET utf8
            SET SESSION sql_mode = 'NO_ENGINE_SUBSTITUTION,STRICT_TRANS_TABLES'
            SET sql_mode=''
            SET SESSION sql_mode='NO_AUTO_VALUE_ON_ZERO', time_zone = "+00:00"
            SET NAMES 'utf8mb4' COLLATE 'utf8mb4_unicode_ci', SESSION sql_mode='ANSI';
            SET @@SESSION.sql_mode = CONCAT(CONCAT(@@sql_mode, ',A'), ',B'), @@wait_timeout = 7
            SET @@SESSION.sql_auto_is_null = 0, @@SESSION.wait_timeout = 2147483
            SET character_set_results = NULL, autocommit=1, sql_mode=concat(@@sql_mode,',ANSI')
            SET @@session.group_concat_max_len := 1000000
            SET foreign_key_checks=0
            SET foreign_key_checks = DEFAULT
            SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED
            SET SESSION transaction_isolation = 'READ-COMMITTED'
            SET time_zone = SYSTEM -- as it is
            SET timestamp = -1.5"#;
        for text in table(texts) {
            assert!(Setting::parse(text.as_bytes()).is_some(), "{text}");
        }
    }

    #[test]
    fn what_may_mean_something_else_is_not() {
        let texts = r#"
            SET @a = 1
            SET sql_mode = @old
            SET sql_mode = @@time_zone
            SET sql_mode = (SELECT 'x')
            SET sql_mode = f()
            SET timestamp = UNIX_TIMESTAMP()
            SET timestamp = NOW() + 1
            SET GLOBAL sql_mode = ''
            SET @@global.sql_mode = ''
            SET @@persist.sql_mode = ''
            SET SESSION @@sql_mode = ''
            SET autocommit = 0
            SET autocommit = 0, sql_mode = ''
            SET autocommit = 1 - 1, sql_mode = ''
            SET sql_auto_is_null = 1
            SET transaction_isolation = SERIALIZABLE
            SET sql_mode = CONCAT(@@sql_mode, ',oracle')
            SET sql_log_bin = 0
            SET insert_id = 5
            SET sql_mode = 'ORACLE'
            SET sql_mode = 'a\''
            SET TRANSACTION ISOLATION LEVEL READ COMMITTED
            SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE
            SET SESSION TRANSACTION READ ONLY
            SET @@transaction_isolation = 'READ-COMMITTED'
            SET STATEMENT max_statement_time = 1 FOR SELECT 1
            SET sql_mode = '', @b = 2
            SET sql_mode = ''; DELETE FROM t
            SET sql_mode
            SET sql_mode =
            SET sql_mode = CONCAT('a'
            SET NAMES
            SET
            SET /*!40101 sql_mode = '' */
            /*master*/ SET sql_mode = ''
            SELECT 1"#;
        for text in table(texts) {
            assert_eq!(Setting::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Setting::parse("SET lc_time_names = '\u{e9}'".as_bytes()), None);
    }

    #[test]
    fn the_history_holds_what_still_counts_in_order() {
        let mut history = History::default();
        let mut note = |text: &str| {
            let setting = Setting::parse(text.as_bytes()).expect(text);
            history.note(text.as_bytes(), setting)
        };
        note("SET sql_mode = 'A'");
        note("SET time_zone = 'x', sql_notes = 0");
        note("SET sql_mode = CONCAT(@@sql_mode, 'B')");
        note("SET time_zone = 'y'");
        note("SET NAMES utf8");
        note("SET collation_connection = utf8_bin");
        let all = |history: &History| {
            let (mut version, mut seen) = (0, Vec::new());
            while let Some((payload, next)) = history.after(version) {
                seen.push(String::from_utf8_lossy(payload).into_owned());
                version = next;
            }
            seen
        };
        assert_eq!(all(&history).len(), 6, "nothing is replaced whole");
        for text in ["SET sql_mode = ''", "SET NAMES latin1", "SET time_zone = 'z', sql_notes = 1"]
        {
            history.note(text.as_bytes(), Setting::parse(text.as_bytes()).expect(text));
        }
        assert_eq!(
            all(&history),
            ["SET sql_mode = ''", "SET NAMES latin1", "SET time_zone = 'z', sql_notes = 1"]
        );
        assert_eq!(history.after(9), None);
        history.clear();
        assert_eq!(history.after(0), None);
    }

    #[test]
    fn the_history_says_when_it_is_full() {
        let mut history = History::default();
        let text = b"SET sql_mode = CONCAT(@@sql_mode, 'B')";
        let setting = Setting::parse(text).expect("parses");
        for _ in 0..limits::SQL_SETTINGS_MAX {
            assert!(!history.is_full());
            history.note(text, setting);
        }
        assert!(history.is_full());
    }

    #[test]
    fn the_variables_are_sorted_for_the_search() {
        assert!(VARIABLES.windows(2).all(|pair| pair[0] < pair[1]));
    }

    fn table(texts: &str) -> Vec<&str> {
        texts.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }
}
