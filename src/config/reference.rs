//! The reference of tandem.toml: what `tandem help config` tells of sections and keys.
//!
//! In: a name. Out: text. Must not: say anything itself: tests/reference.rs makes reference.txt out
//! of the structs that are the sections, their comments and their defaults, and fails where it
//! differs.

/// All of it. A blank line ends a section.
pub const REFERENCE: &str = include_str!("reference.txt");

/// What a key is indented by, and what is said of it.
const KEY: &str = "  ";
const ABOUT: &str = "      ";

/// A section by its name ("web", with the tables in it, or "web.site"), or a key ("hold_limit",
/// "web.port") in every section that has it. The error says what there is.
pub fn find(name: &str) -> Result<String, String> {
    let name = name.trim_matches(['[', ']']);
    let of = format!("{name}.");
    let parts: Vec<String> = sections()
        .filter_map(|section| {
            let names = names(section);
            let is_meant = names.iter().any(|it| it == name || it.starts_with(&of));
            if is_meant { Some(section.to_owned()) } else { keys(section, &names, name) }
        })
        .collect();
    if !parts.is_empty() {
        return Ok(parts.join("\n\n") + "\n");
    }
    let all: Vec<String> = sections().flat_map(names).collect();
    Err(format!("there is no section or key {name}; the sections are {}", all.join(", ")))
}

/// Without what stands above them.
fn sections() -> impl Iterator<Item = &'static str> {
    REFERENCE.split("\n\n").skip(1).map(str::trim_end)
}

/// "[[host]], twice" is host; "[link.outside], [link.inside]" is both.
fn names(section: &str) -> Vec<String> {
    let heading = section.lines().next().unwrap_or_default();
    let parts = heading.split(", ").filter(|part| part.starts_with('['));
    parts.map(|part| part.trim_matches(['[', ']']).to_owned()).collect()
}

/// The heading and the key of that name, if it is there.
fn keys(section: &str, names: &[String], wanted: &str) -> Option<String> {
    let is_it = |line: &&str| {
        let key = line.strip_prefix(KEY).and_then(|line| line.split(" (").next());
        key.is_some_and(|key| {
            key == wanted || names.iter().any(|name| wanted == format!("{name}.{key}"))
        })
    };
    let (heading, body) = section.split_once('\n')?;
    let mut lines = body.lines().skip_while(|line| !is_it(line));
    let mut text = format!("{heading}\n{}", lines.next()?);
    for line in lines.take_while(|line| line.starts_with(ABOUT)) {
        text.push('\n');
        text.push_str(line);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_finds_its_section_or_its_keys() {
        let web = find("web").expect("a section");
        assert!(web.starts_with("[web]\n") && web.contains("\n[[web.site]]\n"), "{web}");
        assert!(!web.contains("[console]"), "{web}");
        assert_eq!(find("[vrrp]").expect("a section").matches("\n\n").count(), 0);
        assert!(find("link").expect("both").starts_with("[link.outside], [link.inside]\n"));
        let port = find("web.port").expect("a key");
        assert!(port.starts_with("[web]\n  port (number, default 80)\n      TCP"), "{port}");
        assert!(port.lines().count() < 6, "{port}");
        let all = find("port").expect("a key of three sections");
        assert_eq!(all.matches("\n  port (number").count(), 3, "{all}");
        assert!(find("link.inside.vrid").is_ok());
    }

    #[test]
    fn an_unknown_name_is_told_what_there_is() {
        for name in ["wbe", "", "replaces", "The", "web.", "nginx"] {
            let why = find(name).expect_err(name);
            assert!(why.contains("host, link.outside, link.inside"), "{name}: {why}");
        }
    }

    #[test]
    fn it_fits_on_80_columns() {
        for line in REFERENCE.lines() {
            assert!(line.len() < 80, "{line}");
        }
        assert!(sections().all(|section| !names(section).is_empty()));
    }
}
