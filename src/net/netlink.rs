//! Netlink messages (rtnetlink): add, refresh and remove addresses; read links and addresses.
//!
//! In: orders, bytes of the kernel. Out: request bytes, `Event`s. Must not: open sockets, panic.
//! Read first: rtnetlink(7), netlink(7); linux/if_addr.h, linux/if_link.h.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::arp::Mac;
use crate::units::IpCidr;

/// What the kernel tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A link as it is: `is_running` is IFF_UP and IFF_RUNNING, that is carrier.
    Link {
        index: u32,
        name: String,
        mac: Mac,
        is_running: bool,
    },
    LinkRemoved {
        index: u32,
    },
    AddressAdded {
        index: u32,
        address: IpCidr,
    },
    AddressRemoved {
        index: u32,
        address: IpCidr,
    },
    /// Answer to a request: 0 or a negative errno.
    Acknowledged {
        sequence: u32,
        error: i32,
    },
    Done,
}

mod kind {
    pub(super) const ERROR: u16 = 2;
    pub(super) const DONE: u16 = 3;
    pub(super) const NEW_LINK: u16 = 16;
    pub(super) const DEL_LINK: u16 = 17;
    pub(super) const GET_LINK: u16 = 18;
    pub(super) const NEW_ADDRESS: u16 = 20;
    pub(super) const DEL_ADDRESS: u16 = 21;
    pub(super) const GET_ADDRESS: u16 = 22;
    pub(super) const NEW_ROUTE: u16 = 24;
}

mod flag {
    pub(super) const REQUEST: u16 = 0x1;
    pub(super) const ACK: u16 = 0x4;
    pub(super) const DUMP: u16 = 0x300;
    pub(super) const REPLACE: u16 = 0x100;
    pub(super) const CREATE: u16 = 0x400;
}

mod attribute {
    pub(super) const IFA_ADDRESS: u16 = 1;
    pub(super) const IFA_LOCAL: u16 = 2;
    pub(super) const IFA_LABEL: u16 = 3;
    pub(super) const IFA_CACHEINFO: u16 = 6;
    pub(super) const IFLA_ADDRESS: u16 = 1;
    pub(super) const IFLA_IFNAME: u16 = 3;
    pub(super) const RTA_OIF: u16 = 4;
    pub(super) const RTA_GATEWAY: u16 = 5;
}

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;
/// No duplicate address detection: it would hold an address back for a second, and whoever has it
/// was asked before (IFA_F_NODAD).
const FLAG_NO_DAD: u8 = 0x02;
/// Not usable: detection failed, or has not ended (IFA_F_DADFAILED, IFA_F_TENTATIVE).
const FLAGS_UNUSABLE: u8 = 0x08 | 0x40;
const IFF_UP_AND_RUNNING: u32 = 0x1 | 0x40;
const IFF_UP: u32 = 0x1;
/// struct rtmsg of a default route: table main, set by an administrator, unicast.
const DEFAULT_ROUTE: [u8; 12] = [AF_INET, 0, 0, 0, 254, 4, 0, 1, 0, 0, 0, 0];
const HEADER_BYTES: usize = 16;

/// RTMGRP_LINK, RTMGRP_IPV4_IFADDR and RTMGRP_IPV6_IFADDR: the multicast groups to bind to.
pub const GROUPS: u32 = 0x1 | 0x10 | 0x100;

/// Asks for every link.
#[must_use]
pub fn dump_links(sequence: u32) -> Vec<u8> {
    request(kind::GET_LINK, flag::DUMP, sequence, &[0; 16])
}

/// Asks for every address of both families.
#[must_use]
pub fn dump_addresses(sequence: u32) -> Vec<u8> {
    request(kind::GET_ADDRESS, flag::DUMP, sequence, &[AF_UNSPEC, 0, 0, 0, 0, 0, 0, 0])
}

/// Adds an address, or sets the lifetime of the one that is there. The kernel takes it off by
/// itself when `lifetime` (whole seconds) passes without a refresh; `None` is for ever. The
/// preferred lifetime equals the valid one, so that it is never deprecated while it lives; but an
/// IPv6 address on no network of its own (/128) must not become the source of connections.
#[must_use]
pub fn set_address(
    sequence: u32,
    index: u32,
    address: IpCidr,
    label: Option<&str>,
    lifetime: Option<Duration>,
) -> Vec<u8> {
    let mut body = address_body(index, address);
    if let Some(label) = label {
        let mut text = label.as_bytes().to_vec();
        text.push(0);
        push_attribute(&mut body, attribute::IFA_LABEL, &text);
    }
    let valid = lifetime
        .map_or(u32::MAX, |lifetime| u32::try_from(lifetime.as_secs()).unwrap_or(u32::MAX))
        .to_ne_bytes();
    let is_single = address.address.is_ipv6() && address.prefix == 128;
    let preferred = if is_single { [0; 4] } else { valid };
    let mut cache_info = [0; 16];
    cache_info[..4].copy_from_slice(&preferred);
    cache_info[4..8].copy_from_slice(&valid);
    push_attribute(&mut body, attribute::IFA_CACHEINFO, &cache_info);
    request(kind::NEW_ADDRESS, flag::ACK | flag::CREATE | flag::REPLACE, sequence, &body)
}

/// Removes an address.
#[must_use]
pub fn remove_address(sequence: u32, index: u32, address: IpCidr) -> Vec<u8> {
    request(kind::DEL_ADDRESS, flag::ACK, sequence, &address_body(index, address))
}

/// Takes a link up.
#[must_use]
pub fn set_up(sequence: u32, index: u32) -> Vec<u8> {
    request(kind::NEW_LINK, flag::ACK, sequence, &link_body(index, IFF_UP))
}

/// Gives a link that is down another name.
#[must_use]
pub fn rename(sequence: u32, index: u32, name: &str) -> Vec<u8> {
    let mut body = link_body(index, 0);
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    push_attribute(&mut body, attribute::IFLA_IFNAME, &text);
    request(kind::NEW_LINK, flag::ACK, sequence, &body)
}

/// Sends what is for no network of ours to a router on that link.
#[must_use]
pub fn add_default_route(sequence: u32, index: u32, gateway: Ipv4Addr) -> Vec<u8> {
    let mut body = DEFAULT_ROUTE.to_vec();
    push_attribute(&mut body, attribute::RTA_GATEWAY, &gateway.octets());
    push_attribute(&mut body, attribute::RTA_OIF, &index.to_ne_bytes());
    request(kind::NEW_ROUTE, flag::ACK | flag::CREATE | flag::REPLACE, sequence, &body)
}

/// struct ifinfomsg; `flags` are those that are set, nothing else changes.
fn link_body(index: u32, flags: u32) -> Vec<u8> {
    let mut body = vec![AF_UNSPEC, 0, 0, 0];
    body.extend(index.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body.extend(flags.to_ne_bytes());
    body
}

/// struct ifaddrmsg, IFA_LOCAL and IFA_ADDRESS.
fn address_body(index: u32, address: IpCidr) -> Vec<u8> {
    let head = |family, flags| vec![family, address.prefix, flags, 0];
    let (mut body, octets) = match address.address {
        IpAddr::V4(v4) => (head(AF_INET, 0), v4.octets().to_vec()),
        IpAddr::V6(v6) => (head(AF_INET6, FLAG_NO_DAD), v6.octets().to_vec()),
    };
    body.extend(index.to_ne_bytes());
    push_attribute(&mut body, attribute::IFA_LOCAL, &octets);
    push_attribute(&mut body, attribute::IFA_ADDRESS, &octets);
    body
}

fn push_attribute(body: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(value.len() + 4).expect("our attributes are a few bytes");
    body.extend(length.to_ne_bytes());
    body.extend(kind.to_ne_bytes());
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

fn request(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER_BYTES + body.len()).expect("our requests are short");
    let mut message = Vec::with_capacity(HEADER_BYTES + body.len());
    message.extend(length.to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend((flags | flag::REQUEST).to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]);
    message.extend(body);
    message
}

/// Reads every message of one datagram of the kernel; what is unknown or short is skipped.
#[must_use]
pub fn parse(mut datagram: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let length = usize::try_from(u32_at(header, 0).unwrap_or(0)).unwrap_or(0);
        let Some(body) = datagram.get(HEADER_BYTES..length) else { break };
        let kind = u16_at(header, 4).unwrap_or(0);
        let sequence = u32_at(header, 8).unwrap_or(0);
        events.extend(parse_message(kind, sequence, body));
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or(&[]);
    }
    events
}

fn parse_message(kind: u16, sequence: u32, body: &[u8]) -> Option<Event> {
    match kind {
        kind::ERROR => {
            let error = i32::from_ne_bytes(*body.first_chunk()?);
            Some(Event::Acknowledged { sequence, error })
        }
        kind::DONE => Some(Event::Done),
        kind::NEW_LINK => parse_link(body),
        kind::DEL_LINK => Some(Event::LinkRemoved { index: u32_at(body, 4)? }),
        kind::NEW_ADDRESS => {
            let (index, address) = parse_address(body)?;
            Some(Event::AddressAdded { index, address })
        }
        kind::DEL_ADDRESS => {
            let (index, address) = parse_address(body)?;
            Some(Event::AddressRemoved { index, address })
        }
        _ => None,
    }
}

/// struct ifinfomsg: family, pad, type, index, flags, change; then attributes.
fn parse_link(body: &[u8]) -> Option<Event> {
    let index = u32_at(body, 4)?;
    let flags = u32_at(body, 8)?;
    let (mut name, mut mac) = (None, Mac::default());
    for (kind, value) in attributes(body.get(16..)?) {
        match kind {
            attribute::IFLA_IFNAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            attribute::IFLA_ADDRESS => {
                mac = value.first_chunk().map_or(mac, |bytes| Mac(*bytes));
            }
            _ => {}
        }
    }
    let is_running = flags & IFF_UP_AND_RUNNING == IFF_UP_AND_RUNNING;
    Some(Event::Link { index, name: name?, mac, is_running })
}

/// struct ifaddrmsg: family, prefix length, flags, scope, index; then attributes. An address that
/// cannot be used yet comes again when it can.
fn parse_address(body: &[u8]) -> Option<(u32, IpCidr)> {
    let [family, prefix, flags, _] = *body.first_chunk()?;
    let index = u32_at(body, 4)?;
    let value = |kind| {
        attributes(body.get(8..).unwrap_or(&[])).find(|it| it.0 == kind).map(|(_, value)| value)
    };
    // IPv6 names its address as IFA_ADDRESS alone, unless it has a peer.
    let local = value(attribute::IFA_LOCAL);
    let (address, longest) = match family {
        AF_INET => (IpAddr::from(Ipv4Addr::from(*local?.first_chunk::<4>()?)), 32),
        AF_INET6 if flags & FLAGS_UNUSABLE == 0 => {
            let octets = local.or_else(|| value(attribute::IFA_ADDRESS))?;
            (IpAddr::from(Ipv6Addr::from(*octets.first_chunk::<16>()?)), 128)
        }
        _ => return None,
    };
    (prefix <= longest).then_some((index, IpCidr { address, prefix }))
}

fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16_at(bytes, 0)?);
        let kind = u16_at(bytes, 2)?;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u16::from_ne_bytes(*chunk))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|chunk| u32::from_ne_bytes(*chunk))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vip() -> IpCidr {
        "192.168.3.150/24".parse().unwrap()
    }

    #[test]
    fn a_set_address_request_reads_back_as_the_address() {
        let message = set_address(9, 7, vip(), None, Some(Duration::from_secs(2)));
        assert_eq!(parse(&message), [Event::AddressAdded { index: 7, address: vip() }]);
        assert_eq!(message.len(), 16 + 8 + 8 + 8 + 20);
        assert_eq!(u16_at(&message, 6), Some(0x505), "REQUEST, ACK, REPLACE, CREATE");
        let removal = remove_address(10, 7, vip());
        assert_eq!(parse(&removal), [Event::AddressRemoved { index: 7, address: vip() }]);
    }

    #[test]
    fn ipv6_addresses_read_back_and_only_a_lone_one_is_deprecated() {
        for (text, preferred) in [("2001:db8:3::150/64", 2u32), ("2001:db8:3::150/128", 0)] {
            let address: IpCidr = text.parse().unwrap();
            let message = set_address(9, 7, address, None, Some(Duration::from_secs(2)));
            assert_eq!(parse(&message), [Event::AddressAdded { index: 7, address }]);
            assert_eq!(message.len(), 16 + 8 + 20 + 20 + 20);
            assert_eq!(u32_at(&message, message.len() - 16), Some(preferred));
        }
        let mut tentative = set_address(9, 7, "fe80::1/64".parse().unwrap(), None, None);
        tentative[16 + 2] = 0x40;
        assert_eq!(parse(&tentative), []);
    }

    #[test]
    fn requests_of_links_and_routes_are_those_of_iproute2() {
        let up = set_up(1, 3);
        assert_eq!((up.len(), u16_at(&up, 4), u32_at(&up, 24)), (32, Some(16), Some(1)));
        let renamed = rename(1, 3, "eth1");
        assert_eq!(u32_at(&renamed, 28), Some(0), "no flag changes");
        assert_eq!(&renamed[32..], b"\x09\0\x03\0eth1\0\0\0\0");
        let route = add_default_route(1, 3, Ipv4Addr::new(10, 96, 153, 1));
        assert_eq!(&route[28..36], [8, 0, 5, 0, 10, 96, 153, 1]);
        assert_eq!((route.len(), u32_at(&route, 40)), (44, Some(3)));
    }

    #[test]
    fn parses_several_messages_and_skips_unknown_ones() {
        let mut datagram = request(999, 0, 1, &[1, 2, 3, 4]);
        datagram.extend(request(kind::ERROR, 0, 5, &(-17i32).to_ne_bytes()));
        datagram.extend(request(kind::DONE, 0, 5, &[0; 4]));
        let expected = [Event::Acknowledged { sequence: 5, error: -17 }, Event::Done];
        assert_eq!(parse(&datagram), expected);
    }

    #[test]
    fn a_link_needs_up_and_running() {
        let link = |flags: u32| {
            let mut body = vec![0, 0, 1, 0];
            body.extend(3u32.to_ne_bytes());
            body.extend(flags.to_ne_bytes());
            body.extend([0; 4]);
            push_attribute(&mut body, attribute::IFLA_IFNAME, b"eth0\0");
            push_attribute(&mut body, attribute::IFLA_ADDRESS, &[2, 0, 0, 0, 1, 1]);
            parse(&request(kind::NEW_LINK, 0, 0, &body))
        };
        let expected = |is_running| {
            [Event::Link {
                index: 3,
                name: "eth0".into(),
                mac: Mac([2, 0, 0, 0, 1, 1]),
                is_running,
            }]
        };
        assert_eq!(link(0x1), expected(false), "up, but no carrier");
        assert_eq!(link(0x41), expected(true));
    }

    #[test]
    fn survives_truncation_and_every_bit_flip() {
        let message = set_address(9, 7, vip(), Some("eth1:1"), None);
        for length in 0..message.len() {
            let _any = parse(&message[..length]);
        }
        for bit in 0..message.len() * 8 {
            let mut flipped = message.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let _any = parse(&flipped);
        }
    }
}
