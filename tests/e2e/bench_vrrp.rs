//! Benchmark: the virtual addresses beside keepalived 2.2: how fast they move, whether they stay
//! where they are, what an idle master costs.
//!
//! In: which parts, how many runs, --json FILE. Out: a table for each part, the same as JSON; exit
//! status 0 only if tandem's addresses were never on both hosts while both reached the switches,
//! and no host took back what the other one served.
//! Times: both pairs run at the same time, each event strikes one and then the other, at a random
//! phase of the advertisements, until the other host's kernel has both addresses.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

mod database;
mod figures;
mod footprint;
mod foreign;
mod host;
mod load;
mod nopreempt;
mod pair;
mod php;
mod sampler;
mod story;
mod world;
mod writers;

use database::Flavour;
use footprint::Process;
use foreign::{KEEPALIVED_PID, Timing, VRRP_PID};
use pair::{EXAMPLE, GUARD_PID, NODE_PID, Pair};
use world::{Link, Outcome, wait_until};

const USAGE: &str = "usage: scripts/bench vrrp [--runs N] [--nopreempt N [--parallel N]] \
                     [--footprint [--seconds N]] [--json FILE]";
const TIMINGS: [(&str, Timing); 2] = [("v2, 1 s", Timing::V2), ("v3, 0.1 s", Timing::V3_FAST)];
const MOVE_LIMIT: Duration = Duration::from_secs(10);
const SETTLE_LIMIT: Duration = Duration::from_secs(45);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    Keepalived,
    Tandem,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Strike {
    Terminate,
    Kill,
    OneCable,
    BothCables,
    Silence,
}

const STRIKES: [(Strike, &str); 5] = [
    (Strike::Terminate, "SIGTERM"),
    (Strike::Kill, "SIGKILL"),
    (Strike::OneCable, "one cable"),
    (Strike::BothCables, "both cables"),
    (Strike::Silence, "silent cut"),
];

/// Two hosts with one speaker on both.
#[derive(Debug)]
struct Lab {
    pair: Pair,
    speaker: Speaker,
    /// Times with the addresses on both hosts though both reached the switches.
    two_holders: Duration,
}

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("bench vrrp: {why}");
            ExitCode::FAILURE
        }
    }
}

/// What was asked for; each part runs if it is named, the times if none is.
#[derive(Debug)]
struct Options {
    runs: usize,
    nopreempt: usize,
    parallel: usize,
    has_footprint: bool,
    idle: Duration,
    file: Option<String>,
}

impl Options {
    fn parse(mut words: impl Iterator<Item = String>) -> Outcome<Self> {
        let idle = Duration::from_secs(60);
        let mut all =
            Self { runs: 0, nopreempt: 0, parallel: 3, has_footprint: false, idle, file: None };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(USAGE);
            let count = |text: String| text.parse::<usize>().map_err(|_| USAGE);
            match word.as_str() {
                "--runs" => all.runs = count(value()?)?,
                "--nopreempt" => all.nopreempt = count(value()?)?,
                "--parallel" => all.parallel = count(value()?)?,
                "--footprint" => all.has_footprint = true,
                "--seconds" => {
                    all.idle = Duration::from_secs(value()?.parse().map_err(|_| USAGE)?);
                }
                "--json" => all.file = Some(value()?),
                _ => return Err(USAGE.into()),
            }
        }
        if all.runs == 0 && all.nopreempt == 0 && !all.has_footprint {
            all.runs = 10;
        }
        Ok(all)
    }
}

fn bench() -> Outcome<bool> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mut all = Map::new();
    let mut is_well = true;
    if options.runs > 0 || options.has_footprint {
        for (name, timing) in TIMINGS {
            let mut labs =
                [Lab::new(Speaker::Keepalived, &timing)?, Lab::new(Speaker::Tandem, &timing)?];
            let mut part = Map::new();
            if options.has_footprint {
                part.insert("footprint".into(), idle(name, &mut labs, options.idle)?);
            }
            if options.runs > 0 {
                is_well &= times(name, &mut labs, options.runs, &mut part)?;
            }
            all.insert(name.to_owned(), Value::Object(part));
        }
    }
    if options.nopreempt > 0 {
        let (is_kept, rows) = nopreempt::bench(options.nopreempt, options.parallel)?;
        is_well &= is_kept;
        all.insert("nopreempt".into(), rows);
    }
    if let Some(file) = options.file {
        std::fs::write(&file, format!("{:#}\n", Value::Object(all)))
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(is_well)
}

/// The two programs on the host that serves, at the same time.
fn idle(name: &str, labs: &mut [Lab; 2], time: Duration) -> Outcome<Value> {
    let mut processes = Vec::new();
    for lab in labs.iter() {
        let holder = lab.wait_whole()?;
        let [host, other] = [holder, 1 - holder].map(|number| &lab.pair.servers[number].host);
        if lab.speaker == Speaker::Keepalived {
            // Both hosts of a pair map the same files of keepalived here, which would halve its
            // PSS; a backup says nothing, so the master does not miss it.
            other.signal(KEEPALIVED_PID, Signal::SIGTERM)?;
        }
        let found = match lab.speaker {
            Speaker::Keepalived => {
                [("keepalived, parent", KEEPALIVED_PID), ("keepalived, VRRP", VRRP_PID)]
            }
            Speaker::Tandem => [("tandem, guard", GUARD_PID), ("tandem, node", NODE_PID)],
        };
        for (title, file) in found {
            processes.push(Process::find(host, title, file)?);
        }
    }
    // What an election and a promotion leave behind is not idle.
    std::thread::sleep(Duration::from_secs(5));
    println!(
        "\n{name}: idle master of two virtual routers, {} s (tandem's node also watches its\n\
         database, the other host and php-fpm, and keeps the splitter and the front)",
        time.as_secs()
    );
    let rows = footprint::measure(&processes, time)?;
    for lab in labs.iter_mut().filter(|lab| lab.speaker == Speaker::Keepalived) {
        if let Some(holder) = lab.holder() {
            foreign::start(&mut lab.pair.servers[1 - holder].host)?;
        }
    }
    Ok(rows)
}

/// Event by event; false if tandem's addresses were on both hosts.
fn times(
    name: &str,
    labs: &mut [Lab; 2],
    runs: usize,
    part: &mut Map<String, Value>,
) -> Outcome<bool> {
    println!(
        "\n{name}: seconds until the other host has both addresses, {runs} runs\n\
         {:<12} {:>10} {:>10} {:>10} {:>10} {:>7}",
        "event", "keepalived", "worst", "tandem", "worst", "ratio"
    );
    let mut rows = Map::new();
    for (strike, title) in STRIKES {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..runs {
            for (lab, times) in labs.iter_mut().zip(&mut times) {
                times.push(lab.strike(strike)?.as_secs_f64());
            }
        }
        rows.insert(title.to_owned(), row(title, times));
    }
    let two = labs[1].two_holders.as_secs_f64();
    println!(
        "addresses on both hosts: keepalived {:.3} s, tandem {two:.3} s",
        labs[0].two_holders.as_secs_f64()
    );
    part.insert("events".into(), Value::Object(rows));
    part.insert("two_holders_s".into(), json!(two));
    Ok(two == 0.0)
}

/// Prints and returns one event.
fn row(title: &str, times: [Vec<f64>; 2]) -> Value {
    let [keepalived, tandem] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        let worst = times.last().copied().unwrap_or(f64::NAN);
        (times.get(times.len() / 2).copied().unwrap_or(f64::NAN), worst)
    });
    let ratio = tandem.0 / keepalived.0;
    println!(
        "{title:<12} {:>10.3} {:>10.3} {:>10.3} {:>10.3} {ratio:>7.2}",
        keepalived.0, keepalived.1, tandem.0, tandem.1
    );
    json!({
        "keepalived": { "median": keepalived.0, "worst": keepalived.1 },
        "tandem": { "median": tandem.0, "worst": tandem.1 },
        "ratio": ratio,
    })
}

impl Lab {
    fn new(speaker: Speaker, timing: &Timing) -> Outcome<Self> {
        let mut pair = Pair::new(Flavour::find("mariadb")?)?;
        for number in 0..2 {
            match speaker {
                Speaker::Keepalived => {
                    let priority = if number == 0 { 101 } else { 100 };
                    foreign::configure(&pair.servers[number].host, timing, priority)?;
                    foreign::start(&mut pair.servers[number].host)?;
                }
                Speaker::Tandem => {
                    pair.configure(number, &timing.tandem(EXAMPLE))?;
                    pair.start_tandem(number)?;
                }
            }
        }
        let lab = Self { pair, speaker, two_holders: Duration::ZERO };
        lab.wait_whole()?;
        Ok(lab)
    }

    /// The server that holds both addresses, when it is one.
    fn holder(&self) -> Option<usize> {
        (0..2).find(|number| {
            self.pair.servers[*number].holds_all() && self.pair.servers[1 - number].holds_none()
        })
    }

    /// One holder, the other one ready to take over.
    fn wait_whole(&self) -> Outcome<usize> {
        wait_until("one host holds both addresses, the other none", SETTLE_LIMIT, || {
            self.holder().is_some_and(|holder| match self.speaker {
                Speaker::Keepalived => true,
                Speaker::Tandem => self.pair.is_settled(holder),
            })
        })
        .map_err(|why| format!("{why}\n{}", self.pair.logs()))?;
        if self.speaker == Speaker::Keepalived {
            // A keepalived that came back has to hear the master before it counts.
            std::thread::sleep(Duration::from_millis(1500));
        }
        self.holder().ok_or_else(|| "the holder changed".to_owned())
    }

    /// Strikes the holder, returns how long the other one took, and mends it all.
    fn strike(&mut self, strike: Strike) -> Outcome<Duration> {
        let holder = self.wait_whole()?;
        std::thread::sleep(foreign::phase());
        let before = self.pair.two_holders();
        let at = Instant::now();
        self.hit(holder, strike)?;
        let what = format!("{:?}: {strike:?} moves the addresses", self.speaker);
        let taker = 1 - holder;
        wait_until(&what, MOVE_LIMIT, || self.pair.servers[taker].holds_all())
            .map_err(|why| format!("{why}\n{}", self.pair.logs()))?;
        let taken = at.elapsed();
        self.mend(holder, strike)?;
        self.wait_whole()?;
        // In a silent cut both sides rightly think the other one dead.
        if strike != Strike::Silence {
            self.two_holders += self.pair.two_holders().saturating_sub(before);
        }
        Ok(taken)
    }

    fn hit(&mut self, number: usize, strike: Strike) -> Outcome<()> {
        let server = &self.pair.servers[number];
        match (strike, self.speaker) {
            (Strike::Terminate, Speaker::Tandem) => server.signal_guard(Signal::SIGTERM),
            (Strike::Terminate, Speaker::Keepalived) => {
                server.host.signal(KEEPALIVED_PID, Signal::SIGTERM)
            }
            (Strike::Kill, Speaker::Tandem) => server.signal_node(Signal::SIGKILL),
            (Strike::Kill, Speaker::Keepalived) => {
                server.host.signal(VRRP_PID, Signal::SIGSTOP)?;
                server.host.signal(KEEPALIVED_PID, Signal::SIGKILL)?;
                server.host.signal(VRRP_PID, Signal::SIGKILL)
            }
            (Strike::OneCable, _) => self.pair.pull(number, &[Link::Outside]),
            (Strike::BothCables, _) => self.pair.pull(number, &Link::ALL),
            (Strike::Silence, _) => self.pair.mute(number, true),
        }
    }

    fn mend(&mut self, number: usize, strike: Strike) -> Outcome<()> {
        match (strike, self.speaker) {
            (Strike::Terminate, Speaker::Tandem) => {
                let server = &mut self.pair.servers[number];
                wait_until("tandem has ended", SETTLE_LIMIT, || {
                    server.host.ended("tandem").is_some()
                })?;
                self.pair.start_tandem(number)
            }
            (Strike::Terminate | Strike::Kill, Speaker::Keepalived) => {
                std::thread::sleep(Duration::from_millis(1500));
                foreign::start(&mut self.pair.servers[number].host)
            }
            // The guard starts it again.
            (Strike::Kill, Speaker::Tandem) => Ok(()),
            (Strike::OneCable, _) => self.pair.replug(number, &[Link::Outside]),
            (Strike::BothCables, _) => self.pair.replug(number, &Link::ALL),
            (Strike::Silence, _) => self.pair.mute(number, false),
        }
    }
}
