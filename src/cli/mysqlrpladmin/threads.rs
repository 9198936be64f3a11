//! `start`, `stop` and `reset`: the threads of every replica.
//!
//! In: replicas. Out: one line each. Must not: throw away what was received and not applied.
//! Read first: facts/repl.md 1.4 "stop/start/reset".
//! Differs: a thread that does not come to run is a failure, with its error.

use std::process::ExitCode;
use std::time::Duration;

use super::super::applet::{Call, Stop};
use super::super::servers::{Server, plain};
use super::Topology;
use crate::limits;
use crate::os::clock;
use crate::repl::ThreadState;

/// What is done to a replica, and its name in the line about it.
type Verb = (&'static str, fn(&Call, &Server) -> Result<(), String>);

pub(super) fn stop(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    Ok(on_all(call, topology, ("stop", stop_one)))
}

pub(super) fn start(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    Ok(on_all(call, topology, ("start", start_one)))
}

pub(super) fn reset(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    let stopped = on_all(call, topology, ("stop", stop_one));
    let reset = on_all(call, topology, ("reset", reset_one));
    Ok(if stopped == ExitCode::SUCCESS { reset } else { stopped })
}

fn on_all(call: &Call, topology: &Topology, (name, act): Verb) -> ExitCode {
    let mut code = ExitCode::SUCCESS;
    call.say.line(&format!("# Performing {} on all slaves.", name.to_uppercase()));
    for server in &topology.replicas {
        let said = format!("#   Executing {name} on slave {}", server.name());
        match act(call, server) {
            Ok(()) => call.say.line(&format!("{said} Ok")),
            Err(why) => {
                call.say.line(&format!("{said} WARN - slave failed to {name}"));
                call.say.error(&format!("{}: {why}", server.name()));
                code = ExitCode::FAILURE;
            }
        }
    }
    if topology.absent.is_empty() { code } else { ExitCode::FAILURE }
}

fn stop_one(_: &Call, server: &Server) -> Result<(), String> {
    statement(server, server.dialect.statements().stop)
}

fn start_one(_: &Call, server: &Server) -> Result<(), String> {
    statement(server, server.dialect.statements().start)?;
    let began = clock::now();
    let mut pause = limits::LOOK_PAUSE_MIN;
    loop {
        let member = server.member()?;
        let Some(status) = &member.replica else { return Err("it is no replica".to_owned()) };
        let is_running = status.io == ThreadState::Running && status.sql == ThreadState::Running;
        if is_running {
            return Ok(());
        }
        let errors = [&status.io_error, &status.sql_error];
        let error = errors.into_iter().find(|error| !error.is_empty());
        let is_late = clock::now().since(began) > limits::FOLLOW_LIMIT;
        if let Some(error) = error.filter(|_| status.io != ThreadState::Connecting || is_late) {
            return Err(error.clone());
        }
        if is_late {
            return Err("its threads do not come to run".to_owned());
        }
        async_io::block_on(async_io::Timer::after(pause));
        pause = Duration::min(pause * 2, limits::LOOK_PAUSE_MAX);
    }
}

fn reset_one(call: &Call, server: &Server) -> Result<(), String> {
    let lost = server.member()?.lost_by_reset();
    if lost.transactions > 0 && !call.options.has("force") {
        return Err(format!(
            "{} received transactions are not applied, and a reset drops them: {}; start it until \
             they are, or use --force",
            lost.transactions, lost.text
        ));
    }
    statement(server, server.dialect.statements().reset)
}

fn statement(server: &Server, sql: &str) -> Result<(), String> {
    server.query(sql).map(drop).map_err(|error| plain(&error))
}
