//! Ini: sections of `key = value`, as Atlas and MySQL have them.
//!
//! In: a text. Out: settings with section and line. Must not: follow includes (every file of the
//! given folder that looks like one is read by itself).

use super::draft::{Draft, Origin};

#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub(super) section: String,
    /// With dashes: to MySQL an underscore is the same.
    pub(super) key: String,
    /// Without quotes; `None` where only the key stands there.
    pub(super) value: Option<String>,
    pub(super) origin: Origin,
}

impl Setting {
    pub(super) fn text(&self) -> &str {
        self.value.as_deref().unwrap_or_default()
    }

    pub(super) fn shown(&self) -> String {
        let is_secret = ["pass", "pwd", "auth"].iter().any(|word| self.key.contains(word));
        match &self.value {
            Some(value) if !is_secret => {
                let value: String = value.chars().take(60).collect();
                format!("{} = {value}", self.key)
            }
            Some(_) | None => self.key.clone(),
        }
    }
}

pub(super) fn settings(draft: &mut Draft, at: &Origin, text: &str) -> Vec<Setting> {
    let (mut found, mut section) = (Vec::new(), String::new());
    for (index, line) in text.lines().enumerate() {
        let (origin, line) = (at.at(index + 1), line.trim());
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.split_once(']') {
                Some((name, _)) => section = name.trim().to_owned(),
                None => draft.error(&origin, "] that ends the name of the section"),
            }
            continue;
        }
        if line.starts_with('!') {
            draft.left(
                &origin,
                line,
                "the files that it names are read too, if they are among those given",
            );
            continue;
        }
        if section.is_empty() {
            draft.error(&origin, "a section in brackets, as in [mysqld], before the first setting");
            section = "?".to_owned();
        }
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim(), Some(unquoted(value))),
            None => (line.split(['#', ';']).next().unwrap_or(line).trim(), None),
        };
        let key = key.replace('_', "-").to_ascii_lowercase();
        found.push(Setting { section: section.clone(), key, value, origin });
    }
    found
}

/// A comment ends it where a blank stands before; quotes around it are not part of it.
fn unquoted(value: &str) -> String {
    let value = value.trim();
    for quote in ['"', '\''] {
        if let Some((inner, _)) = value.strip_prefix(quote).and_then(|rest| rest.split_once(quote))
        {
            return inner.to_owned();
        }
    }
    let value = value.split(" #").next().unwrap_or(value);
    value.split("\t#").next().unwrap_or(value).trim().to_owned()
}
