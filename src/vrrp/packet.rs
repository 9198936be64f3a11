//! VRRP version 2 advertisements and the IPv4 header they travel in.
//!
//! In: datagrams as a raw socket gives them, header first. Out: `Advertisement`, or the defect.
//! Must not: judge (whose turn it is, is `router`'s business).
//! Read first: RFC 3768 section 5; facts/vrrp.md 1.1 and 1.3.
//! Differs: authentication type 1 (PASS, RFC 2338 5.3.6) is spoken because keepalived speaks it.
//!
//! ```text
//!  0                   1                   2                   3
//! | version type  |     VRID      |   priority    |     count     |
//! |   auth type   |   interval    |           checksum            |
//! |                  count x IPv4 address                         |
//! |                  8 bytes of authentication data               |
//! ```

use std::fmt;
use std::net::Ipv4Addr;

use crate::wire::{Reader, Short, internet_checksum};

/// 224.0.0.18, where routers listen (RFC 3768, 5.2.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// IP protocol number (RFC 3768, 5.2.4).
pub const PROTOCOL: u8 = 112;
/// Most addresses that an advertisement carries here; keepalived's own lists are no longer.
pub const ADDRESSES_MAX: usize = 20;

const VERSION_AND_TYPE: u8 = 0x21;
const AUTH_NONE: u8 = 0;
const AUTH_PASS: u8 = 1;
const IP_HEADER_BYTES: u16 = 20;

/// One version 2 advertisement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    pub vrid: u8,
    /// 0 resigns, 255 owns the address.
    pub priority: u8,
    pub interval_seconds: u8,
    /// PASS data, zero padded; `None` is authentication type 0.
    pub password: Option<[u8; 8]>,
    pub addresses: heapless::Vec<Ipv4Addr, ADDRESSES_MAX>,
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
            Self::Version(version) => write!(f, "version {version}, not 2"),
            Self::Type(kind) => write!(f, "type {kind}, not 1 (advertisement)"),
            Self::AuthType(kind) => write!(f, "authentication type {kind}"),
            Self::Length { claimed, received } => {
                write!(f, "{received} bytes, {claimed} for its address count")
            }
            Self::Count(count) => write!(f, "{count} addresses"),
            Self::Checksum => f.write_str("checksum"),
        }
    }
}

impl Advertisement {
    /// Reads a datagram, IPv4 header included, and returns its source address too. The checks
    /// stand in keepalived's order (facts/vrrp.md 1.3); what depends on the configuration
    /// (VRID, password, interval, address list) is the router's.
    pub fn parse(datagram: &[u8]) -> Result<(Ipv4Addr, Self), Error> {
        let (source, ttl, message) = parse_ipv4(datagram)?;
        let mut reader = Reader::new(message);
        let version_and_type = reader.u8()?;
        let vrid = reader.u8()?;
        let priority = reader.u8()?;
        let count = reader.u8()?;
        let auth_type = reader.u8()?;
        let interval_seconds = reader.u8()?;
        reader.u16()?;
        if version_and_type >> 4 != 2 {
            return Err(Error::Version(version_and_type >> 4));
        }
        let claimed = 8 + 4 * usize::from(count) + 8;
        if message.len() != claimed {
            return Err(Error::Length { claimed, received: message.len() });
        }
        if ttl != 255 {
            return Err(Error::Ttl(ttl));
        }
        if !matches!(auth_type, AUTH_NONE | AUTH_PASS) {
            return Err(Error::AuthType(auth_type));
        }
        if version_and_type & 0xf != 1 {
            return Err(Error::Type(version_and_type & 0xf));
        }
        if internet_checksum(&[message]) != 0 {
            return Err(Error::Checksum);
        }
        let mut addresses = heapless::Vec::new();
        for _ in 0..count {
            addresses.push(reader.ipv4()?).map_err(|_| Error::Count(count))?;
        }
        if count == 0 {
            return Err(Error::Count(0));
        }
        let data = reader.array::<8>()?;
        let password = (auth_type == AUTH_PASS).then_some(data);
        Ok((source, Self { vrid, priority, interval_seconds, password, addresses }))
    }

    /// The datagram, IPv4 header included, as a raw socket with IP_HDRINCL takes it. The header
    /// checksum is left to the kernel, the identification must not be 0 (the kernel would choose).
    #[must_use]
    pub fn emit(&self, source: Ipv4Addr, identification: u16) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).expect("ADDRESSES_MAX fits a byte");
        let length = IP_HEADER_BYTES + 16 + 4 * u16::from(count);
        let mut datagram = Vec::with_capacity(usize::from(length));
        // RFC 791, 3.1: version 4, 5 words; type of service 0xc0 (internetwork control).
        datagram.extend([0x45, 0xc0]);
        datagram.extend(length.to_be_bytes());
        datagram.extend(identification.to_be_bytes());
        datagram.extend([0, 0, 255, PROTOCOL, 0, 0]);
        datagram.extend(source.octets());
        datagram.extend(GROUP.octets());
        let auth_type = if self.password.is_some() { AUTH_PASS } else { AUTH_NONE };
        let mut message = vec![VERSION_AND_TYPE, self.vrid, self.priority, count];
        message.extend([auth_type, self.interval_seconds, 0, 0]);
        for address in &self.addresses {
            message.extend(address.octets());
        }
        message.extend(self.password.unwrap_or_default());
        let [high, low] = internet_checksum(&[&message]).to_be_bytes();
        message[6] = high;
        message[7] = low;
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

/// Source, TTL and payload of an IPv4 datagram; Ethernet padding after the total length is cut.
fn parse_ipv4(datagram: &[u8]) -> Result<(Ipv4Addr, u8, &[u8]), Error> {
    let mut reader = Reader::new(datagram);
    let version_and_words = reader.u8()?;
    reader.u8()?;
    let total_length = usize::from(reader.u16()?);
    let _identification_and_fragment = reader.u32()?;
    let ttl = reader.u8()?;
    let protocol = reader.u8()?;
    let _checksum = reader.u16()?;
    let source = reader.ipv4()?;
    let header_length = usize::from(version_and_words & 0xf) * 4;
    if version_and_words >> 4 != 4 || header_length < 20 || protocol != PROTOCOL {
        return Err(Error::NotVrrp);
    }
    let payload = datagram.get(header_length..total_length).ok_or(Error::Truncated)?;
    Ok((source, ttl, payload))
}

impl fmt::Display for Advertisement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "VRRPv2, Advertisement, vrid {}, prio {}, intvl {}s, addrs",
            self.vrid, self.priority, self.interval_seconds
        )?;
        self.addresses.iter().try_for_each(|address| write!(f, " {address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// keepalived 2.2.7, captured (facts/vrrp.md 4.2); byte 10 and 11 are the header checksum.
    const CAPTURED: &str = "45c0002800010000ff701685c0a80365e0000012\
                            213365010101491ec0a803963334383900000000";

    fn bytes(hex: &str) -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect()
    }

    fn advertisement() -> Advertisement {
        Advertisement {
            vrid: 51,
            priority: 101,
            interval_seconds: 1,
            password: Some(password_data("3489")),
            addresses: heapless::Vec::from_slice(&[Ipv4Addr::new(192, 168, 3, 150)]).unwrap(),
        }
    }

    #[test]
    fn parses_keepalived() {
        let (source, parsed) = Advertisement::parse(&bytes(CAPTURED)).unwrap();
        assert_eq!(source, Ipv4Addr::new(192, 168, 3, 101));
        assert_eq!(parsed, advertisement());
    }

    #[test]
    fn emits_keepalived_byte_for_byte() {
        let mut captured = bytes(CAPTURED);
        captured[10..12].fill(0);
        assert_eq!(advertisement().emit(Ipv4Addr::new(192, 168, 3, 101), 1), captured);
        let resign = Advertisement { priority: 0, ..advertisement() };
        let emitted = resign.emit(Ipv4Addr::new(192, 168, 3, 101), 1);
        assert_eq!(emitted[20..], bytes("213300010101ae1ec0a803963334383900000000"));
    }

    #[test]
    fn round_trips_without_a_password() {
        let open = Advertisement { password: None, ..advertisement() };
        let emitted = open.emit(Ipv4Addr::new(10, 96, 153, 110), 7);
        assert_eq!(Advertisement::parse(&emitted).unwrap().1, open);
    }

    #[test]
    fn refuses_every_truncation() {
        let captured = bytes(CAPTURED);
        for length in 0..captured.len() {
            assert!(Advertisement::parse(&captured[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn refuses_every_single_bit_flip_of_the_message() {
        let captured = bytes(CAPTURED);
        for bit in 20 * 8..captured.len() * 8 {
            let mut flipped = captured.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(Advertisement::parse(&flipped).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn tolerates_ethernet_padding_and_ip_options() {
        let mut padded = bytes(CAPTURED);
        padded.extend([0; 6]);
        assert!(Advertisement::parse(&padded).is_ok());
        let mut options = bytes(CAPTURED);
        options[0] = 0x46;
        options[3] += 4;
        options.splice(20..20, [1, 1, 1, 1]);
        assert!(Advertisement::parse(&options).is_ok());
    }

    #[test]
    fn refuses_a_routed_packet_and_an_empty_list() {
        let mut routed = bytes(CAPTURED);
        routed[8] = 64;
        assert_eq!(Advertisement::parse(&routed), Err(Error::Ttl(64)));
        let empty = Advertisement { addresses: heapless::Vec::new(), ..advertisement() };
        let emitted = empty.emit(Ipv4Addr::LOCALHOST, 1);
        assert_eq!(Advertisement::parse(&emitted), Err(Error::Count(0)));
    }
}
