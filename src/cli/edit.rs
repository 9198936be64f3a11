//! `edit [FILE]`, of an appliance: the configuration, changed line by line on its console.
//!
//! It works without a daemon, as a configuration that keeps the machine from serving is mended like
//! this too. Nothing is written that is not right. Exit code 0: written. 1: not. Read first:
//! `appliance::draft`.

use std::collections::VecDeque;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use crate::appliance::board::Identity;
use crate::appliance::draft::{self, Draft, HELP, Order};
use crate::config::Config;
use crate::console::editor::{Editor, Event};
use crate::os::disk::Disk;
use crate::os::{file, terminal};

pub(super) const HOST: &str = "host.toml";
pub(super) const CONFIG: &str = "tandem.toml";

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let name = match words.as_slice() {
        [] | [CONFIG] => CONFIG,
        [HOST] => HOST,
        [..] => return super::wrong("edit", "takes tandem.toml or host.toml"),
    };
    match edit(name) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            println!("nothing was written");
            ExitCode::FAILURE
        }
        Err(why) => super::failed(&why),
    }
}

/// Whether it was written.
fn edit(name: &str) -> Result<bool, String> {
    let disk = super::appliance_disk(
        "edit /etc/tandem/tandem.toml with its own editor, then `tandem check` and `tandem reload`",
    )?;
    // A file that is not there is begun.
    let mut draft = Draft::new(&disk.read_config(name).unwrap_or_default());
    let mut keys = Keys::new()?;
    println!("{name}, {} lines\r\n{}", draft.count(), HELP.replace('\n', "\r\n"));
    loop {
        let Some(typed) = keys.read("edit> ", "")? else { return Ok(false) };
        if typed.trim().is_empty() {
            continue;
        }
        match draft.parse(&typed) {
            Ok(Order::Write) => match check(&disk, name, &draft.text()) {
                Ok(()) => {
                    let text = draft.text();
                    disk.write_config(name, &text).map_err(|error| format!("{name}: {error}"))?;
                    drop(keys);
                    return written(name, &text).map(|()| true);
                }
                Err(why) => print!("{}\r\n", why.replace('\n', "\r\n")),
            },
            Ok(Order::Quit) => return Ok(false),
            Ok(order) => obey(&mut keys, &mut draft, order)?,
            Err(why) => print!("{why}\r\n"),
        }
    }
}

fn obey(keys: &mut Keys, draft: &mut Draft, order: Order) -> Result<(), String> {
    match order {
        Order::Change(number) => {
            if let Some(text) = keys.read(&format!("{number:>4}  "), draft.line(number))? {
                draft.change(number, &text);
            }
        }
        Order::Insert(number) => {
            let mut number = number;
            while let Some(text) = keys.read(&format!("{:>4}+ ", number + 1), "")? {
                if text == "." {
                    break;
                }
                draft.insert(number, &text);
                number += 1;
            }
        }
        Order::Remove(number) => draft.remove(number),
        Order::Show { from, to } => print!("{}", draft.shown(from, to).replace('\n', "\r\n")),
        Order::Paste => {
            print!("the whole text; a line with a dot alone ends it\r\n");
            let mut text = String::new();
            while let Some(line) = keys.read("", "")? {
                if line == "." {
                    *draft = Draft::new(&text);
                    break;
                }
                if text.len() + line.len() > draft::BYTES_MAX {
                    return Err(format!("longer than {} bytes", draft::BYTES_MAX));
                }
                text += &line;
                text.push('\n');
            }
        }
        Order::Help => print!("{}", HELP.replace('\n', "\r\n")),
        Order::Write | Order::Quit => {}
    }
    Ok(())
}

/// What is wrong with this text in that file, beside the other file as it is.
pub(super) fn check(disk: &Disk, name: &str, text: &str) -> Result<(), String> {
    let other = |name| disk.read_config(name).unwrap_or_default();
    let (host, config) = match name {
        HOST => (text.to_owned(), other(CONFIG)),
        _ => (other(HOST), text.to_owned()),
    };
    let identity = Identity::parse(&host).map_err(|why| format!("{HOST}: {why}"));
    let config = Config::parse(&config).map_err(|error| format!("{CONFIG}: {error}"));
    match (name, identity, config) {
        (HOST, Err(why), _) | (CONFIG, _, Err(why)) => Err(why),
        // One thing at a time: the other file comes next.
        (_, Err(_), _) | (_, _, Err(_)) => Ok(()),
        (_, Ok(identity), Ok(config)) => {
            config.find_host(&identity.host).map(drop).map_err(|error| format!("{HOST}: {error}"))
        }
    }
}

/// The running system's own copy follows.
fn written(name: &str, text: &str) -> Result<(), String> {
    if name == CONFIG && file::running("node.pid").is_some() {
        std::fs::write(super::CONFIG_PATH, text).map_err(|error| error.to_string())?;
        println!("written; `reload` takes what can be taken at once, `reboot` takes all");
    } else {
        println!("written; `reboot` takes it");
    }
    Ok(())
}

/// Lines typed on this terminal, which is raw for as long as this lives.
pub(super) struct Keys {
    editor: Editor,
    _raw: terminal::Changed,
    ahead: VecDeque<u8>,
}

impl Keys {
    pub(super) fn new() -> Result<Self, String> {
        let raw = terminal::Changed::to_raw().map_err(|error| format!("no terminal: {error}"))?;
        Ok(Self { editor: Editor::default(), _raw: raw, ahead: VecDeque::new() })
    }

    /// A line that begins as `text`; `None`: Ctrl-C or Ctrl-D.
    pub(super) fn read(&mut self, prompt: &str, text: &str) -> Result<Option<String>, String> {
        let stdin = std::io::stdin();
        let mut out = Vec::new();
        self.editor.begin_with(prompt, text, &mut out);
        loop {
            let mut stdout = std::io::stdout();
            stdout.write_all(&out).and_then(|()| stdout.flush()).map_err(|it| it.to_string())?;
            out.clear();
            if self.ahead.is_empty() {
                let mut bytes = [0; 64];
                let count = terminal::read(stdin.as_fd(), &mut bytes)
                    .map_err(|error| format!("the line was hung up: {error}"))?;
                self.ahead.extend(bytes.into_iter().take(count));
            }
            let Some(byte) = self.ahead.pop_front() else { continue };
            match self.editor.byte(byte, |_| Vec::new(), &mut out) {
                Some(Event::Line(line)) => {
                    stdout.write_all(&out).map_err(|error| error.to_string())?;
                    return Ok(Some(line));
                }
                Some(Event::Interrupted | Event::Ended) => {
                    stdout.write_all(b"\r\n").map_err(|error| error.to_string())?;
                    return Ok(None);
                }
                Some(Event::Cleared) | None => {}
            }
        }
    }
}
