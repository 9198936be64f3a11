//! Benchmark: the demo's figures, several runs, median and worst.
//!
//! In: --runs N, or --kills N of the active host on one pair; --server FLAVOUR, --json FILE. Out:
//! a table, the same as JSON; exit status 0 only if every run was well. Not done: a run of
//! keepalived + nginx beside it (the issue has figures).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code, unreachable_pub)]

use std::process::ExitCode;

use serde_json::{Map, Value, json};

mod database;
mod figures;
mod host;
mod kills;
mod load;
mod pair;
mod php;
mod sampler;
mod story;
mod world;
mod writers;

use database::Flavour;
use world::Outcome;

const USAGE: &str = "usage: scripts/bench failover [--runs N | --kills N] \
                     [--server mariadb|mysql97|mysql56] [--json FILE]";

/// Where a figure stands in a report.
const FIGURES: [&str; 20] = [
    "/failover/vip_s",
    "/failover/first_write_s",
    "/failover/gap_s/static",
    "/failover/gap_s/read",
    "/failover/gap_s/write",
    "/failover/failed/static",
    "/failover/failed/read",
    "/failover/failed/write",
    "/failover/lost",
    "/return/rejoined_s",
    "/return/failed/write",
    "/switchover/vip_s",
    "/switchover/first_write_s",
    "/switchover/gap_s/static",
    "/switchover/gap_s/read",
    "/switchover/gap_s/write",
    "/switchover/failed/static",
    "/switchover/failed/read",
    "/switchover/failed/write",
    "/two_holders_s",
];

fn main() -> ExitCode {
    match bench() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("bench failover: {why}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Outcome<bool> {
    let (mut runs, mut kills) = (5_usize, None);
    let (mut server, mut file) = ("mariadb".to_owned(), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        match word.as_str() {
            "--runs" => runs = value.parse().map_err(|_| USAGE)?,
            "--kills" => kills = Some(value.parse().map_err(|_| USAGE)?),
            "--server" => server = value,
            "--json" => file = Some(value),
            _ => return Err(USAGE.into()),
        }
    }
    let flavour = Flavour::find(&server)?;
    let (is_well, all) = match kills {
        Some(count) => kills::run(&flavour, count)?,
        None => measure(&flavour, runs),
    };
    if let Some(file) = file {
        std::fs::write(&file, format!("{all:#}\n")).map_err(|error| format!("{file}: {error}"))?;
    }
    Ok(is_well)
}

/// The demo's figures, so many times.
fn measure(flavour: &Flavour, runs: usize) -> (bool, Value) {
    let mut reports = Vec::new();
    let mut unwell = Vec::new();
    for run in 1..=runs {
        println!("run {run} of {runs}, {}", flavour.title());
        let (pair, report) = story::run(flavour.clone(), &mut |_| {});
        match report {
            Ok(report) => {
                unwell.extend(report.complaints().iter().map(|why| format!("run {run}: {why}")));
                reports.push(report.json());
            }
            Err(why) => unwell.push(format!("run {run}: {why}")),
        }
        drop(pair);
    }
    let summary = summarise(&reports);
    for why in &unwell {
        println!("NOT WELL: {why}");
    }
    let all = json!({
        "name": "failover", "database": flavour.title(), "runs": reports,
        "summary": summary, "unwell": unwell,
    });
    (unwell.is_empty(), all)
}

/// Prints and returns median and worst of each figure.
fn summarise(reports: &[Value]) -> Value {
    let mut summary = Map::new();
    println!("\n{:<26} {:>8} {:>8}", "figure", "median", "worst");
    for figure in FIGURES {
        let mut values: Vec<f64> =
            reports.iter().filter_map(|report| report.pointer(figure)?.as_f64()).collect();
        values.sort_by(f64::total_cmp);
        let (Some(median), Some(worst)) = (values.get(values.len() / 2), values.last()) else {
            continue;
        };
        let name = figure.trim_start_matches('/').replace('/', " ");
        println!("{name:<26} {median:>8.3} {worst:>8.3}");
        summary.insert(name, json!({ "median": median, "worst": worst }));
    }
    Value::Object(summary)
}
