//! The hands: the only place that touches the kernel.
//!
//! In: outputs of the head. Out: inputs for the head. Must not: decide anything.
//! Read first: `run` (the loop), `hands` (who performs which output).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod cards;
pub mod children;
pub mod clock;
mod confine;
pub mod control;
mod conversation;
pub mod copy;
pub mod data;
pub mod disk;
pub mod errant;
pub mod examine;
pub mod file;
pub mod guard;
pub mod hands;
pub mod init;
pub mod link;
pub mod listener;
pub mod metrics;
pub mod mysql;
pub mod network;
pub mod notes;
pub mod own;
pub mod plane;
pub mod random;
pub mod route;
pub mod run;
pub mod secrets;
pub mod serve_sql;
pub mod serve_web;
pub mod service;
pub mod site;
pub mod storage;
pub mod survey;
mod sys;
pub mod terminal;
pub mod tls;
pub mod update;
mod watchdog;
