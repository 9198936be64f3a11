//! Reseed: replaces everything in this database by a copy of the peer's, which the servers make
//! themselves (CLONE INSTANCE, MySQL 8.0.17 and later).
//!
//! In: facts, answers. Out: SET, INSTALL PLUGIN, CLONE. Must not: run on a server that is open.
//! Read first: facts/repl.md 3.4 d); the MySQL manual, "Cloning Remote Data".
//! Differs: the copy is fetched by the administrator, who may do it everywhere, and not by an
//! account of its own.
//!
//! ```text
//!  look -> let administrators in -> load clone -> name the donor -> clone -> the server ends
//!                                                        \ refused: shut them out again
//! ```

use super::dialect::{Dialect, quote};
use super::job::{Act, Ask, Context, Failure, Outcome, out_of_step};
use super::look::Facts;
use super::rows::{Rows, ServerError};
use crate::limits;

/// Loads the plugin; the peer needs it too, and does this when it is opened.
pub(super) const LOAD_CLONE: &str = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";

/// Making this server a copy of the peer's.
#[derive(Debug, Default)]
pub(super) struct Reseed {
    step: Option<Step>,
    /// Why it was refused: said when the server is closed again.
    refusal: Option<Failure>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Leaving,
    Forgetting,
    LettingIn,
    Loading,
    NamingDonor,
    Cloning,
    ShuttingOut,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Leaving => "stopping replication",
            Self::Forgetting => "forgetting the source",
            Self::LettingIn => "letting administrators in",
            Self::Loading => "loading the clone plugin",
            Self::NamingDonor => "naming the donor",
            Self::Cloning => "cloning the peer's database",
            Self::ShuttingOut => "shutting administrators out",
        }
    }
}

impl Reseed {
    pub(super) fn looked(&mut self, context: &Context<'_>, facts: &Facts) -> Act {
        if self.step.is_some() {
            return out_of_step();
        }
        let refused = |why: &str| Act::Finish(Err(Failure::Refused(why.to_owned())));
        if !context.dialect.can_clone() {
            return refused(
                "this server cannot copy another one by itself (MySQL can from 8.0.17 on)",
            );
        }
        if !facts.is_closed {
            return refused("this database is open");
        }
        self.ask(context, if facts.replica.is_some() { Step::Leaving } else { Step::LettingIn })
    }

    fn ask(&mut self, context: &Context<'_>, step: Step) -> Act {
        self.step = Some(step);
        let words = context.dialect.statements();
        let (peer, port) = (context.site.peer_address().to_string(), context.config.port);
        let sql = match step {
            Step::Leaving => words.stop.to_owned(),
            Step::Forgetting => words.forget_source.to_owned(),
            Step::LettingIn => "SET GLOBAL super_read_only=OFF".to_owned(),
            Step::Loading => LOAD_CLONE.to_owned(),
            Step::NamingDonor => {
                format!("SET GLOBAL clone_valid_donor_list={}", quote(&format!("{peer}:{port}")))
            }
            Step::Cloning => format!(
                "CLONE INSTANCE FROM {}@{}:{port} IDENTIFIED BY {}",
                quote(&context.config.user),
                quote(&peer),
                quote(context.config.password.reveal())
            ),
            Step::ShuttingOut => "SET GLOBAL super_read_only=ON".to_owned(),
        };
        let limit = match step {
            Step::Cloning => limits::CLONE_LIMIT,
            Step::Leaving
            | Step::Forgetting
            | Step::LettingIn
            | Step::Loading
            | Step::NamingDonor
            | Step::ShuttingOut => limits::STATEMENT_SLOW_LIMIT,
        };
        Act::Ask(Ask::new(step.name(), sql, limit))
    }

    pub(super) fn answered(
        &mut self,
        context: &mut Context<'_>,
        result: Result<Rows, ServerError>,
    ) -> Act {
        let Some(step) = self.step else { return out_of_step() };
        match (step, result) {
            (Step::Leaving, Ok(_)) => self.ask(context, Step::Forgetting),
            (Step::Forgetting, Ok(_)) => self.ask(context, Step::LettingIn),
            (Step::LettingIn, Ok(_)) => self.ask(context, Step::Loading),
            (Step::Loading, Ok(_) | Err(ServerError::Refused { code: PLUGIN_IS_LOADED, .. })) => {
                self.ask(context, Step::NamingDonor)
            }
            (Step::NamingDonor, Ok(_)) => {
                let what = "copying the peer's database: this server's own rows are gone from here";
                context.notes.push(what.to_owned());
                self.ask(context, Step::Cloning)
            }
            // Without somebody to start it again the server says so, and ends; with somebody the
            // connection ends first.
            (
                Step::Cloning,
                Ok(_)
                | Err(
                    ServerError::Unreachable(_) | ServerError::Refused { code: CANNOT_RESTART, .. },
                ),
            ) => Act::Finish(Ok(Outcome::Reseeded)),
            (Step::ShuttingOut, _) => {
                Act::Finish(Err(self.refusal.take().unwrap_or(Failure::Abandoned)))
            }
            (Step::Leaving | Step::Forgetting | Step::LettingIn, Err(error)) => context.fail(error),
            (Step::Loading | Step::NamingDonor | Step::Cloning, Err(error)) => {
                self.refusal = Some(Failure::at(step.name(), error));
                self.ask(context, Step::ShuttingOut)
            }
        }
    }
}

impl Dialect {
    /// By its family; a server of it that cannot says so itself.
    #[must_use]
    pub const fn can_clone(self) -> bool {
        match self {
            Self::Mysql80 | Self::Mysql84 => true,
            Self::Mysql56 | Self::Mysql57 | Self::Mariadb => false,
        }
    }
}

/// ER_UDF_EXISTS.
const PLUGIN_IS_LOADED: u16 = 1125;
/// ER_CANT_RESTART: the copy is whole, and mysqld ends because nobody starts it again.
const CANNOT_RESTART: u16 = 3707;
