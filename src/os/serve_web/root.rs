//! The document root: opens what is below it and nothing else.
//!
//! In: a normalised path. Out: what is there, and the open file or its bytes. Must not: follow a
//! link outside, block on a pipe or device. Read first: openat2(2), RESOLVE_BENEATH; `cache`.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::rc::Rc;
use std::time::Duration;

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, open, openat, openat2, statat,
};
use rustix::io::{Errno, pread};

use crate::limits;
use crate::time::Instant;
use crate::web::lookup::{Found, Meta};

use super::cache::{Cache, Identity};

#[derive(Debug)]
pub(super) struct Root {
    path: String,
    /// The root's descriptor, opened again once a second: a deployment may replace the directory.
    directory: Option<(OwnedFd, Instant)>,
    /// Linux before 5.6 has none, and some sandboxes forbid it.
    has_openat2: bool,
    cache: Cache,
}

/// Where the bytes of a file that was found are.
#[derive(Debug)]
pub(super) enum Source {
    Nowhere,
    Open(OwnedFd),
    /// All of them.
    Memory(Rc<[u8]>),
}

const DIRECTORY_AGE_MAX: Duration = Duration::from_secs(1);

impl Root {
    pub(super) fn new(path: &str, cache_bytes_max: usize) -> Self {
        Self {
            path: path.to_owned(),
            directory: None,
            has_openat2: true,
            cache: Cache::new(cache_bytes_max),
        }
    }

    /// What is at `path`, which begins with a slash. A script is only looked at, not opened for
    /// reading: php-fpm may run as another user.
    pub(super) fn look(&mut self, now: Instant, unix_seconds: u64, path: &[u8]) -> (Found, Source) {
        if let Some(known) = self.recall(now, path) {
            return known;
        }
        let is_script = path.ends_with(b".php");
        let opened = self.open(now, path, is_script);
        let file = match opened {
            Ok(file) => file,
            Err(errno) => return (found_of(errno), Source::Nowhere),
        };
        let Ok(stat) = fstat(&file) else { return (Found::Failed, Source::Nowhere) };
        let found = found_in(&stat);
        match found {
            Found::File(meta) if !is_script => {
                let identity = Identity::of(&stat);
                let bytes = if identity.is_young(unix_seconds) { None } else { read(&file, meta) };
                let Some(bytes) = bytes else { return (found, Source::Open(file)) };
                let content = Some((Rc::clone(&bytes), identity));
                self.cache.insert(now, path, found, content);
                (found, Source::Memory(bytes))
            }
            Found::File(_) | Found::Directory => {
                self.cache.insert(now, path, found, None);
                (found, Source::Nowhere)
            }
            Found::Missing | Found::Denied | Found::Failed => (found, Source::Nowhere),
        }
    }

    /// What is in memory, if it is as it was.
    fn recall(&mut self, now: Instant, path: &[u8]) -> Option<(Found, Source)> {
        let entry = self.cache.find(now, path)?;
        let is_fresh = now.since(entry.checked_at) < limits::WEB_CACHE_AGE_MAX;
        let content = entry.content.clone();
        let found = entry.found;
        let source = match content {
            None if is_fresh => Source::Nowhere,
            Some((bytes, _)) if is_fresh => Source::Memory(bytes),
            // A link that leads elsewhere by now leads to another file, so its look is enough.
            Some((bytes, identity)) if self.identity(now, path) == Some(identity) => {
                self.cache.find(now, path)?.checked_at = now;
                Source::Memory(bytes)
            }
            None | Some(_) => {
                self.cache.remove(path);
                return None;
            }
        };
        Some((found, source))
    }

    fn identity(&mut self, now: Instant, path: &[u8]) -> Option<Identity> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let stat = statat(self.directory(now).ok()?, relative, AtFlags::empty()).ok()?;
        Some(Identity::of(&stat))
    }

    fn open(&mut self, now: Instant, path: &[u8], is_script: bool) -> Result<OwnedFd, Errno> {
        let relative = path.strip_prefix(b"/").unwrap_or(path);
        let relative = if relative.is_empty() { b"." } else { relative };
        // openat2(2) refuses any other flag beside O_PATH.
        let access = if is_script {
            OFlags::PATH
        } else {
            OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY
        };
        let flags = access | OFlags::CLOEXEC;
        let has_openat2 = self.has_openat2;
        let directory = self.directory(now)?;
        if has_openat2 {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
            match openat2(directory, relative, flags, Mode::empty(), resolve) {
                Err(Errno::NOSYS | Errno::PERM) => self.has_openat2 = false,
                // openat2(2): a concurrent rename; the kernel asks to try again.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
        walk(self.directory(now)?, relative, flags)
    }

    fn directory(&mut self, now: Instant) -> Result<&OwnedFd, Errno> {
        let is_fresh = |at: Instant| now.since(at) < DIRECTORY_AGE_MAX;
        if !self.directory.as_ref().is_some_and(|&(_, at)| is_fresh(at)) {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            self.directory = Some((open(self.path.as_str(), flags, Mode::empty())?, now));
        }
        self.directory.as_ref().map(|(directory, _)| directory).ok_or(Errno::NOENT)
    }
}

fn found_in(stat: &Stat) -> Found {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Found::Directory,
        // A daemon that runs as root could read what nobody is meant to.
        FileType::RegularFile if stat.st_mode & 0o444 == 0 => Found::Denied,
        FileType::RegularFile => Found::File(Meta {
            size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
            modified_unix_seconds: u64::try_from(stat.st_mtime).unwrap_or(0),
        }),
        FileType::Symlink
        | FileType::Fifo
        | FileType::Socket
        | FileType::CharacterDevice
        | FileType::BlockDevice
        | FileType::Unknown => Found::Denied,
    }
}

/// A small file's bytes, if all of them are there.
fn read(file: &OwnedFd, meta: Meta) -> Option<Rc<[u8]>> {
    if meta.size_bytes > limits::WEB_SMALL_FILE_BYTES {
        return None;
    }
    let size = usize::try_from(meta.size_bytes).ok()?;
    let mut bytes = vec![0; size];
    let count = if size == 0 { 0 } else { pread(file, bytes.as_mut_slice(), 0).ok()? };
    (count == size).then(|| bytes.into())
}

/// Component by component, no link followed at all.
fn walk(root: &OwnedFd, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let mut components = path.split(|&byte| byte == b'/').peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(component) = components.next() {
        if component == b".." || component.is_empty() {
            return Err(Errno::NOENT);
        }
        let directory = at.as_ref().map_or_else(|| root.as_fd(), AsFd::as_fd);
        if components.peek().is_none() {
            return openat(directory, component, flags | OFlags::NOFOLLOW, Mode::empty());
        }
        let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        at = Some(openat(directory, component, step, Mode::empty())?);
    }
    Err(Errno::NOENT)
}

const fn found_of(errno: Errno) -> Found {
    match errno {
        Errno::NOENT | Errno::NOTDIR | Errno::NAMETOOLONG | Errno::LOOP => Found::Missing,
        Errno::ACCESS | Errno::PERM | Errno::XDEV | Errno::NXIO => Found::Denied,
        _ => Found::Failed,
    }
}

/// An unlinked file for a request body that is too large for memory.
pub(super) fn spool_file() -> Result<OwnedFd, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR;
    for directory in ["/var/tmp", "/tmp"] {
        if let Ok(file) = openat(CWD, directory, flags, mode) {
            return Ok(file);
        }
    }
    // A file system without O_TMPFILE.
    let mut random = [0u8; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut random))
        .map_err(|_| Errno::IO)?;
    let path = format!("/tmp/.tandem-body-{:016x}", u64::from_ne_bytes(random));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let file = openat(CWD, path.as_str(), flags, mode)?;
    rustix::fs::unlink(path.as_str())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn nothing_outside_is_ever_opened() {
        let base = std::env::temp_dir().join(format!("tandem-root-{}", std::process::id()));
        let root_path = base.join("root");
        std::fs::create_dir_all(root_path.join("d")).expect("makes the tree");
        std::fs::write(base.join("secret.txt"), "secret").expect("writes");
        std::fs::write(root_path.join("a.txt"), "abc").expect("writes");
        std::fs::write(root_path.join("a.php"), "abc").expect("writes");
        std::fs::write(root_path.join("closed.txt"), "abc").expect("writes");
        let closed = std::fs::Permissions::from_mode(0o000);
        std::fs::set_permissions(root_path.join("closed.txt"), closed).expect("sets the mode");
        symlink("../secret.txt", root_path.join("up.txt")).expect("links");
        symlink("/etc/passwd", root_path.join("absolute.txt")).expect("links");
        for has_openat2 in [true, false] {
            let mut root = Root::new(root_path.to_str().expect("text"), 1000);
            root.has_openat2 = has_openat2;
            let mut look = |path: &str| root.look(Instant::ZERO, 0, path.as_bytes()).0;
            assert!(matches!(look("/a.txt"), Found::File(Meta { size_bytes: 3, .. })));
            assert!(matches!(look("/a.php"), Found::File(Meta { size_bytes: 3, .. })));
            assert_eq!(look("/"), Found::Directory);
            assert_eq!(look("/d"), Found::Directory);
            assert_eq!(look("/nothing"), Found::Missing);
            assert_eq!(look("/a.txt/x"), Found::Missing);
            assert_eq!(look(&format!("/{}", "n".repeat(300))), Found::Missing);
            assert_eq!(look("/closed.txt"), Found::Denied);
            for outside in ["/up.txt", "/absolute.txt", "/../secret.txt"] {
                assert!(!matches!(look(outside), Found::File(_)), "{outside} {has_openat2}");
            }
        }
        std::fs::remove_dir_all(&base).expect("cleans up");
    }

    #[test]
    fn a_small_file_is_in_memory_until_it_changes() {
        let base = std::env::temp_dir().join(format!("tandem-cache-{}", std::process::id()));
        std::fs::create_dir_all(&base).expect("makes the tree");
        let write = |text: &str| {
            std::fs::write(base.join("new"), text).expect("writes");
            std::fs::rename(base.join("new"), base.join("a.txt")).expect("renames");
        };
        write("one");
        std::fs::write(base.join("large"), vec![b'x'; 20_000]).expect("writes");
        let mut root = Root::new(base.to_str().expect("text"), 1000);
        let at = |milliseconds| Instant::ZERO + Duration::from_millis(milliseconds);
        let later = u64::MAX;
        let mut look = |milliseconds, unix_seconds, path: &str| match root.look(
            at(milliseconds),
            unix_seconds,
            path.as_bytes(),
        ) {
            (Found::File(_), Source::Memory(bytes)) => String::from_utf8_lossy(&bytes).into(),
            (Found::File(_), Source::Open(_)) => String::from("open"),
            (found, _) => format!("{found:?}"),
        };
        assert_eq!(look(0, 0, "/a.txt"), "open", "it is too young to be believed");
        assert_eq!(look(0, later, "/large"), "open");
        assert_eq!(look(0, later, "/a.txt"), "one");
        write("two");
        assert_eq!(look(999, later, "/a.txt"), "one");
        assert_eq!(look(1000, later, "/a.txt"), "two");
        assert_eq!(look(1500, later, "/a.txt"), "two");
        std::fs::remove_file(base.join("a.txt")).expect("removes");
        symlink("/etc/passwd", base.join("a.txt")).expect("links");
        assert_eq!(look(2500, later, "/a.txt"), "Denied");
        assert_eq!(look(2500, later, "/b.txt"), "Missing");
        std::fs::write(base.join("b.txt"), "").expect("writes");
        assert_eq!(look(2500, later, "/b.txt"), "", "what is missing is looked for each time");
        std::fs::remove_dir_all(&base).expect("cleans up");
    }
}
