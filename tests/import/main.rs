//! Import: configurations as people write them, and what `tandem import` makes of each.
//!
//! In: cases/NAME/HOST/..., a copy of a host's files each. Out: expected.toml and expected.txt
//! beside them; `UPDATE=1` rewrites both, and the diff is reviewed as behaviour.
//! A file that is complete is one that `tandem check` takes.

mod laws;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use tandem::config::Config;
use tandem::import::{Host, Outcome, import};

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn cases() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import/cases")
}

fn sorted(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("reads a folder");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
}

fn last(path: &Path) -> String {
    path.file_name().expect("a name").to_string_lossy().into_owned()
}

fn host(folder: &Path) -> Host {
    let mut files = BTreeMap::new();
    let mut open = vec![folder.to_owned()];
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(sorted(&path));
            continue;
        }
        let inside = path.strip_prefix(folder).expect("is inside");
        let text = fs::read_to_string(&path).expect("reads a file");
        files.insert(format!("/{}", inside.display()), text);
    }
    Host { name: last(folder), files }
}

fn hosts(case: &str) -> Vec<Host> {
    let folders = sorted(&cases().join(case)).into_iter().filter(|path| path.is_dir());
    folders.map(|folder| host(&folder)).collect()
}

fn outcome(case: &str) -> Outcome {
    import(&hosts(case), KEY).expect(case)
}

#[test]
fn every_case_gives_what_is_written_beside_it() {
    let is_update = std::env::var_os("UPDATE").is_some();
    let mut wrong = Vec::new();
    let all = sorted(&cases());
    assert!(all.len() >= 30, "{} cases", all.len());
    for folder in all {
        let outcome = outcome(&last(&folder));
        for (name, text) in [("expected.toml", &outcome.toml), ("expected.txt", &outcome.report)] {
            let path = folder.join(name);
            if is_update {
                fs::write(&path, text).expect("writes a golden file");
            }
            if fs::read_to_string(&path).ok().as_ref() != Some(text) {
                wrong.push(format!("{}:\n{text}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "run UPDATE=1 and review the diff\n{}", wrong.join("\n"));
}

#[test]
fn what_is_complete_passes_the_check_and_what_is_not_says_where() {
    let mut complete = 0;
    for folder in sorted(&cases()) {
        let name = last(&folder);
        let outcome = outcome(&name);
        let checked = Config::parse(&outcome.toml);
        if outcome.is_complete {
            complete += 1;
            assert!(checked.is_ok(), "{name}: {checked:?}");
        } else {
            let says = ["To fill in:", "Not understood", "refuses it"];
            assert!(
                says.iter().any(|it| outcome.report.contains(it)),
                "{name}: {}",
                outcome.report
            );
        }
        // Whatever is to be filled in, the file is TOML.
        let parsed = outcome.toml.parse::<toml::Table>();
        assert!(parsed.is_ok(), "{name}: {parsed:?}\n{}", outcome.toml);
    }
    assert!(complete >= 8, "{complete} cases are complete");
}
