//! The applets: one file each. They read arguments and files and end with an exit code.
//!
//! Exit codes: 0 done, 1 refused or failed, 2 wrong usage or configuration, 3 no daemon runs here.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod act;
mod applet;
mod check;
mod connection;
mod console;
mod discover;
mod doctor;
mod edit;
mod encrypt;
mod hash;
mod import;
mod install;
mod look;
mod mysqlreplicate;
mod mysqlrpladmin;
mod mysqlrplcheck;
mod mysqlrplshow;
mod network;
mod options;
mod rejoin;
mod rescue;
mod reseed;
mod run;
mod say;
mod secrets;
mod servers;
mod site;
mod status;
mod support;
mod turn;
mod update;

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;

use crate::config::{Config, EXAMPLE, reference};
use crate::console::explain;
use crate::console::message::{Power, RELEASE, Request};
use crate::console::verbs::{self, Group};
use crate::os::disk::{self, Disk};
use crate::os::{file, init, serve_sql, serve_web, terminal};
use crate::wire::HostId;

/// Where the configuration is looked for when nothing else is said.
pub const CONFIG_PATH: &str = "/etc/tandem/tandem.toml";

/// Runs the applet that the arguments name: the first one, or the name of a link to the binary.
pub fn run(arguments: Vec<String>) -> ExitCode {
    let mut arguments = arguments.into_iter();
    let called = arguments.next().unwrap_or_default();
    let rest: Vec<String> = arguments.collect();
    let name = Path::new(&called).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(code) = utility(name, &rest) {
        return code;
    }
    if name == "init" && std::process::id() == 1 {
        init::run();
    }
    let (name, mut rest) = match rest.split_first() {
        Some((name, rest)) => (name.as_str(), rest.to_vec()),
        None => ("", Vec::new()),
    };
    if let Some(code) = utility(name, &rest) {
        return code;
    }
    if name != "run" {
        terminal::heed_signals();
    }
    let asks_help = rest.iter().any(|argument| argument == "--help" || argument == "-h");
    if let Some(verb) = verbs::find(name).filter(|_| asks_help) {
        put(&verb.help());
        return ExitCode::SUCCESS;
    }
    if name == "edit" {
        return edit::run(&rest);
    }
    if name != "network"
        && verbs::find(name).is_some_and(|it| matches!(it.group, Group::Act | Group::Machine))
    {
        let is_sure = act::take_yes(&mut rest);
        return acting(name, &rest, is_sure);
    }
    if let Some(code) = status::section(name, &rest) {
        return code;
    }
    match name {
        "run" => run::run(&rest),
        "network" => network::run(&rest),
        "rescue" if init::is_appliance() => rescue::run(&rest),
        "status" => status::run(&rest),
        "log" => look::log(&rest),
        "explain" => explained(&rest),
        "config" => look::config(&rest),
        "trace" => look::trace(&rest),
        "support" => support::run(&rest),
        "console" => console::run(&rest),
        "check" => check::run(&rest),
        "doctor" => doctor::run(&rest),
        "encrypt" => encrypt::run(&rest),
        "hash" => hash::run(&rest),
        "import" => import::run(&rest),
        "install" => install::install(&rest),
        "uninstall" => install::uninstall(&rest),
        "example" | "man" | "version" | "--version" => match rest.is_empty() {
            true => tell(name),
            false => wrong(name, "takes no arguments"),
        },
        "completion" => match rest.as_slice() {
            [shell] if shell == "bash" => tell(name),
            [..] => wrong(name, "takes the name of a shell: bash"),
        },
        "help" | "--help" | "-h" => help(&rest),
        "" => usage("a verb is missing"),
        other => usage(&format!("there is no verb {other}")),
    }
}

/// What only prints.
fn tell(name: &str) -> ExitCode {
    put(&match name {
        "example" => EXAMPLE.to_owned(),
        "man" => verbs::manual(RELEASE),
        "completion" => verbs::completion(),
        _ => format!("tandem {RELEASE}\n"),
    });
    ExitCode::SUCCESS
}

fn help(arguments: &[String]) -> ExitCode {
    match arguments {
        [] => put(&verbs::overview()),
        [name] if name == "config" => put(reference::REFERENCE),
        [name] => match verbs::find(name) {
            Some(verb) => put(&verb.help()),
            None => return usage(&format!("there is no verb {name}")),
        },
        [name, key] if name == "config" => match reference::find(key) {
            Ok(text) => put(&text),
            Err(why) => return wrong_word(&why),
        },
        [..] => return wrong("help", "takes one verb, or config and a section or key"),
    }
    ExitCode::SUCCESS
}

fn explained(arguments: &[String]) -> ExitCode {
    let told = match arguments {
        [] => Ok(explain::overview()),
        [name] => explain::explain(name),
        [..] => return wrong("explain", "takes one name"),
    };
    match told {
        Ok(text) => put(&text),
        Err(why) => return wrong_word(&why),
    }
    ExitCode::SUCCESS
}

/// The verbs that change something; `is_sure`: they do not ask.
fn acting(name: &str, arguments: &[String], is_sure: bool) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let request = match (name, words.as_slice()) {
        ("switchover", []) => Request::Switchover,
        ("failover", ["--force"]) => Request::FailoverForce,
        ("failover", _) => {
            return wrong(
                name,
                "needs --force: it serves with what this host has, and transactions that only the \
                 other host has are lost; `tandem switchover` loses nothing",
            );
        }
        ("hold", [word @ ("on" | "off")]) => Request::Hold(*word == "on"),
        ("maintenance", [word @ ("on" | "off")]) => Request::Maintenance(*word == "on"),
        ("hold" | "maintenance", _) => return wrong(name, "takes on or off"),
        ("php", [verb @ ("drain" | "on"), host]) => {
            Request::PhpDrain { host: (*host).to_owned(), is_on: *verb == "drain" }
        }
        ("php", _) => return wrong(name, "takes drain or on, and the name of a host"),
        ("watchdog", ["--test"]) => Request::WatchdogTest,
        ("watchdog", _) => return wrong(name, "takes --test"),
        ("reset", ["--everything"]) => return update::reset(is_sure),
        ("reset", _) => {
            return wrong(name, "needs --everything: database, site and state are lost");
        }
        ("site", _) => return site::run(arguments),
        ("update", _) => return update::run(arguments, is_sure),
        ("rejoin", _) => return rejoin::run(arguments, is_sure),
        ("secrets", _) => return secrets::run(arguments),
        ("reseed", []) => Request::Reseed,
        ("reseed", ["--copy", place @ ..]) => return reseed::run(place),
        ("reload", []) => Request::Reload,
        ("reboot", []) => Request::Power(Power::Reboot),
        ("shutdown", []) => Request::Power(Power::Off),
        (_, _) => return wrong(name, "takes no arguments"),
    };
    act::act(&request, is_sure)
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

/// There is no such verb.
fn usage(what: &str) -> ExitCode {
    eprintln!("tandem: {what}\n\n{}", verbs::overview());
    ExitCode::from(2)
}

/// There is nothing of the name that was asked for.
fn wrong_word(what: &str) -> ExitCode {
    eprintln!("tandem: {what}");
    ExitCode::from(2)
}

/// A verb's arguments are not right.
fn wrong(name: &str, what: &str) -> ExitCode {
    eprintln!("tandem: {name} {what}");
    if let Some(verb) = verbs::find(name) {
        eprint!("{}", verb.help());
    }
    ExitCode::from(2)
}

fn failed(why: &str) -> ExitCode {
    eprintln!("tandem: {why}");
    ExitCode::FAILURE
}

/// To standard output, which a pager may have closed: then there is nobody to tell.
fn put(text: &str) {
    let _closed = std::io::stdout().write_all(text.as_bytes());
}

/// The disk of the appliance that this host is; elsewhere an operator does `instead`.
fn appliance_disk(instead: &str) -> Result<Disk, String> {
    if !init::is_appliance() {
        return Err(format!("this host is no appliance: {instead}"));
    }
    let found = disk::find().map_err(|error| error.to_string())?;
    found.ok_or_else(|| "the appliance's disk is gone".to_owned())
}

/// As the kernel has it.
fn host_name() -> String {
    nix::unistd::gethostname()
        .map_or_else(|_| "this host".to_owned(), |name| name.to_string_lossy().into_owned())
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
