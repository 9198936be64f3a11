//! The appliance's data partition: its room, looked at while there is still some; the notes there.
//!
//! In: the file system. Out: a note when it gets scarce, and when that is over. Must not: free any.
//! Read first: statvfs(3). A database whose disk is full is found by the node's own probe; this
//! comes before.

use std::time::Duration;

use super::notes;
use crate::console::note::Note;
use crate::time::Instant;

const INTERVAL: Duration = Duration::from_secs(30);
/// Of all blocks, in percent: less is told, and more than the second is well again.
const SCARCE: u64 = 10;
const ENOUGH: u64 = 15;

#[derive(Debug)]
pub struct Storage {
    path: &'static str,
    looked_at: Option<Instant>,
    is_scarce: bool,
}

impl Storage {
    #[must_use]
    pub const fn new(path: &'static str) -> Self {
        Self { path, looked_at: None, is_scarce: false }
    }

    /// Looks, every half minute.
    pub(super) fn tend(&mut self, now: Instant) {
        if self.looked_at.is_some_and(|at| now.since(at) < INTERVAL) {
            return;
        }
        self.looked_at = Some(now);
        // What a power cut would take.
        notes::save_news();
        let Ok(found) = rustix::fs::statvfs(self.path) else { return };
        let free = found.f_bavail * 100 / found.f_blocks.max(1);
        let mebibytes = found.f_bavail * found.f_frsize / (1024 * 1024);
        if !self.is_scarce && free < SCARCE {
            self.is_scarce = true;
            let what = format!(
                "{}: {free} % of its room is left, {mebibytes} MiB: old binlogs go by PURGE BINARY \
                 LOGS, the rest is the site's",
                self.path
            );
            notes::tell(&Note::StorageScarce { what });
        } else if self.is_scarce && free >= ENOUGH {
            self.is_scarce = false;
            let what = format!("{}: {free} % of its room is free again", self.path);
            notes::tell(&Note::Boot { what });
        }
    }
}
