//! The main job: a pair serves, loses a host, gets it back, hands the role back. Demo and test.
//!
//! In: the database's flavour, somebody to tell. Out: a report with figures and what is wrong.
//! Must not: wait blindly where there is something to wait for.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::database::Flavour;
use crate::figures::{Event, Figures, HEADING, lost, seconds};
use crate::load::{Kind, Load, Record};
use crate::pair::{Pair, SETTLE_LIMIT, VIPS};
use crate::sampler::arrival;
use crate::world::{Outcome, wait_until};

#[derive(Debug)]
pub struct Report {
    pub database: String,
    pub failover: Figures,
    pub comeback: Figures,
    pub switchover: Figures,
    /// From switching server1 on until it was a replica that had caught up.
    pub rejoined: Duration,
    /// How long the command `tandem switchover` took.
    pub command: Duration,
    pub two_holders: Duration,
    pub blind: Duration,
    pub rows: usize,
    pub acknowledged: usize,
    pub rows_equal: bool,
}

impl Report {
    pub fn events(&self) -> [&Figures; 3] {
        [&self.failover, &self.comeback, &self.switchover]
    }

    /// What the demo's exit status is about; empty when all is well.
    pub fn complaints(&self) -> Vec<String> {
        let mut all = Vec::new();
        if !self.two_holders.is_zero() {
            let time = self.two_holders.as_secs_f64();
            all.push(format!("a virtual address was on both hosts for {time:.3} s"));
        }
        for event in self.events().iter().filter(|event| event.lost > 0) {
            all.push(format!("{}: {} acknowledged writes lost", event.name, event.lost));
        }
        if !self.rows_equal {
            all.push("the databases do not hold the same rows".into());
        }
        all
    }

    pub fn json(&self) -> Value {
        let mut comeback = self.comeback.json();
        comeback["rejoined_s"] = json!(seconds(self.rejoined));
        let mut switchover = self.switchover.json();
        switchover["command_s"] = json!(seconds(self.command));
        json!({
            "database": self.database,
            "failover": self.failover.json(),
            "return": comeback,
            "switchover": switchover,
            "two_holders_s": seconds(self.two_holders),
            "rows_equal": self.rows_equal,
            "rows": self.rows,
            "acknowledged": self.acknowledged,
            "sampler_blind_s": seconds(self.blind),
        })
    }

    pub fn table(&self) -> String {
        let rows: Vec<String> = self.events().iter().map(|it| it.row()).collect();
        let reasons: Vec<String> = self
            .events()
            .iter()
            .flat_map(|it| it.reasons.iter().map(|why| format!("  {}: {why}", it.name)))
            .collect();
        let mut text = format!("{HEADING}\n{}\n", rows.join("\n"));
        if !reasons.is_empty() {
            text += &format!("why requests failed:\n{}\n", reasons.join("\n"));
        }
        text
    }
}

/// Who is told what happens, as it happens.
pub type Tell<'a> = &'a mut dyn FnMut(&str);

const BASELINE: Duration = Duration::from_secs(5);
/// The scenario's comparison looks at the 17 s after the addresses moved.
const AFTER_FAILOVER: Duration = Duration::from_secs(20);
const AFTER_RETURN: Duration = Duration::from_secs(5);
const AFTER_SWITCHOVER: Duration = Duration::from_secs(6);
const FAILOVER_LIMIT: Duration = Duration::from_secs(30);

/// What remains to be looked at when the load has ended.
#[derive(Debug)]
struct Told {
    failover: Event,
    comeback: Event,
    switchover: Event,
    rejoined: Duration,
    command: Duration,
}

/// Steps 1 to 7. The pair is left in service, in the state it had at the end.
pub fn run(flavour: Flavour, tell: Tell<'_>) -> (Option<Pair>, Outcome<Report>) {
    tell(&format!("1. three hosts, two switches, {} and php-fpm on both servers", flavour.title()));
    let mut pair = match Pair::new(flavour) {
        Ok(pair) => pair,
        Err(why) => return (None, Err(why)),
    };
    let report = play(&mut pair, tell);
    (Some(pair), report)
}

/// Steps 2 to 7, on a pair where tandem has not been started.
pub fn play(pair: &mut Pair, tell: Tell<'_>) -> Outcome<Report> {
    tell("2. tandem starts on both, with the same configuration");
    pair.start_tandem(0)?;
    pair.start_tandem(1)?;
    let time = pair.wait_settled(0, SETTLE_LIMIT)?;
    let time = time.as_secs_f64();
    tell(&format!(
        "   after {time:.1} s: server1 active, both addresses on it; server2 replicates"
    ));
    pair.make_schema()?;

    tell("3. static, read and write requests from the client to the outside address");
    let load = pair.load()?;
    for kind in Kind::ALL {
        let start = Instant::now();
        wait_until(&format!("a {} request succeeds", kind.name()), Duration::from_secs(10), || {
            load.has_good(kind, start)
        })
        .map_err(|why| format!("{why}\n{}", failures(&load.records())))?;
    }
    std::thread::sleep(BASELINE);
    show_status(pair, tell);
    let failover = fail_over(pair, &load, tell)?;
    let (comeback, rejoined) = come_back(pair, tell)?;
    let (switchover, command) = switch_over(pair, &load, tell)?;
    let records = load.finish()?;
    tell("7. the load has ended; comparing what was acknowledged with what the databases hold");
    let told = Told { failover, comeback, switchover, rejoined, command };
    conclude(pair, &records, told)
}

fn fail_over(pair: &mut Pair, load: &Load, tell: Tell<'_>) -> Outcome<Event> {
    tell("4. server1 loses power: both cables, and every process by SIGKILL");
    let at = pair.power_off(0)?;
    let since = |moment: Instant| (moment - at).as_secs_f64();
    wait_until("server2 holds both virtual addresses", FAILOVER_LIMIT, || {
        pair.servers[1].holds_all()
    })?;
    let moved = arrival(&pair.servers[1].spans(), &VIPS, at).ok_or("the addresses have gone")?;
    tell(&format!("   {:.2} s: server2 holds both virtual addresses", since(moved)));
    wait_until("server2 takes a write", FAILOVER_LIMIT, || load.has_good(Kind::Write, at))
        .map_err(|why| format!("{why}\n{}", failures(&load.records())))?;
    tell(&format!("   {:.2} s: a page that writes has succeeded", since(Instant::now())));
    std::thread::sleep(AFTER_FAILOVER.saturating_sub(at.elapsed()));
    Ok(Event { name: "failover", at, until: Instant::now(), moved, writer: "server2" })
}

fn come_back(pair: &mut Pair, tell: Tell<'_>) -> Outcome<(Event, Duration)> {
    tell("5. server1 gets power again, with its old disk");
    let at = Instant::now();
    pair.power_on(0)?;
    let is_discarded = pair.wait_rejoined(0)?;
    let rejoined = at.elapsed();
    let time = rejoined.as_secs_f64();
    if is_discarded {
        tell(
            "   a commit that nobody was answered was on server1 alone: `tandem rejoin --discard`",
        );
    }
    let by = if is_discarded { "" } else { " by itself" };
    tell(&format!("   {time:.1} s: server1 has rejoined{by}, as a replica; it took nothing"));
    std::thread::sleep(AFTER_RETURN);
    let until = Instant::now();
    // No address may move; if one did, that is the figure.
    let moved = arrival(&pair.servers[0].spans(), &VIPS, at).unwrap_or(at);
    show_status(pair, tell);
    Ok((Event { name: "return", at, until, moved, writer: "server2" }, rejoined))
}

fn switch_over(pair: &Pair, load: &Load, tell: Tell<'_>) -> Outcome<(Event, Duration)> {
    tell("6. tandem switchover: server1 gets the role back, under the same load");
    let at = Instant::now();
    let words = ["tandem", "switchover", "--yes"];
    let output = pair.servers[1].host.run_within(Duration::from_secs(60), &words)?;
    let command = at.elapsed();
    let said = String::from_utf8_lossy(&output.stdout);
    for line in said.lines() {
        tell(&format!("   | {line}"));
    }
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        return Err(format!("tandem switchover: {}: {}", output.status, why.trim()));
    }
    pair.wait_settled(0, SETTLE_LIMIT)?;
    let moved = arrival(&pair.servers[0].spans(), &VIPS, at).ok_or("the addresses have gone")?;
    let time = (moved - at).as_secs_f64();
    tell(&format!("   {time:.2} s: server1 holds both virtual addresses"));
    wait_until("a write after the switchover", FAILOVER_LIMIT, || {
        load.has_good(Kind::Write, moved)
    })?;
    std::thread::sleep(AFTER_SWITCHOVER.saturating_sub(at.elapsed()));
    Ok((Event { name: "switchover", at, until: Instant::now(), moved, writer: "server1" }, command))
}

fn conclude(pair: &Pair, records: &[Record], told: Told) -> Outcome<Report> {
    let same = |one: &Vec<Vec<String>>, other: &Vec<Vec<String>>| one == other;
    let mut rows = [Vec::new(), Vec::new()];
    // The replica may be a moment behind; what is still different then is different.
    let _ = wait_until("both databases hold the same rows", Duration::from_secs(10), || {
        rows = [0, 1].map(|number| pair.servers[number].rows().unwrap_or_default());
        same(&rows[0], &rows[1])
    });
    let ids = |number: usize| -> BTreeSet<u64> {
        let first = rows[number].iter().filter_map(|row| row.first());
        first.filter_map(|id| id.parse().ok()).collect()
    };
    let on_both: BTreeSet<u64> = ids(0).intersection(&ids(1)).copied().collect();
    let Told { failover, comeback, switchover, rejoined, command } = told;
    let first = records.first().map_or(failover.at, |it| it.start);
    let last = Instant::now();
    let figures = |event: &Event, from: Instant, to: Instant| {
        Figures::of(event, records, lost(records, from, to, &on_both).len())
    };
    Ok(Report {
        database: pair.flavour.title(),
        failover: figures(&failover, first, comeback.at),
        comeback: figures(&comeback, comeback.at, switchover.at),
        switchover: figures(&switchover, switchover.at, last),
        rejoined,
        command,
        two_holders: pair.two_holders(),
        blind: pair.servers[0].blind().max(pair.servers[1].blind()),
        rows: on_both.len(),
        acknowledged: records.iter().filter(|it| it.kind == Kind::Write && it.is_good()).count(),
        rows_equal: same(&rows[0], &rows[1]) && !rows[0].is_empty(),
    })
}

/// `tandem status` of both hosts, as a person sees it.
pub fn show_status(pair: &Pair, tell: Tell<'_>) {
    for server in &pair.servers {
        let text = match server.host.run(&["tandem", "status"]) {
            Ok(output) => [output.stdout, output.stderr].concat(),
            Err(why) => why.into_bytes(),
        };
        for line in String::from_utf8_lossy(&text).lines() {
            tell(&format!("   | {line}"));
        }
    }
}

/// The last failed requests, for a message.
pub fn failures(records: &[Record]) -> String {
    let failed = records.iter().rev().filter_map(|it| {
        let why = it.result.as_ref().err()?;
        Some(format!(
            "  {} {}: {why}",
            it.kind.name(),
            it.id.map_or(String::new(), |id| id.to_string())
        ))
    });
    failed.take(5).collect::<Vec<_>>().join("\n")
}
