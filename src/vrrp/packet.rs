//! VRRP advertisements of version 2 and 3 over IPv4, and the header they travel in.
//!
//! In: datagrams as a raw socket gives them, header first. Out: `Received`, or the defect.
//! Must not: judge (whose turn it is, is `router`'s business).
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
use std::net::Ipv4Addr;
use std::time::Duration;

use crate::wire::{Reader, Short, internet_checksum};

/// 224.0.0.18, where routers listen (RFC 3768, 5.2.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// IP protocol number (RFC 3768, 5.2.4).
pub const PROTOCOL: u8 = 112;
/// Most addresses that an advertisement carries here; keepalived's own lists are no longer.
pub const ADDRESSES_MAX: usize = 20;

const TYPE_ADVERTISEMENT: u8 = 1;
const AUTH_NONE: u8 = 0;
const AUTH_PASS: u8 = 1;
const IP_HEADER_BYTES: u16 = 20;
/// The version 3 interval is 12 bits of centiseconds (RFC 9568, 5.2.7).
const CENTISECONDS_MAX: u16 = 4095;

/// Which protocol a virtual router speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V2,
    V3,
}

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
    pub addresses: heapless::Vec<Ipv4Addr, ADDRESSES_MAX>,
}

/// What a version 3 checksum was summed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChecksumForm {
    PseudoHeader,
    /// Version 2, or version 3 to the letter of RFC 9568.
    MessageOnly,
}

/// An advertisement as it came in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub source: Ipv4Addr,
    pub form: ChecksumForm,
    pub advertisement: Advertisement,
}

/// What is wrong with a datagram; the receiver ignores it and changes no timer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    Truncated,
    NotVrrp,
    Ttl(u8),
    Version(u8),
    Type(u8),
    AuthType(u8),
    Length { claimed: usize, received: usize },
    Count(u8),
    Interval,
    Checksum,
}

impl From<Short> for Error {
    fn from(_: Short) -> Self {
        Self::Truncated
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated => f.write_str("truncated"),
            Self::NotVrrp => f.write_str("not an IPv4 datagram of protocol 112"),
            Self::Ttl(ttl) => write!(f, "TTL {ttl}, not 255: it was routed"),
            Self::Version(version) => write!(f, "version {version}, neither 2 nor 3"),
            Self::Type(kind) => write!(f, "type {kind}, not 1 (advertisement)"),
            Self::AuthType(kind) => write!(f, "authentication type {kind}"),
            Self::Length { claimed, received } => {
                write!(f, "{received} bytes, {claimed} for its address count")
            }
            Self::Count(count) => write!(f, "{count} addresses"),
            Self::Interval => f.write_str("interval 0"),
            Self::Checksum => f.write_str("checksum"),
        }
    }
}

impl Received {
    /// Reads a datagram, IPv4 header included. The checks stand in keepalived's order
    /// (facts/vrrp.md 1.3); what depends on the configuration (version, VRID, password, interval,
    /// address list) is the router's.
    pub fn parse(datagram: &[u8]) -> Result<Self, Error> {
        let Ip { source, destination, ttl, payload: message } = parse_ipv4(datagram)?;
        let mut reader = Reader::new(message);
        let [version_and_type, vrid, priority, count] = reader.array()?;
        let [fifth, sixth] = reader.array()?;
        reader.u16()?;
        let (version, trailer) = match version_and_type >> 4 {
            2 => (Version::V2, 8),
            3 => (Version::V3, 0),
            other => return Err(Error::Version(other)),
        };
        let claimed = 8 + 4 * usize::from(count) + trailer;
        if message.len() != claimed {
            return Err(Error::Length { claimed, received: message.len() });
        }
        if ttl != 255 {
            return Err(Error::Ttl(ttl));
        }
        if version == Version::V2 && !matches!(fifth, AUTH_NONE | AUTH_PASS) {
            return Err(Error::AuthType(fifth));
        }
        if version_and_type & 0xf != TYPE_ADVERTISEMENT {
            return Err(Error::Type(version_and_type & 0xf));
        }
        let form = checksum_form(version, source, destination, message)?;
        let mut addresses = heapless::Vec::new();
        for _ in 0..count {
            addresses.push(reader.ipv4()?).map_err(|_| Error::Count(count))?;
        }
        if count == 0 {
            return Err(Error::Count(0));
        }
        let (interval, password) = match version {
            Version::V2 => {
                let data = reader.array::<8>()?;
                let password = (fifth == AUTH_PASS).then_some(data);
                (Duration::from_secs(u64::from(sixth)), password)
            }
            Version::V3 => {
                let centiseconds = u16::from_be_bytes([fifth & 0xf, sixth]);
                (Duration::from_millis(10) * u32::from(centiseconds), None)
            }
        };
        // Interval 0 would let the master-down timer run out at once (errata 8299, 8301).
        if interval.is_zero() {
            return Err(Error::Interval);
        }
        let advertisement =
            Advertisement { version, vrid, priority, interval, password, addresses };
        Ok(Self { source, form, advertisement })
    }
}

fn checksum_form(
    version: Version,
    source: Ipv4Addr,
    destination: Ipv4Addr,
    message: &[u8],
) -> Result<ChecksumForm, Error> {
    if version == Version::V3 && pseudo_header_sum(source, destination, message) == 0 {
        return Ok(ChecksumForm::PseudoHeader);
    }
    if internet_checksum(&[message]) == 0 {
        return Ok(ChecksumForm::MessageOnly);
    }
    Err(Error::Checksum)
}

/// RFC 793's pseudo-header, as RFC 5798 was read: source, destination, 0, protocol, length.
fn pseudo_header_sum(source: Ipv4Addr, destination: Ipv4Addr, message: &[u8]) -> u16 {
    let length = u16::try_from(message.len()).unwrap_or(0).to_be_bytes();
    let parts: [&[u8]; 5] =
        [&source.octets(), &destination.octets(), &[0, PROTOCOL], &length, message];
    internet_checksum(&parts)
}

impl Advertisement {
    /// The datagram, IPv4 header included, as a raw socket with IP_HDRINCL takes it. The header
    /// checksum is left to the kernel, the identification must not be 0 (the kernel would choose).
    #[must_use]
    pub fn emit(&self, source: Ipv4Addr, identification: u16) -> Vec<u8> {
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
            message.extend(address.octets());
        }
        message.extend(trailer);
        let sum = match self.version {
            Version::V2 => internet_checksum(&[&message]),
            Version::V3 => pseudo_header_sum(source, GROUP, &message),
        };
        let [high, low] = sum.to_be_bytes();
        message[6] = high;
        message[7] = low;
        let length = IP_HEADER_BYTES + u16::try_from(message.len()).expect("at most 96 bytes");
        let mut datagram = Vec::with_capacity(usize::from(length));
        // RFC 791, 3.1: version 4, 5 words; type of service 0xc0 (internetwork control).
        datagram.extend([0x45, 0xc0]);
        datagram.extend(length.to_be_bytes());
        datagram.extend(identification.to_be_bytes());
        datagram.extend([0, 0, 255, PROTOCOL, 0, 0]);
        datagram.extend(source.octets());
        datagram.extend(GROUP.octets());
        datagram.extend(message);
        datagram
    }
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

/// What of an IPv4 datagram matters here.
struct Ip<'a> {
    source: Ipv4Addr,
    destination: Ipv4Addr,
    ttl: u8,
    payload: &'a [u8],
}

/// Ethernet padding after the total length is cut.
fn parse_ipv4(datagram: &[u8]) -> Result<Ip<'_>, Error> {
    let mut reader = Reader::new(datagram);
    let version_and_words = reader.u8()?;
    reader.u8()?;
    let total_length = usize::from(reader.u16()?);
    let _identification_and_fragment = reader.u32()?;
    let ttl = reader.u8()?;
    let protocol = reader.u8()?;
    let _checksum = reader.u16()?;
    let source = reader.ipv4()?;
    let destination = reader.ipv4()?;
    let header_length = usize::from(version_and_words & 0xf) * 4;
    if version_and_words >> 4 != 4 || header_length < 20 || protocol != PROTOCOL {
        return Err(Error::NotVrrp);
    }
    let payload = datagram.get(header_length..total_length).ok_or(Error::Truncated)?;
    Ok(Ip { source, destination, ttl, payload })
}

impl fmt::Display for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = match self.version {
            Version::V2 => 2,
            Version::V3 => 3,
        };
        write!(
            f,
            "VRRPv{version}, Advertisement, vrid {}, prio {}, intvl {:?}, addrs",
            self.vrid, self.priority, self.interval
        )?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// keepalived 2.2.7, captured (facts/vrrp.md 4.2); byte 10 and 11 are the header checksum.
    const CAPTURED_V2: &str = "45c0002800010000ff701685c0a80365e0000012\
                               213365010101491ec0a803963334383900000000";
    const CAPTURED_V3: &str = "45c0002000010000ff70168dc0a80365e0000012\
                               31336501000a00e6c0a80396";
    const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 3, 101);

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn advertisement() -> Advertisement {
        Advertisement {
            version: Version::V2,
            vrid: 51,
            priority: 101,
            interval: Duration::from_secs(1),
            password: Some(password_data("3489")),
            addresses: heapless::Vec::from_slice(&[Ipv4Addr::new(192, 168, 3, 150)]).unwrap(),
        }
    }

    fn version_3() -> Advertisement {
        let interval = Duration::from_millis(100);
        Advertisement { version: Version::V3, interval, password: None, ..advertisement() }
    }

    #[test]
    fn parses_keepalived() {
        let received = Received::parse(&bytes(CAPTURED_V2)).unwrap();
        assert_eq!((received.source, received.advertisement), (SOURCE, advertisement()));
        let received = Received::parse(&bytes(CAPTURED_V3)).unwrap();
        assert_eq!((received.source, received.advertisement), (SOURCE, version_3()));
        assert_eq!(received.form, ChecksumForm::PseudoHeader);
    }

    #[test]
    fn emits_keepalived_byte_for_byte() {
        for (captured, ours) in [(CAPTURED_V2, advertisement()), (CAPTURED_V3, version_3())] {
            let mut captured = bytes(captured);
            captured[10..12].fill(0);
            assert_eq!(ours.emit(SOURCE, 1), captured);
        }
        let resign = Advertisement { priority: 0, ..advertisement() }.emit(SOURCE, 1);
        assert_eq!(resign[20..], bytes("213300010101ae1ec0a803963334383900000000"));
        let resign = Advertisement { priority: 0, ..version_3() }.emit(SOURCE, 1);
        assert_eq!(resign[20..], bytes("31330001000a65e6c0a80396"));
    }

    #[test]
    fn accepts_the_checksum_of_rfc_9568_too() {
        let mut message_only = bytes(CAPTURED_V3);
        message_only[26..28].copy_from_slice(&[0xa5, 0x82]);
        let received = Received::parse(&message_only).unwrap();
        assert_eq!(received.form, ChecksumForm::MessageOnly);
        assert_eq!(received.advertisement, version_3());
    }

    #[test]
    fn round_trips() {
        let open = Advertisement { password: None, ..advertisement() };
        let slow = Advertisement { interval: Duration::from_millis(40_950), ..version_3() };
        for advertisement in [advertisement(), version_3(), open, slow] {
            let emitted = advertisement.emit(Ipv4Addr::new(10, 96, 153, 110), 7);
            assert_eq!(Received::parse(&emitted).unwrap().advertisement, advertisement);
        }
    }

    #[test]
    fn refuses_every_truncation() {
        for captured in [bytes(CAPTURED_V2), bytes(CAPTURED_V3)] {
            for length in 0..captured.len() {
                assert!(Received::parse(&captured[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn refuses_every_single_bit_flip_of_the_message() {
        for captured in [bytes(CAPTURED_V2), bytes(CAPTURED_V3)] {
            for bit in 20 * 8..captured.len() * 8 {
                let mut flipped = captured.clone();
                flipped[bit / 8] ^= 1 << (bit % 8);
                assert!(Received::parse(&flipped).is_err(), "bit {bit}");
            }
        }
    }

    #[test]
    fn tolerates_ethernet_padding_and_ip_options() {
        let mut padded = bytes(CAPTURED_V2);
        padded.extend([0; 6]);
        assert!(Received::parse(&padded).is_ok());
        let mut options = bytes(CAPTURED_V2);
        options[0] = 0x46;
        options[3] += 4;
        options.splice(20..20, [1, 1, 1, 1]);
        assert!(Received::parse(&options).is_ok());
    }

    #[test]
    fn refuses_a_routed_packet_an_empty_list_and_interval_0() {
        let mut routed = bytes(CAPTURED_V2);
        routed[8] = 64;
        assert_eq!(Received::parse(&routed), Err(Error::Ttl(64)));
        let empty = Advertisement { addresses: heapless::Vec::new(), ..advertisement() };
        assert_eq!(Received::parse(&empty.emit(SOURCE, 1)), Err(Error::Count(0)));
        let fast = Advertisement { interval: Duration::ZERO, ..advertisement() };
        assert_eq!(Received::parse(&fast.emit(SOURCE, 1)), Err(Error::Interval));
    }
}
