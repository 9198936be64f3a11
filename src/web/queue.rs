//! Queue: the requests that wait for a peer, in order.
//!
//! In: requests that no peer had room for, which kinds of them one has room for now. Out: the first
//! of those. Must not: choose a peer (that is `balance`); look at every request while no peer has
//! room, because it is asked after each event of a busy front. Read first: `upstream`.

use std::collections::VecDeque;

use crate::limits;

use super::balance::{Kind, Want};
use super::upstream::Ticket;

#[derive(Debug, Clone, Copy)]
struct Waiting {
    ticket: Ticket,
    want: Want,
}

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: VecDeque<Waiting>,
    of_kind: [usize; Kind::COUNT],
}

/// By `Kind::index`.
pub(super) type Kinds = [bool; Kind::COUNT];

impl Queue {
    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether this request goes before all that wait for the same peers.
    pub(super) fn is_first(&self, want: Want) -> bool {
        let mut rivals = self.waiting.iter().filter(|other| other.want.tried == want.tried);
        rivals.all(|other| want.goes_before(other.want))
    }

    /// False: the queue is full.
    #[must_use]
    pub(super) fn push(&mut self, ticket: Ticket, want: Want) -> bool {
        if self.waiting.len() >= limits::WEB_QUEUE_MAX {
            return false;
        }
        let place = match want.is_retry() {
            true => self.waiting.iter().position(|other| want.goes_before(other.want)),
            false => None,
        };
        self.waiting.insert(place.unwrap_or(self.waiting.len()), Waiting { ticket, want });
        self.of_kind[want.kind().index()] += 1;
        true
    }

    /// The kinds that are here and for which this holds.
    pub(super) fn kinds(&self, holds: impl Fn(Kind) -> bool) -> Kinds {
        Kind::ALL.map(|kind| self.of_kind[kind.index()] > 0 && holds(kind))
    }

    /// Takes out the first request of one of these kinds.
    pub(super) fn take(&mut self, kinds: Kinds) -> Option<(Ticket, Want)> {
        if kinds == [false; Kind::COUNT] {
            return None;
        }
        let place = self.waiting.iter().position(|it| kinds[it.want.kind().index()])?;
        let Waiting { ticket, want } = self.waiting.remove(place)?;
        self.of_kind[want.kind().index()] -= 1;
        Some((ticket, want))
    }

    /// It waits no longer.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        let Some(place) = self.waiting.iter().position(|it| it.ticket == ticket) else { return };
        if let Some(waiting) = self.waiting.remove(place) {
            self.of_kind[waiting.want.kind().index()] -= 1;
        }
    }
}
