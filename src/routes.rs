//! Routes: the snapshot through which the control plane steers the data plane.
//!
//! In: written by `node`. Out: read by `sql` and `web`. Must not: hold anything that either side
//! would have to lock or ask for; it is copied whole.

use std::time::Duration;

use crate::wire::HostId;

/// Where queries and requests go at this moment. `version` rises with every change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Routes {
    pub version: u64,
    /// The host whose database takes writes, as far as this host knows.
    pub source: Option<HostId>,
    /// By host: whether its database may serve reads as a replica (threads run, lag in bounds).
    pub is_replica_fit: [bool; 2],
    /// Whether statements for the source flow or wait on the client's open connection.
    pub writes: Flow,
    /// By host: false once the pair knows that the host is gone, so that its php-fpm is skipped.
    pub is_host_alive: [bool; 2],
    /// By host: an operator spares its php-fpm, which ends what it has and gets nothing new.
    pub is_php_draining: [bool; 2],
    /// Whether the web front takes new connections on the virtual addresses.
    pub web: WebIntake,
}

/// What happens to statements for the source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Flowing,
    /// No statement is sent to the source; open transactions get `open_limit` to end, then their
    /// session is closed. Held statements get an error after the splitter's own `hold_limit`.
    Held {
        open_limit: Duration,
    },
}

/// What the web front does with the virtual addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WebIntake {
    Serving,
    /// New connections to a virtual address are left to the peer, which gets it in a moment: their
    /// first packet is dropped so that the client repeats it. Requests in flight are answered.
    Draining,
}

impl Routes {
    /// Nothing is known yet: reads and writes wait, both hosts may run PHP.
    #[must_use]
    pub const fn unknown() -> Self {
        Self {
            version: 0,
            source: None,
            is_replica_fit: [false; 2],
            writes: Flow::Held { open_limit: Duration::ZERO },
            is_host_alive: [true; 2],
            is_php_draining: [false; 2],
            web: WebIntake::Serving,
        }
    }

    /// The host that reads go to: the first fit replica, else the source.
    #[must_use]
    pub fn read_target(&self) -> Option<HostId> {
        HostId::ALL
            .into_iter()
            .find(|&host| self.is_replica_fit[host.index()] && self.source != Some(host))
            .or(self.source)
    }
}
