//! The hardware's watchdog: it resets a machine whose guard does not come round any more.
//!
//! In: that all is well. Out: a byte to the device. Must not: close the device in order, which
//! would stop it. Read first: Documentation/watchdog/watchdog-api.rst.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use crate::time::Instant;

/// Much shorter than the 10 s after which the boards' modules reset the machine.
const INTERVAL: Duration = Duration::from_secs(2);
const DEVICE: &str = "/dev/watchdog";

#[derive(Debug)]
pub struct Watchdog {
    device: File,
    fed_at: Option<Instant>,
}

impl Watchdog {
    /// Opens it, from when on it must be fed; none if there is no such device.
    pub fn open() -> io::Result<Option<Self>> {
        if !Path::new(DEVICE).exists() {
            return Ok(None);
        }
        let device = OpenOptions::new().write(true).open(DEVICE)?;
        Ok(Some(Self { device, fed_at: None }))
    }

    /// All is well now.
    pub fn feed(&mut self, now: Instant) {
        let is_due = self.fed_at.is_none_or(|at| now.since(at) >= INTERVAL);
        if is_due && self.device.write_all(b"1").is_ok() {
            self.fed_at = Some(now);
        }
    }
}
