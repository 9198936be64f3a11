//! Draft: what is known so far, every value with its origin.
//!
//! In: facts and findings of the dialects. Out: the same, for `pair` and `write`.
//! Must not: choose between two hosts that disagree (see `write`).

use std::fmt::Display;
use std::net::Ipv4Addr;

use crate::units::IpCidr;

/// Notes of one block, at most.
const SAME_BLOCK: usize = 256;

/// A line of a file of one of the hosts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Origin {
    pub(super) host: usize,
    pub(super) path: String,
    pub(super) line: usize,
}

impl Origin {
    pub(super) fn at(&self, line: usize) -> Self {
        Self { line, ..self.clone() }
    }
}

/// A line of the new file.
#[derive(Debug, Clone)]
pub(super) struct Fact {
    /// "vrrp", "sql.user/root", "web.site/www.example.org": what follows a slash tells tables of
    /// one kind apart.
    pub(super) table: String,
    pub(super) key: &'static str,
    /// As TOML writes it.
    pub(super) literal: String,
    /// One of several that make an array.
    pub(super) is_item: bool,
    /// `None`: of no file; then `remark` says why it is there.
    pub(super) origin: Option<Origin>,
    pub(super) remark: String,
}

/// What an operator is told of a line of the old files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// The file is not as its program wants it.
    Error,
    /// The two hosts disagree, or it did not do what was meant.
    Warning,
    /// Not taken over.
    Left,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) kind: Kind,
    pub(super) origin: Origin,
    pub(super) what: String,
    pub(super) why: String,
}

/// A virtual router of keepalived.
#[derive(Debug, Clone)]
pub(super) struct Instance {
    pub(super) name: String,
    pub(super) origin: Origin,
    pub(super) device: Option<(String, Origin)>,
    pub(super) vrid: Option<(u8, Origin)>,
    pub(super) priority: Option<(u8, Origin)>,
    pub(super) vips: Vec<Vip>,
    pub(super) is_master: Option<Origin>,
    pub(super) nopreempt: Option<Origin>,
}

#[derive(Debug, Clone)]
pub(super) struct Vip {
    pub(super) address: IpCidr,
    /// No prefix stood there: keepalived takes /32.
    pub(super) is_bare: bool,
    pub(super) literal: String,
    pub(super) origin: Origin,
}

/// An address of a host's own, and who said so.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    /// Of the host with this number; for `Whose::Other` it is the one that it is not.
    pub(super) whose: Whose,
    pub(super) address: Ipv4Addr,
    pub(super) prefix: Option<u8>,
    pub(super) origin: Origin,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whose {
    Own(usize),
    Other(usize),
    Named(String),
}

#[derive(Debug)]
pub(super) struct Draft {
    pub(super) names: Vec<String>,
    /// The files that were read.
    pub(super) sources: Vec<Origin>,
    pub(super) facts: Vec<Fact>,
    pub(super) notes: Vec<Note>,
    pub(super) instances: Vec<Instance>,
    pub(super) seen: Vec<Seen>,
    /// Where the old splitter wrote to, and where the old front listened: that tells links apart.
    pub(super) writes_to: Vec<Ipv4Addr>,
    pub(super) listens_on: Vec<Ipv4Addr>,
}

impl Draft {
    pub(super) const fn new(names: Vec<String>) -> Self {
        Self {
            names,
            sources: Vec::new(),
            facts: Vec::new(),
            notes: Vec::new(),
            instances: Vec::new(),
            seen: Vec::new(),
            writes_to: Vec::new(),
            listens_on: Vec::new(),
        }
    }

    /// A line; the first one that a host says stays.
    pub(super) fn set(&mut self, table: &str, key: &'static str, literal: String, at: &Origin) {
        let first = self.said(table, key, at.host).next();
        match first {
            Some(fact) if fact.literal == literal => {}
            Some(fact) => {
                let taken = fact.origin.as_ref().map_or_else(String::new, |origin| {
                    let is_here = origin.path == at.path;
                    let path = if is_here { "" } else { origin.path.as_str() };
                    format!("{path}:{}", origin.line)
                });
                let why = format!(
                    "there is one {key} in [{}], taken from {taken}",
                    table.split('/').next().unwrap_or_default()
                );
                self.left(at, &format!("{key} = {}", shown(key, &literal)), &why);
            }
            None => self.push(table, key, literal, at, false),
        }
    }

    /// What the files of a host say of a key.
    fn said<'a>(
        &'a self,
        table: &'a str,
        key: &'a str,
        host: usize,
    ) -> impl Iterator<Item = &'a Fact> {
        self.facts.iter().filter(move |fact| {
            fact.table == table
                && fact.key == key
                && fact.origin.as_ref().is_some_and(|origin| origin.host == host)
        })
    }

    /// One of several.
    pub(super) fn add(&mut self, table: &str, key: &'static str, literal: String, at: &Origin) {
        if !self.said(table, key, at.host).any(|fact| fact.literal == literal) {
            self.push(table, key, literal, at, true);
        }
    }

    fn push(
        &mut self,
        table: &str,
        key: &'static str,
        literal: String,
        at: &Origin,
        is_item: bool,
    ) {
        let (table, origin, remark) = (table.to_owned(), Some(at.clone()), String::new());
        self.facts.push(Fact { table, key, literal, is_item, origin, remark });
    }

    /// A line that no file has.
    pub(super) fn fill(&mut self, table: &str, key: &'static str, literal: &str, remark: &str) {
        if !self.has(table, key) {
            self.facts.push(Fact {
                table: table.to_owned(),
                key,
                literal: literal.to_owned(),
                is_item: false,
                origin: None,
                remark: remark.to_owned(),
            });
        }
    }

    pub(super) fn has(&self, table: &str, key: &str) -> bool {
        self.facts.iter().any(|fact| fact.table == table && fact.key == key)
    }

    fn note(&mut self, kind: Kind, at: &Origin, what: &str, why: &str) {
        let note = Note { kind, origin: at.clone(), what: what.into(), why: why.into() };
        // What is said twice is said of the same block.
        if !self.notes.iter().rev().take(SAME_BLOCK).any(|it| *it == note) {
            self.notes.push(note);
        }
    }

    pub(super) fn error(&mut self, at: &Origin, expected: &str) {
        self.note(Kind::Error, at, "", expected);
    }

    pub(super) fn warn(&mut self, at: &Origin, what: &str, why: &str) {
        self.note(Kind::Warning, at, what, why);
    }

    pub(super) fn left(&mut self, at: &Origin, what: &str, why: &str) {
        self.note(Kind::Left, at, what, why);
    }

    /// The old files said an address of a host.
    pub(super) fn see(&mut self, whose: Whose, text: &str, prefix: Option<u8>, at: &Origin) {
        if let Ok(address) = text.parse::<Ipv4Addr>()
            && !address.is_loopback()
            && !address.is_unspecified()
        {
            self.seen.push(Seen { whose, address, prefix, origin: at.clone() });
        }
    }
}

/// A string as TOML writes it.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A list of strings.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(&item.to_string())).collect();
    format!("[{}]", items.join(", "))
}

/// A literal for the report: never a password.
pub(super) fn shown<'a>(key: &str, literal: &'a str) -> &'a str {
    if key.contains("password") { "(a password)" } else { literal }
}
