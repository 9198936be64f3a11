//! Conversations of the control plane's small servers: one task each, bounded in number and time.
//!
//! In: a listener, what to do with whoever comes. Out: tasks. Must not: serve visitors (the data
//! plane does, on its own epoll).

use std::io::{self, Write};
use std::rc::Rc;
use std::time::Duration;

use async_io::{Async, Timer};
use smol::LocalExecutor;

/// Between two attempts to accept when descriptors ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Holds a conversation with everybody who comes, `most` at once; one more is closed.
pub(super) async fn each<S, C: Future<Output = io::Result<()>> + 'static>(
    executor: &LocalExecutor<'static>,
    most: usize,
    accept: impl AsyncFn() -> io::Result<S>,
    converse: impl Fn(S) -> C,
) {
    let open = Rc::new(());
    loop {
        let Ok(stream) = accept().await else {
            Timer::after(ACCEPT_PAUSE).await;
            continue;
        };
        if Rc::strong_count(&open) > most {
            continue;
        }
        let (conversation, open) = (converse(stream), open.clone());
        executor
            .spawn(async move {
                let _broken = conversation.await;
                drop(open);
            })
            .detach();
    }
}

/// The work, or `TimedOut` when it is not done in time.
pub(super) async fn within(
    limit: Duration,
    work: impl Future<Output = io::Result<()>>,
) -> io::Result<()> {
    smol::future::or(work, async {
        Timer::after(limit).await;
        Err(io::ErrorKind::TimedOut.into())
    })
    .await
}

/// All of it, as the other side takes it.
pub(super) async fn send<T>(stream: &Async<T>, mut bytes: &[u8]) -> io::Result<()>
where
    for<'a> &'a T: Write,
{
    while !bytes.is_empty() {
        let count = stream.write_with(|mut socket| socket.write(bytes)).await?;
        bytes = bytes.get(count..).unwrap_or_default();
    }
    Ok(())
}
