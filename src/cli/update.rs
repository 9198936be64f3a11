//! `update FILE`, of an appliance: another build into the slot that does not run, tried at the next
//! boot, and kept if this host comes back into the pair with it.
//!
//! Exit code 0: the machine is on its way to boot it. 1: refused or failed; what runs still runs.
//! Read first: os/update.rs; image/grub.cfg (who counts the tries).

use std::process::ExitCode;
use std::time::Duration;

use super::act;
use super::edit::Keys;
use super::status::fetch;
use crate::console::message::{Power, Request};
use crate::console::status::Status;
use crate::os::disk::Disk;
use crate::os::{children, clock, file, init, update};
use crate::time::Civil;
use crate::wire::Role;

/// For so long everything has to be well before a build is kept.
const WELL_TIME: Duration = Duration::from_secs(10);
/// A build that is not well by then is given up: the machine boots again.
const TRIAL_LIMIT: Duration = Duration::from_secs(600);
/// For the other host to take a build and to be back and well, its trial included.
const PAIR_LIMIT: Duration = Duration::from_secs(1200);
const SWITCH_LIMIT: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &[String], is_sure: bool) -> ExitCode {
    let (mut may_be_older, mut is_pair) = (false, false);
    let mut places = Vec::new();
    for argument in arguments {
        match argument.as_str() {
            "--older" => may_be_older = true,
            "--pair" => is_pair = true,
            "--confirm" => return confirm(),
            other => places.push(other),
        }
    }
    let [place] = places.as_slice() else {
        return super::wrong(
            "update",
            "takes one file, or an address as in http://10.0.0.9/update",
        );
    };
    let done = match is_pair {
        true => both(place, is_sure),
        false => install(place, may_be_older, is_sure),
    };
    match done {
        Ok(code) => code,
        Err(why) => super::failed(&why),
    }
}

fn install(place: &str, may_be_older: bool, is_sure: bool) -> Result<ExitCode, String> {
    let disk = disk()?;
    let update = update::open(place)?;
    let manifest = &update.manifest;
    let (board, built) = init::identity().map_err(|error| error.to_string())?;
    manifest.suits(&board, built, may_be_older).map_err(|why| format!("{place}: {why}"))?;
    if !may_be_older && update::has_failed(&disk, manifest).map_err(|error| error.to_string())? {
        return Err(format!(
            "{place}: this machine took it before, did not become well, and went back: \
             --older takes it all the same"
        ));
    }
    let Civil { year, month, day, .. } = Civil::of(manifest.built);
    println!("tandem {} for {board}, built {year:04}-{month:02}-{day:02}", manifest.release);
    if !is_sure {
        let what = "It is written beside what runs; then this host leaves the pair and boots it. \
                    If it is not back in the pair within 10 minutes, or does not even boot, what \
                    runs now is booted again.";
        let lines = crate::console::render::fold(what, "");
        if let Err(code) = act::confirm(&lines) {
            return Ok(code);
        }
    }
    let slot = update::install(&disk, update, &mut |step| println!("{step}"))?;
    println!("slot {slot} is tried at the next boot");
    Ok(act::perform(&Request::Power(Power::Reboot), false))
}

/// The host that stands by first; then the roles are exchanged; then this one.
fn both(place: &str, is_sure: bool) -> Result<ExitCode, String> {
    let (board, own) = init::identity().map_err(|error| error.to_string())?;
    let manifest = {
        disk()?;
        update::open(place)?.manifest
    };
    manifest.suits(&board, own, false).map_err(|why| format!("{place}: {why}"))?;
    let (name, peer) = {
        let status = fetch()?;
        (status.host, status.peer.name)
    };
    if !is_sure {
        let what = format!(
            "{peer} takes it, boots it, and is waited for until it is back and well; then {name} \
             gives it the role and takes the same. Nothing moves if {peer} goes back to what it \
             runs."
        );
        if let Err(code) = act::confirm(&crate::console::render::fold(&what, "")) {
            return Ok(code);
        }
    }
    act::perform(&Request::UpdatePeer { place: place.to_owned() }, false);
    if !fetch()?.build.is_peer_ordered {
        return Ok(ExitCode::FAILURE);
    }
    wait(PAIR_LIMIT, |status| {
        let build = status.build;
        let is_back = status.peer.role == Some(Role::Standby) && !build.is_peer_ordered;
        match is_back {
            true if build.peer_built != manifest.built => {
                Err(format!("{peer} runs what it ran: its log says why"))
            }
            true => Ok(!build.is_peer_on_trial),
            false => Ok(false),
        }
    })?;
    println!("{peer} is back and well with it");
    act::perform(&Request::Switchover, false);
    wait(SWITCH_LIMIT, |status| Ok(status.role == Role::Standby))?;
    install(place, false, true)
}

/// Until it is so; a daemon that does not answer for a moment is asked again.
fn wait(
    limit: Duration,
    mut is_so: impl FnMut(&Status) -> Result<bool, String>,
) -> Result<(), String> {
    let since = clock::now();
    while clock::now().since(since) < limit {
        if let Ok(status) = fetch()
            && is_so(&status)?
        {
            return Ok(());
        }
        std::thread::sleep(PAUSE);
    }
    Err(format!("it is not so after {} s: `status` shows how things are", limit.as_secs()))
}

fn disk() -> Result<Disk, String> {
    super::appliance_disk("copy the new binary over the old one, and start the service again")
}

/// `reset --everything`: the next boot begins with an empty data partition.
pub(super) fn reset(is_sure: bool) -> ExitCode {
    match order_reset(is_sure) {
        Ok(code) => code,
        Err(why) => super::failed(&why),
    }
}

fn order_reset(is_sure: bool) -> Result<ExitCode, String> {
    let disk = disk()?;
    let name = super::host_name();
    if !is_sure {
        println!("Database, site and state of {name} are lost; its configuration stays.");
        let typed = Keys::new()?.read(&format!("Type {name} to go on: "), "")?;
        if typed.as_deref() != Some(name.as_str()) {
            println!("nothing was done");
            return Ok(ExitCode::FAILURE);
        }
    }
    disk.order_new_data().map_err(|error| format!("boot partition: {error}"))?;
    println!("the next boot begins anew");
    if file::running("node.pid").is_none() {
        // On the console of a machine that does not serve.
        init::end_now(Power::Reboot);
    }
    Ok(act::perform(&Request::Power(Power::Reboot), false))
}

/// The service that PID 1 starts on a machine whose slot is on trial.
fn confirm() -> ExitCode {
    match watch() {
        Ok(what) => {
            println!("{what}");
            ExitCode::from(children::DONE_CODE)
        }
        Err(why) => super::failed(&why),
    }
}

fn watch() -> Result<&'static str, String> {
    let disk = disk()?;
    let begun = clock::now();
    let mut well_since = None;
    loop {
        let now = clock::now();
        match fetch().map_err(|_| "no daemon answers".to_owned()).and_then(|it| ail(&it)) {
            Ok(()) => {
                let since = *well_since.get_or_insert(now);
                if now.since(since) >= WELL_TIME {
                    let done = update::confirm(&disk).map_err(|error| error.to_string())?;
                    act::perform(&Request::UpdateKept, false);
                    return Ok(if done { "this build is kept" } else { "no build is on trial" });
                }
            }
            Err(why) if now.since(begun) >= TRIAL_LIMIT => {
                println!("this build is given up: {why}");
                act::perform(&Request::Power(Power::Reboot), false);
                init::end_now(Power::Reboot);
            }
            Err(_) => well_since = None,
        }
        std::thread::sleep(PAUSE);
    }
}

/// What keeps this host from being back in the pair.
fn ail(status: &Status) -> Result<(), String> {
    let takes_part = |role| matches!(role, Role::Active | Role::Standby);
    if !takes_part(status.role) {
        return Err(format!("{} is {}", status.host, status.role));
    }
    match status.peer.role {
        None => return Err(format!("{} is silent", status.peer.name)),
        Some(role) if !takes_part(role) => return Err(format!("{} is {role}", status.peer.name)),
        Some(_) => {}
    }
    match status.web.php.iter().find(|it| it.host == status.host && !it.is_up) {
        Some(php) => Err(format!("php-fpm: {}", php.reason)),
        None => Ok(()),
    }
}
