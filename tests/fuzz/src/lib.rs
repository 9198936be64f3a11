//! The targets of the ordinary tests, for libFuzzer. Read first: tests/wire/targets.rs.

#[path = "../../wire/targets.rs"]
pub mod targets;
