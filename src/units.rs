//! Values as a person writes them in the configuration: durations, byte counts, addresses, secrets.
//!
//! In: strings of `tandem.toml`. Out: typed values, or an error that shows what to write instead.
//! Must not: read files (a secret that names one is resolved by `config::Config::resolve`).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;
use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `#[serde(with = "units::duration")]`: "200ms", "1s", "5m", "8h". A bare number is refused, since
/// nobody can tell what unit was meant.
pub mod duration {
    use super::{
        Deserialize as _, Deserializer, Duration, Serializer, parse_duration, written_duration,
    };

    use serde::de::Error as _;

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer).map_err(|error| {
            D::Error::custom(format!(
                "{error}: write a duration as \"200ms\", \"1s\", \"5m\" or \"8h\""
            ))
        })?;
        parse_duration(&text).map_err(D::Error::custom)
    }

    pub fn serialize<S: Serializer>(span: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&written_duration(*span))
    }
}

/// `duration` where none is a value too.
pub mod some_duration {
    use super::{Deserializer, Duration, Serializer, duration};

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        duration::deserialize(deserializer).map(Some)
    }

    pub fn serialize<S: Serializer>(
        span: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match span {
            Some(span) => duration::serialize(span, serializer),
            None => serializer.serialize_none(),
        }
    }
}

/// In the largest unit that leaves nothing over.
fn written_duration(span: Duration) -> String {
    let ms = span.as_millis();
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let fitting = units.into_iter().find(|(length, _)| ms > 0 && ms.is_multiple_of(*length));
    match fitting {
        Some((length, unit)) => format!("{}{unit}", ms / length),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = split_unit(text);
    let milliseconds_per_unit = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => {
            return Err(format!(
                "duration {text:?}: write a number and ms, s, m or h, as in \"200ms\""
            ));
        }
    };
    number
        .parse::<u64>()
        .ok()
        .and_then(|count| count.checked_mul(milliseconds_per_unit))
        .map(Duration::from_millis)
        .ok_or_else(|| format!("duration {text:?}: {number:?} is not a whole number that fits"))
}

fn split_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A count of bytes: "512", "64KiB", "16MiB", "1GiB".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteCount(pub u64);

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer).map_err(|error| {
            D::Error::custom(format!("{error}: write a size as \"64KiB\" or \"16MiB\""))
        })?;
        let (number, unit) = split_unit(&text);
        let bytes_per_unit: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            _ => {
                return Err(D::Error::custom(format!(
                    "size {text:?}: write KiB, MiB or GiB, as in \"64MiB\""
                )));
            }
        };
        number
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(bytes_per_unit))
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "size {text:?}: {number:?} is not a whole number that fits"
                ))
            })
    }
}

/// In the largest unit that leaves nothing over.
impl Serialize for ByteCount {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let units = [(1u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let fitting =
            units.into_iter().find(|(size, _)| self.0 > 0 && self.0.is_multiple_of(*size));
        let (size, unit) = fitting.unwrap_or((1, ""));
        serializer.collect_str(&format_args!("{}{unit}", self.0 / size))
    }
}

/// An IPv4 address with its prefix length, "192.168.3.100/24".
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl Cidr {
    /// Whether `address` is on this network.
    #[must_use]
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(self.address) & mask == u32::from(address) & mask
    }
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("address {text:?}: write it with its prefix, as in \"192.168.3.100/24\"");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address = address.parse().map_err(|_| wrong())?;
        let prefix = prefix.parse::<u8>().ok().filter(|&prefix| prefix <= 32).ok_or_else(wrong)?;
        Ok(Self { address, prefix })
    }
}

/// An address of either family and the length of its network's prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IpCidr {
    pub address: IpAddr,
    pub prefix: u8,
}

impl IpCidr {
    /// Whether `address` is on this network; an IPv4 address may come mapped (RFC 4291, 2.5.5.2).
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(network), IpAddr::V4(address)) => {
                Cidr { address: network, prefix: self.prefix }.contains(address)
            }
            (IpAddr::V6(network), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(network) & mask == u128::from(address) & mask
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

impl From<Cidr> for IpCidr {
    fn from(Cidr { address, prefix }: Cidr) -> Self {
        Self { address: address.into(), prefix }
    }
}

impl FromStr for IpCidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "address {text:?}: write it with its prefix, as in \"192.168.3.150/24\" or \
                 \"2001:db8::150/64\""
            )
        };
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse::<u8>().ok().filter(|&prefix| prefix <= longest);
        Ok(Self { address, prefix: prefix.ok_or_else(wrong)? })
    }
}

impl Serialize for IpCidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Cidr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for IpCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for IpCidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Cidr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// A password or key: in the configuration itself, or in a file of mode 0600 that it names as
/// `{ file = "/etc/tandem/secret" }`. Its `Debug` form shows neither.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    Text(String),
    File(String),
}

impl Secret {
    /// The secret itself. A `File` has none until the configuration was resolved; `resolve`
    /// replaces every one of them, so that after loading this is never empty by accident.
    #[must_use]
    pub fn reveal(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::File(_) => "",
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Never the secret: "(hidden)".
impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(hidden)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct InFile {
            file: String,
        }
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "write \"the secret\" or { file = \"/path/of/mode/0600\" }")]
        enum Written {
            Text(String),
            File(InFile),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::Text(text) => Self::Text(text),
            Written::File(InFile { file }) => Self::File(file),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_carry_their_unit() {
        assert_eq!(parse_duration("200ms"), Ok(Duration::from_millis(200)));
        assert_eq!(parse_duration("5 m"), Ok(Duration::from_secs(300)));
        for wrong in
            ["", "5", "s", "-1s", "1.5s", "1d", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(parse_duration(wrong).is_err(), "{wrong:?} must be refused");
        }
    }

    #[test]
    fn cidr_contains_its_network_only() {
        let cidr: Cidr = "192.168.3.100/24".parse().expect("a valid address");
        assert!(cidr.contains(Ipv4Addr::new(192, 168, 3, 1)));
        assert!(!cidr.contains(Ipv4Addr::new(192, 168, 4, 1)));
        let all: Cidr = "0.0.0.0/0".parse().expect("a valid address");
        assert!(all.contains(Ipv4Addr::new(8, 8, 8, 8)));
        for wrong in ["192.168.3.100", "192.168.3.100/33", "192.168.3/24", "::1/64"] {
            assert!(wrong.parse::<Cidr>().is_err(), "{wrong:?} must be refused");
        }
    }

    #[test]
    fn a_secret_never_shows_itself() {
        assert_eq!(format!("{:?}", Secret::Text("hunter2".into())), "Secret(..)");
    }
}
