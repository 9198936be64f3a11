//! `tandem rejoin`: what keeps this host from following the other one, and the way back.
//!
//! Exit code 0: this host is standby. 1: it is not; says why and what to do.
//! Read first: node/errant.rs (who saves), os/errant.rs (what is saved, and how it is taken back).

use std::path::Path;
use std::process::ExitCode;

use super::status::fetch;
use super::{Place, value_of};
use crate::console::message::Request;
use crate::console::render;
use crate::console::status::ErrantStatus;
use crate::os::errant::{self, DIRECTORY, Step};
use crate::os::mysql::LocalServer;
use crate::repl::errant::Saved;
use crate::wire::Role;

struct Arguments {
    place: Place,
    discard: bool,
    /// The daemon's own calls: save what is not in this, and print what was saved; or take it back.
    save: Option<String>,
    take_back: Option<String>,
}

pub(super) fn run(arguments: &[String], is_sure: bool) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(what) => return super::wrong("rejoin", &what),
    };
    let place = &arguments.place;
    let own = match (&arguments.save, &arguments.take_back) {
        (Some(known), _) => save(place, known),
        (None, Some(known)) => take_back_or_finish(place, known),
        (None, None) => {
            let ended = if arguments.discard { discard(place, is_sure) } else { Ok(()) };
            return match ended {
                Ok(()) => super::act::act(&Request::Rejoin, is_sure),
                Err(code) => code,
            };
        }
    };
    match own {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed =
        Arguments { place: Place::default(), discard: false, save: None, take_back: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            option if parsed.place.take(option, &mut rest)? => {}
            "--discard" => parsed.discard = true,
            "--save" => parsed.save = Some(value_of(argument, &mut rest)?),
            "--take-back" => parsed.take_back = Some(value_of(argument, &mut rest)?),
            other => return Err(format!("rejoin takes --discard, and not {other}")),
        }
    }
    Ok(parsed)
}

fn local_server(place: &Place) -> Result<LocalServer, String> {
    let (config, me) = place.load()?;
    Ok(LocalServer::of(&config, me))
}

fn save(place: &Place, known: &str) -> Result<(), String> {
    let saved = errant::save(&local_server(place)?, known, Path::new(DIRECTORY))?;
    println!("{}", serde_json::to_string(&saved).expect("text and numbers"));
    Ok(())
}

fn take_back_or_finish(place: &Place, known: &str) -> Result<(), String> {
    let server = local_server(place)?;
    let begun = errant::unfinished(Path::new(DIRECTORY));
    let saved = begun.map_or_else(|| errant::save(&server, known, Path::new(DIRECTORY)), Ok)?;
    take_back(&server, &saved)
}

/// Whoever interrupts it finds it finished by the next one.
fn discard(place: &Place, is_sure: bool) -> Result<(), ExitCode> {
    let failed = |why: String| super::failed(&why);
    let server = local_server(place).map_err(failed)?;
    // One that was cut off is finished whatever the daemon thinks of this host by now.
    if let Some(saved) = errant::unfinished(Path::new(DIRECTORY)) {
        println!("finishing what was begun with {}", saved.directory);
        return take_back(&server, &saved).map_err(failed);
    }
    let status = fetch().map_err(failed)?;
    let (Role::Refused, Some(ErrantStatus { known, .. })) = (status.role, status.database.errant)
    else {
        let why = format!("this host is {}: there is nothing to take back", status.role);
        return Err(super::failed(&why));
    };
    let saved = errant::save(&server, &known, Path::new(DIRECTORY)).map_err(failed)?;
    if !is_sure {
        let text = format!(
            "What {} transactions did to {} rows here, and nowhere else, is taken back: {}. It \
             stays in {}/events.sql.",
            saved.transactions, saved.rows, saved.extra, saved.directory
        );
        super::act::confirm(&render::fold(&text, ""))?;
    }
    take_back(&server, &saved).map_err(failed)
}

fn take_back(server: &LocalServer, saved: &Saved) -> Result<(), String> {
    let Saved { directory, transactions, rows, extra, .. } = saved;
    println!("taking back {transactions} transactions, {rows} rows: {extra}");
    errant::discard(server, saved, Step::Over)?;
    println!("taken back; what they did stays in {directory}");
    Ok(())
}
