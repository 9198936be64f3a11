//! Operators: the role handed over while programs hold the database, commands that cross, keys and
//! configurations that differ.
//!
//! In: a scene. Out: laws of facts/repl.md section 5, 32, 34, 35, 38 and 41.

use std::time::{Duration, Instant};

use mysql::prelude::Queryable;

use super::stage::{Ending, Scene, Story, findings, seen};
use crate::database::{self, APP_PASSWORD};
use crate::load::Kind;
use crate::pair::{ELECTION, EXAMPLE, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};
use crate::{check, has_finding};

const SPLITTER: u16 = 1234;
const SERVER: u16 = 3306;
/// Writes pause while the role moves; with something in the way, for as long as that may take.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_BEHIND: Duration = Duration::from_secs(8);
const FOUND: Duration = Duration::from_secs(20);

pub fn all() -> Vec<Story> {
    use Ending::{Either, Moves, Stays};
    vec![
        Story::new("switchover asked on the active host", Moves, |it| switchover(it, it.active)),
        Story::new("switchover asked on the standby host", Moves, |it| switchover(it, it.standby)),
        Story::new("switchover asked on both hosts at once", Either, asked_twice),
        Story::new("switchover with a transaction open at the splitter", Moves, |it| {
            with_a_transaction(it, SPLITTER)
        }),
        Story::new("switchover with a transaction open at the server", Moves, |it| {
            with_a_transaction(it, SERVER)
        }),
        Story::new("switchover with a table locked", Moves, with_a_lock),
        Story::new("switchover with a long SELECT under way", Moves, with_a_select),
        Story::new("failover forced while the other host serves", Stays, forced_in_vain),
        Story::new("the beacon key is wrong on the standby host", Stays, wrong_key),
        Story::new("the configurations differ", Stays, configurations_differ),
    ]
}

fn switchover(scene: &mut Scene<'_>, on: usize) -> Outcome<()> {
    let at = Instant::now();
    let (is_done, said) = scene.tandem(on, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    moved(scene, at, PAUSE)
}

/// The roles are exchanged, and writes paused for no longer than that.
fn moved(scene: &mut Scene<'_>, at: Instant, pause: Duration) -> Outcome<()> {
    scene.pair.wait_settled(scene.standby, SETTLE_LIMIT)?;
    let after = Instant::now();
    wait_until("writes flow", Duration::from_secs(5), || scene.load.has_good(Kind::Write, after))?;
    let longest = longest_pause(scene, at);
    scene.tell(format!("writes paused for {:.0} ms", longest.as_secs_f64() * 1000.0));
    check(longest < pause, || format!("writes paused for {longest:?}"))
}

/// The longest time since `at` without an acknowledged write.
fn longest_pause(scene: &Scene<'_>, at: Instant) -> Duration {
    let records = scene.load.records();
    let good = records.iter().filter(|it| it.kind == Kind::Write && it.is_good());
    let mut ends: Vec<Instant> = good.map(|it| it.end).filter(|end| *end > at).collect();
    ends.insert(0, at);
    ends.sort();
    ends.windows(2).map(|two| two[1] - two[0]).max().unwrap_or_default()
}

/// Both succeed, or one is refused; the role has moved once, or there and back.
fn asked_twice(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let pair = &*scene.pair;
    let [one, other] = std::thread::scope(|scope| {
        let asked = [0, 1].map(|number| {
            scope.spawn(move || super::stage::tandem(pair, number, &["switchover", "--yes"]))
        });
        asked.map(|it| it.join().unwrap_or_else(|_| Err("a thread panicked".into())))
    });
    let (one, other) = (one?, other?);
    check(one.0 || other.0, || format!("both failed: {}; {}", one.1, other.1))?;
    scene.tell(format!("server1 {}, server2 {}", answer(one.0), answer(other.0)));
    let pause = longest_pause(scene, at);
    check(pause < PAUSE_BEHIND, || format!("writes paused for {pause:?}"))
}

const fn answer(is_done: bool) -> &'static str {
    if is_done { "done" } else { "refused" }
}

/// The window is bounded; the transaction ends with an error and without a trace.
fn with_a_transaction(scene: &mut Scene<'_>, port: u16) -> Outcome<()> {
    let row = 950_001;
    let host = &scene.pair.servers[scene.active].host;
    let mut session = database::session(host, port, "app", APP_PASSWORD)?;
    for statement in
        ["START TRANSACTION", &format!("INSERT INTO app.written VALUES ({row}, 'idle', 0)")]
    {
        session.query_drop(statement).map_err(|error| error.to_string())?;
    }
    let at = Instant::now();
    let (is_done, said) = scene.tandem(scene.active, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    moved(scene, at, PAUSE_BEHIND)?;
    check(session.query_drop("COMMIT").is_err(), || "it was committed".into())?;
    let sql = format!("SELECT COUNT(*) FROM app.written WHERE id={row}");
    for server in &scene.pair.servers {
        let left = database::ask(&server.host, &sql)?;
        check(left == [["0"]], || format!("the row is on {}", server.name()))?;
    }
    Ok(())
}

fn with_a_lock(scene: &mut Scene<'_>) -> Outcome<()> {
    let host = &scene.pair.servers[scene.active].host;
    database::ask(host, "CREATE TABLE IF NOT EXISTS app.locked (id INT PRIMARY KEY)")?;
    let mut session = database::session(host, SERVER, "app", APP_PASSWORD)?;
    session.query_drop("LOCK TABLES app.locked WRITE").map_err(|error| error.to_string())?;
    let at = Instant::now();
    let (is_done, said) = scene.tandem(scene.active, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    moved(scene, at, PAUSE_BEHIND)
}

/// Whoever only reads holds nobody up.
fn with_a_select(scene: &mut Scene<'_>) -> Outcome<()> {
    let host = &scene.pair.servers[scene.active].host;
    let mut session = database::session(host, SERVER, "app", APP_PASSWORD)?;
    let reader = std::thread::spawn(move || {
        session.query_drop("SELECT SLEEP(4) FROM app.written LIMIT 1").is_ok()
    });
    let at = Instant::now();
    let (is_done, said) = scene.tandem(scene.active, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    let paused = moved(scene, at, PAUSE);
    let has_read = reader.join().map_err(|_| "a thread panicked".to_owned())?;
    scene.tell(format!("the reader was {}", if has_read { "answered" } else { "ended" }));
    paused
}

fn forced_in_vain(scene: &mut Scene<'_>) -> Outcome<()> {
    let (is_done, said) = scene.tandem(scene.standby, &["failover", "--force", "--yes"])?;
    check(!is_done && said.contains("tandem switchover"), || said)?;
    scene.nobody_moves(Duration::ZERO)
}

/// The standby's daemon starts anew with another text.
fn restart_with(scene: &mut Scene<'_>, config: &str) -> Outcome<()> {
    let standby = scene.standby;
    scene.pair.configure(standby, config)?;
    scene.pair.stop_tandem(standby)?;
    scene.pair.start_tandem(standby)
}

fn wrong_key(scene: &mut Scene<'_>) -> Outcome<()> {
    let config = EXAMPLE.replacen("key = \"change this", "key = \"another one", 1);
    check(config != EXAMPLE, || "the example has another key".into())?;
    restart_with(scene, &config)?;
    let found = is_found(scene, "beacons-refused");
    let stayed = scene.nobody_moves(ELECTION);
    restart_with(scene, EXAMPLE)?;
    found?;
    stayed
}

fn configurations_differ(scene: &mut Scene<'_>) -> Outcome<()> {
    let config = EXAMPLE.replacen("hold_limit = \"10s\"", "hold_limit = \"11s\"", 1);
    check(config != EXAMPLE, || "the example has another limit".into())?;
    restart_with(scene, &config)?;
    let found = is_found(scene, "config-differs");
    let stayed = scene.nobody_moves(Duration::ZERO);
    restart_with(scene, EXAMPLE)?;
    found?;
    stayed?;
    let active = scene.active;
    scene.pair.wait_settled(active, SETTLE_LIMIT)?;
    wait_until("it is found no more", FOUND, || {
        !has_finding(scene.pair, 0, "config-differs")
            && !has_finding(scene.pair, 1, "config-differs")
    })
    .map(drop)
}

/// Both hosts say so, each for itself.
fn is_found(scene: &Scene<'_>, words: &str) -> Outcome<()> {
    wait_until(&format!("both hosts find {words}"), FOUND, || {
        has_finding(scene.pair, 0, words) && has_finding(scene.pair, 1, words)
    })
    .map(drop)
    .map_err(|why| {
        let all = [0, 1].map(|number| findings(scene.pair, number)).join(" | ");
        format!("{why}; findings: {all}; seen: {}", seen(scene.pair))
    })
}
