//! Reload: what was made of files, and is made again when they change.
//!
//! In: paths, how to load them. Out: a value that is good, or why the files as they are now are
//! not. Must not: give up a good value for files that cannot be used; load files that still change.
//! Read first: certbot's live directory, whose links move to the renewed files one after the other.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

/// A value and the files that it was made of.
#[derive(Debug)]
pub struct Reloading<T> {
    value: T,
    files: Vec<String>,
    /// The files that the value was made of, or those that were found to be of no use since.
    judged: Vec<Option<Mark>>,
    /// At the last look.
    seen: Vec<Option<Mark>>,
}

/// What tells a file from its successor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mark {
    device: u64,
    inode: u64,
    size_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

impl<T> Reloading<T> {
    pub fn load(
        files: Vec<String>,
        load: impl FnOnce() -> Result<T, String>,
    ) -> Result<Self, String> {
        // Before they are read: what changes meanwhile is seen by the first look.
        let judged = marks(&files);
        Ok(Self { value: load()?, files, seen: judged.clone(), judged })
    }

    pub const fn value(&self) -> &T {
        &self.value
    }

    /// Looks at the files, and loads them if they have changed and were the same at the look
    /// before. `None`: nothing was loaded. An error leaves the value as it was, and is told once.
    pub fn look(&mut self, load: impl FnOnce() -> Result<T, String>) -> Option<Result<(), String>> {
        let now = marks(&self.files);
        let is_settled = now == self.seen;
        self.seen = now;
        if !is_settled || self.seen == self.judged {
            return None;
        }
        self.judged.clone_from(&self.seen);
        Some(load().map(|value| self.value = value))
    }
}

/// `None` for a file that is not there.
fn marks(files: &[String]) -> Vec<Option<Mark>> {
    let mark = |file: &String| {
        let metadata = fs::metadata(file).ok()?;
        Some(Mark {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    };
    files.iter().map(mark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changed_is_loaded_once_it_is_still() {
        let name = format!("tandem-reload-{}", std::process::id());
        let path = std::env::temp_dir().join(name).display().to_string();
        let read = || fs::read_to_string(&path).map_err(|error| error.to_string());
        let replace = |text: &str| {
            let other = format!("{path}.new");
            fs::write(&other, text).expect("writes");
            fs::rename(&other, &path).expect("renames");
        };
        replace("1");
        let mut it = Reloading::load(vec![path.clone()], read).expect("loads");
        assert_eq!((it.look(read), it.value().as_str()), (None, "1"));
        replace("2");
        assert_eq!((it.look(read), it.value().as_str()), (None, "1"), "it may still change");
        assert_eq!((it.look(read), it.value().as_str()), (Some(Ok(())), "2"));
        assert_eq!(it.look(read), None);
        fs::remove_file(&path).expect("removes");
        assert_eq!(it.look(read), None);
        assert!(it.look(read).is_some_and(|result| result.is_err()) && it.value() == "2");
        assert_eq!((it.look(read), it.value().as_str()), (None, "2"), "it is told once");
        replace("3");
        assert_eq!(it.look(read), None);
        assert_eq!((it.look(read), it.value().as_str()), (Some(Ok(())), "3"));
        fs::remove_file(&path).expect("removes");
        Reloading::load(vec![path.clone()], read).map(drop).expect_err("nothing to begin with");
    }
}
