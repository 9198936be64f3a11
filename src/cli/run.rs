//! `tandem run`: the daemon. The started process becomes the guard; `--as-node` is its child, and
//! so is `--as-service` on the appliance.

use std::process::ExitCode;

use super::{Place, value_of};
use crate::console::note::Note;
use crate::os::children::Children;
use crate::os::guard::{self, Household};
use crate::os::{notes, run, service};

struct Arguments {
    place: Place,
    is_node: bool,
    /// Which service of the appliance this process is to become.
    service: Option<String>,
    /// How often the node died before.
    restarts: u32,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let arguments = match parse(arguments) {
        Ok(arguments) => arguments,
        Err(what) => return super::usage(&what),
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format_timestamp_millis()
        .format_target(false)
        .init();
    let place = &arguments.place;
    let loaded = place
        .load()
        .and_then(|(config, me)| super::check_files(&place.config, &config).map(|_| (config, me)));
    let (config, me) = match loaded {
        Ok(loaded) => loaded,
        Err(why) => {
            eprintln!("tandem: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(name) = &arguments.service {
        let error = match service::facts(&config, me) {
            Ok(facts) => service::become_it(name, &facts),
            Err(error) => error,
        };
        eprintln!("tandem: {error}");
        return ExitCode::FAILURE;
    }
    notes::open(arguments.is_node);
    if let Some(place) = &config.console.syslog {
        notes::send_to(place, &config.host(me).name);
    }
    let ended = if arguments.is_node {
        run::run(config, &arguments.place.config, me, arguments.restarts)
    } else {
        let host = &config.host(me).name;
        let (node, consoles) = guard::commands(&arguments.place.config, host, &config.console);
        let mut household = Household { consoles: Children::new(consoles), ..Household::default() };
        guard::run(&node, &mut household).map(drop)
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            notes::tell(&Note::Failed { why: error.to_string() });
            ExitCode::FAILURE
        }
    }
}

fn parse(arguments: &[String]) -> Result<Arguments, String> {
    let mut parsed =
        Arguments { place: Place::default(), is_node: false, service: None, restarts: 0 };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            option if parsed.place.take(option, &mut rest)? => {}
            "--as-node" => parsed.is_node = true,
            "--as-service" => parsed.service = Some(value_of(argument, &mut rest)?),
            "--restarts" => parsed.restarts = value_of(argument, &mut rest)?.parse().unwrap_or(0),
            other => return Err(format!("run does not know {other}")),
        }
    }
    Ok(parsed)
}
