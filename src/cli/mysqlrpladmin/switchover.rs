//! `switchover`: source and replica exchange their roles, and nothing acknowledged is lost.
//!
//! In: a source, its replica. Out: exchanged roles, or all as it was. Must not: block a write
//! before everything that can be checked was.
//! Read first: repl/plan.rs for the order; facts/repl.md section 0 items 4, 5 and 6.
//! Differs: a failure is exit code 1; the old source stays read-only, whether it follows or not.

use std::cmp::Ordering;
use std::process::ExitCode;
use std::time::Duration;

use super::super::applet::{Call, Stop};
use super::super::servers::{Account, Admin, Peer, Server, make_accounts};
use super::{Topology, account, failover, health, script, timeout};
use crate::repl::plan::{Ending, Stage, Step, Switchover, Whom};
use crate::repl::topology::{Member, errant};
use crate::repl::{Failure, Job, ReplicaStatus, ThreadState};

/// Both servers, and what they were found to be.
struct Pair<'a> {
    old: &'a Server,
    new: &'a Server,
    of_old: Member,
    of_new: Member,
    account: Account,
}

pub(super) fn switchover(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    let pair = find_pair(call, topology)?;
    let (old, new) = (pair.old, pair.new);
    let others: Vec<&Server> =
        topology.replicas.iter().filter(|server| server.name() != new.name()).collect();
    call.say.line(&format!(
        "# Performing switchover from master at {} to slave at {}.",
        old.name(),
        new.name()
    ));
    call.say.line("# Checking candidate slave prerequisites.");
    if pair.is_done() {
        call.say.own(&format!("{} is a slave of {} already", old.name(), new.name()));
        follow(call, old, new, &pair.of_old, &pair.account)?;
        call.say.line("# Switchover complete.");
        health::table(call, new, &[old], topology)?;
        return Ok(ExitCode::SUCCESS);
    }
    check(call, &pair)?;
    call.say.line("# Checking slaves configuration to master.");
    call.say.more(1, "# Creating replication user if it does not exist.");
    // While the source can still write: the demoted one must be able to log in (T25).
    make_accounts(old, new, &pair.account)?;
    let ends = ((&*old.login.host, old.login.port), (&*new.login.host, new.login.port));
    script::run(call, "exec-before", ends.0, ends.1)?;
    let demotes = call.options.has("demote-master");
    let ending = exchange(call, &pair, demotes)?;
    let is_demoted = demotes && matches!(ending, Ending::Switched { .. });
    let mut is_well = conclude(call, &pair, ending, demotes)?;
    if !demotes {
        call.say.line("# Switching slaves to new master.");
    }
    is_well &= failover::point_at(call, &others, new, &pair.account);
    call.say.line("# Starting all slaves.");
    call.say.line("# Performing START on all slaves.");
    script::run(call, "exec-after", ends.0, ends.1)?;
    call.say.line("# Checking slaves for errors.");
    call.say.line("# Switchover complete.");
    if !call.options.has("no-health") {
        let replicas: Vec<&Server> =
            others.into_iter().chain(Some(old).filter(|_| is_demoted)).collect();
        health::table(call, new, &replicas, topology)?;
    }
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Pair<'_> {
    /// An exchange that was cut off at its end, or is asked for again.
    fn is_done(&self) -> bool {
        let status = self.of_old.replica.as_ref();
        self.of_new.replica.is_none()
            && status
                .is_some_and(|status| self.new.is_called(&status.source_host, status.source_port))
    }

    /// An exchange that was cut off: the source is shut, and the candidate, no replica any more,
    /// has all that it has. Every step of the plan is safe to repeat.
    fn is_interrupted(&self) -> bool {
        self.of_new.replica.is_none()
            && self.of_old.replica.is_none()
            && self.of_old.is_on("read_only")
            && self.of_new.executed.contains(&self.of_old.executed)
    }
}

fn find_pair<'a>(call: &Call, topology: &'a Topology) -> Result<Pair<'a>, Stop> {
    let wanted = call.login("new-master")?;
    let (Some(old), Some(wanted)) = (&topology.source, wanted) else {
        return Err(Stop::Usage("The switchover command requires --master.".to_owned()));
    };
    if old.is_called(&wanted.host, wanted.port) {
        return Err(Stop::Usage("The --master and the --new-master are the same.".to_owned()));
    }
    let found = topology.replicas.iter().find(|server| server.is_called(&wanted.host, wanted.port));
    let missing = || Stop::Error(format!("The candidate {} was not found.", wanted.name()));
    let new = found.ok_or_else(missing)?;
    // The replica first: see `errant`.
    let of_new = new.member()?;
    let of_old = old.member()?;
    let account = account(call, new, &of_new);
    Ok(Pair { old, new, of_old, of_new, account })
}

/// Everything that can be known before a write is blocked.
fn check(call: &Call, pair: &Pair<'_>) -> Result<(), Stop> {
    let (old, new) = (pair.old.name(), pair.new.name());
    let stop = |why: String| Err(Stop::Error(why));
    if pair.account.password.is_none() {
        return stop(format!(
            "The password of the replication account {} is not known: give \
             --rpl-user=user:password, or set TANDEM_RPL_PASSWORD.",
            pair.account.user
        ));
    }
    if pair.is_interrupted() {
        call.say.own(&format!("{old} is shut, and {new} has all of it: going on from there"));
        return Ok(());
    }
    let Some(status) = &pair.of_new.replica else {
        return stop(format!("Candidate {new} is not connected to the master."));
    };
    if !pair.old.is_called(&status.source_host, status.source_port) {
        let (host, port) = (&status.source_host, status.source_port);
        return stop(format!("Candidate {new} replicates from {host}:{port}, not from {old}."));
    }
    match not_replicating(status) {
        None => {}
        // An exchange was cut off before the replica was promoted.
        Some(_) if pair.of_old.is_on("read_only") => {
            call.say.own(&format!("{old} is shut already: starting {new} again"));
            follow(call, pair.new, pair.old, &pair.of_new, &pair.account)?;
        }
        Some(why) => return stop(format!("Candidate {new} does not replicate: {why}.")),
    }
    let delay = pair.of_new.of_status(&["SQL_Delay"]);
    if !matches!(delay, "" | "0") {
        return stop(format!("Candidate {new} applies with a delay of {delay} seconds."));
    }
    let demotes = call.options.has("demote-master");
    // The engine would refuse it too, but only once the source is shut.
    for member in [&pair.of_new, &pair.of_old].into_iter().take(1 + usize::from(demotes)) {
        if let Some(lacking) = member.lacking() {
            return stop(format!("{}: {lacking}, and must be ON.", member.name()));
        }
    }
    let prepared = prepared_transactions(pair.old);
    if !prepared.is_empty() {
        return stop(format!(
            "{} prepared XA transactions on {old} would be left there: {}. XA COMMIT or XA \
             ROLLBACK each of them.",
            prepared.len(),
            prepared.join(", ")
        ));
    }
    for doubt in doubts(pair, demotes) {
        if !call.options.has("force") {
            return stop(format!("{doubt}. Note: --force goes on all the same."));
        }
        call.say.warning(&format!("{doubt}."));
    }
    call.say.more(1, "# GTID_MODE=ON is set for all servers.");
    Ok(())
}

/// As XA COMMIT names them. Not every account may ask, and not every server knows the question.
fn prepared_transactions(server: &Server) -> Vec<String> {
    let rows = server.query("XA RECOVER").unwrap_or_default();
    let name = |row: usize| {
        let text = |column: &str| rows.value(row, &[column]).unwrap_or_default();
        let (data, length) = (text("data"), text("gtrid_length").parse().unwrap_or(0));
        match (data.get(..length), data.get(length..)) {
            (Some(whole), Some("")) => format!("'{whole}'"),
            (Some(global), Some(branch)) => format!("'{global}','{branch}'"),
            (None, _) | (_, None) => format!("'{data}'"),
        }
    };
    (0..rows.rows.len()).map(name).collect()
}

/// What --force goes on with.
fn doubts(pair: &Pair<'_>, demotes: bool) -> Vec<String> {
    let Pair { of_old, of_new, .. } = pair;
    let (old, new) = (pair.old.name(), pair.new.name());
    let mut doubts = Vec::new();
    let extra = errant(of_new, of_old);
    if extra.transactions > 0 {
        let (count, text) = (extra.transactions, extra.text);
        doubts.push(format!("Candidate {new} has {count} errant transactions: {text}"));
    }
    if of_new.filters() != of_old.filters() || !of_new.replica_filters().is_empty() {
        let show = |filters: Vec<String>| match filters.is_empty() {
            true => "none".to_owned(),
            false => filters.join(", "),
        };
        let (ours, theirs) = (show(of_new.filters()), show(of_old.filters()));
        doubts.push(format!("Candidate {new} filters: {ours}; {old}: {theirs}"));
    }
    if demotes && of_new.compare_version(of_old) == Ordering::Greater {
        let (ours, theirs) = (&of_new.version, &of_old.version);
        doubts.push(format!("{old} ({theirs}) is older than {new} ({ours}), and cannot follow it"));
    }
    doubts
}

/// Makes sure that `replica` replicates from `source`, which is up.
fn follow(
    call: &Call,
    replica: &Server,
    source: &Server,
    of_replica: &Member,
    account: &Account,
) -> Result<(), Stop> {
    let peer = Peer::seen_by(source, of_replica)?;
    let mut admin = Admin::new(replica, &peer, account, Duration::ZERO, &call.say)?;
    let position = source.member()?.executed.to_string();
    let followed = admin.run(Job::Follow { peer_position: Some(position) });
    followed.map_err(|failure| Stop::Error(format!("{}: {failure}.", replica.name())))?;
    Ok(())
}

fn not_replicating(status: &ReplicaStatus) -> Option<String> {
    let is_running = |state: &ThreadState| *state == ThreadState::Running;
    if is_running(&status.io) && is_running(&status.sql) {
        return None;
    }
    let errors = [&status.io_error, &status.sql_error];
    let error = errors.into_iter().find(|error| !error.is_empty());
    Some(error.cloned().unwrap_or_else(|| "its threads do not run".to_owned()))
}

fn exchange(call: &Call, pair: &Pair<'_>, demotes: bool) -> Result<Ending, Stop> {
    let Pair { old, new, of_new, account, .. } = pair;
    let limit = timeout(call)?;
    let (on_old, on_new) = (Peer::of(new)?, Peer::seen_by(old, of_new)?);
    let mut source = Admin::new(old, &on_old, account, limit, &call.say)?;
    let mut replica = Admin::new(new, &on_new, account, limit, &call.say)?;
    // What the account's statements added is to be waited for too.
    let position = old.member()?.executed.to_string();
    let flavour = old.dialect.flavour();
    let closed_limit = limit.min(CLOSED_LIMIT);
    let ends_writers = call.options.has("force");
    let mut plan = Switchover::new(flavour, position, limit, closed_limit, demotes, ends_writers);
    loop {
        match plan.next() {
            Step::Over(ending) => return Ok(ending),
            Step::Run { stage, whom, job } => {
                announce(call, pair, stage);
                plan.ended(match whom {
                    Whom::Source => source.run(job),
                    Whom::Replica => replica.run(job),
                });
            }
        }
    }
}

fn announce(call: &Call, pair: &Pair<'_>, stage: Stage) {
    let say = &call.say;
    match stage {
        Stage::CatchingUp => say.line("# Waiting for slaves to catch up to old master."),
        Stage::Closing => say.more(1, "# Blocking writes on master."),
        Stage::Draining => say.more(1, &format!("# Read only is ON for {}.", pair.old.name())),
        Stage::Promoting => {
            say.line("# Stopping slaves.");
            say.line("# Performing STOP on all slaves.");
        }
        Stage::Demoting => {
            say.line("# Demoting old master to be a slave to the new master.");
            say.line("# Switching slaves to new master.");
        }
        Stage::Fencing => say.own(&format!("undoing: shutting {}", pair.new.name())),
        Stage::Reopening => say.own(&format!("undoing: opening {} again", pair.old.name())),
        Stage::Refollowing => say.own(&format!("undoing: {} follows again", pair.new.name())),
    }
}

/// `Err` unless the replica is the source; `Ok(false)` when something is left to do.
fn conclude(call: &Call, pair: &Pair<'_>, ending: Ending, demotes: bool) -> Result<bool, Stop> {
    let (old, new) = (pair.old.name(), pair.new.name());
    let aborted = |details: String| {
        call.say.line("# Errors found. Switchover aborted.");
        Err(Stop::Error(details))
    };
    match ending {
        Ending::Switched { warnings, ended } => {
            warnings.iter().for_each(|warning| call.say.warning(warning));
            if ended > 0 {
                call.say.own(&format!("{ended} connections to {old} were ended in a transaction"));
            }
            if !demotes {
                call.say.own(&format!("{old} stays read-only, and replicates from nobody"));
            }
            Ok(true)
        }
        Ending::NotDemoted { why, warnings } => {
            warnings.iter().for_each(|warning| call.say.warning(warning));
            call.say.error(&format!(
                "{new} is the master, but {old} does not follow it: {why}. It is read-only; \
                 mysqlreplicate attaches it."
            ));
            Ok(false)
        }
        Ending::Undone { why, at } => {
            let is_held = matches!(why, Failure::Blocked { ended: 0 });
            let way_on =
                if is_held { " Note: --force ends the connections of writers." } else { "" };
            aborted(format!(
                "{}: {why}. {old} is the master, and takes writes, as before.{way_on}",
                clause(at)
            ))
        }
        Ending::Stuck { why, at, then } => aborted(format!(
            "{}: {why}. Undoing it failed: {then}. Both are read-only as far as is known: find out \
             which one has everything (mysqlrpladmin gtid), and promote it.",
            clause(at)
        )),
    }
}

const fn clause(stage: Stage) -> &'static str {
    match stage {
        Stage::CatchingUp => "The slave did not catch up",
        Stage::Closing => "The master could not be made read-only",
        Stage::Draining => "The slave did not catch up with the read-only master",
        Stage::Promoting => "The slave could not be promoted",
        Stage::Demoting => "The master could not be demoted",
        Stage::Fencing | Stage::Reopening | Stage::Refollowing => "Undoing",
    }
}

/// Longest time that nobody can write while the replica catches up; it was caught up just before.
const CLOSED_LIMIT: Duration = Duration::from_secs(10);
