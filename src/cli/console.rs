//! `tandem console [--tty DEVICE [--speed BAUD]]`: every verb at a prompt.
//!
//! A process of its own, and each verb one more, so that whatever happens on a line (it floods,
//! hangs, is unplugged) happens to them and not to the daemon. Exit code 0: left. 1: no terminal.
//! Read first: `console::editor`; facts/image.md section 4.
//!
//! ```text
//!  keys -> editor -> verb -> `tandem VERB` on this terminal -> prompt
//!  daemon's notes -> between the lines, on a serial line
//! ```

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Write as _};
use std::os::fd::AsFd as _;
use std::process::{Command, ExitCode};
use std::time::Duration;

use super::status::fetch;
use super::{Place, value_of, wrong};
use crate::config::{Config, SECTIONS};
use crate::console::editor::{Editor, Event};
use crate::console::explain;
use crate::console::message::{Level, RELEASE, Request};
use crate::console::note::SERVICE_SAYS;
use crate::console::render;
use crate::console::verbs::{self, Group, VERBS, Verb};
use crate::crypt::Hash;
use crate::os::{clock, control, init, terminal};
use crate::time::Instant;

struct Arguments {
    place: Place,
    tty: Option<String>,
    speed: u32,
}

/// Between two lines that say how things are, on a line where nobody types.
const HEARTBEAT: Duration = Duration::from_secs(60);
/// Keys that are read at once.
const AHEAD_BYTES: usize = 64;
/// Between two looks at who is there.
const TICK: Duration = Duration::from_secs(1);
/// The first wait after a wrong password, doubled up to the last; a console that locks for good
/// would be an outage.
const DELAY_MIN: Duration = Duration::from_secs(1);
const DELAY_MAX: Duration = Duration::from_secs(60);

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(what) => return wrong("console", &what),
    };
    match serve(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments { place: Place::default(), tty: None, speed: 115_200 };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            option if parsed.place.take(option, &mut rest)? => {}
            "--tty" => parsed.tty = Some(value_of(argument, &mut rest)?),
            "--speed" => {
                let text = value_of(argument, &mut rest)?;
                parsed.speed = text.parse().map_err(|_| format!("--speed {text}: a number"))?;
            }
            other => return Err(format!("does not know {other}")),
        }
    }
    Ok(parsed)
}

fn serve(arguments: &Arguments) -> Result<(), String> {
    // Ctrl-C is for the verb that runs.
    terminal::leave_interrupt();
    let Some(tty) = &arguments.tty else {
        if !std::io::stdin().is_terminal() {
            return Err("standard input is no terminal: name a verb instead".into());
        }
        return Console::new(&arguments.place, None).converse();
    };
    terminal::end_with_parent().map_err(|error| error.to_string())?;
    let line = terminal::open(tty, arguments.speed).map_err(|error| error.to_string())?;
    terminal::become_standard(&line).map_err(|error| format!("{tty}: {error}"))?;
    let (config, _) = arguments.place.load()?;
    let mut console = Console::new(&arguments.place, Some((tty.clone(), config)));
    loop {
        console.log_in()?;
        console.converse()?;
    }
}

/// A serial line: its name, and what the configuration says of consoles.
type Line = (String, Config);

struct Console<'a> {
    place: &'a Place,
    editor: Editor,
    raw: Option<terminal::Changed>,
    /// Keys that came together with the end of a line.
    ahead: VecDeque<u8>,
    line: Option<Line>,
    /// How the daemon tells its notes, on a serial line.
    notes: Option<control::Following>,
    typed_at: Instant,
    told_at: Instant,
    delay: Duration,
}

impl<'a> Console<'a> {
    fn new(place: &'a Place, line: Option<Line>) -> Self {
        let now = clock::now();
        Self {
            place,
            editor: Editor::default(),
            raw: None,
            ahead: VecDeque::with_capacity(AHEAD_BYTES),
            line,
            notes: None,
            typed_at: now,
            told_at: now,
            delay: DELAY_MIN,
        }
    }

    /// Asks for the password until it is right, if there is one.
    fn log_in(&mut self) -> Result<(), String> {
        let banner = format!(
            "\r\ntandem {} on {}; Enter for a prompt, `help` for the verbs\r\n",
            RELEASE,
            self.host()
        );
        put(banner.as_bytes())?;
        let Some((tty, config)) = &self.line else { return Ok(()) };
        let Some(hash) = config.console.password.as_ref() else { return Ok(()) };
        let hash = Hash::parse(hash.reveal()).ok_or("console.password is no hash")?;
        let tty = tty.clone();
        loop {
            let prompt = format!("{} password: ", self.host());
            let Some(password) = self.read(&prompt, true)? else { continue };
            let is_in = hash.fits(password.as_bytes());
            let _without_a_daemon =
                control::ask(&Request::ConsoleLogin { tty: tty.clone(), is_in }, |_| {});
            if is_in {
                self.delay = DELAY_MIN;
                return Ok(());
            }
            put(format!("wrong; again in {} s\r\n", self.delay.as_secs()).as_bytes())?;
            std::thread::sleep(self.delay);
            self.delay = (self.delay * 2).min(DELAY_MAX);
        }
    }

    fn host(&self) -> String {
        fetch().map_or_else(|_| super::host_name(), |status| status.host)
    }

    /// Until the operator leaves, or has left long ago.
    fn converse(&mut self) -> Result<(), String> {
        loop {
            let Some(line) = self.read(&prompt(), false)? else { return Ok(()) };
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] => {}
                ["exit" | "quit" | "logout"] => return Ok(()),
                ["help"] => put(&returned(&verbs::console_overview(init::is_appliance())))?,
                [name, ..] => match verbs::find(name).map(|verb| verb.group) {
                    Some(group) if group.is_of_console(init::is_appliance()) => {
                        self.raw = None;
                        perform(&words, self.place)?;
                    }
                    Some(Group::Machine) => put(b"that one is for an appliance\r\n")?,
                    Some(Group::Look | Group::Act | Group::Shell | Group::Utility) => {
                        put(b"that one is for a shell\r\n")?;
                    }
                    None => {
                        let what = format!("there is no verb {name}: `help` shows them\r\n");
                        put(what.as_bytes())?;
                    }
                },
            }
        }
    }

    /// A line; `None` when the operator left, or the time for that is over.
    fn read(&mut self, prompt: &str, is_secret: bool) -> Result<Option<String>, String> {
        let stdin = std::io::stdin();
        // It stays raw from line to line: what is typed meanwhile is no line of the kernel's.
        if self.raw.is_none() {
            let raw =
                terminal::Changed::to_raw().map_err(|error| format!("no terminal: {error}"))?;
            self.raw = Some(raw);
        }
        let mut out = Vec::new();
        self.editor.begin(prompt, is_secret, &mut out);
        put(&out)?;
        self.typed_at = clock::now();
        if is_secret {
            // Who has not logged in is told nothing.
            self.notes = None;
        }
        loop {
            if self.ahead.is_empty() && self.is_key_waiting(!is_secret)? {
                let mut bytes = [0; AHEAD_BYTES];
                let count = terminal::read(stdin.as_fd(), &mut bytes)
                    .map_err(|error| format!("the line was hung up: {error}"))?;
                self.typed_at = clock::now();
                self.ahead.extend(bytes.into_iter().take(count));
            }
            while let Some(byte) = self.ahead.pop_front() {
                out.clear();
                let event = self.editor.byte(byte, words, &mut out);
                put(&out)?;
                out.clear();
                match event {
                    Some(Event::Line(line)) => return Ok(Some(line)),
                    Some(Event::Interrupted) => self.editor.begin(prompt, is_secret, &mut out),
                    Some(Event::Cleared) => {
                        out.extend_from_slice(b"\x1b[H\x1b[2J\r");
                        self.editor.interject(b"", None, &mut out);
                    }
                    Some(Event::Ended) => {
                        put(b"\r\n")?;
                        return Ok(None);
                    }
                    None => {}
                }
                put(&out)?;
            }
            if self.is_idle() {
                put(b"\r\n")?;
                return Ok(None);
            }
            out.clear();
            self.interject(is_secret, &mut out);
            put(&out)?;
        }
    }

    /// Waits for a key, or for a note, a second at most.
    fn is_key_waiting(&mut self, hears_notes: bool) -> Result<bool, String> {
        let stdin = std::io::stdin();
        if hears_notes && self.line.is_some() && self.notes.is_none() {
            self.notes = control::follow(Level::Info).ok();
        }
        let waited = match &self.notes {
            Some(notes) => terminal::wait([stdin.as_fd(), notes.as_fd()], TICK).map(|[key, _]| key),
            None => terminal::wait([stdin.as_fd()], TICK).map(|[key]| key),
        };
        waited.map_err(|error| error.to_string())
    }

    /// On a line with a password whoever logged in may have gone.
    fn is_idle(&self) -> bool {
        self.line.as_ref().is_some_and(|(_, config)| {
            let has_password = config.console.password.is_some();
            has_password && clock::now().since(self.typed_at) >= config.console.idle_limit
        })
    }

    /// The daemon's notes, and once a minute how things are, above the line that is typed.
    fn interject(&mut self, is_secret: bool, out: &mut Vec<u8>) {
        if self.line.is_none() || is_secret {
            return;
        }
        let told = self.notes.as_mut().map(control::Following::take);
        // What a database prints at its start is for `log`.
        let told = told.map(|told| {
            told.map(|mut records| {
                records.retain(|record| record.name != SERVICE_SAYS);
                records
            })
        });
        match told {
            Some(Ok(records)) if records.is_empty() => {}
            Some(Ok(records)) => {
                self.told_at = clock::now();
                let text = returned(&render::notes(&records));
                self.editor.interject(&text, Some(&prompt()), out);
            }
            Some(Err(_)) => self.notes = None,
            None => {}
        }
        let now = clock::now();
        if now.since(self.told_at.max(self.typed_at)) >= HEARTBEAT {
            self.told_at = now;
            let line = match fetch() {
                Ok(status) => render::heartbeat(&status),
                Err(_) => "no daemon answers\n".to_owned(),
            };
            self.editor.interject(&returned(&line), Some(&prompt()), out);
        }
    }
}

/// Which host this is, and what it does now.
fn prompt() -> String {
    match fetch() {
        Ok(status) => format!("{} {}> ", status.host, status.role),
        Err(_) => format!("{} NO DAEMON> ", super::host_name()),
    }
}

/// The words that may stand where the cursor is.
fn words(before: &str) -> Vec<&'static str> {
    let is_appliance = init::is_appliance();
    let is_here = move |verb: &&Verb| verb.group.is_of_console(is_appliance);
    let names = move || VERBS.iter().filter(is_here).map(|verb| verb.name);
    match before.trim_start().split_once(' ') {
        None => names().collect(),
        Some(("help", rest)) if rest.starts_with("config ") => SECTIONS.to_vec(),
        Some(("help", _)) => names().collect(),
        Some(("explain", _)) => explain::names().collect(),
        Some((name, _)) => verbs::find(name)
            .map_or_else(Vec::new, |verb| verb.options.iter().map(|option| option.word).collect()),
    }
}

fn returned(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

fn put(bytes: &[u8]) -> Result<(), String> {
    let mut out = std::io::stdout();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// In a process of its own, on this terminal.
fn perform(words: &[&str], place: &Place) -> Result<(), String> {
    let mut command = Command::new("/proc/self/exe");
    command.args(words);
    // The one that reads the configuration by itself.
    if words.first() == Some(&"rejoin") {
        command.args(["--config", &place.config]);
        command.args(place.host.iter().flat_map(|host| ["--host", host]));
    }
    command.status().map(drop).map_err(|error| format!("/proc/self/exe: {error}"))
}
