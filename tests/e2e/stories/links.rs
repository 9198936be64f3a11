//! Cables, switches and directions: pulled, cut in silence, one way only; and, after so many
//! stories in which nobody moves, a php-fpm that is dead for long.
//!
//! In: a scene. Out: laws of facts/repl.md section 5, 17 to 19, and of facts/vrrp.md 6.

use std::time::{Duration, Instant};

use super::stage::{Ending, Scene, Story, findings, seen};
use crate::load::Kind;
use crate::pair::ELECTION;
use crate::world::{Link, Outcome, wait_until};
use crate::{check, php};

/// A host without carrier knows it, and says so on the other link; without any it is silence.
const MOVED: Duration = Duration::from_secs(5);
const TAKEN: Duration = Duration::from_secs(8);
const FOUND: Duration = Duration::from_secs(20);

pub fn all() -> Vec<Story> {
    use Ending::{Either, Moves, Stays};
    let both = &Link::ALL;
    vec![
        Story::new("the active host's outside cable is pulled", Moves, |it| {
            pulled_moves(it, &[Link::Outside])
        }),
        Story::new("the active host's inside cable is pulled", Either, source_is_cut_from_replica),
        Story::new("both cables of the active host are pulled", Moves, |it| pulled_moves(it, both)),
        Story::new("the standby host's outside cable is pulled", Stays, |it| {
            pulled_stays(it, &[Link::Outside])
        }),
        Story::new("the standby host's inside cable is pulled", Stays, |it| {
            pulled_stays(it, &[Link::Inside])
        }),
        Story::new("both cables of the standby host are pulled", Stays, |it| {
            pulled_stays(it, both)
        }),
        Story::new("the inside switch dies", Either, inside_switch_dies),
        Story::new("the outside switch dies", Either, outside_switch_dies),
        Story::new("the inside switch forwards nothing", Stays, inside_switch_is_mute),
        Story::new("the outside link is cut in silence", Stays, |it| {
            cut_in_silence(it, Link::Outside)
        }),
        Story::new("the inside link is cut in silence", Stays, |it| {
            cut_in_silence(it, Link::Inside)
        }),
        Story::new("the outside link is one-way", Stays, |it| one_way(it, Link::Outside)),
        Story::new("the inside link is one-way", Stays, |it| one_way(it, Link::Inside)),
        // Nobody has moved for a minute, which is how long a host keeps a role in any case.
        Story::new("php-fpm is dead on the active host for long", Moves, php_is_dead),
        Story::new("the standby hears nothing on either link", Either, deaf_standby)
            .with_two_holders("as no host can tell a deaf peer from a dead one"),
        Story::new("the active host's outside cable flaps", Either, cable_flaps),
    ]
}

fn pulled_moves(scene: &mut Scene<'_>, links: &[Link]) -> Outcome<()> {
    let at = Instant::now();
    scene.pair.pull(scene.active, links)?;
    let taken = scene.taken_over(at, MOVED);
    let active = scene.active;
    let let_go = taken.and_then(|()| {
        wait_until("the unplugged host has none", Duration::from_secs(3), || {
            scene.pair.servers[active].holds_none()
        })
        .map(drop)
    });
    scene.pair.replug(active, links)?;
    let_go
}

/// The role moves, unless a write was on its way: what only the source's binlog has would be lost
/// by a handover, so then it goes on alone, and says so.
fn source_is_cut_from_replica(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let active = scene.active;
    scene.pair.pull(active, &[Link::Inside])?;
    let ended = scene.taken_over(at, MOVED).or_else(|why| {
        scene.writes_go_on(at, TAKEN)?;
        let status = scene.pair.servers[active].status()?;
        let durability = status["database"]["durability"].to_string();
        check(durability.contains("by this host alone"), || format!("{why}; {durability}"))
    });
    scene.pair.replug(active, &[Link::Inside])?;
    ended
}

fn pulled_stays(scene: &mut Scene<'_>, links: &[Link]) -> Outcome<()> {
    let at = Instant::now();
    scene.pair.pull(scene.standby, links)?;
    scene.writes_go_on(at, TAKEN)?;
    scene.nobody_moves(ELECTION)?;
    scene.pair.replug(scene.standby, links)
}

/// Both hosts lose the carrier of replication's link, and hear each other outside. The one that
/// sees it first may hand over before the other one sees it.
fn inside_switch_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    both_hosts(scene, |scene, number| scene.pair.pull(number, &[Link::Inside]))?;
    scene.writes_go_on(at, TAKEN)?;
    std::thread::sleep(ELECTION);
    for number in [0, 1] {
        let says = findings(scene.pair, number);
        check(says.contains("no-carrier: inside"), || format!("its findings: {says}"))?;
    }
    both_hosts(scene, |scene, number| scene.pair.replug(number, &[Link::Inside]))
}

/// The visitors are cut off; who serves when it is mended does not matter to them.
fn outside_switch_dies(scene: &mut Scene<'_>) -> Outcome<()> {
    both_hosts(scene, |scene, number| scene.pair.pull(number, &[Link::Outside]))?;
    std::thread::sleep(ELECTION);
    let at = Instant::now();
    both_hosts(scene, |scene, number| scene.pair.replug(number, &[Link::Outside]))?;
    scene.writes_go_on(at, TAKEN)
}

fn inside_switch_is_mute(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let mute = |scene: &mut Scene<'_>, is_mute: bool| {
        both_hosts(scene, |scene, number| {
            scene.pair.world.mute(scene.pair.servers[number].name(), Link::Inside, is_mute)
        })
    };
    mute(scene, true)?;
    scene.writes_go_on(at, TAKEN)?;
    scene.nobody_moves(ELECTION)?;
    mute(scene, false)
}

fn both_hosts(
    scene: &mut Scene<'_>,
    act: impl Fn(&mut Scene<'_>, usize) -> Outcome<()>,
) -> Outcome<()> {
    act(scene, 0)?;
    act(scene, 1)
}

fn cut_in_silence(scene: &mut Scene<'_>, link: Link) -> Outcome<()> {
    let name = scene.pair.servers[scene.standby].name();
    scene.pair.world.mute(name, link, true)?;
    scene.nobody_moves(ELECTION)?;
    scene.pair.world.mute(name, link, false)
}

/// Drops on `number` what the other host sends on these links, unseen by either.
fn deafen(scene: &Scene<'_>, number: usize, links: &[Link], is_deaf: bool) -> Outcome<()> {
    let (host, other) = (&scene.pair.servers[number].host, &scene.pair.servers[1 - number].host);
    if !is_deaf {
        return host.read(&["nft", "delete table netdev deaf"]).map(drop);
    }
    host.read(&["nft", "add table netdev deaf"])?;
    for link in links {
        let (device, last) = (link.device(), link.index());
        let mac = format!("02:7a:00:00:{:02x}:{last:02x}", other.identity().number);
        for command in [
            format!(
                "add chain netdev deaf {device} {{ type filter hook ingress device {device} \
                 priority 0; }}"
            ),
            format!("add rule netdev deaf {device} ether saddr {mac} drop"),
        ] {
            host.read(&["nft", &command])?;
        }
    }
    Ok(())
}

fn one_way(scene: &mut Scene<'_>, link: Link) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    deafen(scene, standby, &[link], true)?;
    let told = wait_until("it is found", FOUND, || {
        findings(scene.pair, active).contains("one-way-link")
            || findings(scene.pair, standby).contains("one-way-link")
    })
    .map_err(|why| {
        let all = [0, 1].map(|number| findings(scene.pair, number)).join(" | ");
        format!("{why}; findings: {all}")
    });
    let stayed = scene.nobody_moves(Duration::ZERO);
    deafen(scene, standby, &[link], false)?;
    told.map(drop)?;
    stayed
}

/// It takes over, and the one that still hears it yields at once: there is one writer.
fn deaf_standby(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    deafen(scene, scene.standby, &Link::ALL, true)?;
    let (active, standby) = (scene.active, scene.standby);
    let moved = wait_until("one host has the addresses", TAKEN, || {
        scene.pair.servers[standby].holds_all() && scene.pair.servers[active].holds_none()
    });
    let written = scene.writes_go_on(at, TAKEN);
    deafen(scene, standby, &Link::ALL, false)?;
    moved.map_err(|why| format!("{why}; seen: {}", seen(scene.pair)))?;
    written
}

fn cable_flaps(scene: &mut Scene<'_>) -> Outcome<()> {
    let at = Instant::now();
    let number = scene.active;
    let second = Duration::from_secs(1);
    let mut moves = 0;
    let mut holder = number;
    while at.elapsed() < 8 * second {
        for is_up in [false, true] {
            if is_up {
                scene.pair.replug(number, &[Link::Outside])?;
            } else {
                scene.pair.pull(number, &[Link::Outside])?;
            }
            std::thread::sleep(second);
            if let Some(now) = [0, 1].into_iter().find(|it| scene.pair.servers[*it].holds_all())
                && now != holder
            {
                holder = now;
                moves += 1;
            }
        }
    }
    scene.tell(format!("moved {moves} times"));
    check(moves <= 1, || format!("the role moved {moves} times"))
}

/// The other one's answers meanwhile; then the role moves to where all is well.
fn php_is_dead(scene: &mut Scene<'_>) -> Outcome<()> {
    let (active, standby) = (scene.active, scene.standby);
    let at = Instant::now();
    php::kill(&scene.pair.servers[active].host)?;
    wait_until("pages go on", FOUND, || scene.load.has_good(Kind::Write, at + FOUND / 5))?;
    // It keeps a role that it has just taken for a minute.
    let moved = scene.wait_role(standby, "active", Duration::from_secs(90));
    php::start(&mut scene.pair.servers[active].host)?;
    let time = moved?.as_secs_f64();
    scene.tell(format!("moved after {time:.1} s"));
    Ok(())
}
