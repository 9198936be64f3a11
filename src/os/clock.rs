//! The clock: CLOCK_BOOTTIME, which goes on while the machine is suspended.
//!
//! In: nothing. Out: `Instant`, once a turn. Read first: clock_gettime(2).

use rustix::time::{ClockId, clock_gettime};

use crate::time::Instant;

#[must_use]
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).expect("boot time is not negative");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Nanoseconds of the wall clock: tells one run of the daemon from another.
#[must_use]
pub fn wall_nanos() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}
