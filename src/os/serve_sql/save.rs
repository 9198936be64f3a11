//! SAVE CONFIG: the clients and users go into the file that the daemon was started with, on a
//! thread of their own, because a disk may take its time.
//!
//! In: what is to stand there. Out: the outcome, told through a socket of the same epoll. Must not:
//! write over somebody's edit, or leave a file that the daemon would not start with.
//! Read first: `sql::saving`; rename(2), fsync(2).

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};

use crate::config::{self, Config, Sections};
use crate::console::note::Note;
use crate::os::file::named;
use crate::os::plane::{Key, Service, Turn};
use crate::os::{disk, notes};
use crate::sql::admin::{HERE_ONLY, Outcome};
use crate::sql::saving::Wanted;

use super::{SIDE_SAVE, ServeSql};

/// The file that the daemon was started with.
#[derive(Debug, Clone)]
pub struct Source {
    pub path: PathBuf,
    /// Of the text that was read from it; another one by now is somebody's edit.
    pub digest: [u8; 8],
    pub sections: Sections,
}

impl Source {
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, config: &Config) -> Self {
        Self { path: path.into(), digest: config.digest, sections: config.sections.clone() }
    }
}

/// A SAVE CONFIG on its way.
#[derive(Debug)]
pub(super) struct Saving {
    bell: UnixStream,
    result: Receiver<Result<Source, String>>,
    /// The visitor who asked: slot and generation.
    asker: (u32, u16),
}

impl ServeSql {
    /// Begins. `Some`: it could not even begin.
    pub(super) fn save(&mut self, turn: &Turn<'_>, asker: (u32, u16)) -> Option<Outcome> {
        let refuse = |why: String| Some(Outcome::Refused(format!("not saved: {why}")));
        let Some(source) = self.site.source.clone() else {
            return refuse("this splitter was started without a file".to_owned());
        };
        if self.saving.is_some() {
            return refuse("another SAVE CONFIG is being carried out".to_owned());
        }
        let wanted = Wanted::new(&self.config.clients, &self.users);
        let key = Key { service: Service::Sql, side: SIDE_SAVE, generation: 0, slot: 0 };
        let pair = UnixStream::pair().and_then(|(bell, ringer)| {
            bell.set_nonblocking(true)?;
            turn.plane.register(&bell, key)?;
            Ok((bell, ringer))
        });
        let (bell, ringer) = match pair {
            Ok(pair) => pair,
            Err(error) => return refuse(error.to_string()),
        };
        let (teller, result) = mpsc::channel();
        smol::unblock(move || {
            let _ = teller.send(save(&source, &wanted));
            // Closing it is what rings.
            drop(ringer);
        })
        .detach();
        self.saving = Some(Saving { bell, result, asker });
        None
    }

    /// The digest of the file, once SAVE CONFIG has changed it or it was read again.
    #[must_use]
    pub fn saved_digest(&self) -> Option<[u8; 8]> {
        self.saved_digest
    }

    /// The file as it was read or saved last.
    #[must_use]
    pub const fn source(&self) -> Option<&Source> {
        self.site.source.as_ref()
    }

    /// The file is known to be this one by now.
    pub fn set_source(&mut self, source: Source) {
        self.saved_digest = Some(source.digest);
        self.site.source = Some(source);
    }

    /// The thread has done its work.
    pub(super) fn saved(&mut self, turn: &mut Turn<'_>) {
        let Some(saving) = &mut self.saving else { return };
        let is_early = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
        if saving.bell.read(&mut [0]).is_err_and(|error| is_early(&error)) {
            return;
        }
        let Some(saving) = self.saving.take() else { return };
        let result = saving.result.try_recv();
        let outcome = match result {
            Ok(Ok(source)) => {
                let path = source.path.display().to_string();
                self.set_source(source);
                let what = format!("SAVE CONFIG by the admin port: {path}");
                notes::tell(&Note::SplitterOrder { what });
                Outcome::Done(format!(
                    "saved in {path} of this host: both hosts must have one text, copy it to the \
                     other one"
                ))
            }
            Ok(Err(why)) => Outcome::Refused(format!("not saved: {why}")),
            Err(_) => Outcome::Refused("not saved: the thread that saves died".to_owned()),
        };
        let (slot, generation) = saving.asker;
        if self.desks.is_current(slot, generation) {
            self.tell_desk(turn, slot, outcome);
        }
    }
}

/// What every change but SAVE CONFIG has to say.
pub(super) fn unsaved() -> String {
    format!("{HERE_ONLY}; lost with a restart, unless SAVE CONFIG keeps it")
}

/// Changes the file and returns what it is by now; whatever fails, the file is as it was.
fn save(source: &Source, wanted: &Wanted) -> Result<Source, String> {
    let path = source.path.canonicalize().map_err(|error| at(&source.path, error))?;
    let text = unchanged(&path, source.digest)?;
    let edited = wanted.edit(&text).map_err(|why| format!("{}: {why}", path.display()))?;
    let parsed = Config::parse(&edited)
        .map_err(|error| format!("{} would not be valid: {error}", path.display()))?;
    if !wanted.is_in(&parsed.sql) {
        return Err(format!("{}: [sql] is written in a way that cannot be edited", path.display()));
    }
    if edited != text {
        let beside = beside(&path);
        let written = replace(&path, &beside, &edited, source.digest);
        if let Err(why) = written {
            let _ = fs::remove_file(&beside);
            return Err(why);
        }
        disk::keep_config(&edited)?;
    }
    Ok(Source::new(&source.path, &parsed))
}

fn replace(path: &Path, beside: &Path, text: &str, digest: [u8; 8]) -> Result<(), String> {
    let named = |error| at(beside, error);
    let old = fs::metadata(path).map_err(|error| at(path, error))?;
    let _left_by_a_crash = fs::remove_file(beside);
    // Nobody else may read it before it has its mode: it has passwords.
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(beside).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)?;
    fchown(&file, Some(old.uid()), Some(old.gid())).map_err(named)?;
    file.set_permissions(Permissions::from_mode(old.mode() & 0o7777)).map_err(named)?;
    file.sync_all().map_err(named)?;
    unchanged(path, digest)?;
    fs::rename(beside, path).map_err(|error| at(path, error))?;
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    File::open(directory).and_then(|it| it.sync_all()).map_err(|error| at(directory, error))
}

/// The text, if it is the one that the daemon was started with or has saved.
fn unchanged(path: &Path, digest: [u8; 8]) -> Result<String, String> {
    let text = fs::read_to_string(path).map_err(|error| at(path, error))?;
    if config::digest(&text) == digest {
        return Ok(text);
    }
    Err(format!(
        "{} was changed since this daemon read it: put the change in by hand, check it by `tandem \
         check`, then `tandem reload` or restart the \
         daemon",
        path.display()
    ))
}

/// In the same directory, so that a rename can put it in place.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".saving");
    path.with_file_name(name)
}

fn at(path: &Path, error: io::Error) -> String {
    named(path, error).to_string()
}
