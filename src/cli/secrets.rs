//! `tandem secrets [make | offer | take CODE]`: the files that hold the configuration's secrets.
//!
//! It asks no daemon: a host without them cannot run one. Exit code 0: all are there, made, handed
//! over. 1: not. Read first: `crate::secrets`.

use std::process::ExitCode;

use super::{Place, this_host};
use crate::config::{Config, SecretKind};
use crate::os::random::random;
use crate::os::secrets::{offer, read, take, write};
use crate::os::{file, init};
use crate::secrets::{self, Code};
use crate::wire::HostId;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let mut place = Place::default();
    let mut words = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match place.take(argument, &mut rest) {
            Ok(true) => {}
            Ok(false) => words.push(argument.as_str()),
            Err(what) => return super::wrong("secrets", &what),
        }
    }
    let done = match words.as_slice() {
        [] => list(&place),
        ["make"] => make(&place).map(|()| true),
        ["offer"] => offered(&place).map(|()| true),
        // Typed in groups, it may be several words.
        ["take", code @ ..] if !code.is_empty() => match Code::parse(&code.concat()) {
            Ok(code) => taken(&place, &code).map(|()| true),
            Err(why) => return super::wrong("secrets", &format!("take: {why}")),
        },
        [..] => return super::wrong("secrets", "takes nothing, make, offer, or take and a code"),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => super::failed(&why),
    }
}

/// The configuration with its secrets left where they are.
fn load(place: &Place) -> Result<(Config, HostId), String> {
    let config = file::read_config(&place.config)?;
    let me = this_host(&config, place.host.as_deref())?;
    Ok((config, me))
}

/// Whether all are there.
fn list(place: &Place) -> Result<bool, String> {
    let (config, me) = load(place)?;
    let files = config.secret_files();
    if files.is_empty() {
        println!("{} names no file that holds a secret", place.config);
    }
    let mut is_whole = true;
    for file in &files {
        let found = read(&file.path);
        is_whole &= matches!(found, Ok(Some(_)));
        let state = match found {
            Ok(Some(_)) => "is there".to_owned(),
            Ok(None) => "is missing".to_owned(),
            Err(why) => why,
        };
        println!("{}  {}: {state}", file.path, file.name);
    }
    if !is_whole {
        let other = &config.host(me.other()).name;
        let verb = verb();
        println!(
            "\nA new pair: `{verb} make` here. A host of a pair: `{verb} offer` on {other}, and \
             here `{verb} take` with the code that it tells."
        );
    }
    Ok(is_whole)
}

fn make(place: &Place) -> Result<(), String> {
    let (config, me) = load(place)?;
    let files = config.secret_files();
    let mut count = 0;
    for (path, file) in secrets::by_path(&files)? {
        if read(path)?.is_some() {
            continue;
        }
        let made = secrets::make(file.kind, random()?)?;
        write(path, &made.text)?;
        count += 1;
        println!("{path}  {}: made", file.name);
        // What somebody may have to type or write somewhere; keys are between the two hosts.
        let is_told = matches!(file.kind, SecretKind::Console | SecretKind::Password);
        if is_told {
            println!("    it is {}", made.told.as_ref().unwrap_or(&made.text));
        }
    }
    if count == 0 {
        println!("all of them are there already");
        return Ok(());
    }
    let other = &config.host(me.other()).name;
    println!("\nNow {other} must get the same: `{} offer` here.{}", verb(), next());
    Ok(())
}

fn offered(place: &Place) -> Result<(), String> {
    let (config, me) = load(place)?;
    let code = Code::new(random()?);
    let other = &config.host(me.other()).name;
    println!("On {other}, within ten minutes:\n\n    {} take {code}\n", verb());
    let told = offer(&config, me, &code)?;
    println!("{other} {told}.{}", next());
    Ok(())
}

fn taken(place: &Place, code: &Code) -> Result<(), String> {
    let (config, me) = load(place)?;
    let told = take(&config, me, code)?;
    println!("this host {told}.{}", next());
    Ok(())
}

/// As it is typed here, and on the other host.
fn verb() -> &'static str {
    if init::is_appliance() { "secrets" } else { "tandem secrets" }
}

/// What makes use of them.
fn next() -> &'static str {
    if file::running("node.pid").is_some() {
        ""
    } else if init::is_appliance() {
        " `reboot` starts with them."
    } else {
        " The daemon can be started."
    }
}
