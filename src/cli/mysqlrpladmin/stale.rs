//! What a replica lacks that had stopped to receive before its source died.
//!
//! In: a replica. Out: whether it had, and how old its last transaction is. Must not: change
//! anything.
//! Read first: facts/repl.md section 5, scenario 12.
//! Differs: the original looked at the SQL thread only, and promoted whatever had been received.

use std::time::SystemTime;

use super::super::applet::{Call, Stop};
use super::super::servers::Server;
use crate::limits;
use crate::repl::topology::Member;
use crate::repl::{Beyond, ReplicaStatus, ThreadState};

/// A receiver that lost its source goes on trying, or says that it could not connect. One that
/// stands for another reason did not see what the source did last.
pub(super) fn check(call: &Call, new: &Server, member: &Member) -> Result<(), Stop> {
    let Some(status) = member.replica.as_ref().filter(|status| is_stale(status)) else {
        return Ok(());
    };
    let why = match (status.io_errno, &status.io_error) {
        (0, _) => "its IO thread is stopped".to_owned(),
        (code, error) => format!("its IO thread is stopped by error {code}: {error}"),
    };
    let age = match age_of_last(new, member) {
        Some(seconds) => format!("the last of it written {seconds} s ago"),
        None => "and how old that is, is not known".to_owned(),
    };
    let Beyond { text, transactions } = member.lost_by_reset();
    let waiting = match transactions {
        0 => String::new(),
        count => format!("; {count} more wait in its relay log ({text})"),
    };
    let name = new.name();
    let executed = &member.executed;
    let source = format!("{}:{}", status.source_host, status.source_port);
    let told = format!(
        "Slave {name} did not receive when its master died: {why}. It has {executed}, {age}\
         {waiting}. What {source} did after that is not here, and would be lost."
    );
    if call.options.has("force") {
        call.say.warning(&told);
        return Ok(());
    }
    Err(Stop::Error(format!(
        "{told} Note: --force promotes it all the same, as is right after a failover that was \
         killed."
    )))
}

fn is_stale(status: &ReplicaStatus) -> bool {
    status.io == ThreadState::Stopped && !LOST_SOURCE.contains(&status.io_errno)
}

/// Its own binlog has the time at which the source committed.
fn age_of_last(new: &Server, member: &Member) -> Option<u64> {
    let at = new.last_written_at(member.of_log("File"), limits::LOOK_LIMIT)?;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(now.as_secs().saturating_sub(at))
}

/// Cannot connect, lost connection, shutdown: in the words of client and server.
const LOST_SOURCE: [u32; 10] = [1053, 1158, 1159, 1160, 1161, 2002, 2003, 2005, 2006, 2013];
