//! The guard: starts the node, starts it again when it dies, and carries out its last will.
//!
//! In: signals, the node's will on its standard output. Out: a node; after a crash, addresses
//! taken off and priority 0 sent; consoles, services and a fed watchdog beside it. Must not: read
//! anything from the network, wait for the node. It is root, and the node is not quite: `confine`.
//! Read first: design section 4; `node::Will`. Measured in a two-node simulation there: without
//! this act 22 of 400 fault runs had two writable holders of the addresses, with it none.

use std::io::{self, Read};
use std::net::SocketAddrV4;
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::children::{CONSOLE, Children, Spec};
use super::notes::{self, ToGuard};
use super::storage::Storage;
use super::watchdog::Watchdog;
use super::{clock, file, link, listener, route};
use crate::console;
use crate::console::message::{Frames, Power};
use crate::console::note::Note;
use crate::limits::HANG_LIMIT;
use crate::node::Will;
use crate::time::Instant;

/// Between a crash and the next start; a node that ran for longer than `STEADY_TIME` is started
/// again after the shortest delay, one that keeps dying waits up to the longest.
const RESTART_DELAY_MIN: Duration = Duration::from_millis(500);
const RESTART_DELAY_MAX: Duration = Duration::from_secs(30);
const STEADY_TIME: Duration = Duration::from_secs(60);
/// The longest wait of a turn: children are looked after, and the watchdog is fed, this often.
const TURN: Duration = Duration::from_secs(1);
/// How long a node that was told to end may take: it closes a database and hands over.
const LEAVE_LIMIT: Duration = Duration::from_secs(20);

/// What is kept beside the node.
#[derive(Debug, Default)]
pub struct Household {
    pub consoles: Children,
    /// Ended in the opposite order of their start, each when the one after it has.
    pub services: Children,
    pub watchdog: Option<Watchdog>,
    pub storage: Option<Storage>,
}

/// Why it came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// By a signal.
    Asked,
    /// By an operator, of an appliance.
    Ordered(Power),
}

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

/// How a host's node and its consoles are started.
#[must_use]
pub fn commands(config: &str, host: &str, console: &console::Config) -> (Vec<String>, Vec<Spec>) {
    let node = words(&["run", "--config", config, "--host", host, "--as-node"]);
    let line = |tty: &String| Spec {
        name: format!("console on {tty}"),
        arguments: words(&["console", "--tty", tty, "--speed", &console.speed.to_string()])
            .into_iter()
            .chain(words(&["--config", config, "--host", host]))
            .collect(),
        policy: CONSOLE,
        is_service: false,
    };
    (node, console.tty.iter().map(line).collect())
}

#[must_use]
pub fn words(all: &[&str]) -> Vec<String> {
    all.iter().map(|&word| word.to_owned()).collect()
}

/// Runs until told to end. `arguments` start the node.
pub fn run(arguments: &[String], household: &mut Household) -> io::Result<End> {
    let _only_one = file::lock()?;
    file::write_pid("guard.pid")?;
    let signals = block_signals()?;
    let mut delay = RESTART_DELAY_MIN;
    let mut restarts: u32 = 0;
    loop {
        let started_at = clock::now();
        let mut arguments = arguments.to_vec();
        arguments.extend(["--restarts".to_owned(), restarts.to_string()]);
        let mut watch = Watch::start(&arguments, &signals)?;
        let status = watch.until_ended(household)?;
        if let Some(end) = watch.end() {
            household.end(&signals)?;
            notes::save();
            return Ok(end);
        }
        carry_out(&watch.will);
        notes::tell(&Note::NodeDied { status });
        notes::save();
        restarts = restarts.saturating_add(1);
        if clock::now().since(started_at) > STEADY_TIME {
            delay = RESTART_DELAY_MIN;
        }
        if household.wait_for_end(&signals, delay)? {
            household.end(&signals)?;
            return Ok(End::Asked);
        }
        delay = (delay * 2).min(RESTART_DELAY_MAX);
    }
}

impl Household {
    /// What is to be done now; then a wait of `limit` at most, for signals and for what is said.
    fn turn(
        &mut self,
        signals: &SignalFd,
        node: Option<&ChildStdout>,
        limit: Duration,
    ) -> io::Result<Woken> {
        let now = clock::now();
        self.consoles.tend(now);
        self.services.tend(now);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(now);
        }
        if let Some(storage) = &mut self.storage {
            storage.tend(now);
        }
        let outputs = self.services.outputs().map(|it| PollFd::from_borrowed_fd(it, PollFlags::IN));
        let mut sources: Vec<PollFd<'_>> = outputs.collect();
        sources.push(PollFd::new(signals, PollFlags::IN));
        sources.extend(node.map(|node| PollFd::new(node, PollFlags::IN)));
        let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
        match poll(&mut sources, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.services.hear(clock::now());
        read_signals(signals)
    }

    /// Reaps every child that ended; returns how `node` did, if that is one of them.
    fn reap(&mut self, node: Option<Pid>) -> Option<String> {
        loop {
            let (pid, status) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => (pid, format!("exit code {code}")),
                Ok(WaitStatus::Signaled(pid, signal, _)) => (pid, signal.to_string()),
                Ok(WaitStatus::StillAlive) => return None,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => return node.map(|_| format!("lost: {error}")),
            };
            if Some(pid) == node {
                return Some(status);
            }
            let now = clock::now();
            let _else_an_orphan =
                self.consoles.reaped(now, pid, &status) || self.services.reaped(now, pid, &status);
        }
    }

    /// Waits, and returns whether the end was asked for meanwhile.
    fn wait_for_end(&mut self, signals: &SignalFd, delay: Duration) -> io::Result<bool> {
        let until = clock::now() + delay;
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return Ok(false);
            }
            if let Woken::EndAsked = self.turn(signals, None, left.min(TURN))? {
                return Ok(true);
            }
            self.reap(None);
        }
    }

    /// Keeps it without a node, until the end is asked for.
    pub(super) fn keep(&mut self, signals: &SignalFd) -> io::Result<()> {
        while !self.wait_for_end(signals, TURN)? {}
        Ok(())
    }

    /// Ends consoles, which are not waited for, and services, which are, however long they take.
    fn end(&mut self, signals: &SignalFd) -> io::Result<()> {
        self.consoles.end(clock::now());
        while !self.services.wind_down(clock::now()) {
            self.turn(signals, None, TURN)?;
            self.reap(None);
        }
        Ok(())
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
    /// When its loop was known to come round.
    alive_at: Instant,
    is_killed: bool,
    end_asked_at: Option<Instant>,
    /// The node said how the machine is to end, and ends by itself.
    ordered: Option<Power>,
}

impl<'a> Watch<'a> {
    fn start(arguments: &[String], signals: &'a SignalFd) -> io::Result<Self> {
        let mut child: Child = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = child.stdout.take().expect("it was asked to be piped");
        notes::tell_node(child.stdin.take().expect("it was asked to be piped"));
        rustix::io::ioctl_fionbio(&stdout, true)?;
        let node = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
        Ok(Self {
            node,
            stdout,
            signals,
            received: Frames::default(),
            will: Will::default(),
            is_stdout_open: true,
            alive_at: clock::now(),
            is_killed: false,
            end_asked_at: None,
            ordered: None,
        })
    }

    /// How the node ended.
    fn until_ended(&mut self, household: &mut Household) -> io::Result<String> {
        loop {
            let turned_at = clock::now();
            let stdout = self.is_stdout_open.then_some(&self.stdout);
            match household.turn(self.signals, stdout, TURN)? {
                Woken::EndAsked if self.end_asked_at.is_none() => {
                    self.end_asked_at = Some(clock::now());
                    let _already_gone = kill(self.node, Signal::SIGTERM);
                }
                Woken::ReloadAsked => {
                    let _already_gone = kill(self.node, Signal::SIGHUP);
                }
                Woken::EndAsked | Woken::ChildMaybeEnded | Woken::Nothing => {}
            }
            self.read_will(household);
            if let Some(status) = household.reap(Some(self.node)) {
                self.read_will(household);
                return Ok(status);
            }
            self.end_what_hangs(turned_at, household);
            if self.end_asked_at.is_some_and(|at| clock::now().since(at) > LEAVE_LIMIT) {
                let _already_gone = kill(self.node, Signal::SIGKILL);
            }
        }
    }

    /// Kills a node whose loop does not come round. `turned_at`: when the guard's own turn began; a
    /// guard that did not run itself, as on a machine that was paused, knows nothing of the node.
    fn end_what_hangs(&mut self, turned_at: Instant, household: &mut Household) {
        let now = clock::now();
        if now.since(turned_at) > 2 * TURN {
            self.alive_at = now;
        } else if now.since(self.alive_at) > HANG_LIMIT && self.end_asked_at.is_none() {
            let what = format!("the node hangs for {} s: ending it", HANG_LIMIT.as_secs());
            notes::tell(&Note::Guard { what });
            // One that even SIGKILL does not end waits for the kernel: only a reset helps.
            if std::mem::replace(&mut self.is_killed, true) {
                household.watchdog = None;
            }
            let _already_gone = kill(self.node, Signal::SIGKILL);
            self.alive_at = now;
        }
    }

    /// Whether it was to end, and the guard with it.
    fn end(&self) -> Option<End> {
        self.ordered.map(End::Ordered).or_else(|| self.end_asked_at.map(|_| End::Asked))
    }

    /// Keeps the last whole will that the node wrote.
    fn read_will(&mut self, household: &mut Household) {
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
                // A device that is closed without its magic character goes on counting.
                Ok(ToGuard::Unfed) => household.watchdog = None,
                Ok(ToGuard::EndDatabase(address)) => end_database(address),
                Ok(ToGuard::Alive) => self.alive_at = clock::now(),
                Ok(ToGuard::End(power)) => {
                    self.end_asked_at.get_or_insert_with(clock::now);
                    self.ordered = Some(power);
                }
                Err(garbled) => {
                    let what = format!("the node's will: {garbled}");
                    notes::tell(&Note::Guard { what });
                }
            }
        }
    }
}

/// Ends the database that listens there, which hangs.
fn end_database(address: SocketAddrV4) {
    let what = match listener::end(address) {
        Ok(ended) if ended.is_empty() => "no database process is left to end".to_owned(),
        Ok(ended) => format!("ended database process {ended:?}"),
        Err(error) => format!("cannot end the database process: {error}"),
    };
    notes::tell(&Note::DatabaseProcessEnded { what });
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
