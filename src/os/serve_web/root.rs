//! The document root: opens what is below it and nothing else.
//!
//! In: a normalised path. Out: what is there, and the open file. Must not: follow a link outside,
//! block on a pipe or device. Read first: openat2(2), RESOLVE_BENEATH.

use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2};
use rustix::io::Errno;

use crate::time::Instant;
use crate::web::lookup::{Found, Meta};

#[derive(Debug)]
pub(super) struct Root {
    path: String,
    /// The root's descriptor, opened again once a second: a deployment may replace the directory.
    directory: Option<(OwnedFd, Instant)>,
    /// Linux before 5.6 has none, and some sandboxes forbid it.
    has_openat2: bool,
}

const DIRECTORY_AGE_MAX: Duration = Duration::from_secs(1);

impl Root {
    pub(super) fn new(path: &str) -> Self {
        Self { path: path.to_owned(), directory: None, has_openat2: true }
    }

    /// What is at `path`, which begins with a slash. A script is only looked at, not opened for
    /// reading: php-fpm may run as another user.
    pub(super) fn look(&mut self, now: Instant, path: &[u8]) -> (Found, Option<OwnedFd>) {
        let is_script = path.ends_with(b".php");
        let opened = self.open(now, path, is_script);
        let file = match opened {
            Ok(file) => file,
            Err(errno) => return (found_of(errno), None),
        };
        let Ok(stat) = fstat(&file) else { return (Found::Failed, None) };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => (Found::Directory, None),
            // A daemon that runs as root could read what nobody is meant to.
            FileType::RegularFile if stat.st_mode & 0o444 == 0 => (Found::Denied, None),
            FileType::RegularFile => {
                let meta = Meta {
                    size_bytes: u64::try_from(stat.st_size).unwrap_or(0),
                    modified_unix_seconds: u64::try_from(stat.st_mtime).unwrap_or(0),
                };
                (Found::File(meta), Some(file))
            }
            FileType::Symlink
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => (Found::Denied, None),
        }
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
            let mut root = Root::new(root_path.to_str().expect("text"));
            root.has_openat2 = has_openat2;
            let mut look = |path: &str| root.look(Instant::ZERO, path.as_bytes()).0;
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
}
