//! `tandem run`: the daemon. The started process becomes the guard; `--as-node` is its child.

use std::process::ExitCode;

use super::{Place, value_of};
use crate::console::note::Note;
use crate::os::{guard, notes, run};

struct Arguments {
    place: Place,
    is_node: bool,
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
    notes::open(arguments.is_node);
    if let Some(place) = &config.console.syslog {
        notes::send_to(place, &config.host(me).name);
    }
    let ended = if arguments.is_node {
        run::run(config, &arguments.place.config, me, arguments.restarts)
    } else {
        let mut node = vec!["run".to_owned(), "--config".to_owned(), arguments.place.config];
        node.extend(["--host".to_owned(), config.host(me).name.clone(), "--as-node".to_owned()]);
        let line = |tty: &String| {
            let words = ["console", "--tty", tty, "--speed", &config.console.speed.to_string()];
            let place = ["--config", &node[2], "--host", &config.host(me).name];
            words.into_iter().chain(place).map(str::to_owned).collect()
        };
        let consoles = config.console.tty.iter().map(line).collect();
        guard::run(&node, consoles)
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
    let mut parsed = Arguments { place: Place::default(), is_node: false, restarts: 0 };
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            option if parsed.place.take(option, &mut rest)? => {}
            "--as-node" => parsed.is_node = true,
            "--restarts" => parsed.restarts = value_of(argument, &mut rest)?.parse().unwrap_or(0),
            other => return Err(format!("run does not know {other}")),
        }
    }
    Ok(parsed)
}
