//! What the four mysql-utilities applets have in common: usage, warnings, exit codes.
//!
//! In: arguments, a table of options, the applet's own body. Out: an exit code.
//! Read first: facts/repl.md section 1 "Common".
//! Differs: 1 wherever something failed; the originals printed "Errors found" and ended with 0.

use std::process::ExitCode;

use super::connection::{self, Login, Passwords};
use super::options::{self, Parsed, Spec};
use super::say::Say;
use crate::os::file;

/// Why an applet ends early.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Wrong usage: exit code 2.
    Usage(String),
    /// Refused or failed: exit code 1.
    Error(String),
}

impl From<String> for Stop {
    fn from(error: String) -> Self {
        Self::Error(error)
    }
}

/// What the body of an applet works with.
pub(super) struct Call {
    pub(super) options: Parsed,
    pub(super) passwords: Passwords,
    pub(super) say: Say,
}

impl Call {
    /// The server that an option names.
    pub(super) fn login(&self, option: &str) -> Result<Option<Login>, Stop> {
        self.options.value(option).map(|text| self.parse(option, text)).transpose()
    }

    /// The servers that an option lists.
    pub(super) fn logins(&self, option: &str) -> Result<Vec<Login>, Stop> {
        let text = self.options.value(option).unwrap_or_default();
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        parts.map(|part| self.parse(option, part)).collect()
    }

    fn parse(&self, option: &str, text: &str) -> Result<Login, Stop> {
        connection::parse(text, &self.passwords)
            .map_err(|why| Stop::Usage(format!("option --{option}: {why}")))
    }

    pub(super) fn number(&self, option: &str, default: u64) -> Result<u64, Stop> {
        self.options.number(option, default).map_err(Stop::Usage)
    }
}

/// A daemon on this host gives and takes the roles of its pair; whoever changes them beside it is
/// undone, or fenced.
pub(super) fn warn_of_daemon(say: &Say) {
    if std::os::unix::net::UnixStream::connect(file::SOCKET).is_ok() {
        say.warning(
            "The tandem daemon runs on this host and gives the roles of its pair: for those, use \
             tandem switchover and tandem failover.",
        );
    }
}

/// Runs the applet that `spec` describes.
pub(super) fn run(
    spec: &Spec,
    arguments: &[String],
    body: fn(&mut Call) -> Result<ExitCode, Stop>,
) -> ExitCode {
    let options = match options::parse(spec, arguments) {
        Ok(options) => options,
        Err(why) => return usage(spec, &why),
    };
    if let Some(text) = text_asked_for(spec, &options) {
        print!("{text}");
        return ExitCode::SUCCESS;
    }
    if options.has("quiet") && options.has("verbose") {
        return usage(spec, "You cannot use --verbose and --quiet together.");
    }
    if options.values().any(connection::shows_password) || shows_replication_password(&options) {
        println!("WARNING: Using a password on the command line interface can be insecure.");
    }
    let passwords = match Passwords::gather(options.has("prompt")) {
        Ok(passwords) => passwords,
        Err(why) => return usage(spec, &why),
    };
    let say = Say::new(options.has("quiet"), options.count("verbose"));
    for warning in &options.warnings {
        say.warning(warning);
    }
    let mut call = Call { options, passwords, say };
    match body(&mut call) {
        Ok(code) => code,
        Err(Stop::Usage(why)) => usage(spec, &why),
        Err(Stop::Error(why)) => {
            call.say.error(&why);
            ExitCode::FAILURE
        }
    }
}

fn shows_replication_password(options: &Parsed) -> bool {
    let account = options.value("rpl-user").map(connection::account_of);
    account.is_some_and(|(_, password)| password.is_some())
}

fn text_asked_for(spec: &Spec, options: &Parsed) -> Option<String> {
    let name = spec.program;
    let version = env!("CARGO_PKG_VERSION");
    if options.has("help") {
        Some(options::help(spec, EPILOG))
    } else if options.has("version") {
        Some(format!(
            "{name}, applet of tandem {version}, in the manner of mysql-utilities 1.6.5\n"
        ))
    } else if options.has("license") {
        Some("MIT OR Apache-2.0; none of mysql-utilities' code is in it.\n".to_owned())
    } else {
        None
    }
}

fn usage(spec: &Spec, why: &str) -> ExitCode {
    eprintln!("Usage: {}\n\n{}: error: {why}", spec.usage, spec.program);
    ExitCode::from(2)
}

const EPILOG: &str = "\
A server is user[:password]@host[:port][:socket], or the path of an option file
and a group in it, as in /root/.my.cnf[client]. Without a password in it,
TANDEM_MYSQL_PASSWORD is used, or what is typed for --prompt; without one in
--rpl-user, TANDEM_RPL_PASSWORD. Login paths are refused.

Exit code: 0 done, 1 refused or failed, 2 wrong usage.
";
