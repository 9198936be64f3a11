//! The control socket: requests of operators in, responses out, one task a connection.
//!
//! In: frames. Out: `Input::Control`, frames. Must not: answer by itself.
//! Read first: `console::message`; unix(7), SO_PEERCRED.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::Group;
use smol::LocalExecutor;
use smol::channel::{self, Receiver, Sender, TrySendError};

use super::{conversation, file};
use crate::console::message::{self, Frames, Garbled, Level, Request, Response};
use crate::console::note::Record;
use crate::limits::CONTROL_FRAME_BYTES_MAX;

/// Operators at once; one more is told to come later.
const CLIENTS_MAX: usize = 128;
/// Connections at once, those included that have not asked yet; one more is closed.
const CONNECTIONS_MAX: usize = 2 * CLIENTS_MAX;
/// Time limit of a request's frame, and of a client that does not read.
const FRAME_LIMIT: Duration = Duration::from_secs(10);
/// Responses that wait for one client; steps beyond them are left out, and a client that reads
/// nothing is dropped when `FRAME_LIMIT` is over.
const RESPONSES_QUEUED: usize = 64;

/// A request and who to answer.
#[derive(Debug)]
pub struct Asked {
    pub client: u64,
    pub request: Request,
}

/// The clients that wait for an answer.
#[derive(Debug, Default)]
pub struct Clients {
    waiting: RefCell<BTreeMap<u64, Sender<Response>>>,
    last: Cell<u64>,
}

impl Clients {
    /// Hands a response to its client; one that has gone is forgotten. Whether it is there.
    pub fn reply(&self, client: u64, response: Response) -> bool {
        let is_last = response.is_last();
        let mut waiting = self.waiting.borrow_mut();
        let Some(sender) = waiting.get(&client) else { return false };
        let is_gone = match sender.try_send(response) {
            Ok(()) => false,
            Err(TrySendError::Full(_)) => is_last,
            Err(TrySendError::Closed(_)) => true,
        };
        if is_last || is_gone {
            waiting.remove(&client);
        }
        !is_gone
    }

    /// One more, unless there are too many.
    pub fn add(&self) -> Option<(u64, Receiver<Response>)> {
        let mut waiting = self.waiting.borrow_mut();
        waiting.retain(|_, sender| !sender.is_closed());
        if waiting.len() >= CLIENTS_MAX {
            return None;
        }
        let client = self.last.get() + 1;
        self.last.set(client);
        let (sender, receiver) = channel::bounded(RESPONSES_QUEUED);
        waiting.insert(client, sender);
        Some((client, receiver))
    }
}

/// Listens until the executor ends.
pub async fn serve(
    executor: Rc<LocalExecutor<'static>>,
    clients: Rc<Clients>,
    asked: Sender<Asked>,
    group: String,
) -> io::Result<()> {
    let _stale_or_absent = std::fs::remove_file(file::SOCKET);
    let listener = UnixListener::bind(file::SOCKET)?;
    std::fs::set_permissions(file::SOCKET, std::fs::Permissions::from_mode(0o660))?;
    // Without the group it is root's alone.
    if let Ok(Some(group)) = Group::from_name(&group) {
        std::os::unix::fs::chown(file::SOCKET, None, Some(group.gid.as_raw()))?;
    }
    let listener = Async::new(listener)?;
    let accept = async || listener.accept().await.map(|(stream, _)| stream);
    conversation::each(&executor, CONNECTIONS_MAX, accept, |stream| {
        let (clients, asked) = (clients.clone(), asked.clone());
        async move { converse(stream, &clients, &asked).await }
    })
    .await;
    Ok(())
}

async fn converse(
    stream: Async<UnixStream>,
    clients: &Clients,
    asked: &Sender<Asked>,
) -> io::Result<()> {
    let request = match read_frame(&stream).await? {
        Ok(request) => request,
        Err(why) => return write_frame(&stream, &Response::Refused(why)).await,
    };
    if let Err(why) = authorize(&stream, &request) {
        return write_frame(&stream, &Response::Refused(why)).await;
    }
    let Some((client, responses)) = clients.add() else {
        let why = format!("{CLIENTS_MAX} operators wait already: try again");
        return write_frame(&stream, &Response::Refused(why)).await;
    };
    if asked.send(Asked { client, request }).await.is_err() {
        return Ok(());
    }
    let answer = async {
        while let Ok(response) = responses.recv().await {
            write_frame(&stream, &response).await?;
        }
        Ok(())
    };
    smol::future::or(answer, gone(&stream)).await
}

/// Until the client closes its end: whoever follows may never be told anything more.
async fn gone(stream: &Async<UnixStream>) -> io::Result<()> {
    loop {
        let count = stream.read_with(|mut socket| socket.read(&mut [0; 64])).await?;
        if count == 0 {
            return Ok(());
        }
    }
}

/// Acting requests are root's.
fn authorize(stream: &Async<UnixStream>, request: &Request) -> Result<(), String> {
    // Whoever asks from another PID namespace has no process here: rustix takes that for an error.
    let credentials = getsockopt(stream, PeerCredentials)
        .map_err(|error| format!("who asks is not known: {error}"))?;
    if request.is_acting() && credentials.uid() != 0 {
        return Err("only root may do this".into());
    }
    Ok(())
}

async fn read_frame(stream: &Async<UnixStream>) -> io::Result<Result<Request, String>> {
    let mut frame = Vec::new();
    let read = async {
        let mut buffer = [0; 1024];
        loop {
            let count = stream.read_with(|mut socket| socket.read(&mut buffer)).await?;
            let chunk = buffer.get(..count).unwrap_or(&[]);
            frame.extend_from_slice(chunk);
            if count == 0 || chunk.contains(&0) || frame.len() > CONTROL_FRAME_BYTES_MAX {
                return Ok(());
            }
        }
    };
    conversation::within(FRAME_LIMIT, read).await?;
    Ok(message::decode(&frame).map_err(|garbled| garbled.to_string()))
}

async fn write_frame(stream: &Async<UnixStream>, response: &Response) -> io::Result<()> {
    let frame = message::encode(response);
    conversation::within(FRAME_LIMIT, conversation::send(stream, &frame)).await
}

/// How long an applet waits for the next word of an answer. What only looks is answered at once, or
/// by nobody; of what acts the node says within half a minute that it did not come to an end, and a
/// trace is over within a minute.
const LOOK_LIMIT: Duration = Duration::from_secs(3);
const ACT_LIMIT: Duration = Duration::from_secs(60);

/// `None`: for ever.
fn patience(request: &Request) -> Option<Duration> {
    if matches!(request, Request::Log { follow: true, .. } | Request::Reseed) {
        None
    } else if request.is_acting() || matches!(request, Request::Trace { .. }) {
        Some(ACT_LIMIT)
    } else {
        Some(LOOK_LIMIT)
    }
}

fn connect(request: &Request) -> io::Result<UnixStream> {
    let mut stream = UnixStream::connect(file::SOCKET).map_err(|error| {
        let why = if error.kind() == io::ErrorKind::PermissionDenied {
            "ask as root, or as a member of the group that [console] names"
        } else {
            "is `tandem run` running on this host?"
        };
        io::Error::new(error.kind(), format!("{}: {error}: {why}", file::SOCKET))
    })?;
    stream.set_read_timeout(patience(request))?;
    stream.write_all(&message::encode(request))?;
    Ok(stream)
}

/// The daemon's notes from now on, for whoever waits for other things too.
#[derive(Debug)]
pub struct Following {
    stream: UnixStream,
    received: Frames,
}

pub fn follow(level: Level) -> io::Result<Following> {
    let stream = connect(&Request::Log { count: 0, level, follow: true })?;
    stream.set_nonblocking(true)?;
    Ok(Following { stream, received: Frames::default() })
}

impl AsFd for Following {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Following {
    /// What has come by now; an error when the daemon is gone.
    pub fn take(&mut self) -> io::Result<Vec<Record>> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => {
                    self.received.push(buffer.get(..count).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        let mut records = Vec::new();
        while let Some(response) = self.received.poll() {
            match response.map_err(garbled)? {
                Response::Notes(some) => records.extend(some),
                Response::Status(_)
                | Response::Progress(_)
                | Response::Done(_)
                | Response::Refused(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(records)
    }
}

/// The asking side, for the applets: sends a request and passes every response to `on_response`
/// until it was the last.
pub fn ask(request: &Request, mut on_response: impl FnMut(Response)) -> io::Result<()> {
    let mut stream = connect(request)?;
    let mut received = Frames::default();
    let mut buffer = [0; 4096];
    loop {
        while let Some(response) = received.poll::<Response>() {
            let response = response.map_err(garbled)?;
            let is_last = response.is_last();
            on_response(response);
            if is_last {
                return Ok(());
            }
        }
        let read = stream.read(&mut buffer);
        if read.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            let why = "the daemon runs and does not answer: it hangs, or was stopped (SIGSTOP)";
            return Err(io::Error::other(why));
        }
        let count = read?;
        if count == 0 {
            return Err(io::Error::other("the daemon closed the connection without an answer"));
        }
        received.push(buffer.get(..count).unwrap_or(&[]));
    }
}

fn garbled(why: Garbled) -> io::Error {
    io::Error::other(why.to_string())
}
