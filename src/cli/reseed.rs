//! `tandem reseed --copy`: the daemon's own call, which replaces this host's database by a copy of
//! the other one's. What an operator says goes to the daemon, which decides.
//!
//! Exit code 0: it is a copy. 1: it is not; says why. Read first: node/reseed.rs, os/copy.rs.

use std::process::ExitCode;

use super::Place;
use crate::os::copy::copy;
use crate::os::mysql::LocalServer;
use crate::os::own;

/// `place`: the arguments that say where the configuration is.
pub(super) fn run(place: &[&str]) -> ExitCode {
    own::end_with_caller();
    match start(place) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn start(arguments: &[&str]) -> Result<(), String> {
    let mut place = Place::default();
    let arguments: Vec<String> = arguments.iter().map(|it| (*it).to_owned()).collect();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if !place.take(argument, &mut rest)? {
            return Err(format!("reseed does not take {argument}"));
        }
    }
    let (config, me) = place.load()?;
    let [source, target] = [me.other(), me].map(|host| LocalServer::of(&config, host));
    copy(&source, &target, &mut |what| println!("{what}"))
}
