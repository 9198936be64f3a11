//! Place: where the FastCGI port listens, in nginx's words, and who may come there.
//!
//! In: "127.0.0.1:9001", "[::1]:9001" or "unix:/run/tandem-php.sock". Out: the same, typed; what is
//! wrong with it. Must not: open it. Read first: nginx, "fastcgi_pass"; facts/web.md 1.2, the row
//! on PHP_VALUE: whoever reaches php-fpm runs code.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::Cidr;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    Tcp(SocketAddr),
    Unix(String),
}

impl Place {
    /// Whether it is to be opened on the host whose addresses on the two links these are; an
    /// address of the other host is the other host's to open.
    #[must_use]
    pub fn is_of_host(&self, others: [IpAddr; 2]) -> bool {
        match self {
            Self::Tcp(address) => !others.contains(&address.ip()),
            Self::Unix(_) => true,
        }
    }
}

/// Who may come to a TCP port, beside those of the host itself: the pair and `fastcgi_allow`.
#[must_use]
pub fn is_allowed(client: IpAddr, inside: &[IpAddr], allow: &[Cidr]) -> bool {
    let client = client.to_canonical();
    let is_listed = match client {
        IpAddr::V4(client) => allow.iter().any(|network| network.contains(client)),
        IpAddr::V6(_) => false,
    };
    client.is_loopback() || inside.contains(&client) || is_listed
}

/// What is wrong with the places, and what to write instead. `inside`: the pair's addresses there.
pub fn check(places: &[Place], allow: &[Cidr], inside: &[IpAddr]) -> Result<(), String> {
    for (index, place) in places.iter().enumerate() {
        if places.iter().skip(index + 1).any(|other| other == place) {
            return Err(format!("web.fastcgi_listen: {place} stands there twice"));
        }
        let Place::Tcp(address) = place else { continue };
        let is_private = address.ip().is_loopback() || inside.contains(&address.ip());
        if address.port() == 0 {
            return Err(format!("web.fastcgi_listen: {place}: write a port from 1 to 65535"));
        }
        if !is_private && allow.is_empty() {
            return Err(format!(
                "web.fastcgi_listen: {place}: whoever reaches it runs code: write a loopback \
                 address, one of the pair's inside addresses or a unix socket, or say in \
                 fastcgi_allow which networks may come, as in [\"192.168.3.0/24\"]"
            ));
        }
    }
    Ok(())
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{path}"),
        }
    }
}

impl FromStr for Place {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| {
            format!(
                "{text:?}: {what}: write an address and a port or the path of a socket, as in \
                 \"127.0.0.1:9001\" or \"unix:/run/tandem-php.sock\""
            )
        };
        let Some(path) = text.strip_prefix("unix:") else {
            return text.parse().map(Self::Tcp).map_err(|_| wrong("no address with a port"));
        };
        if !path.starts_with('/') || path.ends_with('/') || path.contains('\0') {
            return Err(wrong("no absolute path of a file"));
        }
        // unix(7): sun_path has 108 bytes, its final zero included.
        if path.len() > 107 {
            return Err(wrong("longer than the 107 bytes that a socket's path may have"));
        }
        Ok(Self::Unix(path.into()))
    }
}

impl Serialize for Place {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Place {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Place {
        text.parse().expect("a place")
    }

    #[test]
    fn places_round_trip() {
        for text in ["127.0.0.1:9001", "[::1]:9001", "unix:/run/tandem-php.sock"] {
            assert_eq!(place(text).to_string(), text);
        }
    }

    #[test]
    fn refuses_what_is_no_place_and_says_what_is_one() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["9001", "127.0.0.1", "localhost:9001", "unix:run/x", "unix:/run/", &long] {
            let why = text.parse::<Place>().expect_err(text);
            assert!(why.contains("unix:/run/tandem-php.sock"), "{why}");
        }
    }

    #[test]
    fn a_public_address_needs_to_be_told_who_may_come() {
        let inside: [IpAddr; 2] = ["10.0.0.1", "10.0.0.2"].map(|text| text.parse().expect("one"));
        let private = ["127.0.0.1:1", "[::1]:1", "10.0.0.2:1", "unix:/x"].map(place);
        assert_eq!(check(&private, &[], &inside), Ok(()));
        let network = ["192.0.2.0/24".parse().expect("a network")];
        for text in ["0.0.0.0:1", "192.0.2.1:1", "[::]:1"] {
            let why = check(&[place(text)], &[], &inside).expect_err(text);
            assert!(why.contains("fastcgi_allow"), "{why}");
            assert_eq!(check(&[place(text)], &network, &inside), Ok(()));
        }
        assert!(check(&[place("unix:/x"), place("unix:/x")], &[], &inside).is_err());
        assert!(check(&[place("127.0.0.1:0")], &[], &inside).is_err());
    }

    #[test]
    fn loopback_the_pair_and_the_listed_may_come() {
        let inside = ["10.0.0.1".parse().expect("an address")];
        let allow = ["192.0.2.0/24".parse().expect("a network")];
        for (client, expected) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("10.0.0.1", true),
            ("192.0.2.9", true),
            ("::ffff:192.0.2.9", true),
            ("10.0.0.3", false),
            ("198.51.100.1", false),
            ("2001:db8::1", false),
        ] {
            let client = client.parse().expect("an address");
            assert_eq!(is_allowed(client, &inside, &allow), expected, "{client}");
        }
    }

    #[test]
    fn the_other_hosts_address_is_not_opened_here() {
        let others: [IpAddr; 2] = ["10.0.0.2", "192.0.2.2"].map(|text| text.parse().expect("one"));
        assert!(!place("10.0.0.2:9001").is_of_host(others));
        assert!(place("10.0.0.1:9001").is_of_host(others));
        assert!(place("unix:/x").is_of_host(others));
    }
}
