//! tandem: two hosts, one dependable web-and-database service.

pub mod limits;
pub mod routes;
pub mod time;
pub mod units;
pub mod wire;

pub mod config;
pub mod console;
pub mod net;
pub mod node;
pub mod pair;
pub mod peer;
pub mod repl;
pub mod sql;
pub mod vrrp;
pub mod web;

pub mod cli;
pub mod os;
