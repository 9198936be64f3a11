//! `log`, `config`, `trace`: what the daemon tells line by line.
//!
//! Exit code 0: told. 1: no daemon answers, or it refuses.

use std::process::ExitCode;

use super::status::fetch;
use super::{value_of, wrong};
use crate::console::message::{Level, Request, Response, TraceKinds};
use crate::console::note::Ring;
use crate::console::render;
use crate::os::{control, notes};

const NOTES_SHOWN: u32 = 20;
const TRACE_SECONDS: u32 = 10;

pub(super) fn log(arguments: &[String]) -> ExitCode {
    match parse_log(arguments) {
        Ok((count, level, follow)) => tell_log(count, level, follow),
        Err(what) => wrong("log", &what),
    }
}

fn parse_log(arguments: &[String]) -> Result<(u32, Level, bool), String> {
    let (mut count, mut level, mut follow) = (NOTES_SHOWN, Level::Info, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-n" => {
                let text = value_of(argument, &mut rest)?;
                count = text.parse().map_err(|_| format!("-n {text}: write a number"))?;
            }
            "--level" => {
                let text = value_of(argument, &mut rest)?;
                let all = [Level::Error, Level::Warn, Level::Info];
                level = all
                    .into_iter()
                    .find(|level| level.word() == text)
                    .ok_or_else(|| format!("--level {text}: write error, warn or info"))?;
            }
            "-f" | "--follow" => follow = true,
            other => return Err(format!("does not know {other}")),
        }
    }
    Ok((count, level, follow))
}

fn tell_log(count: u32, level: Level, follow: bool) -> ExitCode {
    let request = Request::Log { count, level, follow };
    let mut refusal = None;
    let asked = control::ask(&request, |response| match response {
        Response::Notes(records) => super::put(&render::notes(&records)),
        Response::Refused(why) => refusal = Some(why),
        Response::Done(_) | Response::Progress(_) | Response::Status(_) => {}
    });
    match (asked, refusal) {
        (Ok(()), None) => ExitCode::SUCCESS,
        (Ok(()), Some(why)) => super::failed(&why),
        (Err(error), _) => {
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            super::put(&render::notes(&Ring::of(notes::load()).last(count, level)));
            super::failed(&error.to_string())
        }
    }
}

pub(super) fn config(arguments: &[String]) -> ExitCode {
    if !arguments.is_empty() {
        return wrong("config", "takes no arguments");
    }
    let status = match fetch() {
        Ok(status) => status,
        Err(why) => return super::failed(&why),
    };
    let peer = &status.peer;
    println!("# in use on {}, digest {}", status.host, status.config_digest);
    match (&peer.config_digest, peer.config_differs.as_slice()) {
        (None, _) => println!("# {} was never heard", peer.name),
        (Some(digest), []) if *digest == status.config_digest => {
            println!("# {} has the same", peer.name);
        }
        (Some(digest), []) => println!(
            "# {} has another text, digest {digest}: comments or the order of lines",
            peer.name
        ),
        (Some(digest), sections) => println!(
            "# {} has another one, digest {digest}: [{}] differ",
            peer.name,
            sections.join("], [")
        ),
    }
    let mut is_told = false;
    let asked = control::ask(&Request::Config, |response| match response {
        Response::Progress(part) => super::put(&part),
        Response::Done(part) => {
            super::put(&part);
            is_told = true;
        }
        Response::Refused(why) => eprintln!("tandem: {why}"),
        Response::Status(_) | Response::Notes(_) => {}
    });
    match asked {
        Ok(()) if is_told => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
        Err(error) => super::failed(&error.to_string()),
    }
}

pub(super) fn trace(arguments: &[String]) -> ExitCode {
    match parse_trace(arguments) {
        Ok(request) => super::act::perform(&request, false),
        Err(what) => wrong("trace", &what),
    }
}

fn parse_trace(arguments: &[String]) -> Result<Request, String> {
    let (mut seconds, mut kinds) = (TRACE_SECONDS, TraceKinds::default());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--seconds" => {
                let text = value_of(argument, &mut rest)?;
                seconds = text.parse().map_err(|_| format!("--seconds {text}: write a number"))?;
            }
            "vrrp" => kinds.vrrp = true,
            "beacon" => kinds.beacon = true,
            "arp" => kinds.arp = true,
            other => return Err(format!("does not know {other}")),
        }
    }
    if kinds == TraceKinds::default() {
        kinds = TraceKinds { vrrp: true, beacon: true, arp: true };
    }
    Ok(Request::Trace { seconds, kinds })
}
