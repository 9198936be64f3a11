//! The consoles on serial lines: one process each, kept by the guard.
//!
//! In: what to start, which children ended. Out: processes. Must not: wait for one.
//! Read first: cli/console.rs. A line that is unplugged ends its console, and another one waits
//! there a second later.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::notes;
use crate::console::note::Note;
use crate::time::Instant;

/// Between two starts on a line: one that does not exist costs next to nothing.
const RESTART_DELAY: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Consoles(Vec<Console>);

#[derive(Debug)]
struct Console {
    arguments: Vec<String>,
    child: Option<Child>,
    start_at: Instant,
    /// Said once, not every second.
    is_told: bool,
}

impl Consoles {
    /// `commands`: the arguments of this program for each line.
    pub(super) fn new(commands: Vec<Vec<String>>) -> Self {
        let console =
            |arguments| Console { arguments, child: None, start_at: Instant::ZERO, is_told: false };
        Self(commands.into_iter().map(console).collect())
    }

    /// Starts those that do not run.
    pub(super) fn tend(&mut self, now: Instant) {
        for console in self.0.iter_mut().filter(|it| it.child.is_none() && it.start_at <= now) {
            console.start_at = now + RESTART_DELAY;
            let started = Command::new("/proc/self/exe")
                .args(&console.arguments)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            match started {
                Ok(child) => console.child = Some(child),
                Err(error) if !console.is_told => {
                    console.is_told = true;
                    let what = format!("console {:?}: {error}", console.arguments);
                    notes::tell(&Note::Guard { what });
                }
                Err(_) => {}
            }
        }
    }

    /// A child ended.
    pub(super) fn reaped(&mut self, pid: Pid) {
        let ended = self.0.iter_mut().filter(|it| it.pid() == Some(pid));
        ended.for_each(|console| console.child = None);
    }

    pub(super) fn end(&self) {
        for pid in self.0.iter().filter_map(Console::pid) {
            let _already_gone = kill(pid, Signal::SIGTERM);
        }
    }
}

impl Console {
    fn pid(&self) -> Option<Pid> {
        let id = self.child.as_ref()?.id();
        Some(Pid::from_raw(i32::try_from(id).ok()?))
    }
}
