//! The seam: what the node is told, what it orders, and what outlives it.
//!
//! In, out: data. Must not: do anything. Read first: os/hands.rs, which performs it.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::console::message::{Request, Response};
use crate::console::note::Note;
use crate::console::status::Glance;
use crate::peer::Build;
use crate::repl;
use crate::repl::errant::Saved;
use crate::routes::Routes;
use crate::vrrp::router::Datagram;
use crate::wire::{DeviceId, Hold, LinkId, Orders};

/// What the hands tell the node.
#[derive(Debug)]
pub enum Input {
    /// What a raw socket received, IP header first.
    Vrrp {
        link: LinkId,
        datagram: Vec<u8>,
    },
    /// An Ethernet frame, seen before any firewall: ARP, neighbour discovery, VRRP.
    Frame {
        device: DeviceId,
        frame: Vec<u8>,
    },
    Beacon {
        link: LinkId,
        datagram: Vec<u8>,
    },
    /// An answer to `Output::SendEcho`, IP header first.
    Echo {
        datagram: Vec<u8>,
    },
    /// An ICMP error, IP header first.
    Icmp {
        link: LinkId,
        datagram: Vec<u8>,
    },
    Netlink {
        datagram: Vec<u8>,
    },
    /// The kernel dropped messages: links and addresses are to be asked for again.
    NetlinkLost,
    /// The wall clock was set, by so much.
    ClockSet {
        seconds: i64,
    },
    /// The local database's answer to `Output::Query` of that id.
    Answer {
        id: u64,
        result: Result<repl::Rows, repl::ServerError>,
    },
    /// Which build this host, an appliance, runs.
    Image(Build),
    /// `Output::TakeUpdate` of that id came to nothing.
    UpdateFailed {
        id: u64,
        why: String,
    },
    /// How `Output::SaveErrant` ended.
    ErrantSaved(Result<Saved, String>),
    /// How `Output::TakeBack` ended.
    TookBack(Result<(), String>),
    /// How far `Output::CopyDatabase` is, and how it ended.
    CopyGoesOn(String),
    Copied(Result<(), String>),
    DataPlane(DataPlane),
    Control {
        client: u64,
        request: Request,
        glance: Box<Glance>,
    },
    Terminate,
    /// The deadline passed.
    Wake,
}

/// What the data plane has come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DataPlane {
    /// No request is in flight on a virtual address while the web front drains.
    pub is_web_drained: bool,
    /// No statement or transaction is open on the source while writes are held.
    pub is_sql_quiet: bool,
    /// This host's php-fpm does not answer pings.
    pub is_php_down: bool,
    /// The splitter's admin port has saved what it changed: the configuration's digest by now.
    pub saved_digest: Option<[u8; 8]>,
}

/// What the node orders.
#[derive(Debug)]
pub enum Output {
    SendVrrp {
        link: LinkId,
        datagram: Datagram,
    },
    /// An Ethernet frame.
    SendFrame {
        device: DeviceId,
        frame: Vec<u8>,
    },
    SendBeacon {
        link: LinkId,
        datagram: Vec<u8>,
    },
    /// An ICMP message, on the way that the routing table has.
    SendEcho {
        destination: Ipv4Addr,
        message: Vec<u8>,
    },
    Netlink {
        request: Vec<u8>,
    },
    Query {
        id: u64,
        sql: String,
        limit: Duration,
    },
    /// The same on a connection of its own, whose writes are not logged (sql_log_bin=0).
    Probe {
        id: u64,
        sql: &'static str,
        limit: Duration,
    },
    /// End the process of the local database: it could not be closed, and must not write.
    EndDatabase,
    /// Take a build, at the peer's order, and boot it.
    TakeUpdate {
        id: u64,
        place: String,
    },
    /// Save the transactions that are not in `known`, which is what the peer has.
    SaveErrant {
        known: String,
    },
    /// Take back what was saved there.
    TakeBack {
        directory: String,
    },
    /// Replace everything in the local database by a copy of the peer's, which serves.
    CopyDatabase,
    Routes(Routes),
    /// To be on disk, synced, before the next output is performed.
    Persist(Persistent),
    /// What the guard does when this process dies.
    Will(Will),
    Reply {
        client: u64,
        response: Response,
    },
    /// Read the configuration again, and tell this client what came of it.
    Reload {
        client: u64,
    },
    Note(Note),
    Exit,
}

/// What outlives the daemon. Append-only at its end (`wire::read_appended`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Persistent {
    /// Raised at every promotion; a host with an older one is not a source.
    pub epoch: u64,
    /// Whether this host was the last that it knows to have served.
    pub was_source: bool,
    pub orders: Orders,
    /// By host: whether its php-fpm is spared; of two orders the later one counts, as of holds.
    pub php_drain: [Hold; 2],
    /// The epoch of which the peer has everything that was acknowledged; 0: of none.
    pub backed: u64,
    /// Tells two boots of this machine apart.
    pub machine: u64,
}

impl Persistent {
    /// For a daemon that starts on this boot of the machine. One that ran on it already may have
    /// been outlived by its database, and that been stopped in order.
    #[must_use]
    pub const fn on(self, machine: u64) -> Self {
        let backed = if machine == self.machine { 0 } else { self.backed };
        Self { backed, machine, ..self }
    }
}

/// The daemon's last will: addresses to take off, datagrams to send.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Will {
    /// Netlink requests, ready to send.
    pub removals: Vec<Vec<u8>>,
    /// Interface, resignation.
    pub resignations: Vec<(String, Datagram)>,
}
