//! The SQL splitter: one session a client, reads to the replica, everything else to the source.
//!
//! Read first: facts/sql.md sections 3 and 5; `session` for the life of a query.

pub mod auth;
pub mod command;
pub mod handshake;
pub mod intake;
pub mod kill;
pub mod lexer;
pub mod login;
pub mod packet;
pub mod pool;
pub mod relay;
pub mod result;
pub mod route;
pub mod session;
pub mod setting;
pub mod status;
pub mod words;

use std::net::SocketAddr;
use std::time::Duration;

use serde::Deserialize;

use crate::units::{self, Secret};

pub use status::Status;

/// Section `[sql]`: the splitter that replaces Atlas.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where clients connect (Atlas: proxy-address).
    pub listen: Vec<SocketAddr>,
    /// The users that may log in (Atlas: pwds). The same name and password must exist on both
    /// databases.
    #[serde(rename = "user")]
    pub users: Vec<User>,
    /// How long a statement waits for a source before it gets an error.
    #[serde(deserialize_with = "units::duration")]
    pub hold_limit: Duration,
    /// Replication lag above which a replica gets no reads.
    #[serde(deserialize_with = "units::duration")]
    pub lag_limit: Duration,
    /// Time limit of a connection to a database, log-in included.
    #[serde(deserialize_with = "units::duration")]
    pub connect_limit: Duration,
    /// An idle client is closed after this (Atlas: wait-timeout).
    #[serde(deserialize_with = "units::duration")]
    pub idle_limit: Duration,
    /// Client sessions at once; one more gets error 1040.
    pub sessions_max: usize,
}

/// One user of the splitter.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    pub name: String,
    pub password: Secret,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: vec![SocketAddr::from(([127, 0, 0, 1], 1234))],
            users: Vec::new(),
            hold_limit: Duration::from_secs(10),
            lag_limit: Duration::from_secs(5),
            connect_limit: Duration::from_secs(2),
            idle_limit: Duration::from_secs(8 * 3600),
            sessions_max: 1024,
        }
    }
}
