//! Notes: everything that the daemon says above debug, one variant each.
//!
//! In: facts of node and hands. Out: one clause a person reads, and its level.
//! Must not: carry passwords, query text or user data.
//! `error`: an operator must act; `warn`: degraded; `info`: a role, address or child changed.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::wire::{LinkId, Role};

/// Append-only: the place in the list is the stable id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Note {
    Started {
        host: String,
        epoch: u64,
    },
    RoleChanged {
        from: Role,
        to: Role,
        why: String,
    },
    VipsTaken,
    VipsDropped,
    CarrierLost {
        link: LinkId,
    },
    CarrierFound {
        link: LinkId,
    },
    PeerHeard {
        link: LinkId,
    },
    PeerLost {
        link: LinkId,
    },
    TakeoverHeld {
        why: String,
    },
    Stalled {
        milliseconds: u64,
    },
    Database {
        what: String,
    },
    DatabaseTrouble {
        what: String,
    },
    ReplicationSteps {
        what: String,
    },
    Diverged {
        extra: String,
    },
    Waiting {
        why: String,
    },
    Handover {
        what: String,
    },
    HandoverFailed {
        why: String,
    },
    NodeDied {
        status: String,
    },
    Leaving,
    SocketTrouble {
        what: String,
    },
    Network {
        what: String,
    },
    /// An acknowledged write is on one host alone, or writes wait.
    Durability {
        what: String,
    },
    /// It could not be closed, and must not write.
    DatabaseEnded,
}

impl Note {
    #[must_use]
    pub const fn level(&self) -> log::Level {
        match self {
            Self::Started { .. }
            | Self::RoleChanged { .. }
            | Self::VipsTaken
            | Self::VipsDropped
            | Self::CarrierFound { .. }
            | Self::PeerHeard { .. }
            | Self::Database { .. }
            | Self::ReplicationSteps { .. }
            | Self::Handover { .. }
            | Self::Leaving => log::Level::Info,
            Self::CarrierLost { .. }
            | Self::PeerLost { .. }
            | Self::TakeoverHeld { .. }
            | Self::Stalled { .. }
            | Self::Waiting { .. }
            | Self::HandoverFailed { .. }
            | Self::SocketTrouble { .. }
            | Self::Network { .. }
            | Self::Durability { .. } => log::Level::Warn,
            Self::DatabaseTrouble { .. }
            | Self::Diverged { .. }
            | Self::NodeDied { .. }
            | Self::DatabaseEnded => log::Level::Error,
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started { host, epoch } => write!(f, "started as {host}, epoch {epoch}"),
            Self::RoleChanged { from, to, why } => write!(f, "{from} -> {to}: {why}"),
            Self::VipsTaken => f.write_str("virtual addresses bound and announced"),
            Self::VipsDropped => f.write_str("virtual addresses removed"),
            Self::CarrierLost { link } => write!(f, "{link}: no carrier"),
            Self::CarrierFound { link } => write!(f, "{link}: carrier"),
            Self::PeerHeard { link } => write!(f, "{link}: the peer is heard"),
            Self::PeerLost { link } => write!(f, "{link}: the peer is silent"),
            Self::TakeoverHeld { why } => write!(f, "takeover held: {why}"),
            Self::Stalled { milliseconds } => {
                write!(f, "this daemon did not run for {milliseconds} ms")
            }
            Self::Database { what } => write!(f, "database: {what}"),
            Self::DatabaseTrouble { what } => write!(f, "database: {what}"),
            Self::ReplicationSteps { what } => write!(f, "replication: {what}"),
            Self::Diverged { extra } => write!(
                f,
                "this database has transactions that the peer's lacks ({extra}): it stays fenced"
            ),
            Self::Waiting { why } => write!(f, "waiting: {why}"),
            Self::Handover { what } => write!(f, "handover: {what}"),
            Self::HandoverFailed { why } => write!(f, "handover undone: {why}"),
            Self::NodeDied { status } => {
                write!(f, "the node daemon died ({status}); its addresses were taken off")
            }
            Self::Leaving => f.write_str("leaving"),
            Self::SocketTrouble { what } => write!(f, "socket: {what}"),
            Self::Network { what } => f.write_str(what),
            Self::Durability { what } => write!(f, "database: {what}"),
            Self::DatabaseEnded => f.write_str(
                "database: it cannot be closed, and the peer may serve: ending what is left of it",
            ),
        }
    }
}
