//! VRRP as keepalived speaks it: packets, one virtual router a link, and the group of both.
//!
//! Read first: facts/vrrp.md section 1; RFC 9568; keepalived.conf(5).

pub mod group;
pub mod packet;
pub mod router;

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units::{self, Secret};
use packet::Version;

/// Section `[vrrp]`: what both virtual routers share. A plain keepalived peer needs the same.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// 2 (keepalived's default) or 3 (keepalived: vrrp_version).
    #[serde(deserialize_with = "version", serialize_with = "version_number")]
    pub version: Version,
    /// Time between two advertisements; whole seconds in version 2, centiseconds in version 3
    /// (keepalived: advert_int).
    #[serde(with = "units::duration")]
    pub interval: Duration,
    /// Version 2 authentication type PASS: 1 to 8 characters; none when absent (keepalived:
    /// auth_pass).
    pub password: Option<Secret>,
    /// Where advertisements go: to the group 224.0.0.18, to the other host alone, or both, for
    /// networks that carry no multicast (keepalived: unicast_peer). Both kinds are taken.
    pub transport: Transport,
    /// The host of higher priority takes the role back by itself, `preempt_delay` after it is ready
    /// to (keepalived: the lack of `nopreempt`). Between two tandems it is a planned switchover.
    pub preempt: bool,
    /// With `preempt`: how long the host of higher priority must be ready, up to "1000s", and never
    /// less than three seconds (keepalived: preempt_delay).
    #[serde(with = "units::duration")]
    pub preempt_delay: Duration,
}

/// Where advertisements go. Both kinds are taken, whatever is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// To the group, as keepalived does without more words.
    #[default]
    Multicast,
    /// To the other host alone: for networks that carry no multicast.
    Unicast,
    Both,
}

fn version<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Version, D::Error> {
    match u8::deserialize(deserializer)? {
        2 => Ok(Version::V2),
        3 => Ok(Version::V3),
        other => Err(D::Error::custom(format!("version {other}: write 2 or 3"))),
    }
}

fn version_number<S: Serializer>(version: &Version, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u8(match version {
        Version::V2 => 2,
        Version::V3 => 3,
    })
}

impl Config {
    /// What the wire cannot carry, said for a person.
    pub fn check(&self) -> Result<(), String> {
        if !self.preempt && !self.preempt_delay.is_zero() {
            return Err("preempt_delay: without `preempt = true` nothing is taken back".into());
        }
        if self.preempt_delay > Duration::from_secs(1000) {
            return Err("preempt_delay: write \"0s\" to \"1000s\"".into());
        }
        let interval = self.interval;
        let is_carried = match self.version {
            Version::V2 => interval.subsec_nanos() == 0 && (1..=255).contains(&interval.as_secs()),
            Version::V3 => {
                interval.as_millis().is_multiple_of(10)
                    && (10..=40_950).contains(&interval.as_millis())
            }
        };
        match (is_carried, self.version) {
            (true, _) => Ok(()),
            (false, Version::V2) => {
                Err("interval: version 2 carries whole seconds, write \"1s\" to \"255s\"".into())
            }
            (false, Version::V3) => {
                Err("interval: version 3 carries centiseconds, write \"10ms\" to \"40950ms\""
                    .into())
            }
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            version: Version::V2,
            interval: Duration::from_secs(1),
            password: None,
            transport: Transport::default(),
            preempt: false,
            preempt_delay: Duration::ZERO,
        }
    }
}
