//! A serial line: a pseudo-terminal whose other end a host has for its own.
//!
//! In: keys. Out: what came over the line so far. Must not: wait without an end.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::host::{Host, text};
use crate::world::Outcome;

pub struct Line {
    master: File,
    /// Open as long as the line is: the last close of it would be a hang-up.
    _terminal: OwnedFd,
    terminal: PathBuf,
    pub screen: String,
}

impl Line {
    pub fn new() -> Outcome<Self> {
        let pty = nix::pty::openpty(None, None).map_err(text)?;
        let terminal = rustix::termios::ttyname(&pty.slave, Vec::new()).map_err(text)?;
        let terminal = PathBuf::from(terminal.to_str().map_err(text)?);
        rustix::io::ioctl_fionbio(&pty.master, true).map_err(text)?;
        let (master, screen) = (File::from(pty.master), String::new());
        Ok(Self { master, _terminal: pty.slave, terminal, screen })
    }

    /// Gives the line this name on a host; /dev is every host's.
    pub fn plug(&self, host: &Host, name: &str) -> Outcome<()> {
        std::os::unix::fs::symlink(&self.terminal, host.live_path(name)?).map_err(text)
    }

    pub fn types(&mut self, keys: &str) -> Outcome<()> {
        let mut rest = keys.as_bytes();
        while !rest.is_empty() {
            match self.master.write(rest) {
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    self.read_within(Duration::from_millis(10))?;
                }
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Reads on until these words have come; what came up to their end is taken off.
    pub fn wait_for(&mut self, words: &str, limit: Duration) -> Outcome<String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(at) = self.screen.find(words) {
                return Ok(self.screen.drain(..at + words.len()).collect());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no {words:?} in {limit:?}, but {:?}", self.screen));
            }
            self.read_within(left)?;
        }
    }

    /// Whatever comes within this time.
    pub fn read_within(&mut self, limit: Duration) -> Outcome<()> {
        let timeout = Timespec::try_from(limit).map_err(text)?;
        let _interrupted =
            poll(&mut [PollFd::new(&self.master.as_fd(), PollFlags::IN)], Some(&timeout));
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => self.screen += &String::from_utf8_lossy(&bytes[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.to_string()),
        }
        Ok(())
    }
}
