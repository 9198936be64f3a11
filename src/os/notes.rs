//! Notes told: to the log, the ring, the guard, syslog, and to operators who follow.
//!
//! In: `Note`. Out: lines, records. Must not: wait for any of them; what does not take a note now
//! goes without. Read first: `console::note`; design section 4 (the guard outlives the node).
//!
//! ```text
//!  node:  tell -> standard error, ring, syslog, followers, and by the pipe of its will -> guard
//!  guard: keeps what comes, adds its own, which it tells the node by a pipe the other way, and
//!         leaves all to the next node in a file
//! ```
//! One for the process, as the log is: what happens deep in a socket is told without a way there.

use std::fs;
use std::io::{self, Write as _};
use std::net::{SocketAddrV4, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::ChildStdin;
use std::sync::{Mutex, MutexGuard};

use async_io::Async;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Deserialize, Serialize};
use smol::channel::{self, Receiver, Sender};

use super::{clock, file, init};
use crate::console::message::{self, Frames, Level, Power};
use crate::console::note::{Note, Record, Ring};
use crate::console::syslog;
use crate::node::Will;

/// What the node tells the guard.
#[derive(Debug, Serialize, Deserialize)]
pub enum ToGuard {
    Will(Will),
    Note(Record),
    /// The node's loop comes round.
    Alive,
    /// A database that hangs: the node may not see whose sockets are whose.
    EndDatabase(SocketAddrV4),
    /// The watchdog is to be tried: it is not fed any more.
    Unfed,
    /// The node ends, and then the machine is to end like this.
    End(Power),
}

/// Notes that wait for one follower; one that does not read misses the rest.
const FOLLOWED_QUEUED: usize = 64;

#[derive(Default)]
struct Keeper {
    ring: Ring,
    /// The last note that `save_news` saw.
    saved: u64,
    has_guard: bool,
    /// Of the guard: the node, which shows what the guard says among its own.
    node: Option<ChildStdin>,
    syslog: Option<Syslog>,
    followers: Vec<(Level, Sender<Record>)>,
}

static KEEPER: Mutex<Option<Keeper>> = Mutex::new(None);

fn keeper() -> MutexGuard<'static, Option<Keeper>> {
    KEEPER.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Begins with what an earlier run left. Whoever has a guard tells it, too.
pub fn open(has_guard: bool) {
    let ring = Ring::of(load());
    *keeper() = Some(Keeper {
        saved: ring.number(),
        ring,
        has_guard,
        node: None,
        syslog: None,
        followers: Vec::new(),
    });
}

/// From here on notes go to syslog, too: a unix socket, or an address of UDP.
pub fn send_to(place: &str, host: &str) {
    if let Some(keeper) = keeper().as_mut() {
        keeper.syslog = Some(Syslog::new(place, host));
    }
}

/// Tells a note.
pub fn tell(note: &Note) {
    let level = match note.level() {
        Level::Error => log::Level::Error,
        Level::Warn => log::Level::Warn,
        Level::Info => log::Level::Info,
    };
    // A filter of RUST_LOG may name the note.
    log::log!(target: note.name(), level, "{note}");
    let mut keeper = keeper();
    let Some(keeper) = keeper.as_mut() else { return };
    let record = keeper.ring.push(clock::wall_nanos() / 1_000_000, note);
    if let Some(syslog) = &mut keeper.syslog {
        syslog.send(&record);
    }
    if note.is_kept() {
        if keeper.has_guard {
            let frame = message::encode(&ToGuard::Note(record.clone()));
            let mut stdout = io::stdout().lock();
            let _guard_is_gone = put_whole(&mut stdout, &frame);
        }
        if let Some(node) = &mut keeper.node {
            let _it_is_gone = put_whole(node, &message::encode(&record));
        }
        keeper.tell_followers(&record);
    }
}

impl Keeper {
    fn tell_followers(&mut self, record: &Record) {
        self.followers.retain(|(level, follower)| {
            record.level > *level || follower.try_send(record.clone()).is_ok()
        });
    }
}

/// A frame is shorter than PIPE_BUF, so that a pipe that takes any takes all of it at once.
fn put_whole(pipe: &mut (impl io::Write + AsFd), frame: &[u8]) -> io::Result<()> {
    let mut ready = [PollFd::new(pipe, PollFlags::OUT)];
    let is_ready = poll(&mut ready, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) == Ok(1);
    if !is_ready {
        return Ok(());
    }
    pipe.write_all(frame)?;
    pipe.flush()
}

/// Tells the guard what it has to know: waits for room in the pipe, as the guard reads it always.
pub fn order_guard(order: &ToGuard) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(&message::encode(order))?;
    stdout.flush()
}

/// Tells the guard that the node's loop comes round.
pub fn tell_alive() {
    let _guard_is_gone = put_whole(&mut io::stdout().lock(), &message::encode(&ToGuard::Alive));
}

/// From here on the guard's notes go to this node, too.
pub fn tell_node(node: ChildStdin) {
    if let Some(keeper) = keeper().as_mut() {
        keeper.node = Some(node);
    }
}

/// The node takes what its guard says, for as long as there is one. The guard has told the log and
/// syslog itself.
pub async fn hear_guard() -> io::Result<()> {
    let stdin = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdin(), 0)?;
    rustix::io::ioctl_fionbio(&stdin, true)?;
    let pipe = Async::new_nonblocking(stdin)?;
    let mut frames = Frames::default();
    let mut buffer = [0; 4096];
    loop {
        let read = pipe.read_with(|pipe| Ok(rustix::io::read(pipe, &mut buffer)?)).await?;
        if read == 0 {
            return Ok(());
        }
        frames.push(&buffer[..read]);
        while let Some(told) = frames.poll::<Record>() {
            if let (Ok(record), Some(keeper)) = (told, keeper().as_mut()) {
                let record = keeper.ring.adopt(record);
                keeper.tell_followers(&record);
            }
        }
    }
}

/// Keeps one that another process told.
pub fn keep(record: Record) {
    if let Some(keeper) = keeper().as_mut() {
        keeper.ring.keep(record);
    }
}

/// The last `count` that are at least so bad, oldest first.
#[must_use]
pub fn last(count: usize, level: Level) -> Vec<Record> {
    keeper().as_ref().map_or_else(Vec::new, |keeper| keeper.ring.last(count, level))
}

/// Those to come.
#[must_use]
pub fn follow(level: Level) -> Receiver<Record> {
    let (sender, receiver) = channel::bounded(FOLLOWED_QUEUED);
    if let Some(keeper) = keeper().as_mut() {
        keeper.followers.retain(|(_, follower)| !follower.is_closed());
        keeper.followers.push((level, sender));
    }
    receiver
}

/// On an appliance it outlives a reboot.
fn path() -> PathBuf {
    let folder = if init::is_appliance() { file::STATE_DIR } else { file::RUN_DIR };
    Path::new(folder).join("notes")
}

/// The same as `save`, if there is anything new.
pub fn save_news() {
    let news = |keeper: &mut Keeper| {
        let last = keeper.ring.number();
        std::mem::replace(&mut keeper.saved, last) != last
    };
    if keeper().as_mut().is_some_and(news) {
        save();
    }
}

/// Leaves all notes to the next run, and to `tandem log` while there is none.
pub fn save() {
    let records = last(usize::MAX, Level::Info);
    let beside = path().with_extension("new");
    let bytes = postcard::to_stdvec(&records).expect("plain data");
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, path()));
    if let Err(error) = written {
        tell(&Note::Guard { what: format!("{}: {error}", path().display()) });
    }
}

/// What the last run left; nothing if that cannot be read.
#[must_use]
pub fn load() -> Vec<Record> {
    let bytes = fs::read(path()).unwrap_or_default();
    postcard::from_bytes(&bytes).unwrap_or_default()
}

/// Where syslog listens. A socket that is gone is opened again with the next note.
struct Syslog {
    place: String,
    host: String,
    socket: Option<Socket>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
}

impl Syslog {
    fn new(place: &str, host: &str) -> Self {
        Self { place: place.to_owned(), host: host.to_owned(), socket: None }
    }

    fn connect(place: &str) -> io::Result<Socket> {
        match place.starts_with('/') {
            true => {
                let socket = UnixDatagram::unbound()?;
                socket.set_nonblocking(true)?;
                socket.connect(place)?;
                Ok(Socket::Unix(socket))
            }
            false => {
                let any = if place.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
                let socket = UdpSocket::bind(any)?;
                socket.set_nonblocking(true)?;
                socket.connect(place)?;
                Ok(Socket::Udp(socket))
            }
        }
    }

    fn send(&mut self, record: &Record) {
        let bytes = syslog::message(&self.host, std::process::id(), record);
        // Once more on a new socket: the one that listened may have been started again.
        for _ in 0..2 {
            if self.socket.is_none() {
                self.socket = Self::connect(&self.place).ok();
            }
            let sent = match &self.socket {
                Some(Socket::Unix(socket)) => socket.send(&bytes),
                Some(Socket::Udp(socket)) => socket.send(&bytes),
                None => return,
            };
            match sent {
                Ok(_) => return,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.socket = None,
            }
        }
    }
}
