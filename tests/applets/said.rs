//! What an applet said, and how it is compared with what the original said.
//!
//! In: transcripts of the real programs (tests/vectors/transcripts). Out: the first line that
//! differs. Must not: hide a difference in words.
//! Masked: addresses, ports, UUIDs, positions, widths of columns, values of single settings. Lines
//! that begin with "# tandem:" are ours alone; "Unable to find aliases" is about the machine that
//! the originals ran on.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// The end of a run of the binary.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) text: String,
}

impl Said {
    /// Runs `program` through a link of that name, or by `tandem program`.
    pub(crate) fn of(program: &str, arguments: &[String], environment: &[(&str, &str)]) -> Self {
        let output = Command::new(binary())
            .arg(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .output()
            .expect("the binary runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("text");
        Self { code: output.status.code().unwrap_or(-1), text }
    }

    pub(crate) fn has(&self, what: &str) -> bool {
        self.text.contains(what)
    }
}

/// The one that was just built, unless another one is named.
pub(crate) fn binary() -> String {
    std::env::var("TANDEM_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_tandem").to_owned())
}

/// One run of an original: its command, its output, its exit code.
pub(crate) struct Transcript {
    pub(crate) program: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) lines: Vec<String>,
    pub(crate) code: i32,
}

impl Transcript {
    pub(crate) fn load(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/transcripts");
        let path = folder.join(format!("{name}.txt"));
        let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let end = lines.pop().expect("an exit code");
        let code = end.strip_prefix("[exit ").and_then(|rest| rest.split(',').next());
        let code = code.and_then(|code| code.parse().ok()).expect("[exit N, ...]");
        let command = lines.remove(0);
        let mut words = command.trim_start_matches("$ ").split_whitespace().map(str::to_owned);
        let program = words.next().expect("a program");
        Self { program, arguments: words.collect(), lines, code }
    }

    /// The same command for the servers of a test.
    pub(crate) fn arguments_for(&self, port: u16) -> Vec<String> {
        let place = |argument: &String| {
            argument
                .replace("server1:3306", &format!("127.0.0.1:{port}"))
                .replace("server2:3306", &format!("127.0.0.2:{port}"))
                .replace("10.77.0.2:3306", &format!("127.0.0.2:{port}"))
        };
        self.arguments.iter().map(place).collect()
    }

    /// Compares line by line what ours said; `tolerates` drops lines of either.
    pub(crate) fn compare(&self, name: &str, said: &Said, port: u16, tolerates: &[&str]) {
        let keeps = |line: &String| {
            !line.starts_with("# tandem:")
                && !line.starts_with("WARNING: Unable to find aliases")
                && !tolerates.iter().any(|start| line.starts_with(start))
        };
        let ours: Vec<String> = without_further_tests(&said.text)
            .map(|line| masked(line, port))
            .filter(keeps)
            .collect();
        let theirs: Vec<String> =
            self.lines.iter().map(|line| masked(line, 3306)).filter(keeps).collect();
        let both = ours.iter().zip(&theirs);
        if let Some((index, (ours, theirs))) = both.enumerate().find(|(_, (a, b))| a != b) {
            panic!("{name}, line {index}:\n  {theirs}\nours:\n  {ours}\nof\n{}", said.text);
        }
        assert_eq!(ours.len(), theirs.len(), "{name}: lines\n{}\n{:#?}", said.text, theirs);
        assert_eq!(said.code, self.code, "{name}: exit code");
    }
}

/// What mysqlrplcheck adds stands between a line of its own and the end.
fn without_further_tests(text: &str) -> impl Iterator<Item = &str> {
    let mut is_further = false;
    text.lines().filter(move |line| {
        is_further |= line.starts_with("# tandem: further tests");
        is_further &= *line != "# ...done.";
        !is_further
    })
}

/// The line without what differs from run to run.
fn masked(line: &str, port: u16) -> String {
    let named = line
        .replace("10.77.0.2", "server2")
        .replace("127.0.0.1", "server1")
        .replace("127.0.0.2", "server2")
        .replace(&format!("{port}"), "PORT")
        .replace("3306", "PORT")
        .replace("'@'server1'", "'@'HOST'")
        .replace("'@'server2'", "'@'HOST'");
    // A setting or a state: its name is compared.
    if let Some((name, _)) = named.split_once(" : ").filter(|_| named.starts_with("   ")) {
        return name.trim_start().to_owned();
    }
    let mut masked = String::new();
    for word in named.trim_end().split_inclusive([' ', '|', ',', '\t']) {
        let bare = word.trim_end_matches([' ', '|', ',', '\t']);
        let end = &word[bare.len()..];
        masked += match bare {
            _ if is_uuid(bare) => "UUID",
            _ if bare.split_once(':').is_some_and(|(uuid, _)| is_uuid(uuid)) => "UUID:SET",
            _ if bare.ends_with("-log") || bare.starts_with("5.6.") => "VERSION",
            _ if bare.starts_with("mysql-bin.") || bare.starts_with("binlog.") => "FILE",
            _ if bare.len() > 1 && bare.bytes().all(|b| b.is_ascii_digit()) => "N",
            other => other,
        };
        masked += end;
    }
    squeezed(&masked)
}

fn is_uuid(word: &str) -> bool {
    word.len() == 36 && word.bytes().filter(|b| *b == b'-').count() == 4
}

/// Runs of blanks and of dashes count once.
fn squeezed(line: &str) -> String {
    let mut squeezed = String::new();
    for letter in line.chars() {
        let repeats = matches!(letter, ' ' | '-') && squeezed.ends_with(letter);
        if !repeats {
            squeezed.push(letter);
        }
    }
    squeezed
}
