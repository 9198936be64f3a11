//! Style is a test: the two colours, the import directions, headers, lengths.
//!
//! In: every source file of this package. Out: every violation at once, with file and line.
//! Read first: src/lib.rs; `.clippy.toml` has what the compiler can see.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const COLUMNS_MAX: usize = 100;

/// Words that only the hands may say.
const HANDS_WORDS: &[&str] = &[
    "smol::",
    "async_io::",
    "rustix::",
    "nix::",
    "mysql::",
    "rustls::",
    "socket2::",
    "std::fs",
    "std::process",
    "std::thread",
    "std::env",
    "std::os::",
    "std::time::Instant",
    "SystemTime",
    "async fn",
    ".await",
    "HashMap",
    "HashSet",
    "unsafe",
];
/// Words that nobody may say.
const BANNED_WORDS: &[&str] = &["Box<dyn Error", "todo!(", "unimplemented!(", "dbg!(", "FIXME"];
const BANNED_FILES: &[&str] = &["utils", "helpers", "common", "misc", "manager"];

/// Of facts/repl.md section 5.
const SCENARIOS: usize = 66;
/// Of facts/sql.md section 3, and of 1.7 there.
const TRAPS: usize = 68;
const DEFECTS: usize = 15;

/// What a module may import of this crate. The ground is open to all.
const GROUND: &[&str] = &["wire", "time", "limits", "units", "crypt", "routes"];
const IMPORTS: &[(&str, &[&str])] = &[
    ("wire", &[]),
    ("time", &[]),
    ("limits", &[]),
    ("units", &[]),
    ("crypt", &["limits"]),
    ("routes", &[]),
    ("pair", &[]),
    ("vrrp", &[]),
    ("peer", &[]),
    ("repl", &[]),
    ("net", &[]),
    ("sql", &[]),
    ("web", &[]),
    ("console", &[]),
    ("supervise", &[]),
    ("appliance", &["supervise"]),
    ("config", &["vrrp", "peer", "repl", "sql", "web", "console"]),
    ("import", &["sql", "config"]),
    ("doctor", &["config"]),
    ("secrets", &["config"]),
    ("node", &["pair", "vrrp", "peer", "repl", "net", "console", "config"]),
];

struct Source {
    path: PathBuf,
    text: String,
}

impl Source {
    /// The top module it belongs to, "os" for src/os/run.rs; "lib" for src/lib.rs.
    fn module(&self) -> String {
        let inside = self.path.strip_prefix(root().join("src")).unwrap_or_else(|_| Path::new(""));
        let first = inside.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        first.trim_end_matches(".rs").to_owned()
    }

    fn is_head(&self) -> bool {
        self.path.starts_with(root().join("src"))
            && !["os", "cli", "main", "lib"].contains(&self.module().as_str())
    }

    /// Numbered lines of code before the tests, without comments and text in quotes.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        let end = self.text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(usize::MAX);
        self.text.lines().take(end).enumerate().filter_map(|(index, line)| {
            let code = line.split("//").next().unwrap_or_default();
            let unquoted: String = code.split('"').step_by(2).collect();
            (!unquoted.trim().is_empty()).then_some((index + 1, unquoted))
        })
    }

    fn at(&self, line: usize, what: &str) -> String {
        let path = self.path.strip_prefix(root()).unwrap_or(&self.path);
        format!("{}:{line}: {what}", path.display())
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn sources(folder: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("reads a source folder") {
            let path = entry.expect("reads an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("reads a source file");
                found.push(Source { path, text });
            }
        }
    }
    assert!(!found.is_empty(), "no sources in {folder}");
    found
}

fn all_sources() -> Vec<Source> {
    let mut all = sources("src");
    all.extend(sources("tests"));
    all
}

fn report(violations: Vec<String>) {
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[test]
fn the_head_never_names_the_hands_tools() {
    let mut violations = Vec::new();
    for source in sources("src").iter().filter(|source| source.is_head()) {
        for (line, code) in source.code() {
            // The pure codec crate of the same family is allowed.
            let code = code.replace("mysql_common::", "");
            for word in HANDS_WORDS.iter().filter(|word| says(&code, word)) {
                violations.push(source.at(line, &format!("the head says {word:?}")));
            }
            if code.contains(" os::") || code.contains("crate::os") || code.contains("crate::cli") {
                violations.push(source.at(line, "the head imports the hands"));
            }
        }
    }
    report(violations);
}

#[test]
fn modules_import_only_what_the_architecture_allows() {
    let mut violations = Vec::new();
    for source in sources("src").iter().filter(|source| source.is_head()) {
        let module = source.module();
        let allowed = IMPORTS.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
        let Some(allowed) = allowed else {
            violations.push(source.at(1, "a module that the list of imports does not know"));
            continue;
        };
        let is_ground = GROUND.contains(&module.as_str());
        for (line, code) in source.code() {
            for imported in imports_of(&code) {
                // Ground modules use each other; pair's Role lives in wire.
                let is_open = GROUND.contains(&imported.as_str());
                let is_own = imported == module;
                let is_allowed = is_own || is_open || allowed.contains(&imported.as_str());
                if !is_allowed || (is_ground && !is_open) {
                    violations.push(source.at(line, &format!("{module} imports {imported}")));
                }
            }
        }
    }
    report(violations);
}

/// Whether the word occurs, not as the beginning of a longer one.
fn says(code: &str, word: &str) -> bool {
    let ends_in_letter = word.ends_with(|letter: char| letter.is_alphanumeric());
    code.match_indices(word).any(|(index, _)| {
        let next = code[index + word.len()..].chars().next();
        !(ends_in_letter && next.is_some_and(|letter| letter.is_alphanumeric()))
    })
}

/// Top modules that a line of code names behind `crate::`.
fn imports_of(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, _) in code.match_indices("crate::") {
        let rest = &code[index + "crate::".len()..];
        let group = rest.strip_prefix('{').and_then(|rest| rest.split('}').next());
        let names = group.map_or_else(|| vec![rest], |group| group.split(',').collect());
        for name in names {
            let name: String = name
                .trim()
                .chars()
                .take_while(|letter| letter.is_ascii_lowercase() || *letter == '_')
                .collect();
            if !name.is_empty() {
                found.push(name);
            }
        }
    }
    found
}

#[test]
fn every_file_says_what_it_is() {
    let without = |source: &&Source| !source.text.starts_with("//! ");
    let violations = all_sources()
        .iter()
        .filter(without)
        .map(|source| source.at(1, "the first line must be //! and a sentence"))
        .collect();
    report(violations);
}

#[test]
fn files_functions_and_lines_stay_short() {
    let mut violations = Vec::new();
    for source in all_sources() {
        let code_lines = source
            .text
            .lines()
            .position(|line| line == "#[cfg(test)]")
            .unwrap_or_else(|| source.text.lines().count());
        if code_lines > FILE_LINES_MAX {
            violations.push(source.at(1, &format!("{code_lines} lines: split by sub-machine")));
        }
        let mut function: Option<(usize, usize)> = None;
        for (index, line) in source.text.lines().enumerate() {
            if line.chars().count() > COLUMNS_MAX {
                violations.push(source.at(index + 1, "longer than 100 columns"));
            }
            let indent = line.len() - line.trim_start().len();
            let is_start = line.contains("fn ") && line.trim_end().ends_with('{');
            match function {
                None if is_start && !line.trim_start().starts_with("//") => {
                    function = Some((index, indent));
                }
                Some((start, depth)) if line.trim_end() == format!("{}}}", " ".repeat(depth)) => {
                    if index - start > FUNCTION_LINES_MAX {
                        let length = index - start;
                        violations.push(source.at(start + 1, &format!("{length} lines long")));
                    }
                    function = None;
                }
                _ => {}
            }
        }
    }
    report(violations);
}

#[test]
fn banned_words_and_file_names_do_not_occur() {
    let mut violations = Vec::new();
    for source in all_sources() {
        let stem = source.path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if BANNED_FILES.contains(&stem) {
            violations.push(source.at(1, "a file name that says nothing"));
        }
        for (line, code) in source.code() {
            for word in BANNED_WORDS.iter().filter(|word| code.contains(**word)) {
                violations.push(source.at(line, &format!("{word:?}")));
            }
        }
    }
    report(violations);
}

/// A table of scenarios cannot name a test that is gone, or leave a scenario out.
#[test]
fn every_scenario_is_proved_where_the_table_says() {
    report(unproved("tests/repl/scenarios.txt", &numbers("", SCENARIOS)));
}

#[test]
fn every_trap_and_every_defect_of_atlas_is_proved_where_the_table_says() {
    let expected = [numbers("", TRAPS), numbers("A", DEFECTS)].concat();
    report(unproved("tests/sql/traps.txt", &expected));
}

fn numbers(prefix: &str, count: usize) -> Vec<String> {
    (1..=count).map(|number| format!("{prefix}{number}")).collect()
}

/// What is wrong with a table of `number | what | tests, as file::function | what is left`, in
/// which these numbers come in this order.
fn unproved(table: &str, numbers: &[String]) -> Vec<String> {
    let text = fs::read_to_string(root().join(table)).expect("the table");
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let (mut violations, mut expected) = (Vec::new(), numbers.iter());
    for line in lines {
        let mut wrong = |what: &str| violations.push(format!("{table}: {line:.30}...: {what}"));
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let [number, _, tests, rest] = columns[..] else {
            wrong("a line has four columns");
            continue;
        };
        match expected.next() {
            Some(expected) if expected == number => {}
            Some(expected) => wrong(&format!("{expected} comes here")),
            None => wrong("one line more than the facts have"),
        }
        if tests.is_empty() && rest.is_empty() {
            wrong("neither a test nor why there is none");
        }
        for test in tests.split_whitespace() {
            let (file, function) = test.split_once("::").unwrap_or((test, ""));
            let text = fs::read_to_string(root().join(file)).unwrap_or_default();
            if !text.contains(&format!("fn {function}(")) {
                wrong(&format!("{file} has no {function}"));
            }
        }
    }
    violations.extend(expected.map(|number| format!("{table}: {number} is missing")));
    violations
}

#[test]
fn every_module_is_reached_from_the_architecture_page() {
    let page = fs::read_to_string(root().join("src/lib.rs")).expect("reads lib.rs");
    let mut violations = Vec::new();
    for (module, _) in IMPORTS {
        if !page.contains(&format!("[`{module}`]")) {
            violations.push(format!("src/lib.rs does not tell what {module} is"));
        }
    }
    report(violations);
}
