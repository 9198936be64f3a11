//! Benchmark: the splitter of a pair in service, beside haproxy in tcp mode, MySQL Router (where
//! the server is of its release) and no proxy at all; once more without its digests.
//!
//! In: --rounds N, --seconds N, --server FLAVOUR, --json FILE. Out: a table, the same as JSON.
//! Each round runs every target in turn, so that the machine's noise hits all alike; a ratio is
//! taken within its round. The gates are on processor time (facts/sql.md 4), each printed as a
//! ratio with its bound: the throughput of one machine says more about its neighbours.
//! Router forwards whole sessions here, as haproxy does; its own splitting wants its metadata.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use mysql::prelude::Queryable;
use mysql::{Conn, OptsBuilder};
use serde::Serialize;
use serde_json::{Map, Value, json};

mod database;
mod host;
mod load;
mod pair;
mod php;
mod sampler;
mod world;
mod writers;

use database::{Flavour, ROOT_PASSWORD};
use host::{Host, text};
use pair::{EXAMPLE, NODE_PID, Pair, SETTLE_LIMIT};
use world::Outcome;

const USAGE: &str = "usage: scripts/bench sql [--rounds N] [--seconds N] \
    [--server mariadb|mysql97|mysql56] [--json FILE]";

const SOURCE: &str = "192.168.3.100";
const REPLICA: &str = "192.168.3.101";
const CONNECTIONS: [usize; 4] = [1, 16, 64, 256];
const HAPROXY_PID: &str = "/run/haproxy-bench.pid";
const ROUTER_PID: &str = "/run/router-bench.pid";
const ROWS: usize = 10_000;
const SHORT_SESSIONS: u32 = 2000;
const IDLE_SESSIONS: usize = 2000;
/// Of /proc/PID/stat.
const TICKS_A_SECOND: f64 = 100.0;

/// What sysbench runs, and the server that answers it behind every target.
const WORKLOADS: [(&str, &str, f64); 2] =
    [("point_select", REPLICA, 1.0), ("read_only", SOURCE, 16.0)];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Direct,
    Haproxy,
    Router,
    Tandem,
    /// The same daemons, started again with `digests = false`.
    WithoutDigests,
}

/// What a query of the splitter may cost at most, as a part of what it costs through another.
const QUERY_GATES: [(Target, f64); 2] = [(Target::Haproxy, 1.0), (Target::Router, 0.6)];
/// The same for a short session: the splitter's goes on over a pooled connection.
const SESSION_GATES: [(Target, f64); 1] = [(Target::Haproxy, 0.6)];

impl Target {
    const fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Haproxy => "haproxy",
            Self::Router => "router",
            Self::Tandem => "tandem",
            Self::WithoutDigests => "no digests",
        }
    }

    const fn is_tandem(self) -> bool {
        matches!(self, Self::Tandem | Self::WithoutDigests)
    }

    /// Where it listens, for statements that `server` answers.
    fn address(self, server: &'static str) -> (&'static str, u16) {
        match self {
            Self::Direct => (server, 3306),
            Self::Haproxy if server == REPLICA => ("127.0.0.1", 3401),
            Self::Haproxy => ("127.0.0.1", 3400),
            Self::Router if server == REPLICA => ("127.0.0.1", 3501),
            Self::Router => ("127.0.0.1", 3500),
            Self::Tandem | Self::WithoutDigests => ("127.0.0.1", 1234),
        }
    }

    const fn pid_file(self) -> Option<&'static str> {
        match self {
            Self::Direct => None,
            Self::Haproxy => Some(HAPROXY_PID),
            Self::Router => Some(ROUTER_PID),
            Self::Tandem | Self::WithoutDigests => Some(NODE_PID),
        }
    }
}

fn main() -> ExitCode {
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("bench sql: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Outcome<()> {
    let (mut rounds, mut seconds, mut server, mut file) = (3u32, 3u64, "mariadb".to_owned(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--rounds" => rounds = value.parse().map_err(|_| USAGE)?,
            "--seconds" => seconds = value.parse().map_err(|_| USAGE)?,
            "--server" => server = value,
            "--json" => file = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    let mut pair = start(Flavour::find(&server)?)?;
    let result = measure(&mut pair, Effort { rounds, seconds });
    let measured = result.map_err(|why| format!("{why}\n{}", pair.logs()))?;
    if let Some(file) = file {
        let all = json!({
            "name": "sql", "database": pair.flavour.title(), "rounds": rounds,
            "seconds": seconds, "figures": measured,
        });
        fs::write(&file, format!("{all:#}\n")).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(())
}

/// How often everything is measured, and for how long each time.
#[derive(Debug, Clone, Copy)]
struct Effort {
    rounds: u32,
    seconds: u64,
}

/// A bound on processor time, beside what was measured.
#[derive(Debug, Serialize)]
struct Gate {
    other: &'static str,
    ratio: f64,
    bound: f64,
    is_met: bool,
}

fn show(gates: &[Gate]) -> String {
    let one = |it: &Gate| {
        let verdict = if it.is_met { "met" } else { "MISSED" };
        format!("  {:.2} of {}'s (<= {}: {verdict})", it.ratio, it.other, it.bound)
    };
    gates.iter().map(one).collect()
}

fn config(digests: bool) -> String {
    let sql = format!("[sql]\nsessions_max = 4096\ndigests = {digests}\n# ");
    EXAMPLE.replacen("[sql] ", &sql, 1)
}

/// A pair in service with sysbench's table, and the other proxies on the active host.
fn start(flavour: Flavour) -> Outcome<Pair> {
    let mut pair = Pair::new(flavour)?;
    for number in [0, 1] {
        pair.configure(number, &config(true))?;
        pair.start_tandem(number)?;
    }
    let settled = pair.wait_settled(0, SETTLE_LIMIT).and_then(|_| pair.make_schema());
    settled.map_err(|why| format!("{why}\n{}", pair.logs()))?;
    for server in &pair.servers {
        database::ask(&server.host, "SET GLOBAL max_connections = 5000")?;
    }
    start_haproxy(&mut pair.servers[0].host)?;
    if let Some(router) = pair.flavour.router.clone() {
        start_router(&mut pair.servers[0].host, &router)?;
    }
    let host = &pair.servers[0].host;
    let size = format!("--table-size={ROWS}");
    let prepare = sysbench("read_only", (SOURCE, 3306), 1, &[&size, "prepare"]);
    run(host, Duration::from_secs(120), &prepare)?;
    let count = || {
        let rows = database::ask(&pair.servers[1].host, "SELECT COUNT(*) FROM app.sbtest1");
        rows.ok().and_then(|rows| rows.first()?.first()?.parse().ok())
    };
    world::wait_until("the table is on the replica", Duration::from_secs(60), || {
        count() == Some(ROWS)
    })?;
    Ok(pair)
}

fn start_haproxy(host: &mut Host) -> Outcome<()> {
    let haproxy = format!(
        "global\n  maxconn 5000\n  nbthread 1\n  pidfile {HAPROXY_PID}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  timeout server 1h\n\
         listen source\n  bind 127.0.0.1:3400\n  server s {SOURCE}:3306\n\
         listen replica\n  bind 127.0.0.1:3401\n  server r {REPLICA}:3306\n"
    );
    fs::write(host.path("/etc/haproxy-bench.cfg"), haproxy).map_err(text)?;
    let script = format!("echo $$ >{HAPROXY_PID}; exec haproxy -db -f /etc/haproxy-bench.cfg");
    host.start("haproxy", &["bash", "-c", &script])?;
    host::wait_for_port(host, 3400, Duration::from_secs(10)).map(drop)
}

/// Router on one thread, like the others. Without TLS it cannot log in for a client whose
/// password the server has not seen since its start, so both servers see it first.
fn start_router(host: &mut Host, router: &[String]) -> Outcome<()> {
    for server in [SOURCE, REPLICA] {
        host.on_network(|| connect(Target::Direct, server).map(drop))??;
    }
    fs::create_dir_all(host.path("/var/lib/router")).map_err(text)?;
    let routes: String = [(SOURCE, 3500), (REPLICA, 3501)]
        .into_iter()
        .map(|(server, port)| {
            format!(
                "[routing:at{port}]\nbind_address=127.0.0.1\nbind_port={port}\n\
                 destinations={server}:3306\nrouting_strategy=first-available\n\
                 protocol=classic\nclient_ssl_mode=DISABLED\nserver_ssl_mode=DISABLED\n\
                 max_connections=5000\nmax_connect_errors=4294967295\n"
            )
        })
        .collect();
    let settings = format!(
        "[DEFAULT]\nlogging_folder=\nruntime_folder=/run\ndata_folder=/var/lib/router\n\
         max_total_connections=10000\n[logger]\nlevel=WARNING\n[io]\nthreads=1\n{routes}"
    );
    fs::write(host.path("/etc/router-bench.cfg"), settings).map_err(text)?;
    let script =
        format!("echo $$ >{ROUTER_PID}; exec {} -c /etc/router-bench.cfg", router.join(" "));
    host.start("router", &["bash", "-c", &script])?;
    host::wait_for_port(host, 3500, Duration::from_secs(20))?;
    let version = host.read(&["bash", "-c", &format!("{} --version", router.join(" "))])?;
    println!("{}", version.trim());
    Ok(())
}

fn measure(pair: &mut Pair, effort: Effort) -> Outcome<Value> {
    let mut targets = vec![Target::Direct, Target::Haproxy];
    targets.extend(pair.flavour.router.as_ref().map(|_| Target::Router));
    targets.push(Target::Tandem);
    let mut all = Map::new();
    let host = &pair.servers[0].host;
    measure_queries(host, &targets, effort, &mut all)?;
    count_calls(host, &targets, effort.seconds, &mut all)?;
    measure_sessions(host, &targets, effort.rounds, &mut all)?;
    for number in [1, 0] {
        pair.stop_tandem(number)?;
        pair.configure(number, &config(false))?;
    }
    for number in [0, 1] {
        pair.start_tandem(number)?;
    }
    pair.wait_settled(0, SETTLE_LIMIT)?;
    if let Some(last) = targets.last_mut() {
        *last = Target::WithoutDigests;
    }
    println!();
    let host = &pair.servers[0].host;
    measure_queries(host, &targets, effort, &mut all)?;
    measure_sessions(host, &targets, effort.rounds, &mut all)?;
    Ok(Value::Object(all))
}

fn measure_queries(
    host: &Host,
    targets: &[Target],
    Effort { rounds, seconds }: Effort,
    all: &mut Map<String, Value>,
) -> Outcome<()> {
    println!(
        "{:<14} {:>4} {:<10} {:>9} {:>6} {:>9} {:>9}  gates on CPU",
        "workload", "conn", "target", "queries/s", "ratio", "CPU s/Mq", "least"
    );
    for (workload, server, queries) in WORKLOADS {
        for connections in CONNECTIONS {
            let work = (workload, queries);
            let mut seen: Vec<Vec<(f64, f64)>> = vec![Vec::new(); targets.len()];
            for _ in 0..rounds {
                for (target, seen) in targets.iter().zip(&mut seen) {
                    seen.push(cell(host, work, *target, server, connections, seconds)?);
                }
            }
            // Target::Direct is the first one.
            let direct = seen.first().cloned().unwrap_or_default();
            let cost = |it: &Vec<(f64, f64)>| it.iter().map(|it| it.1).collect();
            let costs: Vec<(Target, Vec<f64>)> =
                targets.iter().copied().zip(seen.iter().map(cost)).collect();
            for ((target, cost), seen) in costs.iter().zip(&seen) {
                let ratio = median(seen.iter().zip(&direct).map(|(it, base)| it.0 / base.0));
                let rate = median(seen.iter().map(|it| it.0));
                let (cpu, least) = (median(cost.iter().copied()), least(cost));
                let (name, gates) = (target.name(), gates(*target, &costs, &QUERY_GATES));
                println!(
                    "{workload:<14} {connections:>4} {name:<10} {rate:>9.0} {ratio:>6.2} \
                     {cpu:>9.1} {least:>9.1}{}",
                    show(&gates)
                );
                all.insert(
                    format!("{workload} {connections} {name}"),
                    json!({ "queries_per_second": rate, "ratio": ratio,
                        "cpu_seconds_per_million": cpu, "cpu_seconds_per_million_least": least,
                        "gates": gates }),
                );
            }
        }
    }
    Ok(())
}

fn count_calls(
    host: &Host,
    targets: &[Target],
    seconds: u64,
    all: &mut Map<String, Value>,
) -> Outcome<()> {
    println!(
        "
{:<10} {:>23} {:>16} {:>15}",
        "target", "system calls/query at 1", "16 connections", "short session"
    );
    for target in targets.iter().copied().filter(|it| it.pid_file().is_some()) {
        let one = system_calls(host, target, 1, seconds)?;
        let sixteen = system_calls(host, target, 16, seconds)?;
        let session = traced(host, target, || {
            make_short_sessions(host, target)?;
            Ok(f64::from(SHORT_SESSIONS))
        })?;
        println!("{:<10} {one:>23.2} {sixteen:>16.2} {session:>15.1}", target.name());
        all.insert(
            format!("system calls {}", target.name()),
            json!({ "a_query_at_1": one, "a_query_at_16": sixteen, "a_short_session": session }),
        );
    }
    Ok(())
}

fn measure_sessions(
    host: &Host,
    targets: &[Target],
    rounds: u32,
    all: &mut Map<String, Value>,
) -> Outcome<()> {
    let mut seen: Vec<Vec<(f64, f64)>> = vec![Vec::new(); targets.len()];
    for _ in 0..rounds {
        for (target, seen) in targets.iter().zip(&mut seen) {
            seen.push(short_sessions(host, *target)?);
        }
    }
    let cost = |it: &Vec<(f64, f64)>| it.iter().map(|it| it.1).collect();
    let costs: Vec<(Target, Vec<f64>)> =
        targets.iter().copied().zip(seen.iter().map(cost)).collect();
    println!(
        "
{:<10} {:>16} {:>14} {:>18}  gates on CPU",
        "target", "short session ms", "CPU us each", "RSS kB"
    );
    for ((target, cost), seen) in costs.iter().zip(&seen) {
        let each = median(seen.iter().map(|it| it.0));
        let cpu = median(cost.iter().copied());
        let gates = gates(*target, &costs, &SESSION_GATES);
        let (before, after) = idle_sessions(host, *target)?;
        let (name, resident) = (target.name(), format!("{before} -> {after}"));
        println!("{name:<10} {each:>16.2} {cpu:>14.0} {resident:>18}{}", show(&gates));
        all.insert(
            format!("sessions {name}"),
            json!({ "short_session_ms": each, "short_session_cpu_us": cpu,
                "rss_kb_before": before, "rss_kb_idle": after, "idle_sessions": IDLE_SESSIONS,
                "gates": gates }),
        );
    }
    Ok(())
}

/// What `target` cost as a part of what another one did, with the bound of each that was there.
fn gates(target: Target, costs: &[(Target, Vec<f64>)], bounds: &[(Target, f64)]) -> Vec<Gate> {
    let of = |wanted| costs.iter().find(|it| it.0 == wanted).map(|it| it.1.as_slice());
    let Some(own) = of(target).filter(|_| target.is_tandem()) else { return Vec::new() };
    let gate = |&(other, bound): &(Target, f64)| {
        let theirs = of(other)?;
        let ratio = median(own.iter().zip(theirs).map(|(own, theirs)| own / theirs));
        Some(Gate { other: other.name(), ratio, bound, is_met: ratio <= bound })
    };
    bounds.iter().filter_map(gate).collect()
}

/// Queries a second, and processor seconds of the proxy a million queries.
fn cell(
    host: &Host,
    (workload, queries): (&str, f64),
    target: Target,
    server: &'static str,
    connections: usize,
    seconds: u64,
) -> Outcome<(f64, f64)> {
    let (time, size) = (format!("--time={seconds}"), format!("--table-size={ROWS}"));
    let words = sysbench(workload, target.address(server), connections, &[&size, &time, "run"]);
    let before = cpu_seconds(host, target)?;
    let printed = run(host, Duration::from_secs(seconds + 60), &words)?;
    let cpu = cpu_seconds(host, target)? - before;
    let count = (events(&printed)? * queries).max(1.0);
    let elapsed = Duration::from_secs(seconds).as_secs_f64();
    Ok((count / elapsed, cpu * 1e6 / count))
}

fn events(printed: &str) -> Outcome<f64> {
    printed
        .lines()
        .find_map(|line| line.trim().strip_prefix("total number of events:")?.trim().parse().ok())
        .ok_or_else(|| format!("sysbench said: {printed}"))
}

/// System calls of the proxy a query.
fn system_calls(host: &Host, target: Target, connections: usize, seconds: u64) -> Outcome<f64> {
    let (time, size) = (format!("--time={seconds}"), format!("--table-size={ROWS}"));
    let address = target.address(REPLICA);
    let load = sysbench("point_select", address, connections, &[&size, &time, "run"]);
    traced(host, target, || events(&run(host, Duration::from_secs(seconds + 60), &load)?))
}

/// System calls of the proxy, as strace(1) counts them, for each of the things that `work` did.
fn traced(host: &Host, target: Target, work: impl FnOnce() -> Outcome<f64>) -> Outcome<f64> {
    let Some(pid_file) = target.pid_file() else { return Ok(0.0) };
    let start = "strace -f -c -o /tmp/strace -p $(cat \"$0\") >/dev/null 2>&1 & echo $!; sleep 0.5";
    let tracer = host.read(&["bash", "-c", start, pid_file])?;
    let done = work();
    let end = "kill -INT $0; while kill -0 $0 2>/dev/null; do sleep 0.05; done; cat /tmp/strace";
    let printed = host.read(&["bash", "-c", end, tracer.trim()])?;
    let calls: f64 = printed
        .lines()
        .find(|line| line.trim_end().ends_with(" total") && line.trim_start().starts_with("100"))
        .and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .ok_or_else(|| format!("strace said: {printed}"))?;
    Ok(calls / done?.max(1.0))
}

fn sysbench(
    workload: &str,
    (address, port): (&str, u16),
    connections: usize,
    more: &[&str],
) -> Vec<String> {
    let mut words = vec!["sysbench".to_owned(), format!("oltp_{workload}")];
    words.extend([
        format!("--mysql-host={address}"),
        format!("--mysql-port={port}"),
        "--mysql-user=root".to_owned(),
        format!("--mysql-password={ROOT_PASSWORD}"),
        "--mysql-db=app".to_owned(),
        "--db-ps-mode=disable".to_owned(),
        "--rand-type=uniform".to_owned(),
        format!("--threads={connections}"),
    ]);
    words.extend(more.iter().map(|word| (*word).to_owned()));
    words
}

fn run(host: &Host, limit: Duration, words: &[String]) -> Outcome<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let output = host.run_within(limit, &words)?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(printed) } else { Err(format!("{words:?}: {printed}")) }
}

/// As PHP makes them: connect, SET NAMES, a read, leave. Milliseconds and processor time (us) of
/// each.
fn short_sessions(host: &Host, target: Target) -> Outcome<(f64, f64)> {
    let (before, since) = (cpu_seconds(host, target)?, Instant::now());
    make_short_sessions(host, target)?;
    let count = f64::from(SHORT_SESSIONS);
    let each = since.elapsed().as_secs_f64() * 1e3 / count;
    Ok((each, (cpu_seconds(host, target)? - before) * 1e6 / count))
}

fn make_short_sessions(host: &Host, target: Target) -> Outcome<()> {
    host.on_network(|| {
        for _ in 0..SHORT_SESSIONS {
            let mut conn = connect(target, REPLICA)?;
            conn.query_drop("SET NAMES utf8mb4").map_err(text)?;
            conn.query_drop("SELECT c FROM app.sbtest1 WHERE id = 7").map_err(text)?;
        }
        Ok(())
    })?
}

/// Resident memory without and with idle sessions, each after one query.
fn idle_sessions(host: &Host, target: Target) -> Outcome<(u64, u64)> {
    let Some(pid_file) = target.pid_file() else { return Ok((0, 0)) };
    let rss = || -> Outcome<u64> {
        let script = "sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(cat \"$0\")/status";
        let text = host.read(&["bash", "-c", script, pid_file])?;
        text.trim().parse().map_err(|_| format!("{}: VmRSS {text:?}", target.name()))
    };
    let before = rss()?;
    let after = host.on_network(|| {
        let mut all = Vec::with_capacity(IDLE_SESSIONS);
        for _ in 0..IDLE_SESSIONS {
            let mut conn = connect(target, REPLICA)?;
            conn.query_drop("SELECT 1").map_err(text)?;
            all.push(conn);
        }
        rss()
    })??;
    Ok((before, after))
}

fn connect(target: Target, server: &'static str) -> Outcome<Conn> {
    let (address, port) = target.address(server);
    let options = OptsBuilder::new()
        .ip_or_hostname(Some(address))
        .tcp_port(port)
        .prefer_socket(false)
        .user(Some("root"))
        .pass(Some(ROOT_PASSWORD))
        .max_allowed_packet(Some(1 << 24));
    Conn::new(options).map_err(|error| format!("{}: {error}", target.name()))
}

/// User and system time of the proxy so far; 0 where there is none.
fn cpu_seconds(host: &Host, target: Target) -> Outcome<f64> {
    let Some(pid_file) = target.pid_file() else { return Ok(0.0) };
    let stat = host.read(&["bash", "-c", "cat /proc/$(cat \"$0\")/stat", pid_file])?;
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    // Fields 14 and 15; the first after the name is field 3.
    let ticks: Vec<f64> =
        after.split_whitespace().skip(11).take(2).filter_map(|it| it.parse().ok()).collect();
    let &[user, system] = ticks.as_slice() else {
        return Err(format!("{}: /proc/PID/stat {stat:?}", target.name()));
    };
    Ok((user + system) / TICKS_A_SECOND)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

fn least(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::INFINITY, f64::min)
}
