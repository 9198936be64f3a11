//! Response: what php-fpm's output becomes for whoever asked: HTTP, or records as they are.
//!
//! In: pieces of stdout and stderr, the end. Out: bytes for the client. Must not: judge a failure
//! (that is `exchange`). Read first: `answer`, `forward`.

use super::answer::{Answer, Ending, Error};
use super::forward::Forward;
use super::reply::{Stamp, Terms};

#[derive(Debug)]
pub enum Response {
    /// For a client of the front.
    Http(Answer),
    /// For a web server at the FastCGI port.
    Records(Forward),
}

impl Response {
    #[must_use]
    pub fn http() -> Self {
        Self::Http(Answer::default())
    }

    /// As before the first byte, for another try, with a header line of ours or none.
    #[must_use]
    pub fn again(&self, line: Vec<u8>) -> Self {
        match self {
            Self::Http(_) => Self::Http(Answer::with_line(line)),
            Self::Records(forward) => Self::Records(Forward::new(forward.request_id(), line)),
        }
    }

    /// Whether anything of the answer went to the client.
    #[must_use]
    pub const fn is_sent(&self) -> bool {
        match self {
            Self::Http(answer) => answer.is_sent(),
            Self::Records(forward) => forward.is_sent(),
        }
    }

    /// Whether the header is whole, so that `start` will send it.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        match self {
            Self::Http(answer) => answer.is_ready(),
            Self::Records(forward) => forward.is_ready(),
        }
    }

    /// Whether the script wants a file to be sent in place of its answer. A web server in front
    /// sees to that itself.
    #[must_use]
    pub const fn is_inside(&self) -> bool {
        match self {
            Self::Http(answer) => answer.is_inside(),
            Self::Records(_) => false,
        }
    }

    /// The file's path and the header lines that go with it.
    #[must_use]
    pub fn inside(&self) -> Option<(&[u8], Vec<u8>)> {
        match self {
            Self::Http(answer) => answer.inside(),
            Self::Records(_) => None,
        }
    }

    /// Whether more is held back than is worth waiting for an end.
    #[must_use]
    pub const fn is_holding_much(&self) -> bool {
        match self {
            Self::Http(answer) => answer.is_holding_much(),
            Self::Records(forward) => forward.is_holding_much(),
        }
    }

    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match self {
            Self::Http(answer) => answer.status(),
            Self::Records(forward) => forward.status(),
        }
    }

    /// Bytes of body that went to the client.
    #[must_use]
    pub const fn body_bytes(&self) -> u64 {
        match self {
            Self::Http(answer) => answer.body_bytes(),
            Self::Records(forward) => forward.body_bytes(),
        }
    }

    pub fn stdout(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        match self {
            Self::Http(answer) => answer.stdout(bytes, out),
            Self::Records(forward) => {
                forward.stdout(bytes, out);
                Ok(())
            }
        }
    }

    /// What the script logs: for the web server in front, which has a log for it, or for ours.
    pub fn stderr(&self, bytes: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Http(_) => log::debug!("php: {}", String::from_utf8_lossy(bytes).trim_end()),
            Self::Records(forward) => forward.stderr(bytes, out),
        }
    }

    /// Sends the header and what is held, if the header is whole. `is_ended`: no more will come.
    pub fn start(&mut self, is_ended: bool, terms: &mut Terms, stamp: &Stamp, out: &mut Vec<u8>) {
        match self {
            Self::Http(answer) => answer.start(is_ended, terms, stamp, out),
            Self::Records(forward) => forward.start(out),
        }
    }

    /// The script is done and said so, with this exit code.
    pub fn finish(&mut self, app_status: u32, out: &mut Vec<u8>) -> Ending {
        match self {
            Self::Http(answer) => answer.finish(out),
            Self::Records(forward) => forward.finish(Some(app_status), out),
        }
    }

    /// The connection to the script ended without END_REQUEST and nothing was sent: what is here
    /// goes out, and how it ends is told as well as it can be.
    pub fn finish_unended(
        &mut self,
        terms: &mut Terms,
        stamp: &Stamp,
        out: &mut Vec<u8>,
    ) -> Ending {
        match self {
            Self::Http(answer) => {
                answer.start_unended(terms, stamp, out);
                answer.finish(out)
            }
            Self::Records(forward) => {
                forward.start(out);
                forward.finish(None, out)
            }
        }
    }

    /// Whether the client has all that a Content-Length promised.
    #[must_use]
    pub const fn is_length_reached(&self) -> bool {
        match self {
            Self::Http(answer) => answer.is_length_reached(),
            Self::Records(_) => false,
        }
    }
}
