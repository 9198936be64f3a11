//! The access log's file: lines are collected and written together.
//!
//! In: lines. Out: one append each second at most, or when much is collected. Must not: keep the
//! file open: it is opened for every append, so that a rotated log is followed without a signal.
//! Read first: web::log.

use std::fs::OpenOptions;
use std::io::{self, Write as _};

use crate::console::note::Note;
use crate::limits;
use crate::os::notes;
use crate::time::Instant;

#[derive(Debug)]
pub(super) struct Journal {
    path: String,
    lines: Vec<u8>,
    due_at: Option<Instant>,
    is_failing: bool,
}

impl Journal {
    pub(super) const fn new(path: String) -> Self {
        Self { path, lines: Vec::new(), due_at: None, is_failing: false }
    }

    pub(super) const fn is_wanted(&self) -> bool {
        !self.path.is_empty()
    }

    /// Where to append a line; `added` must follow.
    pub(super) const fn lines(&mut self) -> &mut Vec<u8> {
        &mut self.lines
    }

    pub(super) fn added(&mut self, now: Instant) {
        if self.lines.len() >= limits::WEB_LOG_BYTES_MAX {
            self.flush();
        } else if self.due_at.is_none() {
            self.due_at = Some(now + limits::WEB_LOG_DELAY_MAX);
        }
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        self.due_at
    }

    pub(super) fn expire(&mut self, now: Instant) {
        if self.due_at.is_some_and(|due_at| due_at <= now) {
            self.flush();
        }
    }

    /// Lines that cannot be written are dropped: the log must not stop the service.
    pub(super) fn flush(&mut self) {
        self.due_at = None;
        if self.lines.is_empty() {
            return;
        }
        let written = self.append();
        self.lines.clear();
        if let (Err(error), false) = (&written, self.is_failing) {
            let mut what = format!("access log {}: {error}", self.path);
            if error.kind() == io::ErrorKind::PermissionDenied {
                // `confine` allowed the folders that were named then.
                what += "; a folder that was not there at the start takes a restart";
            }
            notes::tell(&Note::Front { what });
        }
        self.is_failing = written.is_err();
    }
}

impl Journal {
    /// All lines, or none: a full disk takes the first bytes, and half a line would run into the
    /// next one.
    fn append(&self) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).create(true).open(&self.path)?;
        let bytes_before = file.metadata()?.len();
        file.write_all(&self.lines).inspect_err(|_| {
            // What has no length (/dev/full, a pipe) cannot be cut either.
            let _uncut = file.set_len(bytes_before);
        })
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.flush();
    }
}
