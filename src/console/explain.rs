//! What each name means that a finding or a note has: what is seen, what the pair does about it,
//! how to look, how to mend it.
//!
//! In: a name. Out: text. Must not: know what is true on this host (`status` does).
//! Read first: explain/findings.txt, doctor.txt and notes.txt: an entry is a name and its meaning,
//! then indented what there is to say; `meanwhile`, `check` and `mend` begin parts of it.

use std::fmt::Write as _;

use super::render::fold;

/// Where names are met, and what they mean.
const KINDS: [(&str, &str); 3] = [
    (
        "Findings, in `tandem status` and `tandem check --live`",
        include_str!("explain/findings.txt"),
    ),
    ("Findings of `tandem doctor`", include_str!("explain/doctor.txt")),
    ("Notes, in `tandem log`, behind each line", include_str!("explain/notes.txt")),
];
const PARTS: [&str; 3] = ["meanwhile", "check", "mend"];
/// Names that are offered for one that is not there.
const NEAR_MAX: usize = 5;

/// One name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    name: &'static str,
    meaning: &'static str,
    about: &'static str,
}

fn entries(text: &'static str) -> impl Iterator<Item = Entry> {
    text.trim_end().split("\n\n").filter_map(|entry| {
        let (head, about) = entry.split_once('\n')?;
        let (name, meaning) = head.split_once(": ")?;
        Some(Entry { name, meaning, about })
    })
}

fn all() -> impl Iterator<Item = Entry> {
    KINDS.into_iter().flat_map(|(_, text)| entries(text))
}

/// Every name, as they are told.
pub fn names() -> impl Iterator<Item = &'static str> {
    all().map(|entry| entry.name)
}

/// All names, each with its meaning on a line of 79 columns: `tandem explain`.
#[must_use]
pub fn overview() -> String {
    let mut text = String::new();
    for (title, kind) in KINDS {
        let _infallible = writeln!(text, "{title}:\n");
        for Entry { name, meaning, .. } in entries(kind) {
            let lines = fold(meaning, &" ".repeat(26));
            let _infallible = writeln!(text, "  {name:<24}{}", lines.join("\n").trim_start());
        }
        text.push('\n');
    }
    text + "`tandem explain NAME` tells what to do.\n"
}

/// What there is to say of a name, on lines of 79 columns. The error names those that may be meant.
pub fn explain(name: &str) -> Result<String, String> {
    // As it is copied from a screen.
    let name = name.trim_matches(['[', ']', ':']);
    let Some(Entry { name, meaning, about }) = all().find(|entry| entry.name == name) else {
        let near = near(name);
        return Err(match near.is_empty() {
            true => format!("there is no finding or note {name}: `tandem explain` lists them"),
            false => format!("there is no finding or note {name}: {}?", near.join(", ")),
        });
    };
    let mut text = fold(&format!("{name}: {meaning}"), "").join("\n") + "\n\n";
    for (title, words) in parts(about) {
        for (number, line) in fold(&words, &" ".repeat(11)).iter().enumerate() {
            let title = if number == 0 { title } else { "" };
            let _infallible = writeln!(text, "{title:<11}{}", line.trim_start());
        }
    }
    Ok(text)
}

/// What is said under each title, in order; the first part has none but "what".
fn parts(about: &str) -> Vec<(&'static str, String)> {
    let mut found = vec![("what", String::new())];
    for line in about.lines().map(str::trim) {
        let titled = line.split_once(": ").and_then(|(word, rest)| {
            PARTS.into_iter().find(|part| *part == word).map(|part| (part, rest))
        });
        match (titled, found.last_mut()) {
            (Some((part, rest)), _) => found.push((part, rest.to_owned())),
            (None, Some((_, words))) => *words = format!("{words} {line}"),
            (None, None) => {}
        }
    }
    found
}

/// Names that are misspelt by two letters at most, or hold a part of the word; the nearest first.
fn near(word: &str) -> Vec<&'static str> {
    let has_part = |name: &str| {
        let mut parts = word.split(['-', '_']).filter(|part| part.len() > 3);
        parts.any(|part| name.contains(part))
    };
    let distances = names().map(|name| (distance(word, name), name));
    let mut found: Vec<_> =
        distances.filter(|(letters, name)| *letters <= 2 || has_part(name)).collect();
    found.sort_unstable();
    found.into_iter().take(NEAR_MAX).map(|(_, name)| name).collect()
}

/// Letters to insert, remove or replace that make one word of the other (Levenshtein).
fn distance(one: &str, other: &str) -> usize {
    let mut row: Vec<usize> = (0..=other.chars().count()).collect();
    for (above, letter) in one.chars().enumerate() {
        let mut corner = above;
        row[0] = above + 1;
        for (place, it) in other.chars().enumerate() {
            let replaced = corner + usize::from(it != letter);
            corner = row[place + 1];
            row[place + 1] = replaced.min(corner + 1).min(row[place] + 1);
        }
    }
    row[other.chars().count()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// What the functions `name` of a source can return: each is a match without a wildcard, so
    /// that the compiler sees to it that a variant has a name.
    fn returned(source: &'static str) -> BTreeSet<&'static str> {
        let bodies = source.split("fn name(").skip(1);
        let bodies = bodies.map(|rest| rest.split("\n    }\n").next().unwrap_or_default());
        let arms = bodies.flat_map(|body| body.split("=> \"").skip(1));
        arms.filter_map(|rest| rest.split('"').next()).collect()
    }

    fn told(kind: usize) -> BTreeSet<&'static str> {
        entries(KINDS[kind].1).map(|entry| entry.name).collect()
    }

    #[test]
    fn every_name_is_explained_and_nothing_else() {
        let findings = returned(include_str!("finding.rs"));
        let doctor = returned(include_str!("../doctor/mod.rs"));
        let mut notes = returned(include_str!("note.rs"));
        notes.insert(super::super::note::SERVICE_SAYS);
        assert!(findings.len() > 30 && doctor.len() > 25 && notes.len() > 40);
        assert_eq!(told(0), findings);
        // A name of both means the same, and is told once.
        assert_eq!(told(1), doctor.difference(&findings).copied().collect());
        assert_eq!(told(2), notes);
        assert_eq!(names().count(), names().collect::<BTreeSet<_>>().len(), "a name twice");
    }

    #[test]
    fn every_finding_says_what_to_do() {
        for (kind, (_, text)) in KINDS.into_iter().enumerate() {
            for Entry { name, meaning, about } in entries(text) {
                let parts = parts(about);
                let titles: Vec<&str> = parts.iter().map(|(title, _)| *title).collect();
                let expected: &[&str] = match kind {
                    0 => &["what", "meanwhile", "check", "mend"],
                    1 => &["what", "check", "mend"],
                    _ => &["what"],
                };
                assert!(titles.starts_with(expected), "{name}: {titles:?}");
                assert!(parts.iter().all(|(_, words)| words.trim().ends_with('.')), "{name}");
                assert!(!meaning.ends_with('.'), "{name}");
                assert!(about.lines().all(|line| line.starts_with("  ")), "{name}");
            }
        }
    }

    #[test]
    fn a_name_is_explained_on_a_screen_of_24_lines() {
        for name in names() {
            let text = explain(name).expect(name);
            assert!(text.starts_with(&format!("{name}: ")), "{text}");
            assert!(text.lines().all(|line| line.chars().count() < 80), "{text}");
            assert!(text.lines().count() < 24, "{text}");
        }
        assert!(overview().lines().all(|line| line.chars().count() < 80), "{}", overview());
        assert_eq!(explain("[peer-lost]"), explain("peer-lost"));
        assert_eq!(explain("peer-lost:"), explain("peer-lost"));
        let text = explain("vrrp-firewalled").expect("a finding");
        assert!(
            text.contains("\nmeanwhile  beacons") && text.contains("\nmend       `ip"),
            "{text}"
        );
    }

    #[test]
    fn a_name_that_is_not_there_has_others_near_it() {
        for (wrong, meant) in [
            ("vrrp-firewaled", ": vrrp-firewalled, vrrp-rejected?"),
            ("firewall", ": firewalled, vrrp-firewalled, firewall-unclear?"),
            ("multicast", "multicast-blocked?"),
            ("no-carier", ": no-carrier?"),
            ("xyzzy", "`tandem explain` lists them"),
            ("", "`tandem explain` lists them"),
        ] {
            let why = explain(wrong).expect_err(wrong);
            assert!(why.contains(meant), "{wrong}: {why}");
        }
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
