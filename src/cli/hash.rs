//! `tandem hash`: the hash of a password, for the configuration's [console].
//!
//! In: the password on standard input, one line. Out: crypt(5) with SHA-512.

use std::process::ExitCode;

use crate::os::terminal;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    if !arguments.is_empty() {
        return super::wrong("hash", "takes no arguments: the password comes by standard input");
    }
    let password = match terminal::read_secret("password: ") {
        Ok(password) if !password.is_empty() => password,
        Ok(_) => return super::failed("an empty password is none"),
        Err(error) => return super::failed(&error.to_string()),
    };
    match terminal::hash(&password) {
        Ok(hash) => {
            println!("{hash}");
            ExitCode::SUCCESS
        }
        Err(why) => super::failed(&why),
    }
}
