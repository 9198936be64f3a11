//! The acting verbs: what will happen is said and asked for, steps are told with their time, and at
//! the end what is true.
//!
//! Exit code 0: done. 1: refused, failed, or the operator said no. 2: there is nobody to ask.
//! The daemon acts, not this program: whoever interrupts it stops watching, and nothing else.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use super::status::fetch;
use crate::console::message::{Request, Response};
use crate::console::preview::preview;
use crate::console::status::Status;
use crate::os::{clock, control};
use crate::wire::Role;

/// Takes `--yes` out of the arguments; whether it was there.
pub(super) fn take_yes(arguments: &mut Vec<String>) -> bool {
    let count = arguments.len();
    arguments.retain(|argument| argument != "--yes");
    arguments.len() < count
}

/// Asks, unless told not to; then does it.
pub(super) fn act(request: &Request, is_sure: bool) -> ExitCode {
    if !is_sure {
        let status = match fetch() {
            Ok(status) => status,
            Err(why) => return super::failed(&why),
        };
        if let Some(lines) = preview(request, &status)
            && let Err(code) = confirm(&lines)
        {
            return code;
        }
    }
    perform(request, true)
}

/// Says what will happen, and waits for a yes.
pub(super) fn confirm(lines: &[String]) -> Result<(), ExitCode> {
    let stdin = std::io::stdin();
    for line in lines {
        println!("{line}");
    }
    if !stdin.is_terminal() {
        eprintln!("tandem: nobody is there to be asked: add --yes");
        return Err(ExitCode::from(2));
    }
    print!("Go on? [y/N] ");
    let mut answer = String::new();
    let told = std::io::stdout().flush().and_then(|()| stdin.lock().read_line(&mut answer));
    let is_yes = ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str());
    if told.is_err() || !is_yes {
        println!("nothing was done");
        return Err(ExitCode::FAILURE);
    }
    Ok(())
}

/// How long the end of an act waits for a host that is on its way to a role.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);
const SETTLE_PAUSE: Duration = Duration::from_millis(100);

/// What is true once both hosts have come to rest, for an operator; at once for a program.
fn settled() -> Result<Status, String> {
    let since = clock::now();
    loop {
        let status = fetch()?;
        let moves = |role| matches!(role, Role::Joining | Role::Promoting | Role::Demoting);
        let is_moving = moves(status.role) || status.peer.role.is_some_and(moves);
        let is_watched = std::io::stdin().is_terminal();
        if !is_moving || !is_watched || clock::now().since(since) >= SETTLE_LIMIT {
            return Ok(status);
        }
        std::thread::sleep(SETTLE_PAUSE);
    }
}

/// Sends it and tells what comes back. `ends_with_truth`: then the roles that both hosts have.
pub(super) fn perform(request: &Request, ends_with_truth: bool) -> ExitCode {
    let begun = clock::now();
    let mut code = ExitCode::FAILURE;
    let elapsed = || format!("{:6.3} s  ", clock::now().since(begun).as_secs_f64());
    let asked = control::ask(request, |response| match response {
        Response::Progress(step) if ends_with_truth => println!("{}{step}", elapsed()),
        Response::Progress(step) => println!("{step}"),
        Response::Done(what) => {
            println!("{}{what}", if ends_with_truth { elapsed() } else { String::new() });
            code = ExitCode::SUCCESS;
        }
        Response::Refused(why) => eprintln!("tandem: refused: {why}"),
        Response::Status(_) | Response::Notes(_) => {}
    });
    if let Err(error) = asked {
        return super::failed(&error.to_string());
    }
    if ends_with_truth && let Ok(status) = settled() {
        let peer = match status.peer.role {
            Some(role) => role.to_string(),
            None => "silent".to_owned(),
        };
        let (host, role, name) = (&status.host, status.role, &status.peer.name);
        println!("now: {host} is {role}, {name} is {peer}; {}", status.health.word());
    }
    code
}
