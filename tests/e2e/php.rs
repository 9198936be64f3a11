//! php-fpm of a host, and the small application that both hosts carry.
//!
//! In: orders. Out: php-fpm on port 9000 of every address with eight workers; the application in
//! /var/www/html: a static file, a page that reads, a page that writes. Both pages go through
//! 127.0.0.1:1234. Must not: serve HTTP; tandem does.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::host::{Host, text, wait_for_port};
use crate::world::Outcome;

const CONFIG_FILE: &str = "/etc/php-fpm.conf";
pub const PID_FILE: &str = "/run/php/fpm.pid";
const LOG: &str = "php-fpm";

/// A static file of 1 KB, so that a wrong byte or a missing one is seen.
pub fn static_text() -> String {
    let mut text = String::new();
    for line in 0..16 {
        text += &format!("{line:02} a line of a static file: what comes back is compared.....\n");
    }
    text
}

const FILES: [(&str, &str); 4] = [
    ("index.php", include_str!("app/hello.php")),
    ("hello.php", include_str!("app/hello.php")),
    ("read.php", include_str!("app/read.php")),
    ("write.php", include_str!("app/write.php")),
];

const CONFIG: &str = "\
[global]
pid = /run/php/fpm.pid
error_log = /var/log/php-fpm.log
daemonize = no
[www]
user = www-data
group = www-data
listen = 0.0.0.0:9000
pm = static
pm.max_children = 8
pm.status_path = /status
ping.path = /ping
catch_workers_output = yes
";

/// Writes the application and the configuration to the host's disk.
pub fn install(host: &Host) -> Outcome<()> {
    fs::write(host.path(CONFIG_FILE), CONFIG).map_err(text)?;
    let root = host.path("/var/www/html");
    for (name, content) in FILES {
        fs::write(root.join(name), content).map_err(text)?;
    }
    fs::write(root.join("static.txt"), static_text()).map_err(text)
}

pub fn start(host: &mut Host) -> Outcome<()> {
    start_from(host, CONFIG_FILE)
}

/// The same with another configuration.
pub fn start_from(host: &mut Host, config: &str) -> Outcome<()> {
    host.start(LOG, &["php-fpm8.2", "-F", "-O", "-y", config])?;
    wait_for_port(host, 9000, Duration::from_secs(10)).map(drop)
}

/// Which processes of php-fpm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    Master,
    Workers,
    All,
}

/// Sends a signal to them all in one go.
pub fn signal(host: &Host, signal: Signal, whom: Whom) -> Outcome<()> {
    let whom = match whom {
        Whom::Master => "$p",
        Whom::Workers => "$kids",
        Whom::All => "$p $kids",
    };
    let script = "p=$(cat \"$0\"); kids=$(cat /proc/$p/task/$p/children); kill -$1 WHOM";
    let number = (signal as i32).to_string();
    host.read(&["bash", "-c", &script.replace("WHOM", whom), PID_FILE, &number]).map(drop)
}

/// Kills the master and the workers: the port refuses from now on.
pub fn kill(host: &Host) -> Outcome<()> {
    // The workers are the master's children; they end by themselves only when asked.
    signal(host, Signal::SIGKILL, Whom::All)
}

/// Stops the master in order.
pub fn stop(host: &Host) -> Outcome<()> {
    host.signal(PID_FILE, Signal::SIGTERM)
}
