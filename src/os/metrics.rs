//! `/metrics`: the status as OpenMetrics text, over HTTP on loopback.
//!
//! In: requests. Out: `Request::Status` to the node, its answer as text. Must not: touch the data
//! plane, whose front is for visitors. Read first: `console::metrics`.
//! Not done: keep-alive; a scrape is one connection.

use std::io::{self, Read as _};
use std::net::{TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use async_io::Async;
use smol::LocalExecutor;
use smol::channel::Sender;

use super::control::{Asked, Clients};
use super::conversation;
use crate::console::message::{Request, Response};
use crate::console::metrics;

/// Scrapers at once; one more is closed.
const SCRAPES_MAX: usize = 8;
const SCRAPE_LIMIT: Duration = Duration::from_secs(5);
const HEAD_BYTES_MAX: usize = 8192;

/// Serves until the executor ends.
pub async fn serve(
    executor: Rc<LocalExecutor<'static>>,
    listener: Async<TcpListener>,
    clients: Rc<Clients>,
    asked: Sender<Asked>,
) {
    let accept = async || listener.accept().await.map(|(stream, _)| stream);
    conversation::each(&executor, SCRAPES_MAX, accept, |stream| {
        let (clients, asked) = (clients.clone(), asked.clone());
        async move { conversation::within(SCRAPE_LIMIT, converse(&stream, &clients, &asked)).await }
    })
    .await;
}

async fn converse(
    stream: &Async<TcpStream>,
    clients: &Clients,
    asked: &Sender<Asked>,
) -> io::Result<()> {
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    let (status, body) = loop {
        let count = stream.read_with(|mut socket| socket.read(&mut buffer)).await?;
        head.extend_from_slice(buffer.get(..count).unwrap_or_default());
        if let Some(refusal) = refusal(&head) {
            break (refusal, None);
        }
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            break match ask(clients, asked).await {
                Some(text) => ("200 OK", Some(text)),
                None => ("503 Service Unavailable", None),
            };
        }
        if count == 0 {
            return Ok(());
        }
    };
    let kind = if body.is_some() { metrics::CONTENT_TYPE } else { "text/plain" };
    let body = body.unwrap_or_else(|| format!("{status}: GET /metrics is what there is\n"));
    let answer = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: \
         close\r\n\r\n{body}",
        body.len()
    );
    conversation::send(stream, answer.as_bytes()).await
}

/// Why a head, whole or not yet, is not answered; `None`: it may be.
fn refusal(head: &[u8]) -> Option<&'static str> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut request = httparse::Request::new(&mut headers);
    if request.parse(head).is_err() || head.len() > HEAD_BYTES_MAX {
        return Some("400 Bad Request");
    }
    match (request.method, request.path) {
        (Some("GET"), Some(path)) if path.split('?').next() == Some("/metrics") => None,
        (Some("GET"), Some(_)) => Some("404 Not Found"),
        (Some(_), Some(_)) => Some("405 Method Not Allowed"),
        (_, None) | (None, _) => None,
    }
}

async fn ask(clients: &Clients, asked: &Sender<Asked>) -> Option<String> {
    let (client, responses) = clients.add()?;
    asked.send(Asked { client, request: Request::Status }).await.ok()?;
    match responses.recv().await {
        Ok(Response::Status(status)) => Some(metrics::render(&status)),
        Ok(_) | Err(_) => None,
    }
}
