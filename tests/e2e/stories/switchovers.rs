//! Switchovers that are interrupted: at each step that a host says in its log, one daemon or host
//! is killed.
//!
//! In: a scene. Out: laws of facts/repl.md section 5, 40.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};

use super::stage::{Ending, Scene, Story};
use crate::pair::{GUARD_PID, NODE_PID, Pair};
use crate::world::{Outcome, wait_until};

/// Of a switchover: who says it, and how.
#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    is_givers: bool,
    words: &'static str,
}

const STEPS: [Step; 6] = [
    Step { name: "it holds writes", is_givers: true, words: "active -> demoting" },
    Step { name: "it is closed", is_givers: true, words: "closed at" },
    Step { name: "the other one promotes", is_givers: false, words: "standby -> promoting" },
    Step { name: "the other one is open", is_givers: false, words: "promoted at" },
    Step { name: "the other one serves", is_givers: false, words: "promoting -> active" },
    Step { name: "it has let go", is_givers: true, words: "demoting -> joining" },
];

#[derive(Debug, Clone, Copy)]
enum Blow {
    Node,
    Daemon,
    Power,
}

const STEP_LIMIT: Duration = Duration::from_secs(15);
const WRITTEN: Duration = Duration::from_secs(15);

pub fn all() -> Vec<Story> {
    let mut stories = Vec::new();
    for (at, step) in STEPS.into_iter().enumerate() {
        for (whom, hits_giver) in [("giver", true), ("taker", false)] {
            stories.push(interrupted(step, whom, hits_giver, Blow::Node));
        }
        // In between: a guard that has just started does not let a node wait that keeps dying.
        let (step, whom, blow) = match at {
            1 => (STEPS[1], "giver", Blow::Daemon),
            2 => (STEPS[2], "taker", Blow::Daemon),
            3 => (STEPS[1], "giver", Blow::Power),
            4 => (STEPS[2], "taker", Blow::Power),
            _ => continue,
        };
        stories.push(interrupted(step, whom, whom == "giver", blow));
    }
    stories
}

fn interrupted(step: Step, whom: &str, hits_giver: bool, blow: Blow) -> Story {
    let what = match blow {
        Blow::Node => "node is killed",
        Blow::Daemon => "guard and node are killed",
        Blow::Power => "host dies",
    };
    let name = format!("switchover, the {whom}'s {what} when {}", step.name);
    Story::new(name, Ending::Either, move |scene| {
        let victim = if hits_giver { scene.active } else { scene.standby };
        interrupt(scene, step, victim, blow)
    })
}

fn interrupt(scene: &mut Scene<'_>, step: Step, victim: usize, blow: Blow) -> Outcome<()> {
    let speaker = if step.is_givers { scene.active } else { scene.standby };
    let giver = scene.active;
    let processes = match blow {
        Blow::Node => vec![NODE_PID],
        Blow::Daemon => vec![GUARD_PID, NODE_PID],
        Blow::Power => vec![],
    };
    let host = &scene.pair.servers[victim].host;
    let processes: Outcome<Vec<_>> = processes.iter().map(|it| host.outer_pid(it)).collect();
    let processes = processes?;
    let begin = log(scene.pair, speaker).len();
    let words = ["timeout", "40", "tandem", "switchover", "--yes"];
    scene.pair.servers[giver].host.start("switchover", &words)?;
    let since = Instant::now();
    while !log(scene.pair, speaker)[begin..].contains(step.words) {
        if since.elapsed() > STEP_LIMIT {
            return Err(format!("waited in vain for the step: {}", step.words));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let at = Instant::now();
    for process in processes {
        kill(process, Signal::SIGKILL).map_err(|error| error.to_string())?;
    }
    if let Blow::Power = blow {
        scene.pair.power_off(victim)?;
    }
    scene.writes_go_on(at, WRITTEN)?;
    match blow {
        Blow::Node => {}
        Blow::Daemon => {
            let host = &mut scene.pair.servers[victim].host;
            wait_until("tandem has ended", STEP_LIMIT, || host.ended("tandem").is_some())?;
            scene.pair.start_tandem(victim)?;
        }
        Blow::Power => scene.pair.power_on(victim)?,
    }
    Ok(())
}

fn log(pair: &Pair, number: usize) -> String {
    pair.servers[number].host.log_text("tandem")
}
