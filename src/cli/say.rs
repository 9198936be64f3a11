//! What the mysql-utilities applets say: progress, tables, warnings, errors, and the log file.
//!
//! In: text. Out: standard output, where the originals wrote everything. Must not: add a line to
//! what the originals print that does not begin with "# tandem:" or "WARNING:".

use std::cell::RefCell;
use std::fs::File;
use std::io::Write as _;

/// The voice of an applet.
#[derive(Debug, Default)]
pub(super) struct Say {
    pub(super) is_quiet: bool,
    pub(super) verbosity: usize,
    log: Option<RefCell<File>>,
}

impl Say {
    pub(super) fn new(is_quiet: bool, verbosity: usize) -> Self {
        Self { is_quiet, verbosity, log: None }
    }

    /// Everything said from here on is also appended to the file.
    pub(super) fn log_to(&mut self, path: &str) -> Result<(), String> {
        let opened = File::options().create(true).append(true).open(path);
        let file = opened.map_err(|error| format!("cannot open the log file {path}: {error}"))?;
        self.log = Some(RefCell::new(file));
        Ok(())
    }

    /// A progress line of the originals.
    pub(super) fn line(&self, text: &str) {
        self.record("INFO", text);
        if !self.is_quiet {
            put(&format!("{text}\n"));
        }
    }

    /// The same, from this verbosity on.
    pub(super) fn more(&self, verbosity: usize, text: &str) {
        if self.verbosity >= verbosity {
            self.line(text);
        }
    }

    /// What the originals do not say.
    pub(super) fn own(&self, text: &str) {
        self.line(&format!("# tandem: {text}"));
    }

    /// A table or a list: asked for, so printed even when quiet. Ends with its own line end.
    pub(super) fn result(&self, text: &str) {
        put(text);
    }

    pub(super) fn warning(&self, text: &str) {
        self.record("WARNING", text);
        put(&format!("WARNING: {text}\n"));
    }

    pub(super) fn error(&self, text: &str) {
        self.record("ERROR", text);
        put(&format!("ERROR: {text}\n"));
    }

    fn record(&self, level: &str, text: &str) {
        if let Some(file) = &self.log {
            let at = crate::os::clock::wall_nanos() / 1_000_000_000;
            let text = text.trim_start_matches("# ");
            // A full disk must not stop a failover.
            let _best_effort = writeln!(file.borrow_mut(), "{} {level} {text}", stamp(at));
        }
    }
}

/// Whoever reads may have gone (`mysqlrpladmin ... | head -n 1`); a switchover goes on.
fn put(text: &str) {
    let mut out = std::io::stdout().lock();
    let _read_or_not = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Seconds since 1970 as UTC. Civil date from days: H. Hinnant, "chrono-compatible low-level date
/// algorithms".
fn stamp(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_a_date() {
        assert_eq!(stamp(0), "1970-01-01 00:00:00 UTC");
        assert_eq!(stamp(951_868_799), "2000-02-29 23:59:59 UTC");
        assert_eq!(stamp(1_795_341_600), "2026-11-22 10:00:00 UTC");
    }
}
