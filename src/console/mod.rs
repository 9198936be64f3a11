//! The console: what operators ask, what they are told, and how it looks on 80 columns.
//!
//! Read first: `message` (the wire), `verbs` (what may be asked), `status` (what is told), `render`
//! (how it looks), `editor` (how a line is typed), `table` (what scripts parse), `explain` (what
//! names mean).

pub mod editor;
pub mod explain;
pub mod finding;
pub mod message;
pub mod metrics;
pub mod note;
pub mod preview;
pub mod render;
pub mod status;
pub mod syslog;
pub mod table;
pub mod verbs;

use std::net::SocketAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crypt::Hash;
use crate::units::{self, Secret};

/// Section `[console]`: who may ask, and where else things are told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Group whose members may look, as root may; acting is root's.
    pub group: String,
    /// Terminals on which the daemon keeps a console, as in `["ttyS0"]`.
    pub tty: Vec<String>,
    /// Speed of the terminals of `tty` in baud, 1200 to 115200 as termios(3) has it.
    pub speed: u32,
    /// Hash of the password that a terminal is asked for, as `tandem hash` prints it; none: whoever
    /// sits there is trusted.
    pub password: Option<Secret>,
    /// A terminal that was logged in and idle for so long asks again.
    #[serde(with = "units::duration")]
    pub idle_limit: Duration,
    /// Where notes go beside standard error, in the form of RFC 5424: a unix socket as in
    /// "/dev/log", or an address of UDP as in "10.0.0.9:514".
    pub syslog: Option<String>,
    /// Where `/metrics` is served, on loopback, as in "127.0.0.1:9105".
    pub metrics: Option<SocketAddr>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            group: "tandem".into(),
            tty: Vec::new(),
            speed: 115_200,
            password: None,
            idle_limit: Duration::from_secs(300),
            syslog: None,
            metrics: None,
        }
    }
}

/// Terminals that the daemon keeps a console on.
const TTYS_MAX: usize = 4;
/// Bits a second that termios(3) has a name for, and that a line of 80 columns can be read at.
pub const SPEEDS: [u32; 8] = [1200, 2400, 4800, 9600, 19_200, 38_400, 57_600, 115_200];

impl Config {
    /// What is wrong with it, and what to write instead.
    pub fn check(&self) -> Result<(), String> {
        if let Some(address) = self.metrics.filter(|address| !address.ip().is_loopback()) {
            return Err(format!(
                "console.metrics: {address} is not a loopback address: write 127.0.0.1:9105, and \
                 let a proxy that asks who comes serve it elsewhere"
            ));
        }
        if !SPEEDS.contains(&self.speed) {
            return Err(format!("console.speed: {}: write one of {SPEEDS:?}", self.speed));
        }
        if self.tty.len() > TTYS_MAX {
            return Err(format!("console.tty: write {TTYS_MAX} at most"));
        }
        if let Some(Secret::Text(hash)) = &self.password
            && Hash::parse(hash).is_none()
        {
            return Err("console.password: write what `tandem hash` prints, which begins with \
                        $6$, and not the password itself"
                .into());
        }
        if let Some(place) = &self.syslog {
            let is_address = place.parse::<SocketAddr>().is_ok();
            if !is_address && !place.starts_with('/') {
                return Err(format!(
                    "console.syslog: {place:?}: write \"/dev/log\" or an address with its port, \
                     as in \"10.0.0.9:514\""
                ));
            }
        }
        Ok(())
    }
}
