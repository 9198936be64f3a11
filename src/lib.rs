//! tandem: two hosts, one dependable web-and-database service, in one static binary.
//!
//! # The architecture, in reading order
//!
//! Two colours. The **head** decides: codecs, state machines, policy, rendering. It has no
//! descriptor, no clock, no thread and no `async`; time comes in as an argument. The **hands**
//! (`os`, `cli`, `main`) touch the kernel and decide nothing. `tests/tidy.rs` and `.clippy.toml`
//! enforce the line.
//!
//! ```text
//!                     a packet            a query             a request
//!                        |                   |                   |
//!  hands   os::link, os::route   os::serve_sql       os::serve_web        os::control <- cli
//!        os::network                 |  os::plane, one epoll  |               |
//!          os::hands <- os::run      +------- os::data -------+           os::hands
//! ------------|----------------------|-----------------------|----------------|-- purity line --
//!  head     node  --- Routes --->  sql::session          web::exchange     console
//!          /  |  \   \
//!      pair vrrp peer net repl                        (siblings never import each other)
//!          \  |  /   /
//!       wire, time, limits, units, crypt, routes      (these import nothing above them)
//! ```
//!
//! 1. [`pair`]: the two-host policy, one total table of roles and events.
//! 2. [`node`]: the control plane. It composes the machines below, computes the guards of the
//!    table (`node::judge`), carries out its orders (`node::act`) and tells the others
//!    (`node::report`).
//! 3. [`os::run`]: the whole loop; [`os::hands`] performs each output. The started process is
//!    [`os::guard`], which starts the node, keeps the consoles ([`supervise`]) and carries out the
//!    node's last will.
//! 4. The machines of the control plane: [`vrrp`] (advertisements, timers), [`peer`] (beacons
//!    between the two daemons), [`net`] (ARP, neighbour discovery, netlink, virtual addresses on a
//!    lease, what the gateway sees), [`repl`] (the local database: looked at, promoted, closed,
//!    made a replica). Beside the node, `node::survey` looks at the network before anything serves.
//! 5. The data plane: [`sql`] (the splitter), [`web`] (the front), steered by [`routes`] alone.
//!    [`os::tls`] is what a connection of it goes through when it is in TLS.
//! 6. [`console`]: what operators ask and are told; [`cli`]: the applets; [`config`]:
//!    `tandem.toml`, one section a module.
//!    [`import`] makes one of it out of an old pair's files; [`doctor`] says what is wrong on a
//!    host before anything is started there.
//!    [`secrets`] makes what its secret files hold, and hands it over to the other host.
//! 7. [`appliance`]: the machine that is only this: what PID 1 ([`os::init`]) sets and starts.
//! 8. The ground: [`wire`] (byte cursors, small identities), [`time`] (virtual), [`limits`] (every
//!    bound with its reason), [`units`] (values as people write them), [`crypt`]
//!    (hashes of passwords).
//!
//! # One contract for every machine
//!
//! `new(&Config)`, `handle(now, input)`, `poll_output() -> Option<Output>`,
//! `deadline() -> Option<Instant>`: one input in, drain all outputs, wait for the next input or the
//! deadline. `handle` never fails and never panics on any bytes; errors become outputs.
//!
//! # Words
//!
//! - *host*: one of the two; *peer*: the other one (of a host), or a php-fpm (of the web upstream).
//! - *role*: Joining, Standby, Promoting, Active, Demoting, Refused ([`wire::Role`]).
//! - *serve*: hold the virtual addresses and the database that takes writes.
//! - *source*, *replica*: the databases; `MASTER` and `SLAVE` only inside SQL text.
//! - *position*: the executed GTIDs of a database. *Errant*: executed here, unknown to the source.
//! - *epoch*: a counter on disk, raised at every promotion; the newer one rules.
//! - *fenced*: read-only, its clients' connections ended, no client path.
//! - *beacon*: the authenticated datagram in which a host reports itself.
//! - *hold*: a statement waits on its client's open connection. *Drain*: answer what is in flight,
//!   take nothing new; of a database: apply what was received.
//! - *link*: the outside or the inside network. *VIP*: a virtual address.
//! - *upstream*: both hosts' php-fpm; a *peer* is one of them.
//! - *board*: a kind of machine; *payload*: the programs that an image carries beside tandem;
//!   *slot*: A or B, one of two places for kernel, initramfs and payload.
//! - *front*: what clients speak HTTP to: ours, or a web server that asks us by the *FastCGI port*.

pub mod crypt;
pub mod limits;
pub mod routes;
pub mod time;
pub mod units;
pub mod wire;

pub mod appliance;
pub mod config;
pub mod console;
pub mod doctor;
pub mod import;
pub mod net;
pub mod node;
pub mod pair;
pub mod peer;
pub mod repl;
pub mod secrets;
pub mod sql;
pub mod supervise;
pub mod vrrp;
pub mod web;

pub mod cli;
pub mod os;
