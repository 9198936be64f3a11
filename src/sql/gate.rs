//! Which addresses may connect.
//!
//! In: the list of the configuration, a client's address. Out: whether it may. Must not: know who
//! the client says it is. Read first: facts/sql.md 1.1, client-ips.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use serde::{Deserialize, Serialize};

use crate::units::Cidr;

/// An address or a network, "192.168.3.7" or "192.168.3.0/24".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(Cidr);

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<Ipv4Addr>()
            .map(|address| Cidr { address, prefix: 32 })
            .or_else(|_| text.parse())
            .map(Self)
            .map_err(|_| format!("client {text:?}: write \"192.168.3.7\" or \"192.168.3.0/24\""))
    }
}

impl Network {
    /// The same, or the front of an address as Atlas takes it: "192.168.3", "192.168".
    pub fn of_atlas(text: &str) -> Result<Self, String> {
        let whole = match text.split('.').count() {
            2 => format!("{text}.0.0/16"),
            3 => format!("{text}.0/24"),
            _ => text.to_owned(),
        };
        Self::try_from(whole).or_else(|_| Self::try_from(text.to_owned()))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> Self {
        network.to_string()
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix == 32 { write!(f, "{}", self.0.address) } else { write!(f, "{}", self.0) }
    }
}

/// An empty list lets everybody in, as Atlas's does.
#[must_use]
pub fn is_allowed(list: &[Network], peer: IpAddr) -> bool {
    list.is_empty()
        || match peer.to_canonical() {
            IpAddr::V4(address) => list.iter().any(|network| network.0.contains(address)),
            IpAddr::V6(_) => false,
        }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lets_in_who_is_listed() {
        let parse = |text: &str| Network::try_from(text.to_owned());
        let list = [parse("192.168.3.7").unwrap(), parse("10.1.0.0/16").unwrap()];
        assert_eq!(list.map(|it| it.to_string()), ["192.168.3.7", "10.1.0.0/16"]);
        for (peer, expected) in [
            ("192.168.3.7", true),
            ("192.168.3.8", false),
            ("10.1.255.1", true),
            ("10.2.0.1", false),
            ("::ffff:10.1.0.1", true),
            ("::1", false),
        ] {
            let peer = peer.parse().unwrap();
            assert_eq!(is_allowed(&list, peer), expected, "{peer}");
            assert!(is_allowed(&[], peer));
        }
        assert!(parse("192.168").is_err());
        for (text, expected) in [("192.168", "192.168.0.0/16"), ("10.1.2", "10.1.2.0/24")] {
            assert_eq!(Network::of_atlas(text).map(|it| it.to_string()).as_deref(), Ok(expected));
        }
        for wrong in ["", "10", "10.1.2.3.4", "10.1.2.256", "10.1/8", "localhost", "10..1"] {
            let error = Network::of_atlas(wrong).expect_err(wrong);
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
