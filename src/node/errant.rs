//! Errant transactions of this host's database: saved as soon as they are found, told to operators,
//! taken back by themselves where nobody was ever told that they are done (`node::backing`).
//!
//! In: what a refused Follow says, how saving and taking back ended. Out: orders for these, words.
//! Must not: take back what may have been acknowledged (`tandem rejoin --discard` does).
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
#[derive(Debug, Default)]
pub(super) struct Errants {
    found: Option<Errant>,
    /// Since when there may be some.
    suspected_since: Option<Instant>,
}

#[derive(Debug)]
struct Errant {
    gtids: String,
    transactions: u64,
    known: String,
    /// `None` while they are being saved.
    saved: Option<Result<Saved, String>>,
    taking_back: TakingBack,
}

/// What this host does about them by itself, once.
#[derive(Debug)]
enum TakingBack {
    No,
    UnderWay,
    Failed(String),
    /// It follows as soon as it is looked at again.
    Done,
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
        if self.errants.found.as_ref().is_none_or(|errant| errant.gtids != gtids) {
            let since =
                self.errants.suspected_since.filter(|since| now.since(*since) < SUSPICION_AGE_MAX);
            self.errants.suspected_since = Some(since.unwrap_or(now));
            if since.is_none_or(|since| now.since(since) < POSITION_AGE_MAX) {
                self.retry_at = now + POSITION_AGE_MAX;
                return;
            }
            self.note(Note::Diverged { extra: format!("{transactions}: {gtids}") });
            let taking_back = TakingBack::No;
            let kept = known.clone();
            self.errants.found =
                Some(Errant { gtids, transactions, known: kept, saved: None, taking_back });
            self.errants.suspected_since = None;
            self.outputs.push_back(Output::SaveErrant { known });
        } else if let Some(Errant { taking_back: it @ TakingBack::Done, .. }) =
            &mut self.errants.found
        {
            *it = TakingBack::Failed("they are still here".to_owned());
        }
        let told = self.errant_words().unwrap_or_default();
        self.findings.diverged = Some(told.clone());
        if self.role == Role::Refused {
            self.tell_operators(Response::Refused(told), true);
        }
        self.pending.push_back((Event::Diverged, "its data differ".into()));
    }

    pub(super) fn errant_saved(&mut self, now: Instant, saved: Result<Saved, String>) {
        let Some(errant) = &mut self.errants.found else { return };
        errant.saved = Some(saved);
        if self.role != Role::Refused || !self.take_back_what_nobody_was_told(now) {
            self.say_errant();
        }
    }

    fn say_errant(&mut self) {
        let what = self.errant_words();
        if let Some(what) = what.clone() {
            self.note(Note::DatabaseTrouble { what });
        }
        self.findings.diverged = what;
    }

    /// What this host has too much is what its last commits left when it died. False: not so, or
    /// not yet.
    pub(super) fn take_back_what_nobody_was_told(&mut self, now: Instant) -> bool {
        let is_ready = self.is_fenced && self.is_database_up() && self.is_free();
        let is_backed = self.is_backed_by_peer(now);
        let Some(Errant { saved: Some(Ok(saved)), taking_back, .. }) = &mut self.errants.found
        else {
            return false;
        };
        let is_possible = matches!(taking_back, TakingBack::No)
            && saved.obstacle.is_none()
            && saved.is_of_one_crash
            && saved.transactions <= TAKEN_BACK_MAX;
        if !(is_ready && is_backed && is_possible) {
            return false;
        }
        *taking_back = TakingBack::UnderWay;
        let directory = saved.directory.clone();
        self.outputs.push_back(Output::TakeBack { directory });
        self.say_errant();
        true
    }

    pub(super) fn is_taking_back(&self) -> bool {
        matches!(self.errants.found, Some(Errant { taking_back: TakingBack::UnderWay, .. }))
    }

    pub(super) fn took_back(&mut self, now: Instant, result: Result<(), String>) {
        let Some(errant) = &mut self.errants.found else { return };
        errant.taking_back = match result {
            Ok(()) => TakingBack::Done,
            Err(why) => TakingBack::Failed(why),
        };
        self.retry_at = now;
        self.say_errant();
    }

    pub(super) fn forget_errant(&mut self) {
        self.errants = Errants::default();
        self.findings.diverged = None;
    }

    /// One sentence: what there is, where it is saved, what to do.
    fn errant_words(&self) -> Option<String> {
        let Errant { gtids, transactions, saved, taking_back, .. } = self.errants.found.as_ref()?;
        let name = self.peer_name();
        let shown: String = gtids.chars().take(GTIDS_SHOWN).collect();
        let cut = if shown.len() < gtids.len() { "..." } else { "" };
        let begin =
            format!("{transactions} transactions are here and not on {name} ({shown}{cut})");
        let Some(saved) = saved else { return Some(format!("{begin}; they are being saved")) };
        let Saved { directory, obstacle, .. } = match saved {
            Ok(saved) => saved,
            Err(why) => {
                return Some(format!(
                    "{begin}; they could not be saved: {why}; keep this database's files, then \
                     `tandem reseed` makes it a copy of {name}'s"
                ));
            }
        };
        let begin = format!("{begin}; saved in {directory}");
        let orders = format!(
            "look at events.sql, run again on {name} what is to stay, then `tandem rejoin \
             --discard` here takes them back"
        );
        Some(match (taking_back, obstacle) {
            (TakingBack::UnderWay, _) => {
                format!("{begin}; nobody was told that they are done: they are being taken back")
            }
            (TakingBack::Done, _) => {
                format!("{begin}; nobody was told that they were done: they were taken back")
            }
            (TakingBack::Failed(why), _) => {
                format!("{begin}; they could not be taken back: {why}; {orders}")
            }
            (TakingBack::No, None) => format!("{begin}: {orders}"),
            (TakingBack::No, Some(why)) => format!(
                "{begin}; they cannot be taken back, since {why}: `tandem reseed` makes this \
                 database a copy of {name}'s"
            ),
        })
    }

    pub(super) fn errant_status(&self) -> Option<ErrantStatus> {
        let Errant { gtids, transactions, known, saved, .. } = self.errants.found.as_ref()?;
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

/// A session waits in one commit at most, and more sessions than this are seldom.
const TAKEN_BACK_MAX: u64 = 200;

/// Characters of a set of GTIDs in a sentence, and in a status, which is one bounded frame.
const GTIDS_SHOWN: usize = 200;
pub(super) const GTIDS_IN_STATUS: usize = 4000;
