//! The console: what operators ask, what they are told, and how it looks on 80 columns.
//!
//! Read first: `message` (the wire), `render` (the screen), `table` (what scripts parse).

pub mod finding;
pub mod message;
pub mod note;
pub mod render;
pub mod table;
