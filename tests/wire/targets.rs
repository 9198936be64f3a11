//! Targets: laws that any bytes must leave true, one function for each decoder and machine.
//!
//! In: any bytes; most targets let the first one choose a receiver. Out: a panic where a law is
//! broken. Must not: read a clock or draw a number: the input is all there is, so that an input
//! found by libFuzzer (tests/fuzz) fails in the ordinary tests too, and the other way round.
//! Read first: `vrrp_laws`; style section 3, 27.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Range;
use std::time::Duration;

use tandem::net::arp::{self, Arp, Mac};
use tandem::net::icmp::{Reason, Unreachable};
use tandem::net::nd::{self, Neighbour};
use tandem::net::netlink::{self, Event};
use tandem::units::IpCidr;
use tandem::vrrp::packet::{
    self, ADDRESSES_MAX, ChecksumForm, Expected, Family, PROTOCOL, Received, Refusal, Version,
    password_data,
};
use tandem::wire::{Reader, internet_checksum};

#[path = "console.rs"]
pub mod console;
#[path = "machines.rs"]
mod machines;
#[path = "port.rs"]
mod port;
#[path = "sql.rs"]
mod sql;
pub use console::{control, keys};
pub use machines::{beacon, beacon_body, link_message, node, router, serving};
#[path = "web.rs"]
mod web;
#[path = "web_content.rs"]
mod web_content;
pub use port::port;
pub use sql::{sql_admin, sql_login, sql_packets, sql_statement};
pub use web::{web_chunked, web_fastcgi, web_request};
pub use web_content::{web_answer, web_path, web_range};

pub type Target = fn(&[u8]);

/// Every target by its name, as in tests/fuzz/fuzz_targets.
pub const ALL: [(&str, Target); 22] = [
    ("vrrp", vrrp),
    ("control", control),
    ("keys", keys),
    ("router", router),
    ("arp", arp),
    ("nd", nd),
    ("icmp", icmp),
    ("netlink", netlink),
    ("beacon", beacon),
    ("node", node),
    ("serving", serving),
    ("sql_packets", sql_packets),
    ("sql_login", sql_login),
    ("sql_statement", sql_statement),
    ("sql_admin", sql_admin),
    ("port", port),
    ("web_request", web_request),
    ("web_chunked", web_chunked),
    ("web_fastcgi", web_fastcgi),
    ("web_answer", web_answer),
    ("web_path", web_path),
    ("web_range", web_range),
];

/// Bits of the first byte: the receiver is set up like the sender; the checksum is set right, so
/// that what lies behind it is reached. The lowest bits choose a receiver.
pub const LIKE_SENDER: u8 = 0x40;
pub const MEND: u8 = 0x80;

/// Where the checksum stands in a message of VRRP and of ICMPv6.
const VRRP_CHECKSUM: usize = 6;
const ICMPV6_CHECKSUM: usize = 2;
const ICMPV6: u8 = 58;
const ETHERNET_BYTES: usize = 14;

/// Cuts an input into the numbers and pieces that a target asks for: zeros at its end.
pub struct Cut<'a>(Reader<'a>);

impl<'a> Cut<'a> {
    pub fn new(input: &'a [u8]) -> Self {
        Self(Reader::new(input))
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        self.0.u8().unwrap_or(0)
    }

    pub fn number<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.byte())
    }

    /// As many bytes as the next one says, or the rest.
    pub fn piece(&mut self) -> &'a [u8] {
        let count = usize::from(self.byte()).min(self.0.rest().len());
        self.0.take(count).unwrap_or_default()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0.rest()
    }
}

// ---- VRRP ----------------------------------------------------------------------------------

/// A datagram for one of `receivers`, or for one that is configured as the sender must be.
pub fn vrrp(input: &[u8]) {
    let Some((&control, datagram)) = input.split_first() else { return };
    let mut datagram = datagram.to_vec();
    if control & MEND != 0 {
        mend(&mut datagram, PROTOCOL, VRRP_CHECKSUM);
    }
    let like_sender = receiver_of(&datagram).filter(|_| control & LIKE_SENDER != 0);
    let expected = like_sender.unwrap_or_else(|| receiver(control));
    let _any = vrrp_laws(&datagram, &expected);
}

/// Reads a datagram of VRRP and checks whatever must hold then.
pub fn vrrp_laws(datagram: &[u8], expected: &Expected) -> Result<Received, Refusal> {
    let parsed = Received::parse(datagram, expected);
    let named = packet::source_and_vrid(datagram);
    match &parsed {
        Ok(received) => {
            assert_eq!(named, Some((received.source, expected.vrid)));
            accepted_laws(datagram, expected, received);
        }
        Err(Refusal::Truncated | Refusal::NotVrrp) => {}
        Err(Refusal::OtherVrid(vrid)) => {
            assert_eq!(named.map(|(_, vrid)| vrid), Some(*vrid));
            assert_ne!(*vrid, expected.vrid);
        }
        Err(refusal) => {
            assert_eq!(named.map(|(_, vrid)| vrid), Some(expected.vrid), "{refusal}");
        }
    }
    let text = match &parsed {
        Ok(received) => received.advertisement.to_string(),
        Err(refusal) => refusal.to_string(),
    };
    assert!(!text.is_empty() && !text.contains(char::is_control));
    parsed
}

fn accepted_laws(datagram: &[u8], expected: &Expected, received: &Received) {
    let Received { source, form, advertisement } = received;
    assert_eq!(advertisement.version, expected.version);
    assert_eq!(advertisement.vrid, expected.vrid);
    assert_eq!(advertisement.password, expected.password);
    assert!(!advertisement.interval.is_zero());
    if expected.version == Version::V2 {
        assert_eq!(advertisement.interval, expected.interval);
        assert!(source.is_ipv4() && *form == ChecksumForm::MessageOnly);
    }
    assert!((1..=ADDRESSES_MAX).contains(&advertisement.addresses.len()));
    let family = Family::of(*source);
    assert!(advertisement.addresses.iter().all(|it| Family::of(*it) == family));

    let (_, message) = layout(datagram).expect("it was read");
    let address_bytes = if source.is_ipv4() { 4 } else { 16 };
    let trailer = if expected.version == Version::V2 { 8 } else { 0 };
    assert_eq!(message.len(), 8 + advertisement.addresses.len() * address_bytes + trailer);

    // What is sent again means the same.
    let emitted = advertisement.emit(*source, family.group(), 7);
    let again = Received::parse(&emitted, expected).expect("what was emitted is taken");
    assert_eq!((&again.source, &again.advertisement), (source, advertisement));

    // Neither what follows the datagram counts nor may anything of it be missing.
    assert_eq!(Received::parse(&datagram[..message.end], expected).as_ref(), Ok(received));
    assert!(Received::parse(&datagram[..message.end - 1], expected).is_err());
    let padded = [&datagram[..message.end], &[0xa5; 6]].concat();
    assert_eq!(Received::parse(&padded, expected).as_ref(), Ok(received));

    // A bit that turned over is noticed where only one form of the checksum is taken.
    let is_to_group = source.is_ipv6() && datagram[24..40] == packet::GROUP_V6.octets();
    if expected.version == Version::V2 || is_to_group {
        let mut flipped = datagram.to_vec();
        flip_one(&mut flipped, message);
        assert!(Received::parse(&flipped, expected).is_err());
    }
}

/// Turns over one bit of the part: which one hangs on the input alone.
fn flip_one(bytes: &mut [u8], part: Range<usize>) {
    let bit = usize::from(internet_checksum(&[bytes])) % (part.len() * 8);
    bytes[part.start + bit / 8] ^= 1 << (bit % 8);
}

/// Receivers of the captured advertisements, and such as differ from them in one thing.
pub fn receiver(choice: u8) -> Expected {
    let v4 = |octets: [u8; 4]| Some(IpAddr::from(octets));
    let v6 = |last| Some(IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, last)));
    let inside = v4([192, 168, 3, 100]);
    let (version, vrid, password, milliseconds, own) = match choice & 7 {
        0 => (Version::V2, 51, Some("3489"), 1000, inside),
        1 => (Version::V2, 50, Some("3489"), 1000, v4([10, 96, 153, 110])),
        2 => (Version::V2, 51, None, 1000, inside),
        3 => (Version::V3, 51, None, 100, inside),
        4 => (Version::V3, 50, None, 100, None),
        5 => (Version::V3, 51, None, 1000, v6(0x100)),
        6 => (Version::V3, 51, None, 40_950, None),
        _ => (Version::V2, 51, Some("eight ch"), 255_000, inside),
    };
    Expected {
        version,
        vrid,
        password: password.map(password_data),
        interval: Duration::from_millis(milliseconds),
        own,
    }
}

/// What a receiver must be configured to, to take this datagram.
pub fn receiver_of(datagram: &[u8]) -> Option<Expected> {
    let (addresses, message) = layout(datagram)?;
    let message = &datagram[message];
    let [version_and_type, vrid, _, count, fifth, sixth] = *message.first_chunk()?;
    let own = match datagram[addresses].len() {
        8 => IpAddr::from(*datagram[..20].last_chunk::<4>()?),
        _ => IpAddr::from(*datagram[..40].last_chunk::<16>()?),
    };
    let is_v2 = version_and_type >> 4 == 2;
    let data = message.get(8 + 4 * usize::from(count)..).and_then(|it| it.first_chunk());
    Some(Expected {
        version: if is_v2 { Version::V2 } else { Version::V3 },
        vrid,
        password: data.copied().filter(|_| is_v2 && fifth == 1),
        interval: Duration::from_secs(u64::from(sixth)),
        own: Some(own),
    })
}

/// Where an IP datagram has its two addresses and its message.
fn layout(datagram: &[u8]) -> Option<(Range<usize>, Range<usize>)> {
    let word = |at: usize| {
        datagram.get(at..)?.first_chunk().map(|it| usize::from(u16::from_be_bytes(*it)))
    };
    let first = datagram.first()?;
    let (addresses, message) = match first >> 4 {
        4 => (12..20, usize::from(first & 0xf) * 4..word(2)?),
        6 => (8..40, 40..40 + word(4)?),
        _ => return None,
    };
    let is_whole = addresses.end <= message.start && datagram.get(message.clone()).is_some();
    is_whole.then_some((addresses, message))
}

/// Sets the checksum of an IP datagram's message right.
pub fn mend(datagram: &mut [u8], protocol: u8, place: usize) {
    let Some((addresses, message)) = layout(datagram) else { return };
    if message.len() < place + 2 {
        return;
    }
    let at = message.start + place;
    datagram[at..at + 2].fill(0);
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let pseudo_header = [&datagram[addresses], &[0, protocol], &length].concat();
    // Version 2 of VRRP sums the message alone.
    let is_alone = protocol == PROTOCOL && datagram[message.start] >> 4 == 2;
    let header: &[u8] = if is_alone { &[] } else { &pseudo_header };
    let sum = internet_checksum(&[header, &datagram[message]]);
    datagram[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

// ---- neighbours ----------------------------------------------------------------------------

pub fn arp(frame: &[u8]) {
    let Some(parsed) = Arp::parse(frame) else { return };
    let emitted = parsed.emit();
    assert_eq!(Arp::parse(&emitted), Some(parsed));
    assert_eq!(Arp::parse(&parsed.emit_to(Mac([2; 6]))), Some(parsed));
    // Ethernet's own source address is not ARP's, its destination is nobody's business.
    assert_eq!(emitted[12..], frame[12..arp::FRAME_BYTES]);
    assert_eq!(Arp::parse(&frame[..arp::FRAME_BYTES]), Some(parsed));
    assert_eq!(Arp::parse(&frame[..arp::FRAME_BYTES - 1]), None);
    let sender = Ipv4Addr::from([frame[28], frame[29], frame[30], frame[31]]);
    assert!(parsed.claims(sender));
    let other = Ipv4Addr::from_bits(sender.to_bits() ^ 1 << (frame[41] % 32));
    assert!(!parsed.claims(other));
    assert!(parsed.to_string().starts_with("ARP, "));
}

/// Only "unreachable" about protocol 112, and what it says stands where RFC 792 has it.
pub fn icmp(datagram: &[u8]) {
    let Some(said) = Unreachable::parse(datagram) else { return };
    let words = |at: usize| usize::from(datagram[at] & 0xf) * 4;
    let error = words(0);
    let inner = error + 8;
    assert_eq!((datagram[9], datagram[error], datagram[inner + 9]), (1, 3, PROTOCOL));
    let expected =
        if datagram[error + 1] == 2 { Reason::NobodyListens } else { Reason::Prohibited };
    assert_eq!(said.reason, expected);
    assert_eq!(said.source.octets(), datagram[12..16]);
    assert_eq!(said.destination.octets(), datagram[inner + 16..inner + 20]);
    assert_eq!(Unreachable::parse(&datagram[..inner + words(inner) - 1]), None);
}

/// The first byte may ask for a right checksum.
pub fn nd(input: &[u8]) {
    let Some((&control, frame)) = input.split_first() else { return };
    let mut frame = frame.to_vec();
    if control & MEND != 0 && frame.len() > ETHERNET_BYTES {
        mend(&mut frame[ETHERNET_BYTES..], ICMPV6, ICMPV6_CHECKSUM);
    }
    let _any = nd_laws(&frame);
}

/// Reads a frame of neighbour discovery and checks whatever must hold then.
pub fn nd_laws(frame: &[u8]) -> Option<Neighbour> {
    let parsed = Neighbour::parse(frame)?;
    let Neighbour { kind, source, destination, target, .. } = parsed;
    assert_eq!(Neighbour::parse(&parsed.emit()), Some(parsed));
    assert_eq!((&frame[12..14], frame[21]), (&nd::ETHERTYPE[..], 255));
    assert_eq!((&frame[22..38], &frame[38..54]), (&source.octets()[..], &destination.octets()[..]));
    assert_eq!(frame[62..78], target.octets());
    assert_eq!(parsed.claims(target), kind == nd::Kind::Advertisement);
    assert!(!parsed.claims(Ipv6Addr::from_bits(target.to_bits() ^ 1 << (frame[77] % 128))));
    assert!(parsed.to_string().starts_with("ND, "));

    let (_, message) = layout(&frame[ETHERNET_BYTES..]).expect("it was read");
    let end = ETHERNET_BYTES + message.end;
    assert_eq!(Neighbour::parse(&frame[..end]), Some(parsed));
    assert_eq!(Neighbour::parse(&frame[..end - 1]), None);
    let mut flipped = frame.to_vec();
    // The addresses are part of the sum.
    flip_one(&mut flipped, ETHERNET_BYTES + 8..end);
    assert_eq!(Neighbour::parse(&flipped), None);
    Some(parsed)
}

// ---- netlink -------------------------------------------------------------------------------

/// The same bytes as the kernel's datagram and as an address to set.
pub fn netlink(input: &[u8]) {
    let whole = netlink::parse(input);
    assert!(whole.len() * 16 <= input.len(), "an event needs a header");
    for event in &whole {
        if let Event::AddressAdded { address, .. } | Event::AddressRemoved { address, .. } = event {
            assert!(address.prefix <= if address.address.is_ipv4() { 32 } else { 128 });
        }
    }
    let (set, address) = request(&mut Cut::new(input));
    let removal = netlink::remove_address(2, 9, address);
    let (added, removed) =
        (Event::AddressAdded { index: 9, address }, Event::AddressRemoved { index: 9, address });
    assert_eq!(netlink::parse(&set), std::slice::from_ref(&added));
    assert_eq!(netlink::parse(&removal), std::slice::from_ref(&removed));
    assert_eq!(netlink::parse(&netlink::dump_links(1)), []);
    assert_eq!(netlink::parse(&netlink::dump_addresses(1)), []);

    // Messages do not depend on those around them; a cut one is nothing.
    let all = [&set, &removal, input].concat();
    let events = [&[added, removed], &whole[..]].concat();
    assert_eq!(netlink::parse(&all), events);
    let length = usize::from(internet_checksum(&[input])) % all.len();
    assert!(events.starts_with(&netlink::parse(&all[..length])));
}

/// Any address with any lifetime and label, on interface 9.
fn request(cut: &mut Cut<'_>) -> (Vec<u8>, IpCidr) {
    let control = cut.byte();
    let (address, longest) = match control & 1 {
        0 => (IpAddr::from(cut.number::<4>()), 32),
        _ => (IpAddr::from(cut.number::<16>()), 128),
    };
    let address = IpCidr { address, prefix: cut.byte() % (longest + 1) };
    let lifetime = Duration::from_millis(u64::from_be_bytes(cut.number()));
    let label = String::from_utf8_lossy(cut.piece());
    let set = netlink::set_address(
        1,
        9,
        address,
        (control & 2 != 0).then_some(&*label),
        (control & 4 != 0).then_some(lifetime),
    );
    (set, address)
}
