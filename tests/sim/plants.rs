//! Planted bugs: what a broken daemon or guard would do, for the simulator's own test.
//!
//! In: an output of the node. Out: the same, bent, or none. Must not: need a hook in src/.
//! Each one must be found by the sweep (`main::planted_bugs_are_found`).

use std::time::Duration;

use tandem::net::arp::Arp;
use tandem::net::netlink;
use tandem::node::Output;
use tandem::routes::Flow;
use tandem::wire::HostId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    None,
    /// The epoch is never written to disk.
    ForgetsEpoch,
    /// Addresses are never taken off by the daemon, and have no lease.
    KeepsAddresses,
    /// Addresses have no lease in the kernel.
    NoLease,
    /// Reads its relay log as applied: opens before it is drained.
    OpensUndrained,
    /// The guard does nothing for a dead daemon, and addresses have no lease.
    NoWill,
    /// Writes flow all the time, to the own database.
    NeverHolds,
    /// What is for the other host's database is held on the way there.
    HoldsForThePeer,
    /// Fencing is said, not done.
    FencesInWords,
    /// No gratuitous ARP.
    Silent,
    /// Resignations (priority 0) are sent every time an advertisement is due.
    ResignsAlways,
    /// Beacons do not leave on either link.
    NoBeacons,
    /// Closing for a handover is said, not done.
    ClosesInWords,
    /// A closed database shows none of its own transactions: its data seem to be the peer's.
    HidesErrant,
    /// ARP probes do not leave: nobody is asked before a takeover.
    NeverAsks,
    /// The source's half of semi-synchronous replication is said to be on, and waits for nobody.
    SourceHalfInWords,
    /// The source's half is never turned off.
    SourceHalfStays,
    /// The replica's half is said to be on, and acknowledges nothing.
    AcknowledgesInWords,
    /// The source takes for acknowledged whatever a connected replica is to be sent.
    AcknowledgesUnreceived,
}

impl Plant {
    pub const ALL: [Self; 18] = [
        Self::ForgetsEpoch,
        Self::KeepsAddresses,
        Self::NoLease,
        Self::OpensUndrained,
        Self::NoWill,
        Self::NeverHolds,
        Self::HoldsForThePeer,
        Self::FencesInWords,
        Self::Silent,
        Self::ResignsAlways,
        Self::NoBeacons,
        Self::ClosesInWords,
        Self::HidesErrant,
        Self::NeverAsks,
        Self::SourceHalfInWords,
        Self::SourceHalfStays,
        Self::AcknowledgesInWords,
        Self::AcknowledgesUnreceived,
    ];

    pub fn has_no_lease(self) -> bool {
        matches!(self, Self::KeepsAddresses | Self::NoLease | Self::NoWill)
    }

    pub fn has_no_will(self) -> bool {
        self == Self::NoWill
    }

    /// A fence asks with a lock wait of 1 s, a planned closing with the configured 3 s.
    pub fn closes_in_words(self, lock_wait_seconds: u64) -> bool {
        match self {
            Self::FencesInWords => lock_wait_seconds == 1,
            Self::ClosesInWords => lock_wait_seconds == 3,
            _ => false,
        }
    }

    /// What becomes of an output on its way to the hands.
    pub fn bend(self, host: HostId, output: Output) -> Option<Output> {
        match (self, output) {
            (Self::ForgetsEpoch, Output::Persist(_))
            | (Self::Silent, Output::SendFrame { .. })
            | (Self::NoBeacons, Output::SendBeacon { .. }) => None,
            (Self::NeverAsks, Output::SendFrame { device, frame }) => {
                let is_probe = Arp::parse(&frame).is_some_and(|arp| arp.sender.is_unspecified());
                (!is_probe).then_some(Output::SendFrame { device, frame })
            }
            (Self::KeepsAddresses, Output::Netlink { request }) => {
                let is_removal = matches!(
                    netlink::parse(&request).first(),
                    Some(netlink::Event::AddressRemoved { .. })
                );
                (!is_removal).then_some(Output::Netlink { request })
            }
            (Self::SourceHalfStays, Output::Query { id, sql, limit }) => {
                let sql = sql.replace("_master_enabled=OFF", "_master_enabled=ON");
                Some(Output::Query { id, sql, limit })
            }
            (Self::NeverHolds, Output::Routes(mut routes)) => {
                routes.writes = Flow::Flowing;
                routes.source.get_or_insert(host);
                Some(Output::Routes(routes))
            }
            (Self::HoldsForThePeer, Output::Routes(mut routes)) => {
                if routes.source == Some(host.other()) {
                    routes.writes = Flow::Held { open_limit: Duration::from_secs(1) };
                }
                Some(Output::Routes(routes))
            }
            (Self::ResignsAlways, Output::SendVrrp { link, mut datagram }) => {
                // Byte 22 is the priority; the checksum is made good for what it lost.
                let lost = u16::from(datagram.bytes[22]) << 8;
                let sum = u16::from_be_bytes([datagram.bytes[26], datagram.bytes[27]]);
                let (sum, carry) = sum.overflowing_add(lost);
                let [high, low] = (sum + u16::from(carry)).to_be_bytes();
                datagram.bytes[22] = 0;
                datagram.bytes[26..28].copy_from_slice(&[high, low]);
                Some(Output::SendVrrp { link, datagram })
            }
            (_, output) => Some(output),
        }
    }
}
