//! The manual page and the completion for bash, from the table of verbs.
//!
//! In: the table. Out: text. Read first: man(7) for the macros, groff_char(7) for what must be
//! escaped; `mandoc -T lint` and bash itself judge both in tests/console.

use std::fmt::Write as _;

use super::super::explain;
use super::{Group, VERBS, Verb, Word};

/// tandem(8), in the macros of man(7).
#[must_use]
pub fn manual(release: &str) -> String {
    let mut page = String::new();
    let mut put = |line: &str| {
        let _infallible = writeln!(page, "{line}");
    };
    put(&format!(".TH TANDEM 8 2026-11-27 \"tandem {release}\" \"System Administration\""));
    put(".SH NAME\ntandem \\- two hosts, one dependable web-and-database service");
    put(".SH SYNOPSIS\n.B tandem\n.I VERB\n.RI [ ARGUMENTS ]");
    put(".SH DESCRIPTION");
    put(&escaped(
        "One program on each of two hosts. It moves the virtual addresses (VRRP), serves files and \
         PHP (HTTP, FastCGI), splits reads from writes (MySQL), and promotes the database of the \
         host that is left. One configuration, the same text on both hosts, says how.",
    ));
    for group in Group::ALL {
        put(&format!(".SH {}", escaped(&group.title().to_uppercase())));
        for verb in VERBS.iter().filter(|verb| verb.group == group) {
            put_verb(verb, &mut put);
        }
    }
    put(".SH EXIT STATUS");
    put(&escaped("0: done, or healthy. 1: refused, failed or degraded. 2: wrong usage or"));
    put(&escaped("configuration. 3: no daemon runs here."));
    put(".SH FILES");
    for (path, about) in [
        ("/etc/tandem/tandem.toml", "the configuration; `tandem help config` tells every key"),
        ("/run/tandem.sock", "where the daemon is asked; root, and the group of [console]"),
        ("/run/tandem/notes", "the notes of a daemon that died"),
        ("/var/lib/tandem", "epoch and orders; transactions that were saved"),
    ] {
        put(&format!(".TP\n.I {}\n{}", escaped(path), escaped(about)));
    }
    put(".SH SEE ALSO\n.BR ip (8),\n.BR systemd (1),\n.BR mysqld (8),\n.BR php\\-fpm8.2 (8)");
    page
}

fn put_verb(verb: &Verb, put: &mut impl FnMut(&str)) {
    put(".TP");
    put(&format!(".B {} \\fR{}", escaped(verb.name), escaped(verb.arguments)));
    let summary = format!("{}.", capitalised(verb.summary));
    put(&escaped(&summary));
    if !verb.about.is_empty() {
        put(&escaped(verb.about));
    }
    for Word { word, about } in verb.options {
        put(&format!(".br\n.BR {} :\n{}.", escaped(word), escaped(about)));
    }
}

fn capitalised(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// A backslash, a hyphen that is to be copied, a dot or quote that begins a line.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\e"),
            '-' => out.push_str("\\-"),
            '`' => out.push_str("\\(ga"),
            '\'' => out.push_str("\\(aq"),
            other => out.push(other),
        }
    }
    match out.starts_with('.') {
        true => format!("\\&{out}"),
        false => out,
    }
}

/// For bash: the verbs, then the words of the one that was typed.
#[must_use]
pub fn completion() -> String {
    let names: Vec<&str> = VERBS.iter().map(|verb| verb.name).collect();
    let mut script = format!(
        "# bash completion for tandem: source <(tandem completion bash)\n\
         _tandem() {{\n    local word=${{COMP_WORDS[COMP_CWORD]}} words=\n    \
         if [ \"$COMP_CWORD\" = 1 ]; then\n        words=\"{}\"\n    else\n        \
         case ${{COMP_WORDS[1]}} in\n",
        names.join(" ")
    );
    for verb in VERBS {
        let words: Vec<&str> = match verb.name {
            "help" => names.clone(),
            "explain" => explain::names().collect(),
            _ => verb.options.iter().map(|option| option.word).collect(),
        };
        if !words.is_empty() {
            let _infallible =
                writeln!(script, "        {}) words=\"{}\" ;;", verb.name, words.join(" "));
        }
    }
    script.push_str(
        "        esac\n    fi\n    \
         mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$word\")\n}\n\
         complete -o default -F _tandem tandem\n",
    );
    script
}
