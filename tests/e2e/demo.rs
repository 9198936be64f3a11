//! The demo: the main job on real parts, told as it happens, judged at the end.
//!
//! In: --json FILE, --keep, --server FLAVOUR. Out: the table, the JSON, exit status 0 only if no
//! address ever was on two hosts, no acknowledged write is missing and both databases are equal.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

use std::process::ExitCode;
use std::time::{Duration, Instant};

mod database;
mod figures;
mod host;
mod load;
mod pair;
mod php;
mod sampler;
mod story;
mod world;
mod writers;

use database::Flavour;
use pair::Pair;
use world::Outcome;

#[derive(Debug)]
struct Options {
    json: Option<String>,
    keep: bool,
    server: String,
}

const USAGE: &str = "usage: scripts/demo [--json FILE] [--keep] [--server mariadb|mysql97|mysql56]";

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    match demo(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

fn options(mut words: impl Iterator<Item = String>) -> Outcome<Options> {
    let mut options = Options { json: None, keep: false, server: "mariadb".into() };
    while let Some(word) = words.next() {
        match word.as_str() {
            "--json" => options.json = Some(words.next().ok_or(USAGE)?),
            "--server" => options.server = words.next().ok_or(USAGE)?,
            "--keep" => options.keep = true,
            _ => return Err(format!("unknown argument {word:?}\n{USAGE}")),
        }
    }
    if !["mariadb", "mysql97", "mysql56"].contains(&options.server.as_str()) {
        return Err(format!("unknown server {:?}\n{USAGE}", options.server));
    }
    Ok(options)
}

/// Runs the story; whether all is well.
fn demo(options: &Options) -> Outcome<bool> {
    let start = Instant::now();
    let mut tell = |line: &str| println!("[{:>5.1} s] {line}", start.elapsed().as_secs_f64());
    let flavour = Flavour::find(&options.server)?;
    let (pair, report) = story::run(flavour, &mut tell);
    let report = match report {
        Ok(report) => report,
        Err(why) => {
            if let Some(mut pair) = pair {
                eprintln!("{}", pair.logs());
                keep(&mut pair, options.keep)?;
            }
            return Err(why);
        }
    };
    println!("\n{}\n{}", report.database, report.table());
    println!(
        "server1 rejoined {:.1} s after power-on; the switchover command took {:.2} s",
        seconds(report.rejoined),
        seconds(report.command)
    );
    println!(
        "{} writes acknowledged, {} rows on both databases, rows equal: {}",
        report.acknowledged,
        report.rows,
        if report.rows_equal { "yes" } else { "no" }
    );
    println!(
        "virtual addresses on both hosts: {:.3} s (sampled every 2 ms, worst interval {:.0} ms)",
        seconds(report.two_holders),
        seconds(report.blind) * 1000.0
    );
    if let Some(file) = &options.json {
        std::fs::write(file, format!("{:#}\n", report.json()))
            .map_err(|error| format!("{file}: {error}"))?;
    }
    let complaints = report.complaints();
    for complaint in &complaints {
        println!("NOT WELL: {complaint}");
    }
    if complaints.is_empty() {
        println!("all is well");
    }
    if let Some(mut pair) = pair {
        keep(&mut pair, options.keep)?;
    }
    Ok(complaints.is_empty())
}

fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

/// Leaves the pair running if asked to, and says how to look inside and how to end it.
fn keep(pair: &mut Pair, is_wanted: bool) -> Outcome<()> {
    if !is_wanted {
        return Ok(());
    }
    println!("\nThe pair keeps running, without load. To look inside:");
    for host in pair.servers.iter().map(|it| &it.host).chain([&pair.client]) {
        if host.is_on() {
            println!("  {:<8} nsenter -t {} -m -u -n -p -r bash", host.name(), host.pid()?);
        }
    }
    println!("  switches nsenter -t {} -n bash", pair.world.pid());
    println!("and there: tandem status; curl or wget http://10.96.153.239/hello.php (client)");
    println!("The disks are in {}.", pair.world.dir().display());
    let sleeper = pair.world.keep()?;
    println!("To end it and remove everything: kill {sleeper}");
    Ok(())
}
