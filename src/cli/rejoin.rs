//! `tandem rejoin`: what keeps this host from following the other one, and the way back.
//!
//! Exit code 0: this host is standby. 1: it is not; says why and what to do.
//! Read first: node/errant.rs (who saves), os/errant.rs (what is saved, and how it is taken back).

use std::path::Path;
use std::process::ExitCode;
use std::thread;

use super::status::fetch;
use super::{Place, value_of};
use crate::console::message::Request;
use crate::console::render;
use crate::console::status::ErrantStatus;
use crate::limits;
use crate::os::errant::{self, DIRECTORY, Step};
use crate::os::mysql::LocalServer;
use crate::os::own;
use crate::repl::errant::Saved;
use crate::wire::Role;

struct Arguments {
    place: Place,
    discard: bool,
    own: Option<Own>,
}

/// The daemon's own calls.
enum Own {
    /// Save what is not in this position, and print what was saved.
    Save(String),
    /// Take back what was saved in this directory.
    TakeBack(String),
    /// Finish what was cut off, if anything was.
    Finish,
}

pub(super) fn run(arguments: &[String], is_sure: bool) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(what) => return super::wrong("rejoin", &what),
    };
    let place = &arguments.place;
    let Some(own) = &arguments.own else {
        let ended = if arguments.discard { discard(place, is_sure) } else { Ok(()) };
        return match ended {
            Ok(()) => super::act::act(&Request::Rejoin, is_sure),
            Err(code) => code,
        };
    };
    own::end_with_caller();
    let ended = match own {
        Own::Save(known) => save(place, known),
        Own::TakeBack(directory) => take_back_in_time(place, Some(Path::new(directory))),
        Own::Finish => take_back_in_time(place, None),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed = Arguments { place: Place::default(), discard: false, own: None };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            option if parsed.place.take(option, &mut rest)? => {}
            "--discard" => parsed.discard = true,
            "--save" => parsed.own = Some(Own::Save(value_of(argument, &mut rest)?)),
            "--take-back" => parsed.own = Some(Own::TakeBack(value_of(argument, &mut rest)?)),
            "--finish" => parsed.own = Some(Own::Finish),
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

/// What was cut off comes first. A database that hangs is not waited for: whoever takes back next
/// goes on.
fn take_back_in_time(place: &Place, directory: Option<&Path>) -> Result<(), String> {
    thread::spawn(|| {
        thread::sleep(limits::TAKE_BACK_LIMIT);
        eprintln!("tandem: not done in {} s", limits::TAKE_BACK_LIMIT.as_secs());
        std::process::exit(1);
    });
    let server = local_server(place)?;
    if let Some(begun) = errant::unfinished(Path::new(DIRECTORY)) {
        take_back(&server, &begun)?;
    }
    match directory.map(errant::saved_in) {
        Some(saved) => take_back(&server, &saved?),
        None => Ok(()),
    }
}

/// Whoever interrupts it finds it finished by the next one.
fn discard(place: &Place, is_sure: bool) -> Result<(), ExitCode> {
    let failed = |why: String| super::failed(&why);
    let server = local_server(place).map_err(failed)?;
    let saves = Path::new(DIRECTORY);
    // One that was cut off is finished whatever the daemon thinks of this host by now.
    if let Some(saved) = errant::unfinished(saves) {
        println!("finishing what was begun with {}", saved.directory);
        return take_back(&server, &saved).map_err(failed);
    }
    let status = fetch().map_err(failed)?;
    let (Role::Refused, Some(ErrantStatus { known, .. })) = (status.role, status.database.errant)
    else {
        let why = format!("this host is {}: there is nothing to take back", status.role);
        return Err(super::failed(&why));
    };
    let saved = errant::save(&server, &known, saves).map_err(failed)?;
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
    let _turn = errant::take_turn(Path::new(DIRECTORY))?;
    println!("taking back {transactions} transactions, {rows} rows: {extra}");
    errant::discard(server, saved, Step::Over)?;
    println!("taken back; what they did stays in {directory}");
    Ok(())
}
