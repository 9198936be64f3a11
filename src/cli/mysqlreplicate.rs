//! `mysqlreplicate`: makes one server the replica of another, with accounts for both hosts.
//!
//! In: two servers and a replication account. Out: a replica at work, or all as it was.
//! Read first: facts/repl.md 1.1.
//! Differs: refuses a replica with transactions that the source has not; makes the account for
//! both hosts, so that the pair can be turned around; leaves the replica read-only; believes
//! threads, not their descriptions; takes back what it changed when the replica does not work.

use std::cmp::Ordering;
use std::process::ExitCode;
use std::time::Duration;

use super::applet::{self, Call, Stop};
use super::connection::account_of;
use super::options::{Opt, Spec, flag, value};
use super::servers::{Account, Admin, Peer, Server, make_accounts};
use super::turn::Turn;
use crate::repl::topology::Member;
use crate::repl::{Failure, Job, Position, quote_name};

const SPEC: Spec = Spec {
    program: "mysqlreplicate",
    usage: "mysqlreplicate --master=root@localhost:3306 --slave=root@localhost:3310 \
            --rpl-user=rpl:passwd ",
    purpose: "mysqlreplicate - establish replication with a master",
    options: &[OPTIONS],
};

const OPTIONS: &[Opt] = &[
    value("master", "SERVER", "the source; without it root@localhost:3306"),
    value("slave", "SERVER", "the server that becomes its replica, and read-only"),
    value("rpl-user", "USER[:PW]", "the account that replicas log in with; made where missing"),
    flag("pedantic", Some('p'), "fail where storage engines differ"),
    value("test-db", "DB", "see a database of this name arrive on the replica, then drop it"),
    value("master-log-file", "FILE", "").idle(BY_GTID),
    value("master-log-pos", "N", "").idle(BY_GTID),
    flag("start-from-beginning", Some('b'), "").idle(BY_GTID),
    flag("prompt", None, "type the password of both servers"),
];

const BY_GTID: &str = "a replica finds what it needs by GTIDs, from the very first one on";

pub(super) fn run(arguments: &[String]) -> ExitCode {
    applet::run(&SPEC, arguments, replicate)
}

/// Both servers as they were found.
struct Pair {
    source: Server,
    replica: Server,
    of_source: Member,
    of_replica: Member,
}

fn replicate(call: &mut Call) -> Result<ExitCode, Stop> {
    check_usage(call)?;
    let login = match call.login("master")? {
        Some(login) => login,
        None => {
            call.say.warning("No master specified, using root@localhost:3306.");
            super::connection::parse("root@localhost:3306", &call.passwords).map_err(Stop::Usage)?
        }
    };
    let slave = call.login("slave")?;
    let slave = slave.ok_or_else(|| Stop::Usage("No slave server specified.".to_owned()))?;
    if (&login.host, login.port, &login.socket) == (&slave.host, slave.port, &slave.socket) {
        return Err(Stop::Usage("The master and slave are the same host and port.".to_owned()));
    }
    let (user, password) = account_of(call.options.value("rpl-user").unwrap_or_default());
    let password = password.or_else(|| call.passwords.replication.clone());
    let account = Account { user, password };

    applet::warn_of_daemon(&call.say);
    let source = connect(call, "master", &login)?;
    let replica = connect(call, "slave", &slave)?;
    let _turn = Turn::take([&source, &replica].into_iter())?;
    let of_replica = replica.member()?;
    let of_source = source.member()?;
    let pair = Pair { source, replica, of_source, of_replica };
    check_identity(call, &pair)?;
    check_engines(call, &pair)?;
    call.say.line("# Checking for binary logging on master...");
    check_source(&pair)?;
    call.say.line("# Setting up replication...");
    if make_accounts(&pair.source, &pair.replica, &account)? > 0 {
        let (ours, theirs) = (pair.source.address, pair.replica.address);
        let user = &account.user;
        call.say.own(&format!("{user} may log in from {ours} and {theirs}, on both servers"));
    }
    attach(call, &pair, &account)?;
    if let Some(name) = call.options.value("test-db") {
        test_database(call, &pair, &account, name)?;
    }
    call.say.line("# ...done.");
    Ok(ExitCode::SUCCESS)
}

fn check_usage(call: &Call) -> Result<(), Stop> {
    let wrong = |why: &str| Err(Stop::Usage(why.to_owned()));
    let options = &call.options;
    if !options.has("rpl-user") {
        return wrong("The --rpl-user option is required.");
    }
    if options.has("master-log-pos") && !options.has("master-log-file") {
        return wrong("You must specify a master log file to use the master log position.");
    }
    if options.has("start-from-beginning") && options.has("master-log-file") {
        return wrong("You cannot use the -b option with a master log file or position.");
    }
    if !options.arguments.is_empty() {
        return wrong("There are arguments that no option takes.");
    }
    Ok(())
}

/// "# master on server1: ... connected." in two parts, as the originals print it.
pub(super) fn connect(
    call: &Call,
    role: &str,
    login: &super::connection::Login,
) -> Result<Server, Stop> {
    match Server::connect(login) {
        Ok(server) => {
            call.say.line(&format!("# {role} on {}: ... connected.", login.host));
            Ok(server)
        }
        Err(why) => {
            call.say.line(&format!("# {role} on {}: ... ", login.host));
            Err(Stop::Error(why))
        }
    }
}

fn check_identity(call: &Call, pair: &Pair) -> Result<(), Stop> {
    let Pair { of_source, of_replica, .. } = pair;
    let stop = |why: String| Err(Stop::Error(why));
    for (member, role) in [(of_source, "master"), (of_replica, "slave")] {
        if member.variable("server_id") == "0" {
            return stop(format!("The {role}'s server_id is set to 0."));
        }
    }
    if of_source.variable("server_id") == of_replica.variable("server_id") {
        return stop("The slave's server_id is the same as the master.".to_owned());
    }
    let uuid = of_source.variable("server_uuid");
    if !uuid.is_empty() && uuid == of_replica.variable("server_uuid") {
        return stop("The slave's UUID is the same as the master.".to_owned());
    }
    if of_source.dialect.flavour() != of_replica.dialect.flavour() {
        return stop("MySQL and MariaDB do not replicate each other's GTIDs.".to_owned());
    }
    let (ours, theirs) = (&of_source.version, &of_replica.version);
    match of_replica.compare_version(of_source) {
        Ordering::Less => {
            return stop(format!(
                "The slave ({theirs}) is older than the master ({ours}), whose binary log it may \
                 not understand: upgrade it, or use a newer server."
            ));
        }
        Ordering::Greater => call.say.warning(&format!(
            "The slave ({theirs}) is newer than the master ({ours}): there is no way back after a \
             switchover until both are of one version."
        )),
        Ordering::Equal => {}
    }
    let name = "lower_case_table_names";
    let (ours, theirs) = (of_source.variable(name), of_replica.variable(name));
    if ours != theirs {
        return stop(format!("{name} is {ours} on the master and {theirs} on the slave."));
    }
    Ok(())
}

/// A replica that lacks an engine stops at the first table of it.
fn check_engines(call: &Call, pair: &Pair) -> Result<(), Stop> {
    let (ours, theirs) = (engines(&pair.source)?, engines(&pair.replica)?);
    if ours != theirs {
        let why = "The master and slave have different storage engine configurations.";
        if call.options.has("pedantic") {
            return Err(Stop::Error(why.to_owned()));
        }
        call.say.warning(why);
    }
    Ok(())
}

pub(super) fn engines(server: &Server) -> Result<Vec<String>, String> {
    let sql = "SELECT UPPER(engine) AS engine, UPPER(support) AS support \
               FROM INFORMATION_SCHEMA.ENGINES ORDER BY engine";
    let rows = server.must(sql)?;
    let text = |row, name| rows.value(row, &[name]).unwrap_or_default();
    Ok((0..rows.rows.len())
        .map(|row| format!("{} {}", text(row, "engine"), text(row, "support")))
        .collect())
}

fn check_source(pair: &Pair) -> Result<(), Stop> {
    let Pair { of_source, source, .. } = pair;
    let stop = |why: String| Err(Stop::Error(why));
    if !of_source.is_on("log_bin") {
        return stop("Master must have binary logging turned on.".to_owned());
    }
    if of_source.gtid_mode() != "ON" {
        return stop(format!(
            "GTID_MODE={} on {}; replication here is by GTIDs only, since file positions lose \
             their meaning at a failover. Set gtid_mode=ON and enforce_gtid_consistency on both.",
            of_source.gtid_mode(),
            source.name()
        ));
    }
    // The roles may be exchanged some day.
    for (member, role) in [(of_source, "master"), (&pair.of_replica, "slave")] {
        if let Some(lacking) = member.lacking() {
            let name = member.name();
            return stop(format!(
                "{lacking} on the {role} {name}, and must be ON on both servers."
            ));
        }
    }
    let gone = of_source.purged_beyond(&pair.of_replica);
    if gone.transactions > 0 {
        return stop(format!(
            "{} transactions that the slave lacks are purged from the binary logs of the master \
             ({}): restore a copy of the master's data on {} first.",
            gone.transactions,
            gone.text,
            pair.replica.name()
        ));
    }
    if let Some(replica) = &of_source.replica
        && pair.replica.is_called(&replica.source_host, replica.source_port)
    {
        return stop(format!(
            "The master {} is itself a replica of {}; promote it first with mysqlrpladmin.",
            source.name(),
            pair.replica.name()
        ));
    }
    Ok(())
}

fn attach(call: &Call, pair: &Pair, account: &Account) -> Result<(), Stop> {
    let peer = Peer::seen_by(&pair.source, &pair.of_replica)?;
    let was_open = !pair.of_replica.is_on("read_only");
    detach_from_stranger(call, pair)?;
    let mut admin = Admin::new(&pair.replica, &peer, account, Duration::ZERO, &call.say)?;
    // Whatever the account's statements added is the source's own.
    let sets = pair.source.must(pair.source.dialect.statements().gtid_sets)?;
    let position = sets.value(0, &["executed"]).unwrap_or_default().to_owned();
    let Err(failure) = admin.run(Job::Follow { peer_position: Some(position) }) else {
        if was_open {
            call.say.own(&format!("{} is read-only from here on", pair.replica.name()));
        }
        return Ok(());
    };
    undo(call, pair, &mut admin)?;
    let way_on = if matches!(failure, Failure::Diverged { .. }) {
        "; attaching it would hide that. If they are worth nothing, wipe the slave's data, or \
             its binary logs where the data is equal, and try again"
    } else {
        ""
    };
    call.say.error(&format!("{}: {failure}{way_on}.", pair.replica.name()));
    Err(Stop::Error("Cannot setup replication.".to_owned()))
}

/// What was no replica before is none after a failed attempt, and as open as it was.
fn undo(call: &Call, pair: &Pair, admin: &mut Admin<'_>) -> Result<(), Stop> {
    let (before, now) = (&pair.of_replica, pair.replica.member()?);
    if before.replica.is_none() && now.replica.is_some() {
        let words = pair.replica.dialect.statements();
        pair.replica.must(words.stop)?;
        pair.replica.must(words.forget_source)?;
        call.say.own("the slave is no replica again");
    }
    if before.replica.is_none() && now.is_on("read_only") && !before.is_on("read_only") {
        admin.run(Job::Reopen).map_err(|failure| failure.to_string())?;
        call.say.own("the slave is open for writes again");
    }
    Ok(())
}

/// A replica of somebody else is taken over, as the original does; not if that loses anything.
fn detach_from_stranger(call: &Call, pair: &Pair) -> Result<(), Stop> {
    let Some(status) = &pair.of_replica.replica else { return Ok(()) };
    let (host, port) = (&status.source_host, status.source_port);
    if pair.source.is_called(host, port) {
        return Ok(());
    }
    let parse = |text: &str| Position::parse(pair.replica.dialect.flavour(), text);
    let received = parse(&status.retrieved).map_err(|wrong| wrong.to_string())?;
    let reach = received.union(&pair.of_replica.executed);
    let extra = reach.beyond(&pair.of_source.executed);
    if extra.transactions > 0 {
        return Err(Stop::Error(format!(
            "The slave replicates from {host}:{port}, and has {} transactions that the master has \
             not: {}.",
            extra.transactions, extra.text
        )));
    }
    call.say.own(&format!("{} leaves its source {host}:{port}", pair.replica.name()));
    let words = pair.replica.dialect.statements();
    pair.replica.must(words.stop)?;
    pair.replica.must(words.forget_source)?;
    Ok(())
}

/// Sees a database arrive.
fn test_database(call: &Call, pair: &Pair, account: &Account, name: &str) -> Result<(), Stop> {
    call.say.line("# Testing replication setup...");
    let quoted = quote_name(name);
    pair.source.must(&format!("CREATE DATABASE {quoted}"))?;
    let sets = pair.source.must(pair.source.dialect.statements().gtid_sets)?;
    let position = sets.value(0, &["executed"]).unwrap_or_default().to_owned();
    let peer = Peer::of(&pair.source)?;
    let mut admin = Admin::new(&pair.replica, &peer, account, Duration::ZERO, &call.say)?;
    let arrived = admin.run(Job::CatchUp { position, limit: TEST_LIMIT });
    let seen = arrived.is_ok() && pair.replica.query(&format!("SHOW TABLES FROM {quoted}")).is_ok();
    pair.source.must(&format!("DROP DATABASE {quoted}"))?;
    if seen {
        call.say.line("# Success! Replication is running.");
        return Ok(());
    }
    let why = arrived.err().map_or_else(String::new, |failure| format!(": {failure}"));
    Err(Stop::Error(format!("Unable to complete testing{why}.")))
}

/// How long a database may take to the replica.
const TEST_LIMIT: Duration = Duration::from_secs(30);
