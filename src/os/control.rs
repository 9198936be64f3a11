//! The control socket: requests of operators in, responses out, one task a connection.
//!
//! In: frames. Out: `Input::Control`, frames. Must not: answer by itself.
//! Read first: `console::message`; unix(7), SO_PEERCRED.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::rc::Rc;
use std::time::Duration;

use async_io::{Async, Timer};
use smol::LocalExecutor;
use smol::channel::{self, Receiver, Sender};

use super::file;
use crate::console::message::{self, Request, Response};
use crate::limits::CONTROL_FRAME_BYTES_MAX;

/// Operators at once; one more is told to come later.
const CLIENTS_MAX: usize = 32;
/// Time limit of a request's frame, and of a client that does not read.
const FRAME_LIMIT: Duration = Duration::from_secs(10);
/// Responses that wait for one client; a client that does not read them is dropped.
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
    /// Hands a response to its client; one that has gone, or does not read, is forgotten.
    pub fn reply(&self, client: u64, response: Response) {
        let is_last = !matches!(response, Response::Progress(_));
        let mut waiting = self.waiting.borrow_mut();
        let is_gone = waiting.get(&client).is_some_and(|sender| sender.try_send(response).is_err());
        if is_last || is_gone {
            waiting.remove(&client);
        }
    }

    fn add(&self) -> Option<(u64, Receiver<Response>)> {
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
) -> io::Result<()> {
    let _stale_or_absent = std::fs::remove_file(file::SOCKET);
    let listener = UnixListener::bind(file::SOCKET)?;
    std::fs::set_permissions(file::SOCKET, std::fs::Permissions::from_mode(0o660))?;
    let listener = Async::new(listener)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            Timer::after(Duration::from_millis(100)).await;
            continue;
        };
        let (clients, asked) = (clients.clone(), asked.clone());
        executor
            .spawn(async move {
                let limit = async {
                    Timer::after(Duration::from_secs(120)).await;
                    Ok(())
                };
                let _broken = smol::future::or(converse(stream, &clients, &asked), limit).await;
            })
            .detach();
    }
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
    while let Ok(response) = responses.recv().await {
        write_frame(&stream, &response).await?;
    }
    Ok(())
}

/// Acting requests are root's.
fn authorize(stream: &Async<UnixStream>, request: &Request) -> Result<(), String> {
    let credentials = rustix::net::sockopt::socket_peercred(stream)
        .map_err(|error| format!("who asks is not known: {error}"))?;
    if request.is_acting() && !credentials.uid.is_root() {
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
    limited(read).await?;
    Ok(message::decode(&frame))
}

async fn write_frame(stream: &Async<UnixStream>, response: &Response) -> io::Result<()> {
    let frame = message::encode(response);
    let mut rest = frame.as_slice();
    limited(async {
        while !rest.is_empty() {
            let count = stream.write_with(|mut socket| socket.write(rest)).await?;
            rest = rest.get(count..).unwrap_or(&[]);
        }
        Ok(())
    })
    .await
}

async fn limited(work: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    smol::future::or(work, async {
        Timer::after(FRAME_LIMIT).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// The asking side, for the applets: sends a request and passes every response to `on_response`
/// until it was the last.
pub fn ask(request: &Request, mut on_response: impl FnMut(Response)) -> io::Result<()> {
    let mut stream = UnixStream::connect(file::SOCKET).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{}: {error}: is `tandem run` running on this host?", file::SOCKET),
        )
    })?;
    stream.write_all(&message::encode(request))?;
    let mut received = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        while let Some(end) = received.iter().position(|byte| *byte == 0) {
            let frame: Vec<u8> = received.drain(..=end).collect();
            let response: Response = message::decode(&frame).map_err(io::Error::other)?;
            let is_last = !matches!(response, Response::Progress(_));
            on_response(response);
            if is_last {
                return Ok(());
            }
        }
        let count = stream.read(&mut buffer)?;
        if count == 0 {
            return Err(io::Error::other("the daemon closed the connection without an answer"));
        }
        received.extend_from_slice(buffer.get(..count).unwrap_or(&[]));
    }
}
