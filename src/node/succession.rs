//! Succession: whether this host's database is fit to serve after a source that is gone.
//!
//! In: where the source says in its beacons that it stands, looks at our database. Out: what is
//! missing here for too long. Must not: hold up what the operator forces.
//! Read first: facts/repl.md 3.7; `judge`, which asks before a standby takes over.
//!
//! A replica always trails a little, so that the last beacon of a busy source names transactions
//! that were on their way: they are what an unplanned failover may cost. A replica that had not
//! come up to its source for longer (it has just rejoined, its database was restarted, the link is
//! slow) would lose what was acknowledged long ago. It waits for the source, or for the operator.

use std::time::Duration;

use super::Node;
use super::judge::Found;
use crate::pair::{Event, Role};
use crate::peer::Report;
use crate::repl::{self, Position};
use crate::time::Instant;

/// Positions of the source that are remembered, and how far apart they are.
const SAMPLES: usize = 12;
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long ago a successor must have had all that its source had.
const BEHIND_MAX: Duration = Duration::from_secs(10);

/// How long a peer that lives and does not serve is waited for: to close its database and say where
/// it stands, and to send what is missing.
const VACANCY_PATIENCE: Duration = Duration::from_millis(1500);

/// How much more time than here must have passed for the peer, by its beacons. Those that are sent
/// out of turn make it seem more.
const PAUSE_MIN: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(super) struct Succession {
    /// The source's word, oldest first.
    samples: heapless::Deque<(Instant, String), SAMPLES>,
    /// After this host did not run for a while: what comes in was sent long ago.
    heard_from: Instant,
    /// Its last one.
    last: Option<(Instant, String)>,
    /// When that was said which our database came to have, latest.
    caught_up_at: Option<Instant>,
    /// Since when the peer lives and does not serve.
    vacant_since: Option<Instant>,
    /// The peer's run, the number of its last beacon, and when that came.
    beat: Option<(u64, u64, Instant)>,
}

impl Node {
    /// This host has just become a standby: when it had all is not known.
    pub(super) fn begin_succession(&mut self) {
        let Succession { last, heard_from, beat, .. } = std::mem::take(&mut self.succession);
        self.succession = Succession { last, heard_from, beat, ..Succession::default() };
    }

    /// This host did not run for a while: what it hears first was said long ago.
    pub(super) fn suspend_succession(&mut self, now: Instant) {
        self.begin_succession();
        self.succession.heard_from = now + SAMPLE_INTERVAL;
    }

    /// Whether what comes in was sent just now, and not before this host stood still.
    pub(super) fn hears_the_present(&self, now: Instant) -> bool {
        now >= self.succession.heard_from
    }

    /// A beacon of the peer came in. Where it has sent many more than there was time for here, this
    /// machine stood still and its clock with it (a virtual machine that was paused): what it knew
    /// is older than it thinks.
    pub(super) fn count_beacons(&mut self, now: Instant) {
        let Some(report) = self.peer.report() else { return };
        let (boot_id, sequence) = (report.boot_id, report.sequence);
        let Some(last) = self.succession.beat.replace((boot_id, sequence, now)) else { return };
        let sent = u32::try_from(sequence.saturating_sub(last.1)).unwrap_or(u32::MAX);
        let span = self.config.peer.interval.saturating_mul(sent);
        if boot_id == last.0 && span > now.since(last.2) + PAUSE_MIN {
            self.suspend_succession(now);
        }
    }

    /// A beacon of the source came in.
    pub(super) fn hear_source(&mut self, now: Instant) {
        let Some(report) = self.peer.report() else { return };
        if !matches!(report.role, Role::Active | Role::Demoting) {
            return;
        }
        self.succession.vacant_since = None;
        let Some(position) = report.database.position.as_ref().map(|it| it.as_str().to_owned())
        else {
            return;
        };
        let Succession { samples, last, heard_from, .. } = &mut self.succession;
        let is_due = |at: Instant| now.since(at) >= SAMPLE_INTERVAL;
        if now >= *heard_from && samples.back().is_none_or(|(at, _)| is_due(*at)) {
            if samples.is_full() {
                samples.pop_front();
            }
            samples.push_back((now, position.clone())).expect("room was made above");
        }
        *last = Some((now, position));
    }

    /// Our database was looked at. One that went down may have lost what it had received.
    pub(super) fn observe_succession(&mut self) {
        if !self.is_database_up() {
            self.succession.caught_up_at = None;
            return;
        }
        let Some(own) = self.own_and_received() else { return };
        let has = |position: &str| self.parse(position).is_some_and(|it| own.contains(&it));
        let newest = self.succession.samples.iter().rev().find(|(_, position)| has(position));
        if let Some((at, _)) = newest {
            self.succession.caught_up_at = Some(*at);
        }
    }

    /// In the form of our database's family, once that is known.
    pub(super) fn parse(&self, position: &str) -> Option<Position> {
        Position::parse(self.engine.observation().flavour?, position).ok()
    }

    /// Executed here, or waiting to be. What a database that went down had received and not applied
    /// may be gone with it.
    fn own_and_received(&self) -> Option<Position> {
        let repl::Observation { position, replica, .. } = self.engine.observation();
        let own = self.parse(position.as_deref()?)?;
        let kept = replica.as_ref().filter(|_| self.is_database_up());
        let received = kept.and_then(|replica| self.parse(&replica.retrieved));
        Some(received.map_or_else(|| own.clone(), |it| own.union(&it)))
    }

    /// What the source had and this host lacks, if it had been lacking it for long. `None` too when
    /// the source never said where it stands.
    fn shortfall(&self) -> Option<String> {
        let (said_at, position) = self.succession.last.as_ref()?;
        let is_recent = |at: Instant| said_at.since(at) <= BEHIND_MAX;
        if self.succession.caught_up_at.is_some_and(is_recent) {
            return None;
        }
        let (theirs, own) = (self.parse(position)?, self.own_and_received()?);
        let missing = theirs.beyond(&own);
        (missing.transactions > 0).then(|| {
            format!("{} transactions are not here ({})", missing.transactions, missing.text)
        })
    }

    /// The peer did not wait for the end of the handover: it was forced, or did not hear us. It has
    /// the addresses and the newer epoch, and may need long to open.
    pub(super) fn judge_taken(&self, now: Instant) -> Option<Found> {
        let peer = self.fresh(now)?;
        let is_serving = matches!(peer.role, Role::Promoting | Role::Active);
        let has_taken = is_serving && peer.holds_vips && peer.epoch > self.persistent.epoch;
        let why = || format!("{} has taken over with epoch {}", self.peer_name(), peer.epoch);
        has_taken.then(|| (Event::Outranked, why()))
    }

    /// A standby is about to serve, because its peer does not.
    pub(super) fn succeed(&mut self, found: Found) -> Option<Found> {
        let Some(missing) = self.shortfall() else { return self.unless_ordered(found) };
        let name = self.peer_name();
        self.wait_for(format!(
            "{}, and {missing}: start {name}, or `tandem failover --force` serves without them",
            found.1
        ));
        None
    }

    /// The peer lives and does not serve any more. Its closed database is the last word on what
    /// there is: this host comes up to it and serves, or leaves the choice to the election, which
    /// is won by whoever has more.
    pub(super) fn judge_vacancy(&mut self, now: Instant, peer: &Report) -> Option<Found> {
        if !self.hears_the_present(now) {
            return None;
        }
        let name = self.peer_name();
        let found = (Event::PeerResigned, format!("{name} does not serve any more"));
        if peer.is_leaving || !peer.database.is_up {
            return self.succeed(found);
        }
        let since = *self.succession.vacant_since.get_or_insert(now);
        let theirs = peer.database.position.as_deref().and_then(|it| self.parse(it));
        let has_all = theirs.zip(self.own_and_received()).map(|(it, own)| own.contains(&it));
        match has_all {
            // The peer may go on with its own role; it waits for this host as long as it stands by.
            Some(true) if self.is_ordered_to_wait() => {
                Some((Event::Outranked, format!("{name} waits, and this host takes no role")))
            }
            Some(true) => Some(found),
            Some(false) | None if now.since(since) < VACANCY_PATIENCE => None,
            Some(false) => Some((Event::Outranked, format!("{name} waits, and has more"))),
            None => self.succeed(found),
        }
    }
}
