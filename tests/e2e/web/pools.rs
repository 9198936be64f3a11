//! The php-fpm pools of the fault matrix: 24 workers on each host, and what their scripts left.
//!
//! In: a host, orders. Out: a pool, what was executed. Must not: touch tandem.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use crate::host::{Host, text};
use crate::php::{self, PID_FILE};
use crate::world::{Outcome, wait_until};

/// What both hosts get beside the example's configuration: all the workers but the one for pings,
/// and a host that returns has its whole share at once, so that the next row hits it as hard.
pub const TANDEM: &str = "php_requests_max = 23\nphp_status_port = 9010\nslow_start = \"100ms\"\n";
const CONF: &str = "/etc/php-fpm-24.conf";
const MARKS: &str = "/var/www/marks";

/// The application, and the pool in place of the installation's own.
pub fn install(host: &mut Host) -> Outcome<()> {
    let root = host.path("/var/www/html");
    fs::write(root.join("slow.php"), include_str!("../app/slow.php")).map_err(text)?;
    fs::write(root.join("poison.php"), include_str!("../app/poison.php")).map_err(text)?;
    let marks = host.path(MARKS);
    fs::create_dir(&marks).map_err(text)?;
    fs::set_permissions(&marks, fs::Permissions::from_mode(0o777)).map_err(text)?;
    php::kill(host)?;
    start(host, 0)
}

/// Starts the pool; a reload waits for its workers for so many seconds.
pub fn start(host: &mut Host, control_timeout_s: u8) -> Outcome<()> {
    let conf = format!(
        "[global]\npid = {PID_FILE}\nerror_log = /var/log/php-fpm.log\ndaemonize = no\n\
         process_control_timeout = {control_timeout_s}s\n[www]\nuser = www-data\n\
         group = www-data\nlisten = 0.0.0.0:9000\npm = static\npm.max_children = 24\n\
         pm.status_path = /status\npm.status_listen = 0.0.0.0:9010\nping.path = /ping\n"
    );
    fs::write(host.path(CONF), conf).map_err(text)?;
    wait_until("the port is free", Duration::from_secs(5), || {
        host.read(&["bash", "-c", "! : </dev/tcp/127.0.0.1/9000"]).is_ok()
    })?;
    php::start_from(host, CONF)
}

/// What the pool was started with.
pub fn control_timeout_s(host: &Host) -> Outcome<u8> {
    let conf = fs::read_to_string(host.path(CONF)).map_err(text)?;
    let line = conf.lines().find_map(|line| line.strip_prefix("process_control_timeout = "));
    line.and_then(|value| value.trim_end_matches('s').parse().ok()).ok_or_else(|| conf.clone())
}

/// The numbers of all POSTs that began on a host, in order.
pub fn begun(host: &Host) -> Vec<u64> {
    lines(host, "posts").iter().filter_map(|line| line.parse().ok()).collect()
}

pub fn poisoned(host: &Host) -> usize {
    lines(host, "poisoned").len()
}

fn lines(host: &Host, name: &str) -> Vec<String> {
    let path = host.path(MARKS).join(name);
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}
