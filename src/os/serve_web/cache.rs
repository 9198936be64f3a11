//! Small files in memory: a hit costs no system call, and at most one a second to be re-checked.
//!
//! In: what was found and read. Out: the same again, while it holds. Must not: remember that
//! something is missing (a new file appears at once), believe a file that changed a moment ago.
//! Read first: facts/web.md 5.1, "Static floor"; `root`, which fills it.

use std::collections::BTreeMap;
use std::rc::Rc;

use rustix::fs::Stat;

use crate::limits;
use crate::time::Instant;
use crate::web::lookup::Found;

#[derive(Debug)]
pub(super) struct Cache {
    entries: BTreeMap<Vec<u8>, Entry>,
    bytes: usize,
    bytes_max: usize,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) found: Found,
    /// The file's bytes and what it was then; of scripts and directories nothing is kept.
    pub(super) content: Option<(Rc<[u8]>, Identity)>,
    pub(super) checked_at: Instant,
    used_at: Instant,
}

/// Equal before and after: the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    pub(super) fn of(stat: &Stat) -> Self {
        let part = |nanoseconds| i64::try_from(nanoseconds).unwrap_or(0);
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, part(stat.st_mtime_nsec)),
            changed: (stat.st_ctime, part(stat.st_ctime_nsec)),
        }
    }

    /// Whether the file may change once more without looking different: the kernel's stamps are as
    /// coarse as its ticks.
    pub(super) fn is_young(&self, unix_seconds: u64) -> bool {
        let now = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
        self.changed.0.saturating_add(2) > now
    }
}

impl Cache {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { entries: BTreeMap::new(), bytes: 0, bytes_max }
    }

    pub(super) fn find(&mut self, now: Instant, path: &[u8]) -> Option<&mut Entry> {
        let entry = self.entries.get_mut(path)?;
        entry.used_at = now;
        Some(entry)
    }

    pub(super) fn insert(
        &mut self,
        now: Instant,
        path: &[u8],
        found: Found,
        content: Option<(Rc<[u8]>, Identity)>,
    ) {
        self.remove(path);
        let entry = Entry { found, content, checked_at: now, used_at: now };
        self.bytes += entry.cost(path);
        self.entries.insert(path.to_vec(), entry);
        while self.bytes > self.bytes_max || self.entries.len() > limits::WEB_CACHE_FILES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.used_at);
            let Some(oldest) = oldest.map(|(path, _)| path.clone()) else { return };
            self.remove(&oldest);
        }
    }

    pub(super) fn remove(&mut self, path: &[u8]) {
        if let Some(entry) = self.entries.remove(path) {
            self.bytes -= entry.cost(path);
        }
    }
}

impl Entry {
    fn cost(&self, path: &[u8]) -> usize {
        path.len() + self.content.as_ref().map_or(0, |(bytes, _)| bytes.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn the_longest_unused_leaves_when_it_is_full() {
        let stat = rustix::fs::stat("/").expect("the root directory");
        let identity = Identity::of(&stat);
        let mut cache = Cache::new(100);
        let at = |seconds| Instant::ZERO + Duration::from_secs(seconds);
        for (second, path) in [b"/a", b"/b", b"/c"].iter().enumerate() {
            let content = Some((Rc::from([0; 30]), identity));
            cache.insert(at(second as u64), *path, Found::Directory, content);
        }
        assert!(cache.find(at(3), b"/a").is_some() && cache.bytes == 96);
        cache.insert(at(4), b"/d", Found::Directory, None);
        cache.insert(at(5), b"/e", Found::Directory, Some((Rc::from([0; 30]), identity)));
        assert!(cache.find(at(6), b"/b").is_none() && cache.find(at(6), b"/a").is_some());
        for number in 0..2 * limits::WEB_CACHE_FILES_MAX {
            cache.insert(at(7), number.to_string().as_bytes(), Found::Directory, None);
        }
        assert!(cache.bytes <= 100 && cache.entries.len() <= limits::WEB_CACHE_FILES_MAX);
        let bytes: usize = cache.entries.iter().map(|(path, entry)| entry.cost(path)).sum();
        assert_eq!(cache.bytes, bytes);
    }
}
