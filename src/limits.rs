//! Every bound in the program, with its unit, its reason and what happens when it is reached.
//!
//! In: nothing. Out: constants. Must not: hold what a user may want to change (that is `config`).

use std::time::Duration;

/// Longest time between two turns of the loop. Beyond it (a paused VM, SIGSTOP) mastership counts
/// as lost before anything else is sent, because the peer may have taken over meanwhile.
pub const STALL_MAX: Duration = Duration::from_millis(1500);

/// The same where advertisements are so frequent that a peer takes over sooner; shorter would
/// make every hiccup of a busy machine a change of roles.
pub const STALL_MIN: Duration = Duration::from_millis(500);

/// Datagrams and frames read from one control-plane socket in a turn; the rest waits for the next
/// turn, so that a flood on one socket cannot starve the timers.
pub const DATAGRAMS_PER_TURN: usize = 64;

/// Inputs queued between the reader tasks and the node. When full, readers stop reading and the
/// kernel's socket buffers drop, which VRRP and beacons are made for.
pub const INPUTS_QUEUED: usize = 256;

/// Data-plane events taken from epoll in one turn before the control plane gets its turn.
pub const PLANE_EVENTS_PER_TURN: usize = 128;

/// How long a busy data plane waits for its events itself, without async-io, before the control
/// plane has its turn: a query's answer comes sooner as a rule, and the way through async-io costs
/// four more system calls.
pub const PLANE_SHIFT: Duration = Duration::from_millis(5);

/// The same where a deadline of the data plane comes before that.
pub const PLANE_SHIFT_MIN: Duration = Duration::from_millis(1);

/// The data plane's one shared read buffer, in bytes: the largest single read.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Bytes waiting to be written to one socket above which its source is no longer read
/// (back-pressure), so that a slow client costs this much memory and no more.
pub const OUTBOUND_BYTES_MAX: usize = 256 * 1024;

/// Between two words of the node to its guard that its loop comes round. The node wakes more often
/// than that for its beacons.
pub const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long a host that leaves in order goes on for programs that are connected to its splitter,
/// and how often it looks whether they are gone.
pub const LEAVE_PATIENCE: Duration = Duration::from_secs(1);
pub const LEAVE_PAUSE: Duration = Duration::from_millis(10);

/// How long nobody is connected by then: the other host's front may have sent a page here just
/// before it was told, which has yet to connect.
pub const LEAVE_QUIET: Duration = Duration::from_millis(200);

/// A node that said nothing for so long hangs: its guard kills it and starts another one. Its lease
/// on the addresses ended long before, so that nothing but its own return waits for this.
pub const HANG_LIMIT: Duration = Duration::from_secs(10);

/// Bytes of the address of an update, which one host tells the other in a beacon.
pub const PLACE_BYTES_MAX: usize = 128;

/// Notes kept in memory for `tandem status` and the log verb; the oldest is dropped.
pub const NOTES_KEPT: usize = 1000;

/// Characters of a note; what a server complains of may be longer.
pub const NOTE_CHARS_MAX: usize = 600;

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

/// Time between two commit probes of an open source.
pub const COMMIT_PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// How long a probe may take before the process list is asked what it waits for: longer than a disk
/// stalls or a large transaction is written into the binlog.
pub const COMMIT_PATIENCE: Duration = Duration::from_secs(8);

/// Reversed row events of errant transactions, in bytes. Above it they are not taken back.
pub const ERRANT_BYTES_MAX: usize = 64 << 20;

/// Text of one compressed errant transaction, in bytes; what would be beyond it is only saved.
pub const ERRANT_PACKED_TEXT_BYTES_MAX: usize = 64 << 20;

/// Copying the peer's whole database. At the bound it is given up, and this one is empty.
pub const CLONE_LIMIT: Duration = Duration::from_secs(24 * 3600);

/// Where that goes by way of SQL: seconds that writes may wait for the lock under which the
/// snapshot begins, and how often it is tried.
pub const COPY_LOCK_SECONDS: u64 = 2;
pub const COPY_LOCK_TRIES: u32 = 30;
/// What one INSERT takes: rows, values (the protocol has 65,535), bytes where a row has no more.
pub const COPY_ROWS_MAX: usize = 1000;
pub const COPY_VALUES_MAX: usize = 60_000;
pub const COPY_BYTES_MAX: usize = 1 << 20;
/// How long the other host's server may look for its next row.
pub const COPY_SILENCE_MAX: Duration = Duration::from_secs(300);
/// How often it is said how far it is.
pub const COPY_PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

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

/// How long taking back a few transactions may take, with a database that answers.
pub const TAKE_BACK_LIMIT: Duration = Duration::from_secs(120);

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
/// Requests waiting for a free php-fpm worker; one more gets 503 at once.
pub const WEB_QUEUE_MAX: usize = 4096;

/// Time between two FastCGI pings of a host with nothing to do. With the jitter, the limit and two
/// failures one that hangs is out after 670 ms; more often would cost workers.
pub const WEB_PROBE_INTERVAL: Duration = Duration::from_millis(250);

/// The same while requests are there: out after 550 ms, so that a page of 200 ms that hung at its
/// end, and that the other host begins anew, is there within a second (facts/web.md 6).
pub const WEB_PROBE_INTERVAL_BUSY: Duration = Duration::from_millis(130);

/// Time limit of one ping, connection included; beyond it the ping failed.
pub const WEB_PROBE_LIMIT: Duration = Duration::from_millis(200);

/// Half the width of the jitter of pings, so that two fronts do not ping in step.
pub const WEB_PROBE_JITTER: Duration = Duration::from_millis(20);

const _: () = assert!(
    600 > WEB_PROBE_INTERVAL_BUSY.as_millis()
        + WEB_PROBE_JITTER.as_millis()
        + WEB_PROBE_LIMIT.as_millis() * 2
        && WEB_PROBE_FAILURES == 2
);

/// Bytes kept of a probe's answer; the rest is read and dropped (a pool's status is about 500).
pub const WEB_PROBE_BYTES_MAX: usize = 4096;

/// Requests that earn one retry after an unknown outcome: at most a fifth more load on a slow
/// application. Without budget the client gets 502 or 504.
pub const WEB_RETRY_REQUESTS: u32 = 5;

/// A kept connection to php-fpm is not used again beyond this age: whoever waits for a worker in
/// the kernel's queue, the other host's front too, gets this one's by then.
pub const WEB_KEEP_AGE_MAX: Duration = Duration::from_millis(250);

/// While a fresh connection waits longer than this for its first byte, none is kept: there may be
/// no worker free for it.
pub const WEB_KEEP_CROWD_LIMIT: Duration = Duration::from_millis(5);

/// After this without a byte on a kept connection the kernel is asked whether php-fpm has read the
/// request from it. Where a machine is merely that slow to run a worker, the second try is paid
/// from the budget of retries.
pub const WEB_UNREAD_LIMIT: Duration = Duration::from_millis(100);

/// Different requests that must be reset on one host, with nothing from it between them, before
/// its next ping comes at once.
pub const WEB_RESETS_MAX: usize = 3;

/// Clients whose rate of requests is remembered; beyond them the one that asked longest ago is
/// forgotten (some 100 bytes each).
pub const WEB_CLIENTS_MAX: usize = 16_384;

/// Pings in a row that must fail before a host's php-fpm gets no more requests.
pub const WEB_PROBE_FAILURES: u8 = 2;

/// Pings in a row that must be answered before it gets requests again.
pub const WEB_PROBE_SUCCESSES: u8 = 2;

/// Bytes of one request's head; a longer one gets 431 (nginx: large_client_header_buffers 4 8k).
pub const WEB_HEAD_BYTES_MAX: usize = 32 * 1024;

/// Bytes of one request's parameters at the FastCGI port; more get 431 (nginx and Apache send one
/// record of 64 KiB at most).
pub const WEB_PARAMS_BYTES_MAX: usize = 128 * 1024;

/// Bytes of a request body in memory; beyond them it goes to an unlinked file in pieces this large.
pub const WEB_BODY_MEMORY_BYTES: usize = 256 * 1024;

/// Files up to this size go out in one write with their head; larger ones by sendfile.
pub const WEB_SMALL_FILE_BYTES: u64 = 16 * 1024;

/// Bytes of an operator's error page; a larger one is told and not used.
pub const WEB_ERROR_PAGE_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a PROXY protocol header, its TLVs included; a longer one closes the connection.
pub const WEB_PROXY_BYTES_MAX: usize = 4096;

/// Rounds of a password's hash (crypt(5)); one of 5,000, the usual number, takes 2 ms.
pub const WEB_PASSWORD_ROUNDS_MAX: usize = 10_000;

/// Hashes within an interval, however many passwords are tried: a twentieth of the loop's time.
pub const WEB_PASSWORDS_PER_INTERVAL: u32 = 20;
pub const WEB_PASSWORD_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of a file of users; a larger one is refused when it is read.
pub const WEB_USER_FILE_BYTES_MAX: usize = 1024 * 1024;

/// Virtual hosts; more are refused when the configuration is read.
pub const WEB_SITES_MAX: usize = 256;

/// Bytes of small files and their names in memory, all sites together; beyond them the longest
/// unused leave.
pub const WEB_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Files in memory; the same.
pub const WEB_CACHE_FILES_MAX: usize = 1024;

/// How long a file in memory, or the knowledge that a script is there, counts without a look at
/// the file system: one look a second, however many requests.
pub const WEB_CACHE_AGE_MAX: Duration = Duration::from_secs(1);

/// Bytes sealed at once for a client in TLS: what it costs of memory if it does not take them.
pub const WEB_SEAL_BYTES: usize = 64 * 1024;

/// Handshakes of TLS in a turn, because one costs as much as a hundred requests: the rest waits
/// for the next one, so that a crowd of clients does not keep the control plane waiting.
pub const WEB_HANDSHAKES_PER_TURN: usize = 16;

/// From one look at the files of certificates to the next. A change counts when a second look
/// finds the same.
pub const TLS_FILES_INTERVAL: Duration = Duration::from_secs(2);

/// Bytes that one session may move in one turn before the others get theirs.
pub const WEB_SESSION_BYTES_PER_TURN: usize = 512 * 1024;

/// How long a refused client may go on sending before its connection is closed hard. Closing at
/// once would reset the connection and destroy the answer on its way (nginx: lingering_timeout).
pub const WEB_LINGER_LIMIT: Duration = Duration::from_secs(3);

/// How long a connection that has sent nothing yet is waited for while draining: its first request
/// may be under way.
pub const WEB_DRAIN_GRACE: Duration = Duration::from_millis(300);

/// How long accepting pauses when descriptors ran out; meanwhile connections wait in the kernel.
pub const WEB_ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Longest time a line of the access log stays in memory.
pub const WEB_LOG_DELAY_MAX: Duration = Duration::from_secs(1);

/// Bytes of access log in memory at which it is written at once.
pub const WEB_LOG_BYTES_MAX: usize = 32 * 1024;
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

/// From one look at the source's position to the next, while sessions write: what their reads wait
/// for at most, beside the replica's own delay, before they leave the source.
pub const SQL_OWN_WRITES_ROUND: Duration = Duration::from_millis(10);

/// A position longer than this is not followed; a set of GTIDs has some 50 bytes a server.
pub const SQL_POSITION_BYTES_MAX: usize = 64 * 1024;

/// Idle connections kept to both servers together; for one more the oldest is closed. A database's
/// max_connections is 151 by default, and both hosts' splitters keep a pool.
pub const SQL_POOL_IDLE_MAX: usize = 64;

/// An idle connection is closed after this, long before any usual wait_timeout closes it.
pub const SQL_POOL_IDLE: Duration = Duration::from_secs(60);

/// How long bytes may stay unacknowledged on a connection to a server before it counts as lost
/// (TCP_USER_TIMEOUT): a host that lost power sends no reset.
pub const SQL_SERVER_SILENCE: Duration = Duration::from_secs(5);

/// How long a client's socket is kept after the session's last words, so that they arrive.
pub const SQL_LINGER: Duration = Duration::from_secs(1);

/// Clients of the splitter's admin port at once; one more is closed at once.
pub const SQL_DESKS_MAX: usize = 16;

/// Bytes of prepared texts that a session keeps to prepare them on another connection; what comes
/// after them stays where it was prepared.
pub const SQL_PREPARED_BYTES_MAX: usize = 256 * 1024;

/// SETs of session variables that a session remembers for its other connection; with one more it
/// stays on the source.
pub const SQL_SETTINGS_MAX: usize = 32;

/// Bytes of such statements, one of them or all together; beyond them the session stays on the
/// source. Two kilobytes hold what any framework sets.
pub const SQL_SETTINGS_BYTES_MAX: usize = 2048;

/// Digests of statements that SHOW DIGESTS knows; one more takes the place of the cheapest one. No
/// application has more statements that matter, and the texts stay below 64 KiB.
pub const SQL_DIGESTS_MAX: usize = 200;

/// Bytes of a normalised statement that are kept and shown; the rest is left out.
pub const SQL_DIGEST_BYTES_MAX: usize = 256;

/// Bytes of a statement that its digest is made of, so that a long one costs no more than a long
/// line; statements that begin alike up to there share a digest.
pub const SQL_DIGEST_INPUT_BYTES_MAX: usize = 4096;

/// Users of the splitter, and addresses that may connect to it, with those of the admin port; one
/// more is refused. Every log-in looks through them.
pub const SQL_USERS_MAX: usize = 1000;

/// How long secrets are offered: a person walks from one console to the other.
pub const SECRETS_OFFER_LIMIT: Duration = Duration::from_secs(600);

/// Wrong codes after which an offer is void: mistyped, not guessed.
pub const SECRETS_WRONG_MAX: u32 = 3;

/// What each step of that conversation may take.
pub const SECRETS_TALK_LIMIT: Duration = Duration::from_secs(5);
