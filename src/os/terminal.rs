//! Terminals: the serial line and the operator's own, raw while a line is typed.
//!
//! In: bytes of a keyboard. Out: bytes on a screen. Must not: hang on a line that nobody is at.
//! Read first: termios(3), tty_ioctl(4), facts/image.md section 4.

use std::fs::OpenOptions;
use std::io::{self, BufRead as _};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios,
    tcgetattr, tcsetattr,
};

use super::random::random;
use crate::crypt::Hash;

/// Standard input with other settings: as they were when this is dropped.
#[derive(Debug)]
pub struct Changed {
    before: Termios,
    /// How they come back: `Flush` drops keys that nobody has read.
    back: OptionalActions,
}

impl Changed {
    /// Byte for byte and without echo, as the editor wants it.
    pub fn to_raw() -> io::Result<Self> {
        Self::begin([OptionalActions::Now; 2], Termios::make_raw)
    }

    /// `when` they change, and when they change back.
    fn begin(when: [OptionalActions; 2], change: impl FnOnce(&mut Termios)) -> io::Result<Self> {
        let [there, back] = when;
        let before = tcgetattr(rustix::stdio::stdin())?;
        let mut changed = before.clone();
        change(&mut changed);
        tcsetattr(rustix::stdio::stdin(), there, &changed)?;
        Ok(Self { before, back })
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        let _hung_up = tcsetattr(rustix::stdio::stdin(), self.back, &self.before);
    }
}

/// Opens a terminal by its name under /dev and makes it the controlling one of a session of its
/// own, so that Ctrl-C there ends what runs there and nothing else.
pub fn open(name: &str, speed: u32) -> io::Result<OwnedFd> {
    let file = open_to_tell(name, speed)?;
    // Whoever leads a session already keeps it.
    let _leads = rustix::process::setsid();
    let _is_somebodys = rustix::process::ioctl_tiocsctty(&file);
    rustix::io::ioctl_fionbio(&file, false)?;
    Ok(file)
}

/// Opens a terminal that is nobody's controlling one, for lines that it may take or leave.
pub fn open_to_tell(name: &str, speed: u32) -> io::Result<OwnedFd> {
    let path = match name.starts_with('/') {
        true => PathBuf::from(name),
        false => Path::new("/dev").join(name),
    };
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        // Without NONBLOCK an open waits for the carrier of a modem.
        .custom_flags((OFlags::NOCTTY | OFlags::NONBLOCK).bits().cast_signed())
        .open(&path)
        .map_err(|error| super::file::named(&path, error))?;
    let mut settings = tcgetattr(&file).map_err(|error| super::file::named(&path, error.into()))?;
    make_sane(&mut settings);
    // A pseudo-terminal has no speed; all that matters is that a serial line gets its own.
    let _no_such_speed = settings.set_speed(speed);
    tcsetattr(&file, OptionalActions::Now, &settings)?;
    Ok(file.into())
}

/// As stty(1) "sane", whatever a console that was killed in the middle of a line left.
fn make_sane(settings: &mut Termios) {
    settings.input_modes = InputModes::ICRNL | InputModes::BRKINT;
    settings.output_modes |= OutputModes::OPOST | OutputModes::ONLCR;
    settings.local_modes |= LocalModes::ICANON | LocalModes::ECHO | LocalModes::ECHOE;
    settings.local_modes |= LocalModes::ECHOK | LocalModes::ISIG | LocalModes::IEXTEN;
    // No line of a modem counts, and none is hung up; flow control by wires that are not there
    // would stop the output for ever.
    settings.control_modes |= ControlModes::CLOCAL | ControlModes::CREAD;
    settings.control_modes -= ControlModes::CRTSCTS | ControlModes::HUPCL;
    let codes = [
        (SpecialCodeIndex::VINTR, 0x03),
        (SpecialCodeIndex::VEOF, 0x04),
        (SpecialCodeIndex::VKILL, 0x15),
        (SpecialCodeIndex::VERASE, 0x7f),
        (SpecialCodeIndex::VMIN, 1),
        (SpecialCodeIndex::VTIME, 0),
    ];
    for (index, code) in codes {
        settings.special_codes[index] = code;
    }
}

/// The same terminal for standard input, output and error: of this process and of its children.
pub fn become_standard(terminal: &OwnedFd) -> io::Result<()> {
    rustix::stdio::dup2_stdin(terminal)?;
    rustix::stdio::dup2_stdout(terminal)?;
    Ok(rustix::stdio::dup2_stderr(terminal)?)
}

/// Ctrl-C is for whoever this process starts; `heed_signals` is the first that those do.
pub fn leave_interrupt() {
    let _always_can = set_of([Signal::SIGINT]).thread_block();
}

/// What the guard and a console block for themselves, and their children would inherit; and what a
/// shell without job control ignores for whatever it starts in the background.
pub fn heed_signals() {
    let all = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGCHLD];
    all.into_iter().for_each(super::sys::stop_ignoring);
    let _always_can = set_of(all).thread_unblock();
}

fn set_of<const N: usize>(signals: [Signal; N]) -> SigSet {
    signals.into_iter().collect()
}

/// This process does not outlive the one that started it.
pub fn end_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?)
}

/// What is there, past the buffer of standard input, in which `wait` would not see the rest.
/// An error when the line was hung up.
pub fn read(terminal: BorrowedFd<'_>, bytes: &mut [u8]) -> io::Result<usize> {
    match rustix::io::read(terminal, bytes)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        count => Ok(count),
    }
}

/// Waits until one of them can be read, or the time is over; by place, whether it can.
pub fn wait<const N: usize>(
    sources: [BorrowedFd<'_>; N],
    limit: Duration,
) -> io::Result<[bool; N]> {
    let mut polled = sources.map(|source| PollFd::from_borrowed_fd(source, PollFlags::IN));
    let timeout = Timespec::try_from(limit).map_err(io::Error::other)?;
    match poll(&mut polled, Some(&timeout)) {
        Ok(_) => Ok(polled.each_ref().map(|it| !it.revents().is_empty())),
        Err(rustix::io::Errno::INTR) => Ok([false; N]),
        Err(error) => Err(error.into()),
    }
}

/// Keys of standard input, for what runs until one is pressed.
#[derive(Debug)]
pub struct Keys(Option<Changed>);

impl Keys {
    /// Standard input if it is a terminal: each key at once and without echo; Ctrl-C still ends.
    #[must_use]
    pub fn of_stdin() -> Self {
        // The key that ends it is for nobody else.
        let when = [OptionalActions::Now, OptionalActions::Flush];
        let changed = Changed::begin(when, |settings| {
            settings.local_modes -= LocalModes::ICANON | LocalModes::ECHO;
        });
        Self(changed.ok())
    }

    /// Whether one was pressed; without a terminal this only waits.
    #[must_use]
    pub fn is_pressed_within(&self, limit: Duration) -> bool {
        if self.0.is_none() {
            std::thread::sleep(limit);
            return false;
        }
        wait([rustix::stdio::stdin()], limit).is_ok_and(|[is_pressed]| is_pressed)
    }
}

/// A line of standard input; on a terminal it is asked for and not shown.
pub fn read_secret(prompt: &str) -> io::Result<String> {
    let when = [OptionalActions::Flush, OptionalActions::Now];
    let silent = Changed::begin(when, |settings| settings.local_modes -= LocalModes::ECHO);
    let is_terminal = silent.is_ok();
    if is_terminal {
        eprint!("{prompt}");
    }
    let mut line = String::new();
    let read = io::stdin().lock().read_line(&mut line);
    if is_terminal {
        eprintln!();
    }
    read?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// crypt(5) of a password, under a salt of its own.
pub fn hash(password: &str) -> Result<String, String> {
    Hash::make(password.as_bytes(), random()?).ok_or_else(|| "it cannot be hashed".to_owned())
}
