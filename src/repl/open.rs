//! Opens the server for writes, with what belongs to a source: replication account and events.
//!
//! In: answers. Out: SET, CREATE USER, GRANT, ALTER EVENT. Must not: run before the server has
//! given up its source; write anything before it is open (it would be an errant transaction).
//! Read first: facts/repl.md 3.5 (events, account).  Differs: an event that the source had enabled
//! is enabled here by what the replica remembers (SLAVESIDE_DISABLED), so no list is kept; whoever
//! keeps the scheduler off although events are enabled finds it on after a promotion.

use super::dialect::{quote, quote_name};
use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::Facts;
use super::probe;
use super::reseed;
use super::rows::{Rows, ServerError};
use super::{Config, Site};
use crate::limits;

/// The steps from a closed server that is no replica to a source at work.
#[derive(Debug)]
pub(super) struct Open {
    phase: Phase,
    with_account: bool,
    /// Still to be sent; the last is next.
    statements: Vec<(&'static str, String)>,
    warnings: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    LeavingHalves,
    Opening,
    ReadingAccounts,
    MakingAccounts,
    LoadingClone,
    LookingForProbe,
    MakingProbe,
    ReadingEvents,
    EnablingEvents,
}

/// What to do after an answer.
#[derive(Debug)]
pub(super) enum Opened {
    Ask(Ask),
    Over { warnings: Vec<String> },
    Failed(Failure),
}

impl Open {
    pub(super) fn start(context: &Context<'_>, with_account: bool) -> (Self, Ask) {
        let (statements, warnings) = (Vec::new(), Vec::new());
        let mut open = Self { phase: Phase::LeavingHalves, with_account, statements, warnings };
        if !context.semi_sync.is_available() {
            let ask = open.ask_to_open(context);
            return (open, ask);
        }
        // Whoever serves alone waits for nobody; the node turns it on when a replica follows.
        let sql = context.dialect.set_semi_sync(false, true);
        (open, Ask::new("leaving the source's half", sql, limits::STATEMENT_LIMIT))
    }

    fn ask_to_open(&mut self, context: &Context<'_>) -> Ask {
        self.phase = Phase::Opening;
        let sql = context.dialect.statements().open;
        Ask::new("opening for writes", sql, limits::STATEMENT_LIMIT)
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Opened {
        match (self.phase, result) {
            (Phase::LeavingHalves, Ok(_) | Err(ServerError::Refused { .. })) => {
                Opened::Ask(self.ask_to_open(context))
            }
            (Phase::Opening, Ok(_)) if self.with_account => {
                self.phase = Phase::ReadingAccounts;
                let sql = read_accounts(&context.config.replication_user);
                let step = "reading the replication accounts";
                Opened::Ask(Ask::new(step, sql, limits::STATEMENT_LIMIT))
            }
            (Phase::Opening, Ok(_)) => self.load_clone(context),
            (Phase::ReadingAccounts, Ok(rows)) => {
                let missing = missing_accounts(context.config, context.site, &rows);
                self.phase = Phase::MakingAccounts;
                if context.config.replication_password.reveal().is_empty() && !missing.is_empty() {
                    let warning = "a replication account is missing, and its password not known";
                    self.warnings.push(warning.to_owned());
                } else {
                    self.statements = missing;
                }
                self.next(context)
            }
            (Phase::LookingForProbe, Ok(rows)) => {
                self.phase = Phase::MakingProbe;
                if rows.value(0, &["count"]) == Some("0") {
                    let make = probe::MAKE_TABLE.map(|sql| (MAKING_PROBE, sql.to_owned()));
                    self.statements = make.to_vec();
                }
                self.next(context)
            }
            (Phase::MakingAccounts | Phase::MakingProbe | Phase::EnablingEvents, Ok(_)) => {
                self.next(context)
            }
            // It is loaded, or this server has none: who wants a copy is told.
            (Phase::LoadingClone, Ok(_) | Err(ServerError::Refused { .. })) => {
                self.look_for_probe(context)
            }
            (Phase::ReadingEvents, Ok(rows)) => {
                self.statements = enable_events(&rows);
                self.phase = Phase::EnablingEvents;
                self.next(context)
            }
            (Phase::LeavingHalves | Phase::Opening, Err(error)) => {
                Opened::Failed(Failure::at(context.step, error))
            }
            // The server serves from here on: what a statement is refused for is a warning.
            (_, Err(ServerError::Refused { code, message })) => {
                self.warnings.push(format!("{}: error {code}: {message}", context.step));
                self.next(context)
            }
            (_, Err(error)) => Opened::Failed(Failure::at(context.step, error)),
        }
    }

    fn next(&mut self, context: &Context<'_>) -> Opened {
        if let Some((step, sql)) = self.statements.pop() {
            return Opened::Ask(Ask::new(step, sql, limits::STATEMENT_SLOW_LIMIT));
        }
        match self.phase {
            Phase::LeavingHalves
            | Phase::Opening
            | Phase::ReadingAccounts
            | Phase::MakingAccounts => self.load_clone(context),
            Phase::LoadingClone => self.look_for_probe(context),
            Phase::LookingForProbe | Phase::MakingProbe => self.read_events(),
            Phase::ReadingEvents | Phase::EnablingEvents => {
                Opened::Over { warnings: std::mem::take(&mut self.warnings) }
            }
        }
    }

    /// The other host may have to be copied from this one.
    fn load_clone(&mut self, context: &Context<'_>) -> Opened {
        if !context.config.is_of_a_pair || !context.dialect.can_clone() {
            return self.look_for_probe(context);
        }
        self.phase = Phase::LoadingClone;
        let step = "loading the clone plugin";
        Opened::Ask(Ask::new(step, reseed::LOAD_CLONE, limits::STATEMENT_LIMIT))
    }

    fn look_for_probe(&mut self, context: &Context<'_>) -> Opened {
        if !context.config.commit_probe {
            return self.read_events();
        }
        self.phase = Phase::LookingForProbe;
        let step = "looking for the table of the commit probe";
        Opened::Ask(Ask::new(step, probe::COUNT_TABLES, limits::STATEMENT_LIMIT))
    }

    fn read_events(&mut self) -> Opened {
        self.phase = Phase::ReadingEvents;
        let sql = "SELECT EVENT_SCHEMA AS db, EVENT_NAME AS name, DEFINER AS definer, \
                   STATUS AS status FROM information_schema.EVENTS WHERE STATUS <> 'DISABLED'";
        Opened::Ask(Ask::new("reading the events", sql, limits::STATEMENT_LIMIT))
    }
}

pub(super) fn read_accounts(user: &str) -> String {
    format!(
        "SELECT Host AS host, Repl_slave_priv AS can_replicate FROM mysql.user WHERE User={}",
        quote(user)
    )
}

/// The replication user for both hosts, so that the pair can be turned around; last statement
/// first. An account that exists keeps its password.
pub(super) fn missing_accounts(
    config: &Config,
    site: &Site,
    rows: &Rows,
) -> Vec<(&'static str, String)> {
    let user = quote(&config.replication_user);
    let password = quote(config.replication_password.reveal());
    let mut statements = Vec::new();
    for address in site.addresses {
        let address = address.to_string();
        let found = (0..rows.rows.len()).find(|&row| rows.value(row, &["host"]) == Some(&*address));
        let host = quote(&address);
        let can_replicate =
            found.and_then(|row| rows.value(row, &["can_replicate"])).is_some_and(|v| v == "Y");
        if !can_replicate {
            let sql = format!("GRANT REPLICATION SLAVE ON *.* TO {user}@{host}");
            statements.push((MAKING_ACCOUNTS, sql));
        }
        if found.is_none() {
            let sql = format!("CREATE USER {user}@{host} IDENTIFIED BY {password}");
            statements.push((MAKING_ACCOUNTS, sql));
        }
    }
    statements
}

/// Last statement first: the scheduler starts when every event is enabled.
fn enable_events(rows: &Rows) -> Vec<(&'static str, String)> {
    let mut statements = Vec::new();
    if !rows.rows.is_empty() {
        statements.push((ENABLING_EVENTS, "SET GLOBAL event_scheduler=ON".to_owned()));
    }
    for row in 0..rows.rows.len() {
        let text = |name: &str| rows.value(row, &[name]).unwrap_or_default();
        // SLAVESIDE_DISABLED; REPLICA_SIDE_DISABLED on new servers.
        if text("status").ends_with("SIDE_DISABLED")
            && let Some((user, host)) = text("definer").rsplit_once('@')
        {
            // Without its definer the event would become ours.
            let sql = format!(
                "ALTER DEFINER={}@{} EVENT {}.{} ENABLE",
                quote_name(user),
                quote_name(host),
                quote_name(text("db")),
                quote_name(text("name")),
            );
            statements.push((ENABLING_EVENTS, sql));
        }
    }
    statements
}

/// Undoes `Close`.
#[derive(Debug)]
pub(super) struct Reopen {
    open: Option<Open>,
}

impl Reopen {
    pub(super) const fn new() -> Self {
        Self { open: None }
    }

    pub(super) const fn is_opening(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn looked(&mut self, context: &mut Context<'_>, facts: &Facts) -> Act {
        if let Some(replica) = &facts.replica {
            return Act::Finish(Err(Failure::Refused(format!(
                "it is a replica of {}, and only a promotion opens it",
                replica.source_host
            ))));
        }
        let (open, ask) = Open::start(context, false);
        self.open = Some(open);
        Act::Ask(ask)
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        let Some(open) = &mut self.open else { return out_of_step() };
        match open.answered(context, result) {
            Opened::Ask(ask) => Act::Ask(ask),
            Opened::Over { warnings } => Act::Finish(Ok(Outcome::Reopened { warnings })),
            Opened::Failed(failure) => Act::Finish(Err(failure)),
        }
    }
}

const MAKING_ACCOUNTS: &str = "making the replication account";
const MAKING_PROBE: &str = "making the table of the commit probe";
const ENABLING_EVENTS: &str = "enabling events";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_the_old_source_are_enabled_and_keep_their_definer() {
        let rows = Rows {
            columns: ["db", "name", "definer", "status"].map(str::to_owned).to_vec(),
            rows: [
                ["shop", "a`b", "u@x@%", "SLAVESIDE_DISABLED"],
                ["shop", "own", "root@localhost", "ENABLED"],
            ]
            .map(|row| row.map(|text| Some(text.to_owned())).to_vec())
            .to_vec(),
        };
        let statements: Vec<_> = enable_events(&rows).into_iter().map(|(_, sql)| sql).collect();
        assert_eq!(
            statements,
            ["SET GLOBAL event_scheduler=ON", "ALTER DEFINER=`u@x`@`%` EVENT `shop`.`a``b` ENABLE"]
        );
        assert_eq!(enable_events(&Rows::default()), []);
    }
}
