//! VRRP as keepalived speaks it: packets, one virtual router a link, and the group of both.
//!
//! Read first: facts/vrrp.md section 1; RFC 9568; keepalived.conf(5).

pub mod group;
pub mod packet;
pub mod router;

use std::time::Duration;

use serde::Deserialize;

use crate::units::{self, Secret};

/// Section `[vrrp]`: what both virtual routers share. A plain keepalived peer needs the same.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// 2 (keepalived's default).
    pub version: u8,
    /// Time between two advertisements; whole seconds in version 2 (keepalived: advert_int).
    #[serde(deserialize_with = "units::duration")]
    pub interval: Duration,
    /// Version 2 authentication type PASS: at most 8 characters; none when absent.
    pub password: Option<Secret>,
}

impl Default for Config {
    fn default() -> Self {
        Self { version: 2, interval: Duration::from_secs(1), password: None }
    }
}
