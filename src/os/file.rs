//! Files: the configuration, the state that outlives the daemon, secrets, pid files.
//!
//! In: paths, bytes. Out: what is in them, or why not. Must not: interpret a configuration.
//! Read first: rename(2), fsync(2). A state file is postcard and the first 8 bytes of its SHA-256,
//! written beside, synced, renamed, and its directory synced: it is the old one or the new one.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::node::Persistent;
use crate::wire;

pub const STATE_DIR: &str = "/var/lib/tandem";
pub const RUN_DIR: &str = "/run/tandem";
pub const SOCKET: &str = "/run/tandem.sock";

fn state_path() -> PathBuf {
    Path::new(STATE_DIR).join("state")
}

/// What the last run left; the default when there is none. A torn or foreign file is an error: to
/// guess an epoch could make two sources.
pub fn load_state() -> io::Result<Persistent> {
    let path = state_path();
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Persistent::default()),
        Err(error) => return Err(named(&path, error)),
    };
    let wrong = || {
        named(
            &path,
            io::Error::other(
                "damaged: remove it if the other host serves; this one then counts as new",
            ),
        )
    };
    let (body, sum) = bytes.split_last_chunk::<8>().ok_or_else(wrong)?;
    if Sha256::digest(body)[..8] != sum[..] {
        return Err(wrong());
    }
    wire::read_appended(body).map_err(|_| wrong())
}

/// On disk when it returns.
pub fn save_state(state: &Persistent) -> io::Result<()> {
    let mut bytes = postcard::to_stdvec(state).expect("plain data");
    let sum = Sha256::digest(&bytes);
    bytes.extend(&sum[..8]);
    let beside = Path::new(STATE_DIR).join("state.new");
    let mut file = File::create(&beside).map_err(|error| named(&beside, error))?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    fs::rename(&beside, state_path())?;
    File::open(STATE_DIR)?.sync_all()
}

/// Reads and checks a configuration, secrets included.
pub fn load_config(path: &str) -> Result<Config, String> {
    let mut config = read_config(path)?;
    config.resolve(read_secret).map_err(|error| format!("{path}: {error}"))?;
    Ok(config)
}

/// The same without the secrets that stand in files.
pub fn read_config(path: &str) -> Result<Config, String> {
    let text = fs::read_to_string(path).map_err(|error| {
        format!("{path}: {error}\n`tandem example` prints a configuration to start from")
    })?;
    Config::parse(&text).map_err(|error| format!("{path}: {error}"))
}

/// The text of a secret file, which only its owner may read.
pub fn read_secret(path: &str) -> Result<String, String> {
    let mode = fs::metadata(path).map_err(|error| {
        if error.kind() == io::ErrorKind::NotFound {
            return "is missing; `tandem secrets` tells how to get it".to_owned();
        }
        error.to_string()
    });
    let mode = mode?.mode();
    if mode & 0o077 != 0 {
        return Err(format!("mode is {:04o}: run chmod 0600 on it", mode & 0o7777));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}

/// Held for as long as the daemon runs. A second one would take the first one's addresses off and
/// close its database, since that is how a daemon begins.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "closing it lets the lock go")] File);

/// Makes sure that this is the only daemon on the host.
pub fn lock() -> io::Result<Lock> {
    fs::create_dir_all(RUN_DIR)?;
    let path = Path::new(RUN_DIR).join("lock");
    let file = File::create(&path).map_err(|error| named(&path, error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Lock(file)),
        Err(Errno::WOULDBLOCK) => Err(named(
            &path,
            io::Error::other("another tandem runs on this host: `tandem status` shows it"),
        )),
        Err(error) => Err(named(&path, error.into())),
    }
}

/// The process of a pid file, if it runs.
#[must_use]
pub fn running(name: &str) -> Option<u32> {
    let text = fs::read_to_string(Path::new(RUN_DIR).join(name)).ok()?;
    let process: u32 = text.trim().parse().ok()?;
    Path::new("/proc").join(process.to_string()).exists().then_some(process)
}

pub fn write_pid(name: &str) -> io::Result<()> {
    fs::create_dir_all(RUN_DIR)?;
    fs::write(Path::new(RUN_DIR).join(name), format!("{}\n", std::process::id()))
}

/// Removes a folder with all in it, if it is there.
pub(super) fn remove_tree(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(named(folder, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// An error that says which file it is about.
pub fn named(path: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
