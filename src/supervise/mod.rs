//! Supervision: child processes that are kept running, and ended in order.
//!
//! Read first: `child` (one process: wish and fact apart).

pub mod child;
