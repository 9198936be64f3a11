//! Statements as people count them: literals are `?`, lists of them one `?`, comments and spacing
//! are gone, and case does not tell statements apart.
//!
//! In: the text of a statement, what came of it. Out: its digest, its normalised text, the table
//! of those that cost most. Must not: keep a literal; allocate for a digest that is known; grow.
//! Read first: `lexer`; MySQL manual, "Performance Schema Statement Digests".
//! Differs: names that differ in nothing but case share a digest, since only the server knows
//! which words are names; "..." is a literal also under ANSI_QUOTES.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::limits;
use crate::time::Instant;
use crate::wire::HostId;

use super::lexer::{Lexer, Mode, Token};
use super::words::{self, is_in};

/// A part of a normalised statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece<'a> {
    Word(&'a [u8]),
    /// A quoted name or a variable, as written.
    Name(&'a [u8]),
    Literal,
    Symbol(u8),
}

/// How far a list of literals has come, whose rest is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    None,
    /// `(`
    Open,
    /// `( ?`
    Value,
    /// `( ? ,`
    Comma,
    /// `( ? )`
    Row,
    /// `( ? ) ,`
    RowComma,
    /// `( ? ) , (`
    RowOpen,
    /// `( ? ) , ( ?`
    RowValue,
    /// `( ? ) , ( ? ,`
    RowMore,
}

/// Leaves out what a list repeats, and hands the rest on.
struct Folder<'a, F> {
    emit: F,
    list: List,
    /// Pieces that may turn out to be a repetition.
    held: heapless::Vec<Piece<'a>, 4>,
    /// A sign that may belong to the number after it.
    sign: Option<u8>,
    /// Semicolons that may be the last ones.
    semicolons: usize,
    last: Option<Piece<'a>>,
}

impl<'a, F: FnMut(Piece<'a>)> Folder<'a, F> {
    const fn new(emit: F) -> Self {
        Self {
            emit,
            list: List::None,
            held: heapless::Vec::new(),
            sign: None,
            semicolons: 0,
            last: None,
        }
    }

    fn token(&mut self, token: Token<'a>, lexeme: &'a [u8]) {
        let piece = match token {
            Token::Word(word) if self.is_in_list() && is_in(VALUES, word) => Piece::Literal,
            Token::Word(word) => Piece::Word(word),
            Token::Text(_) | Token::Ambiguous(_) | Token::Number => Piece::Literal,
            Token::Name(_) | Token::UserVariable | Token::SystemVariable(..) => Piece::Name(lexeme),
            Token::Symbol(b'?') => Piece::Literal,
            Token::Symbol(b';') => {
                self.semicolons += 1;
                return;
            }
            Token::Symbol(symbol) => Piece::Symbol(symbol),
            Token::Broken => return,
        };
        for _ in 0..std::mem::take(&mut self.semicolons) {
            self.piece(Piece::Symbol(b';'));
        }
        let sign = self.sign.take();
        if let Some(sign) = sign.filter(|_| piece != Piece::Literal) {
            self.piece(Piece::Symbol(sign));
        }
        let is_operand_next = matches!(self.last, Some(Piece::Symbol(it)) if it != b')');
        match piece {
            Piece::Symbol(sign @ (b'-' | b'+')) if is_operand_next => self.sign = Some(sign),
            Piece::Symbol(_) | Piece::Word(_) | Piece::Name(_) | Piece::Literal => {
                self.piece(piece);
            }
        }
    }

    const fn is_in_list(&self) -> bool {
        matches!(self.list, List::Open | List::Comma | List::RowOpen | List::RowMore)
    }

    fn piece(&mut self, piece: Piece<'a>) {
        self.last = Some(piece);
        let (next, keeps) = match (self.list, piece) {
            (List::Value, Piece::Symbol(b',')) => (List::Comma, true),
            (List::Comma, Piece::Literal) => (List::Value, false),
            (List::Row, Piece::Symbol(b',')) => (List::RowComma, true),
            (List::RowComma, Piece::Symbol(b'(')) => (List::RowOpen, true),
            (List::RowOpen, Piece::Literal) => (List::RowValue, true),
            (List::RowValue, Piece::Symbol(b',')) => (List::RowMore, true),
            (List::RowMore, Piece::Literal) => {
                self.held.pop();
                self.list = List::RowValue;
                return;
            }
            (List::RowValue, Piece::Symbol(b')')) => (List::Row, false),
            _ => return self.emit(piece),
        };
        self.list = next;
        if keeps {
            let _fits = self.held.push(piece);
        } else {
            self.held.clear();
        }
    }

    /// What was held is no repetition, or nothing was.
    fn emit(&mut self, piece: Piece<'a>) {
        let was = if self.list == List::RowOpen { List::Open } else { self.list };
        for held in std::mem::take(&mut self.held) {
            (self.emit)(held);
        }
        (self.emit)(piece);
        self.list = match (was, piece) {
            (List::Open, Piece::Literal) => List::Value,
            (List::Value, Piece::Symbol(b')')) => List::Row,
            (_, Piece::Symbol(b'(')) => List::Open,
            _ => List::None,
        };
    }
}

/// Hands the pieces of a statement on. Returns whether the rest of it was not looked at.
fn fold<'a>(text: &'a [u8], emit: impl FnMut(Piece<'a>)) -> bool {
    let (text, is_long) = match text.get(..limits::SQL_DIGEST_INPUT_BYTES_MAX) {
        Some(start) if start.len() < text.len() => (start, true),
        Some(_) | None => (text, false),
    };
    let mut folder = Folder::new(emit);
    let mut lexer = Lexer::new(text, Mode::ALL[0]);
    while let Some(token) = lexer.next() {
        if token == Token::Broken {
            return true;
        }
        folder.token(token, lexer.lexeme());
    }
    if !is_long {
        let held = std::mem::take(&mut folder.held);
        held.into_iter().for_each(|piece| (folder.emit)(piece));
        if let Some(sign) = folder.sign {
            (folder.emit)(Piece::Symbol(sign));
        }
    }
    is_long
}

/// The number that all statements of a kind share: FNV-1a of the pieces.
#[must_use]
pub fn digest(text: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |byte: u8| hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    fold(text, |piece| {
        match piece {
            Piece::Word(word) | Piece::Name(word) => {
                word.iter().for_each(|byte| add(byte.to_ascii_uppercase()));
            }
            Piece::Literal => add(b'?'),
            Piece::Symbol(symbol) => add(symbol),
        }
        add(0);
    });
    hash
}

/// The statement for people, cut at `SQL_DIGEST_BYTES_MAX`.
#[must_use]
pub fn normalised(text: &[u8]) -> String {
    let mut out = Vec::new();
    let mut before = None;
    let is_cut = fold(text, |piece| {
        if out.len() > limits::SQL_DIGEST_BYTES_MAX {
            return;
        }
        if is_spaced(before, piece) {
            out.push(b' ');
        }
        match piece {
            Piece::Word(word) if is_keyword(word) => out.extend(word.to_ascii_uppercase()),
            Piece::Word(word) | Piece::Name(word) => out.extend_from_slice(word),
            Piece::Literal => out.push(b'?'),
            Piece::Symbol(symbol) => out.push(symbol),
        }
        before = Some(piece);
    });
    let is_long = out.len() > limits::SQL_DIGEST_BYTES_MAX;
    out.truncate(limits::SQL_DIGEST_BYTES_MAX);
    let mut text = String::from_utf8_lossy(&out).into_owned();
    text = text.trim_end_matches(char::REPLACEMENT_CHARACTER).replace(char::is_control, " ");
    if is_cut || is_long {
        text.push_str(" ...");
    }
    text
}

fn is_keyword(word: &[u8]) -> bool {
    is_in(words::KEYWORDS, word) || is_in(words::PURE_FUNCTIONS, word) || is_in(KEYWORDS, word)
}

/// Whether a space stands between two pieces.
fn is_spaced(before: Option<Piece<'_>>, piece: Piece<'_>) -> bool {
    let is_operator = |symbol: u8| b"<>=!:|&-".contains(&symbol);
    match (before, piece) {
        (None, _)
        | (Some(Piece::Symbol(b'(' | b'.')), _)
        | (_, Piece::Symbol(b',' | b')' | b'.' | b';')) => false,
        (Some(Piece::Word(word)), Piece::Symbol(b'(')) => {
            !is_in(words::PURE_FUNCTIONS, word) || is_in(KEYWORDS, word)
        }
        (Some(Piece::Symbol(left)), Piece::Symbol(right)) => {
            !(is_operator(left) && is_operator(right))
        }
        (Some(_), _) => true,
    }
}

/// A statement that was answered to its end, for digests and the slow log.
#[derive(Debug)]
pub struct Finished {
    /// The packets of its command; none of one too long to keep.
    pub packets: Vec<u8>,
    /// The prepared statement that it ran.
    pub statement: Option<u32>,
    pub host: HostId,
    pub since: Instant,
    pub error: Option<u16>,
    pub rows: u64,
    pub bytes: u64,
}

/// How one statement ended.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    pub host: HostId,
    pub took: Duration,
    pub is_error: bool,
}

/// All statements of one digest since it came into the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sum {
    pub text: String,
    pub errors: u64,
    /// By host.
    pub counts: [u64; 2],
    pub total: Duration,
    pub longest: Duration,
    /// What the entry that it replaced had cost. With it newcomers are not always the cheapest, so
    /// that one that is costly stays (Metwally, Space-Saving).
    floor: Duration,
}

/// The digests that cost most time, at most `SQL_DIGESTS_MAX`; one more replaces the cheapest.
#[derive(Debug, Clone, Default)]
pub struct Digests {
    known: BTreeMap<u64, Sum>,
    pub replaced: u64,
    /// What the entry that was replaced last had cost: no entry is cheaper by now.
    least: Duration,
    /// A bit for each digest that came and found no room, so that those that come once take no
    /// entry and cost nothing; forgotten when an eighth of the bits is taken.
    newcomers: Vec<u64>,
    newcomers_count: usize,
}

impl Digests {
    /// Counts a statement. Only a digest that is not known is written out.
    pub fn note(&mut self, text: &[u8], ended: Ended) {
        let digest = digest(text);
        let sum = match self.known.get_mut(&digest) {
            Some(sum) => sum,
            None => {
                if !self.is_worth_an_entry(digest, ended.took) {
                    return;
                }
                let floor = self.make_room();
                let sum = Sum { text: normalised(text), floor, ..Sum::default() };
                self.known.entry(digest).or_insert(sum)
            }
        };
        sum.counts[ended.host.index()] += 1;
        sum.errors += u64::from(ended.is_error);
        sum.total += ended.took;
        sum.longest = sum.longest.max(ended.took);
    }

    fn is_worth_an_entry(&mut self, digest: u64, took: Duration) -> bool {
        if self.known.len() < limits::SQL_DIGESTS_MAX || took > self.least {
            return true;
        }
        if self.newcomers.is_empty() || self.newcomers_count >= NEWCOMER_BITS / 8 {
            self.newcomers = vec![0; NEWCOMER_BITS / 64];
            self.newcomers_count = 0;
        }
        let place = usize::try_from(digest % 0x1_0000).unwrap_or(0) % NEWCOMER_BITS;
        let bit = 1 << (place % 64);
        let Some(word) = self.newcomers.get_mut(place / 64) else { return false };
        let has_come = *word & bit != 0;
        *word |= bit;
        self.newcomers_count += usize::from(!has_come);
        has_come
    }

    /// Returns what the entry had cost that had to go.
    fn make_room(&mut self) -> Duration {
        if self.known.len() < limits::SQL_DIGESTS_MAX {
            return Duration::ZERO;
        }
        let cost = |sum: &Sum| sum.total + sum.floor;
        let cheapest = self.known.iter().min_by_key(|(_, sum)| cost(sum));
        let Some((digest, floor)) = cheapest.map(|(digest, sum)| (*digest, cost(sum))) else {
            return Duration::ZERO;
        };
        self.known.remove(&digest);
        self.replaced += 1;
        self.least = floor;
        floor
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// The costliest first.
    #[must_use]
    pub fn top(&self) -> Vec<(u64, &Sum)> {
        let mut all: Vec<_> = self.known.iter().map(|(digest, sum)| (*digest, sum)).collect();
        all.sort_by_key(|(_, sum)| std::cmp::Reverse(sum.total));
        all
    }
}

/// 512 bytes.
const NEWCOMER_BITS: usize = 4096;

/// Words that are values where a value of a list may stand.
const VALUES: &[&str] = &["DEFAULT", "FALSE", "NULL", "TRUE"];

/// Further words that are written in capitals: those that begin and join the usual statements.
const KEYWORDS: &[&str] = &[
    "AS",
    "ASC",
    "BEGIN",
    "BY",
    "COMMIT",
    "DELETE",
    "DESC",
    "DISTINCT",
    "FOR",
    "FROM",
    "GROUP",
    "IGNORE",
    "INNER",
    "INSERT",
    "INTO",
    "IS",
    "LEFT",
    "LIMIT",
    "NULL",
    "ORDER",
    "OUTER",
    "REPLACE",
    "ROLLBACK",
    "SELECT",
    "SET",
    "SHOW",
    "START",
    "TABLE",
    "TRANSACTION",
    "UNION",
    "UPDATE",
    "USE",
    "VALUES",
    "WITH",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_differ_in_literals_are_one() {
        for (expected, texts) in [
            (
                "SELECT a FROM t WHERE id = ? AND b <= ?",
                &[
                    "SELECT a FROM t WHERE id=1 AND b<=2.5",
                    "select a\n from t where id = 'x''y' and b <= -7 -- why",
                    "/* app */ SELECT a FROM t WHERE id = 0x1f AND b <= \"q\";",
                ][..],
            ),
            (
                "SELECT a FROM t WHERE id IN (?)",
                &[
                    "SELECT a FROM t WHERE id IN (1)",
                    "SELECT a FROM t WHERE id IN (1, -2, 'x', NULL)",
                    "SELECT a FROM t WHERE id IN (?, ?)",
                ],
            ),
            (
                "INSERT INTO t (a, b) VALUES (?)",
                &[
                    "INSERT INTO t (a, b) VALUES (1, 2)",
                    "insert into t (a,b) values (1,NULL),(3,default), ('x', +1)",
                ],
            ),
            (
                "INSERT INTO t VALUES (?, NOW(), ?), (?, NOW(), ?)",
                &["INSERT INTO t VALUES (1, 2, NOW(), 3), (4, NOW(), 5)"],
            ),
            (
                "SELECT f (?, a) - ? + ?, b.`c d` FROM @x",
                &["SELECT f(1, 2, a) - 3 + 4, b . `c d` FROM @x"],
            ),
            ("SELECT ? WHERE a IS NULL", &["SELECT 1 WHERE a IS NULL"]),
            ("BEGIN; DELETE FROM t", &["BEGIN; DELETE FROM t;;"]),
        ] {
            for text in texts {
                assert_eq!(normalised(text.as_bytes()), expected, "{text}");
                assert_eq!(digest(text.as_bytes()), digest(texts[0].as_bytes()), "{text}");
            }
        }
        let others =
            ["SELECT 1, 2", "SELECT 1", "SELECT a FROM t", "SELECT a FROM u", "", "SELEC T"];
        for (place, text) in others.iter().enumerate() {
            for other in &others[place + 1..] {
                assert_ne!(digest(text.as_bytes()), digest(other.as_bytes()), "{text}, {other}");
            }
        }
    }

    #[test]
    fn what_is_long_or_broken_is_cut_and_shows_no_literal() {
        let rows = vec!["(1, 'secret')"; 5000].join(", ");
        let long = format!("INSERT INTO t VALUES {rows}");
        assert_eq!(normalised(long.as_bytes()), "INSERT INTO t VALUES (?) ...");
        for length in long.len() - 20..long.len() {
            assert_eq!(digest(&long.as_bytes()[..length]), digest(long.as_bytes()), "{length}");
        }
        assert_eq!(normalised(b"SELECT 'secret"), "SELECT ...");
        let names = vec!["column_name"; 100].join(", ");
        let text = normalised(format!("SELECT {names}\u{e4}").as_bytes());
        assert!(text.len() <= limits::SQL_DIGEST_BYTES_MAX + 4 && text.ends_with(" ..."), "{text}");
        assert_eq!(normalised(b"SELECT a\xff\n"), "SELECT a");
    }

    fn ended(took: u64) -> Ended {
        Ended { host: HostId::Second, took: Duration::from_millis(took), is_error: false }
    }

    #[test]
    fn the_table_sums_up() {
        let mut digests = Digests::default();
        digests.note(b"SELECT 1", ended(3));
        digests.note(b"select 2", Ended { host: HostId::First, is_error: true, ..ended(5) });
        let top = digests.top();
        let [(_, sum)] = &top[..] else { panic!("{top:?}") };
        assert_eq!((sum.text.as_str(), sum.counts, sum.errors), ("SELECT ?", [1, 1], 1));
        assert_eq!((sum.total.as_millis(), sum.longest.as_millis()), (8, 5));
    }

    #[test]
    fn the_table_is_bounded_and_keeps_what_costs_most() {
        let mut digests = Digests::default();
        let text = |number: usize| format!("SELECT c{number} FROM t");
        for _ in 0..10 {
            digests.note(b"SELECT costly FROM t", ended(1000));
        }
        for number in 0..10 * limits::SQL_DIGESTS_MAX {
            digests.note(text(number).as_bytes(), ended(1));
            // A newcomer that comes again and again gets its place among many that do not.
            digests.note(b"SELECT newcomer FROM t", ended(2));
        }
        assert_eq!(digests.len(), limits::SQL_DIGESTS_MAX);
        assert!(digests.replaced > 0);
        let top = digests.top();
        assert_eq!(top[0].1.text, "SELECT costly FROM t");
        assert_eq!(top[1].1.text, "SELECT newcomer FROM t");
    }

    #[test]
    fn every_list_is_sorted_for_the_search() {
        for list in [VALUES, KEYWORDS] {
            assert!(list.is_sorted());
        }
    }
}
