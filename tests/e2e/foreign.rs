//! Debian's keepalived on a host of the scenario.
//!
//! In: a host, version and interval, priority. Out: the configuration that the reference
//! installation has (scenario.md), a running daemon.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::host::{Host, text};
use crate::world::Outcome;

pub const KEEPALIVED_PID: &str = "/run/keepalived.pid";
pub const VRRP_PID: &str = "/run/keepalived-vrrp.pid";
const CONF: &str = "/etc/keepalived.conf";

/// How the wire is timed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub version: u8,
    /// As keepalived writes it, seconds.
    pub advert_int: &'static str,
    /// As tandem writes it.
    pub interval: &'static str,
}

impl Timing {
    pub const V2: Self = Self { version: 2, advert_int: "1", interval: "1s" };
    pub const V3_FAST: Self = Self { version: 3, advert_int: "0.1", interval: "100ms" };

    /// The same in tandem's configuration.
    pub fn tandem(&self, example: &str) -> String {
        match self.version {
            2 => example.to_owned(),
            _ => example
                .replacen("version = 2", "version = 3", 1)
                .replacen("interval = \"1s\"", &format!("interval = \"{}\"", self.interval), 1)
                .replacen("password = \"3489\"\n", "", 1)
                .replacen("[peer] ", "[peer]\ninterval = \"25ms\" ", 1),
        }
    }
}

pub fn configure(host: &Host, timing: &Timing, priority: u8) -> Outcome<()> {
    std::fs::write(host.path(CONF), conf(timing, priority)).map_err(text)
}

/// The scenario's keepalived.conf.
pub fn conf(timing: &Timing, priority: u8) -> String {
    let secret = match timing.version {
        2 => " authentication {\n auth_type PASS\n auth_pass 3489\n }\n",
        _ => "",
    };
    let instance = |name: &str, device: &str, vrid: u8, vip: &str| {
        format!(
            "vrrp_instance {name} {{\n state BACKUP\n interface {device}\n nopreempt\n \
             virtual_router_id {vrid}\n priority {priority}\n advert_int {}\n{secret} \
             virtual_ipaddress {{\n {vip}/24\n }}\n}}\n",
            timing.advert_int
        )
    };
    format!(
        "global_defs {{\n vrrp_version {}\n}}\n\
         vrrp_sync_group vg_1 {{\n group {{\n inside_network\n outside_network\n }}\n}}\n{}{}",
        timing.version,
        instance("inside_network", "eth1", 51, "192.168.3.150"),
        instance("outside_network", "eth0", 50, "10.96.153.239"),
    )
}

pub fn start(host: &mut Host) -> Outcome<()> {
    let words =
        ["keepalived", "-n", "-l", "-D", "-P", "-f", CONF, "-p", KEEPALIVED_PID, "-r", VRRP_PID];
    host.start("keepalived", &words)
}

/// A time below an interval of 1 s: what strikes after it strikes at any phase of the
/// advertisements.
pub fn phase() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut random = tandem::time::Rng::new(u64::from(now.subsec_nanos()) | 1);
    Duration::from_millis(random.below(1000))
}
