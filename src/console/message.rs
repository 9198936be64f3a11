//! Control messages: requests of operators and what the daemon answers.
//!
//! In, out: postcard in COBS frames, each ended by a zero byte, over `/run/tandem.sock`.
//! Must not: change the place of a variant (append-only; the place is the wire form).

use serde::{Deserialize, Serialize};

use crate::limits::CONTROL_FRAME_BYTES_MAX;
use crate::wire::Role;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    Switchover,
    /// Take over whatever the peer has.
    FailoverForce,
    /// Look again whether this host may follow the other one.
    Rejoin,
    /// Replace this host's database by a copy of the other one's.
    Reseed,
    /// Whether roles are to stay where they are.
    Hold(bool),
    /// Whether this host is to take no role.
    Maintenance(bool),
    /// Read the configuration again.
    Reload,
    /// Whether the php-fpm of the host of this name is spared.
    PhpDrain {
        host: String,
        is_on: bool,
    },
}

impl Request {
    /// Whether it changes anything: root only.
    #[must_use]
    pub const fn is_acting(&self) -> bool {
        match self {
            Self::Status => false,
            Self::Switchover | Self::FailoverForce | Self::Rejoin | Self::Reseed => true,
            Self::Hold(_) | Self::Maintenance(_) | Self::Reload | Self::PhpDrain { .. } => true,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    Status(Box<Status>),
    /// A step of a long request; more follows.
    Progress(String),
    Done(String),
    Refused(String),
}

/// Everything on the status screen, and the shape of `tandem status --json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    pub host: String,
    pub role: Role,
    pub epoch: u64,
    pub role_seconds: u64,
    pub vips: Vec<String>,
    pub peer: PeerStatus,
    pub witnesses: Vec<WitnessStatus>,
    pub links: LinksStatus,
    pub database: DatabaseStatus,
    pub sql: SqlStatus,
    pub web: WebStatus,
    pub notes: Vec<String>,
    pub findings: Vec<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PeerStatus {
    pub name: String,
    /// How its VRRP version 3 advertisements are summed, once one was heard.
    pub vrrp_checksum: Option<String>,
    /// `None` when it was not heard lately.
    pub role: Option<Role>,
    pub epoch: u64,
    pub heard: ByLink,
}

/// An address that tells a host whether it is itself cut off.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct WitnessStatus {
    pub address: String,
    pub answers: bool,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct ByLink {
    pub outside: bool,
    pub inside: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinksStatus {
    pub outside: LinkStatus,
    pub inside: LinkStatus,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinkStatus {
    pub device: String,
    pub carrier: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DatabaseStatus {
    /// "source", "replica", "closed" or "unreachable".
    pub state: String,
    pub version: String,
    pub position: Option<String>,
    pub lag_seconds: Option<u64>,
    /// By whom a write is acknowledged, on the source: "by both hosts", "by this host alone for
    /// 7 s", "by this host alone, as configured", "once server2 is back, for 7 s by now".
    pub durability: Option<String>,
    pub error: Option<String>,
    /// Transactions that keep this host from following.
    pub errant: Option<ErrantStatus>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ErrantStatus {
    pub gtids: String,
    pub transactions: u64,
    /// What the peer has.
    pub known: String,
    /// Where they are saved.
    pub directory: Option<String>,
    /// Why they cannot be taken back, or saved.
    pub obstacle: Option<String>,
}

/// The splitter at a glance; counts since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SqlStatus {
    pub sessions: usize,
    pub held: usize,
    pub queries_to_source: u64,
    pub queries_to_replica: u64,
    pub pooled: usize,
}

/// The web front at a glance; counts since the daemon started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct WebStatus {
    pub connections: usize,
    pub requests: u64,
    pub in_flight: usize,
    pub queued: usize,
    pub php: Vec<PhpStatus>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct PhpStatus {
    pub host: String,
    pub is_up: bool,
    pub reason: String,
    /// Spared by an operator: it gets nothing new.
    pub is_draining: bool,
    /// Requests there from this front.
    pub in_flight: usize,
}

/// One frame: COBS, ended by its zero byte.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    postcard::to_stdvec_cobs(message).expect("messages are plain data")
}

/// A frame, with its zero byte or without, as a message.
pub fn decode<T: for<'de> Deserialize<'de>>(frame: &[u8]) -> Result<T, String> {
    if frame.len() > CONTROL_FRAME_BYTES_MAX {
        return Err(format!("a frame of {} bytes is too long", frame.len()));
    }
    let mut frame = frame.to_vec();
    postcard::from_bytes_cobs(&mut frame)
        .map_err(|_| "a message that is not understood: the daemon and this program differ".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_frame() {
        for request in
            [Request::Status, Request::Switchover, Request::FailoverForce, Request::Rejoin]
        {
            let frame = encode(&request);
            assert_eq!(frame.iter().filter(|byte| **byte == 0).count(), 1, "one zero, at the end");
            assert_eq!(decode::<Request>(&frame), Ok(request));
        }
    }

    #[test]
    fn refuses_what_is_no_request() {
        for wrong in [&b""[..], b"\0", b"\xff\xff\xff\0", b"GET / HTTP/1.1\r\n\0"] {
            assert!(decode::<Request>(wrong).is_err(), "{wrong:?}");
        }
    }
}
