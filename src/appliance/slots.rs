//! Slots A and B: which one starts, which one is tried, as the boot loader reads it.
//!
//! In: the text of grubenv. Out: another one of the same length. Must not: take the slot that is
//! known to be good for a trial.
//! Read first: image/grub.cfg, which counts the tries down; GRUB's manual, "Environment block".
//!
//! ```text
//!  good --update--> other slot pending, 3 tries --confirmed--> good
//!                                   |
//!                                   +-- tries used up (by the boot loader): failed, the old one
//! ```

use std::fmt;

/// Of the file: GRUB writes into the blocks that it has, and never makes it longer.
pub const ENVIRONMENT_BYTES: usize = 1024;
const HEADER: &str = "# GRUB Environment Block\n";
const TRIES: u8 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "A" => Some(Self::A),
            "B" => Some(Self::B),
            _ => None,
        }
    }

    /// Of its partition.
    #[must_use]
    pub const fn payload(self) -> &'static str {
        match self {
            Self::A => "payload-a",
            Self::B => "payload-b",
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// What grubenv says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Environment {
    /// The slot that is known to be good.
    pub active: Slot,
    /// The slot that is tried, and how often it may be still.
    pub pending: Option<(Slot, u8)>,
    /// The slot whose tries were used up in vain.
    pub failed: Option<Slot>,
}

impl Environment {
    /// As grub.cfg reads it: what is missing or damaged says that A is good.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let value = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).map(str::trim)
        };
        let slot = |key| value(key).and_then(Slot::parse);
        let tries = value("tries").and_then(|text| text.parse().ok()).unwrap_or(0);
        Self {
            active: slot("active").unwrap_or(Slot::A),
            pending: slot("pending").map(|slot| (slot, tries)),
            failed: slot("failed"),
        }
    }

    /// The file, to its last byte.
    #[must_use]
    pub fn emit(&self) -> String {
        let mut text = format!("{HEADER}active={}\n", self.active);
        if let Some((slot, tries)) = self.pending {
            text += &format!("pending={slot}\ntries={tries}\n");
        }
        if let Some(slot) = self.failed {
            text += &format!("failed={slot}\n");
        }
        text += &"#".repeat(ENVIRONMENT_BYTES - text.len());
        text
    }

    /// The other slot is to be tried, from the next boot on. `None`: a trial is under way.
    #[must_use]
    pub fn try_other(self) -> Option<Self> {
        let pending = Some((self.active.other(), TRIES));
        self.pending.is_none().then_some(Self { pending, failed: None, ..self })
    }

    /// The slot that runs is good. `None`: that was known.
    #[must_use]
    pub fn confirm(self, running: Slot) -> Option<Self> {
        let is_tried = self.pending.is_some_and(|(slot, _)| slot == running);
        is_tried.then_some(Self { active: running, pending: None, failed: None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Environment = Environment { active: Slot::A, pending: None, failed: None };

    #[test]
    fn a_trial_ends_in_the_new_slot_or_the_old_one() {
        let tried = FRESH.try_other().unwrap();
        assert_eq!(tried.pending, Some((Slot::B, 3)));
        assert_eq!(tried.try_other(), None, "one at a time");
        assert_eq!(tried.confirm(Slot::A), None, "the old one runs: nothing is known of the new");
        let good = tried.confirm(Slot::B).unwrap();
        assert_eq!(good, Environment { active: Slot::B, ..FRESH });
        assert_eq!(good.confirm(Slot::B), None);
        assert_eq!(good.try_other().unwrap().pending, Some((Slot::A, 3)));
    }

    #[test]
    fn the_file_keeps_its_length_and_reads_back() {
        let failed = Environment { failed: Some(Slot::B), ..FRESH };
        for environment in [FRESH, FRESH.try_other().unwrap(), failed] {
            let text = environment.emit();
            assert_eq!(text.len(), ENVIRONMENT_BYTES);
            assert_eq!(Environment::parse(&text), environment);
        }
        for text in ["", "active=C\n", "####", "pending=\ntries=0\n"] {
            assert_eq!(Environment::parse(text), FRESH, "{text:?}");
        }
    }
}
