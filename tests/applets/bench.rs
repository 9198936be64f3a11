//! Benchmark: how long the mysql-utilities applets take, beside the originals' figures.
//!
//! In: --runs N, --kills N, --server FLAVOUR, --json FILE. Out: a table (median, worst), the same
//! as JSON; exit status 0 only if no acknowledged write was lost. The servers' files are below
//! TMPDIR: on a busy disk, syncing them is most of what is measured.
//! Not done: the originals beside it (they need Python 2.7; facts/repl.md 1.6 has their means of
//! ten runs on 5.6.24).
#![allow(clippy::disallowed_methods, clippy::disallowed_types, dead_code)]

mod kills;
#[path = "../repl/pair.rs"]
mod pair;
mod said;
mod stage;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use pair::Recipe;
use serde_json::{Value, json};
use stage::{REPLICATE, SWITCH, SWITCH_BACK, Stage};

const USAGE: &str = "usage: scripts/bench repl [--runs N] [--kills N] [--json FILE] \
    [--server mariadb|mysql97|mysql56]";

/// Figure, the original's mean in seconds, what is to be reached.
const FIGURES: [(&str, Option<f64>, Option<f64>); 8] = [
    ("mysqlreplicate", Some(1.291), Some(0.4)),
    ("health", Some(0.266), Some(0.05)),
    ("mysqlrplcheck", Some(0.265), None),
    ("mysqlrplshow", Some(0.261), None),
    ("failover", Some(0.302), Some(0.1)),
    ("switchover", Some(0.481), Some(0.1)),
    ("no writer", None, Some(0.05)),
    ("switchover, loaded", None, None),
];

struct Arguments {
    runs: u32,
    /// Sources that are killed under load, instead of all else.
    kills: u32,
    servers: Vec<&'static str>,
    json: Option<String>,
}

fn main() -> ExitCode {
    let arguments = match parse() {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("bench repl: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    if arguments.kills > 0 {
        return kill_sources(&arguments);
    }
    let (mut report, mut lost_in_all) = (serde_json::Map::new(), 0);
    for server in arguments.servers {
        let Some(recipe) = Recipe::of(server) else { return ExitCode::FAILURE };
        let (figures, lost) = measure(recipe, arguments.runs);
        println!("\n{server}, {} runs, {lost} acknowledged writes lost", arguments.runs);
        println!("{:<20}{:>9}{:>9}{:>10}{:>9}  seconds", "", "median", "worst", "original", "goal");
        let mut of_server = serde_json::Map::new();
        for (name, original, goal) in FIGURES {
            let mut times = figures.get(name).cloned().unwrap_or_default();
            times.sort();
            let (median, worst) = (at(&times, times.len() / 2), at(&times, times.len() - 1));
            let shown = |value: Option<f64>| value.map_or_else(String::new, |v| format!("{v:.3}"));
            let (theirs, wanted) = (shown(original), shown(goal));
            println!("{name:<20}{median:>9.3}{worst:>9.3}{theirs:>10}{wanted:>9}");
            let all: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
            let value = json!({"median_s": median, "worst_s": worst, "original_mean_s": original,
                "goal_s": goal, "runs_s": all});
            of_server.insert(name.to_owned(), value);
        }
        of_server.insert("lost".to_owned(), json!(lost));
        report.insert(server.to_owned(), Value::Object(of_server));
        lost_in_all += lost;
    }
    if let Some(path) = arguments.json {
        let text = format!("{:#}\n", Value::Object(report));
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("bench repl: {path}: {error}");
            return ExitCode::FAILURE;
        }
    }
    if lost_in_all == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Succeeds if nothing acknowledged was lost where semi-synchronous replication was in force.
fn kill_sources(arguments: &Arguments) -> ExitCode {
    let (mut report, mut lost_in_all) = (serde_json::Map::new(), 0);
    println!("source kills under the load of 4 connections: acknowledged, lost, errant, promotion");
    for server in &arguments.servers {
        let Some(recipe) = Recipe::of(server) else { return ExitCode::FAILURE };
        // This build of MySQL 5.6 has no semi-synchronous replication.
        let modes: &[bool] = if *server == "mysql56" { &[false] } else { &[true, false] };
        for is_semi_sync in modes.iter().copied() {
            let times = if is_semi_sync { arguments.kills } else { arguments.kills.div_ceil(10) };
            let mut found = kills::kill_sources(recipe, times, is_semi_sync);
            found.promotions.sort();
            let median = at(&found.promotions, found.promotions.len() / 2);
            let worst = at(&found.promotions, found.promotions.len() - 1);
            let mode = if is_semi_sync { "semi-synchronous" } else { "asynchronous" };
            println!(
                "{server} {mode}, {times} kills: {} acknowledged, {} lost, {} came back errant, \
                 promotion {median:.3} s median, {worst:.3} worst",
                found.acknowledged, found.lost, found.errant
            );
            report.insert(
                format!("{server} {mode}"),
                json!({"kills": times, "acknowledged": found.acknowledged, "lost": found.lost,
                    "errant": found.errant, "promotion_median_s": median,
                    "promotion_worst_s": worst}),
            );
            lost_in_all += if is_semi_sync { found.lost } else { 0 };
        }
    }
    if let Some(path) = &arguments.json
        && let Err(error) = std::fs::write(path, format!("{:#}\n", Value::Object(report)))
    {
        eprintln!("bench repl: {path}: {error}");
        return ExitCode::FAILURE;
    }
    if lost_in_all == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse() -> Result<Arguments, String> {
    let mut arguments = Arguments {
        runs: 10,
        kills: 0,
        servers: vec!["mysql56", "mysql97", "mariadb"],
        json: None,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--runs" | "--kills" => {
                let text = value()?;
                let number = text.parse().map_err(|_| format!("{word} {text}: no number"))?;
                let place =
                    if word == "--runs" { &mut arguments.runs } else { &mut arguments.kills };
                *place = number;
            }
            "--json" => arguments.json = Some(value()?),
            "--server" => {
                let name = value()?;
                arguments.servers.retain(|server| *server == name);
                if arguments.servers.is_empty() {
                    return Err(format!("no server {name}"));
                }
            }
            other => return Err(format!("unknown argument {other}")),
        }
    }
    if arguments.runs == 0 { Err("no runs".to_owned()) } else { Ok(arguments) }
}

type Figures = BTreeMap<&'static str, Vec<Duration>>;

/// One pair through all runs; its data grows a little.
fn measure(recipe: &'static Recipe, runs: u32) -> (Figures, usize) {
    let mut figures = Figures::new();
    let mut stage = Stage::new(recipe);
    let mut lost = 0;
    let admin = "mysqlrpladmin --slaves=root:pw@SERVER2 --rpl-user=rpl:pw";
    stage.write(0..1);
    // The replica gets a copy of nothing: all that the source has is in its binlog.
    for run in 0..runs {
        timed(&mut figures, "mysqlreplicate", &stage, REPLICATE);
        stage.pair.catch_up_b();
        timed(&mut figures, "health", &stage, &format!("{admin} --master=root:pw@SERVER1 health"));
        let both = "--master=root:pw@SERVER1 --slave=root:pw@SERVER2";
        timed(&mut figures, "mysqlrplcheck", &stage, &format!("mysqlrplcheck {both}"));
        let show = "mysqlrplshow --master=root:pw@SERVER1 --discover-slaves-login=root:pw";
        timed(&mut figures, "mysqlrplshow", &stage, show);
        timed(&mut figures, "switchover", &stage, SWITCH);
        timed(&mut figures, "switchover", &stage, SWITCH_BACK);

        let writer = stage.writer(1_000_000 * (run + 1));
        sleep(Duration::from_millis(300));
        timed(&mut figures, "switchover, loaded", &stage, SWITCH);
        sleep(Duration::from_millis(300));
        let written = writer.stop();
        figures.entry("no writer").or_default().push(written.gap);
        lost += written.lost(&stage.pair.b);
        timed(&mut figures, "switchover", &stage, SWITCH_BACK);

        stage.pair.catch_up_b();
        stage.pair.a.crash();
        timed(&mut figures, "failover", &stage, &format!("{admin} --no-health failover"));
        stage.pair.a.start(&["--read-only=1"]);
        let back = "mysqlreplicate --master=root:pw@SERVER2 --slave=root:pw@SERVER1";
        timed(&mut figures, "mysqlreplicate", &stage, &format!("{back} --rpl-user=rpl:pw"));
        timed(&mut figures, "switchover", &stage, SWITCH_BACK);
        stage.forget_source_on_b();
    }
    (figures, lost)
}

fn timed(figures: &mut Figures, name: &'static str, stage: &Stage, line: &str) {
    let began = Instant::now();
    stage.ok(line);
    figures.entry(name).or_default().push(began.elapsed());
}

fn at(times: &[Duration], index: usize) -> f64 {
    times.get(index).map_or(f64::NAN, Duration::as_secs_f64)
}
