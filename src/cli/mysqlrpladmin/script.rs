//! `--exec-before` and `--exec-after`: the operator's own programs around a change of roles.
//!
//! In: a path, both servers. Out: the script's verdict. Must not: run a shell.
//! Read first: facts/repl.md 1.4, step 8 of failover.

use std::process::Command;

use super::super::applet::{Call, Stop};

/// Runs the script that the option names, if any, with the old source and the new one.
pub(super) fn run(
    call: &Call,
    option: &str,
    old: (&str, u16),
    new: (&str, u16),
) -> Result<(), Stop> {
    let Some(path) = call.options.value(option) else { return Ok(()) };
    call.say.more(1, &format!("# Spawning external script: {path}"));
    let (old_port, new_port) = (old.1.to_string(), new.1.to_string());
    let status = Command::new(path).args([old.0, &old_port, new.0, &new_port]).status();
    let code = match status {
        Ok(status) => status.code().unwrap_or(SIGNALLED),
        Err(error) => return Err(Stop::Error(format!("--{option}: {path}: {error}"))),
    };
    let threshold = call.number("script-threshold", u64::MAX)?;
    if u64::try_from(code).is_ok_and(|code| code >= threshold) {
        let limit = format!("--script-threshold={threshold}");
        return Err(Stop::Error(format!("--{option}: {path} ended with {code}; {limit}.")));
    }
    if code != 0 {
        call.say.warning(&format!("--{option}: {path} ended with {code}."));
    }
    Ok(())
}

/// What shells make of a program that a signal ended, without its number.
const SIGNALLED: i32 = 128;
