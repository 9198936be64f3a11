//! Beacons: what each host tells the other about itself, authenticated, on both links.
//!
//! In: datagrams. Out: datagrams, what is known of the peer. Must not: decide a role.

use std::time::Duration;

use serde::Deserialize;

use crate::units::{self, Secret};

/// Section `[peer]`: the conversation of the two daemons.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Key of the message authentication code; the same on both hosts, at least 16 characters.
    pub key: Secret,
    /// UDP port on both links.
    #[serde(default = "default_port")]
    pub port: u16,
    /// Time between two beacons on each link.
    #[serde(default = "default_interval", deserialize_with = "units::duration")]
    pub interval: Duration,
}

const fn default_port() -> u16 {
    7423
}

const fn default_interval() -> Duration {
    Duration::from_millis(200)
}
