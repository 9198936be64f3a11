//! One command at a time: whoever changes roles holds a lock on every server that it changes.
//!
//! In: servers. Out: a lock that goes with the process. Must not: leave anything behind.
//! Read first: GET_LOCK in the servers' manuals; facts/repl.md section 5, scenario 41.
//! Not done: a file or a table. A lock of a session ends with it, however the command ends.

use std::net::SocketAddr;

use super::servers::Server;
use crate::limits;
use crate::os::mysql::LocalServer;

/// Held until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    held: Vec<LocalServer>,
}

impl Turn {
    /// In one order whatever the order of options, so that of two commands one goes on.
    pub(super) fn take<'a>(servers: impl Iterator<Item = &'a Server>) -> Result<Self, String> {
        let place = |server: &Server| {
            let address = SocketAddr::new(server.address, server.login.port);
            (address, server.login.socket.clone())
        };
        let mut servers: Vec<&Server> = servers.collect();
        servers.sort_by_key(|server| place(server));
        servers.dedup_by_key(|server| place(server));
        let take_one = |server: &Server| {
            let session = server.another_session()?;
            let rows = server.on(&session, TAKE)?;
            match rows.value(0, &["taken"]) {
                Some("1") => Ok(session),
                Some(_) | None => Err(refusal(server)),
            }
        };
        let mut turn = Self { held: Vec::new() };
        for server in servers {
            turn.held.push(take_one(server)?);
        }
        Ok(turn)
    }
}

impl Drop for Turn {
    /// Said, and not left to the end of the connections, which the servers see a moment later.
    fn drop(&mut self) {
        for session in &self.held {
            let release = session.query(RELEASE.to_owned(), limits::STATEMENT_LIMIT);
            let _gone_with_the_server = async_io::block_on(release);
        }
    }
}

/// Names the session that has it, which an operator can end.
fn refusal(server: &Server) -> String {
    let holder = server.query(HOLDER).unwrap_or_default();
    let id = holder.value(0, &["holder"]).unwrap_or("unknown").to_owned();
    let processes = server.query("SHOW PROCESSLIST").unwrap_or_default();
    let mut rows = 0..processes.rows.len();
    let row = rows.find(|row| processes.value(*row, &["Id"]) == Some(id.as_str()));
    let host = row.and_then(|row| processes.value(row, &["Host"])).unwrap_or("somewhere");
    format!(
        "Another command is changing the roles of {} (connection {id} from {host}): wait until it \
         is over. Where it hangs on a host that is gone, KILL {id}.",
        server.name()
    )
}

/// The lock of a command that was killed goes when the server sees that its connection is gone,
/// which is waited for.
const TAKE: &str = "SELECT GET_LOCK('tandem.roles', 1) AS taken";
const RELEASE: &str = "DO RELEASE_LOCK('tandem.roles')";
const HOLDER: &str = "SELECT IS_USED_LOCK('tandem.roles') AS holder";
