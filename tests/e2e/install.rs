//! `tandem install` on a host with System V scripts (CentOS 6): it comes, runs, and goes again.
//!
//! In: a host whose /etc/init.d is its own. Out: laws of the script's actions (LSB Core 4.1, 20.2).
//! Must not: write to the machine's own /usr/local. systemd is not run here.

use std::fs;

use crate::host::{Host, text};
use crate::pair::{CONFIG, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, on_a_pair};

const SCRIPT: &str = "/etc/init.d/tandem";
const MANUAL: &str = "/usr/local/share/man/man8/tandem.8";

#[test]
fn a_system_v_host_starts_tandem_and_is_rid_of_it_again() {
    on_a_pair(|pair| {
        pair.stop_tandem(0)?;
        prepare(&pair.servers[0].host)?;
        comes(pair)?;
        goes(pair)
    });
}

fn prepare(host: &Host) -> Outcome<()> {
    fs::create_dir_all(host.path("/etc/init.d")).map_err(text)?;
    fs::rename(host.path("/sbin/tandem"), host.path("/var/tandem")).map_err(text)?;
    host.read(&["mount", "-t", "tmpfs", "tmpfs", "/usr/local/share/man"]).map(drop)
}

fn comes(pair: &Pair) -> Outcome<()> {
    let host = &pair.servers[0].host;
    let exists = |path: &str| host.run(&["test", "-e", path]).is_ok_and(|it| it.status.success());
    let shown = host.read(&["/var/tandem", "install", "--dry-run"])?;
    check(shown.contains(SCRIPT) && shown.contains("# chkconfig: 2345 95 05"), || shown.clone())?;
    check(!exists(SCRIPT) && !exists("/usr/local/sbin/tandem"), || "a dry run writes".into())?;
    let said = host.read(&["/var/tandem", "install"])?;
    check(said.contains("/etc/init.d/tandem start"), || said.clone())?;
    check(exists(MANUAL), || "no manual page".into())?;
    let linked = exists("/etc/rc3.d/S01tandem") || exists("/etc/rc3.d/S95tandem");
    check(linked, || "it is not started at boot".into())?;

    let action =
        |name: &str| -> Outcome<i32> { Ok(host.run(&[SCRIPT, name])?.status.code().unwrap_or(-1)) };
    check(action("status")? == 3, || "status of what does not run".into())?;
    check(action("start")? == 0 && action("status")? == 0, || "it does not start".into())?;
    pair.wait_settled(1, SETTLE_LIMIT)?;
    let first = host.read(&["cat", "/run/tandem/guard.pid"])?;
    check(action("start")? == 0, || "a second start fails".into())?;
    check(host.read(&["cat", "/run/tandem/guard.pid"])? == first, || "it starts twice".into())?;
    check(action("restart")? == 0, || "it does not restart".into())?;
    check(host.read(&["cat", "/run/tandem/guard.pid"])? != first, || "nothing restarts".into())?;
    pair.wait_settled(1, SETTLE_LIMIT)?;
    check(action("nonsense")? == 2, || "an unknown action".into())
}

fn goes(pair: &Pair) -> Outcome<()> {
    let host = &pair.servers[0].host;
    let guard = host.read(&["cat", "/run/tandem/guard.pid"])?;
    host.read(&["/usr/local/sbin/tandem", "uninstall"])?;
    wait_until("the guard is gone", SETTLE_LIMIT, || {
        host.run(&["kill", "-0", guard.trim()]).is_ok_and(|it| !it.status.success())
    })?;
    for path in [SCRIPT, MANUAL, "/usr/local/sbin/tandem", "/etc/rc3.d/S01tandem"] {
        let is_there = host.run(&["test", "-e", path])?.status.success();
        check(!is_there, || format!("{path} is left"))?;
    }
    host.read(&["test", "-e", CONFIG])?;
    check(pair.servers[1].holds_all(), || "the other host does not serve".into())
}
