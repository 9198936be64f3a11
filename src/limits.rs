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

/// One look at the local database, all its queries together. Longer, and it counts as unreachable:
/// a hung server accepts connections and says nothing.
pub const LOOK_LIMIT: Duration = Duration::from_secs(2);

/// A statement that has nothing to wait for. At the bound the job fails and is ordered again.
pub const STATEMENT_LIMIT: Duration = Duration::from_secs(2);

/// A statement that creates files, starts threads or commits. At the bound the job fails.
pub const STATEMENT_SLOW_LIMIT: Duration = Duration::from_secs(10);

/// STOP REPLICA. At the bound the applier's threads are ended, and it is asked again.
pub const STOP_REPLICA_LIMIT: Duration = Duration::from_secs(1);

/// How often STOP REPLICA is asked before a promotion fails.
pub const STOP_REPLICA_ATTEMPTS: u32 = 4;

/// Grace after a query's limit before the engine stops waiting for the hands to say so.
pub const ANSWER_GRACE: Duration = Duration::from_millis(500);

/// Lock wait of a server that is shut at once: whole seconds, the smallest there is.
pub const FENCE_PATIENCE: Duration = Duration::from_secs(1);

/// The longest lock wait; more would outlast the connection's own time limit.
pub const CLOSE_PATIENCE_MAX: Duration = Duration::from_secs(50);

/// How often a server is asked to close, with its connections ended in between. At the bound the
/// only fence left is to stop the process.
pub const CLOSE_ATTEMPTS: u32 = 3;

/// Pause between looks that wait for something: doubled from the first to the second.
pub const LOOK_PAUSE_MIN: Duration = Duration::from_millis(2);
pub const LOOK_PAUSE_MAX: Duration = Duration::from_millis(50);

/// Looks in a row at which the last received transaction is missing from an idle applier, before
/// it counts as received in part only.
pub const PARTIAL_LOOKS: u32 = 3;

/// Both threads of a replica must run within this, or the job fails (replication itself goes on
/// trying).
pub const FOLLOW_LIMIT: Duration = Duration::from_secs(5);

/// How often a long job says how far it is.
pub const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);

/// CHANGE ... CONNECT_RETRY, HEARTBEAT_PERIOD: the smallest there are, since the peer is near.
pub const SOURCE_CONNECT_RETRY_SECONDS: u32 = 1;
pub const SOURCE_HEARTBEAT_SECONDS: u32 = 1;

/// CHANGE ... RETRY_COUNT: over two years; MySQL 9 gives up after 10 by itself.
pub const SOURCE_RETRY_COUNT: u32 = 86_400_000;

/// Longest time that one read from the local database may take, whatever was asked.
pub const SERVER_READ_MAX: Duration = Duration::from_secs(60);

/// Queries given up on that still hold a thread. Above it the next one times out at once.
pub const QUERIES_ABANDONED_MAX: usize = 4;

/// Rows kept of one answer; the rest is read and dropped (only a process list can be longer).
pub const ROWS_MAX: usize = 10_000;
