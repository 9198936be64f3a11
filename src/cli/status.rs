//! `tandem status [--json]`: what is true now, for people or for programs.
//!
//! Exit code 0: this host serves or stands by, and the peer is heard. 1: degraded or no answer.

use std::process::ExitCode;

use crate::console::message::{Request, Response, Status};
use crate::console::render;
use crate::os::control;
use crate::wire::Role;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let is_json = match arguments {
        [] => false,
        [flag] if flag == "--json" => true,
        [..] => return super::usage("status takes --json or nothing"),
    };
    match fetch() {
        Ok(status) => show(&status, is_json),
        Err(why) => {
            eprintln!("tandem: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Asks the daemon.
pub(super) fn fetch() -> Result<Status, String> {
    let mut answer = None;
    let asked = control::ask(&Request::Status, |response| answer = Some(response));
    match (asked, answer) {
        (Ok(()), Some(Response::Status(status))) => Ok(*status),
        (Ok(()), other) => Err(format!("not a status: {other:?}")),
        (Err(error), _) => Err(error.to_string()),
    }
}

fn show(status: &Status, is_json: bool) -> ExitCode {
    if is_json {
        let json = serde_json::to_string_pretty(status).expect("a Status is plain data");
        println!("{json}");
    } else {
        print!("{}", render::status(status));
    }
    let is_in_role = matches!(status.role, Role::Active | Role::Standby);
    if is_in_role && status.peer.role.is_some() && status.findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
