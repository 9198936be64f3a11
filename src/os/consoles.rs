//! The consoles on serial lines: one process each, kept by the guard.
//!
//! In: what to start, which children ended. Out: processes. Must not: wait for one.
//! Read first: cli/console.rs; `supervise::child`. A line that is unplugged ends its console, and
//! another one waits there a second later.

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::notes;
use crate::console::note::Note;
use crate::supervise::child::{Child, Order, Policy};
use crate::time::Instant;

/// A line that does not exist costs next to nothing, and may be plugged in at any time.
const POLICY: Policy = Policy {
    delay_min: Duration::from_secs(1),
    delay_max: Duration::from_secs(2),
    steady_time: Duration::from_secs(1),
    stop_limit: None,
};

#[derive(Debug)]
pub(super) struct Consoles(Vec<Console>);

#[derive(Debug)]
struct Console {
    arguments: Vec<String>,
    child: Child,
    pid: Option<Pid>,
    /// Said once, not every second.
    is_told: bool,
}

impl Consoles {
    /// `commands`: the arguments of this program for each line.
    pub(super) fn new(commands: Vec<Vec<String>>) -> Self {
        let console = |arguments| {
            let mut child = Child::new(POLICY);
            child.wish(true);
            Console { arguments, child, pid: None, is_told: false }
        };
        Self(commands.into_iter().map(console).collect())
    }

    /// Starts those that do not run.
    pub(super) fn tend(&mut self, now: Instant) {
        for console in &mut self.0 {
            match console.child.poll(now) {
                Some(Order::Start) => console.start(now),
                Some(Order::Stop) => console.signal(Signal::SIGTERM),
                Some(Order::Kill) => console.signal(Signal::SIGKILL),
                None => {}
            }
        }
    }

    /// A child ended.
    pub(super) fn reaped(&mut self, now: Instant, pid: Pid) {
        for console in self.0.iter_mut().filter(|it| it.pid == Some(pid)) {
            console.pid = None;
            console.child.ended(now);
        }
    }

    /// Tells all of them to end; none is waited for.
    pub(super) fn end(&mut self, now: Instant) {
        for console in &mut self.0 {
            console.child.wish(false);
        }
        self.tend(now);
    }
}

impl Console {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _already_gone = kill(pid, signal);
        }
    }

    fn start(&mut self, now: Instant) {
        let started = Command::new("/proc/self/exe")
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child.started(now, started.is_ok());
        match started {
            Ok(child) => self.pid = i32::try_from(child.id()).ok().map(Pid::from_raw),
            Err(error) if !self.is_told => {
                self.is_told = true;
                let what = format!("console {:?}: {error}", self.arguments);
                notes::tell(&Note::Guard { what });
            }
            Err(_) => {}
        }
    }
}
