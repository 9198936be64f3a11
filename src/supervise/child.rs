//! One child process: what is wished, what is so, and what is to be done about the difference.
//!
//! In: wishes, starts and ends, the clock. Out: orders to start and to signal.
//! Must not: name a process id (the hands know which it is); start faster than the policy allows.
//! Read first: facts/image.md section 5, "Restart policy survey".
//!
//! ```text
//!            Start                  ended: wait, then again
//!  Absent ---------> Running ------------------------------> Absent
//!     ^                 | not wished: the stop signal
//!     |     ended       v                 limit over: Kill
//!     +------------- Stopping ------------------------------> Stopping
//! ```

use std::time::Duration;

use crate::time::Instant;

/// How a child is started again, and how it is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// From a start to the next one: doubled each time, back to the shortest after `steady_time`.
    pub delay_min: Duration,
    pub delay_max: Duration,
    /// A child that ran for so long was well.
    pub steady_time: Duration,
    /// How long it may take to end when it was told to; then it is killed. `None`: for ever, as a
    /// database that is killed recovers for longer than it would have taken.
    pub stop_limit: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    Start,
    /// SIGTERM.
    Stop,
    /// SIGKILL.
    Kill,
}

#[derive(Debug)]
pub struct Child {
    policy: Policy,
    is_wished: bool,
    fact: Fact,
    /// What the next start waits after the one before.
    delay: Duration,
    start_at: Instant,
    starts: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Absent,
    Running {
        since: Instant,
    },
    Stopping {
        kill_at: Option<Instant>,
    },
    /// Nothing more can be done than wait for the kernel.
    Killed,
}

impl Child {
    /// Not wished yet.
    #[must_use]
    pub const fn new(policy: Policy) -> Self {
        Self {
            policy,
            is_wished: false,
            fact: Fact::Absent,
            delay: policy.delay_min,
            start_at: Instant::ZERO,
            starts: 0,
        }
    }

    /// Whether it is to run from here on.
    pub const fn wish(&mut self, is_wished: bool) {
        self.is_wished = is_wished;
    }

    /// The order to start was tried, and came to this.
    pub fn started(&mut self, now: Instant, is_started: bool) {
        self.start_at = now + self.delay;
        self.delay = (self.delay * 2).min(self.policy.delay_max);
        if is_started {
            self.starts = self.starts.saturating_add(1);
            self.fact = Fact::Running { since: now };
        }
    }

    /// The process ended, by whatever.
    pub fn ended(&mut self, now: Instant) {
        if let Fact::Running { since } = self.fact
            && now.since(since) >= self.policy.steady_time
        {
            self.delay = self.policy.delay_min;
            self.start_at = now + self.delay;
        }
        self.fact = Fact::Absent;
    }

    /// What is to be done now, until there is nothing.
    pub fn poll(&mut self, now: Instant) -> Option<Order> {
        match (self.fact, self.is_wished) {
            (Fact::Absent, true) if now >= self.start_at => Some(Order::Start),
            (Fact::Running { .. }, false) => {
                let kill_at = self.policy.stop_limit.map(|limit| now + limit);
                self.fact = Fact::Stopping { kill_at };
                Some(Order::Stop)
            }
            (Fact::Stopping { kill_at: Some(at) }, _) if now >= at => {
                self.fact = Fact::Killed;
                Some(Order::Kill)
            }
            (Fact::Absent | Fact::Running { .. } | Fact::Stopping { .. } | Fact::Killed, _) => None,
        }
    }

    /// When `poll` has something to say.
    #[must_use]
    pub const fn deadline(&self) -> Option<Instant> {
        match self.fact {
            Fact::Absent if self.is_wished => Some(self.start_at),
            Fact::Stopping { kill_at } => kill_at,
            Fact::Absent | Fact::Running { .. } | Fact::Killed => None,
        }
    }

    #[must_use]
    pub const fn is_absent(&self) -> bool {
        matches!(self.fact, Fact::Absent)
    }

    /// How often it was started again.
    #[must_use]
    pub const fn restarts(&self) -> u32 {
        self.starts.saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        delay_min: Duration::from_secs(1),
        delay_max: Duration::from_secs(4),
        steady_time: Duration::from_secs(60),
        stop_limit: Some(Duration::from_secs(5)),
    };

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn wished() -> Child {
        let mut child = Child::new(POLICY);
        child.wish(true);
        child
    }

    #[test]
    fn what_keeps_dying_is_started_ever_more_rarely() {
        let mut child = wished();
        let mut starts = Vec::new();
        for second in 0..20 {
            if child.poll(at(second)) == Some(Order::Start) {
                starts.push(second);
                child.started(at(second), true);
                child.ended(at(second));
            }
        }
        assert_eq!(starts, [0, 1, 3, 7, 11, 15, 19]);
        assert_eq!(child.restarts(), 6);
    }

    #[test]
    fn what_was_well_for_a_minute_is_started_again_soon() {
        let mut child = wished();
        for _ in 0..5 {
            child.started(at(0), true);
            child.ended(at(0));
        }
        child.started(at(100), true);
        child.ended(at(160));
        assert_eq!(child.deadline(), Some(at(161)));
        assert_eq!(child.poll(at(160)), None);
        assert_eq!(child.poll(at(161)), Some(Order::Start));
    }

    #[test]
    fn a_start_that_fails_waits_as_well() {
        let mut child = wished();
        child.started(at(0), false);
        assert_eq!((child.poll(at(0)), child.deadline()), (None, Some(at(1))));
        assert_eq!(child.restarts(), 0);
    }

    #[test]
    fn it_is_told_once_and_killed_when_its_time_is_over() {
        let mut child = wished();
        child.started(at(0), true);
        child.wish(false);
        assert_eq!(child.poll(at(10)), Some(Order::Stop));
        assert_eq!(child.poll(at(12)), None);
        assert_eq!(child.deadline(), Some(at(15)));
        assert_eq!(child.poll(at(15)), Some(Order::Kill));
        assert_eq!(child.poll(at(99)), None);
        child.ended(at(99));
        assert!(child.is_absent());
        assert_eq!((child.poll(at(999)), child.deadline()), (None, None));
    }

    #[test]
    fn one_that_is_wished_again_while_it_ends_is_started_when_it_has() {
        let mut child = wished();
        child.started(at(0), true);
        child.wish(false);
        child.poll(at(9));
        child.wish(true);
        assert_eq!(child.poll(at(9)), None);
        child.ended(at(9));
        assert_eq!(child.poll(at(9)), Some(Order::Start));
    }

    #[test]
    fn a_database_is_waited_for() {
        let mut child = Child::new(Policy { stop_limit: None, ..POLICY });
        child.wish(true);
        child.started(at(0), true);
        child.wish(false);
        assert_eq!(child.poll(at(1)), Some(Order::Stop));
        assert_eq!((child.poll(at(9999)), child.deadline()), (None, None));
    }
}
