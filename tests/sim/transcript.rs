//! The transcript of a run: one readable line an event, and a hash over all of them.
//!
//! In: lines. Out: the last ones, all of them in a replay, the hash that D1 compares.
//! Must not: hold a line for each packet (they are in the hash through what they cause).
//!
//! ```text
//!   31.204518 server2 standby -> promoting: server1 is silent on every path
//!   ^ seconds ^ host  ^ a note of the daemon, "kernel:", "mysqld:", "sql:", or "!!" for a fault
//! ```

use std::collections::VecDeque;

use tandem::time::Instant;

#[derive(Debug, Default)]
pub struct Transcript {
    last: VecDeque<String>,
    hash: u64,
    pub is_shown: bool,
}

const KEPT: usize = 30;

impl Transcript {
    pub fn line(&mut self, now: Instant, what: &str) {
        let seconds = now.as_nanos() / 1_000_000_000;
        let micros = now.as_nanos() / 1000 % 1_000_000;
        let line = format!("{seconds:5}.{micros:06} {what}");
        for byte in line.bytes() {
            // FNV-1a.
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if self.is_shown {
            println!("{line}");
        }
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        self.last.push_back(line);
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn last_lines(&self) -> String {
        self.last.iter().map(|line| format!("  {line}\n")).collect()
    }
}
