//! `mysqlrpladmin`: shows, checks and changes the roles of a source and its replicas.
//!
//! In: a command and servers. Out: tables, or roles changed by the engine's jobs.
//! Read first: facts/repl.md 1.4; section 0 for what the original does wrong.

mod elect;
mod failover;
mod health;
mod script;
mod stale;
mod switchover;
mod threads;

use std::process::ExitCode;
use std::time::Duration;

use super::applet::{self, Call, Stop};
use super::connection::{Login, account_of, parse};
use super::discover;
use super::options::{Opt, Spec, flag, value};
use super::servers::{Account, Server};
use super::turn::Turn;
use crate::console::table::Format;
use crate::repl::topology::Member;

const SPEC: Spec = Spec {
    program: "mysqlrpladmin",
    usage: "mysqlrpladmin --slaves=root@localhost:3306 <command>",
    purpose: "mysqlrpladmin - administration utility for MySQL replication\n\n\
        Commands:\n\
        \x20 elect       which replica would become the source\n\
        \x20 failover    make a replica the source of the others; its old source must be dead\n\
        \x20 gtid        what each server has executed\n\
        \x20 health      the state of every server\n\
        \x20 reset       stop the replicas and drop their relay logs\n\
        \x20 start       start replication on the replicas\n\
        \x20 stop        stop replication on the replicas\n\
        \x20 switchover  exchange the roles of --master and --new-master, losing nothing",
    options: &[OPTIONS],
};

const OPTIONS: &[Opt] = &[
    value("master", "SERVER", "the source"),
    value("slaves", "LIST", "its replicas, separated by commas"),
    value("candidates", "LIST", "replicas that a failover or an election tries first"),
    value("discover-slaves-login", "USER[:PW]", "find the replicas, and log in to them so"),
    value("new-master", "SERVER", "the replica that a switchover makes the source"),
    flag("demote-master", None, "a switchover makes the old source a replica of the new one"),
    flag("force", Some('f'), "go on where the reason given allows it, and lose what it says"),
    flag("no-health", None, "print no table after a failover or a switchover"),
    value("format", "FORMAT", "grid (default), csv, tab or vertical"),
    value("rpl-user", "USER[:PW]", "the account that replicas log in with"),
    value("timeout", "SECONDS", "how long replicas may take to catch up (300)"),
    value("seconds-behind", "SECONDS", "delay that health takes for none (0)"),
    value("max-position", "N", "").idle("replicas are compared by what they executed"),
    value("ping", "N", "").idle("one login with a deadline tells whether a server lives"),
    value("exec-before", "SCRIPT", "run before a failover or switchover"),
    value("exec-after", "SCRIPT", "run after it"),
    value("script-threshold", "N", "a script that ends with N or more stops everything"),
    value("log", "FILE", "append everything that is said to this file"),
    value("log-age", "DAYS", "").idle("old lines of the log are left to logrotate"),
    flag("prompt", Some('p'), "type the password of the servers"),
];

/// The commands, in the order of the help.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Elect,
    Failover,
    Gtid,
    Health,
    Reset,
    Start,
    Stop,
    Switchover,
}

impl Command {
    /// Whether it changes anything.
    const fn acts(self) -> bool {
        match self {
            Self::Health | Self::Gtid | Self::Elect => false,
            Self::Failover | Self::Reset | Self::Start | Self::Stop | Self::Switchover => true,
        }
    }
}

/// The servers that answered. The source is not asked for by every command.
struct Topology {
    source: Option<Server>,
    replicas: Vec<Server>,
    /// Replicas that could not be logged in to.
    absent: Vec<Login>,
}

pub(super) fn run(arguments: &[String]) -> ExitCode {
    applet::run(&SPEC, arguments, administrate)
}

fn administrate(call: &mut Call) -> Result<ExitCode, Stop> {
    let command = command(call)?;
    check_usage(call, command)?;
    if let Some(path) = call.options.value("log").map(str::to_owned) {
        call.say.log_to(&path)?;
    }
    if command == Command::Failover && call.options.has("master") {
        call.say.warning(
            "Option --master is ignored for failover: the source is who the replica says.",
        );
    }
    if command.acts() {
        applet::warn_of_daemon(&call.say);
    }
    let topology = connect(call, command)?;
    let servers = topology.source.iter().chain(&topology.replicas).filter(|_| command.acts());
    let _turn = Turn::take(servers)?;
    call.say.line("# Checking privileges.");
    check_privileges(&topology, command)?;
    let code = match command {
        Command::Elect => elect::elect(call, &topology)?,
        Command::Failover => failover::failover(call, &topology)?,
        Command::Gtid => health::gtid(call, &topology)?,
        Command::Health => health::health(call, &topology)?,
        Command::Reset => threads::reset(call, &topology)?,
        Command::Start => threads::start(call, &topology)?,
        Command::Stop => threads::stop(call, &topology)?,
        Command::Switchover => switchover::switchover(call, &topology)?,
    };
    call.say.line("# ...done.");
    Ok(code)
}

fn command(call: &Call) -> Result<Command, Stop> {
    let wrong = |why: String| Err(Stop::Usage(why));
    match call.options.arguments.as_slice() {
        [] => wrong("You must specify a command to execute.".to_owned()),
        [name] => match COMMANDS.iter().find(|(known, _)| *known == name.to_lowercase()) {
            Some((_, command)) => Ok(*command),
            None => wrong(format!("'{name}' is not a valid command.")),
        },
        [..] => wrong("You must specify exactly one command to execute.".to_owned()),
    }
}

fn check_usage(call: &Call, command: Command) -> Result<(), Stop> {
    let has = |option: &str| call.options.has(option);
    let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
    let (master, slaves, discover) = (has("master"), has("slaves"), has("discover-slaves-login"));
    if slaves && discover {
        return wrong("You cannot use --slaves and --discover-slaves-login together.");
    }
    match command {
        Command::Switchover if !master || !has("new-master") => {
            return wrong("The switchover command requires the options --master and --new-master.");
        }
        Command::Switchover | Command::Elect | Command::Gtid
            if !master || !(slaves || discover) =>
        {
            return wrong(
                "This command requires --master, and --slaves or --discover-slaves-login.",
            );
        }
        Command::Health if !master => return wrong("The health command requires --master."),
        Command::Failover if discover => {
            return wrong("The failover command cannot discover slaves: the master is gone.");
        }
        Command::Failover | Command::Reset | Command::Start | Command::Stop if !slaves => {
            return wrong("This command requires the option --slaves.");
        }
        _ if has("new-master") && command != Command::Switchover => {
            return wrong("The --new-master option is for switchover only.");
        }
        _ if has("demote-master") && command != Command::Switchover => {
            return wrong("The --demote-master option is for switchover only.");
        }
        Command::Elect
        | Command::Failover
        | Command::Gtid
        | Command::Health
        | Command::Reset
        | Command::Start
        | Command::Stop
        | Command::Switchover => {}
    }
    if let Some(format) = call.options.value("format")
        && Format::parse(format).is_none()
    {
        return wrong("The --format option takes grid, csv, tab or vertical.");
    }
    for option in ["timeout", "seconds-behind", "script-threshold"] {
        call.number(option, 0)?;
    }
    Ok(())
}

fn connect(call: &Call, command: Command) -> Result<Topology, Stop> {
    let source = match call.login("master")?.filter(|_| command != Command::Failover) {
        Some(login) => Some(Server::connect(&login)?),
        None => None,
    };
    let (mut replicas, mut absent) = (Vec::new(), Vec::new());
    for login in call.logins("slaves")? {
        match Server::connect(&login) {
            Ok(server) => replicas.push(server),
            Err(why) => {
                call.say.warning(&format!("Cannot connect to slave {}: {why}.", login.name()));
                absent.push(login);
            }
        }
    }
    if let (Some(source), Some(account)) = (&source, call.options.value("discover-slaves-login")) {
        let account = parse(&format!("{account}@discovered"), &call.passwords)
            .map_err(|why| Stop::Usage(format!("option --discover-slaves-login: {why}")))?;
        discover_replicas(call, source, &account, &mut replicas, &mut absent)?;
    }
    // A list or a source that does not know it says nothing about what it is (T40, T33c).
    if let Some(login) = call.login("new-master")?
        && !replicas.iter().any(|server| server.is_called(&login.host, login.port))
    {
        replicas.push(Server::connect(&login)?);
        absent.retain(|other| (&other.host, other.port) != (&login.host, login.port));
    }
    Ok(Topology { source, replicas, absent })
}

fn discover_replicas(
    call: &Call,
    source: &Server,
    account: &Login,
    replicas: &mut Vec<Server>,
    absent: &mut Vec<Login>,
) -> Result<(), Stop> {
    call.say.line(&format!("# Discovering slaves for master at {}", source.name()));
    let reported = discover::reported(source)?;
    if reported.is_empty() {
        call.say.own(discover::NOBODY);
    }
    for (host, port) in reported {
        let login = Login { host, port, socket: None, ..account.clone() };
        let name = login.name();
        call.say.line(&format!("# Discovering slave at {name}"));
        let server = match Server::connect(&login) {
            Ok(server) => server,
            Err(why) => {
                call.say.warning(&format!("Cannot connect to slave {name}: {why}."));
                absent.push(login);
                continue;
            }
        };
        let member = server.member()?;
        let is_of_source = member
            .replica
            .as_ref()
            .is_some_and(|status| source.is_called(&status.source_host, status.source_port));
        if is_of_source {
            call.say.line(&format!("# Found slave: {name}"));
            replicas.push(server);
        } else {
            call.say.own(&discover::stranger(&name));
        }
    }
    Ok(())
}

/// Fails before anything is begun, where the account could not finish it.
fn check_privileges(topology: &Topology, command: Command) -> Result<(), Stop> {
    for server in topology.source.iter().chain(&topology.replicas).filter(|_| command.acts()) {
        let grants = server.must("SHOW GRANTS")?;
        let grants: Vec<&str> =
            grants.rows.iter().filter_map(|row| row.first()?.as_deref()).collect();
        if !can_administrate(&grants) {
            return Err(Stop::Error(format!(
                "User {} on {}@{} does not have sufficient privileges to execute this command \
                 (required: SUPER, or what replaced it).",
                server.login.user, server.login.host, server.login.port
            )));
        }
    }
    Ok(())
}

/// A role may carry what is needed, so that an account with one is believed.
fn can_administrate(grants: &[&str]) -> bool {
    const ENOUGH: [&str; 4] =
        ["ALL PRIVILEGES", "SUPER", "REPLICATION_SLAVE_ADMIN", "REPLICATION SLAVE ADMIN"];
    grants.iter().any(|grant| match grant.split_once(" ON ") {
        Some((what, place)) => place.starts_with("*.*") && ENOUGH.iter().any(|p| what.contains(p)),
        None => grant.starts_with("GRANT "),
    })
}

fn format(call: &Call) -> Format {
    call.options.value("format").and_then(Format::parse).unwrap_or(Format::Grid)
}

fn timeout(call: &Call) -> Result<Duration, Stop> {
    Ok(Duration::from_secs(call.number("timeout", 300)?))
}

/// From --rpl-user, or as the replica itself logs in.
fn account(call: &Call, replica: &Server, member: &Member) -> Account {
    let used = member.replica.as_ref().map(|status| status.source_user.clone()).unwrap_or_default();
    let (user, password) = match call.options.value("rpl-user") {
        Some(text) => account_of(text),
        None => (used.clone(), None),
    };
    let told = || replica.replication_password(member).filter(|_| user == used);
    let password = password.or_else(|| call.passwords.replication.clone()).or_else(told);
    Account { user, password }
}

const COMMANDS: [(&str, Command); 8] = [
    ("elect", Command::Elect),
    ("failover", Command::Failover),
    ("gtid", Command::Gtid),
    ("health", Command::Health),
    ("reset", Command::Reset),
    ("start", Command::Start),
    ("stop", Command::Stop),
    ("switchover", Command::Switchover),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn privileges_are_read_from_grants_of_every_server() {
        for (grant, expected) in [
            ("GRANT ALL PRIVILEGES ON *.* TO 'root'@'%' WITH GRANT OPTION", true),
            ("GRANT SELECT, SUPER, CREATE USER ON *.* TO `root`@`%`", true),
            ("GRANT REPLICATION SLAVE ADMIN, BINLOG MONITOR ON *.* TO `t`@`%`", true),
            ("GRANT `admin`@`%` TO `t`@`%`", true),
            ("GRANT ALL PRIVILEGES ON `app`.* TO 'app'@'%'", false),
            ("GRANT USAGE ON *.* TO 'app'@'%'", false),
        ] {
            assert_eq!(can_administrate(&[grant]), expected, "{grant}");
        }
    }
}
