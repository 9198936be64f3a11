//! The hands: the only place that touches the kernel.
//!
//! In: outputs of the head. Out: inputs for the head. Must not: decide anything.
//! Read first: `run` (the loop), `hands` (who performs which output).
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod plane;
pub mod serve_sql;
