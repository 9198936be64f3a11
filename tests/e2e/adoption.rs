//! An old pair is taken over, one host after the other, and serves all the while.
//!
//! In: the scenario as it was: real keepalived, nginx and MySQL on both hosts, haproxy in the place
//! of Atlas. Out: the steps of README's "Taking over a running pair", under load, and what each
//! of them cost. Must not: do anything that is not written there.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::figures::{Event, Figures, lost};
use crate::foreign::{self, KEEPALIVED_PID, Timing};
use crate::host::{Host, text, wait_for_port};
use crate::load::Record;
use crate::pair::{EXAMPLE, INSIDE_VIP, Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, database, flavour, php};

const NGINX_PID: &str = "/run/nginx.pid";
const PROXY_PID: &str = "/run/haproxy.pid";
const PROXY_PORT: u16 = 1234;
/// The load is watched for that long before a step and after it.
const CALM: Duration = Duration::from_secs(2);
/// Writes fail from the moment at which the old source is closed until its addresses have moved:
/// the skew of priority 100, and what a command and a busy machine need.
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// What the old pair has beside keepalived, MySQL and php-fpm.
fn start_old(host: &mut Host, peer: &str) -> Outcome<()> {
    let proxy = format!(
        "global\n  maxconn 500\n  pidfile {PROXY_PID}\ndefaults\n  mode tcp\n  \
         timeout connect 5s\n  timeout client 1h\n  timeout server 1h\nlisten source\n  \
         bind 127.0.0.1:{PROXY_PORT}\n  server s {INSIDE_VIP}:3306\n"
    );
    fs::write(host.path("/etc/haproxy.cfg"), proxy).map_err(text)?;
    let script = format!("echo $$ >{PROXY_PID}; exec haproxy -db -f /etc/haproxy.cfg");
    host.start("haproxy", &["bash", "-c", &script])?;
    let nginx = format!(
        "pid {NGINX_PID};\ndaemon off;\nuser www-data;\nerror_log stderr;\nevents {{}}\nhttp {{\n\
         access_log off;\nclient_body_temp_path /run/b;\nfastcgi_temp_path /run/f;\n\
         proxy_temp_path /run/p;\nuwsgi_temp_path /run/u;\nscgi_temp_path /run/s;\n\
         include /etc/nginx/mime.types;\n\
         upstream php-server {{ server {peer}:9000; server 127.0.0.1:9000; keepalive 4; }}\n\
         server {{\n listen 80;\n root /var/www/html;\n index index.php;\n\
         location ~ \\.php$ {{\n fastcgi_pass php-server;\n include /etc/nginx/fastcgi_params;\n\
         fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;\n}}\n}}\n}}\n"
    );
    fs::write(host.path("/etc/nginx.conf"), nginx).map_err(text)?;
    host.start("nginx", &["nginx", "-c", "/etc/nginx.conf"])?;
    wait_for_port(host, 80, Duration::from_secs(10))?;
    wait_for_port(host, PROXY_PORT, Duration::from_secs(10)).map(drop)
}

/// The old pair in service: server1 has the addresses, server2's database is its replica.
fn old_pair() -> Outcome<Pair> {
    let mut pair = Pair::new(flavour())?;
    let [one, other] = &mut pair.servers;
    start_old(&mut one.host, "192.168.3.101")?;
    start_old(&mut other.host, "192.168.3.100")?;
    database::ask(&one.host, "SET GLOBAL read_only=OFF")?;
    let root = |server: &str| format!("root:{}@{server}:3306", database::ROOT_PASSWORD);
    let (master, slave) =
        (format!("--master={}", root("server1")), format!("--slave={}", root("server2")));
    one.host.read(&["tandem", "mysqlreplicate", &master, &slave, "--rpl-user=rpl:o67DhtaW"])?;
    foreign::configure(&one.host, &Timing::V2, 101)?;
    foreign::start(&mut one.host)?;
    wait_until("server1 has the addresses", SETTLE_LIMIT, || one.holds_all())?;
    foreign::configure(&other.host, &Timing::V2, 100)?;
    foreign::start(&mut other.host)?;
    for statement in [
        "CREATE DATABASE app",
        "CREATE TABLE app.written (id BIGINT PRIMARY KEY, php VARCHAR(64) NOT NULL, \
         server INT NOT NULL)",
    ] {
        database::ask(&one.host, statement)?;
    }
    wait_until("the table is on both", SETTLE_LIMIT, || other.rows().is_ok())?;
    Ok(pair)
}

/// One step: what is done, and the calm before it and after it.
fn step(
    name: &'static str,
    writer: &'static str,
    events: &mut Vec<Event>,
    act: impl FnOnce() -> Outcome<Option<Instant>>,
) -> Outcome<()> {
    std::thread::sleep(CALM);
    let at = Instant::now();
    let moved = act().map_err(|why| format!("{name}: {why}"))?.unwrap_or(at);
    std::thread::sleep(CALM);
    events.push(Event { name, at, until: Instant::now(), moved, writer });
    Ok(())
}

fn end(host: &mut Host, name: &str, pid_file: &str, signal: Signal) -> Outcome<()> {
    host.signal(pid_file, signal)?;
    wait_until(&format!("{name} ends"), Duration::from_secs(10), || host.ended(name).is_some())
        .map(drop)
}

fn say(host: &Host, words: &[&str]) -> Outcome<()> {
    let words = [&["tandem"], words].concat();
    host.read(&words).map(drop)
}

/// Step 1, on the standby: its php-fpm first, since what it asks for on port 1234 goes away.
fn begin(pair: &mut Pair) -> Outcome<Option<Instant>> {
    let host = &mut pair.servers[1].host;
    end(host, "php-fpm", php::PID_FILE, Signal::SIGQUIT)?;
    end(host, "nginx", NGINX_PID, Signal::SIGQUIT)?;
    end(host, "haproxy", PROXY_PID, Signal::SIGTERM)?;
    end(host, "keepalived", KEEPALIVED_PID, Signal::SIGTERM)?;
    pair.start_tandem(1)?;
    wait_until("server2 stands by", SETTLE_LIMIT, || pair.servers[1].role() == "standby")?;
    php::start(&mut pair.servers[1].host)?;
    Ok(None)
}

/// Step 2: PHP of the old host gets no requests of the new front; the old source is closed and its
/// keepalived ended in one breath.
fn go_over(pair: &mut Pair) -> Outcome<Option<Instant>> {
    say(&pair.servers[1].host, &["php", "drain", "server1", "--yes"])?;
    let [old, new] = &pair.servers;
    database::ask(&old.host, "SET GLOBAL read_only=ON")?;
    let rows = database::ask(&old.host, "SELECT REPLACE(@@GLOBAL.gtid_executed, '\n', '')")?;
    let has_all = format!("SELECT GTID_SUBSET('{}', @@GLOBAL.gtid_executed)", rows[0][0]);
    wait_until("server2 has every write", PAUSE_MAX, || {
        database::ask(&new.host, &has_all).is_ok_and(|rows| rows == [["1"]])
    })?;
    pair.servers[0].host.signal(KEEPALIVED_PID, Signal::SIGTERM)?;
    wait_until("server2 has the addresses", PAUSE_MAX, || pair.servers[1].holds_all())?;
    let moved = Instant::now();
    wait_until("server2's database is the source", PAUSE_MAX, || {
        pair.servers[1].status().is_ok_and(|it| it["database"]["state"] == "source")
    })?;
    Ok(Some(moved))
}

/// Step 3, on the old host.
fn follow(pair: &mut Pair) -> Outcome<Option<Instant>> {
    let host = &mut pair.servers[0].host;
    end(host, "nginx", NGINX_PID, Signal::SIGQUIT)?;
    end(host, "haproxy", PROXY_PID, Signal::SIGTERM)?;
    pair.start_tandem(0)?;
    pair.wait_settled(1, SETTLE_LIMIT)?;
    say(&pair.servers[1].host, &["php", "on", "server1"])?;
    Ok(None)
}

/// Step 4: the line goes, on the standby first.
fn forget_keepalived(pair: &mut Pair) -> Outcome<Option<Instant>> {
    for standby in [0, 1] {
        pair.configure(standby, EXAMPLE)?;
        pair.stop_tandem(standby)?;
        pair.start_tandem(standby)?;
        pair.wait_settled(1 - standby, SETTLE_LIMIT)?;
        say(&pair.servers[standby].host, &["switchover", "--yes"])?;
        pair.wait_settled(standby, SETTLE_LIMIT)?;
    }
    Ok(None)
}

fn take_over(pair: &mut Pair) -> Outcome<()> {
    let with_keepalived = EXAMPLE.replacen("[peer] ", "[peer]\nkind = \"keepalived\" ", 1);
    for number in [0, 1] {
        pair.configure(number, &with_keepalived)?;
    }
    let load = pair.load()?;
    let mut events = Vec::new();
    step("standby", "server1", &mut events, || begin(pair))?;
    step("go over", "server2", &mut events, || go_over(pair))?;
    step("the other", "server2", &mut events, || follow(pair))?;
    step("one text", "server1", &mut events, || forget_keepalived(pair))?;
    let records = load.finish()?;
    judge(pair, &events, &records)
}

fn judge(pair: &Pair, events: &[Event], records: &[Record]) -> Outcome<()> {
    println!("{}", crate::figures::HEADING);
    let rows = [pair.servers[0].rows()?, pair.servers[1].rows()?];
    check(rows[0] == rows[1], || "the databases differ".into())?;
    let on_both: BTreeSet<u64> = rows[0].iter().filter_map(|row| row[0].parse().ok()).collect();
    let lost = lost(records, records[0].start, Instant::now(), &on_both);
    check(lost.is_empty(), || format!("acknowledged, and lost: {lost:?}"))?;
    let two = pair.two_holders();
    check(two < Duration::from_millis(300), || format!("two holders for {two:?}"))?;
    for event in events {
        let figures = Figures::of(event, records, 0);
        println!("{}", figures.row());
        let reasons = &figures.reasons;
        let Event { name, at, moved, .. } = *event;
        if name != "go over" {
            check(figures.failed_total() == 0, || format!("{name}: {reasons:?}"))?;
            continue;
        }
        println!("{reasons:?}");
        check(figures.failed_after == [0; 3], || format!("{name}, after the move: {reasons:?}"))?;
        check(figures.gap[2] < PAUSE_MAX, || format!("writes paused: {:?}", figures.gap[2]))?;
        let fails_before = |it: &Record| !it.is_good() && it.end < at;
        check(moved > at && !records.iter().any(fails_before), || {
            format!("{name}: requests failed before it: {reasons:?}")
        })?;
    }
    Ok(())
}

/// The generation of the reference installation alone: with another one it says nothing more.
#[test]
fn an_old_pair_is_taken_over_while_it_serves() {
    if flavour().name != "mysql56" {
        return;
    }
    let mut pair = old_pair().unwrap_or_else(|why| panic!("{why}"));
    if let Err(why) = take_over(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}
