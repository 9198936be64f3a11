//! Whether the role stays where it is: events strike pairs of tandems, and nothing is stolen back.
//!
//! In: how many runs, on how many pairs at once. Out: for each event how often the host that was
//! serving when the struck one came back still served after that one had heard the network for
//! 8 s; for how long an address was on both hosts while both reached the switches.
//! Read first: facts/vrrp.md 3.1 and 4.3, where keepalived with `nopreempt` loses these.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Map, Value, json};

use crate::database::Flavour;
use crate::foreign;
use crate::pair::{Pair, SETTLE_LIMIT, Server, VIPS};
use crate::world::{Link, Outcome, wait_until};

/// How long the struck host hears the network before it is judged: two elections.
const HEARD: Duration = Duration::from_secs(8);
const ISOLATION: Duration = Duration::from_secs(8);
const FREEZE: Duration = Duration::from_millis(6500);
const PARTITION: Duration = Duration::from_secs(5);
/// How long a cable stays out once the other host serves.
const CABLE_OUT: Duration = Duration::from_secs(1);
const MOVE_LIMIT: Duration = Duration::from_secs(10);
/// Asking two hosts for their status costs more than a look at their addresses.
const ASK_INTERVAL: Duration = Duration::from_millis(250);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Event {
    Terminate,
    Kill,
    OneCable,
    BothCables,
    Partition,
    BootIsolation,
    Freeze,
    NoMulticast,
}

const EVENTS: [(Event, &str); 8] = [
    (Event::Terminate, "SIGTERM"),
    (Event::Kill, "SIGKILL"),
    (Event::OneCable, "one cable"),
    (Event::BothCables, "both cables"),
    (Event::Partition, "partition of 5 s, healed"),
    (Event::BootIsolation, "boot, isolated for 8 s"),
    (Event::Freeze, "SIGSTOP for 6.5 s"),
    (Event::NoMulticast, "no multicast for 8 s"),
];

/// What came of one event.
#[derive(Debug)]
struct Run {
    event: Event,
    /// Why the role counts as lost, if it does.
    lost: Option<String>,
    /// Summed over the two addresses.
    two_holders: Duration,
}

/// Prints the table; false if the role was lost once, or two hosts held an address for another
/// reason than a partition that had just ended.
pub fn bench(runs: usize, parallel: usize) -> Outcome<(bool, Value)> {
    let queue = Mutex::new((0..runs).map(|number| EVENTS[number % EVENTS.len()].0));
    let done = Mutex::new(Vec::new());
    let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
    let push = |run: Run| {
        if let Some(why) = &run.lost {
            println!("{:?}: lost: {why}", run.event);
        }
        done.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> =
            (0..parallel.clamp(1, runs.max(1))).map(|_| scope.spawn(|| work(next, push))).collect();
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err("a thread panicked".into()))
        })
    })?;
    Ok(table(&done.into_inner().unwrap_or_else(PoisonError::into_inner)))
}

/// One pair after the other: a pair on which a run was lost is not fit for the next one.
fn work(next: impl Fn() -> Option<Event>, push: impl Fn(Run)) -> Outcome<()> {
    let mut fit: Option<Pair> = None;
    while let Some(event) = next() {
        let mut pair = match fit.take() {
            Some(pair) => pair,
            None => Pair::in_service(Flavour::find("mariadb")?)?,
        };
        let mut two_holders = Duration::ZERO;
        let lost = strike(&mut pair, event, &mut two_holders).err();
        if lost.is_none() {
            fit = Some(pair);
        } else {
            println!("{}", pair.logs());
        }
        push(Run { event, lost, two_holders });
    }
    Ok(())
}

/// Strikes the host that serves, mends it, waits, and says who serves in the end.
fn strike(pair: &mut Pair, event: Event, two_holders: &mut Duration) -> Outcome<()> {
    let mut struck = 0;
    wait_until("the pair is whole", SETTLE_LIMIT, || {
        std::thread::sleep(ASK_INTERVAL);
        struck = usize::from(pair.is_settled(1));
        struck == 1 || pair.is_settled(0)
    })?;
    std::thread::sleep(foreign::phase());
    let mut before = pair.two_holders();
    let at = Instant::now();
    hit(pair, struck, event)?;
    let keeper = if event == Event::NoMulticast { struck } else { 1 - struck };
    let what = format!("{} has the addresses", pair.servers[keeper].name());
    wait_until(&what, MOVE_LIMIT, || pair.servers[keeper].holds_all())?;
    let taken = Instant::now();
    if event == Event::Partition {
        std::thread::sleep(PARTITION.saturating_sub(at.elapsed()));
        // Until here both sides rightly thought the other one dead.
        before = pair.two_holders();
    }
    mend(pair, struck, event, at)?;
    let mut why = String::new();
    let is_back = wait_until("the struck host is back", SETTLE_LIMIT, || {
        std::thread::sleep(ASK_INTERVAL);
        why = lost(pair, keeper, taken).err().unwrap_or_default();
        !why.is_empty() || pair.is_settled(keeper)
    });
    std::thread::sleep(HEARD);
    *two_holders = pair.two_holders().saturating_sub(before);
    if !why.is_empty() {
        return Err(why);
    }
    is_back?;
    lost(pair, keeper, taken)
}

/// An error if the keeper's addresses went for a moment, or the other host has one, or the role
/// is not the keeper's.
fn lost(pair: &Pair, keeper: usize, taken: Instant) -> Outcome<()> {
    let server = &pair.servers[keeper];
    let has_kept = |address| {
        let spans = server.spans();
        spans.iter().any(|it| it.address == address && !it.is_over && it.from <= taken)
    };
    if VIPS.into_iter().all(has_kept) && server.role() == "active" {
        return Ok(());
    }
    let seen: Vec<String> = pair.servers.iter().map(Server::summary).collect();
    Err(format!("{} does not serve any more: {}", server.name(), seen.join("; ")))
}

fn hit(pair: &mut Pair, number: usize, event: Event) -> Outcome<()> {
    let server = &pair.servers[number];
    match event {
        Event::Terminate => server.signal_guard(Signal::SIGTERM),
        Event::Kill => server.signal_node(Signal::SIGKILL),
        Event::OneCable => pair.pull(number, &[Link::Outside]),
        Event::BothCables => pair.pull(number, &Link::ALL),
        Event::Partition => pair.mute(number, true),
        Event::BootIsolation => pair.power_off(number).map(drop),
        Event::Freeze => server.signal_node(Signal::SIGSTOP),
        Event::NoMulticast => pair.filter_multicast(true),
    }
}

fn mend(pair: &mut Pair, number: usize, event: Event, at: Instant) -> Outcome<()> {
    match event {
        Event::Terminate => {
            wait_until("tandem has ended", SETTLE_LIMIT, || {
                pair.servers[number].host.ended("tandem").is_some()
            })?;
            pair.start_tandem(number)
        }
        // The guard starts it again.
        Event::Kill => Ok(()),
        Event::OneCable => {
            std::thread::sleep(CABLE_OUT);
            pair.replug(number, &[Link::Outside])
        }
        Event::BothCables => {
            std::thread::sleep(CABLE_OUT);
            pair.replug(number, &Link::ALL)
        }
        Event::Partition => pair.mute(number, false),
        Event::BootIsolation => {
            pair.power_on_muted(number)?;
            std::thread::sleep(ISOLATION);
            pair.mute(number, false)
        }
        Event::Freeze => {
            std::thread::sleep(FREEZE.saturating_sub(at.elapsed()));
            pair.servers[number].signal_node(Signal::SIGCONT)
        }
        Event::NoMulticast => {
            std::thread::sleep(ISOLATION.saturating_sub(at.elapsed()));
            pair.filter_multicast(false)
        }
    }
}

fn table(runs: &[Run]) -> (bool, Value) {
    println!(
        "\nv2, 1 s, two tandems: the role stays with the host that serves\n\
         {:<26} {:>9} {:>17} {:>26}",
        "event", "kept/all", "two holders, runs", "worst, s of both addresses"
    );
    let (mut rows, mut is_well, mut sum) = (Map::new(), true, (0, 0));
    for (event, title) in EVENTS {
        let of_event = || runs.iter().filter(|run| run.event == event);
        let all = of_event().count();
        let kept = of_event().filter(|run| run.lost.is_none()).count();
        let two = of_event().filter(|run| !run.two_holders.is_zero()).count();
        let worst = of_event().map(|run| run.two_holders).max().unwrap_or_default().as_secs_f64();
        let kept_of_all = format!("{kept}/{all}");
        println!("{title:<26} {kept_of_all:>9} {two:>17} {worst:>26.3}");
        rows.insert(
            title.to_owned(),
            json!({ "runs": all, "kept": kept, "two_holders_runs": two, "two_holders_s": worst }),
        );
        is_well &= kept == all && (two == 0 || event == Event::Partition);
        sum = (sum.0 + kept, sum.1 + all);
    }
    println!("{:<26} {:>9}", "all", format!("{}/{}", sum.0, sum.1));
    (is_well, Value::Object(rows))
}
