//! Idle connections to servers, logged in and reset, waiting for the next session.
//!
//! In: connections that a session gave back. Out: one that fits a session. Must not: hold a
//! connection whose state is unknown, or one to a host that is gone or changed its role.
//! Read first: facts/sql.md 5.7 and trap 48 (nothing leaks from one client to the next).

use std::collections::BTreeMap;

use mysql_common::collations::{Collation, CollationId};

use crate::limits;
use crate::wire::HostId;

use super::command::code;
use super::handshake::RELAYED;
use super::packet;
use super::users::UserId;

/// What two sessions must have in common to use one connection after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub host: HostId,
    pub user: UserId,
    capabilities: u32,
    pub collation: u8,
}

impl Key {
    #[must_use]
    pub const fn new(host: HostId, user: UserId, capabilities: u32, collation: u8) -> Self {
        Self { host, user, capabilities: capabilities & RELAYED, collation }
    }

    #[must_use]
    pub const fn capabilities(&self) -> u32 {
        self.capabilities
    }

    /// Writes the commands that clean a connection: the reset, and the character set of its
    /// log-in, which the reset replaces by the server's default. `false` when nothing can.
    #[must_use]
    pub fn clean(&self, out: &mut Vec<u8>) -> bool {
        let collation = Collation::resolve(CollationId::from(u16::from(self.collation)));
        let (charset, name) = (collation.charset(), collation.collation());
        let is_plain = |word: &str| {
            word != "unknown" && word.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'_')
        };
        // To a MariaDB the name that MySQL has for this number is that of another collation.
        if !is_plain(charset) || !is_plain(name) || name.ends_with("_croatian_ci") {
            return false;
        }
        packet::command(out, code::RESET_CONNECTION, b"");
        let text = format!("SET NAMES {charset} COLLATE {name}");
        packet::command(out, code::QUERY, text.as_bytes());
        true
    }
}

/// How many replies `Key::clean` asks for.
pub const CLEAN_REPLIES: u8 = 2;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    connection: u32,
    database: Option<Vec<u8>>,
    /// Which use it was the last of.
    put: u64,
}

/// The idle connections by key, the most recently used last.
#[derive(Debug, Default)]
pub struct Pool {
    idle: BTreeMap<Key, Vec<Entry>>,
    count: usize,
    puts: u64,
}

impl Pool {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Keeps a connection. A full pool gives up the one that has been idle for longest, which the
    /// caller closes: else what one program left would keep all others from pooling.
    pub fn put(&mut self, key: Key, connection: u32, database: Option<Vec<u8>>) -> Option<u32> {
        let evicted = if self.count < limits::SQL_POOL_IDLE_MAX { None } else { self.evict() };
        self.puts += 1;
        let entry = Entry { connection, database, put: self.puts };
        self.idle.entry(key).or_default().push(entry);
        self.count += 1;
        evicted
    }

    fn evict(&mut self) -> Option<u32> {
        let firsts = self.idle.iter().filter_map(|(key, entries)| Some((key, entries.first()?)));
        let (&key, entry) = firsts.min_by_key(|(_, entry)| entry.put)?;
        let connection = entry.connection;
        self.forget(key, connection);
        Some(connection)
    }

    /// Takes a connection for a session in `database`. One that already is there is best; a
    /// session without a database cannot use one that has one, because there is no way back.
    pub fn take(&mut self, key: Key, database: Option<&[u8]>) -> Option<(u32, Option<Vec<u8>>)> {
        let entries = self.idle.get_mut(&key)?;
        let index = entries
            .iter()
            .rposition(|entry| entry.database.as_deref() == database)
            .or_else(|| database.and_then(|_| entries.len().checked_sub(1)))?;
        let entry = entries.remove(index);
        if entries.is_empty() {
            self.idle.remove(&key);
        }
        self.count -= 1;
        Some((entry.connection, entry.database))
    }

    /// Forgets a connection that was closed.
    pub fn forget(&mut self, key: Key, connection: u32) {
        if let Some(entries) = self.idle.get_mut(&key) {
            let before = entries.len();
            entries.retain(|entry| entry.connection != connection);
            self.count -= before - entries.len();
            if entries.is_empty() {
                self.idle.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(collation: u8) -> Key {
        Key::new(HostId::First, UserId(0), 0, collation)
    }

    #[test]
    fn gives_what_fits_and_nothing_else() {
        let mut pool = Pool::default();
        assert_eq!(pool.put(key(45), 1, None), None);
        assert_eq!(pool.put(key(45), 2, Some(b"a".to_vec())), None);
        assert_eq!(pool.put(key(45), 3, Some(b"b".to_vec())), None);
        assert_eq!(pool.take(key(33), None), None, "another character set");
        assert_eq!(pool.take(Key { user: UserId(1), ..key(45) }, None), None, "another user");
        assert_eq!(pool.take(key(45), Some(b"a")), Some((2, Some(b"a".to_vec()))));
        assert_eq!(pool.take(key(45), None), Some((1, None)));
        assert_eq!(pool.take(key(45), None), None, "no way back from a database");
        assert_eq!(pool.take(key(45), Some(b"c")), Some((3, Some(b"b".to_vec()))));
        assert!(pool.is_empty());
    }

    #[test]
    fn is_bounded_and_forgets() {
        let mut pool = Pool::default();
        let max = u32::try_from(limits::SQL_POOL_IDLE_MAX).unwrap();
        for connection in 0..max {
            assert_eq!(pool.put(key(45), connection, None), None);
        }
        assert_eq!(pool.put(key(33), 9999, None), Some(0), "the one that is idle for longest");
        assert_eq!(pool.take(key(45), None), Some((max - 1, None)));
        assert_eq!(pool.put(key(45), max - 1, None), None);
        pool.forget(key(45), 1);
        pool.forget(key(45), 1);
        assert_eq!(pool.len(), limits::SQL_POOL_IDLE_MAX - 1);
        assert_eq!(pool.take(key(33), None), Some((9999, None)), "another program's");
    }

    #[test]
    fn every_collation_cleans_or_says_that_it_cannot() {
        let mut out = Vec::new();
        assert!(key(45).clean(&mut out));
        assert!(out.ends_with(b"SET NAMES utf8mb4 COLLATE utf8mb4_general_ci"));
        let mut able = 0;
        for id in 0..=255 {
            able += usize::from(key(id).clean(&mut Vec::new()));
        }
        assert!(able > 150, "{able} collations");
        assert!(!key(0).clean(&mut Vec::new()));
        assert!(!key(213).clean(&mut Vec::new()), "utf8mb3_croatian_mysql561_ci of MariaDB");
    }
}
