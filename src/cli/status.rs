//! `tandem status` and the sections of it that are verbs: what is true now.
//!
//! Exit code 0: healthy. 1: degraded. 3: down, or no daemon answers (as an init script's status).

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use crate::console::message::{Level, Request, Response};
use crate::console::note::Ring;
use crate::console::render;
use crate::console::status::{Health, Status};
use crate::os::{control, file, notes, terminal};

const DOWN: u8 = 3;
/// Of those that the last daemon left.
const NOTES_LEFT: usize = 5;
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// To the first column of the first line, and nothing below (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[2J";

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => show(|status| render::status(status, false)),
        ["--all"] => show(|status| render::status(status, true)),
        ["--json"] => show(json),
        ["--watch"] => watch(),
        [..] => super::wrong("status", "takes --json, --watch, --all or nothing"),
    }
}

/// `vip`, `link`, `db`, `web`, `sql`. `None`: it is none of them.
pub(super) fn section(name: &str, arguments: &[String]) -> Option<ExitCode> {
    let section: fn(&Status) -> String = match name {
        "vip" => render::vips,
        "link" => render::links,
        "db" => render::databases,
        "web" => render::web,
        "sql" => render::sql,
        _ => return None,
    };
    Some(match arguments {
        [] => show(section),
        [..] => super::wrong(name, "takes no arguments"),
    })
}

/// Asks the daemon.
pub(super) fn fetch() -> Result<Status, String> {
    let mut answer = None;
    let asked = control::ask(&Request::Status, |response| answer = Some(response));
    match (asked, answer) {
        (Ok(()), Some(Response::Status(status))) => Ok(*status),
        (Ok(()), Some(Response::Refused(why))) => Err(why),
        (Ok(()), other) => Err(format!("not a status: {other:?}")),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn json(status: &Status) -> String {
    let json = serde_json::to_string_pretty(status).expect("a Status is plain data");
    format!("{json}\n")
}

fn show(screen: impl Fn(&Status) -> String) -> ExitCode {
    match fetch() {
        Ok(status) => {
            super::put(&screen(&status));
            code(status.health)
        }
        Err(why) => {
            eprintln!("tandem: {why}");
            super::put(&absent());
            ExitCode::from(DOWN)
        }
    }
}

fn code(health: Health) -> ExitCode {
    ExitCode::from(match health {
        Health::Healthy => 0,
        Health::Degraded => 1,
        Health::Down => DOWN,
    })
}

/// What can be known without a daemon: what the last one left.
pub(super) fn absent() -> String {
    let mut text = match file::load_state() {
        Ok(state) => format!(
            "last      epoch {}, {}\n",
            state.epoch,
            if state.was_source { "this host served" } else { "this host did not serve" }
        ),
        Err(error) => format!("last      {error}\n"),
    };
    if let Some(guard) = file::running("guard.pid") {
        text.push_str(&format!(
            "guard     process {guard} runs: it starts the daemon again within 30 s\n"
        ));
    }
    for record in Ring::of(notes::load()).last(NOTES_LEFT, Level::Info) {
        text.push_str(&format!("note      {record}\n"));
    }
    text
}

/// Until a key, Ctrl-C, or the end of the output.
fn watch() -> ExitCode {
    let keys = terminal::Keys::of_stdin();
    let mut out = std::io::stdout();
    loop {
        let (screen, code) = match fetch() {
            Ok(status) => (render::status(&status, false), code(status.health)),
            Err(why) => (format!("tandem: {why}\n{}", absent()), ExitCode::from(DOWN)),
        };
        // A raw terminal wants the carriage return.
        let screen = screen.replace('\n', "\r\n");
        let written = out.write_all(format!("{CLEAR}{screen}").as_bytes());
        if written.and_then(|()| out.flush()).is_err() || keys.is_pressed_within(WATCH_INTERVAL) {
            return code;
        }
    }
}
