//! Cuts the text of a statement into tokens, exactly as far as routing needs it.
//!
//! In: bytes of a COM_QUERY, and how backslashes work. Out: tokens. Must not: panic on any bytes,
//! know what a token means for routing (that is `route`), allocate.
//! Read first: facts/sql.md section 3, traps 1 to 12; MySQL manual, "Lexical Structure".

/// One token. Words keep their case; quotes are cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Token<'a> {
    /// An unquoted identifier or keyword.
    Word(&'a [u8]),
    /// `` `name` ``; doubled backticks are still doubled.
    Name(&'a [u8]),
    /// '...' as written, escapes included.
    Text(&'a [u8]),
    /// "...": a string, or an identifier under ANSI_QUOTES.
    Ambiguous(&'a [u8]),
    Number,
    /// `@name`
    UserVariable,
    /// `@@name`, `@@global.name`: the last part.
    SystemVariable(Scope, &'a [u8]),
    Symbol(u8),
    /// A string or comment without its end, or a NUL: the server decides what this is.
    Broken,
}

/// Whose value `@@scope.name` means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// None is written.
    Plain,
    /// `session.` or `local.`
    Session,
    /// `global.`, `persist.`, a structured variable's instance.
    Beyond,
}

/// How a backslash inside quotes is read; sql_mode decides, and it may be set globally.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mode {
    pub escapes_in_single: bool,
    pub escapes_in_double: bool,
}

impl Mode {
    /// The default, ANSI_QUOTES, and NO_BACKSLASH_ESCAPES.
    pub const ALL: [Self; 3] = [
        Self { escapes_in_single: true, escapes_in_double: true },
        Self { escapes_in_single: true, escapes_in_double: false },
        Self { escapes_in_single: false, escapes_in_double: false },
    ];
}

#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the token that was returned last begins.
    start: usize,
    mode: Mode,
    /// Inside `/*! ... */`, whose contents are code to at least one kind of server.
    is_in_executable: bool,
    /// An executable comment was seen.
    pub has_executable: bool,
    /// A comment that says `master` was seen: the user wants the source (Atlas, MaxScale).
    pub has_source_hint: bool,
    /// A backslash stood inside quotes, so that `Mode` may change the tokens.
    pub has_backslash: bool,
    /// A byte stood outside quotes that is white space in some character set (0xa0 of latin1), or
    /// decides there whether `--` begins a comment.
    pub has_doubtful_space: bool,
    /// Whether white space or a comment stood before the token that was returned last.
    pub is_spaced: bool,
}

impl<'a> Lexer<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8], mode: Mode) -> Self {
        Self {
            bytes,
            at: 0,
            start: 0,
            mode,
            is_in_executable: false,
            has_executable: false,
            has_source_hint: false,
            has_backslash: false,
            has_doubtful_space: false,
            is_spaced: false,
        }
    }

    /// The bytes of the token that was returned last, quotes included.
    #[must_use]
    pub fn lexeme(&self) -> &'a [u8] {
        self.bytes.get(self.start..self.at).unwrap_or(&[])
    }

    /// Where the token that was returned last begins and ends.
    #[must_use]
    pub const fn span(&self) -> (usize, usize) {
        (self.start, self.at)
    }

    /// What comes after the token that was returned last.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.bytes.get(self.at + ahead).copied()
    }

    /// Skips white space and comments. `None` when a comment has no end.
    fn skip(&mut self) -> Option<()> {
        self.is_spaced = false;
        let mut start = self.at;
        loop {
            self.is_spaced |= self.at != start;
            start = self.at;
            match (self.peek(0), self.peek(1)) {
                (Some(b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c), _) => self.at += 1,
                (Some(b'#'), _) => self.skip_line(1),
                (Some(b'-'), Some(b'-')) if self.is_dash_comment() => self.skip_line(2),
                (Some(b'/'), Some(b'*')) => self.skip_block()?,
                (Some(b'*'), Some(b'/')) if self.is_in_executable => {
                    self.is_in_executable = false;
                    self.at += 2;
                }
                _ => return Some(()),
            }
        }
    }

    /// `--` begins a comment only before white space, a control character or the end.
    fn is_dash_comment(&mut self) -> bool {
        self.has_doubtful_space |= self.peek(2).is_some_and(|byte| byte >= 0x80);
        self.peek(2).is_none_or(|byte| byte.is_ascii_whitespace() || byte.is_ascii_control())
    }

    fn skip_line(&mut self, marker: usize) {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let length = rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
        self.note_hint(rest.get(marker..length).unwrap_or(&[]));
        self.at += length;
    }

    fn skip_block(&mut self) -> Option<()> {
        let rest = self.bytes.get(self.at + 2..).unwrap_or(&[]);
        let executable = match rest {
            [b'!', ..] => 1,
            [b'M', b'!', ..] => 2,
            _ => 0,
        };
        if executable > 0 && !self.is_in_executable {
            let digits = rest.iter().skip(executable).take_while(|it| it.is_ascii_digit()).count();
            self.at += 2 + executable + digits;
            self.is_in_executable = true;
            self.has_executable = true;
            return Some(());
        }
        // A comment inside an executable one: servers differ on nesting, so it counts as broken.
        let length = rest.windows(2).position(|pair| pair == b"*/");
        let Some(length) = length.filter(|_| !self.is_in_executable) else {
            self.at = self.bytes.len();
            return None;
        };
        self.note_hint(rest.get(..length).unwrap_or(&[]));
        self.at += 2 + length + 2;
        Some(())
    }

    fn note_hint(&mut self, comment: &[u8]) {
        let text = comment.trim_ascii();
        self.has_source_hint |= text.eq_ignore_ascii_case(b"master")
            || text.eq_ignore_ascii_case(b"source")
            || text.eq_ignore_ascii_case(b"maxscale route to master");
    }

    /// Reads up to the closing quote, which is doubled (or escaped) when it is meant itself.
    fn quoted(&mut self, quote: u8, has_escapes: bool) -> Option<&'a [u8]> {
        let start = self.at + 1;
        let mut at = start;
        loop {
            match *self.bytes.get(at)? {
                b'\\' if quote != b'`' => {
                    self.has_backslash = true;
                    at += if has_escapes { 2 } else { 1 };
                }
                byte if byte == quote => {
                    if self.bytes.get(at + 1) != Some(&quote) {
                        self.at = at + 1;
                        return self.bytes.get(start..at);
                    }
                    at += 2;
                }
                _ => at += 1,
            }
        }
    }

    fn word(&mut self) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or(&[]);
        let length = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
        let word = rest.get(..length).unwrap_or(&[]);
        self.has_doubtful_space |= word.iter().any(|byte| matches!(byte, 0xa0 | 0xff));
        self.at += length;
        word
    }

    fn variable(&mut self) -> Token<'a> {
        self.at += 1;
        if self.peek(0) == Some(b'@') {
            self.at += 1;
            let mut scope = Scope::Plain;
            loop {
                let part = match self.peek(0) {
                    Some(b'`') => match self.quoted(b'`', false) {
                        Some(name) => name,
                        None => return self.broken(),
                    },
                    _ => self.word(),
                };
                if self.peek(0) != Some(b'.') {
                    return Token::SystemVariable(scope, part);
                }
                let is_session =
                    part.eq_ignore_ascii_case(b"session") || part.eq_ignore_ascii_case(b"local");
                scope = match scope {
                    Scope::Plain if is_session => Scope::Session,
                    Scope::Plain | Scope::Session | Scope::Beyond => Scope::Beyond,
                };
                self.at += 1;
            }
        }
        match self.peek(0) {
            Some(quote @ (b'`' | b'\'' | b'"')) => {
                let has_escapes = match quote {
                    b'\'' => self.mode.escapes_in_single,
                    b'"' => self.mode.escapes_in_double,
                    _ => false,
                };
                match self.quoted(quote, has_escapes) {
                    Some(_) => Token::UserVariable,
                    None => self.broken(),
                }
            }
            _ => {
                while self.peek(0).is_some_and(|byte| is_word(byte) || byte == b'.') {
                    self.at += 1;
                }
                Token::UserVariable
            }
        }
    }

    fn number(&mut self) -> Token<'a> {
        // `1e5`, which ends with its digits, so that `1e5INTO` is two tokens.
        let start = self.at;
        self.digits();
        if matches!((self.peek(0), self.peek(1)), (Some(b'e' | b'E'), Some(b'0'..=b'9'))) {
            self.at += 1;
            self.digits();
            return Token::Number;
        }
        self.at = start;
        // `15`, `0x1f`; also `1abc`, which is an identifier and as harmless as a number.
        let word = self.word();
        if word.iter().any(|byte| !byte.is_ascii_alphanumeric()) {
            return Token::Word(word);
        }
        let mut has_exponent =
            matches!(word, [b'0'..=b'9', .., b'e' | b'E']) && !word.starts_with(b"0x");
        if self.peek(0) == Some(b'.') {
            self.at += 1;
            self.digits();
            has_exponent = matches!(self.peek(0), Some(b'e' | b'E'))
                && matches!(self.peek(1), Some(b'0'..=b'9' | b'+' | b'-'));
            self.at += usize::from(has_exponent);
        }
        // What follows a number without a space (`1.FROM`) is a token of its own.
        if has_exponent {
            self.at += usize::from(matches!(self.peek(0), Some(b'+' | b'-')));
            self.digits();
        }
        Token::Number
    }

    fn digits(&mut self) {
        while self.peek(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }

    fn broken(&mut self) -> Token<'a> {
        self.at = self.bytes.len();
        Token::Broken
    }
}

impl<'a> Iterator for Lexer<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        let is_skipped = self.skip().is_some();
        self.start = self.at;
        if !is_skipped {
            return Some(Token::Broken);
        }
        let Some(first) = self.peek(0) else {
            if std::mem::take(&mut self.is_in_executable) {
                return Some(Token::Broken);
            }
            return None;
        };
        Some(match first {
            b'\'' => match self.quoted(first, self.mode.escapes_in_single) {
                Some(text) => Token::Text(text),
                None => self.broken(),
            },
            b'"' => match self.quoted(first, self.mode.escapes_in_double) {
                Some(text) => Token::Ambiguous(text),
                None => self.broken(),
            },
            b'`' => match self.quoted(first, false) {
                Some(name) => Token::Name(name),
                None => self.broken(),
            },
            b'@' => self.variable(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_some_and(|byte| byte.is_ascii_digit()) => self.number(),
            0 => self.broken(),
            byte if is_word(byte) => Token::Word(self.word()),
            byte => {
                self.at += 1;
                Token::Symbol(byte)
            }
        })
    }
}

/// Letters, digits, `_`, `$` and every byte of a multi-byte character.
const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// Whether a byte of a multi-byte character stands before a backslash or a backtick anywhere: in
/// the character sets whose second bytes may be 0x5c and 0x60 nobody can tell here what that is.
#[must_use]
pub fn has_trail_quote(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|pair| matches!(pair, [first, b'\\' | b'`'] if *first >= 0x80))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(text: &[u8]) -> Vec<Token<'_>> {
        Lexer::new(text, Mode::ALL[0]).collect()
    }

    fn word(text: &str) -> Token<'_> {
        Token::Word(text.as_bytes())
    }

    #[test]
    fn comments_are_skipped_as_the_server_skips_them() {
        let select = vec![word("SELECT"), Token::Number];
        for text in [
            "/* a */ -- b\n # c\n SELECT 1",
            "SELECT/**/1",
            "SELECT 1 --",
            "SELECT 1 -- x",
            "SELECT 1 #x",
            "--\tx\nSELECT 1",
            "SELECT\x0b\x0c1",
            "/*+ SET_VAR(sql_mode='') */ SELECT 1",
        ] {
            assert_eq!(tokens(text.as_bytes()), select, "{text}");
        }
        let minus = Token::Symbol(b'-');
        assert_eq!(
            tokens(b"SELECT 5--1"),
            [word("SELECT"), Token::Number, minus, minus, Token::Number]
        );
    }

    #[test]
    fn executable_comments_are_code() {
        for text in [&b"/*!INSERT 1*/"[..], b"/*!40001 INSERT 1 */", b"/*M!100100 INSERT 1*/"] {
            let mut lexer = Lexer::new(text, Mode::ALL[0]);
            assert_eq!(lexer.next(), Some(word("INSERT")));
            assert!(lexer.has_executable);
            assert_eq!(lexer.last(), Some(Token::Number));
        }
        assert_eq!(tokens(b"/*! x").last(), Some(&Token::Broken));
        assert_eq!(tokens(b"/*! a /* b */ c */").last(), Some(&Token::Broken));
    }

    #[test]
    fn strings_end_where_the_mode_says() {
        let text = br"'it''s \' ; DELETE'";
        assert_eq!(tokens(text).len(), 1);
        let mut strict = Lexer::new(text, Mode::ALL[2]);
        assert_eq!(strict.next(), Some(Token::Text(br"it''s \")));
        assert!(strict.has_backslash);
        assert_eq!(strict.next(), Some(Token::Symbol(b';')));
        assert_eq!(strict.last(), Some(Token::Broken));
        assert_eq!(tokens(b"`for update`"), [Token::Name(b"for update")]);
        assert_eq!(tokens(b"\"a;b\""), [Token::Ambiguous(b"a;b")]);
    }

    #[test]
    fn literals_and_variables_are_one_token() {
        for text in ["1e5", ".5", "0x1F", "1.5e-3", "1.5E+3", "12."] {
            assert_eq!(tokens(text.as_bytes()), [Token::Number], "{text}");
        }
        for text in [&b"1.FROM"[..], b"1e5FROM", b"1E5FROM", b"1e+5FROM", b"1.5e3FROM"] {
            assert_eq!(tokens(text), [Token::Number, word("FROM")]);
        }
        assert_eq!(tokens(b"1e"), [Token::Number]);
        assert_eq!(tokens(b"@`x` @'x' @x.y @\"q\""), [Token::UserVariable; 4]);
        assert_eq!(tokens(b"@@global.x"), [Token::SystemVariable(Scope::Beyond, b"x")]);
        assert_eq!(tokens(b"@@SESSION.x"), [Token::SystemVariable(Scope::Session, b"x")]);
        assert_eq!(tokens(b"@@`y`"), [Token::SystemVariable(Scope::Plain, b"y")]);
        let mut lexer = Lexer::new(b"a /* 1 */ 'b' 23", Mode::ALL[0]);
        let mut seen = Vec::new();
        while lexer.next().is_some() {
            seen.push(lexer.lexeme());
        }
        assert_eq!(seen, [&b"a"[..], b"'b'", b"23"]);
        assert_eq!(tokens(b"x'00'"), [word("x"), Token::Text(b"00")]);
        assert_eq!(tokens("SELECT\u{a0}1".as_bytes()), [word("SELECT\u{a0}1")]);
    }

    #[test]
    fn hints_for_the_source_are_seen_anywhere() {
        for text in [
            "/*master*/SELECT 1",
            "/* MASTER */ SELECT 1",
            "SELECT /*master*/ 1",
            "SELECT 1 -- maxscale route to master",
        ] {
            let mut lexer = Lexer::new(text.as_bytes(), Mode::ALL[0]);
            lexer.by_ref().for_each(drop);
            assert!(lexer.has_source_hint, "{text}");
        }
    }

    #[test]
    fn bytes_that_may_be_white_space_are_told_outside_of_quotes() {
        let is_doubtful = |text: &[u8]| {
            let mut lexer = Lexer::new(text, Mode::ALL[0]);
            lexer.by_ref().for_each(drop);
            lexer.has_doubtful_space
        };
        assert!(is_doubtful(b"FOR\xa0UPDATE") && is_doubtful(b"1 --\x85 x"));
        assert!(!is_doubtful(b"'\xa0' `\xa0` \"\xa0\" /* \xa0 */ a\xe9 -- \xa0"));
    }

    #[test]
    fn any_bytes_end_in_tokens() {
        let mut rng = crate::time::Rng::new(7);
        let alphabet = b"'\"`\\/*!-#@.; \n0aeS(\0\x80M";
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..rng.below(24))
                .map(|_| alphabet[usize::try_from(rng.below(22)).unwrap()])
                .collect();
            for mode in Mode::ALL {
                assert!(Lexer::new(&text, mode).count() <= text.len() + 1, "{text:?}");
            }
        }
        assert_eq!(tokens(b"a\0b"), [word("a"), Token::Broken]);
        assert!(has_trail_quote(b"\xbf\\'") && !has_trail_quote(b"a\\'"));
        assert!(has_trail_quote(b"\x81`"));
    }
}
