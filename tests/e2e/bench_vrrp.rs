//! Benchmark: how fast the virtual addresses move, beside keepalived 2.2, event by event.
//!
//! In: --runs N, --json FILE. Out: a table (median, worst, ratio of medians), the same as JSON;
//! exit status 0 only if tandem's addresses were never on both hosts while both reached the
//! switches.
//! Both pairs run at the same time, each event strikes one and then the other, at a random phase of
//! the advertisements. Time: from the event until the other host's kernel has both addresses.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

mod database;
mod figures;
mod foreign;
mod host;
mod load;
mod pair;
mod php;
mod sampler;
mod story;
mod world;

use database::Flavour;
use foreign::{KEEPALIVED_PID, Timing, VRRP_PID};
use pair::{EXAMPLE, Pair};
use world::{Link, Outcome, wait_until};

const USAGE: &str = "usage: scripts/bench vrrp [--runs N] [--json FILE]";
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

fn bench() -> Outcome<bool> {
    let (mut runs, mut file) = (10_usize, None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--runs" => runs = value.parse().map_err(|_| USAGE)?,
            "--json" => file = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    let mut all = Map::new();
    let mut is_well = true;
    for (name, timing) in [("v2, 1 s", Timing::V2), ("v3, 0.1 s", Timing::V3_FAST)] {
        let mut labs =
            [Lab::new(Speaker::Keepalived, &timing)?, Lab::new(Speaker::Tandem, &timing)?];
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
        is_well &= two == 0.0;
        all.insert(name.to_owned(), json!({ "events": rows, "two_holders_s": two }));
    }
    if let Some(file) = file {
        std::fs::write(&file, format!("{:#}\n", Value::Object(all)))
            .map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(is_well)
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
            (Strike::Silence, _) => self.mute(number, true),
        }
    }

    fn mute(&self, number: usize, is_mute: bool) -> Outcome<()> {
        let name = self.pair.servers[number].name();
        Link::ALL.into_iter().try_for_each(|link| self.pair.world.mute(name, link, is_mute))
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
            (Strike::Silence, _) => self.mute(number, false),
        }
    }
}
