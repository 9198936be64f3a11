//! The board: what differs from one machine to another; and which of the two hosts a disk is.
//!
//! In: texts of board.toml and host.toml, the network cards that the kernel found. Out: `Board`,
//! `Identity`, which card is on which network. Must not: know any board by name.
//! Read first: board/qemu-x86_64/board.toml, image/config/host.toml.

use serde::{Deserialize, Deserializer};

use crate::wire::LinkId;

/// board.toml. `kernel`, `cmdline` and the sizes of partitions are image/build's.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Board {
    pub kernel: String,
    pub cmdline: String,
    /// Terminals with a console.
    pub tty: Vec<String>,
    /// Of serial lines, in baud.
    pub speed: u32,
    /// Modules with their parameters, the better ones first.
    pub watchdog: Vec<String>,
    pub outside: Card,
    pub inside: Card,
    /// In MiB.
    pub esp: u32,
    pub config: u32,
    pub payload: u32,
}

/// host.toml, in the configuration partition.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// A name of tandem.toml.
    pub host: String,
    /// Where this machine's cards are not where its board says.
    pub outside: Option<Card>,
    pub inside: Option<Card>,
}

/// Which network card: "2" is the second in the order of their paths, "52:54:00:01:00:02" the one
/// with that address, anything else a part of its path below /sys/devices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Card {
    Place(usize),
    Mac([u8; 6]),
    Path(String),
}

/// A network card as the kernel found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub name: String,
    pub mac: [u8; 6],
    pub path: String,
}

impl Card {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || {
            Err(format!(
                "{text:?}: write \"1\" or \"2\" for the order of the cards, a MAC address, or a \
                 part of a card's path"
            ))
        };
        if let Ok(place) = text.parse() {
            return if place == 0 { wrong() } else { Ok(Self::Place(place)) };
        }
        let octets: Vec<Option<u8>> =
            text.split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
        let octets: Option<Vec<u8>> = octets.into_iter().collect();
        match octets.and_then(|octets| octets.try_into().ok()) {
            Some(mac) => Ok(Self::Mac(mac)),
            None if text.is_empty() => wrong(),
            None => Ok(Self::Path(text.to_owned())),
        }
    }

    fn find(&self, cards: &[Found]) -> Option<usize> {
        match self {
            Self::Place(place) => (*place <= cards.len()).then(|| place - 1),
            Self::Mac(mac) => cards.iter().position(|card| card.mac == *mac),
            Self::Path(part) => cards.iter().position(|card| card.path.contains(part)),
        }
    }
}

impl<'de> Deserialize<'de> for Card {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// Reads board.toml.
pub fn parse(text: &str) -> Result<Board, String> {
    toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
}

impl Identity {
    /// Reads host.toml.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| {
            let error = error.to_string();
            match error.contains("missing field `host`") {
                true => "no line says which host this is: write host = \"server1\"".to_owned(),
                false => error.trim_end().to_owned(),
            }
        })
    }
}

/// The names of the cards outside and inside, by `LinkId`.
pub fn choose(
    board: &Board,
    identity: &Identity,
    mut cards: Vec<Found>,
) -> Result<[String; 2], String> {
    cards.sort_by(|a, b| a.path.cmp(&b.path));
    let wanted = [
        identity.outside.as_ref().unwrap_or(&board.outside),
        identity.inside.as_ref().unwrap_or(&board.inside),
    ];
    let [outside, inside] = wanted.map(|card| card.find(&cards));
    for (link, found) in LinkId::ALL.into_iter().zip([outside, inside]) {
        if found.is_none() {
            return Err(format!(
                "no network card is {:?}, which is to be {link}; there are: {}",
                wanted[link.index()],
                listed(&cards)
            ));
        }
    }
    let names = [outside, inside].map(|place| place.map(|place| cards[place].name.clone()));
    match names {
        [Some(outside), Some(inside)] if outside != inside => Ok([outside, inside]),
        _ => Err(format!("one card cannot be on both networks; there are: {}", listed(&cards))),
    }
}

fn listed(cards: &[Found]) -> String {
    let one = |card: &Found| {
        let mac = card.mac.map(|octet| format!("{octet:02x}")).join(":");
        format!("{} {mac} {}", card.name, card.path)
    };
    match cards {
        [] => "none".to_owned(),
        [..] => cards.iter().map(one).collect::<Vec<_>>().join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARDS: [&str; 2] = [
        include_str!("../../board/qemu-x86_64/board.toml"),
        include_str!("../../board/pc-x86_64/board.toml"),
    ];

    fn card(name: &str, last: u8, path: &str) -> Found {
        Found { name: name.into(), mac: [0x52, 0x54, 0, 1, 0, last], path: path.into() }
    }

    fn cards() -> Vec<Found> {
        vec![
            card("eth1", 1, "/sys/devices/pci0000:00/0000:00:04.0/virtio1/net/eth1"),
            card("eth0", 2, "/sys/devices/pci0000:00/0000:00:03.0/virtio0/net/eth0"),
        ]
    }

    fn identity(text: &str) -> Identity {
        Identity::parse(text).unwrap()
    }

    #[test]
    fn every_board_reads() {
        for text in BOARDS {
            let board = parse(text).unwrap();
            assert!(!board.tty.is_empty() && !board.watchdog.is_empty());
        }
    }

    #[test]
    fn cards_are_found_by_path_by_order_and_by_address() {
        let [qemu, pc] = BOARDS.map(|text| parse(text).unwrap());
        let plain = identity("host = \"server1\"");
        let expected = ["eth0".to_owned(), "eth1".to_owned()];
        assert_eq!(choose(&qemu, &plain, cards()).unwrap(), expected);
        assert_eq!(choose(&pc, &plain, cards()).unwrap(), expected);
        let own = "host = \"server1\"\noutside = \"52:54:00:01:00:01\"\ninside = \"1\"";
        assert_eq!(choose(&qemu, &identity(own), cards()).unwrap(), ["eth1", "eth0"]);
    }

    #[test]
    fn a_card_that_is_missing_or_asked_for_twice_is_said_with_those_that_are_there() {
        let board = parse(BOARDS[1]).unwrap();
        let plain = identity("host = \"server1\"");
        let why = choose(&board, &plain, cards()[..1].to_vec()).unwrap_err();
        assert!(why.contains("inside") && why.contains("eth1 52:54:00:01:00:01"), "{why}");
        let twice = identity("host = \"server1\"\ninside = \"1\"");
        assert!(choose(&board, &twice, cards()).unwrap_err().contains("both networks"));
        assert!(choose(&board, &plain, Vec::new()).unwrap_err().contains("there are: none"));
    }

    #[test]
    fn a_host_that_is_not_told_is_asked_for() {
        let template = include_str!("../../image/config/host.toml");
        let why = Identity::parse(template).unwrap_err();
        assert_eq!(why, "no line says which host this is: write host = \"server1\"");
        let why = Identity::parse("host = \"server1\"\noutside = \"0\"").unwrap_err();
        assert!(why.contains("line 2") && why.contains("MAC address"), "{why}");
    }
}
