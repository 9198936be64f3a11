//! Where a session's statement may go at this moment, and what ties the session to a connection.
//!
//! In: the job's class, `Routes`, the state of the connections. Out: a host, or to wait.
//! Must not: name a host for a write that `Routes` does not name as source.
//! Read first: `session` for the picture; facts/sql.md traps 24 to 33, 59 to 67.

use crate::routes::Flow;
use crate::wire::HostId;

use super::result::Kind;
use super::route::Class;
use super::session::{Context, Leg, Outbox, Session};
use super::statement::Statement;

impl Session {
    /// The host that the job may go to at this moment; `None` when it has to wait.
    pub(super) fn target(&self, context: &Context<'_>) -> Option<HostId> {
        let job = self.job.as_ref()?;
        let source = context.routes.source;
        let host = match job.verdict.class {
            Class::Replica if !job.needs_source && self.is_free(context) => {
                let read = context.routes.read_target();
                let is_avoided = read.is_some_and(|host| {
                    context.avoid_until[host.index()] > context.now && !self.is_open(host)
                });
                if is_avoided { source } else { read }
            }
            Class::Last => self.last_host.filter(|&host| self.is_open(host)).or(source),
            Class::Replica | Class::Source | Class::SourcePin => source,
        }?;
        // What gets no reply must not wait for one; it ends or feeds a statement that exists.
        let flows = source != Some(host)
            || job.kind == Kind::Silent
            || match context.routes.writes {
                Flow::Flowing => true,
                Flow::Held { open_limit } => {
                    self.leg(host).is_some_and(Leg::has_transaction)
                        && context.held_since.is_none_or(|since| context.now < since + open_limit)
                }
            };
        flows.then_some(host)
    }

    /// Whether reads may go to the replica at all.
    fn is_free(&self, context: &Context<'_>) -> bool {
        !self.is_pinned
            && self.wrote_at.is_none_or(|at| at < context.reached)
            && self.legs.iter().flatten().all(|leg| !leg.has_transaction() && leg.has_autocommit())
    }

    /// Whether something that cannot be repeated elsewhere lives on this connection.
    pub(super) fn has_state_on(&self, host: HostId) -> bool {
        self.leg(host).is_some_and(|leg| {
            leg.is_source
                && (self.is_pinned
                    || self.statements.iter().any(Statement::is_state)
                    || leg.has_transaction()
                    || !leg.has_autocommit())
        })
    }

    /// The host is to be left: a connection to it is given up as soon as nothing of the session
    /// lives on it and no statement runs there.
    pub fn retire(&mut self, host: HostId, out: &mut Outbox) {
        if let Some(leg) = &mut self.legs[host.index()] {
            leg.is_stale = true;
        }
        if self.phase.awaited() != Some(host) && !self.has_state_on(host) {
            self.drop_leg(host, out);
        }
    }
}
