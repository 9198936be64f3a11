//! GTID algebra: what a server has executed, and whether another server has all of it.
//!
//! In: positions as the two families of servers print them. Out: contains, subtract, counts, text.
//! Must not: ask a server (every comparison is made here, since MariaDB has no functions for it).
//! Read first: facts/repl.md section 6.  Differs: printed without a newline after the comma, so
//! that a position is one line in a beacon and in a note.

use std::collections::BTreeMap;
use std::fmt;

/// The two families of servers, whose positions cannot be compared with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    Mysql,
    Mariadb,
}

/// What a server has executed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    Mysql(GtidSet),
    Mariadb(BinlogState),
}

impl Position {
    pub fn parse(flavour: Flavour, text: &str) -> Result<Self, Malformed> {
        match flavour {
            Flavour::Mysql => GtidSet::parse(text).map(Self::Mysql),
            Flavour::Mariadb => BinlogState::parse(text).map(Self::Mariadb),
        }
    }

    /// Whether everything in `other` was executed here too. Positions of different families share
    /// nothing, so only an empty one is contained.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mysql(own), Self::Mysql(other)) => own.contains(other),
            (Self::Mariadb(own), Self::Mariadb(other)) => own.contains(other),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => {
                other.is_empty()
            }
        }
    }

    /// What is here and not in `other`.
    #[must_use]
    pub fn beyond(&self, other: &Self) -> Beyond {
        match (self, other) {
            (Self::Mysql(own), Self::Mysql(other)) => own.beyond(other),
            (Self::Mariadb(own), Self::Mariadb(other)) => own.beyond(other),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => {
                Beyond { text: self.to_string(), transactions: self.transactions() }
            }
        }
    }

    /// What `writer` wrote that is here, and was never executed where `known` is.
    #[must_use]
    pub fn lost_of(&self, writer: &Writer<'_>, known: &Self) -> Beyond {
        match (self, known) {
            (Self::Mysql(own), Self::Mysql(known)) => own.of(writer.uuid, true).beyond(known),
            (Self::Mariadb(own), Self::Mariadb(known)) => {
                // Numbers grow: whoever has a later one of another server has had these.
                own.beyond_where(known, |(domain, server), sequence| {
                    server == writer.id && known.reached(domain).is_none_or(|it| it < sequence)
                })
            }
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => {
                Beyond::NOTHING
            }
        }
    }

    /// The same of every other server; MariaDB's positions do not tell.
    #[must_use]
    pub fn lost_of_others(&self, writer: &Writer<'_>, known: &Self) -> Beyond {
        match (self, known) {
            (Self::Mysql(own), Self::Mysql(known)) => own.of(writer.uuid, false).beyond(known),
            (Self::Mysql(_) | Self::Mariadb(_), Self::Mariadb(_))
            | (Self::Mariadb(_), Self::Mysql(_)) => Beyond::NOTHING,
        }
    }

    /// Everything in either of the two; `self` unchanged when the families differ.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        match (self, other) {
            (Self::Mysql(own), Self::Mysql(other)) => Self::Mysql(own.union(other)),
            (Self::Mariadb(own), Self::Mariadb(other)) => Self::Mariadb(own.union(other)),
            (Self::Mysql(_), Self::Mariadb(_)) | (Self::Mariadb(_), Self::Mysql(_)) => self.clone(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Mysql(set) => set.lists.is_empty(),
            Self::Mariadb(state) => state.last.is_empty(),
        }
    }

    #[must_use]
    pub fn transactions(&self) -> u64 {
        match self {
            Self::Mysql(set) => set.transactions(),
            Self::Mariadb(state) => state.beyond(&BinlogState::default()).transactions,
        }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mysql(set) => set.fmt(f),
            Self::Mariadb(state) => state.fmt(f),
        }
    }
}

/// What one position has over another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beyond {
    /// MySQL: the set. MariaDB: the last GTID of each domain and server that goes further.
    pub text: String,
    /// Exact for MySQL; for MariaDB, whose sequence numbers are shared by the servers of a domain,
    /// as many as the numbers allow.
    pub transactions: u64,
}

impl Beyond {
    const NOTHING: Self = Self { text: String::new(), transactions: 0 };
}

/// Who wrote a transaction: MySQL puts its UUID into the GTID, MariaDB its number.
#[derive(Debug, Clone, Copy)]
pub struct Writer<'a> {
    pub uuid: &'a str,
    pub id: u32,
}

/// The text is no position; carries the piece that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is no GTID position", self.0)
    }
}

type Uuid = [u8; 16];

/// From `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Interval {
    first: u64,
    last: u64,
}

/// MySQL: sets of transaction numbers by server UUID and tag. The lists are sorted, merged and
/// never empty; the tag "" is "no tag" and sorts first, as the servers print it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GtidSet {
    lists: BTreeMap<(Uuid, String), Vec<Interval>>,
}

impl GtidSet {
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut set = Self::default();
        for part in text.split(',') {
            let mut items = part.split(':').map(str::trim);
            let uuid_text = items.next().unwrap_or("");
            if uuid_text.is_empty() && part.trim().is_empty() {
                continue;
            }
            let uuid = parse_uuid(uuid_text).ok_or_else(|| Malformed(part.trim().to_owned()))?;
            let mut tag = String::new();
            for item in items {
                if item.starts_with(|c: char| c.is_ascii_digit()) {
                    let interval =
                        parse_interval(item).ok_or_else(|| Malformed(item.to_owned()))?;
                    if interval.first <= interval.last {
                        set.lists.entry((uuid, tag.clone())).or_default().push(interval);
                    }
                } else {
                    tag = parse_tag(item).ok_or_else(|| Malformed(item.to_owned()))?;
                }
            }
        }
        for list in set.lists.values_mut() {
            merge(list);
        }
        Ok(set)
    }

    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.lists.iter().all(|(key, wanted)| {
            self.lists.get(key).is_some_and(|had| subtract_list(wanted, had).is_empty())
        })
    }

    #[must_use]
    pub fn subtract(&self, other: &Self) -> Self {
        let mut lists = BTreeMap::new();
        for (key, list) in &self.lists {
            let rest = match other.lists.get(key) {
                Some(removed) => subtract_list(list, removed),
                None => list.clone(),
            };
            if !rest.is_empty() {
                lists.insert(key.clone(), rest);
            }
        }
        Self { lists }
    }

    fn beyond(&self, other: &Self) -> Beyond {
        let extra = self.subtract(other);
        Beyond { text: extra.to_string(), transactions: extra.transactions() }
    }

    /// What the server of this UUID wrote, or everything else.
    fn of(&self, uuid: &str, is_wanted: bool) -> Self {
        let wanted = parse_uuid(uuid);
        let keeps = |key: &Uuid| (Some(*key) == wanted) == is_wanted;
        let lists = self.lists.iter().filter(|((key, _), _)| keeps(key));
        Self { lists: lists.map(|(key, list)| (key.clone(), list.clone())).collect() }
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (key, list) in &other.lists {
            let joined = both.lists.entry(key.clone()).or_default();
            joined.extend_from_slice(list);
            merge(joined);
        }
        both
    }

    #[must_use]
    pub fn transactions(&self) -> u64 {
        self.lists
            .values()
            .flatten()
            .fold(0, |sum: u64, i| sum.saturating_add((i.last - i.first).saturating_add(1)))
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous: Option<&Uuid> = None;
        for ((uuid, tag), list) in &self.lists {
            if previous != Some(uuid) {
                f.write_str(if previous.is_some() { "," } else { "" })?;
                write_uuid(f, uuid)?;
                previous = Some(uuid);
            }
            if !tag.is_empty() {
                write!(f, ":{tag}")?;
            }
            for Interval { first, last } in list {
                write!(f, ":{first}")?;
                if last > first {
                    write!(f, "-{last}")?;
                }
            }
        }
        Ok(())
    }
}

pub(super) fn write_uuid(f: &mut impl fmt::Write, uuid: &Uuid) -> fmt::Result {
    for (index, byte) in uuid.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            f.write_str("-")?;
        }
        write!(f, "{byte:02x}")?;
    }
    Ok(())
}

fn parse_uuid(text: &str) -> Option<Uuid> {
    let bytes = text.as_bytes();
    let is_dash = |index: usize| matches!(index, 8 | 13 | 18 | 23);
    if bytes.len() != 36 || (0..36).any(|index| is_dash(index) != (bytes[index] == b'-')) {
        return None;
    }
    let mut digits = bytes.iter().filter(|&&byte| byte != b'-');
    let mut uuid = Uuid::default();
    for byte in &mut uuid {
        let mut nibble = || char::from(*digits.next()?).to_digit(16);
        *byte = u8::try_from(nibble()? << 4 | nibble()?).ok()?;
    }
    Some(uuid)
}

/// A reversed interval is legal and empty, as on the servers; it may go back to 0.
fn parse_interval(item: &str) -> Option<Interval> {
    let (first, last) = item.split_once('-').unwrap_or((item, item));
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u64>().ok().filter(|value| is_number && *value <= TRANSACTION_MAX)
    };
    let first = number(first).filter(|first| *first > 0)?;
    Some(Interval { first, last: number(last)? })
}

fn parse_tag(item: &str) -> Option<String> {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let starts_well = item.bytes().next().is_some_and(is_letter);
    let is_legal = item.bytes().all(|byte| is_letter(byte) || byte.is_ascii_digit());
    (starts_well && is_legal && item.len() <= TAG_BYTES_MAX).then(|| item.to_ascii_lowercase())
}

/// Sorts, and joins intervals that touch or overlap.
fn merge(list: &mut Vec<Interval>) {
    list.sort_unstable();
    list.dedup_by(|next, kept| {
        let touches = next.first <= kept.last.saturating_add(1);
        if touches {
            kept.last = kept.last.max(next.last);
        }
        touches
    });
}

/// Both lists sorted and merged; one pass over each, so 10,000 intervals cost 20,000 steps.
fn subtract_list(from: &[Interval], removed: &[Interval]) -> Vec<Interval> {
    let mut rest = Vec::new();
    let mut cuts = removed.iter().peekable();
    for &Interval { mut first, last } in from {
        while cuts.next_if(|cut| cut.last < first).is_some() {}
        while let Some(&&cut) = cuts.peek() {
            if cut.first > last {
                break;
            }
            if cut.first > first {
                rest.push(Interval { first, last: cut.first - 1 });
            }
            first = cut.last.saturating_add(1);
            if cut.last >= last {
                break; // It may reach into the next interval too, so it is kept.
            }
            cuts.next();
        }
        if first <= last {
            rest.push(Interval { first, last });
        }
    }
    rest
}

/// MariaDB: the last sequence number of each (domain, server), as gtid_binlog_state lists them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BinlogState {
    last: BTreeMap<(u32, u32), u64>,
}

impl BinlogState {
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let mut state = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (key, sequence) =
                parse_mariadb(entry).ok_or_else(|| Malformed(entry.to_owned()))?;
            let last = state.last.entry(key).or_default();
            *last = sequence.max(*last);
        }
        Ok(state)
    }

    /// Compared by domain and server: equal sequence numbers of different servers are different
    /// transactions, which MASTER_GTID_WAIT does not see.
    #[must_use]
    pub fn contains(&self, other: &Self) -> bool {
        other.last.iter().all(|(key, sequence)| self.last.get(key).is_some_and(|l| l >= sequence))
    }

    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (&key, &sequence) in &other.last {
            let last = both.last.entry(key).or_default();
            *last = sequence.max(*last);
        }
        both
    }

    /// `self`, but of each domain and server in `extra` no more than `known` has.
    #[must_use]
    pub fn without(&self, extra: &Self, known: &Self) -> Self {
        let keep = |(key, own): (&(u32, u32), &u64)| {
            if !extra.last.contains_key(key) {
                return Some((*key, *own));
            }
            known.last.get(key).map(|theirs| (*key, *own.min(theirs)))
        };
        Self { last: self.last.iter().filter_map(keep).collect() }
    }

    /// `self` with the entries of `other` for domains that `self` has none of.
    #[must_use]
    pub fn with_domains_of(&self, other: &Self) -> Self {
        let mut both = self.clone();
        for (&(domain, server), &sequence) in &other.last {
            if self.last.range((domain, 0)..=(domain, u32::MAX)).next().is_none() {
                both.last.insert((domain, server), sequence);
            }
        }
        both
    }

    /// The highest number in a domain.
    fn reached(&self, domain: u32) -> Option<u64> {
        self.last.range((domain, 0)..=(domain, u32::MAX)).map(|(_, last)| *last).max()
    }

    fn beyond(&self, other: &Self) -> Beyond {
        self.beyond_where(other, |_, _| true)
    }

    fn beyond_where(&self, other: &Self, keeps: impl Fn((u32, u32), u64) -> bool) -> Beyond {
        let mut extra = Self::default();
        let mut transactions = 0u64;
        for (&(domain, server), &sequence) in &self.last {
            let known = other.last.get(&(domain, server)).copied();
            if known.is_some_and(|known| known >= sequence) || !keeps((domain, server), sequence) {
                continue;
            }
            // Numbers below another server's last one were that server's.
            let below = self.last.range((domain, 0)..=(domain, u32::MAX));
            let taken = below.map(|(_, &last)| last).filter(|&last| last < sequence).max();
            let base = taken.unwrap_or(0).max(known.unwrap_or(0));
            transactions = transactions.saturating_add((sequence - base).max(1));
            extra.last.insert((domain, server), sequence);
        }
        Beyond { text: extra.to_string(), transactions }
    }
}

impl fmt::Display for BinlogState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, ((domain, server), sequence)) in self.last.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            write!(f, "{domain}-{server}-{sequence}")?;
        }
        Ok(())
    }
}

fn parse_mariadb(entry: &str) -> Option<((u32, u32), u64)> {
    if !entry.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
        return None;
    }
    let mut numbers = entry.split('-');
    let domain = numbers.next()?.parse().ok()?;
    let server = numbers.next()?.parse().ok()?;
    let sequence = numbers.next()?.parse().ok()?;
    numbers.next().is_none().then_some(((domain, server), sequence))
}

/// The largest transaction number: GNO_END - 1, where GNO_END = 2^63 - 1.
const TRANSACTION_MAX: u64 = (1 << 63) - 2;

/// The longest tag, in bytes.
const TAG_BYTES_MAX: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const U: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
    const V: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";

    /// U, V, and W = V in upper case, stand for whole UUIDs as in the facts' table.
    fn spell(text: &str) -> String {
        text.split_inclusive([',', ':', ' '])
            .map(|piece| match piece.get(..1) {
                Some("U") if !piece[1..].starts_with(char::is_alphanumeric) => {
                    piece.replacen('U', U, 1)
                }
                Some("V") => piece.replacen('V', V, 1),
                Some("W") => piece.replacen('W', &V.to_uppercase(), 1),
                Some(_) | None => piece.to_owned(),
            })
            .collect()
    }

    fn set(text: &str) -> Result<GtidSet, Malformed> {
        GtidSet::parse(&spell(text))
    }

    #[test]
    fn subset_agrees_with_the_servers() {
        let long = "abcdefghijklmnopqrstuvwxyz012345";
        let vectors = [
            ("", "", true),
            ("", "U:1", true),
            ("U:1", "", false),
            ("U:3", "U:1-5", true),
            ("U:1-5", "U:1-5", true),
            ("U:1-6", "U:1-5", false),
            ("U:1-3:5", "U:1-5", true),
            ("U:1-5", "U:1-3:5", false),
            ("U:1,V:1", "U:1-5", false),
            ("V:1", "U:1-5,V:1-2", true),
            ("W:1", "V:1-2", true),
            ("U:5-3", "U:1", true),
            ("U:1-2:2-4", "U:1-4", true),
            (" U : 1 - 3 , V:2 ", "U:1-3,V:2", true),
            ("U:1,,V:1", "U:1,V:1", true),
            ("U:1,U:2-3", "U:1-3", true),
            ("U:1-3\n,V:1", "U:1-3,V:1", true),
            ("U", "U:1", true),
            ("U:9223372036854775806", "U:1-9223372036854775806", true),
            ("U:tag:1-5", "U:tag:1-9", true),
            ("U:tag:1-5", "U:1-9", false),
            ("U:1-5", "U:tag:1-9", false),
            ("U:1-3:tag:1-5", "U:1-5,U:tag:1-9", true),
            ("U:Tag:1", "U:tag:1", true),
            ("U:tag:1:other:2", "U:tag:1-2:other:1-2", true),
            ("U:_a1:1", "U:_a1:1-2", true),
            (&format!("U:{long}:1"), "U:1", false),
        ];
        for (a, b, expected) in vectors {
            let (a_set, b_set) = (set(a).expect(a), set(b).expect(b));
            assert_eq!(b_set.contains(&a_set), expected, "subset({a:?}, {b:?})");
            assert_eq!(a_set.subtract(&b_set).lists.is_empty(), expected, "{a:?} minus {b:?}");
        }
        let long = format!("U:{long}6:1");
        let malformed =
            ["U:0", "U:-1", "junk", "U:9223372036854775807", "U:1tag:1", &long, ":1", "U:1:"];
        for text in malformed {
            assert!(set(text).is_err(), "{text:?} must be refused");
        }
    }

    #[test]
    fn subtract_agrees_with_the_servers() {
        for (a, b, expected) in [
            ("U:1-10", "U:3-5", "U:1-2:6-10"),
            ("U:1-10", "U:2:4:6:8:10", "U:1:3:5:7:9"),
            ("U:1-3:5-7", "U:2-6", "U:1:7"),
            ("U:1-10,V:1-3", "V:2", "U:1-10,V:1:3"),
            ("V:1-3,U:1-2", "U:1", "U:2,V:1-3"),
            ("W:1-5", "V:2", "V:1:3-5"),
            ("U:1-10", "U:1-10", ""),
            ("U:1-10", "", "U:1-10"),
            ("U:1", "V:1", "U:1"),
            ("U:1-10:tag:1-4", "U:tag:2", "U:1-10:tag:1:3-4"),
            ("U:tag:1-4,U:1-2", "U:1-2", "U:tag:1-4"),
            ("U:1-3:5-7:9", "U:2-20", "U:1"),
            ("U:1-3:b:1:a:2", "", "U:1-3:a:2:b:1"),
            ("U:0001-0003", "", "U:1-3"),
        ] {
            let rest = set(a).expect(a).subtract(&set(b).expect(b));
            assert_eq!(rest.to_string(), spell(expected), "subtract({a:?}, {b:?})");
        }
    }

    #[test]
    fn union_agrees_with_the_servers() {
        for (a, b, expected) in [
            ("V:5", "U:1-3", "U:1-3,V:5"),
            ("U:1-5", "U:3-8", "U:1-8"),
            ("U:3,U:1", "U:2", "U:1-3"),
            ("U:5:1-2", "U:9-10:11", "U:1-2:5:9-11"),
            ("U:1-3:tag:1", "U:tag:2-3,U:4", "U:1-4:tag:1-3"),
            ("U:tag:1", "U:1", "U:1:tag:1"),
            ("U:1,V:1", "U:7", "U:1:7,V:1"),
            ("  U:1  ", "", "U:1"),
        ] {
            let both = set(a).expect(a).union(&set(b).expect(b));
            assert_eq!(both.to_string(), spell(expected), "union({a:?}, {b:?})");
        }
    }

    #[test]
    fn ten_thousand_intervals_are_compared_in_one_pass() {
        let holes = |first: u64| {
            let items: Vec<_> = (0..10_000).map(|n| (first + 4 * n).to_string()).collect();
            set(&format!("U:{}", items.join(":"))).expect("a valid set")
        };
        let (odd, even) = (holes(1), holes(2));
        assert_eq!(odd.subtract(&even), odd);
        assert_eq!(odd.union(&even).subtract(&odd), even);
        assert!(odd.union(&even).contains(&even));
        assert_eq!(odd.union(&even).transactions(), 20_000);
    }

    fn mariadb(text: &str) -> Position {
        Position::parse(Flavour::Mariadb, text).expect(text)
    }

    #[test]
    fn mariadb_states_are_compared_by_domain_and_server() {
        for (own, other, expected) in [
            ("0-1-5", "", true),
            ("", "0-1-5", false),
            ("0-1-5,1-2-9", "0-1-5", true),
            ("0-1-5,1-2-9", "0-9-3", false), // MASTER_GTID_WAIT says yes.
            ("0-1-5,0-2-7", "0-1-5", true),
            ("0-2-7", "0-1-5", false),
            ("0-1-7,0-2-8", "0-1-9", false),
            (" 0-1-5, 1-2-9 ", "1-2-9", true),
        ] {
            let (own, other) = (mariadb(own), mariadb(other));
            assert_eq!(own.contains(&other), expected, "{own} contains {other}");
        }
        for text in ["0-1", "junk", "4294967296-1-1", "0-1-5-6", "0--1", "+0-1-1"] {
            assert!(BinlogState::parse(text).is_err(), "{text:?} must be refused");
        }
        mariadb("4294967295-4294967295-18446744073709551615");
    }

    #[test]
    fn mariadb_counts_what_went_further() {
        for (own, other, text, transactions) in [
            ("0-1-9", "0-1-7", "0-1-9", 2),
            ("0-1-7,0-2-9", "0-1-7", "0-2-9", 2),
            ("0-1-9", "0-1-7,0-2-8", "0-1-9", 2),
            ("0-1-9", "0-1-9", "", 0),
            ("0-1-3,5-1-2", "", "0-1-3,5-1-2", 5),
        ] {
            let beyond = mariadb(own).beyond(&mariadb(other));
            assert_eq!(beyond, Beyond { text: text.to_owned(), transactions }, "{own} - {other}");
        }
    }

    #[test]
    fn what_a_server_wrote_and_lost_is_told_from_what_it_did_not_get_yet() {
        let writer = Writer { uuid: &V.to_uppercase(), id: 1 };
        for (peer, own, lost, others) in [
            ("U:1-5,V:1-9", "U:1-5,V:1-9", "", ""),
            ("U:1-5,V:1-9", "U:1-2,V:1-9", "", "U:3-5"),
            ("U:1-5,V:1-9:t:1", "U:1-5,V:1-6", "V:7-9:t:1", ""),
            ("U:1-5,V:1-9", "", "V:1-9", "U:1-5"),
        ] {
            let [peer, own] = [peer, own].map(|text| Position::Mysql(set(text).expect(text)));
            assert_eq!(peer.lost_of(&writer, &own).text, spell(lost), "{peer} - {own}");
            assert_eq!(peer.lost_of_others(&writer, &own).text, spell(others), "{peer} - {own}");
        }
        for (peer, own, lost) in [
            ("0-1-18,0-2-20", "0-1-13", "0-1-18"),
            ("0-1-18,0-2-20", "0-1-18", ""),
            ("0-1-18,0-2-20", "", "0-1-18"),
            ("0-1-18,0-2-20", "0-2-19", ""), // A copy knows the last of a domain only.
            ("0-1-18,7-1-3", "0-1-18", "7-1-3"),
        ] {
            let (peer, own) = (mariadb(peer), mariadb(own));
            assert_eq!(peer.lost_of(&writer, &own).text, lost, "{peer} - {own}");
        }
    }

    #[test]
    fn the_two_families_share_nothing() {
        let mysql = Position::Mysql(set("U:1").expect("a valid set"));
        assert!(!mariadb("0-1-1").contains(&mysql));
        assert!(!mysql.contains(&mariadb("0-1-1")));
        assert!(mysql.contains(&mariadb("")));
    }
}
