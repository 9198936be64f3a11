//! Databases: dead, hung, restarted, out of space.
//!
//! In: a scene. Out: laws of facts/repl.md section 5, 1 to 5 and 57.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::stage::{Ending, Scene, Story, is_whole, seen};
use crate::check;
use crate::database::{self, PID_FILE};
use crate::host::Host;
use crate::load::Kind;
use crate::pair::{ELECTION, SETTLE_LIMIT};
use crate::world::{Outcome, wait_until};

const MOVED: Duration = Duration::from_secs(10);
/// Until a commit that hangs is believed to.
const FULL_DISK_MOVED: Duration = Duration::from_secs(30);

pub fn all() -> Vec<Story> {
    use Ending::{Either, Moves, Stays};
    vec![
        Story::new("the active host's database is killed", Moves, active_database_dies),
        Story::new("the standby host's database is killed", Stays, standby_database_dies),
        Story::new("the active host's database hangs", Moves, active_database_hangs),
        Story::new("the standby host's database hangs", Stays, standby_database_hangs),
        Story::new("the active host's database is restarted", Either, database_is_restarted),
        Story::new("both databases are killed", Either, both_databases_die),
        Story::new("the active host's disk is full", Moves, disk_is_full),
    ]
}

/// What happens, by choice: the healthy standby takes over at once. The other answer, waiting for
/// the database to come back, would stop writes for as long as a crash recovery takes.
fn active_database_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    database::kill(&scene.pair.servers[scene.active].host)?;
    scene.taken_over(at, MOVED)?;
    start_database(scene, scene.active)
}

fn standby_database_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    database::kill(&scene.pair.servers[scene.standby].host)?;
    scene.writes_go_on(at, Duration::from_secs(6))?;
    scene.nobody_moves(ELECTION)?;
    start_database(scene, scene.standby)
}

fn both_databases_die(scene: &mut Scene<'_>) -> Outcome<()> {
    for number in [0, 1] {
        database::kill(&scene.pair.servers[number].host)?;
    }
    std::thread::sleep(Duration::from_secs(2));
    start_database(scene, 0)?;
    start_database(scene, 1)
}

/// The hung one is ended by its own tandem once the other one serves, and must not come to itself.
fn active_database_hangs(scene: &mut Scene<'_>) -> Outcome<()> {
    let (at, active) = (Instant::now(), scene.active);
    scene.pair.servers[active].host.signal(PID_FILE, Signal::SIGSTOP)?;
    scene.wait_role(scene.standby, "active", MOVED)?;
    wait_until("the hung one is ended", Duration::from_secs(15), || {
        database::has_ended(&mut scene.pair.servers[active].host)
    })?;
    scene.tell(format!("ended after {:.1} s", at.elapsed().as_secs_f64()));
    scene.writes_go_on(at, MOVED)?;
    start_database(scene, active)
}

fn standby_database_hangs(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let host = &scene.pair.servers[scene.standby].host;
    host.signal(PID_FILE, Signal::SIGSTOP)?;
    let written = scene.writes_go_on(at + Duration::from_millis(500), Duration::from_secs(6));
    std::thread::sleep(ELECTION);
    // Whoever entered the host for it was stopped too, and would not see its end later.
    scene.pair.servers[scene.standby].host.thaw()?;
    written
}

/// As an update of the package does.
fn database_is_restarted(scene: &mut Scene<'_>) -> Outcome<()> {
    let (at, active) = (Instant::now(), scene.active);
    scene.pair.servers[active].host.signal(PID_FILE, Signal::SIGTERM)?;
    wait_until("the database ends", Duration::from_secs(20), || {
        database::has_ended(&mut scene.pair.servers[active].host)
    })?;
    start_database(scene, active)?;
    scene.writes_go_on(at + Duration::from_secs(1), Duration::from_secs(20))
}

fn start_database(scene: &mut Scene<'_>, number: usize) -> Outcome<()> {
    database::start(&mut scene.pair.servers[number].host, &scene.pair.flavour)
}

const SMALL_DISK: &str = "/var/lib/small";
/// Room for the data directory and for a few seconds of this load.
const ON_SMALL: &str = "set -e; mkdir -p /var/lib/small; size=$(du -sm /var/lib/mysql | cut -f1); \
    mount -t tmpfs -o size=$((size + 64))m tmpfs /var/lib/small; \
    cp -a /var/lib/mysql /var/lib/small/data; mount --bind /var/lib/small/data /var/lib/mysql";
const ON_OWN: &str = "set -e; umount /var/lib/mysql; \
    find /var/lib/mysql -mindepth 1 -delete; cp -a /var/lib/small/data/. /var/lib/mysql; \
    umount /var/lib/small";
const FILL: &str =
    "cat /dev/zero >/var/lib/small/filler 2>/dev/null; test -s /var/lib/small/filler";

fn shell(host: &Host, script: &str) -> Outcome<()> {
    let output = host.run_within(Duration::from_secs(30), &["sh", "-c", script])?;
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    check(output.status.success(), || format!("{script}: {}: {why}", output.status))
}

/// The whole data directory on a small disk: binlog, tables and all.
fn disk_is_full(scene: &mut Scene<'_>) -> Outcome<()> {
    let (small, other) = (scene.active, scene.standby);
    let (is_done, said) = scene.tandem(small, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    scene.pair.wait_settled(other, SETTLE_LIMIT)?;
    move_data(scene, small, ON_SMALL)?;
    wait_until("it follows again", SETTLE_LIMIT, || is_whole(scene.pair, other))?;
    let (is_done, said) = scene.tandem(small, &["switchover", "--yes"])?;
    check(is_done, || said)?;
    scene.pair.wait_settled(small, SETTLE_LIMIT)?;
    let at = Instant::now();
    shell(&scene.pair.servers[small].host, FILL)?;
    scene.wait_role(other, "active", FULL_DISK_MOVED)?;
    scene.tell(format!("moved after {:.1} s", at.elapsed().as_secs_f64()));
    wait_until("writes go on", MOVED, || {
        scene.load.has_good(Kind::Write, at + Duration::from_secs(5))
    })?;
    wait_until("its database is closed or gone", Duration::from_secs(20), || {
        let host = &scene.pair.servers[small].host;
        let closed = database::ask(host, "SELECT @@GLOBAL.read_only");
        closed.is_ok_and(|rows| rows == [["1"]]) || !host.is_alive(PID_FILE)
    })
    .map_err(|why| format!("{why}; seen: {}", seen(scene.pair)))?;
    scene.tell(format!("fenced after {:.1} s", at.elapsed().as_secs_f64()));
    shell(&scene.pair.servers[small].host, &format!("rm {SMALL_DISK}/filler"))?;
    move_data(scene, small, ON_OWN)
}

/// Stops the database of a host, which stands by, moves its data and starts it again.
fn move_data(scene: &mut Scene<'_>, number: usize, script: &str) -> Outcome<()> {
    let host = &mut scene.pair.servers[number].host;
    if host.is_alive(PID_FILE) {
        host.signal(PID_FILE, Signal::SIGTERM)?;
    }
    wait_until("the database ends", Duration::from_secs(20), || database::has_ended(host))?;
    shell(host, script)?;
    wait_until("tandem sees that it has ended", MOVED, || {
        let status = scene.pair.servers[number].status().unwrap_or_default();
        status["database"]["state"] == "unreachable"
    })?;
    start_database(scene, number)
}
