//! Every bound in the program, with its unit, its reason and what happens when it is reached.
//!
//! In: nothing. Out: constants. Must not: hold what a user may want to change (that is `config`).

use std::time::Duration;

/// Longest time between two turns of the loop. Beyond it (a paused VM, SIGSTOP) mastership counts
/// as lost before anything else is sent, because the peer may have taken over meanwhile.
pub const STALL_MAX: Duration = Duration::from_millis(1500);

/// Datagrams and frames read from one control-plane socket in a turn; the rest waits for the next
/// turn, so that a flood on one socket cannot starve the timers.
pub const DATAGRAMS_PER_TURN: usize = 64;

/// Inputs queued between the reader tasks and the node. When full, readers stop reading and the
/// kernel's socket buffers drop, which VRRP and beacons are made for.
pub const INPUTS_QUEUED: usize = 256;

/// Data-plane events taken from epoll in one turn before the control plane gets its turn.
pub const PLANE_EVENTS_PER_TURN: usize = 128;

/// The data plane's one shared read buffer, in bytes: the largest single read.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes waiting to be written to one socket above which its source is no longer read
/// (back-pressure), so that a slow client costs this much memory and no more.
pub const OUTBOUND_BYTES_MAX: usize = 256 * 1024;

/// Notes kept in memory for `tandem status` and the log verb; the oldest is dropped.
pub const NOTES_KEPT: usize = 256;

/// Bytes of one control request or response frame; a longer one closes the connection.
pub const CONTROL_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one beacon: one Ethernet frame without fragments.
pub const BEACON_BYTES_MAX: usize = 1400;

/// Bytes of the textual GTID position in a beacon. A longer set is replaced by nothing and the
/// peer treats the position as unknown, which never promotes or attaches by guess.
pub const POSITION_BYTES_MAX: usize = 1024;

/// Bytes of an SQL command that are kept to be classified; of a longer one only the start is, so
/// its session stays on the source.
pub const SQL_STATEMENT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of a client's log-in packet; a longer one closes the connection.
pub const SQL_LOGIN_BYTES_MAX: usize = 64 * 1024;

/// How long a client waits for a greeting while no server was ever reached, before it gets one
/// that promises little.
pub const SQL_GREETING: Duration = Duration::from_secs(2);

/// Time that a client has to log in (MySQL: connect_timeout); then it is closed.
pub const SQL_LOGIN: Duration = Duration::from_secs(10);

/// Between two attempts to reach a source that cannot be connected to, while a statement waits.
pub const SQL_RECONNECT: Duration = Duration::from_millis(200);

/// How long reads avoid a host that could not be connected to, and how often an unknown server
/// is asked for its greeting.
pub const SQL_AVOID: Duration = Duration::from_secs(1);

/// Idle connections kept to both servers together; one more is closed. A database's
/// max_connections is 151 by default, and both hosts' splitters keep a pool.
pub const SQL_POOL_IDLE_MAX: usize = 64;

/// An idle connection is closed after this, long before any usual wait_timeout closes it.
pub const SQL_POOL_IDLE: Duration = Duration::from_secs(60);

/// How long bytes may stay unacknowledged on a connection to a server before it counts as lost
/// (TCP_USER_TIMEOUT): a host that lost power sends no reset.
pub const SQL_SERVER_SILENCE: Duration = Duration::from_secs(5);

/// How long a client's socket is kept after the session's last words, so that they arrive.
pub const SQL_LINGER: Duration = Duration::from_secs(1);
