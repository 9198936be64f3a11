//! Control messages: requests of operators and what the daemon answers.
//!
//! In, out: postcard in COBS frames, each ended by a zero byte, over `/run/tandem.sock`. A frame
//! begins with who speaks: protocol and release, so that two releases can say that they differ.
//! Must not: change the place of a variant (append-only; the place is the wire form).

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::note::Record;
use super::status::Status;
use crate::limits::CONTROL_FRAME_BYTES_MAX;

/// Raised when what a message holds changes its shape; a new variant at the end is no change.
pub const PROTOCOL: u16 = 1;
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    Status,
    Switchover,
    /// Take over whatever the peer has.
    FailoverForce,
    /// Look again whether this host may follow the other one.
    Rejoin,
    /// Replace this host's database by a copy of the other one's.
    Reseed,
    /// Whether roles are to stay where they are.
    Hold(bool),
    /// Whether this host is to take no role.
    Maintenance(bool),
    /// Read the configuration again.
    Reload,
    /// Whether the php-fpm of the host of this name is spared.
    PhpDrain {
        host: String,
        is_on: bool,
    },
    /// The notes that there are, the last `count` of them; with `follow`, those to come too.
    Log {
        count: u32,
        /// At least so bad.
        level: Level,
        follow: bool,
    },
    /// The configuration in use, without secrets.
    Config,
    /// Packets as they come and go.
    Trace {
        seconds: u32,
        kinds: TraceKinds,
    },
    /// A console's word that somebody logged in, or was refused.
    ConsoleLogin {
        tty: String,
        is_in: bool,
    },
    /// How an appliance is to end, once it has left the pair.
    Power(Power),
    /// An appliance's watchdog is not to be fed any more.
    WatchdogTest,
    /// The other host, an appliance, is to take this build and boot it.
    UpdatePeer {
        place: String,
    },
    /// The build that was on trial is kept.
    UpdateKept,
}

/// What becomes of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Power {
    Reboot,
    Off,
}

/// How bad a note is (syslog(3): err, warning, info).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Error,
    Warn,
    Info,
}

impl Level {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
        }
    }
}

/// Which packets a trace shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TraceKinds {
    pub vrrp: bool,
    pub beacon: bool,
    pub arp: bool,
}

impl Request {
    /// Whether it changes anything: root only.
    #[must_use]
    pub const fn is_acting(&self) -> bool {
        match self {
            Self::Status | Self::Log { .. } | Self::Config | Self::Trace { .. } => false,
            Self::Switchover | Self::FailoverForce | Self::Rejoin | Self::Reseed => true,
            Self::Hold(_) | Self::Maintenance(_) | Self::Reload | Self::PhpDrain { .. } => true,
            Self::ConsoleLogin { .. } | Self::Power(_) | Self::WatchdogTest => true,
            Self::UpdatePeer { .. } | Self::UpdateKept => true,
        }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Response {
    Status(Box<Status>),
    /// A step of a long request; more follows.
    Progress(String),
    Done(String),
    Refused(String),
    /// Some notes; more follows.
    Notes(Vec<Record>),
}

impl Response {
    /// Whether nothing comes after it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        match self {
            Self::Status(_) | Self::Done(_) | Self::Refused(_) => true,
            Self::Progress(_) | Self::Notes(_) => false,
        }
    }
}

/// What a frame holds; the message itself as postcard, so that its head is read without it.
#[derive(Serialize, Deserialize)]
struct Frame<'a> {
    protocol: u16,
    release: &'a str,
    message: &'a [u8],
}

/// One frame: COBS, ended by its zero byte.
#[must_use]
pub fn encode<T: Serialize>(message: &T) -> Vec<u8> {
    encode_as(PROTOCOL, RELEASE, message)
}

fn encode_as<T: Serialize>(protocol: u16, release: &str, message: &T) -> Vec<u8> {
    let message = postcard::to_stdvec(message).expect("messages are plain data");
    postcard::to_stdvec_cobs(&Frame { protocol, release, message: &message })
        .expect("messages are plain data")
}

/// A stream as it comes, cut into frames.
#[derive(Debug, Default)]
pub struct Frames(Vec<u8>);

impl Frames {
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// The next whole frame as a message. One that is too long costs no more memory than that.
    pub fn poll<T: DeserializeOwned>(&mut self) -> Option<Result<T, Garbled>> {
        let Some(end) = self.0.iter().position(|byte| *byte == 0) else {
            self.0.truncate(CONTROL_FRAME_BYTES_MAX + 1);
            return None;
        };
        let message = decode(self.0.get(..=end).unwrap_or_default());
        self.0.drain(..=end);
        Some(message)
    }
}

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Garbled {
    TooLong {
        bytes: usize,
    },
    NoFrame,
    /// It is one, of a program that speaks otherwise.
    Protocol {
        protocol: u16,
        release: String,
    },
    /// It says something that only a newer or older release knows.
    Unknown {
        release: String,
    },
}

impl fmt::Display for Garbled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let advice = "run one release on this host: a new program needs `tandem run` started again";
        match self {
            Self::TooLong { bytes } => {
                write!(f, "a message of {bytes} bytes: {CONTROL_FRAME_BYTES_MAX} are allowed")
            }
            Self::NoFrame => f.write_str("that is no message of tandem's"),
            Self::Protocol { protocol, release } => write!(
                f,
                "the other side is tandem {release} with protocol {protocol}, this one is tandem \
                 {RELEASE} with protocol {PROTOCOL}: {advice}"
            ),
            Self::Unknown { release } => write!(
                f,
                "the other side is tandem {release} and says what tandem {RELEASE} does not know: \
                 {advice}"
            ),
        }
    }
}

/// A frame, with its zero byte or without, as a message.
pub fn decode<T: DeserializeOwned>(frame: &[u8]) -> Result<T, Garbled> {
    if frame.len() > CONTROL_FRAME_BYTES_MAX {
        return Err(Garbled::TooLong { bytes: frame.len() });
    }
    let mut frame = frame.to_vec();
    let Frame { protocol, release, message } =
        postcard::from_bytes_cobs(&mut frame).map_err(|_| Garbled::NoFrame)?;
    let release: String = release.chars().filter(|c| !c.is_control()).take(20).collect();
    if protocol != PROTOCOL {
        return Err(Garbled::Protocol { protocol, release });
    }
    postcard::from_bytes(message).map_err(|_| Garbled::Unknown { release })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_its_frame() {
        let log = Request::Log { count: 20, level: Level::Warn, follow: true };
        for request in [Request::Status, Request::FailoverForce, Request::Hold(true), log] {
            let frame = encode(&request);
            assert_eq!(frame.iter().filter(|byte| **byte == 0).count(), 1, "one zero, at the end");
            assert_eq!(decode::<Request>(&frame), Ok(request));
        }
    }

    #[test]
    fn refuses_what_is_no_request() {
        for wrong in [&b""[..], b"\0", b"\xff\xff\xff\0", b"GET / HTTP/1.1\r\n\0"] {
            assert_eq!(decode::<Request>(wrong), Err(Garbled::NoFrame), "{wrong:?}");
        }
        let long = vec![1; CONTROL_FRAME_BYTES_MAX + 1];
        assert!(matches!(decode::<Request>(&long), Err(Garbled::TooLong { .. })));
    }

    #[test]
    fn a_stream_comes_in_any_pieces() {
        let wanted = [Request::Hold(true), Request::Config, Request::Switchover];
        let stream: Vec<u8> = wanted.iter().flat_map(encode).collect();
        for size in [1, 7, stream.len()] {
            let (mut frames, mut found) = (Frames::default(), Vec::new());
            for piece in stream.chunks(size) {
                frames.push(piece);
                while let Some(request) = frames.poll::<Request>() {
                    found.push(request.expect("whole"));
                }
            }
            assert_eq!(found, wanted);
        }
        let mut frames = Frames::default();
        for _ in 0..4 {
            frames.push(&[1; CONTROL_FRAME_BYTES_MAX]);
            assert_eq!(frames.poll::<Request>(), None);
        }
        frames.push(&[0]);
        let bytes = CONTROL_FRAME_BYTES_MAX + 2;
        assert_eq!(frames.poll::<Request>(), Some(Err(Garbled::TooLong { bytes })));
    }

    #[test]
    fn two_releases_say_that_they_differ() {
        let frame = encode_as(PROTOCOL + 1, "9.1.0", &Request::Status);
        let why = decode::<Request>(&frame).expect_err("another protocol").to_string();
        assert!(why.contains("tandem 9.1.0 with protocol 2"), "{why}");
        // A variant of a later release.
        let frame = encode_as(PROTOCOL, "9.0.1", &200u8);
        let why = decode::<Request>(&frame).expect_err("an unknown verb").to_string();
        assert!(why.contains("tandem 9.0.1") && why.contains("started again"), "{why}");
        let frame = encode_as(PROTOCOL + 1, "9\x1b[2J", &Request::Status);
        let why = decode::<Request>(&frame).expect_err("another protocol").to_string();
        assert!(!why.contains('\x1b'), "{why:?}");
    }
}
