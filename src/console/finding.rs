//! Findings: what is wrong with the network around a host, each with its evidence and what to do.
//!
//! In: facts of node and survey. Out: a name that stays, and one sentence for a person.
//! Must not: hold passwords. Read first: facts/vrrp.md 3.1 to 3.11; most of these make keepalived
//! hosts fight in silence.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use crate::wire::LinkId;

/// A trouble of one link, or of the whole host where it has none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub link: Option<LinkId>,
    pub trouble: Trouble,
}

impl Finding {
    #[must_use]
    pub const fn of_host(trouble: HostTrouble) -> Self {
        Self { link: None, trouble: Trouble::Host(trouble) }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    NoDevice { device: String },
    NoCarrier { device: String },
    NoOwnAddress { device: String, address: IpAddr },
    LinkSilent { device: String, seconds: u64 },
    VridTaken { vrid: u8, source: IpAddr },
    VipsDiffer { name: String },
    OneWayLink { name: String },
    VrrpFirewalled { name: String, device: String },
    MulticastBlocked { name: String },
    PasswordDiffers { name: String, why: String },
    IntervalDiffers { name: String, why: String },
    VersionDiffers { name: String, why: String },
    PacketsRefused { source: IpAddr, why: String },
    BeaconsRefused { why: String },
    ConfigDiffers { name: String },
    VrrpRejected { name: String },
    TwoMasters { name: String, priority: u8 },
    PeerClaims { name: String, address: IpAddr },
    AddressConflict { address: IpAddr, mac: String },
    OwnAddressConflict { address: Ipv4Addr, mac: String },
    VipsLeftBehind { name: String },
    VipFramesBlocked { gateway: Ipv4Addr },
    GatewaySilent { gateway: Ipv4Addr },
    WitnessSilent { address: Ipv4Addr, how: &'static str },
    PeerUnanswered { name: String, address: Ipv4Addr },
    VipOffNetwork { address: String, network: String },
    Host(HostTrouble),
}

/// What is no network's fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostTrouble {
    VipDeleted { address: String, times: u32 },
    VipRefused { errno: u32 },
    LoopLate { milliseconds: u64 },
    ClockJumped { seconds: i64 },
    Held,
    Maintenance { name: String },
}

impl Trouble {
    /// For programs and for people who search: it stays when the sentence changes.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } => "no-device",
            Self::NoCarrier { .. } => "no-carrier",
            Self::NoOwnAddress { .. } => "no-own-address",
            Self::LinkSilent { .. } => "link-silent",
            Self::VridTaken { .. } => "vrid-taken",
            Self::VipsDiffer { .. } => "vips-differ",
            Self::OneWayLink { .. } => "one-way-link",
            Self::VrrpFirewalled { .. } => "vrrp-firewalled",
            Self::MulticastBlocked { .. } => "multicast-blocked",
            Self::PasswordDiffers { .. } => "password-differs",
            Self::IntervalDiffers { .. } => "interval-differs",
            Self::VersionDiffers { .. } => "version-differs",
            Self::PacketsRefused { .. } => "packets-refused",
            Self::BeaconsRefused { .. } => "beacons-refused",
            Self::ConfigDiffers { .. } => "config-differs",
            Self::VrrpRejected { .. } => "vrrp-rejected",
            Self::TwoMasters { .. } => "two-masters",
            Self::PeerClaims { .. } => "peer-claims-vip",
            Self::AddressConflict { .. } => "address-conflict",
            Self::OwnAddressConflict { .. } => "own-address-conflict",
            Self::VipsLeftBehind { .. } => "vips-left-behind",
            Self::VipFramesBlocked { .. } => "vip-frames-blocked",
            Self::GatewaySilent { .. } => "gateway-silent",
            Self::WitnessSilent { .. } => "witness-silent",
            Self::PeerUnanswered { .. } => "peer-unanswered",
            Self::VipOffNetwork { .. } => "vip-off-network",
            Self::Host(trouble) => trouble.name(),
        }
    }
}

impl Trouble {
    /// What to do about it.
    #[must_use]
    pub const fn advice(&self) -> &'static str {
        match self {
            Self::NoDevice { .. } => "look at `ip link`",
            Self::NoCarrier { .. } => "look at the cable",
            Self::NoOwnAddress { .. } => "configure it",
            Self::LinkSilent { .. } => {
                "the switch port may not forward yet; nothing is taken over meanwhile"
            }
            Self::VridTaken { .. } => "give one of the two another VRID",
            Self::VipsDiffer { .. }
            | Self::PasswordDiffers { .. }
            | Self::IntervalDiffers { .. }
            | Self::VersionDiffers { .. } => "copy one configuration",
            Self::ConfigDiffers { .. } => "copy one to both hosts",
            Self::OneWayLink { .. } => "a one-way link or its firewall",
            Self::VrrpFirewalled { .. } => "allow IP protocol 112",
            Self::MulticastBlocked { .. } => {
                "look at IGMP snooping and filters for 224.0.0.18 in between, or set \
                 vrrp.transport to \"both\""
            }
            Self::PacketsRefused { .. } => "find who sends it",
            Self::BeaconsRefused { .. } => {
                "compare peer.key, host names and versions of both hosts"
            }
            Self::VrrpRejected { .. } => "allow IP protocol 112 there",
            Self::TwoMasters { .. } | Self::PeerClaims { .. } => {
                "one of the two does not hear the other; look at the path between them"
            }
            Self::AddressConflict { .. } => "find that machine and take the address from it",
            Self::OwnAddressConflict { .. } => "give that machine another one",
            Self::VipsLeftBehind { .. } => {
                "its daemon died, or something between the hosts drops VRRP; look at both"
            }
            Self::VipFramesBlocked { .. } => {
                "a hypervisor or switch drops frames from it; allow the address there (allowed \
                 address pairs, forged transmits)"
            }
            Self::GatewaySilent { .. } => "look at the way to it",
            Self::WitnessSilent { .. } => {
                "look at the way to it, or name one that answers in peer.witnesses"
            }
            Self::PeerUnanswered { .. } => "it is off, or the way is cut",
            Self::VipOffNetwork { .. } => "hosts there will not ask for it by ARP",
            Self::Host(trouble) => trouble.advice(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.trouble.name())?;
        if let Some(link) = self.link {
            write!(f, "{link}: ")?;
        }
        write!(f, "{}: {}", self.trouble, self.trouble.advice())
    }
}

/// What is seen, with the evidence.
impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDevice { device } => write!(f, "there is no interface {device}"),
            Self::NoCarrier { device } => write!(f, "{device} has no carrier"),
            Self::NoOwnAddress { device, address } => {
                write!(f, "{device} does not have this host's address {address}")
            }
            Self::LinkSilent { device, seconds } => {
                write!(f, "{device} is up but nothing was received for {seconds} s")
            }
            Self::VridTaken { vrid, source } => {
                write!(f, "{source}, which is not the peer, advertises VRID {vrid}")
            }
            Self::VipsDiffer { name } => write!(f, "{name} advertises other virtual addresses"),
            Self::OneWayLink { name } => write!(f, "{name} is heard here but does not hear us"),
            Self::VrrpFirewalled { name, device } => {
                write!(f, "VRRP from {name} arrives on {device} and the local firewall drops it")
            }
            Self::MulticastBlocked { name } => {
                write!(f, "{name} is alive here, but its multicast does not arrive")
            }
            Self::PasswordDiffers { name, why }
            | Self::IntervalDiffers { name, why }
            | Self::VersionDiffers { name, why } => {
                write!(f, "VRRP from {name} is ignored, {why}")
            }
            Self::PacketsRefused { source, why } => {
                write!(f, "VRRP on our VRID from {source} is ignored, {why}")
            }
            Self::BeaconsRefused { why } => write!(f, "beacons are ignored, {why}"),
            Self::ConfigDiffers { name } => write!(f, "{name} runs another configuration text"),
            Self::VrrpRejected { name } => {
                write!(f, "the firewall of {name} refuses VRRP that is sent to it alone")
            }
            Self::PeerClaims { name, address } => {
                write!(f, "{name} claims {address} too, and its VRRP does not arrive")
            }
            Self::TwoMasters { name, priority } => {
                write!(f, "{name} is Master too, with priority {priority}")
            }
            Self::AddressConflict { address, mac } => {
                write!(f, "{mac}, which is not the peer, answers for {address}")
            }
            Self::OwnAddressConflict { address, mac } => {
                write!(f, "{mac} uses {address}, which is this host's own")
            }
            Self::VipsLeftBehind { name } => {
                write!(f, "{name} is silent but still answers for the virtual addresses")
            }
            Self::VipFramesBlocked { gateway } => {
                write!(f, "{gateway} answers this host's own address and not the virtual one")
            }
            Self::GatewaySilent { gateway } => {
                write!(f, "the gateway {gateway} does not answer ARP")
            }
            Self::WitnessSilent { address, how } => {
                write!(f, "the witness {address} does not answer {how}")
            }
            Self::PeerUnanswered { name, address } => {
                write!(f, "{name} does not answer ARP for {address}")
            }
            Self::VipOffNetwork { address, network } => {
                write!(f, "the virtual address {address} is not within {network}")
            }
            Self::Host(trouble) => trouble.fmt(f),
        }
    }
}

impl HostTrouble {
    const fn name(&self) -> &'static str {
        match self {
            Self::VipDeleted { .. } => "vip-deleted",
            Self::VipRefused { .. } => "vip-refused",
            Self::LoopLate { .. } => "loop-late",
            Self::ClockJumped { .. } => "clock-jumped",
            Self::Held => "held",
            Self::Maintenance { .. } => "maintenance",
        }
    }

    const fn advice(&self) -> &'static str {
        match self {
            Self::VipDeleted { .. } => {
                "look for NetworkManager, systemd-networkd or a script that manages the interface"
            }
            Self::VipRefused { .. } => {
                "look whether IPv6 is disabled on the interface, and what else has the address"
            }
            Self::LoopLate { .. } => {
                "the machine is overloaded, paused or migrated; the peer may take over"
            }
            Self::ClockJumped { .. } => "compare it with the peer's and look at NTP",
            Self::Held => "`tandem hold off` ends it",
            Self::Maintenance { .. } => "`tandem maintenance off` there ends it",
        }
    }
}

impl fmt::Display for HostTrouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VipDeleted { address, times } => {
                write!(f, "somebody else deleted {address}, {times} times; it was put back")
            }
            Self::VipRefused { errno } => {
                write!(f, "the kernel does not take a virtual address, errno {errno}")
            }
            Self::LoopLate { milliseconds } => write!(f, "this daemon ran {milliseconds} ms late"),
            Self::ClockJumped { seconds } => write!(f, "the clock was set by {seconds:+} s"),
            Self::Held => f.write_str("roles stay where they are, whatever happens"),
            Self::Maintenance { name } => write!(f, "{name} takes no role"),
        }
    }
}
