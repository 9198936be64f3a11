//! The loop: drain and perform; wait; stamp `now` once; handle.
//!
//! In: nothing. Out: never returns but to end the process. Must not: do anything else.
//! Read first: design section 2.

use std::fs;
use std::io;
use std::rc::Rc;

use smol::LocalExecutor;
use smol::channel::{self, Receiver};

use super::hands::{Exit, Hands, sleep_until};
use super::{clock, confine, file, guard, notes, update};
use crate::config::Config;
use crate::console::note::Note;
use crate::limits;
use crate::node::{Input, Node};
use crate::wire::HostId;

/// Runs the node until it asks to end.
/// `restarts`: how often it died before.
pub fn run(config: Config, config_path: &str, me: HostId, restarts: u32) -> io::Result<()> {
    // Before the first `Async`: its helper thread inherits the mask.
    let signals = guard::block_signals()?;
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    file::write_pid("node.pid")?;
    fs::create_dir_all(file::STATE_DIR)?;
    let persistent = file::load_state()?.on(clock::machine_boot());
    // Before the first `Async`, too.
    let what = confine::confine(&config, config_path)?;
    notes::tell(&Note::Confined { what });
    let executor = Rc::new(LocalExecutor::new());
    let (inputs_in, inputs) = channel::bounded(limits::INPUTS_QUEUED);
    let hands = Hands::open(&config, config_path, me, executor.clone(), inputs_in, restarts)?;
    let hands = Rc::new(hands);
    hands.start_signals(signals)?;
    hands.start_control(&config);
    hands.finish_taking_back();
    let node = Node::new(config, me, clock::wall_nanos(), persistent);
    executor.spawn(notes::hear_guard()).detach();
    let control = async {
        let node = executor.run(turn_until_exit(node, &hands, &inputs)).await;
        if node.has_left() {
            linger(&hands).await;
        }
        Ok(())
    };
    async_io::block_on(smol::future::or(control, hands.serve_data()))
}

async fn turn_until_exit(mut node: Node, hands: &Hands, inputs: &Receiver<Input>) -> Node {
    let mut alive_at = clock::now();
    node.handle(alive_at, Input::Image(update::image()));
    loop {
        while let Some(output) = node.poll_output() {
            if let Err(Exit) = hands.perform(output) {
                return node;
            }
        }
        let input = match hands.take_facts() {
            Some(facts) => facts,
            None => next_input(inputs, node.deadline()).await,
        };
        let now = clock::now();
        node.handle(now, input);
        if now.since(alive_at) >= limits::ALIVE_INTERVAL {
            alive_at = now;
            notes::tell_alive();
        }
    }
}

/// The other host has been told, and asks nothing more of this host's php-fpm; the pages that run
/// there, or are about to, still have their statements to say.
async fn linger(hands: &Hands) {
    let mut now = clock::now();
    let ends = now + limits::LEAVE_PATIENCE;
    let mut quiet_since = now;
    while now < ends && now.since(quiet_since) < limits::LEAVE_QUIET {
        sleep_until(Some(now + limits::LEAVE_PAUSE)).await;
        now = clock::now();
        if hands.has_programs() {
            quiet_since = now;
        }
    }
}

/// The next input, or `Wake` when the deadline passes first.
pub(super) async fn next_input(
    inputs: &Receiver<Input>,
    deadline: Option<crate::time::Instant>,
) -> Input {
    let received = async { inputs.recv().await.unwrap_or(Input::Wake) };
    let woken = async {
        sleep_until(deadline).await;
        Input::Wake
    };
    smol::future::or(received, woken).await
}
