//! A database that hangs, and one that answers and can write no more: the standby serves, and the
//! old source is fenced by the end of its process where nothing milder helps.
//!
//! In: a pair under load. Out: laws of facts/repl.md section 5, 3 and 4.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::faults::has_all_acknowledged;
use crate::host::Host;
use crate::load::{Kind, Load, Rates};
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, database, flavour, on_a_pair};

const MYSQLD_PID: &str = database::PID_FILE;
const SMALL_DISK: &str = "/var/lib/small";
const FILLER: &str = "/var/lib/small/filler";

fn wait_for_role(pair: &Pair, number: usize, role: &str, limit: Duration) -> Outcome<Duration> {
    let what = format!("{} is {role}", pair.servers[number].name());
    wait_until(&what, limit, || pair.servers[number].role() == role)
}

fn shell(host: &Host, script: &str) -> Outcome<()> {
    let output = host.run_within(Duration::from_secs(10), &["sh", "-c", script])?;
    check(output.status.success(), || format!("{script}: {}", output.status))
}

/// server1's database is started again if it was ended, and comes back as a replica: or is refused
/// when it holds a commit that was never answered. No answered write is missing on server2.
fn comes_back(pair: &mut Pair, load: Load) -> Outcome<()> {
    if database::has_ended(&mut pair.servers[0].host) {
        database::start(&mut pair.servers[0].host, &pair.flavour)?;
    }
    let whole = pair.wait_settled(1, SETTLE_LIMIT);
    if pair.servers[0].role() != "refused" {
        whole?;
    }
    let records = load.finish()?;
    has_all_acknowledged(&pair.servers[1].rows()?, &records)
}

#[test]
fn a_source_that_hangs_is_ended_once_the_other_one_serves() {
    on_a_pair(|pair| {
        let load = pair.load_at(Rates { writes: 20, ..Rates::STEADY })?;
        std::thread::sleep(Duration::from_secs(1));
        pair.servers[0].host.signal(MYSQLD_PID, Signal::SIGSTOP)?;
        let at = Instant::now();
        let took = wait_for_role(pair, 1, "active", Duration::from_secs(10))?;
        println!("server2 served after {took:?}");
        wait_until("the hung one is ended", Duration::from_secs(15), || {
            database::has_ended(&mut pair.servers[0].host)
        })?;
        println!("the hung one was ended after {:?}", at.elapsed());
        wait_until("writes go on", Duration::from_secs(10), || load.has_good(Kind::Write, at))?;
        comes_back(pair, load)
    });
}

#[test]
fn a_source_whose_disk_is_full_hands_over() {
    let mut pair = Pair::new(flavour()).unwrap_or_else(|why| panic!("{why}"));
    let run = |pair: &mut Pair| {
        let host = &mut pair.servers[0].host;
        database::kill(host)?;
        let make = format!("mkdir {SMALL_DISK} && mount -t tmpfs -o size=16m tmpfs {SMALL_DISK}");
        shell(host, &make)?;
        let binlog = format!("--log-bin={SMALL_DISK}/binlog");
        database::start_with(host, &pair.flavour, &[&binlog])?;
        for number in 0..2 {
            pair.start_tandem(number)?;
        }
        pair.wait_settled(0, SETTLE_LIMIT)?;
        pair.make_schema()?;
        let load = pair.load_at(Rates { writes: 20, ..Rates::STEADY })?;
        std::thread::sleep(Duration::from_secs(3));
        let fill = format!("cat /dev/zero >{FILLER} 2>/dev/null; test -s {FILLER}");
        let at = Instant::now();
        shell(&pair.servers[0].host, &fill)?;
        let took = wait_for_role(pair, 1, "active", Duration::from_secs(30))?;
        println!("server2 served {took:?} after server1's disk was full");
        wait_until("writes go on", Duration::from_secs(10), || {
            load.has_good(Kind::Write, at + Duration::from_secs(5))
        })?;
        wait_until("server1's database is closed or gone", Duration::from_secs(20), || {
            let closed = database::ask(&pair.servers[0].host, "SELECT @@GLOBAL.read_only");
            closed.is_ok_and(|rows| rows == [["1"]]) || !pair.servers[0].host.is_alive(MYSQLD_PID)
        })?;
        println!("server1 is fenced after {:?}", at.elapsed());
        shell(&pair.servers[0].host, &format!("rm {FILLER}"))?;
        if database::has_ended(&mut pair.servers[0].host) {
            database::start_with(&mut pair.servers[0].host, &pair.flavour, &[&binlog])?;
        }
        comes_back(pair, load)
    };
    if let Err(why) = run(&mut pair) {
        panic!("{why}\n{}", pair.logs());
    }
}
