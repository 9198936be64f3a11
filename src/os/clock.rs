//! The clock: CLOCK_BOOTTIME, which goes on while the machine is suspended (Linux 2.6.39 and later;
//! before that CLOCK_MONOTONIC, which does not).
//!
//! In: nothing. Out: `Instant`, once a turn; by how much the wall clock was set.
//! Read first: clock_gettime(2); timerfd_create(2), TFD_TIMER_CANCEL_ON_SET.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::LazyLock;

use async_io::Async;
use rustix::time::{
    ClockId, DynamicClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec,
    clock_gettime, clock_gettime_dynamic, timerfd_create, timerfd_settime,
};

use crate::time::Instant;

/// The one that this kernel has: EINVAL is its answer to an unknown one.
static CLOCK: LazyLock<ClockId> = LazyLock::new(|| {
    let has_boottime = clock_gettime_dynamic(DynamicClockId::Boottime).is_ok();
    if has_boottime { ClockId::Boottime } else { ClockId::Monotonic }
});

#[must_use]
pub fn now() -> Instant {
    let time = clock_gettime(*CLOCK);
    let seconds = u64::try_from(time.tv_sec).expect("boot time is not negative");
    let nanos = u64::try_from(time.tv_nsec).expect("nanoseconds are not negative");
    Instant::from_nanos(seconds * 1_000_000_000 + nanos)
}

/// Tells two boots of the machine apart (random(4)); 0 where the kernel does not tell.
#[must_use]
pub fn machine_boot() -> u64 {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(16).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(0)
}

/// Nanoseconds of the wall clock: tells one run of the daemon from another.
#[must_use]
pub fn wall_nanos() -> u64 {
    let time = clock_gettime(ClockId::Realtime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

/// Tells when somebody sets the wall clock. Kernels before 3.0 cannot.
#[derive(Debug)]
pub struct SetWatch {
    timer: Async<OwnedFd>,
    offset: i64,
}

impl SetWatch {
    pub fn start() -> io::Result<Self> {
        let timer = timerfd_create(TimerfdClockId::Realtime, TimerfdFlags::CLOEXEC)?;
        let watch = Self { timer: Async::new(timer)?, offset: wall_offset() };
        watch.arm()?;
        Ok(watch)
    }

    /// A timer that never ends is cancelled by every jump of its clock, and then reads as an error.
    fn arm(&self) -> io::Result<()> {
        let never = Timespec { tv_sec: i64::MAX >> 32, tv_nsec: 0 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: never };
        let flags = TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET;
        timerfd_settime(self.timer.get_ref(), flags, &once)?;
        Ok(())
    }

    /// Waits until it was set; returns by how many seconds.
    pub async fn next(&mut self) -> io::Result<i64> {
        self.timer.readable().await?;
        let _cancelled = rustix::io::read(self.timer.get_ref(), &mut [0; 8]);
        self.arm()?;
        let before = std::mem::replace(&mut self.offset, wall_offset());
        Ok(self.offset - before)
    }
}

/// The wall clock's lead over the time since boot, in seconds: it changes only when it is set.
fn wall_offset() -> i64 {
    let (wall, boot) = (clock_gettime(ClockId::Realtime), clock_gettime(*CLOCK));
    let nanos = (wall.tv_sec - boot.tv_sec) * 1_000_000_000 + (wall.tv_nsec - boot.tv_nsec);
    nanos.div_euclid(1_000_000_000)
}
