//! VRRP advertisements of version 2 and 3 over IPv4 and of version 3 over IPv6, with the header
//! that they travel in.
//!
//! In: datagrams, IP header first, and what the receiver is configured to. Out: `Received`, or why
//! it is ignored. Must not: judge (whose turn it is, is `router`'s business).
//! Read first: RFC 3768 section 5 and RFC 9568 section 5; facts/vrrp.md 1.1 and 1.3.
//! Differs: authentication type 1 (PASS, RFC 2338 5.3.6) is spoken because keepalived speaks it.
//! RFC 9568 sums version 3 over IPv4 without a pseudo-header; keepalived, FRR and RFC 5798's
//! readers sum with one. That form is sent, and both are accepted.
//!
//! ```text
//!  version 2                                      version 3
//! | 0x21 | VRID | priority | count |             | 0x31 | VRID | priority | count |
//! | auth type | interval s | checksum |          | 0, interval 1/100 s | checksum |
//! |        count x address         |             |        count x address         |
//! |  8 bytes of authentication     |
//! ```

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::wire::{Reader, Short, internet_checksum};

/// 224.0.0.18, where routers listen (RFC 3768, 5.2.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// ff02::12, the same of IPv6 (RFC 9568, 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// IP protocol number (RFC 3768, 5.2.4).
pub const PROTOCOL: u8 = 112;
/// Most addresses that an advertisement carries here; keepalived's own lists are no longer.
pub const ADDRESSES_MAX: usize = 20;

const TYPE_ADVERTISEMENT: u8 = 1;
const AUTH_NONE: u8 = 0;
const AUTH_PASS: u8 = 1;
const IPV4_HEADER_BYTES: u16 = 20;
/// Without extension headers (RFC 8200, 3).
pub const IPV6_HEADER_BYTES: usize = 40;
/// The version 3 interval is 12 bits of centiseconds (RFC 9568, 5.2.7).
const CENTISECONDS_MAX: u16 = 4095;

/// Which protocol a virtual router speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

/// Which addresses a virtual router stands for: one of each family may have the same VRID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

impl Family {
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    #[must_use]
    pub const fn group(self) -> IpAddr {
        match self {
            Self::V4 => IpAddr::V4(GROUP),
            Self::V6 => IpAddr::V6(GROUP_V6),
        }
    }
}

pub type Addresses = heapless::Vec<IpAddr, ADDRESSES_MAX>;

/// One advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    pub version: Version,
    pub vrid: u8,
    /// 0 resigns, 255 owns the address.
    pub priority: u8,
    /// Whole seconds in version 2, whole centiseconds in version 3; what is finer is cut off.
    pub interval: Duration,
    /// Version 2 PASS data, zero padded; `None` is authentication type 0.
    pub password: Option<[u8; 8]>,
    /// All of one family.
    pub addresses: Addresses,
}

/// What a receiver is configured to accept.
#[derive(Debug, Clone)]
pub struct Expected {
    pub version: Version,
    pub vrid: u8,
    pub password: Option<[u8; 8]>,
    pub interval: Duration,
    /// This host's own address on the link, for unicast; `None` while it has none.
    pub own: Option<IpAddr>,
}

/// What a version 3 checksum was summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumForm {
    PseudoHeader,
    /// Version 2, or version 3 over IPv4 to the letter of RFC 9568.
    MessageOnly,
    /// Sent by unicast, summed as if to the group (keepalived up to 1.3.6).
    PseudoHeaderOfGroup,
}

impl fmt::Display for ChecksumForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PseudoHeader => "with pseudo-header",
            Self::MessageOnly => "message only",
            Self::PseudoHeaderOfGroup => "with the group's pseudo-header",
        })
    }
}

/// An advertisement as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub source: IpAddr,
    pub form: ChecksumForm,
    pub advertisement: Advertisement,
}

/// Why a datagram is ignored; it changes no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    Truncated,
    NotVrrp,
    OtherVrid(u8),
    UnknownVersion(u8),
    Length {
        claimed: usize,
        received: usize,
    },
    /// TTL of IPv4, hop limit of IPv6.
    Ttl(u8),
    Version(Version),
    UnknownAuthType(u8),
    /// One side has a password and the other none.
    AuthType,
    Password,
    /// Version 2 only; version 3 learns the master's interval.
    Interval {
        theirs: Duration,
    },
    Type(u8),
    Checksum,
    /// Neither to the group nor to this host.
    Destination(IpAddr),
    Count(u8),
    NoInterval,
}

impl From<Short> for Refusal {
    fn from(_: Short) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("it is truncated"),
            Self::NotVrrp => f.write_str("it is no IP datagram of protocol 112"),
            Self::OtherVrid(vrid) => write!(f, "VRID {vrid} is not ours"),
            Self::UnknownVersion(version) => write!(f, "its version is {version}, not 2 or 3"),
            Self::Length { claimed, received } => {
                write!(f, "it has {received} bytes and {claimed} by its address count")
            }
            Self::Ttl(ttl) => write!(f, "its TTL is {ttl}, not 255: it was routed"),
            Self::Version(theirs) => write!(f, "its version is {theirs}, vrrp.version differs"),
            Self::UnknownAuthType(kind) => {
                write!(f, "its authentication type is {kind}, neither 0 (none) nor 1 (PASS)")
            }
            Self::AuthType => f.write_str("one side has a password and the other none"),
            Self::Password => f.write_str("its password differs from vrrp.password"),
            Self::Interval { theirs } => {
                write!(f, "its interval is {theirs:?}, vrrp.interval differs")
            }
            Self::Type(kind) => write!(f, "its type is {kind}, not 1 (advertisement)"),
            Self::Checksum => f.write_str("its checksum is wrong"),
            Self::Destination(address) => write!(f, "it was sent to {address}"),
            Self::Count(count) => write!(f, "it names {count} addresses: 1 to 20 are taken"),
            Self::NoInterval => f.write_str("its interval is 0"),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V2 => "2",
            Self::V3 => "3",
        })
    }
}

impl Received {
    /// Reads a datagram, IP header included. The checks stand in keepalived's order, so that the
    /// first reason is the one that its operators know (facts/vrrp.md 1.3); whether the list and
    /// the sender are the peer's, is the router's.
    pub fn parse(datagram: &[u8], expected: &Expected) -> Result<Self, Refusal> {
        let ip = Ip::parse(datagram)?;
        let mut reader = Reader::new(ip.payload);
        let [version_and_type, vrid, priority, count] = reader.array()?;
        let [fifth, sixth] = reader.array()?;
        reader.u16()?;
        if vrid != expected.vrid {
            return Err(Refusal::OtherVrid(vrid));
        }
        let (version, trailer) = match version_and_type >> 4 {
            2 => (Version::V2, 8),
            3 => (Version::V3, 0),
            other => return Err(Refusal::UnknownVersion(other)),
        };
        let claimed = 8 + ip.address_bytes() * usize::from(count) + trailer;
        if ip.payload.len() != claimed {
            return Err(Refusal::Length { claimed, received: ip.payload.len() });
        }
        if ip.ttl != 255 && !ip.is_link_local() {
            return Err(Refusal::Ttl(ip.ttl));
        }
        if version != expected.version {
            return Err(Refusal::Version(version));
        }
        let (interval, password) = match version {
            Version::V2 => {
                let (_, data) = ip.payload.split_last_chunk::<8>().ok_or(Refusal::Truncated)?;
                check_password(fifth, data, expected)?;
                let theirs = Duration::from_secs(u64::from(sixth));
                if theirs != expected.interval {
                    return Err(Refusal::Interval { theirs });
                }
                (theirs, (fifth == AUTH_PASS).then_some(*data))
            }
            Version::V3 => {
                let centiseconds = u16::from_be_bytes([fifth & 0xf, sixth]);
                (Duration::from_millis(10) * u32::from(centiseconds), None)
            }
        };
        if version_and_type & 0xf != TYPE_ADVERTISEMENT {
            return Err(Refusal::Type(version_and_type & 0xf));
        }
        let form = ip.checksum_form(version)?;
        let group = Family::of(ip.source).group();
        if ip.destination != group && Some(ip.destination) != expected.own {
            return Err(Refusal::Destination(ip.destination));
        }
        let addresses = read_addresses(&mut reader, ip.source, count)?;
        // Interval 0 would let the master-down timer run out at once (errata 8299, 8301).
        if interval.is_zero() {
            return Err(Refusal::NoInterval);
        }
        let advertisement =
            Advertisement { version, vrid, priority, interval, password, addresses };
        Ok(Self { source: ip.source, form, advertisement })
    }
}

fn check_password(auth_type: u8, data: &[u8; 8], expected: &Expected) -> Result<(), Refusal> {
    match (auth_type, &expected.password) {
        (AUTH_NONE, None) => Ok(()),
        (AUTH_PASS, Some(password)) => {
            // Without a branch on a byte: what differs must not show in the time.
            let difference = data.iter().zip(password).fold(0, |sum, (a, b)| sum | (a ^ b));
            if difference == 0 { Ok(()) } else { Err(Refusal::Password) }
        }
        (AUTH_NONE | AUTH_PASS, _) => Err(Refusal::AuthType),
        (other, _) => Err(Refusal::UnknownAuthType(other)),
    }
}

fn read_addresses(reader: &mut Reader<'_>, like: IpAddr, count: u8) -> Result<Addresses, Refusal> {
    let mut addresses = Addresses::new();
    for _ in 0..count {
        let address = match like {
            IpAddr::V4(_) => reader.ipv4()?.into(),
            IpAddr::V6(_) => reader.ipv6()?.into(),
        };
        addresses.push(address).map_err(|_| Refusal::Count(count))?;
    }
    if addresses.is_empty() { Err(Refusal::Count(0)) } else { Ok(addresses) }
}

/// The octets of an address, 4 or 16.
fn push_address(bytes: &mut Vec<u8>, address: IpAddr) {
    match address {
        IpAddr::V4(address) => bytes.extend(address.octets()),
        IpAddr::V6(address) => bytes.extend(address.octets()),
    }
}

/// The checksum over a message and the pseudo-header before it: source, destination, length,
/// protocol (RFC 793 and RFC 8200 8.1; zeros and the width of the length do not change the sum).
fn pseudo_header_sum(source: IpAddr, destination: IpAddr, message: &[u8]) -> u16 {
    let mut header = Vec::with_capacity(36);
    push_address(&mut header, source);
    push_address(&mut header, destination);
    header.extend([0, PROTOCOL]);
    header.extend(u16::try_from(message.len()).unwrap_or(0).to_be_bytes());
    internet_checksum(&[&header, message])
}

impl Advertisement {
    /// The datagram to `destination`, IP header included, as a raw socket that takes whole headers
    /// sends it. The header checksum of IPv4 is left to the kernel; the identification must not be
    /// 0 (the kernel would choose one).
    #[must_use]
    pub fn emit(&self, source: IpAddr, destination: IpAddr, identification: u16) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).expect("ADDRESSES_MAX fits a byte");
        let (version_and_type, [fifth, sixth], trailer) = match self.version {
            Version::V2 => {
                let auth_type = if self.password.is_some() { AUTH_PASS } else { AUTH_NONE };
                let seconds = u8::try_from(self.interval.as_secs()).unwrap_or(u8::MAX);
                (0x21, [auth_type, seconds], &self.password.unwrap_or_default()[..])
            }
            Version::V3 => {
                let centiseconds = u16::try_from(self.interval.as_millis() / 10)
                    .unwrap_or(CENTISECONDS_MAX)
                    .clamp(1, CENTISECONDS_MAX);
                (0x31, centiseconds.to_be_bytes(), &[][..])
            }
        };
        let mut message = vec![version_and_type, self.vrid, self.priority, count];
        message.extend([fifth, sixth, 0, 0]);
        for address in &self.addresses {
            push_address(&mut message, *address);
        }
        message.extend(trailer);
        let sum = match self.version {
            Version::V2 => internet_checksum(&[&message]),
            Version::V3 => pseudo_header_sum(source, destination, &message),
        };
        let [high, low] = sum.to_be_bytes();
        message[6] = high;
        message[7] = low;
        let mut datagram = header(source, destination, identification, message.len());
        datagram.extend(message);
        datagram
    }
}

/// The IP header before a message of that length: internetwork control, TTL 255.
fn header(source: IpAddr, destination: IpAddr, identification: u16, length: usize) -> Vec<u8> {
    match (source, destination) {
        // RFC 791, 3.1: version 4, 5 words; type of service 0xc0.
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let length = IPV4_HEADER_BYTES + u16::try_from(length).unwrap_or(0);
            let mut header = vec![0x45, 0xc0];
            header.extend(length.to_be_bytes());
            header.extend(identification.to_be_bytes());
            header.extend([0, 0, 255, PROTOCOL, 0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            header
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            ipv6_header(source, destination, 255, length).to_vec()
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("a virtual router has one family")
        }
    }
}

/// The IPv6 header before a message of VRRP (RFC 8200, 3): traffic class 0xc0, no flow label.
#[must_use]
pub fn ipv6_header(
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    length: usize,
) -> [u8; IPV6_HEADER_BYTES] {
    let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
    let mut header = [0; IPV6_HEADER_BYTES];
    header[..8].copy_from_slice(&[0x6c, 0, 0, 0, high, low, PROTOCOL, hop_limit]);
    header[8..24].copy_from_slice(&source.octets());
    header[24..].copy_from_slice(&destination.octets());
    header
}

/// A datagram of protocol 112 with nothing in it: no receiver takes it for an advertisement, and a
/// host without one says so (`net::icmp`).
#[must_use]
pub fn empty(source: Ipv4Addr, destination: Ipv4Addr) -> Vec<u8> {
    header(source.into(), destination.into(), 1, 0)
}

/// PASS data from a configured password: cut or padded with zeros to 8 bytes (RFC 2338, 5.3.6).
#[must_use]
pub fn password_data(password: &str) -> [u8; 8] {
    let mut data = [0; 8];
    for (slot, byte) in data.iter_mut().zip(password.bytes()) {
        *slot = byte;
    }
    data
}

/// Who sent a datagram of protocol 112 and about which virtual router, whatever else is wrong.
#[must_use]
pub fn source_and_vrid(datagram: &[u8]) -> Option<(IpAddr, u8)> {
    let (source, message) = source_and_message(datagram)?;
    Some((source, *message.get(1)?))
}

/// Who sent a datagram of VRRP, and what is in it, whatever else is wrong with it.
#[must_use]
pub fn source_and_message(datagram: &[u8]) -> Option<(IpAddr, &[u8])> {
    let ip = Ip::parse(datagram).ok()?;
    Some((ip.source, ip.payload))
}

/// What of an IP datagram matters here.
struct Ip<'a> {
    source: IpAddr,
    destination: IpAddr,
    ttl: u8,
    payload: &'a [u8],
}

impl<'a> Ip<'a> {
    /// Ethernet padding after the total length is cut.
    fn parse(datagram: &'a [u8]) -> Result<Self, Refusal> {
        match datagram.first().ok_or(Refusal::Truncated)? >> 4 {
            4 => Self::parse_v4(datagram),
            6 => Self::parse_v6(datagram),
            _ => Err(Refusal::NotVrrp),
        }
    }

    fn parse_v4(datagram: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(datagram);
        let version_and_words = reader.u8()?;
        reader.u8()?;
        let total_length = usize::from(reader.u16()?);
        let _identification_and_fragment = reader.u32()?;
        let ttl = reader.u8()?;
        let protocol = reader.u8()?;
        let _checksum = reader.u16()?;
        let (source, destination) = (reader.ipv4()?.into(), reader.ipv4()?.into());
        let header_length = usize::from(version_and_words & 0xf) * 4;
        if header_length < usize::from(IPV4_HEADER_BYTES) || protocol != PROTOCOL {
            return Err(Refusal::NotVrrp);
        }
        let payload = datagram.get(header_length..total_length).ok_or(Refusal::Truncated)?;
        Ok(Self { source, destination, ttl, payload })
    }

    /// Extension headers are not followed: nobody sends VRRP behind one.
    fn parse_v6(datagram: &'a [u8]) -> Result<Self, Refusal> {
        let mut reader = Reader::new(datagram);
        let _version_class_and_flow = reader.u32()?;
        let length = usize::from(reader.u16()?);
        let [next_header, ttl] = reader.array()?;
        let (source, destination) = (reader.ipv6()?.into(), reader.ipv6()?.into());
        if next_header != PROTOCOL {
            return Err(Refusal::NotVrrp);
        }
        Ok(Self { source, destination, ttl, payload: reader.take(length)? })
    }

    const fn address_bytes(&self) -> usize {
        match self.source {
            IpAddr::V4(_) => 4,
            IpAddr::V6(_) => 16,
        }
    }

    /// From one link-local address to another: no router forwards that (RFC 4291, 2.5.6), so that
    /// the hop limit proves nothing more. keepalived leaves the one of unicast to the kernel: 64.
    fn is_link_local(&self) -> bool {
        [self.source, self.destination].into_iter().all(|address| match address {
            IpAddr::V4(_) => false,
            IpAddr::V6(address) => address.is_unicast_link_local(),
        })
    }

    fn checksum_form(&self, version: Version) -> Result<ChecksumForm, Refusal> {
        let group = Family::of(self.source).group();
        let is_summed_to =
            |destination| pseudo_header_sum(self.source, destination, self.payload) == 0;
        if version == Version::V3 && is_summed_to(self.destination) {
            return Ok(ChecksumForm::PseudoHeader);
        }
        if self.source.is_ipv4() && internet_checksum(&[self.payload]) == 0 {
            return Ok(ChecksumForm::MessageOnly);
        }
        if version == Version::V3 && is_summed_to(group) {
            return Ok(ChecksumForm::PseudoHeaderOfGroup);
        }
        Err(Refusal::Checksum)
    }
}

impl fmt::Display for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, vrid, priority, interval, .. } = self;
        write!(f, "VRRPv{version}, Advertisement, vrid {vrid}, prio {priority}, ")?;
        write!(f, "intvl {interval:?}, addrs")?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::vectors::vector;

    /// keepalived 2.2.7, captured (facts/vrrp.md 4.2); bytes 10 and 11 of IPv4 are the header's
    /// checksum.
    const KEEPALIVED: &str = include_str!("../../tests/vectors/vrrp/keepalived-2.2.7.txt");
    const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 3, 101));
    const OWN: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 3, 100));

    fn captured(name: &str) -> Vec<u8> {
        vector(KEEPALIVED, name)
    }

    fn group() -> IpAddr {
        GROUP.into()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn version_2() -> Advertisement {
        Advertisement {
            version: Version::V2,
            vrid: 51,
            priority: 101,
            interval: Duration::from_secs(1),
            password: Some(password_data("3489")),
            addresses: Addresses::from_slice(&[address("192.168.3.150")]).unwrap(),
        }
    }

    fn version_3() -> Advertisement {
        let interval = Duration::from_millis(100);
        Advertisement { version: Version::V3, interval, password: None, ..version_2() }
    }

    fn over_ipv6() -> Advertisement {
        let addresses = [address("fe80::51"), address("2001:db8:3::150")];
        let addresses = Addresses::from_slice(&addresses).unwrap();
        Advertisement { interval: Duration::from_secs(1), addresses, ..version_3() }
    }

    fn expecting(like: &Advertisement) -> Expected {
        Expected {
            version: like.version,
            vrid: like.vrid,
            password: like.password,
            interval: like.interval,
            own: Some(OWN),
        }
    }

    fn parse(datagram: &[u8], like: &Advertisement) -> Result<Received, Refusal> {
        Received::parse(datagram, &expecting(like))
    }

    fn all() -> [(Vec<u8>, Advertisement, IpAddr); 3] {
        [
            (captured("v2-pass-101"), version_2(), SOURCE),
            (captured("v3-101"), version_3(), SOURCE),
            (captured("v3-ipv6-101"), over_ipv6(), address("fe80::ff:fe00:101")),
        ]
    }

    #[test]
    fn parses_keepalived() {
        for (datagram, sent, source) in all() {
            let received = parse(&datagram, &sent).unwrap();
            assert_eq!((received.source, received.advertisement), (source, sent));
        }
        let v3 = parse(&captured("v3-101"), &version_3()).unwrap();
        assert_eq!(v3.form, ChecksumForm::PseudoHeader);
    }

    #[test]
    fn emits_keepalived_byte_for_byte() {
        let outside = address("10.96.153.237");
        for (prefix, vrid, source, vip, like) in [
            ("v2-pass", 51, SOURCE, "192.168.3.150", version_2()),
            ("v2-outside", 50, outside, "10.96.153.239", version_2()),
            ("v3", 51, SOURCE, "192.168.3.150", version_3()),
            ("v3-outside", 50, outside, "10.96.153.239", version_3()),
        ] {
            for priority in [101, 0] {
                let mut captured = captured(&format!("{prefix}-{priority}"));
                captured[10..12].fill(0);
                let addresses = Addresses::from_slice(&[address(vip)]).unwrap();
                let ours = Advertisement { vrid, priority, addresses, ..like.clone() };
                assert_eq!(ours.emit(source, group(), 1), captured, "{prefix} {priority}");
            }
        }
        // keepalived leaves the flow label to the kernel, which chooses one.
        let mut captured = captured("v3-ipv6-101");
        captured[1..4].fill(0);
        let source = address("fe80::ff:fe00:101");
        assert_eq!(over_ipv6().emit(source, GROUP_V6.into(), 1), captured);
    }

    #[test]
    fn accepts_the_checksum_of_rfc_9568_too() {
        let mut message_only = captured("v3-101");
        message_only[26..28].copy_from_slice(&[0xa5, 0x82]);
        let received = parse(&message_only, &version_3()).unwrap();
        assert_eq!(received.form, ChecksumForm::MessageOnly);
        assert_eq!(received.advertisement, version_3());
    }

    #[test]
    fn unicast_is_taken_with_its_own_sum_and_with_the_groups() {
        let own = version_3().emit(SOURCE, OWN, 1);
        assert_eq!(parse(&own, &version_3()).unwrap().form, ChecksumForm::PseudoHeader);
        let mut old = own;
        old[26..28].copy_from_slice(&captured("v3-101")[26..28]);
        assert_eq!(parse(&old, &version_3()).unwrap().form, ChecksumForm::PseudoHeaderOfGroup);
        let astray = version_3().emit(SOURCE, SOURCE, 1);
        assert_eq!(parse(&astray, &version_3()), Err(Refusal::Destination(SOURCE)));
    }

    #[test]
    fn the_hop_limit_counts_unless_both_addresses_are_link_local() {
        let datagram = captured("v3-ipv6-unicast-101");
        let addresses = Addresses::from_slice(&[address("fe80::51")]).unwrap();
        let sent = Advertisement { addresses, ..over_ipv6() };
        let own = |text| Expected { own: Some(address(text)), ..expecting(&sent) };
        let taken = Received::parse(&datagram, &own("fe80::ff:fe00:100")).unwrap();
        assert_eq!((datagram[7], taken.advertisement), (64, sent.clone()));
        let mut routed = sent.emit(address("2001:db8::1"), address("2001:db8::2"), 1);
        assert!(Received::parse(&routed, &own("2001:db8::2")).is_ok());
        routed[7] = 64;
        assert_eq!(Received::parse(&routed, &own("2001:db8::2")), Err(Refusal::Ttl(64)));
    }

    #[test]
    fn round_trips() {
        let open = Advertisement { password: None, ..version_2() };
        let slow = Advertisement { interval: Duration::from_millis(40_950), ..version_3() };
        for advertisement in [version_2(), version_3(), open, slow] {
            let emitted = advertisement.emit(address("10.96.153.110"), group(), 7);
            assert_eq!(parse(&emitted, &advertisement).unwrap().advertisement, advertisement);
        }
    }

    #[test]
    fn refuses_every_truncation() {
        for (datagram, like, _) in all() {
            for length in 0..datagram.len() {
                assert!(parse(&datagram[..length], &like).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn refuses_every_single_bit_flip_of_the_message() {
        for (datagram, like, source) in all() {
            let header = if source.is_ipv4() { 20 } else { 40 };
            for bit in header * 8..datagram.len() * 8 {
                let mut flipped = datagram.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(parse(&flipped, &like).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn tolerates_ethernet_padding_and_ip_options() {
        let mut padded = captured("v2-pass-101");
        padded.extend([0; 6]);
        assert!(parse(&padded, &version_2()).is_ok());
        let mut options = captured("v2-pass-101");
        options[0] = 0x46;
        options[3] += 4;
        options.splice(20..20, [1, 1, 1, 1]);
        assert!(parse(&options, &version_2()).is_ok());
    }

    /// Each datagram has the named defect and every later one: the first is the reason.
    #[test]
    fn the_checks_stand_in_keepaliveds_order() {
        let mut datagram = captured("v2-pass-101");
        let mut expected = vec![(datagram.clone(), None)];
        let mut spoil = |at: usize, byte: u8, refusal: Refusal| {
            datagram[at] = byte;
            expected.push((datagram.clone(), Some(refusal)));
        };
        spoil(27, 0, Refusal::Checksum);
        spoil(20, 0x22, Refusal::Type(2));
        spoil(25, 3, Refusal::Interval { theirs: Duration::from_secs(3) });
        spoil(32, b'x', Refusal::Password);
        spoil(24, 0, Refusal::AuthType);
        spoil(24, 9, Refusal::UnknownAuthType(9));
        spoil(8, 64, Refusal::Ttl(64));
        spoil(23, 2, Refusal::Length { claimed: 24, received: 20 });
        spoil(20, 0x12, Refusal::UnknownVersion(1));
        spoil(21, 9, Refusal::OtherVrid(9));
        for (datagram, refusal) in expected {
            assert_eq!(parse(&datagram, &version_2()).err(), refusal);
        }
        let v3 = parse(&captured("v3-101"), &version_2());
        assert_eq!(v3, Err(Refusal::Version(Version::V3)));
    }

    #[test]
    fn refuses_an_empty_list_a_long_one_and_interval_0() {
        let empty = Advertisement { addresses: Addresses::new(), ..version_2() };
        let emitted = empty.emit(SOURCE, group(), 1);
        assert_eq!(parse(&emitted, &version_2()), Err(Refusal::Count(0)));
        let mut long = vec![0x31, 51, 100, 21, 0, 10, 0, 0];
        long.extend([1; 84]);
        let sum = internet_checksum(&[&long]).to_be_bytes();
        long[6..8].copy_from_slice(&sum);
        let mut datagram = header(SOURCE, group(), 1, long.len());
        datagram.extend(long);
        assert_eq!(parse(&datagram, &version_3()), Err(Refusal::Count(21)));
        let mut still = version_3().emit(SOURCE, group(), 1);
        still[25] = 0;
        still[26..28].fill(0);
        let sum = internet_checksum(&[&still[20..]]).to_be_bytes();
        still[26..28].copy_from_slice(&sum);
        assert_eq!(parse(&still, &version_3()), Err(Refusal::NoInterval));
    }
}
