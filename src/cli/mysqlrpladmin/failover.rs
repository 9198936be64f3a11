//! `failover`: a replica becomes the source, because its source is dead.
//!
//! In: replicas. Out: a source open for writes, or all as it was. Must not: leave two servers open.
//! Read first: facts/repl.md section 0 items 2 and 3, 1.4 for the order; repl/promote.rs.
//! Differs: refuses while the old source answers (with --force it is shut first); applies all
//! that was received, or changes nothing; takes the replica that has most, not the first.

use std::process::ExitCode;
use std::time::Duration;

use super::super::applet::{Call, Stop};
use super::super::connection::Login;
use super::super::servers::{Account, Admin, Peer, Server, is_alive, make_accounts, resolve};
use super::{Topology, account, elect, health, script, stale, timeout};
use crate::repl::topology::Member;
use crate::repl::{Beyond, Failure, Job, Outcome, ReplicaStatus, ThreadState};

pub(super) fn failover(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    elect::require_gtids(call, &topology.replicas)?;
    call.say.line("# Performing failover.");
    let (servers, members) = elect::in_order(call, topology)?;
    let Some(index) = elect::choose(call, &servers, &members, None)? else {
        call.say.result("No candidate found for failover.\n");
        return Err(Stop::Error("No candidate found for failover.".to_owned()));
    };
    let (new, member) = (servers[index], &members[index]);
    let others: Vec<&Server> = servers.iter().copied().filter(|s| s.name() != new.name()).collect();
    call.say.line(&format!("# Candidate slave {} will become the new master.", new.name()));
    call.say.line("# Checking slaves status (before failover).");
    let account = account(call, new, member);
    if let Some(status) = &member.replica {
        check_applier(call, member, status)?;
    }
    let peer = old_source(new, member)?;
    let mut admin = Admin::new(new, &peer, &account, timeout(call)?, &call.say)?;
    if let Some(status) = &member.replica {
        check_source_is_dead(call, status, new, &peer, &account, &mut admin)?;
    }
    stale::check(call, new, member)?;
    say_what_it_wrote(call, new, member);
    let old = (peer.name.as_str(), peer.port);
    script::run(call, "exec-before", old, (&new.login.host, new.login.port))?;
    call.say.line("# Preparing candidate for failover.");
    call.say.line("# Creating replication user if it does not exist.");
    call.say.line("# Stopping slaves.");
    call.say.line("# Performing STOP on all slaves.");
    promote(call, new, &mut admin)?;
    call.say.line("# Switching slaves to new master.");
    call.say.line("# Disconnecting new master as slave.");
    let followed = point_at(call, &others, new, &account);
    call.say.line("# Starting slaves.");
    call.say.line("# Performing START on all slaves.");
    script::run(call, "exec-after", old, (&new.login.host, new.login.port))?;
    call.say.line("# Checking slaves for errors.");
    call.say.line("# Failover complete.");
    if !call.options.has("no-health") {
        health::table(call, new, &others, topology)?;
    }
    Ok(if followed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Only its dead source knew whether it had these too; after the promotion they are everybody's.
fn say_what_it_wrote(call: &Call, new: &Server, member: &Member) {
    let Beyond { text, transactions } = member.written();
    if transactions > 0 && member.replica.is_some() {
        call.say.own(&format!(
            "{transactions} transactions are of {} itself ({text}): any that its master had not \
             are kept, and go to whoever follows it",
            new.name()
        ));
    }
}

/// In the original's words (T41). An error with nothing left to apply keeps nobody from serving.
fn check_applier(call: &Call, member: &Member, status: &ReplicaStatus) -> Result<(), Stop> {
    let is_broken = status.sql == ThreadState::Stopped && status.sql_errno != 0;
    if !is_broken || member.unapplied() == 0 {
        return Ok(());
    }
    let why = format!(
        "Problem detected with SQL thread for slave '{}'@'{}' that can result in an unstable \
         topology.",
        member.host, member.port
    );
    let details = [
        "#  - SQL thread running: No".to_owned(),
        format!("#  - SQL error: {} - {}", status.sql_errno, status.sql_error),
        format!("#  Tip: Check the slave server log to identify the problem and fix it. {SEE}"),
    ]
    .join("\n");
    if call.options.has("force") {
        call.say.warning(&why);
        call.say.result(&format!("{details}\n"));
        return Ok(());
    }
    call.say.result(&format!("# ERROR: {why}\n{details}\n"));
    let way_on = "Note: To ignore this issue use the utility with the --force option.";
    Err(Stop::Error(format!("{why} {way_on}")))
}

/// The engine knows the source by the name that the replica has for it. Where that has no address
/// any more, the account is made for the candidate alone.
fn old_source(new: &Server, member: &Member) -> Result<Peer, String> {
    let own = new.address()?;
    let Some(status) = &member.replica else {
        return Ok(Peer { name: "UNKNOWN".to_owned(), address: own, port: new.login.port });
    };
    let resolved = resolve(&status.source_host, status.source_port);
    let address = match resolved.map(|address| address.ip()) {
        Some(std::net::IpAddr::V4(address)) => address,
        Some(std::net::IpAddr::V6(_)) | None => own,
    };
    Ok(Peer { name: status.source_host.clone(), address, port: status.source_port })
}

/// Two servers that take writes are worse than none.
fn check_source_is_dead(
    call: &Call,
    status: &ReplicaStatus,
    new: &Server,
    peer: &Peer,
    account: &Account,
    admin: &mut Admin<'_>,
) -> Result<(), Stop> {
    let login = Login {
        host: status.source_host.clone(),
        port: status.source_port,
        socket: None,
        ..new.login.clone()
    };
    let name = login.name();
    if !is_alive(&login, ALIVE_LIMIT) {
        call.say.own(&format!("{name} does not answer; it must not come back open for writes"));
        return Ok(());
    }
    if !call.options.has("force") {
        return Err(Stop::Error(format!(
            "The master {name} is alive, and would go on taking writes: switchover exchanges the \
             roles and loses nothing. --force makes it read-only first, if it can, and fails over."
        )));
    }
    call.say.warning(&format!("The master {name} is alive; --force shuts it."));
    let fenced = Server::connect(&login).and_then(|old| {
        let here = Peer { name: new.login.host.clone(), address: new.address()?, ..peer.clone() };
        let mut fencing = Admin::new(&old, &here, account, Duration::ZERO, &call.say)?;
        fencing.run(Job::Fence).map_err(|failure| failure.to_string())
    });
    match fenced {
        Ok(Outcome::Fenced { position, ended }) => {
            call.say.own(&format!("{name} is read-only; {ended} of its connections were ended"));
            let limit = timeout(call)?.min(FENCED_LIMIT);
            if let Err(failure) = admin.run(Job::CatchUp { position, limit }) {
                call.say.warning(&format!("Not everything is taken over from {name}: {failure}."));
            }
        }
        Ok(_) => {}
        Err(why) => {
            call.say.warning(&format!("{name} could not be shut, and may take writes: {why}."));
        }
    }
    Ok(())
}

fn promote(call: &Call, new: &Server, admin: &mut Admin<'_>) -> Result<(), Stop> {
    let mut promoted = admin.run(Job::Promote);
    if let Err(failure @ Failure::ApplierBroken { .. }) = &promoted
        && call.options.has("force")
    {
        let lost = new.member()?.lost_by_reset();
        call.say.warning(&format!("{}: {failure}.", new.name()));
        call.say.warning(&format!("Thrown away, as --force says: {}.", lost.text));
        let words = new.dialect.statements();
        new.must(words.stop)?;
        new.must(words.forget_source)?;
        promoted = admin.run(Job::Promote);
    }
    let failure = match promoted {
        Ok(Outcome::Promoted { warnings, .. }) => {
            warnings.iter().for_each(|warning| call.say.warning(warning));
            return Ok(());
        }
        Ok(_) => return Ok(()),
        Err(failure) => failure,
    };
    receive_again(call, new);
    let way_on = if matches!(failure, Failure::NotDrained { .. }) {
        "; nothing was thrown away: run the same again, with a longer --timeout"
    } else if matches!(failure, Failure::Delayed { .. }) {
        "; nothing was changed: run the same again when they are applied, or take the delay off \
         (MySQL 5.7 and later keep the relay log if the IO thread runs on)"
    } else if matches!(failure, Failure::ApplierBroken { .. }) {
        "; mend it, or throw them away with --force"
    } else {
        "; run the same again"
    };
    Err(Stop::Error(format!("Failover of {} failed: {failure}{way_on}.", new.name())))
}

/// A promotion that fails has stopped the receiver: it is not to look as if it had stood before. A
/// MariaDB whose applier stands too would drop its relay log.
fn receive_again(call: &Call, new: &Server) {
    let Ok(Member { replica: Some(status), .. }) = new.member() else { return };
    if status.io == ThreadState::Stopped
        && status.sql == ThreadState::Running
        && let Err(why) = new.must(new.dialect.statements().start)
    {
        call.say.warning(&format!("The IO thread is stopped: {why}."));
    }
}

/// The other replicas follow the new source, which has all that they have received.
pub(super) fn point_at(call: &Call, others: &[&Server], new: &Server, account: &Account) -> bool {
    let mut is_well = true;
    for server in others {
        let words = server.dialect.statements();
        let followed = server
            .must(words.stop)
            .and_then(|_| make_accounts(new, server, account))
            .and_then(|_| server.must(words.forget_source))
            .and_then(|_| Admin::new(server, &Peer::of(new)?, account, Duration::ZERO, &call.say))
            .and_then(|mut admin| {
                let sets = new.must(new.dialect.statements().gtid_sets)?;
                let position = sets.value(0, &["executed"]).unwrap_or_default().to_owned();
                let followed = admin.run(Job::Follow { peer_position: Some(position) });
                followed.map_err(|failure| failure.to_string())
            });
        if let Err(why) = followed {
            call.say.error(&format!("{} does not follow the new master: {why}.", server.name()));
            is_well = false;
        }
    }
    is_well
}

/// Time that a source has to show that it lives: a dead host never answers, a dead server at once.
const ALIVE_LIMIT: Duration = Duration::from_secs(1);

/// How long the candidate may take over from a source that was shut.
const FENCED_LIMIT: Duration = Duration::from_secs(10);

const SEE: &str = "For more information, see: \
    http://dev.mysql.com/doc/refman/5.6/en/replication-problems.html";
