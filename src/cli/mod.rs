//! The applets: one file each. They read arguments and files and end with an exit code.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod applet;
mod check;
mod connection;
mod discover;
mod encrypt;
mod mysqlreplicate;
mod mysqlrpladmin;
mod mysqlrplcheck;
mod mysqlrplshow;
mod options;
mod rejoin;
mod run;
mod say;
mod servers;
mod status;
mod turn;

use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, EXAMPLE};
use crate::console::message::{Request, Response};
use crate::os::{control, file, serve_sql, serve_web};
use crate::wire::HostId;

/// Where the configuration is looked for when nothing else is said.
pub const CONFIG_PATH: &str = "/etc/tandem/tandem.toml";

const USAGE: &str = "\
tandem: two hosts, one dependable web-and-database service

usage: tandem APPLET [ARGUMENTS]

  run [--config FILE] [--host NAME]   the daemon, in the foreground
  status [--json]                     what is true now, on one screen
  switchover                          exchange the roles of both hosts, losing nothing
  failover --force                    serve on this host, whatever the other one has
  hold on|off                         whether roles stay where they are, on both hosts, whatever
                                      happens
  maintenance on|off                  whether this host takes no role; on: gives away the one it has
  php drain|on HOST                   whether a host's php-fpm gets nothing new, from either front;
                                      what it has goes on
  rejoin [--discard]                  why this host does not follow; --discard: take back what only
                                      its database has (it is saved before)
  reseed --yes                        replace this host's database by a copy of the other one's
                                      (MySQL 8.0.17 and later)
  reload                              read the configuration again; requests go on
  check [--live] [--host NAME] [FILE] validate a configuration; --live: look at the network too
  encrypt PASSWORD                    Atlas's form of a password, for `password_encrypted`
  example                             print a commented configuration
  version

Of mysql-utilities, also by links of these names; each has --help:

  mysqlreplicate                      make a server the replica of another
  mysqlrplcheck                       whether two servers fit each other
  mysqlrplshow                        draw who replicates from whom
  mysqlrpladmin COMMAND               elect, failover, gtid, health, reset, start, stop, switchover
";

/// Runs the applet that the arguments name: the first one, or the name of a link to the binary.
pub fn run(arguments: Vec<String>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(code) = utility(name, &rest) {
        return code;
    }
    let (applet, rest) = match rest.split_first() {
        Some((applet, rest)) => (applet.as_str(), rest.to_vec()),
        None => ("", Vec::new()),
    };
    if let Some(code) = utility(applet, &rest) {
        return code;
    }
    match applet {
        "run" => run::run(&rest),
        "status" => status::run(&rest),
        "switchover" if rest.is_empty() => act(&Request::Switchover),
        "failover" if rest == ["--force"] => act(&Request::FailoverForce),
        "failover" => usage(
            "failover needs --force: it serves with what this host has, and transactions that only \
             the other host has are lost; `tandem switchover` loses nothing",
        ),
        "hold" => order(Request::Hold, "hold", &rest),
        "maintenance" => order(Request::Maintenance, "maintenance", &rest),
        "php" => match rest.as_slice() {
            [verb, host] if verb == "drain" || verb == "on" => {
                act(&Request::PhpDrain { host: host.clone(), is_on: verb == "drain" })
            }
            [..] => usage("php takes drain or on, and the name of a host"),
        },
        "rejoin" => rejoin::run(&rest),
        "reseed" if rest == ["--yes"] => act(&Request::Reseed),
        "reseed" => usage(
            "reseed needs --yes: it replaces everything in this host's database by a copy of the \
             other one's",
        ),
        "reload" if rest.is_empty() => act(&Request::Reload),
        "check" => check::run(&rest),
        "encrypt" => encrypt::run(&rest),
        "example" if rest.is_empty() => {
            print!("{EXAMPLE}");
            ExitCode::SUCCESS
        }
        "version" | "--version" => {
            println!("tandem {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        "help" | "--help" | "-h" => {
            print!("{USAGE}");
            ExitCode::SUCCESS
        }
        "" => usage("an applet is missing"),
        other => usage(&format!("unknown applet or arguments: {other} {}", rest.join(" "))),
    }
}

/// The applets in the manner of mysql-utilities. `None`: it is none of them.
fn utility(name: &str, arguments: &[String]) -> Option<ExitCode> {
    // The originals are found with and without an ending.
    match name.strip_suffix(".py").unwrap_or(name) {
        "mysqlreplicate" => Some(mysqlreplicate::run(arguments)),
        "mysqlrpladmin" => Some(mysqlrpladmin::run(arguments)),
        "mysqlrplcheck" => Some(mysqlrplcheck::run(arguments)),
        "mysqlrplshow" => Some(mysqlrplshow::run(arguments)),
        _ => None,
    }
}

/// `hold` and `maintenance`: one of two words.
fn order(request: fn(bool) -> Request, name: &str, arguments: &[String]) -> ExitCode {
    match arguments {
        [word] if word == "on" => act(&request(true)),
        [word] if word == "off" => act(&request(false)),
        [..] => usage(&format!("{name} takes on or off")),
    }
}

fn usage(what: &str) -> ExitCode {
    eprintln!("tandem: {what}\n\n{USAGE}");
    ExitCode::from(2)
}

/// Which configuration, and which host of it: `--config FILE` and `--host NAME`.
struct Place {
    config: String,
    /// Without it, this host's own name.
    host: Option<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { config: CONFIG_PATH.to_owned(), host: None }
    }
}

impl Place {
    /// Takes the option, with its value, if it is one of the two.
    fn take<'a>(
        &mut self,
        option: &str,
        rest: &mut impl Iterator<Item = &'a String>,
    ) -> Result<bool, String> {
        match option {
            "--config" => self.config = value_of(option, rest)?,
            "--host" => self.host = Some(value_of(option, rest)?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn load(&self) -> Result<(Config, HostId), String> {
        let config = file::load_config(&self.config)?;
        let me = this_host(&config, self.host.as_deref())?;
        Ok((config, me))
    }
}

fn value_of<'a>(
    option: &str,
    rest: &mut impl Iterator<Item = &'a String>,
) -> Result<String, String> {
    rest.next().cloned().ok_or_else(|| format!("{option} needs a value"))
}

/// Whether what the configuration names besides secrets can be used: certificates and their keys.
/// Returns what clients will complain of all the same.
fn check_files(path: &str, config: &Config) -> Result<Vec<String>, String> {
    serve_sql::check_files(&config.sql)
        .and_then(|()| serve_web::check_files(&config.web))
        .map_err(|why| format!("{path}: {why}"))
}

/// Which of the two this host is, by the name that was given or by its own.
fn this_host(config: &Config, given: Option<&str>) -> Result<HostId, String> {
    let name = match given {
        Some(name) => name.to_owned(),
        None => nix::unistd::gethostname()
            .map_err(|error| format!("the host name is not known: {error}"))?
            .to_string_lossy()
            .into_owned(),
    };
    config.find_host(&name).map_err(|error| error.to_string())
}

/// Sends a request that acts, prints its steps as they come, ends with what is true then.
fn act(request: &Request) -> ExitCode {
    let mut code = ExitCode::FAILURE;
    let asked = control::ask(request, |response| match response {
        Response::Progress(step) => println!("{step}"),
        Response::Done(what) => {
            println!("{what}");
            code = ExitCode::SUCCESS;
        }
        Response::Refused(why) => eprintln!("tandem: refused: {why}"),
        Response::Status(_) => {}
    });
    match asked {
        Ok(()) => code,
        Err(error) => {
            eprintln!("tandem: {error}");
            ExitCode::FAILURE
        }
    }
}
