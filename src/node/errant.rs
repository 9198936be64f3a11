//! Errant transactions of this host's database: saved as soon as they are found, told to operators.
//!
//! In: what a refused Follow says, how the saving ended. Out: an order to save, words.
//! Must not: take anything back (`tandem rejoin --discard` does, in a process of its own).
//! Read first: facts/repl.md 3.4; `repl::errant`.

use std::time::Duration;

use super::{Node, Output};
use crate::console::message::Response;
use crate::console::note::Note;
use crate::console::status::ErrantStatus;
use crate::pair::{Event, Role};
use crate::repl::errant::Saved;
use crate::time::Instant;

/// What is known of them.
#[derive(Debug)]
pub(super) struct Errant {
    gtids: String,
    transactions: u64,
    known: String,
    /// `None` while they are being saved.
    saved: Option<Result<Saved, String>>,
}

impl Node {
    /// The peer's position is as old as its last look and its last beacon: what it lacks may be
    /// what it wrote since. Only what a later position still lacks is errant.
    pub(super) fn found_errant(
        &mut self,
        now: Instant,
        gtids: String,
        transactions: u64,
        known: String,
    ) {
        if self.errant.as_ref().is_none_or(|errant| errant.gtids != gtids) {
            let since = self.errant_since.filter(|since| now.since(*since) < SUSPICION_AGE_MAX);
            self.errant_since = Some(since.unwrap_or(now));
            if since.is_none_or(|since| now.since(since) < POSITION_AGE_MAX) {
                self.retry_at = now + POSITION_AGE_MAX;
                return;
            }
            self.note(Note::Diverged { extra: format!("{transactions}: {gtids}") });
            self.errant = Some(Errant { gtids, transactions, known: known.clone(), saved: None });
            self.errant_since = None;
            self.outputs.push_back(Output::SaveErrant { known });
        }
        let told = self.errant_words().unwrap_or_default();
        self.findings.diverged = Some(told.clone());
        if self.role == Role::Refused {
            self.tell_operators(Response::Refused(told), true);
        }
        self.pending.push_back((Event::Diverged, "its data differ".into()));
    }

    pub(super) fn errant_saved(&mut self, saved: Result<Saved, String>) {
        let Some(errant) = &mut self.errant else { return };
        errant.saved = Some(saved);
        let what = self.errant_words();
        if let Some(what) = what.clone() {
            self.note(Note::DatabaseTrouble { what });
        }
        self.findings.diverged = what;
    }

    pub(super) fn forget_errant(&mut self) {
        self.errant = None;
        self.errant_since = None;
        self.findings.diverged = None;
    }

    /// One sentence: what there is, where it is saved, what to do.
    fn errant_words(&self) -> Option<String> {
        let Errant { gtids, transactions, saved, .. } = self.errant.as_ref()?;
        let name = self.peer_name();
        let shown: String = gtids.chars().take(GTIDS_SHOWN).collect();
        let cut = if shown.len() < gtids.len() { "..." } else { "" };
        let begin =
            format!("{transactions} transactions are here and not on {name} ({shown}{cut})");
        Some(match saved {
            None => format!("{begin}; they are being saved"),
            Some(Ok(Saved { directory, obstacle: None, .. })) => format!(
                "{begin}; saved in {directory}: look at events.sql, run again on {name} what is to \
                 stay, then `tandem rejoin --discard` here takes them back"
            ),
            Some(Ok(Saved { directory, obstacle: Some(why), .. })) => format!(
                "{begin}; saved in {directory}; they cannot be taken back, since {why}: `tandem \
                 reseed` makes this database a copy of {name}'s"
            ),
            Some(Err(why)) => format!(
                "{begin}; they could not be saved: {why}; keep this database's files, then \
                 `tandem reseed` makes it a copy of {name}'s"
            ),
        })
    }

    pub(super) fn errant_status(&self) -> Option<ErrantStatus> {
        let Errant { gtids, transactions, known, saved } = self.errant.as_ref()?;
        let (directory, obstacle) = match saved {
            None => (None, None),
            Some(Ok(saved)) => (Some(saved.directory.clone()), saved.obstacle.clone()),
            Some(Err(why)) => (None, Some(why.clone())),
        };
        Some(ErrantStatus {
            gtids: gtids.chars().take(GTIDS_IN_STATUS).collect(),
            transactions: *transactions,
            known: known.clone(),
            directory,
            obstacle,
        })
    }

    /// `tandem rejoin`: looks again at once whether this host may follow.
    pub(super) fn ask_rejoin(&mut self, now: Instant, client: u64) {
        let response = match self.role {
            Role::Standby => Response::Done("this host is standby already".to_owned()),
            Role::Active | Role::Promoting | Role::Demoting => {
                Response::Refused("this host serves: it is the other one that rejoins".to_owned())
            }
            Role::Joining | Role::Refused => {
                self.retry_at = now;
                self.operator.waiting.push((client, now));
                let waits = format!("waiting for {} to serve", self.peer_name());
                Response::Progress(waits)
            }
        };
        self.reply(client, response);
    }
}

/// Two looks of the peer and its beacons.
const POSITION_AGE_MAX: Duration = Duration::from_millis(1500);

/// A suspicion that nobody came back to is none.
const SUSPICION_AGE_MAX: Duration = Duration::from_secs(15);

/// Characters of a set of GTIDs in a sentence, and in a status, which is one bounded frame.
const GTIDS_SHOWN: usize = 200;
pub(super) const GTIDS_IN_STATUS: usize = 4000;
