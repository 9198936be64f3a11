//! The appliance: what PID 1 finds, sets, writes and starts, as data and as texts.
//!
//! In: the board, memory, names and passwords of the configuration. Out: which card is on which
//! network, settings of the kernel, configuration files and command lines of database and php-fpm.
//! Must not: touch any of them (`os::init` does). Read first: `board` (what differs from machine to
//! machine), `services` (what runs), facts/image.md.

pub mod board;
pub mod bundle;
pub mod draft;
pub mod gpt;
pub mod kernel;
pub mod services;
pub mod slots;
