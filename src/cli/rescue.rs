//! `rescue`: the console of an appliance that does not serve, because its configuration or its disk
//! keeps it from that. Started by PID 1 on every terminal of the board.
//!
//! Read first: os/init.rs (who starts it, and says why), cli/edit.rs.

use std::process::{Command, ExitCode};

use super::edit::Keys;
use super::value_of;
use crate::console::message::Power;
use crate::os::{init, terminal};

const HELP: &str = "  why              what keeps this machine from serving
  edit [FILE]      changes tandem.toml, or host.toml
  secrets          which of its secret files are missing, how they are made or taken over
  repair           mends the data partition with e2fsck, whatever is lost by it
  reset --everything  takes all data off: they come back from the other host
  help config NAME what a section or a key of tandem.toml means
  reboot           tries again
  shutdown         switches the machine off
";

pub(super) fn run(arguments: &[String]) -> ExitCode {
    match serve(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => super::failed(&why),
    }
}

fn serve(arguments: &[String]) -> Result<(), String> {
    let (mut tty, mut speed, mut why) = (String::new(), 115_200, String::new());
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let value = value_of(argument, &mut rest)?;
        match argument.as_str() {
            "--tty" => tty = value,
            "--speed" => speed = value.parse().map_err(|_| "a number".to_owned())?,
            "--why" => why = value,
            other => return Err(format!("does not know {other}")),
        }
    }
    terminal::leave_interrupt();
    terminal::end_with_parent().map_err(|error| error.to_string())?;
    let line = terminal::open(&tty, speed).map_err(|error| error.to_string())?;
    terminal::become_standard(&line).map_err(|error| format!("{tty}: {error}"))?;
    tell(&why);
    print!("{HELP}");
    loop {
        // The terminal is as it was while an order is carried out.
        let typed = Keys::new()?.read("does not serve> ", "")?.unwrap_or_default();
        match typed.split_whitespace().collect::<Vec<_>>().as_slice() {
            [] => {}
            ["why"] => tell(&why),
            ["repair"] => match repair() {
                Ok(()) => println!("repaired: `reboot` tries again"),
                Err(why) => println!("{why}"),
            },
            ["edit" | "reset" | "secrets", ..] | ["help", "config" | "secrets", ..] => {
                let ended = Command::new("/proc/self/exe").args(typed.split_whitespace()).status();
                ended.map_err(|error| format!("/proc/self/exe: {error}"))?;
            }
            ["reboot"] => init::end_now(Power::Reboot),
            ["shutdown"] => init::end_now(Power::Off),
            [..] => print!("{HELP}"),
        }
    }
}

fn repair() -> Result<(), String> {
    let disk = super::appliance_disk("its own e2fsck mends its disks")?;
    disk.repair_data(init::slot()).map_err(|error| error.to_string())
}

fn tell(why: &str) {
    println!("\nTHIS MACHINE DOES NOT SERVE:\n{why}\n");
}
