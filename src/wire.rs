//! Byte cursors for wire formats, and the small identities that cross the wire.
//!
//! In: byte slices. Out: integers and sub-slices, or `Short`. Must not: panic on any bytes, copy.
//! Read first: nothing.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// One of the two hosts: its place in the configuration's list, 0 or 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostId {
    First,
    Second,
}

impl HostId {
    pub const ALL: [Self; 2] = [Self::First, Self::Second];

    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    /// 0 or 1, for arrays with one entry a host.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::First => 0,
            Self::Second => 1,
        }
    }
}

/// One of the two networks that both hosts are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LinkId {
    Outside,
    Inside,
}

impl LinkId {
    pub const ALL: [Self; 2] = [Self::Outside, Self::Inside];

    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Outside => 0,
            Self::Inside => 1,
        }
    }
}

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        })
    }
}

/// An interface: the links' own ones first, then those that virtual addresses name beside them.
/// Its place in `config::Config::devices`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u8);

impl DeviceId {
    /// `None` beyond the devices that a configuration can have.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u8::try_from(index).ok().map(Self)
    }

    #[must_use]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }

    /// The link whose own interface it is.
    #[must_use]
    pub fn link(self) -> Option<LinkId> {
        LinkId::ALL.into_iter().find(|link| Self::from(*link) == self)
    }
}

impl From<LinkId> for DeviceId {
    fn from(link: LinkId) -> Self {
        match link {
            LinkId::Outside => Self(0),
            LinkId::Inside => Self(1),
        }
    }
}

/// What a host is in the pair; `pair` decides it, beacons carry it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Fenced, finding out where the peer and both databases stand.
    Joining,
    /// Replica of the peer's database, ready to take over.
    Standby,
    /// Taking over: the database is being promoted, writes wait.
    Promoting,
    /// Serves: virtual addresses, and the database that takes writes.
    Active,
    /// Giving the role away in order.
    Demoting,
    /// Fenced: its database has transactions that the peer's lacks; an operator must decide.
    Refused,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Joining => "joining",
            Self::Standby => "standby",
            Self::Promoting => "promoting",
            Self::Active => "active",
            Self::Demoting => "demoting",
            Self::Refused => "refused",
        })
    }
}

/// What the operator ordered until it is ordered otherwise: kept on disk, told in beacons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Orders {
    /// This host takes no role.
    pub in_maintenance: bool,
    pub hold: Hold,
}

/// Whether roles stay where they are, on both hosts. Of two orders the higher number is the later
/// one; given at once on both, the one to hold wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Hold {
    pub number: u64,
    pub is_on: bool,
}

/// A postcard message to whose end fields may have been appended since it was written, or since
/// this program was: what is missing reads as zero, what is unknown is left unread.
pub fn read_appended<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, postcard::Error> {
    const APPENDED_BYTES_MAX: usize = 64;
    let mut padded = bytes.to_vec();
    padded.resize(bytes.len() + APPENDED_BYTES_MAX, 0);
    postcard::from_bytes(&padded)
}

/// The bytes ended before the field did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Short;

/// Reads fields from the front of a byte slice, big-endian unless the name says otherwise.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    #[must_use]
    pub const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub fn take(&mut self, count: usize) -> Result<&'a [u8], Short> {
        let (head, tail) = self.rest.split_at_checked(count).ok_or(Short)?;
        self.rest = tail;
        Ok(head)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Short> {
        let (head, tail) = self.rest.split_first_chunk::<N>().ok_or(Short)?;
        self.rest = tail;
        Ok(*head)
    }

    pub fn u8(&mut self) -> Result<u8, Short> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub fn u16(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_be_bytes)
    }

    pub fn u16_le(&mut self) -> Result<u16, Short> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u24_le(&mut self) -> Result<u32, Short> {
        self.array().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    pub fn u32_le(&mut self) -> Result<u32, Short> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64_le(&mut self) -> Result<u64, Short> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn ipv4(&mut self) -> Result<Ipv4Addr, Short> {
        self.array::<4>().map(Ipv4Addr::from)
    }

    pub fn ipv6(&mut self) -> Result<Ipv6Addr, Short> {
        self.array::<16>().map(Ipv6Addr::from)
    }

    /// The bytes before the next NUL, which is consumed; `Short` when there is none.
    pub fn until_nul(&mut self) -> Result<&'a [u8], Short> {
        let end = self.rest.iter().position(|&byte| byte == 0).ok_or(Short)?;
        let head = self.take(end)?;
        self.take(1)?;
        Ok(head)
    }
}

/// The Internet checksum over `parts` laid end to end (RFC 1071). Every part but the last must
/// have an even length.
#[must_use]
pub fn internet_checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u64;
    for part in parts {
        for pair in part.chunks(2) {
            let high = u64::from(*pair.first().unwrap_or(&0));
            let low = u64::from(*pair.get(1).unwrap_or(&0));
            sum += high << 8 | low;
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded into 16 bits above")
}

#[cfg(test)]
pub(crate) mod vectors {
    //! The files of tests/vectors: a name and hexadecimal digits a line.

    pub(crate) fn vector(file: &str, name: &str) -> Vec<u8> {
        let found = file.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let hex: String = found.expect(name).split_whitespace().collect();
        let byte = |at| u8::from_str_radix(&hex[at..at + 2], 16).expect("two digits");
        (0..hex.len()).step_by(2).map(byte).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_older_and_newer_programs_are_read() {
        let orders = Orders { in_maintenance: true, hold: Hold { number: 300, is_on: true } };
        let older = postcard::to_stdvec(&(7u64, true)).expect("plain data");
        assert_eq!(read_appended(&older), Ok((7u64, true, Orders::default(), None::<u64>)));
        let newer = postcard::to_stdvec(&(7u64, true, orders)).expect("plain data");
        assert_eq!(read_appended(&newer), Ok((7u64, true)));
        assert_eq!(read_appended(&newer), Ok((7u64, true, orders)));
    }

    #[test]
    fn of_two_holds_the_later_one_counts() {
        let hold = |number, is_on| Hold { number, is_on };
        assert!(hold(2, false) > hold(1, true));
        assert!(hold(2, true) > hold(2, false), "given at once on both hosts");
    }

    #[test]
    fn reads_both_byte_orders() {
        let mut reader = Reader::new(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(reader.u16(), Ok(0x0102));
        assert_eq!(reader.u16_le(), Ok(0x0403));
        assert_eq!(reader.u24_le(), Ok(0x07_0605));
        assert_eq!(reader.u32(), Err(Short));
        assert_eq!(reader.rest(), &[8, 9], "a refused read consumes nothing");
    }

    #[test]
    fn until_nul_needs_the_nul() {
        let mut reader = Reader::new(b"ab\0cd");
        assert_eq!(reader.until_nul(), Ok(&b"ab"[..]));
        assert_eq!(reader.until_nul(), Err(Short));
        assert_eq!(reader.rest(), b"cd");
    }

    #[test]
    fn checksum_matches_rfc_1071_section_3() {
        assert_eq!(internet_checksum(&[&[0, 1, 0xf2, 3, 0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(internet_checksum(&[&[0, 1, 0xf2, 3], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        assert_eq!(internet_checksum(&[&[0xff]]), !0xff00, "an odd tail is padded with zero");
    }
}
