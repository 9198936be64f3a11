//! The guard: starts the node, starts it again when it dies, and carries out its last will.
//!
//! In: signals, the node's will on its standard output. Out: a node; after a crash, addresses
//! taken off and priority 0 sent. Must not: read anything from the network, wait for the node.
//! Read first: design section 4; `node::Will`. Measured in a two-node simulation there: without
//! this act 22 of 400 fault runs had two writable holders of the addresses, with it none.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::consoles::Consoles;
use super::notes::{self, ToGuard};
use super::{clock, file, link, route};
use crate::console::message::Frames;
use crate::console::note::Note;
use crate::node::Will;
use crate::time::Instant;

/// Between a crash and the next start; a node that ran for longer than `STEADY_TIME` is started
/// again after the shortest delay, one that keeps dying waits up to the longest.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
const STEADY_TIME: Duration = Duration::from_secs(60);
/// How long a node that was told to end may take: it closes a database and hands over.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// What the signals asked for.
enum Woken {
    ChildMaybeEnded,
    EndAsked,
    ReloadAsked,
    Nothing,
}

/// Blocks the signals that both processes read as events. Children inherit the mask.
pub fn block_signals() -> io::Result<SignalFd> {
    let mut signals = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD, Signal::SIGHUP] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?)
}

/// Runs until told to end. `arguments` start the node, `consoles` one console each.
pub fn run(arguments: &[String], consoles: Vec<Vec<String>>) -> io::Result<()> {
    let _only_one = file::lock()?;
    file::write_pid("guard.pid")?;
    let signals = block_signals()?;
    let mut consoles = Consoles::new(consoles);
    let mut delay = RESTART_DELAY_MIN;
    let mut restarts: u32 = 0;
    loop {
        let started_at = clock::now();
        let mut arguments = arguments.to_vec();
        arguments.extend(["--restarts".to_owned(), restarts.to_string()]);
        let mut watch = Watch::start(&arguments, &signals)?;
        let status = watch.until_ended(&mut consoles)?;
        if watch.end_asked_at.is_some() {
            consoles.end(clock::now());
            notes::save();
            return Ok(());
        }
        carry_out(&watch.will);
        notes::tell(&Note::NodeDied { status });
        notes::save();
        restarts = restarts.saturating_add(1);
        if clock::now().since(started_at) > STEADY_TIME {
            delay = RESTART_DELAY_MIN;
        }
        if wait_for_end(&signals, delay)? {
            consoles.end(clock::now());
            return Ok(());
        }
        delay = (delay * 2).min(RESTART_DELAY_MAX);
    }
}

/// One run of the node.
struct Watch<'a> {
    node: Pid,
    stdout: ChildStdout,
    signals: &'a SignalFd,
    received: Frames,
    will: Will,
    is_stdout_open: bool,
    end_asked_at: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn start(arguments: &[String], signals: &'a SignalFd) -> io::Result<Self> {
        let mut child: Child = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it was asked to be piped");
        rustix::io::ioctl_fionbio(&stdout, true)?;
        let node = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
        Ok(Self {
            node,
            stdout,
            signals,
            received: Frames::default(),
            will: Will::default(),
            is_stdout_open: true,
            end_asked_at: None,
        })
    }

    /// How the node ended.
    fn until_ended(&mut self, consoles: &mut Consoles) -> io::Result<String> {
        loop {
            consoles.tend(clock::now());
            let mut sources = vec![PollFd::new(self.signals, PollFlags::IN)];
            if self.is_stdout_open {
                sources.push(PollFd::new(&self.stdout, PollFlags::IN));
            }
            let timeout = Timespec { tv_sec: 1, tv_nsec: 0 };
            match poll(&mut sources, Some(&timeout)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            match read_signals(self.signals)? {
                Woken::EndAsked if self.end_asked_at.is_none() => {
                    self.end_asked_at = Some(clock::now());
                    let _already_gone = kill(self.node, Signal::SIGTERM);
                }
                Woken::ReloadAsked => {
                    let _already_gone = kill(self.node, Signal::SIGHUP);
                }
                Woken::EndAsked | Woken::ChildMaybeEnded | Woken::Nothing => {}
            }
            self.read_will();
            if let Some(status) = self.reap(consoles) {
                self.read_will();
                return Ok(status);
            }
            if self.end_asked_at.is_some_and(|at| clock::now().since(at) > LEAVE_LIMIT) {
                let _already_gone = kill(self.node, Signal::SIGKILL);
            }
        }
    }

    /// Reaps every child that ended; returns how the node did.
    fn reap(&self, consoles: &mut Consoles) -> Option<String> {
        loop {
            let status = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string()),
                Ok(WaitStatus::StillAlive) => return None,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return Some(format!("lost: {error}")),
            };
            if status.0 == self.node {
                return Some(status.1);
            }
            consoles.reaped(clock::now(), status.0);
        }
    }

    /// Keeps the last whole will that the node wrote.
    fn read_will(&mut self) {
        let mut buffer = [0; 4096];
        while self.is_stdout_open {
            match self.stdout.read(&mut buffer) {
                Ok(0) => self.is_stdout_open = false,
                Ok(count) => self.received.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.is_stdout_open = false,
            }
        }
        while let Some(told) = self.received.poll() {
            match told {
                Ok(ToGuard::Will(will)) => self.will = will,
                Ok(ToGuard::Note(record)) => notes::keep(record),
                Err(garbled) => {
                    let what = format!("the node's will: {garbled}");
                    notes::tell(&Note::Guard { what });
                }
            }
        }
    }
}

/// Takes the addresses off and resigns in the node's place.
fn carry_out(will: &Will) {
    let removed = route::open(0).and_then(|socket| {
        will.removals.iter().try_for_each(|request| route::send(socket.as_fd(), request))
    });
    if let Err(error) = removed {
        let what = format!("cannot take the addresses off: {error}");
        notes::tell(&Note::Guard { what });
    }
    for (device, datagram) in &will.resignations {
        if let Err(error) = link::Senders::new(device).send(datagram) {
            notes::tell(&Note::Guard { what: format!("cannot resign on {device}: {error}") });
        }
    }
}

/// Waits, and returns whether the end was asked for meanwhile.
fn wait_for_end(signals: &SignalFd, delay: Duration) -> io::Result<bool> {
    let until = clock::now() + delay;
    loop {
        let left = until.since(clock::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).map_err(io::Error::other)?;
        let _interrupted = poll(&mut [PollFd::new(signals, PollFlags::IN)], Some(&timeout));
        if let Woken::EndAsked = read_signals(signals)? {
            return Ok(true);
        }
    }
}

fn read_signals(signals: &SignalFd) -> io::Result<Woken> {
    let mut woken = Woken::Nothing;
    while let Some(info) = signals.read_signal()? {
        let signal = i32::try_from(info.ssi_signo).ok().and_then(|n| Signal::try_from(n).ok());
        match signal {
            Some(Signal::SIGTERM | Signal::SIGINT) => return Ok(Woken::EndAsked),
            Some(Signal::SIGHUP) => woken = Woken::ReloadAsked,
            // Children are looked after however the guard woke.
            Some(Signal::SIGCHLD) if !matches!(woken, Woken::ReloadAsked) => {
                woken = Woken::ChildMaybeEnded;
            }
            Some(_) | None => {}
        }
    }
    Ok(woken)
}
