//! The active host loses power again and again, at random moments, under load.
//!
//! In: the database's flavour, how many times. Out: of each time how long until a write was
//! acknowledged, what was lost, who wrote, how the dead host came back; a table of all.
//! Must not: kill while writes are acknowledged by one host alone, where the servers can do better:
//! that is said in the status, and what it costs is known.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tandem::time::Rng;

use crate::database::{self, Flavour};
use crate::figures::{lost, seconds};
use crate::load::{Kind, Load, Rates, Record};
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};

/// A write every 20 ms: as finely is the first one seen.
const RATES: Rates = Rates { statics: 0, reads: 0, writes: 50 };
const MOMENT_MAX: u64 = 2000;
const DURABLE_LIMIT: Duration = Duration::from_secs(30);
const WRITTEN_LIMIT: Duration = Duration::from_secs(30);
/// A pair that is broken is replaced; more than this, and something else is.
const BROKEN_MAX: usize = 3;
/// Of the issue: beyond VRRP's own master-down interval.
const MARGIN: Duration = Duration::from_millis(300);

/// One kill and what came of it.
#[derive(Debug)]
struct Kill {
    first_write: Duration,
    limit: Duration,
    acknowledged: usize,
    lost: Vec<u64>,
    two_holders: Duration,
    two_writers: Duration,
    is_discarded: bool,
    rejoined: Duration,
}

/// Whether all was well; the figures as JSON.
pub fn run(flavour: &Flavour, count: usize) -> Outcome<(bool, Value)> {
    let seed = std::time::UNIX_EPOCH.elapsed().map_or(1, |it| it.as_secs());
    println!("{count} kills of the active host, {}, seed {seed}", flavour.title());
    let mut random = Rng::new(seed);
    let (mut kills, mut broken) = (Vec::new(), Vec::new());
    let mut stage = None;
    for number in 1..=count {
        let (pair, next_id) = match &mut stage {
            Some(stage) => stage,
            none => {
                let mut pair = Pair::in_service(flavour.clone())?;
                pair.watch_writers()?;
                none.insert((pair, 1))
            }
        };
        match strike(pair, next_id, random.next_u64() % MOMENT_MAX) {
            Ok(kill) => {
                println!("kill {number}: {}", kill.line());
                kills.push(kill);
            }
            Err(why) => {
                println!("kill {number}: NOT WELL: {why}\n{}", pair.logs());
                broken.push(format!("kill {number}: {why}"));
                stage = None;
            }
        }
        if broken.len() >= BROKEN_MAX {
            break;
        }
    }
    let is_well = broken.is_empty() && kills.iter().all(Kill::is_well);
    Ok((is_well, conclude(flavour, &kills, &broken)))
}

fn strike(pair: &mut Pair, next_id: &mut u64, milliseconds: u64) -> Outcome<Kill> {
    let active = usize::from(pair.is_settled(1));
    pair.wait_settled(active, SETTLE_LIMIT)?;
    let before = (pair.two_holders(), pair.two_writers());
    let first_id = *next_id;
    let load = pair.load_from(first_id, RATES)?;
    let told = strike_under(pair, &load, active, milliseconds);
    let records = load.finish()?;
    *next_id += records.len() as u64;
    let (at, is_discarded, rejoined) = told?;
    let survivor = &pair.servers[1 - active];
    let is_first = |it: &&Record| it.end > at && it.server() == Some(survivor.name());
    let first = records.iter().filter(is_first).map(|it| it.end).min().ok_or("nothing written")?;
    let rows = format!("SELECT id FROM app.written WHERE id>={first_id}");
    let rows = database::ask(&survivor.host, &rows)?;
    let ids: BTreeSet<u64> = rows.iter().filter_map(|row| row.first()?.parse().ok()).collect();
    let begin = records.first().map_or(at, |it| it.start);
    Ok(Kill {
        first_write: first - at,
        limit: master_down(1 - active) + MARGIN,
        acknowledged: records.iter().filter(|it| it.is_good()).count(),
        lost: lost(&records, begin, Instant::now(), &ids),
        two_holders: pair.two_holders().saturating_sub(before.0),
        two_writers: pair.two_writers().saturating_sub(before.1),
        is_discarded,
        rejoined,
    })
}

/// The moment of the kill, whether the dead host had to be helped, how long it took to come back.
fn strike_under(
    pair: &mut Pair,
    load: &Load,
    active: usize,
    milliseconds: u64,
) -> Outcome<(Instant, bool, Duration)> {
    let begin = Instant::now();
    wait_until("a write succeeds", WRITTEN_LIMIT, || load.has_good(Kind::Write, begin))?;
    if pair.flavour.name != "mysql56" {
        wait_until("writes are acknowledged by both hosts", DURABLE_LIMIT, || {
            let status = pair.servers[active].status().unwrap_or_default();
            status["database"]["durability"] == "by both hosts"
        })?;
    }
    std::thread::sleep(Duration::from_millis(milliseconds));
    let at = pair.power_off(active)?;
    wait_until("a write succeeds", WRITTEN_LIMIT, || load.has_good(Kind::Write, at))
        .map_err(|why| format!("{why}; {}", survivor_at_a_loss(pair, load, 1 - active)))?;
    let on = Instant::now();
    pair.power_on(active)?;
    let is_discarded = pair.wait_rejoined(active)?;
    Ok((at, is_discarded, on.elapsed()))
}

/// What there is to see of a host on which no write succeeds.
fn survivor_at_a_loss(pair: &Pair, load: &Load, number: usize) -> String {
    let server = &pair.servers[number];
    let ask = |query: &str| match database::ask(&server.host, query) {
        Ok(rows) => rows.iter().map(|row| row.join("\t")).collect::<Vec<_>>().join("\n"),
        Err(why) => why,
    };
    let records = load.records();
    let last: Vec<String> = records.iter().rev().take(5).map(|it| format!("{it:?}")).collect();
    format!(
        "seen: {}\nlast of {} answers: {}\n{}\n{}\nstatus {}",
        server.summary(),
        records.len(),
        last.join("\n"),
        ask("SHOW FULL PROCESSLIST"),
        ask("SHOW GLOBAL STATUS LIKE 'rpl_semi%'"),
        server.status().unwrap_or_default(),
    )
}

/// Of VRRP version 2, as the example has it: three intervals of a second, and the skew of the
/// priority of the one who waits.
fn master_down(number: usize) -> Duration {
    let priority = [101, 100][number];
    Duration::from_secs(3) + Duration::from_secs(256 - priority) / 256
}

impl Kill {
    fn is_well(&self) -> bool {
        self.lost.is_empty() && self.two_writers.is_zero() && self.first_write <= self.limit
    }

    fn line(&self) -> String {
        format!(
            "written after {:.2} s (limit {:.2}), {} acknowledged, lost {:?}, two writers {:.3} s, \
             two holders {:.3} s, back after {:.1} s{}",
            self.first_write.as_secs_f64(),
            self.limit.as_secs_f64(),
            self.acknowledged,
            self.lost,
            self.two_writers.as_secs_f64(),
            self.two_holders.as_secs_f64(),
            self.rejoined.as_secs_f64(),
            if self.is_discarded { " by `tandem rejoin --discard`" } else { " by itself" },
        )
    }

    fn json(&self) -> Value {
        json!({
            "first_write_s": seconds(self.first_write),
            "limit_s": seconds(self.limit),
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "two_holders_s": seconds(self.two_holders),
            "two_writers_s": seconds(self.two_writers),
            "discarded": self.is_discarded,
            "rejoined_s": seconds(self.rejoined),
        })
    }
}

fn conclude(flavour: &Flavour, kills: &[Kill], broken: &[String]) -> Value {
    let median_and_worst = |of: &dyn Fn(&Kill) -> Duration| {
        let mut all: Vec<Duration> = kills.iter().map(of).collect();
        all.sort();
        let at = |index: usize| all.get(index).map_or(0.0, |it| it.as_secs_f64());
        (at(all.len() / 2), at(all.len().saturating_sub(1)))
    };
    let lost: usize = kills.iter().map(|it| it.lost.len()).sum();
    let discarded = kills.iter().filter(|it| it.is_discarded).count();
    let late = kills.iter().filter(|it| it.first_write > it.limit).count();
    let acknowledged: usize = kills.iter().map(|it| it.acknowledged).sum();
    let (limit, _) = median_and_worst(&|it| it.limit);
    println!("\n{:<44} {:>8} {:>8} {:>8}", flavour.title(), "median", "worst", "limit");
    let row = |name: &str, of: &dyn Fn(&Kill) -> Duration, limit: &str| {
        let (median, worst) = median_and_worst(of);
        println!("{name:<44} {median:>8.3} {worst:>8.3} {limit:>8}");
    };
    row("kill to first acknowledged write, s", &|it| it.first_write, &format!("{limit:.3}"));
    row("two writable holders, s", &|it| it.two_writers, "0");
    row("two holders, s", &|it| it.two_holders, "");
    row("power on to replica, s", &|it| it.rejoined, "");
    println!(
        "{} kills; {acknowledged} writes acknowledged, {lost} lost; {late} later than the limit \
         (master-down interval + 0.3 s); {} came back by themselves, {discarded} were refused and \
         by `tandem rejoin --discard`; {} broken",
        kills.len(),
        kills.len() - discarded,
        broken.len(),
    );
    json!({
        "name": "failover-kills", "database": flavour.title(), "lost": lost, "late": late,
        "acknowledged": acknowledged, "discarded": discarded, "broken": broken,
        "kills": kills.iter().map(Kill::json).collect::<Vec<_>>(),
    })
}
