//! `elect`: which replica would become the source.
//!
//! In: replicas. Out: the one, or why none. Must not: change anything.
//! Read first: facts/repl.md 1.4 "elect".
//! Differs: among the eligible ones it is the one that has all that the others have; the original
//! took the first in the order given.

use std::process::ExitCode;

use super::super::applet::{Call, Stop};
use super::super::servers::Server;
use super::Topology;
use crate::repl::topology::{self, Eligibility, Member};

pub(super) fn elect(call: &Call, topology: &Topology) -> Result<ExitCode, Stop> {
    let source = topology.source.as_ref();
    require_gtids(call, &topology.replicas)?;
    call.say.line("# Electing candidate slave from known slaves.");
    let (servers, members) = in_order(call, topology)?;
    match choose(call, &servers, &members, source)? {
        Some(index) => {
            let name = servers[index].name();
            call.say.line(&format!("# Best slave found is located on {name}."));
            Ok(ExitCode::SUCCESS)
        }
        None => {
            call.say.error("No slave found that meets eligibility requirements.");
            Ok(ExitCode::FAILURE)
        }
    }
}

/// In the original's words (T48e).
pub(super) fn require_gtids(call: &Call, replicas: &[Server]) -> Result<(), Stop> {
    let mut without = Vec::new();
    for server in replicas {
        let member = server.member()?;
        if member.gtid_mode() != "ON" {
            without.push(format!("#  - GTID_MODE={} on {}", member.gtid_mode(), server.name()));
        }
    }
    if without.is_empty() {
        return Ok(());
    }
    let why = "Slave election requires GTID_MODE=ON for all servers.";
    call.say.result(&format!("# ERROR: {why}\n{}\n", without.join("\n")));
    Err(Stop::Error(why.to_owned()))
}

/// The candidates named first, then the other replicas.
pub(super) fn in_order<'a>(
    call: &Call,
    topology: &'a Topology,
) -> Result<(Vec<&'a Server>, Vec<Member>), Stop> {
    let wanted = call.logins("candidates")?;
    let rank = |server: &&Server| {
        let is_it = |login: &super::Login| server.is_called(&login.host, login.port);
        wanted.iter().position(is_it).unwrap_or(wanted.len())
    };
    let mut servers: Vec<&Server> = topology.replicas.iter().collect();
    servers.sort_by_key(rank);
    let members = servers.iter().map(|server| server.member()).collect::<Result<_, _>>()?;
    Ok((servers, members))
}

/// The index of the replica that would be the source; without a source for a failover.
pub(super) fn choose(
    call: &Call,
    servers: &[&Server],
    members: &[Member],
    source: Option<&Server>,
) -> Result<Option<usize>, Stop> {
    let of_source = source.map(Server::member).transpose()?;
    let mut eligible = Vec::new();
    for (index, (server, member)) in servers.iter().zip(members).enumerate() {
        let name = server.name();
        call.say.more(1, &format!("# Checking eligibility of slave {name} for candidate."));
        let verdict = eligibility(call, server, member, source, of_source.as_ref())?;
        for line in verdict.lines() {
            call.say.more(1, &format!("#   {line}"));
        }
        if verdict.is_eligible() {
            eligible.push(index);
        } else if call.say.verbosity == 0 {
            let failed = verdict.lines().into_iter().find(|line| line.ends_with("FAIL"));
            call.say.own(&format!("{name} is no candidate: {}", failed.unwrap_or_default()));
        }
    }
    let candidates: Vec<&Member> = eligible.iter().map(|index| &members[*index]).collect();
    if candidates.is_empty() {
        return Ok(None);
    }
    match topology::fullest(&candidates) {
        Some(best) => Ok(Some(eligible[best])),
        None => Err(Stop::Error(
            "Each of the candidates has transactions that another one has not; name one with \
             --slaves alone."
                .to_owned(),
        )),
    }
}

fn eligibility(
    call: &Call,
    server: &Server,
    member: &Member,
    source: Option<&Server>,
    of_source: Option<&Member>,
) -> Result<Eligibility, Stop> {
    let is_connected = match (&member.replica, source) {
        // What a failover that was cut off leaves; only an operator can tell it from a stranger.
        (None, None) => call.options.has("force"),
        (None, Some(_)) => false,
        (Some(_), None) => true,
        (Some(status), Some(source)) => source.is_called(&status.source_host, status.source_port),
    };
    let account = super::account(call, server, member);
    let accounts = server.must(&topology::accounts_query(&account.user))?;
    let address = server.address.to_string();
    let exists = topology::may_replicate(&accounts, &[&server.login.host, &address]);
    Ok(Eligibility {
        is_connected,
        has_gtids: member.gtid_mode() == "ON",
        agrees_on_filters: member.filters() == of_source.map_or_else(Vec::new, Member::filters),
        // With its password known it is made where it is missing.
        has_account: exists || account.password.is_some() || call.options.has("force"),
    })
}
