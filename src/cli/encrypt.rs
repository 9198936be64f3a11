//! `tandem encrypt PASSWORD`: prints Atlas's form of a password, for `password_encrypted`.

use std::process::ExitCode;

use crate::sql::atlas;

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let [password] = arguments else {
        return super::usage("encrypt takes one password");
    };
    println!("{}", atlas::encrypt(password));
    ExitCode::SUCCESS
}
