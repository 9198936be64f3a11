//! Running: what a session keeps of the request that it is answering.
//!
//! In: what is known of it, bit by bit. Out: the same. Must not: act. Read first: `session`.

use crate::time::Instant;
use crate::wire::HostId;

use super::body;
use super::log::Words;
use super::params::Ends;
use super::reply::Terms;
use super::request;
use super::sticky::Affinity;

/// The request that is being answered.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) terms: Terms,
    pub(super) words: Words,
    pub(super) started_at: Instant,
    pub(super) status: u16,
    pub(super) body_bytes: u64,
    pub(super) upstream: Option<HostId>,
    pub(super) tries: u8,
    /// The body that was not read.
    pub(super) rest: body::Decoder,
    pub(super) is_continue_due: bool,
    /// The number of the site; the head of a PHP request; the lines of the script that asked for
    /// a file in place of its answer.
    pub(super) site: usize,
    /// Whom it really comes from.
    pub(super) ends: Ends,
    /// The user that logged in; empty where none had to.
    pub(super) user: Vec<u8>,
    /// Bytes of the body, at most.
    pub(super) body_max: u64,
    pub(super) head: Vec<u8>,
    pub(super) inside: Option<Vec<u8>>,
    pub(super) has_length: bool,
    /// CONTENT_LENGTH, as a web server at the FastCGI port gave it.
    pub(super) promised_bytes: Option<u64>,
    pub(super) affinity: Affinity,
    /// The client may still be sending something that nobody will read.
    pub(super) is_lingering: bool,
}

impl Running {
    pub(super) const fn new(now: Instant, ends: Ends, terms: Terms, words: Words) -> Self {
        Self {
            terms,
            words,
            started_at: now,
            status: 0,
            body_bytes: 0,
            upstream: None,
            tries: 0,
            rest: body::Decoder::new(request::Framing::Empty),
            is_continue_due: false,
            site: 0,
            ends,
            user: Vec::new(),
            body_max: u64::MAX,
            head: Vec::new(),
            inside: None,
            has_length: false,
            promised_bytes: None,
            affinity: Affinity::Nobody,
            is_lingering: false,
        }
    }
}
