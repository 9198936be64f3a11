//! Child processes that the guard keeps: consoles on serial lines, and the appliance's services.
//!
//! In: what to start, which children ended, what they say. Out: processes, notes.
//! Must not: wait for one. Read first: cli/console.rs; os/service.rs; `supervise::child`.
//! A line that is unplugged ends its console, and another one waits there a second later.

use std::io::{self, PipeReader, Read as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::notes;
use crate::console::note::Note;
use crate::supervise::child::{Child, Order, Policy};
use crate::time::Instant;

/// Of consoles: a line that does not exist costs next to nothing, and may be plugged in later.
pub const CONSOLE: Policy = Policy {
    delay_min: Duration::from_secs(1),
    delay_max: Duration::from_secs(2),
    steady_time: Duration::from_secs(1),
    stop_limit: None,
};
/// A service that ends with this code is done, and not started again.
pub const DONE_CODE: u8 = 125;
/// Of a line that a child says; the rest of a longer one is dropped.
const LINE_BYTES_MAX: usize = 240;
/// Lines of one child that are kept within `LINES_TIME`: a hundred would push out what happened.
const LINES_MAX: u32 = 40;
const LINES_TIME: Duration = Duration::from_secs(10);

/// One of this program's own commands.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub arguments: Vec<String>,
    pub policy: Policy,
    /// What it prints becomes notes, and so do its starts and ends.
    pub is_service: bool,
}

/// In the order of their start.
#[derive(Debug, Default)]
pub struct Children(Vec<One>);

#[derive(Debug)]
struct One {
    spec: Spec,
    child: Child,
    pid: Option<Pid>,
    /// Said once, not every second.
    is_told: bool,
    output: Option<Output>,
}

/// What a service prints, cut into lines.
#[derive(Debug)]
struct Output {
    pipe: PipeReader,
    line: Vec<u8>,
    since: Instant,
    lines: u32,
}

impl Children {
    #[must_use]
    pub fn new(specs: Vec<Spec>) -> Self {
        let one = |spec: Spec| {
            let mut child = Child::new(spec.policy);
            child.wish(true);
            One { spec, child, pid: None, is_told: false, output: None }
        };
        Self(specs.into_iter().map(one).collect())
    }

    /// Starts those that do not run, and signals those that are to end.
    pub(super) fn tend(&mut self, now: Instant) {
        for one in &mut self.0 {
            match one.child.poll(now) {
                Some(Order::Start) => one.start(now),
                Some(Order::Stop) => one.signal(Signal::SIGTERM),
                Some(Order::Kill) => one.signal(Signal::SIGKILL),
                None => {}
            }
        }
    }

    /// A child ended, in the way that `status` says; whether it was one of these.
    pub(super) fn reaped(&mut self, now: Instant, pid: Pid, status: &str) -> bool {
        let Some(one) = self.0.iter_mut().find(|it| it.pid == Some(pid)) else { return false };
        one.pid = None;
        one.child.ended(now);
        if one.spec.is_service {
            one.hear(now);
            one.output = None;
            if status == format!("exit code {DONE_CODE}") {
                one.child.wish(false);
                return true;
            }
            let (name, status) = (one.spec.name.clone(), status.to_owned());
            notes::tell(&Note::ServiceEnded { name, status });
        }
        true
    }

    /// Tells all of them to end; none is waited for.
    pub(super) fn end(&mut self, now: Instant) {
        for one in &mut self.0 {
            one.child.wish(false);
        }
        self.tend(now);
    }

    /// Tells the last one that runs to end; whether none runs any more.
    pub(super) fn wind_down(&mut self, now: Instant) -> bool {
        let Some(last) = self.0.iter_mut().rfind(|it| !it.child.is_absent()) else { return true };
        last.child.wish(false);
        self.tend(now);
        false
    }

    /// Pipes on which something may be said.
    pub(super) fn outputs(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.0.iter().filter_map(|it| it.output.as_ref()).map(|output| output.pipe.as_fd())
    }

    /// Takes what was said.
    pub(super) fn hear(&mut self, now: Instant) {
        self.0.iter_mut().for_each(|one| one.hear(now));
    }
}

impl One {
    fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid {
            let _already_gone = kill(pid, signal);
        }
    }

    fn start(&mut self, now: Instant) {
        let started = self.spawn(now);
        self.child.started(now, started.is_ok());
        match started {
            Ok(pid) => self.pid = Some(pid),
            Err(error) if !self.is_told => {
                self.is_told = true;
                let what = format!("{}: {error}", self.spec.name);
                notes::tell(&Note::Guard { what });
            }
            Err(_) => {}
        }
    }

    fn spawn(&mut self, now: Instant) -> io::Result<Pid> {
        let mut command = Command::new("/proc/self/exe");
        command.args(&self.spec.arguments).stdin(Stdio::null());
        if self.spec.is_service {
            let (pipe, theirs) = io::pipe()?;
            rustix::io::ioctl_fionbio(&pipe, true)?;
            command.stdout(theirs.try_clone()?).stderr(theirs);
            self.output = Some(Output { pipe, line: Vec::new(), since: now, lines: 0 });
        } else {
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        let child = command.spawn()?;
        Ok(Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?))
    }

    fn hear(&mut self, now: Instant) {
        let Some(output) = &mut self.output else { return };
        let mut buffer = [0; 4096];
        loop {
            match output.pipe.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => output.take(now, &self.spec.name, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => break,
            }
        }
        // Whoever had the other end is gone.
        self.output = None;
    }
}

impl Output {
    fn take(&mut self, now: Instant, name: &str, bytes: &[u8]) {
        for &byte in bytes {
            if byte == b'\n' {
                self.tell(now, name);
            } else if self.line.len() < LINE_BYTES_MAX {
                self.line.push(byte);
            }
        }
    }

    fn tell(&mut self, now: Instant, name: &str) {
        if now.since(self.since) >= LINES_TIME {
            self.since = now;
            self.lines = 0;
        }
        let text = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        if text.is_empty() {
            return;
        }
        self.lines += 1;
        if self.lines <= LINES_MAX {
            notes::tell(&Note::ServiceSays { name: name.to_owned(), text });
        } else {
            log::info!("{name}: {text}");
        }
    }
}
