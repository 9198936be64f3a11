//! What the program may cost: bytes on disk, memory and threads of a pair in service.
//!
//! In: the binary that the runs are on, an idle pair. Out: budgets; whoever breaks one by intent
//! raises it, and says why. Must not: ask for speed of a machine that is shared: a start has the
//! best of several, wake-ups are counts; `scripts/bench vrrp --footprint` compares.
//! Read first: proc(5) "smaps_rollup", "status".

use std::time::{Duration, SystemTime};

use crate::footprint::{self, Process};
use crate::pair::{GUARD_PID, NODE_PID, Pair, binary};
use crate::world::{Outcome, wait_until};
use crate::{check, host, on_a_pair};

/// Of profile quick, which is a tenth larger than what is shipped.
const BINARY_BYTES: u64 = 11 << 20;
/// Memory that is the process's own, in kB: what one host of the pair has less.
const NODE_KB: u64 = 6144;
const GUARD_KB: u64 = 1024;
/// The loop, and what waits for databases and files.
const NODE_THREADS: usize = 8;
/// Of all threads of a node whose pair has nothing to do: beacons, VRRP, looks at the database and
/// at each php-fpm; and a hundred of async-io's thread, which looks every 10 ms whether the loop is
/// stuck in a task (async-io: driver.rs).
const NODE_WAKEUPS: f64 = 300.0;
const GUARD_WAKEUPS: f64 = 15.0;
const IDLE: Duration = Duration::from_secs(3);
/// From the start of the program to what the other host hears of it.
const HEARD: Duration = Duration::from_millis(100);
const STARTS: usize = 3;

#[test]
fn an_idle_pair_keeps_its_budgets() {
    on_a_pair(|pair| {
        let bytes = std::fs::metadata(binary()).map_err(host::text)?.len();
        check(bytes <= BINARY_BYTES, || format!("the binary has {bytes} bytes"))?;
        for server in &pair.servers {
            let node = Process::find(&server.host, "node", NODE_PID)?;
            let guard = Process::find(&server.host, "guard", GUARD_PID)?;
            within("the node", &node, NODE_KB, NODE_THREADS)?;
            within("the guard", &guard, GUARD_KB, 1)?;
            let rows = footprint::measure(&[node, guard], IDLE)?;
            for (row, limit) in
                rows.as_array().into_iter().flatten().zip([NODE_WAKEUPS, GUARD_WAKEUPS])
            {
                let rate = row["wakeups_per_s"].as_f64().unwrap_or(f64::INFINITY);
                check(rate <= limit, || {
                    format!("{}: {rate:.0} wake-ups a second", row["process"])
                })?;
            }
        }
        Ok(())
    });
}

#[test]
fn a_daemon_is_heard_a_tenth_of_a_second_after_its_start() {
    on_a_pair(|pair| {
        let mut best = Duration::MAX;
        for _ in 0..STARTS {
            let seen = pair.servers[0].host.log_lengths();
            pair.stop_tandem(1)?;
            let told = |pair: &Pair| pair.servers[0].host.logs_since(&seen, usize::MAX);
            wait_until("server1 misses it", Duration::from_secs(10), || {
                told(pair).contains("the peer is silent")
            })?;
            let started_at = SystemTime::now();
            pair.start_tandem(1)?;
            let mut heard_at = None;
            wait_until("server1 hears it", Duration::from_secs(5), || {
                heard_at = told(pair)
                    .lines()
                    .find(|line| line.contains("the peer is heard"))
                    .and_then(moment);
                heard_at.is_some()
            })?;
            // Logs have milliseconds, cut off.
            let took = heard_at.ok_or("a moment")?.saturating_sub(of_day(started_at)?);
            println!("heard after {} ms", took.as_millis());
            best = best.min(took);
        }
        check(best <= HEARD, || format!("heard after {best:?} at best"))
    });
}

/// Since midnight, as a line of the log has it: `[2026-11-28T11:55:05.888Z INFO ] ...`.
fn moment(line: &str) -> Option<Duration> {
    let (time, _) = line.split_once('T')?.1.split_once('Z')?;
    let (clock, milliseconds) = time.split_once('.')?;
    let seconds =
        clock.split(':').try_fold(0, |sum, part| Some(sum * 60 + part.parse::<u64>().ok()?));
    Some(Duration::from_secs(seconds?) + Duration::from_millis(milliseconds.parse().ok()?))
}

fn of_day(time: SystemTime) -> Outcome<Duration> {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).map_err(host::text)?;
    Ok(since - Duration::from_secs(since.as_secs() / 86_400 * 86_400))
}

fn within(title: &str, process: &Process, kilobytes: u64, threads: usize) -> Outcome<()> {
    let seen = (process.own_memory()?, process.threads()?);
    println!("{title}: {} kB of its own, {} threads", seen.0, seen.1);
    check(seen.0 <= kilobytes, || format!("{title} has {} kB of its own", seen.0))?;
    check(seen.1 <= threads, || format!("{title} has {} threads", seen.1))
}
