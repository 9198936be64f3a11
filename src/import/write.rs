//! Write: the draft as the text of a `tandem.toml`, and as a report.
//!
//! In: a settled draft. Out: text. Must not: read anything; show a password in the report.
//! Where both hosts say the same a line has both origins; where they differ the first host's
//! counts, and it is said.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::config::Config;

use super::Outcome;
use super::draft::{Draft, Fact, Kind, Note, Origin, shown};

/// In this order, whatever came first in the old files.
const KEYS: &[&str] = &[
    "name",
    "server_name",
    "prefix",
    "from",
    "to",
    "status",
    "priority",
    "outside",
    "inside",
    "device",
    "vrid",
    "vip",
    "version",
    "interval",
    "password_encrypted",
    "transport",
    "preempt",
    "preempt_delay",
    "key",
    "port",
    "user",
    "password",
    "replication_user",
    "replication_password",
    "listen",
    "listen_socket",
    "admin_listen",
    "admin_user",
    "admin_password",
    "ssl_port",
    "ssl_certificate",
    "ssl_certificate_key",
    "ssl_protocols",
    "ssl_redirect",
    "root",
    "index",
];

/// One line, or one item of an array.
struct Line<'a> {
    key: &'static str,
    literal: &'a str,
    is_item: bool,
    comment: String,
}

pub(super) fn outcome(draft: &Draft) -> Outcome {
    let mut notes = draft.notes.clone();
    let mut toml = String::from(
        "# tandem.toml, written by `tandem import`: every line says where it came from.\n\
         # The same text on both hosts, mode 0600. `tandem check` looks at it.\n",
    );
    for table in tables(draft) {
        let lines = lines(draft, &table, &mut notes);
        let kind = table.split('/').next().unwrap_or_default();
        let header = if table.contains('/') { format!("[[{kind}]]") } else { format!("[{kind}]") };
        put(&mut toml, &format!("\n{header}"));
        section(&mut toml, &lines);
    }
    let todo: Vec<String> = toml
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("FILL IN"))
        .map(|(index, line)| format!("tandem.toml:{}: {}", index + 1, line.trim()))
        .collect();
    let errors = notes.iter().any(|note| note.kind == Kind::Error);
    let refused = match todo.is_empty() {
        true => Config::parse(&toml).err().map(|error| error.to_string()),
        false => None,
    };
    let is_complete = todo.is_empty() && !errors && refused.is_none();
    let report = report(draft, &notes, &todo, refused.as_deref());
    Outcome { toml, report, is_complete }
}

fn put(text: &mut String, line: &str) {
    let _infallible = writeln!(text, "{line}");
}

/// Every table, in the order of the file.
fn tables(draft: &Draft) -> Vec<String> {
    let mut seen: Vec<&str> = Vec::new();
    for fact in &draft.facts {
        if !seen.contains(&fact.table.as_str()) {
            seen.push(&fact.table);
        }
    }
    let mut ordered = Vec::new();
    for wanted in [
        "host/",
        "link.outside",
        "link.inside",
        "vrrp",
        "peer",
        "repl",
        "sql",
        "sql.user/",
        "web",
        "web.error_page",
        "web.location/",
        "web.redirect/",
    ] {
        let is_wanted = |table: &&&str| match wanted.ends_with('/') {
            true => table.starts_with(wanted),
            false => **table == wanted,
        };
        let mut found: Vec<String> = seen.iter().filter(is_wanted).map(|it| (*it).into()).collect();
        if wanted == "host/" {
            found.sort();
        }
        ordered.extend(found);
    }
    for site in seen.iter().filter_map(|table| table.strip_prefix("web.site/")) {
        ordered.push(format!("web.site/{site}"));
        for kind in ["location", "redirect"] {
            let prefix = format!("web.site.{kind}/{site}|");
            let below = seen.iter().filter(|table| table.starts_with(&prefix));
            ordered.extend(below.map(|it| (*it).into()));
        }
    }
    ordered
}

fn lines<'a>(draft: &'a Draft, table: &str, notes: &mut Vec<Note>) -> Vec<Line<'a>> {
    let mut facts: Vec<&Fact> = draft.facts.iter().filter(|fact| fact.table == table).collect();
    let place = |key: &str| KEYS.iter().position(|it| *it == key).unwrap_or(KEYS.len());
    facts.sort_by_key(|fact| (place(fact.key), fact.origin.as_ref().map(|it| it.host)));
    let mut lines: Vec<Line<'_>> = Vec::new();
    for fact in &facts {
        let twin = lines
            .iter()
            .position(|it| it.key == fact.key && (!fact.is_item || it.literal == fact.literal));
        let comment = comment(draft, fact);
        match twin.and_then(|place| lines.get_mut(place)) {
            None => lines.push(Line {
                key: fact.key,
                literal: &fact.literal,
                is_item: fact.is_item,
                comment,
            }),
            Some(line) if line.literal == fact.literal => {
                line.comment = format!("{}, {comment}", line.comment);
            }
            Some(line) => {
                let why = format!(
                    "the hosts differ: {} is written, of {}",
                    shown(fact.key, line.literal),
                    line.comment
                );
                let what = format!("{} = {}", fact.key, shown(fact.key, &fact.literal));
                warn(notes, fact, what, why);
            }
        }
    }
    // Whether both hosts have an item, where both have some.
    let hosts_of = |is_it: &dyn Fn(&Fact) -> bool| {
        let found = facts.iter().filter(|it| it.is_item && is_it(it));
        let mut hosts: Vec<usize> =
            found.filter_map(|it| it.origin.as_ref()).map(|it| it.host).collect();
        hosts.sort_unstable();
        hosts.dedup();
        hosts.len()
    };
    for fact in facts.iter().filter(|it| it.is_item) {
        let both = hosts_of(&|it| it.key == fact.key);
        let here = hosts_of(&|it| it.key == fact.key && it.literal == fact.literal);
        if here < both {
            let what = format!("{} {}", fact.key, fact.literal).trim().to_owned();
            warn(notes, fact, what, "only this host has it: it is written for both".to_owned());
        }
    }
    lines
}

fn warn(notes: &mut Vec<Note>, fact: &Fact, what: String, why: String) {
    if let Some(origin) = fact.origin.clone() {
        notes.push(Note { kind: Kind::Warning, origin, what, why });
    }
}

fn comment(draft: &Draft, fact: &Fact) -> String {
    match (&fact.origin, fact.remark.as_str()) {
        (Some(origin), "") => place(draft, origin),
        (Some(origin), remark) => format!("{}: {remark}", place(draft, origin)),
        (None, remark) => remark.to_owned(),
    }
}

fn file(draft: &Draft, origin: &Origin) -> String {
    let name = draft.names.get(origin.host).map(String::as_str).unwrap_or_default();
    // Names of files may have any bytes; a comment is one line.
    format!("{name}:{}", origin.path).chars().filter(|it| !it.is_control()).collect()
}

fn place(draft: &Draft, origin: &Origin) -> String {
    format!("{}:{}", file(draft, origin), origin.line)
}

fn section(toml: &mut String, lines: &[Line<'_>]) {
    let mut done: Vec<&str> = Vec::new();
    for line in lines {
        if line.key.is_empty() {
            put(toml, &format!("{}  # {}", line.literal, line.comment));
            continue;
        }
        if done.contains(&line.key) {
            continue;
        }
        done.push(line.key);
        if !line.is_item {
            put(toml, &format!("{} = {}  # {}", line.key, line.literal, line.comment));
            continue;
        }
        put(toml, &format!("{} = [", line.key));
        for item in lines.iter().filter(|it| it.key == line.key && it.is_item) {
            put(toml, &format!("    {},  # {}", item.literal, item.comment));
        }
        put(toml, "]");
    }
}

fn report(draft: &Draft, notes: &[Note], todo: &[String], refused: Option<&str>) -> String {
    let mut text = String::from("Read:\n");
    for source in &draft.sources {
        put(&mut text, &format!("  {}", file(draft, source)));
    }
    if !todo.is_empty() {
        put(&mut text, "\nTo fill in:");
        for line in todo {
            put(&mut text, &format!("  {line}"));
        }
    }
    if let Some(refused) = refused {
        put(&mut text, "\n`tandem check` refuses it:");
        for line in refused.lines() {
            put(&mut text, &format!("  {line}"));
        }
    }
    for (kind, title) in [
        (Kind::Error, "Not understood; expected was:"),
        (Kind::Warning, "Worth a look:"),
        (Kind::Left, "Not taken over:"),
    ] {
        let of_kind: Vec<&Note> = notes.iter().filter(|note| note.kind == kind).collect();
        if !of_kind.is_empty() {
            put(&mut text, &format!("\n{title}"));
            told(&mut text, draft, &of_kind);
        }
    }
    text
}

/// One line each; those of a file that have one reason stand below it.
fn told(text: &mut String, draft: &Draft, notes: &[&Note]) {
    let mut groups: BTreeMap<(usize, &str, usize), Vec<&Note>> = BTreeMap::new();
    let mut firsts: BTreeMap<(usize, &str, &str), usize> = BTreeMap::new();
    for note in notes {
        let place = (note.origin.host, note.origin.path.as_str(), note.why.as_str());
        let first = firsts.entry(place).or_insert(note.origin.line);
        *first = note.origin.line.min(*first);
    }
    let first = |note: &Note| {
        let place = (note.origin.host, note.origin.path.as_str(), note.why.as_str());
        firsts.get(&place).copied().unwrap_or_default()
    };
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for note in notes {
        if !reasons.iter().any(|(why, _)| *why == note.why) {
            reasons.push((&note.why, reasons.len()));
        }
    }
    for note in notes {
        // Several reasons may begin at one line.
        let reason = reasons.iter().find(|(why, _)| *why == note.why).map_or(0, |it| it.1);
        let key = first(note).saturating_mul(reasons.len().max(1)).saturating_add(reason);
        groups.entry((note.origin.host, &note.origin.path, key)).or_default().push(note);
    }
    for group in groups.values() {
        let what = |note: &Note| match note.what.is_empty() {
            true => String::new(),
            false => format!(" {}", note.what.replace(char::is_control, " ")),
        };
        match group.as_slice() {
            [note] if note.what.is_empty() => {
                put(text, &format!("  {}: {}", place(draft, &note.origin), note.why));
            }
            [note] => {
                let place = place(draft, &note.origin);
                put(text, &format!("  {place}:{}: {}", what(note), note.why));
            }
            [note, ..] => {
                put(text, &format!("  {}: {}", file(draft, &note.origin), note.why));
                for note in group {
                    put(text, &format!("    :{}{}", note.origin.line, what(note)));
                }
            }
            [] => {}
        }
    }
}
