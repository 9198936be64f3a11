//! Classifies a statement: who may run it, and what it leaves behind in the session.
//!
//! In: the text of a statement. Out: a `Verdict`. Must not: guess. What is not proved to be a read
//! goes to the source; what may change the session's state keeps the session there.
//! Read first: facts/sql.md section 3, traps 13 to 46.

use super::lexer::{self, Lexer, Mode, Scope, Token};
use super::setting::Setting;
use super::words::{self, is, is_in};

/// Who may run a statement, from the freest to the strictest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A proved read: the replica may run it.
    Replica,
    /// The connection that ran the statement before.
    Last,
    Source,
    /// The source, and so does everything after it in this session.
    SourcePin,
}

/// What the session has to remember if the server says OK.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    None,
    /// The default database changes.
    Use(Vec<u8>),
    /// SET NAMES, SET of variables; the other connection has to repeat the text.
    Set(Setting),
    /// KILL, alone or among others, which would hit whoever has that number on the server.
    Kill,
    /// COMMIT RELEASE: the server closes the connection, and so has the client's to be.
    Close,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub class: Class,
    /// May change data, so that the session reads its own writes from the source for a while.
    pub is_write: bool,
    /// The connection cannot be cleaned for somebody else by a reset.
    pub is_dirty: bool,
    /// More than one statement, so that an error does not say that nothing was done.
    pub is_multiple: bool,
    /// Calls CONNECTION_ID(), which is the session's own number.
    pub asks_number: bool,
    /// On Atlas's blocklist: DELETE or UPDATE without WHERE or LIMIT, SLEEP.
    pub is_risky: bool,
    pub effect: Effect,
}

impl Verdict {
    const fn new(class: Class, is_write: bool, is_dirty: bool) -> Self {
        Self {
            class,
            is_write,
            is_dirty,
            is_multiple: false,
            asks_number: false,
            is_risky: false,
            effect: Effect::None,
        }
    }

    /// A read that any host answers alike.
    pub const READ: Self = Self::new(Class::Replica, false, false);
    /// Needs the source, changes nothing.
    pub const SOURCE: Self = Self::new(Class::Source, false, false);
    pub const WRITE: Self = Self::new(Class::Source, true, false);
    /// Changes session state that a reset takes away again.
    pub const PIN: Self = Self::new(Class::SourcePin, true, false);
    /// Nobody knows what it does.
    pub const OPAQUE: Self = Self::new(Class::SourcePin, true, true);
    const LAST: Self = Self::new(Class::Last, false, false);

    /// The stricter of two readings of the same bytes.
    fn stricter(self, other: Self) -> Self {
        let is_kill = self.effect == Effect::Kill || other.effect == Effect::Kill;
        let is_same = self.effect == other.effect;
        let mut verdict = Self {
            class: self.class.max(other.class),
            is_write: self.is_write || other.is_write,
            is_dirty: self.is_dirty || other.is_dirty,
            is_multiple: self.is_multiple || other.is_multiple,
            asks_number: self.asks_number || other.asks_number,
            is_risky: self.is_risky || other.is_risky,
            effect: match self.effect {
                _ if is_kill => Effect::Kill,
                effect if is_same => effect,
                Effect::None | Effect::Use(_) | Effect::Set(_) | Effect::Kill | Effect::Close => {
                    Effect::None
                }
            },
        };
        if !is_same {
            verdict.class = Class::SourcePin;
            verdict.is_dirty = true;
        }
        verdict
    }
}

/// What bytes may mean in a character set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Charset {
    /// Bytes from 0x80 up are parts of words.
    Utf8,
    /// A byte below 0x80 always means itself; one above may be white space.
    Plain,
    /// The second byte of a character may be a backslash or a backtick, or nobody knows.
    #[default]
    Unknown,
}

impl Charset {
    /// The character set of this name, in any case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        if is(name, "UTF8") || is(name, "UTF8MB3") || is(name, "UTF8MB4") {
            Self::Utf8
        } else if is_in(words::PLAIN_CHARSETS, name) {
            Self::Plain
        } else {
            Self::Unknown
        }
    }
}

/// What is known of how the server reads a statement's bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Of the client's character set, as the last `Effect::Set` or the log-in said.
    pub charset: Charset,
    /// A reply's status flags said that NO_BACKSLASH_ESCAPES is off.
    pub has_escapes: bool,
}

/// Classifies the text of a COM_QUERY.
#[must_use]
pub fn classify(text: &[u8], reading: Reading) -> Verdict {
    if reading.charset == Charset::Unknown && lexer::has_trail_quote(text) {
        return Verdict { is_multiple: true, ..Verdict::OPAQUE };
    }
    if let Some(setting) = Setting::parse(text) {
        return Verdict { effect: Effect::Set(setting), ..Verdict::READ };
    }
    let [default, rest @ ..] = Mode::ALL;
    let (mut verdict, lexer) = Scan::run(text, default);
    if (lexer.has_doubtful_space && reading.charset != Charset::Utf8)
        || (lexer.has_executable && hides_more(text))
    {
        return Verdict { is_multiple: true, ..Verdict::OPAQUE };
    }
    if lexer.has_backslash {
        // sql_mode may be set globally, so every possible reading of the backslashes must agree.
        for mode in rest {
            if reading.has_escapes && !mode.escapes_in_single {
                continue;
            }
            verdict = verdict.stricter(Scan::run(text, mode).0);
        }
    }
    verdict
}

/// Whether an executable comment may end elsewhere for a server that skips it than for one that
/// executes it: something in the text makes a `*/` that is no end, or looks like one.
fn hides_more(text: &[u8]) -> bool {
    let ends = text.windows(2).filter(|pair| pair == b"*/").count();
    let begins = text.windows(2).filter(|pair| pair == b"/*").count();
    ends != begins
        || text.windows(2).any(|pair| pair == b"--")
        || text.iter().any(|byte| matches!(byte, b'\'' | b'"' | b'`' | b'#'))
}

/// What is known of a statement after looking at all its tokens.
#[derive(Debug, Default)]
struct Scan<'a> {
    /// The first words, without leading parentheses.
    head: heapless::Vec<Token<'a>, HEAD_TOKENS>,
    tokens: usize,
    has_user_variable: bool,
    has_source_variable: bool,
    has_last: bool,
    /// A keyword or function that a read does not have.
    has_write_word: bool,
    has_lock_function: bool,
    has_unknown_function: bool,
    has_source_function: bool,
    is_multiple: bool,
    asks_number: bool,
    is_risky: bool,
    /// One of the statements is a KILL.
    has_kill: bool,
    /// Of the statement at hand, among several: it deletes or updates, and what bounds it.
    is_sweeping: bool,
    is_bounded: bool,
    words_of_statement: usize,
    is_broken: bool,
    /// Open parentheses.
    depth: usize,
    /// Among the names of WITH, where a name with a parenthesis is a table with its columns.
    is_in_with: bool,
}

/// The token before, as far as the next one's meaning depends on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before<'a> {
    Nothing,
    Dot,
    Word {
        word: &'a [u8],
        is_qualified: bool,
    },
    /// A quoted name, which a parenthesis makes a stored function.
    Name,
}

impl<'a> Scan<'a> {
    fn run(text: &'a [u8], mode: Mode) -> (Verdict, Lexer<'a>) {
        let mut lexer = Lexer::new(text, mode);
        let mut scan = Self::default();
        let mut before = Before::Nothing;
        let mut is_ended = false;
        while let Some(token) = lexer.next() {
            scan.is_multiple |= is_ended;
            if token == Token::Symbol(b';') {
                is_ended = true;
                before = Before::Nothing;
                scan.end_statement();
                continue;
            }
            let is_leading = token == Token::Symbol(b'(') && scan.tokens == 0;
            if !is_leading {
                scan.tokens += 1;
                let _full = scan.head.push(token);
            }
            before = scan.token(token, before, lexer.is_spaced);
        }
        scan.end_statement();
        let mut verdict = scan.verdict();
        if lexer.has_executable || lexer.has_source_hint || scan.is_broken {
            verdict.class = verdict.class.max(Class::Source);
        }
        if scan.is_multiple || (scan.is_broken && lexer.has_executable) {
            verdict = Verdict { is_multiple: true, ..Verdict::OPAQUE };
        }
        if scan.has_user_variable || scan.has_lock_function || scan.has_unknown_function {
            verdict.class = Class::SourcePin;
            verdict.is_write = true;
        }
        if lexer.has_executable && verdict.effect != Effect::None {
            // Whether it is executed depends on the server: nothing to repeat elsewhere.
            verdict = Verdict::OPAQUE;
        }
        verdict.is_risky = scan.is_risky;
        verdict.asks_number = scan.asks_number;
        if scan.has_kill && !scan.nth_is(0, "CREATE") {
            verdict.effect = Effect::Kill;
        }
        (verdict, lexer)
    }

    fn end_statement(&mut self) {
        self.is_risky |= self.is_sweeping && !self.is_bounded;
        (self.is_sweeping, self.is_bounded, self.words_of_statement) = (false, false, 0);
    }

    fn token(&mut self, token: Token<'a>, before: Before<'a>, is_spaced: bool) -> Before<'a> {
        if let Before::Word { word, is_qualified: false } = before {
            // INSERT( and REPLACE( are functions.
            self.has_write_word |=
                (is(word, "INSERT") || is(word, "REPLACE")) && token != Token::Symbol(b'(');
        }
        match token {
            Token::Word(word) => {
                let is_qualified = before == Before::Dot;
                self.word(word, before);
                Before::Word { word, is_qualified }
            }
            Token::Symbol(b'(') => {
                match before {
                    Before::Nothing | Before::Dot => {}
                    Before::Word { .. } | Before::Name if self.is_in_with && self.depth == 0 => {}
                    Before::Word { word, is_qualified } => self.call(word, is_qualified, is_spaced),
                    Before::Name => self.unknown_function(),
                }
                self.depth += 1;
                Before::Nothing
            }
            Token::Symbol(b')') => {
                self.depth = self.depth.saturating_sub(1);
                Before::Nothing
            }
            Token::Symbol(b'.') => Before::Dot,
            Token::Name(_) | Token::Ambiguous(_) => Before::Name,
            Token::UserVariable => {
                self.has_user_variable |= !self.names_users();
                Before::Nothing
            }
            Token::SystemVariable(_, name) => {
                if is(name, "WARNING_COUNT") || is(name, "ERROR_COUNT") {
                    self.has_last = true;
                } else if !is_in(words::PLAIN_VARIABLES, name) {
                    self.has_source_variable = true;
                }
                Before::Nothing
            }
            Token::Broken => {
                self.is_broken = true;
                Before::Nothing
            }
            Token::Text(_) | Token::Number | Token::Symbol(_) => Before::Nothing,
        }
    }

    /// A word that makes a read something else, wherever it stands.
    fn word(&mut self, word: &[u8], before: Before<'_>) {
        let follows = |keyword| matches!(before, Before::Word { word, .. } if is(word, keyword));
        self.has_write_word |= is(word, "INTO")
            || is(word, "LOCK")
            || is(word, "UPDATE")
            || is(word, "DELETE")
            || is(word, "PROCEDURE")
            || is(word, "NEXTVAL")
            || is(word, "CURRVAL")
            || (is(word, "SHARE") && follows("FOR"))
            || (is(word, "VALUE") && (follows("NEXT") || follows("PREVIOUS")));
        self.has_lock_function |= is_in(words::LOCKS, word);
        // The verb is the first word, or the first after the names of a WITH.
        let is_verb = self.words_of_statement == 0 || (self.is_in_with && self.depth == 0);
        self.has_kill |= self.words_of_statement == 0 && is(word, "KILL");
        self.words_of_statement += 1;
        self.is_sweeping |= is_verb && (is(word, "DELETE") || is(word, "UPDATE"));
        self.is_bounded |= self.depth == 0 && (is(word, "WHERE") || is(word, "LIMIT"));
        if self.words_of_statement == 1 {
            self.is_in_with = is(word, "WITH");
        } else if self.depth == 0 && is_in(AFTER_WITH, word) {
            self.is_in_with = false;
        }
    }

    fn call(&mut self, word: &[u8], is_qualified: bool, is_spaced: bool) {
        self.is_risky |= is(word, "SLEEP");
        self.asks_number |= is(word, "CONNECTION_ID");
        if is_qualified {
            self.unknown_function();
        } else if is_in(words::LAST_FUNCTIONS, word) {
            self.has_last = true;
        } else if is_in(words::SOURCE_FUNCTIONS, word) || is_in(words::LOCKS, word) {
            self.has_source_function = true;
        } else if is_in(words::PURE_FUNCTIONS, word) {
            if is_spaced && is_in(words::ADJACENT_FUNCTIONS, word) {
                self.unknown_function();
            }
        } else if !is_in(words::KEYWORDS, word) {
            self.unknown_function();
        }
    }

    /// A stored function may do anything, a temporary table included. In a statement that writes
    /// anyway it is more likely a table with its columns, or a type.
    fn unknown_function(&mut self) {
        let is_write = self.is_first_in(words::WRITES) && !self.nth_is(0, "DO");
        self.has_unknown_function |= !is_write;
        self.has_source_function = true;
    }

    /// GRANT and its kin, in which `user@host` is no variable.
    fn names_users(&self) -> bool {
        self.is_first_in(&["GRANT", "REVOKE"])
            || (self.is_first_in(&["ALTER", "CREATE", "DROP", "RENAME", "SHOW"])
                && matches!(self.head.get(1), Some(Token::Word(word))
                    if is_in(&["GRANTS", "ROLE", "USER"], word)))
    }

    fn nth_is(&self, index: usize, keyword: &str) -> bool {
        matches!(self.head.get(index), Some(Token::Word(word)) if is(word, keyword))
    }

    fn is_first_in(&self, list: &[&str]) -> bool {
        matches!(self.head.first(), Some(Token::Word(word)) if is_in(list, word))
    }

    fn verdict(&self) -> Verdict {
        let Some(first) = self.head.first() else {
            // Empty or a comment: the server says so, and nothing changes.
            return Verdict { class: Class::Source, ..Verdict::READ };
        };
        let Token::Word(first) = first else { return Verdict::OPAQUE };
        match first.to_ascii_uppercase().as_slice() {
            b"SELECT" | b"WITH" => self.read(),
            b"VALUES" | b"TABLE" => self.read().stricter(Verdict::SOURCE),
            b"SHOW" => self.show(),
            b"EXPLAIN" | b"DESC" | b"DESCRIBE" => self.explain(),
            b"HELP" => self.read(),
            b"CHECKSUM" if self.nth_is(1, "TABLE") => self.read(),
            b"USE" => self.use_database(),
            b"SET" => self.set(),
            b"KILL" => Verdict::SOURCE,
            b"COMMIT" | b"ROLLBACK" if self.releases() => {
                Verdict { effect: Effect::Close, ..Verdict::WRITE }
            }
            b"BEGIN" if self.tokens == 1 || (self.tokens == 2 && self.nth_is(1, "WORK")) => {
                Verdict::SOURCE
            }
            b"START" if self.nth_is(1, "TRANSACTION") => Verdict::SOURCE,
            b"CREATE" | b"DROP" | b"ALTER" => self.define(),
            b"CALL" | b"LOCK" | b"UNLOCK" | b"HANDLER" => Verdict::PIN,
            word if is_in(words::WRITES, word) => Verdict::WRITE,
            _ => Verdict::OPAQUE,
        }
    }

    /// A statement that reads unless one of its words says otherwise.
    fn read(&self) -> Verdict {
        if self.has_write_word || self.has_source_function || self.is_broken {
            // Functions: LAST_INSERT_ID(7) and NEXTVAL() change what later statements see.
            Verdict::WRITE
        } else if self.has_source_variable {
            Verdict::SOURCE
        } else if self.has_last {
            Verdict::LAST
        } else {
            Verdict::READ
        }
    }

    fn show(&self) -> Verdict {
        let at = usize::from(self.nth_is(1, "FULL")) + 1;
        let Some(Token::Word(word)) = self.head.get(at) else { return Verdict::SOURCE };
        if is(word, "WARNINGS") || is(word, "ERRORS") || is(word, "COUNT") {
            Verdict::LAST
        } else if is_in(words::SHOWS, word)
            && !self.has_source_variable
            && !self.has_source_function
        {
            Verdict::READ
        } else {
            Verdict::SOURCE
        }
    }

    fn explain(&self) -> Verdict {
        match self.head.get(1) {
            Some(Token::Word(word)) if is(word, "SELECT") => self.read(),
            Some(Token::Word(word)) if is(word, "FOR") => Verdict::SOURCE,
            Some(Token::Word(word)) if self.is_table_name(word) => self.read(),
            Some(Token::Name(_)) => self.read(),
            Some(_) | None => Verdict::WRITE,
        }
    }

    /// `DESC t`, `DESC t column`, `DESC db.t`: short, and no statement that can be explained.
    fn is_table_name(&self, word: &[u8]) -> bool {
        let explained: &[&str] = &[
            "ANALYZE",
            "DELETE",
            "EXTENDED",
            "FORMAT",
            "INSERT",
            "INTO",
            "PARTITIONS",
            "REPLACE",
            "TABLE",
            "UPDATE",
            "VALUES",
            "WITH",
        ];
        self.tokens <= 5 && !is_in(explained, word)
    }

    fn use_database(&self) -> Verdict {
        match (self.head.get(1), self.tokens) {
            (Some(Token::Word(name)), 2) => {
                Verdict { effect: Effect::Use(name.to_vec()), ..Verdict::READ }
            }
            (Some(Token::Name(name)), 2) => {
                // A doubled backtick stands for one.
                let mut plain = Vec::with_capacity(name.len());
                let mut bytes = name.iter().copied();
                while let Some(byte) = bytes.next() {
                    plain.push(byte);
                    if byte == b'`' {
                        bytes.next();
                    }
                }
                Verdict { effect: Effect::Use(plain), ..Verdict::READ }
            }
            _ => Verdict::OPAQUE,
        }
    }

    /// A SET that cannot be repeated on the other connection: only what is seen in the status
    /// flags leaves the session free, every other keeps it on the source.
    fn set(&self) -> Verdict {
        match self.head.get(1) {
            Some(_) if self.is_autocommit() => Verdict::WRITE,
            Some(Token::Word(word)) => {
                let strange: &[&str] = &["DEFAULT", "PASSWORD", "RESOURCE", "ROLE", "STATEMENT"];
                if is_in(strange, word) { Verdict::OPAQUE } else { Verdict::PIN }
            }
            Some(_) => Verdict::PIN,
            None => Verdict::WRITE,
        }
    }

    /// `SET [SESSION] autocommit = 1` alone, also as `@@autocommit`: the status flags tell.
    fn is_autocommit(&self) -> bool {
        let at = 1 + usize::from(self.nth_is(1, "SESSION") || self.nth_is(1, "LOCAL"));
        let is_named = match self.head.get(at) {
            Some(
                Token::Word(name) | Token::SystemVariable(Scope::Plain | Scope::Session, name),
            ) => is(name, "AUTOCOMMIT"),
            Some(_) | None => false,
        };
        let colons = usize::from(self.head.get(at + 1) == Some(&Token::Symbol(b':')));
        is_named
            && self.head.get(at + 1 + colons) == Some(&Token::Symbol(b'='))
            && self.tokens == at + 3 + colons
    }

    /// COMMIT [WORK] [AND [NO] CHAIN] RELEASE.
    fn releases(&self) -> bool {
        (1..HEAD_TOKENS).any(|at| self.nth_is(at, "RELEASE") && !self.nth_is(at - 1, "NO"))
    }

    /// CREATE, DROP, ALTER.
    fn define(&self) -> Verdict {
        let has = |keyword| (1..HEAD_TOKENS).any(|index| self.nth_is(index, keyword));
        let is_program =
            ["PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE"].into_iter().any(has);
        if is_program {
            // The body has semicolons of its own, and clients send it as one statement.
            Verdict::OPAQUE
        } else if has("TEMPORARY") {
            Verdict::PIN
        } else if self.nth_is(0, "DROP") && (has("DATABASE") || has("SCHEMA")) {
            // It may be the session's own, and there is no way back to having none.
            Verdict::OPAQUE
        } else {
            Verdict::WRITE
        }
    }
}

/// Tokens at the start of a statement that are looked at one by one.
const HEAD_TOKENS: usize = 8;

/// What ends the list of a WITH.
const AFTER_WITH: &[&str] = &["DELETE", "INSERT", "REPLACE", "SELECT", "TABLE", "UPDATE", "VALUES"];

#[cfg(test)]
mod tests {
    use super::*;

    const UNKNOWN: Reading = Reading { charset: Charset::Utf8, has_escapes: false };
    const KNOWN: Reading = Reading { charset: Charset::Utf8, has_escapes: true };

    fn verdict(text: &str) -> Verdict {
        classify(text.as_bytes(), UNKNOWN)
    }

    #[track_caller]
    fn all_are(class: Class, texts: &[&str]) {
        for text in texts {
            let found = verdict(text);
            assert_eq!(found.class, class, "{text}: {found:?}");
        }
    }

    #[test]
    fn proved_reads_may_go_to_the_replica() {
        let texts = r#"
            SELECT 1
            SELECT*FROM t
            SELECT(1)
            ((SELECT 1) UNION (SELECT 2)) LIMIT 1
            SELECT 'a; DELETE FROM t'
            SELECT ';' -- ;
            SELECT 1;
            SELECT 1; -- x
            SELECT 'for update', `for update`
            SELECT 'it''s \n', "\\"
            SELECT _utf8mb4'for update', N'x', x'00', b'1', 0x1f, 1e5, .5, t.`select`
            SELECT a->'$.x', a->>'$.y' FROM t
            SELECT {ts '2020-01-01'}
            WITH x AS (SELECT 1) SELECT * FROM x
            WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n
            WITH a (x) AS (SELECT 1), `b` (y) AS (SELECT 2) SELECT COUNT(*) FROM a, b
            SELECT SLEEP(1), BENCHMARK(1, 1), UUID(), RAND(), NOW(), COUNT(*), MAX(a) FROM t
            SELECT IF (a, CONCAT (b, c), 1) FROM t WHERE a IN (1, 2) AND (b = 1 OR c IN(3))
            SELECT a FROM t USE INDEX (i) JOIN u USING (a) WHERE MATCH(a) AGAINST ('x')
            SELECT CAST(a AS DECIMAL(10,2)), REPLACE(a, 'b', 'c'), INSERT('a', 1, 1, 'b') FROM t
            SELECT ROW_NUMBER() OVER (PARTITION BY a ORDER BY b) FROM t
            SELECT 'x@y'
            SELECT SQL_CALC_FOUND_ROWS * FROM t LIMIT 1
            SELECT @@version_comment LIMIT 1
            EXPLAIN SELECT 1
            DESC t
            DESCRIBE `t`
            DESC db.t
            EXPLAIN t a
            SHOW TABLES
            SHOW FULL TABLES FROM x LIKE 'y%'
            SHOW CREATE TABLE t
            SHOW FULL COLUMNS FROM t
            SHOW INDEX FROM t
            HELP 'x'
            CHECKSUM TABLE t"#;
        all_are(Class::Replica, &table(texts));
        all_are(Class::Replica, &["/* a */ -- b\n # c\n SELECT 1", "select\t1", "SELECT\x0b\x0c1"]);
    }

    #[test]
    fn what_writes_or_locks_or_is_not_proved_goes_to_the_source() {
        let texts = r#"
            INSERT INTO t VALUES (1)
            INSERT INTO `t` (`a`) VALUES (f(1))
            INSERT INTO db.t (a) SELECT 1
            REPLACE t VALUES (1)
            UPDATE t SET a = 1
            DELETE FROM t RETURNING a
            WITH x AS (SELECT 1) DELETE FROM t
            WITH x AS (SELECT 1) UPDATE t SET a = 1
            WITH x AS (SELECT 1) INSERT t SELECT 1
            WITH x AS (SELECT 1) SELECT * FROM x FOR UPDATE
            SELECT * FROM t FOR UPDATE
            (SELECT * FROM t FOR UPDATE)
            SELECT * FROM t FOR SHARE
            SELECT * FROM t LOCK IN SHARE MODE
            SELECT 1 INTO OUTFILE '/x'
            SELECT 1.INTO OUTFILE '/x'
            SELECT a INTO v1 FROM t
            SELECT 1 /*! FOR UPDATE */
            SELECT /*!40001 SQL_NO_CACHE */ * FROM t
            /*!40001 DELETE FROM t */
            /*master*/SELECT 1
            /* master */ SELECT 1
            SELECT /*master*/ 1
            VALUES (1)
            TABLE t
            DO SLEEP(1)
            SELECT LAST_INSERT_ID()
            SELECT LAST_INSERT_ID() AS id
            SELECT @@identity
            SELECT @@last_insert_id
            SELECT @@global.read_only
            SELECT CONNECTION_ID()
            SELECT NEXTVAL(s)
            SELECT NEXT VALUE FOR s
            SELECT s.nextval
            SELECT LOAD_FILE('/x')
            SELECT MASTER_POS_WAIT('x', 1)
            EXPLAIN UPDATE t SET a = 1
            EXPLAIN ANALYZE SELECT 1
            EXPLAIN FOR CONNECTION 5
            ANALYZE TABLE t
            ANALYZE SELECT 1
            SHOW MASTER STATUS
            SHOW BINARY LOG STATUS
            SHOW PROCESSLIST
            SHOW FULL PROCESSLIST
            SHOW ENGINE INNODB STATUS
            SHOW VARIABLES
            SHOW TABLES WHERE LAST_INSERT_ID(5) = 1
            SHOW SLAVE STATUS
            TRUNCATE t
            CREATE TABLE t (a INT)
            DROP TABLE t
            BEGIN
            BEGIN WORK
            START TRANSACTION READ ONLY
            COMMIT AND CHAIN
            ROLLBACK TO x
            SAVEPOINT x
            SET autocommit=0
            SET @@autocommit:=0
            SET SESSION autocommit = OFF
            SELECT 'unterminated
            SELECT 1 /* unterminated
            -- nothing
            GRANT ALL ON *.* TO u"#;
        all_are(Class::Source, &table(texts));
        all_are(Class::Source, &["", " "]);
    }

    #[test]
    fn a_user_at_a_host_is_no_variable() {
        let texts = "GRANT ALL ON *.* TO u@'h', `v`@h
            REVOKE ALL ON *.* FROM u@h
            CREATE USER u@h
            SHOW GRANTS FOR u@h";
        all_are(Class::Source, &table(texts));
    }

    #[test]
    fn what_leaves_state_behind_keeps_the_session_on_the_source() {
        let texts = r#"
            SELECT 1; DELETE FROM t
            SELECT 1; WITH x AS (SELECT 1) DELETE FROM t
            SELECT ';'; SELECT 2
            SELECT 'it''s \' ; DELETE FROM t; -- '
            SET @a = 1
            SELECT @a
            SELECT 1 INTO @a
            SELECT @c := @c + 1
            SELECT @`x`, @'x'
            SET sql_mode = @old
            SET sql_log_bin = 0
            SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE
            SET TRANSACTION READ ONLY
            SET SESSION autocommit=0, names='x'
            SET NAMES utf8mb4, @a = 1
            SET GLOBAL x = 1
            SET PASSWORD = 'x'
            SET ROLE x
            SET STATEMENT x=1 FOR SELECT 1
            CREATE TEMPORARY TABLE t (a INT)
            DROP TEMPORARY TABLE t
            LOCK TABLES t READ
            UNLOCK TABLES
            FLUSH TABLES WITH READ LOCK
            DO my_function(1)
            SELECT 1 /*!99999 ' */ ; DELETE FROM t -- ' */
            SELECT 1 /*!99999 /* */ ; DELETE FROM t */
            SELECT GET_LOCK('a', 1)
            DO GET_LOCK('a', 1)
            INSERT INTO t VALUES (GET_LOCK('a', 1))
            SELECT IS_USED_LOCK('a')
            DO RELEASE_ALL_LOCKS()
            PREPARE p FROM 'SELECT 1'
            EXECUTE p
            EXECUTE IMMEDIATE 'x'
            DEALLOCATE PREPARE p
            HANDLER t OPEN
            XA START 'x'
            CALL p()
            BEGIN NOT ATOMIC SELECT 1; END
            CREATE PROCEDURE p() BEGIN SELECT 1; SELECT 2; END
            SELECT my_function(1)
            SELECT db.concat(1)
            SELECT `concat`(1)
            SELECT "concat"(1)
            SELECT COUNT (*) FROM t
            SELEKT 1
            ROUTER SET x
            ( UPDATE t SET a = 1
            GET DIAGNOSTICS @n = NUMBER
            /*!40101 SET @OLD=@@CHARACTER_SET_CLIENT */
            /*!40101 SET NAMES utf8 */
            /*M!100100 SET x=1 */"#;
        let found: Vec<&str> =
            table(texts).into_iter().filter(|it| verdict(it).class != Class::SourcePin).collect();
        assert_eq!(found, ["( UPDATE t SET a = 1"], "a syntax error, whatever happens to it");
        all_are(Class::SourcePin, &["SELECT\u{a0}1", "\u{feff}SELECT 1"]);
    }

    #[test]
    fn questions_about_the_statement_before_go_where_it_ran() {
        let texts = "SHOW WARNINGS
            SHOW ERRORS LIMIT 1
            SHOW COUNT(*) WARNINGS
            SELECT @@warning_count
            SELECT FOUND_ROWS()
            SELECT ROW_COUNT()";
        all_are(Class::Last, &table(texts));
    }

    #[test]
    fn database_and_character_set_are_effects() {
        let of = |text| verdict(text).effect;
        assert_eq!(of("USE x"), Effect::Use(b"x".to_vec()));
        assert_eq!(of("use `a``b`;"), Effect::Use(b"a`b".to_vec()));
        for text in
            ["SET NAMES utf8mb4", "SET character_set_results = NULL", "SET SESSION sql_mode = ''"]
        {
            assert!(matches!(of(text), Effect::Set(_)), "{text}");
            assert_eq!(verdict(text).class, Class::Replica);
        }
        let safe = |text| {
            let Effect::Set(setting) = of(text) else { panic!("{text}") };
            setting.charset
        };
        assert_eq!(safe("SET NAMES utf8"), Some(Charset::Utf8));
        assert_eq!(safe("SET NAMES latin1"), Some(Charset::Plain));
        assert_eq!(safe("SET NAMES gbk"), Some(Charset::Unknown));
        assert_eq!(safe("SET NAMES DEFAULT"), Some(Charset::Unknown));
        assert_eq!(safe("SET character_set_client = sjis"), Some(Charset::Unknown));
        assert_eq!(safe("SET time_zone = '+00:00'"), None);
        for text in ["KILL 5", "SELECT 1; KILL 5", "/*!KILL 5*/", "SELECT 'a\\'; KILL 5; -- '"] {
            assert_eq!(of(text), Effect::Kill, "{text}");
        }
        assert_eq!(of("CREATE PROCEDURE p() BEGIN SELECT 1; KILL 5; END"), Effect::None);
        for text in ["COMMIT RELEASE", "ROLLBACK WORK AND NO CHAIN RELEASE"] {
            assert_eq!(of(text), Effect::Close, "{text}");
        }
        assert!(verdict("SELECT 1, CONNECTION_ID()").asks_number);
        assert_eq!(of("COMMIT AND CHAIN NO RELEASE"), Effect::None);
        assert_eq!(of("ROLLBACK TO `release`"), Effect::None);
    }

    #[test]
    fn only_what_a_reset_undoes_is_clean() {
        assert!(!verdict("SET @a = 1").is_dirty);
        assert!(!verdict("CREATE TEMPORARY TABLE t (a INT)").is_dirty);
        let texts = "XA START 'x'
            SELECT 1; USE b
            PREPARE p FROM 'USE b'
            DROP DATABASE b
            SET ROLE x
            FLUSH TABLES WITH READ LOCK";
        for text in table(texts) {
            assert!(verdict(text).is_dirty, "{text}");
        }
    }

    #[test]
    fn a_backslash_that_may_be_half_a_character_is_not_trusted() {
        let text = b"SELECT '\xbf\\' ; DELETE FROM t; -- '";
        let unknown = Reading { charset: Charset::Unknown, has_escapes: true };
        let found = classify(text, unknown);
        assert!(found.class == Class::SourcePin && found.is_dirty);
        let found = classify(b"SELECT 1 AS `\x81` FROM t; DELETE FROM t; -- `", unknown);
        assert!(found.class == Class::SourcePin && found.is_dirty);
    }

    #[test]
    fn a_byte_that_may_be_white_space_is_not_trusted() {
        for text in
            [&b"SELECT * FROM t FOR\xa0UPDATE"[..], b"SELECT 1 --\xa0'\n; DELETE FROM t; -- '"]
        {
            let plain = Reading { charset: Charset::Plain, has_escapes: true };
            let found = classify(text, plain);
            assert!(found.class == Class::SourcePin && found.is_dirty);
            assert_eq!(classify(b"SELECT '\xa0'", plain).class, Class::Replica);
        }
        let text = "SELECT 1 AS \u{e0}".as_bytes();
        assert_eq!(classify(text, KNOWN).class, Class::Replica);
    }

    #[test]
    fn an_escaped_quote_is_a_read_once_the_server_told_its_mode() {
        let text = "SELECT 'caf\u{e9}\\'s'".as_bytes();
        assert_eq!(classify(text, UNKNOWN).class, Class::Source);
        assert_eq!(classify(text, KNOWN).class, Class::Replica);
        // Under ANSI_QUOTES, which no flag tells, this is an identifier that ends early.
        let text = b"SELECT \"a\\\" ; DELETE FROM t; -- \"";
        assert_eq!(classify(text, KNOWN).class, Class::SourcePin);
    }

    #[test]
    fn the_blocklist_looks_at_tokens() {
        let texts = "DELETE FROM t
            /* where */ delete from t
            UPDATE t SET a = 'where'
            UPDATE t SET a = (SELECT b FROM u WHERE c)
            SELECT 1; DELETE FROM t
            DELETE FROM t; SELECT 1 FROM t WHERE a
            WITH x AS (SELECT 1 FROM t WHERE a) DELETE FROM t
            SELECT SLEEP(1)
            SELECT 1 + sleep (1)";
        for text in table(texts) {
            assert!(verdict(text).is_risky, "{text}");
        }
        let texts = "DELETE FROM t WHERE a
            UPDATE t SET a = 1 LIMIT 1
            UPDATE t SET a = (SELECT b FROM u) WHERE c
            INSERT INTO t VALUES (1) ON DUPLICATE KEY UPDATE a = 1
            SELECT * FROM t FOR UPDATE
            EXPLAIN DELETE FROM t
            SELECT sleep FROM t
            SELECT 'SLEEP(1)'
            WITH x AS (SELECT 1) UPDATE t SET a = 1 WHERE a";
        for text in table(texts) {
            assert!(!verdict(text).is_risky, "{text}");
        }
    }

    #[test]
    fn any_bytes_have_a_verdict() {
        let words: [&[u8]; 16] = [
            b"SELECT ",
            b"'",
            b"\"",
            b"`",
            b"/*",
            b"*/",
            b"/*!",
            b"@",
            b"(",
            b")",
            b";",
            b"\\",
            b"\xbf",
            b"SET NAMES ",
            b"USE ",
            b"\0",
        ];
        let mut rng = crate::time::Rng::new(11);
        for _ in 0..20_000 {
            let mut text = Vec::new();
            for _ in 0..rng.below(12) {
                text.extend_from_slice(words[usize::try_from(rng.below(16)).unwrap()]);
            }
            let _ = classify(&text, if rng.below(2) == 0 { KNOWN } else { Reading::default() });
        }
    }

    fn table(texts: &str) -> Vec<&str> {
        texts.lines().map(str::trim).filter(|line| !line.is_empty()).collect()
    }
}
