//! Standing orders: maintenance of one host, roles that are held.
//!
//! In: a scene. Out: laws of src/node/orders.rs on real hosts.

use std::time::{Duration, Instant};

use super::stage::{Ending, Scene, Story, findings, seen};
use crate::check;
use crate::pair::ELECTION;
use crate::world::{Outcome, wait_until};

const TAKEN: Duration = Duration::from_secs(8);
const FOUND: Duration = Duration::from_secs(5);

pub fn all() -> Vec<Story> {
    use Ending::{Moves, Stays};
    vec![
        Story::new("maintenance of the active host", Moves, maintenance),
        Story::new("the active host dies while roles are held", Moves, held),
        Story::new("php-fpm of one host is drained", Stays, drained),
    ]
}

/// It gives the role away, and does not take it back when the other host dies; it does after.
fn maintenance(scene: &mut Scene<'_>) -> Outcome<()> {
    let (host, other) = (scene.active, scene.standby);
    let (is_done, said) = scene.tandem(host, &["maintenance", "on", "--yes"])?;
    check(is_done, || said)?;
    scene.wait_role(other, "active", TAKEN)?;
    scene.wait_role(host, "standby", TAKEN)?;
    for number in [0, 1] {
        says(scene, number, "maintenance")?;
    }
    let (is_done, said) = scene.tandem(other, &["switchover", "--yes"])?;
    check(!is_done && said.contains("in maintenance"), || said)?;
    let (is_done, said) = scene.tandem(host, &["failover", "--force", "--yes"])?;
    check(!is_done && said.contains("tandem maintenance off"), || said)?;
    scene.pair.power_off(other)?;
    std::thread::sleep(ELECTION);
    let stayed = scene.role(host) == "standby" && scene.pair.servers[host].holds_none();
    check(stayed, || format!("it took the role: {}", seen(scene.pair)))?;
    says(scene, host, "tandem maintenance off")?;
    scene.pair.power_on(other)?;
    scene.wait_role(other, "active", TAKEN * 3)?;
    let (is_done, said) = scene.tandem(host, &["maintenance", "off"])?;
    check(is_done, || said)
}

/// Nobody takes over, until the hold is over.
fn held(scene: &mut Scene<'_>) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    let (is_done, said) = scene.tandem(active, &["hold", "on", "--yes"])?;
    check(is_done, || said)?;
    for number in [0, 1] {
        says(scene, number, "held")?;
    }
    scene.pair.power_off(active)?;
    std::thread::sleep(ELECTION);
    let stayed = scene.role(standby) == "standby" && scene.pair.servers[standby].holds_none();
    check(stayed, || format!("it took the role: {}", seen(scene.pair)))?;
    says(scene, standby, "tandem hold off")?;
    let at = Instant::now();
    let (is_done, said) = scene.tandem(standby, &["hold", "off"])?;
    check(is_done, || said)?;
    scene.taken_over(at, TAKEN)?;
    // The order to hold is the older one: the host that gave it hears so.
    scene.pair.power_on(active)
}

/// Told on one host, both fronts spare the other's php-fpm, and go on with it afterwards.
fn drained(scene: &mut Scene<'_>) -> Outcome<()> {
    let (host, other) = (scene.active, scene.standby);
    let names = [host, other].map(|number| format!("server{}", number + 1));
    let [here, there] = names.each_ref().map(String::as_str);
    let (is_done, said) = scene.tandem(host, &["php", "drain", there, "--yes"])?;
    check(is_done, || said)?;
    let shows = |scene: &Scene<'_>, is_drained: bool| {
        for number in [0, 1] {
            wait_until(&format!("server{} shows the drain", number + 1), FOUND, || {
                let (_, text) = scene.tandem(number, &["status"]).unwrap_or_default();
                let line = text.lines().find(|line| line.contains("php") && line.contains(there));
                line.is_some_and(|line| line.contains("drain") == is_drained)
            })?;
        }
        Ok::<(), String>(())
    };
    shows(scene, true)?;
    let (is_done, said) = scene.tandem(other, &["php", "drain", here, "--yes"])?;
    check(!is_done && said.contains("tandem php on"), || said)?;
    let (is_done, said) = scene.tandem(other, &["php", "drain", "server9", "--yes"])?;
    check(!is_done && said.contains("no host"), || said)?;
    let (is_done, said) = scene.tandem(other, &["php", "on", there])?;
    check(is_done, || said)?;
    shows(scene, false)
}

fn says(scene: &Scene<'_>, number: usize, words: &str) -> Outcome<()> {
    wait_until(&format!("server{} says {words}", number + 1), FOUND, || {
        findings(scene.pair, number).contains(words)
    })
    .map(drop)
    .map_err(|why| format!("{why}; findings: {}", findings(scene.pair, number)))
}
