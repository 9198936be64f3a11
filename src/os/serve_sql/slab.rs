//! Slots for sockets, and one table of timers over them.
//!
//! In: things with a socket. Out: slot numbers that epoll keys carry. Must not: know what is kept.
//! Read first: `plane::Key`.

use std::collections::BTreeSet;

use crate::time::Instant;

/// Things by slot number. A slot's generation changes with every tenant.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<(u16, Option<T>)>,
    free: Vec<u32>,
    count: usize,
}

impl<T> Slab<T> {
    pub(super) const fn new() -> Self {
        Self { slots: Vec::new(), free: Vec::new(), count: 0 }
    }

    pub(super) const fn len(&self) -> usize {
        self.count
    }

    /// The slot that the next `insert` fills, and its generation.
    pub(super) fn next(&self) -> (u32, u16) {
        let slot = self.free.last().copied();
        let slot = slot.unwrap_or_else(|| u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
        (slot, self.slots.get(index(slot)).map_or(0, |(generation, _)| *generation))
    }

    /// The slot's generation, where somebody is in it.
    pub(super) fn generation(&self, slot: u32) -> Option<u16> {
        let (generation, thing) = self.slots.get(index(slot))?;
        thing.as_ref().map(|_| *generation)
    }

    pub(super) fn insert(&mut self, thing: T) -> u32 {
        let (slot, _) = self.next();
        self.free.pop();
        match self.slots.get_mut(index(slot)) {
            Some((_, place)) => *place = Some(thing),
            None => self.slots.push((0, Some(thing))),
        }
        self.count += 1;
        slot
    }

    pub(super) fn remove(&mut self, slot: u32) -> Option<T> {
        let (generation, place) = self.slots.get_mut(index(slot))?;
        let thing = place.take()?;
        *generation = generation.wrapping_add(1);
        self.free.push(slot);
        self.count -= 1;
        Some(thing)
    }

    pub(super) fn get(&self, slot: u32) -> Option<&T> {
        self.slots.get(index(slot))?.1.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: u32) -> Option<&mut T> {
        self.slots.get_mut(index(slot))?.1.as_mut()
    }

    pub(super) fn is_current(&self, slot: u32, generation: u16) -> bool {
        self.slots
            .get(index(slot))
            .is_some_and(|(current, thing)| *current == generation && thing.is_some())
    }

    pub(super) fn slots(&self) -> Vec<u32> {
        (0u32..).zip(&self.slots).filter(|(_, (_, it))| it.is_some()).map(|(at, _)| at).collect()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().filter_map(|(_, thing)| thing.as_ref())
    }
}

fn index(slot: u32) -> usize {
    usize::try_from(slot).unwrap_or(usize::MAX)
}

/// Which slot a timer or a postponed read belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    Client(u32),
    Server(u32),
    Listener(u32),
    Desk(u32),
}

/// Timers that are only ever moved to an earlier instant; a timer that comes too early is asked
/// for its deadline again. So a query costs no change of this table.
#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeSet<(Instant, Place)>,
}

impl Timers {
    /// Makes sure that `place` is looked at by `deadline`; `armed` is kept beside the thing.
    pub(super) fn arm(
        &mut self,
        place: Place,
        armed: &mut Option<Instant>,
        deadline: Option<Instant>,
    ) {
        let Some(deadline) = deadline else { return };
        if armed.is_none_or(|at| deadline < at) {
            if let Some(at) = *armed {
                self.due.remove(&(at, place));
            }
            self.due.insert((deadline, place));
            *armed = Some(deadline);
        }
    }

    pub(super) fn disarm(&mut self, place: Place, armed: Option<Instant>) {
        if let Some(at) = armed {
            self.due.remove(&(at, place));
        }
    }

    pub(super) fn first(&self) -> Option<Instant> {
        self.due.first().map(|&(at, _)| at)
    }

    /// The next place that is due, taken off the table.
    pub(super) fn pop(&mut self, now: Instant) -> Option<Place> {
        let &(at, place) = self.due.first()?;
        if at > now {
            return None;
        }
        self.due.pop_first();
        Some(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_slot_changes_its_generation_with_its_tenant() {
        let mut slab = Slab::new();
        let (slot, generation) = slab.next();
        assert_eq!(slab.insert('a'), slot);
        assert!(slab.is_current(slot, generation));
        assert_eq!(slab.remove(slot), Some('a'));
        assert!(!slab.is_current(slot, generation));
        assert_eq!(slab.next(), (slot, generation + 1));
        assert_eq!((slab.insert('b'), slab.insert('c'), slab.len()), (0, 1, 2));
        assert_eq!(slab.slots(), [0, 1]);
    }

    #[test]
    fn timers_move_earlier_only() {
        let mut timers = Timers::default();
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        let mut armed = None;
        timers.arm(Place::Client(1), &mut armed, Some(at(5)));
        timers.arm(Place::Client(1), &mut armed, Some(at(9)));
        assert_eq!(timers.first(), Some(at(5)));
        timers.arm(Place::Client(1), &mut armed, Some(at(3)));
        assert_eq!(timers.pop(at(2)), None);
        assert_eq!(timers.pop(at(3)), Some(Place::Client(1)));
        assert_eq!(timers.pop(at(9)), None);
    }
}
