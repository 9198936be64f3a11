//! The simulator: two real nodes in virtual time, faults drawn from a seed, invariants checked.
//!
//! In: `SEED=n` replays one with its transcript; `SEEDS=n` runs that many; neither: a fixed sweep
//! and the seeds that failed once (`seeds.txt`). Out: the first violation with its last lines.
//! Must not: depend on anything but the seed. Read first: style section 4; then `world`.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    missing_debug_implementations
)]

mod checks;
mod client;
mod errant;
mod faults;
mod host;
mod kernel;
mod marks;
mod mysqld;
mod orders;
mod plants;
mod power;
mod promises;
mod semi_sync;
mod service;
mod sessions;
mod transcript;
mod wire;
mod world;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use plants::Plant;
use world::{Violation, World};

/// Seeds of the fixed sweep, and how many a planted bug may take to be found.
const SWEEP: u64 = 30;
const PLANT_SEEDS_MAX: u64 = 60;

struct Outcome {
    seed: u64,
    violation: Option<Violation>,
    hash: u64,
    simulated: Duration,
    last_lines: String,
}

fn run(seed: u64, plant: Plant, is_shown: bool) -> Outcome {
    marks::begin(seed);
    let mut world = World::new(seed, plant);
    world.transcript.is_shown = is_shown;
    let violation = world.run();
    Outcome {
        seed,
        violation,
        hash: world.transcript.hash(),
        simulated: Duration::from_nanos(world.now.as_nanos()),
        last_lines: world.transcript.last_lines(),
    }
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn kept_seeds() -> Vec<u64> {
    include_str!("seeds.txt")
        .lines()
        .filter_map(|line| line.split_whitespace().next()?.parse().ok())
        .collect()
}

fn complain(outcome: &Outcome) -> Option<String> {
    let violation = outcome.violation.as_ref()?;
    Some(format!(
        "seed {}: {}: {}\n{}replay: SEED={} cargo test --test sim -- --nocapture\n",
        outcome.seed, violation.invariant, violation.what, outcome.last_lines, outcome.seed
    ))
}

/// Runs all seeds on two threads; complaints in the order of the seeds, and the simulated time.
fn sweep(seeds: &[u64], plant: Plant) -> (Vec<(u64, String)>, Duration) {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut found, mut simulated) = (Vec::new(), Duration::ZERO);
        loop {
            let index = usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap();
            let Some(seed) = seeds.get(index) else { return (found, simulated) };
            let outcome = run(*seed, plant, false);
            simulated += outcome.simulated;
            found.extend(complain(&outcome).map(|text| (*seed, text)));
        }
    };
    let results = std::thread::scope(|scope| {
        let threads = [scope.spawn(work), scope.spawn(work)];
        threads.map(|thread| thread.join().unwrap())
    });
    let [(mut found, one), (more, two)] = results;
    found.extend(more);
    found.sort();
    (found, one + two)
}

#[test]
fn the_pair_keeps_its_invariants() {
    marks::install();
    if let Some(seed) = number("SEED") {
        let outcome = run(seed, Plant::None, true);
        assert!(outcome.violation.is_none(), "{}", complain(&outcome).unwrap());
        return;
    }
    let seeds: Vec<u64> = match number("SEEDS") {
        Some(count) => {
            (number("FROM").unwrap_or(1)..).take(usize::try_from(count).unwrap()).collect()
        }
        None => {
            let kept = kept_seeds().into_iter().filter(|seed| *seed > SWEEP);
            kept.chain(1..=SWEEP).collect()
        }
    };
    let started = std::time::Instant::now();
    let (found, simulated) = sweep(&seeds, Plant::None);
    let speed = simulated.as_secs_f64() / started.elapsed().as_secs_f64() / 3600.0;
    println!("{} seeds, {simulated:?} simulated, {speed:.2} hours a second", seeds.len());
    println!("{}", marks::report(SWEEP));
    for (_, text) in &found {
        println!("{}", text.lines().next().unwrap_or_default());
    }
    let first: String = found.iter().take(2).map(|(_, text)| text.as_str()).collect();
    assert!(found.is_empty(), "{} seeds fail\n{first}", found.len());
    let taken_back = errant::TAKEN_BACK.load(Ordering::Relaxed);
    println!("{taken_back} times something was taken back");
    if number("SEEDS").is_none() || seeds.len() >= 2000 {
        assert!(taken_back > 0, "no source came back with what nobody was told is done");
        marks::check(seeds.len());
    }
}

/// D1.
#[test]
fn deterministic() {
    for seed in [3, 11] {
        let (one, two) = (run(seed, Plant::None, false), run(seed, Plant::None, false));
        assert_eq!(one.hash, two.hash, "seed {seed}");
    }
}

#[test]
fn planted_bugs_are_found() {
    if number("SEED").is_some() || number("SEEDS").is_some() {
        return;
    }
    let mut missed = Vec::new();
    for plant in Plant::ALL {
        let found = (1..=PLANT_SEEDS_MAX)
            .find_map(|seed| run(seed, plant, false).violation.map(|v| (seed, v)));
        match found {
            Some((seed, violation)) => println!("{plant:?}: seed {seed}, {}", violation.invariant),
            None => missed.push(plant),
        }
    }
    assert!(missed.is_empty(), "not found within {PLANT_SEEDS_MAX} seeds: {missed:?}");
}
