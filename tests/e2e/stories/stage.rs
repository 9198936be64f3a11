//! The stage: one pair in service, and what is looked at around every story.
//!
//! In: stories. Out: a line for each: how long it took, what it measured; at the end a failure that
//! lists all that is wrong. A story that is broken gets the pair after it replaced by a fresh one.
//! Must not: help the pair, but by the command that its own status names.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::database;
use crate::figures::lost;
use crate::host::Lengths;
use crate::load::{Kind, Load, Rates, Record};
use crate::pair::{Pair, SETTLE_LIMIT};
use crate::story::failures;
use crate::world::{Outcome, wait_until};
use crate::{check, flavour};

use super::KNOWN;

/// Enough to notice a gap, and little enough to leave the machine to the two hosts.
const RATES: Rates = Rates { statics: 5, reads: 5, writes: 20 };
/// Writes that succeed before anything happens.
const BEFORE: usize = 4;
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// Of a host that serves and hears at once that the other one does; over all addresses together.
const HEARD_WITHIN: Duration = Duration::from_millis(200);
/// The longest that a write may take to succeed once the pair is whole.
const FLOW_LIMIT: Duration = Duration::from_secs(10);
/// A replica that was given up on is trusted again after 5 s.
const TRUST_LIMIT: Duration = Duration::from_secs(20);

/// Who serves in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Stays,
    Moves,
    Either,
}

type Action = Rc<dyn Fn(&mut Scene<'_>) -> Outcome<()>>;

#[derive(Clone)]
pub struct Story {
    name: String,
    ending: Ending,
    action: Action,
    /// Why an address may be on both hosts for a while. Two that write are never excused.
    two_holders: Option<&'static str>,
}

impl Story {
    pub fn new(
        name: impl Into<String>,
        ending: Ending,
        action: impl Fn(&mut Scene<'_>) -> Outcome<()> + 'static,
    ) -> Self {
        Self { name: name.into(), ending, action: Rc::new(action), two_holders: None }
    }

    pub fn with_two_holders(mut self, why: &'static str) -> Self {
        self.two_holders = Some(why);
        self
    }
}

/// A pair in which something is about to happen.
pub struct Scene<'a> {
    pub pair: &'a mut Pair,
    pub load: &'a Load,
    /// Who served when the story began, and who stood by.
    pub active: usize,
    pub standby: usize,
    told: Vec<String>,
}

impl Scene<'_> {
    /// A word for the line of this story.
    pub fn tell(&mut self, what: String) {
        self.told.push(what);
    }

    pub fn role(&self, number: usize) -> String {
        self.pair.servers[number].role()
    }

    pub fn wait_role(&self, number: usize, role: &str, limit: Duration) -> Outcome<Duration> {
        let what = format!("{} is {role}", self.pair.servers[number].name());
        wait_until(&what, limit, || self.role(number) == role)
            .map_err(|why| format!("{why}; seen: {}", seen(self.pair)))
    }

    /// A write that began after `since` succeeds; tells how long that took.
    pub fn writes_go_on(&mut self, since: Instant, limit: Duration) -> Outcome<()> {
        wait_until("a write succeeds", limit, || self.load.has_good(Kind::Write, since)).map_err(
            |why| format!("{why}; seen: {}\n{}", seen(self.pair), failures(&self.load.records())),
        )?;
        let records = self.load.records();
        let good = records.iter().filter(|it| it.kind == Kind::Write && it.is_good());
        let first = good.filter(|it| it.start > since).map(|it| it.end).min().unwrap_or(since);
        self.tell(format!("written after {:.2} s", (first - since).as_secs_f64()));
        Ok(())
    }

    /// The other host serves, addresses and database, and takes a write.
    pub fn taken_over(&mut self, since: Instant, limit: Duration) -> Outcome<()> {
        let standby = self.standby;
        wait_until("the standby has the addresses", limit, || {
            self.pair.servers[standby].holds_all()
        })
        .map_err(|why| format!("{why}; seen: {}", seen(self.pair)))?;
        self.wait_role(standby, "active", Duration::from_secs(10))?;
        self.writes_go_on(since, Duration::from_secs(5))
    }

    /// For so long nobody moves: long enough for an election, had there been one.
    pub fn nobody_moves(&self, time: Duration) -> Outcome<()> {
        std::thread::sleep(time);
        let (active, standby) = (&self.pair.servers[self.active], &self.pair.servers[self.standby]);
        let is_so = active.holds_all() && standby.holds_none() && active.role() == "active";
        check(is_so, || format!("the role moved: {}", seen(self.pair)))
    }

    /// Runs `tandem` with these words on a host: whether it succeeded, and what it said.
    pub fn tandem(&self, number: usize, words: &[&str]) -> Outcome<(bool, String)> {
        tandem(self.pair, number, words)
    }
}

pub fn tandem(pair: &Pair, number: usize, words: &[&str]) -> Outcome<(bool, String)> {
    let words: Vec<&str> = [&["tandem"], words].concat();
    let output = pair.servers[number].host.run_within(COMMAND_LIMIT, &words)?;
    let said = [output.stdout, output.stderr].map(|it| String::from_utf8_lossy(&it).into_owned());
    Ok((output.status.success(), said.concat()))
}

/// Both hosts in a line.
pub fn seen(pair: &Pair) -> String {
    pair.servers.iter().map(crate::pair::Server::summary).collect::<Vec<_>>().join("; ")
}

/// Every finding and the state of the database's job, as words.
pub fn findings(pair: &Pair, number: usize) -> String {
    let Ok(status) = pair.servers[number].status() else { return String::new() };
    let all = status["findings"].as_array().cloned().unwrap_or_default();
    all.iter().filter_map(|it| it.as_str()).collect::<Vec<_>>().join("; ")
}

/// Whether this build of the server has semi-synchronous replication at all.
pub fn has_semi_sync(pair: &Pair) -> bool {
    pair.flavour.name != "mysql56"
}

/// Plays those that were asked for, on one pair for as long as none breaks it.
pub fn play(stories: &[Story]) {
    let wanted = std::env::var("TANDEM_STORY").unwrap_or_default();
    let mut pair = None;
    let mut next_id = 1;
    let (mut broken, mut known) = (Vec::new(), 0);
    let wanted: Vec<&Story> = stories.iter().filter(|it| it.name.contains(&wanted)).collect();
    for story in &wanted {
        let stage = pair.get_or_insert_with(|| {
            next_id = 1;
            let mut pair = Pair::in_service(flavour()).unwrap_or_else(|why| panic!("{why}"));
            pair.watch_writers().unwrap_or_else(|why| panic!("{why}"));
            pair
        });
        let begin = [0, 1].map(|number| stage.servers[number].host.log_lengths());
        let start = Instant::now();
        let told = play_one(stage, story, &mut next_id);
        let time = start.elapsed().as_secs_f64();
        match told {
            Ok(told) => println!("story {:5.1} s  {}: {}", time, story.name, told.join(", ")),
            Err(why) => {
                let reason = KNOWN.iter().find(|(name, _)| *name == story.name);
                let word = if reason.is_some() { "KNOWN " } else { "BROKEN" };
                println!(
                    "story {time:5.1} s  {word} {}: {why}\n{}",
                    story.name,
                    logs(stage, &begin)
                );
                match reason {
                    Some((_, reason)) => {
                        known += 1;
                        println!("known: {reason}");
                    }
                    None => broken.push(format!("{}: {why}", story.name)),
                }
                pair = None;
            }
        }
    }
    let (all, bad) = (wanted.len(), broken.len());
    println!("{} of {all} stories are well, {known} broken as is known", all - bad - known);
    assert!(broken.is_empty(), "{bad} of {all} stories are broken:\n{}", broken.join("\n"));
}

fn logs(pair: &Pair, begin: &[Lengths; 2]) -> String {
    let log = |number: usize| pair.servers[number].host.logs_since(&begin[number], 120);
    log(0) + &log(1)
}

fn play_one(pair: &mut Pair, story: &Story, next_id: &mut u64) -> Outcome<Vec<String>> {
    let active = usize::from(pair.is_settled(1));
    pair.wait_settled(active, SETTLE_LIMIT)?;
    wait_durable(pair, active)?;
    let before = (pair.two_holders(), pair.two_writers());
    let load = pair.load_from(*next_id, RATES)?;
    let mut told = Vec::new();
    let played = play_under(pair, story, active, &load, &mut told);
    // Its requests end before the next story's begin, however this one ended.
    let records = load.finish()?;
    *next_id += records.iter().filter(|it| it.kind == Kind::Write).count() as u64;
    played?;
    let holders = pair.two_holders().saturating_sub(before.0);
    let writers = pair.two_writers().saturating_sub(before.1);
    for (what, both) in [("two holders", holders), ("two writable holders", writers)] {
        match story.two_holders {
            Some(why) if !both.is_zero() => {
                // Not for longer than it takes to hear the other one say that it serves.
                check(both <= HEARD_WITHIN, || format!("{what} for {both:?}"))?;
                told.push(format!("{what} for {both:?}, {why}"));
            }
            Some(_) | None => check(both.is_zero(), || format!("{what} for {both:?}"))?,
        }
    }
    nothing_is_lost(pair, &records, &mut told)?;
    Ok(told)
}

/// The story itself, and the pair's way back.
fn play_under(
    pair: &mut Pair,
    story: &Story,
    active: usize,
    load: &Load,
    told: &mut Vec<String>,
) -> Outcome<()> {
    let is_under_way = || {
        let records = load.records();
        records.iter().filter(|it| it.kind == Kind::Write && it.is_good()).count() >= BEFORE
    };
    wait_until("writes flow", FLOW_LIMIT, is_under_way)
        .map_err(|why| format!("{why}\n{}", failures(&load.records())))?;
    let standby = 1 - active;
    let mut scene = Scene { pair, load, active, standby, told: Vec::new() };
    let played = (story.action)(&mut scene);
    told.append(&mut scene.told);
    played?;
    let now_active = make_whole(pair, told)?;
    let is_as_told = match story.ending {
        Ending::Stays => now_active == active,
        Ending::Moves => now_active != active,
        Ending::Either => true,
    };
    check(is_as_told, || format!("{:?} was to be: {}", story.ending, seen(pair)))?;
    let whole_at = Instant::now();
    wait_until("a write succeeds in the end", FLOW_LIMIT, || load.has_good(Kind::Write, whole_at))
        .map(drop)
        .map_err(|why| format!("{why}; seen: {}\n{}", seen(pair), failures(&load.records())))
}

/// Acknowledged means on both hosts, where the servers can do that.
pub fn wait_durable(pair: &Pair, active: usize) -> Outcome<()> {
    if !has_semi_sync(pair) {
        return Ok(());
    }
    let durability = || {
        let status = pair.servers[active].status().unwrap_or_default();
        status["database"]["durability"].as_str().unwrap_or_default().to_owned()
    };
    wait_until("writes are acknowledged by both hosts", TRUST_LIMIT, || {
        durability() == "by both hosts"
    })
    .map(drop)
    .map_err(|why| format!("{why}: {}", durability()))
}

/// Waits until the pair is whole by itself, or by the command that a refused host names. Returns
/// who serves.
pub fn make_whole(pair: &mut Pair, told: &mut Vec<String>) -> Outcome<usize> {
    let since = Instant::now();
    let mut asked = None;
    let mut looked_at = since;
    loop {
        if looked_at.elapsed() > Duration::from_secs(1) {
            looked_at = Instant::now();
            restart_databases(pair, told)?;
        }
        if let Some(active) = [0, 1].into_iter().find(|it| is_whole(pair, *it)) {
            told.push(format!("whole after {:.1} s", since.elapsed().as_secs_f64()));
            return Ok(active);
        }
        let refused = [0, 1].into_iter().find(|it| pair.servers[*it].role() == "refused");
        if let (Some(number), None) = (refused, &asked)
            && let Some(command) = named_command(&findings(pair, number))
        {
            told.push(format!("refused, says `{command}`"));
            let words: Vec<&str> = command.split_whitespace().skip(1).chain(["--yes"]).collect();
            let (is_done, said) = tandem(pair, number, &words)?;
            check(is_done, || format!("{command}: {said}"))?;
            asked = Some(command);
        }
        let all = [0, 1].map(|number| findings(pair, number)).join(" | ");
        check(since.elapsed() < SETTLE_LIMIT, || {
            format!("the pair does not get whole: {}; findings: {all}", seen(pair))
        })?;
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// One serves, and the other one's database follows and has caught up.
pub fn is_whole(pair: &Pair, active: usize) -> bool {
    let follows = |it: &crate::pair::Server| {
        it.status().is_ok_and(|status| status["database"]["lag_seconds"] == 0)
    };
    pair.is_settled(active) && follows(&pair.servers[1 - active])
}

/// What an init system does with a database that ended, or was ended by tandem.
fn restart_databases(pair: &mut Pair, told: &mut Vec<String>) -> Outcome<()> {
    for server in &mut pair.servers {
        if server.host.is_on() && database::has_ended(&mut server.host) {
            told.push(format!("the database of {} was started again", server.name()));
            database::start(&mut server.host, &pair.flavour)?;
        }
    }
    Ok(())
}

/// The command between back quotes that a sentence names.
fn named_command(sentence: &str) -> Option<String> {
    let from = sentence.find("`tandem ")? + 1;
    let length = sentence[from..].find('`')?;
    Some(sentence[from..from + length].to_owned())
}

/// Every write that was acknowledged is on both hosts, which hold the same. A server without
/// semi-synchronous replication acknowledges for itself alone, and the status says so.
fn nothing_is_lost(pair: &Pair, records: &[Record], told: &mut Vec<String>) -> Outcome<()> {
    let mut rows = [Vec::new(), Vec::new()];
    wait_until("both databases hold the same rows", FLOW_LIMIT, || {
        rows = [0, 1].map(|number| pair.servers[number].rows().unwrap_or_default());
        !rows[0].is_empty() && rows[0] == rows[1]
    })
    .map_err(|why| format!("{why}: {}", differences(&rows)))?;
    let ids: BTreeSet<u64> = rows[0].iter().filter_map(|row| row.first()?.parse().ok()).collect();
    let (first, last) = (records.iter().map(|it| it.start).min(), Instant::now());
    let lost = lost(records, first.unwrap_or(last), last, &ids);
    if has_semi_sync(pair) {
        check(lost.is_empty(), || format!("acknowledged and lost: {lost:?}"))?;
    }
    let good = records.iter().filter(|it| it.kind == Kind::Write && it.is_good()).count();
    let all = records.iter().filter(|it| it.kind == Kind::Write).count();
    told.push(format!("{good} of {all} writes acknowledged, {} lost", lost.len()));
    let tables = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA='app' \
                  ORDER BY TABLE_NAME";
    let [one, other] = [0, 1].map(|number| database::ask(&pair.servers[number].host, tables));
    let (one, other) = (one?, other?);
    check(one == other, || format!("tables differ: {one:?}, {other:?}"))
}

fn differences(rows: &[Vec<Vec<String>>; 2]) -> String {
    let [one, other] = [0, 1].map(|at| rows[at].iter().collect::<BTreeSet<_>>());
    let only = |these: &BTreeSet<&Vec<String>>, those: &BTreeSet<&Vec<String>>| {
        let all: Vec<_> = these.difference(those).take(5).map(|row| row.join(" ")).collect();
        format!("{all:?}")
    };
    format!("only on server1: {}, only on server2: {}", only(&one, &other), only(&other, &one))
}
