//! Secret files, and the conversation in which one host hands them to the other.
//!
//! In: the configuration, a code. Out: files of mode 0600, what became of them. Must not: replace a
//! file, write one half. Read first: `secrets`, whose picture of the conversation this follows.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::file::{self, named};
use super::random::random;
use super::{clock, disk, init};
use crate::config::Config;
use crate::limits;
use crate::secrets::{self, Channel, Code, FRAME_BYTES_MAX, NONCE_BYTES, Parcel, Side};
use crate::time::Instant;
use crate::wire::HostId;

/// The only folder of an appliance whose files come back at a boot.
const APPLIANCE_FOLDER: &str = "/etc/tandem/";

/// The text of that file, if it is there and nobody else can read it.
pub fn read(path: &str) -> Result<Option<String>, String> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("{path}: {error}")),
        Ok(_) => match file::read_secret(path) {
            Ok(text) => Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned())),
            Err(why) => Err(format!("{path}: {why}")),
        },
    }
}

/// Writes a file that is not there yet; on an appliance where the next boot finds it, too.
pub fn write(path: &str, text: &str) -> Result<(), String> {
    let text = format!("{text}\n");
    if init::is_appliance() {
        let name = path.strip_prefix(APPLIANCE_FOLDER).filter(|name| !name.contains('/'));
        let name = name.ok_or_else(|| {
            format!("{path}: on an appliance a secret's file is one of {APPLIANCE_FOLDER}")
        })?;
        disk::keep(name, &text).map_err(|error| format!("{path}: {error}"))?;
    }
    write_new(Path::new(path), text.as_bytes()).map_err(|error| error.to_string())
}

/// Beside, synced, linked to its name: it is there whole or not at all.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or_else(|| Path::new("/"));
    let beside = folder.join(format!("{}.new", path.file_name().unwrap_or_default().display()));
    let done = || -> io::Result<()> {
        fs::create_dir_all(folder)?;
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::hard_link(&beside, path)
    };
    let done = done().map_err(|error| named(path, error));
    let _was_not_made = fs::remove_file(&beside);
    done.and_then(|()| File::open(folder)?.sync_all())
}

/// Waits until the other host has taken this one's files: ten minutes, three wrong codes at most.
/// Returns what is to be told.
pub fn offer(config: &Config, me: HostId, code: &Code) -> Result<String, String> {
    let mut parcel = Parcel::default();
    for path in secrets::by_path(&config.secret_files())?.into_keys() {
        let text = read(path)?
            .ok_or_else(|| format!("{path} is missing: `tandem secrets make` makes it"))?;
        parcel.files.insert(path.to_owned(), text);
    }
    let address = place(config, me);
    let listener =
        TcpListener::bind(address).map_err(|error| format!("cannot wait at {address}: {error}"))?;
    let until = clock::now() + limits::SECRETS_OFFER_LIMIT;
    let other = IpAddr::from(config.host(me.other()).inside_address());
    let mut wrong = 0;
    while wrong < limits::SECRETS_WRONG_MAX {
        let waited = accept(&listener, until).map_err(|error| format!("{address}: {error}"))?;
        let Some((stream, from)) = waited else {
            return Err("nobody took them within ten minutes: the code is void".into());
        };
        if from.ip() != other {
            continue;
        }
        match hand_over(stream, code, config.digest, &parcel) {
            Ok(Handed::Wrong) => wrong += 1,
            Ok(Handed::Taken(told)) => return Ok(told),
            Ok(Handed::Refused(why)) => return Err(format!("the other host: {why}")),
            // Cut off: it may try again.
            Err(error) => log::debug!("{from}: {error}"),
        }
    }
    Err("three times with another code: this one is void".into())
}

/// Takes the other host's files; returns what is to be told.
pub fn take(config: &Config, me: HostId, code: &Code) -> Result<String, String> {
    let address = place(config, me.other());
    let name = &config.host(me.other()).name;
    let stream = TcpStream::connect_timeout(&address, limits::SECRETS_TALK_LIMIT);
    let mut stream = stream.map_err(|error| {
        format!(
            "nobody offers secrets at {address}: {error}; `tandem secrets offer` on {name} does, \
             for ten minutes"
        )
    })?;
    let cut = |error: io::Error| format!("{address}: {error}");
    let ours = random()?;
    let theirs = greet(&mut stream, ours).map_err(cut)?;
    let mut channel = Channel::new(Side::Take, code, [ours, theirs]);
    write_frame(&mut stream, &channel.seal(&config.digest)).map_err(cut)?;
    let wrong = || format!("{name} closed the connection: the code is wrong, or void by now");
    let sealed = read_frame(&mut stream).map_err(|_| wrong())?;
    let parcel = channel.open(&sealed).ok_or_else(wrong)?;
    let parcel: Parcel =
        postcard::from_bytes(&parcel).map_err(|error| format!("{address}: {error}"))?;
    let taken = store(config, &parcel);
    let told = channel.seal(&postcard::to_stdvec(&taken).expect("plain data"));
    // The files are here: that the other host does not learn it changes nothing.
    let _gone = write_frame(&mut stream, &told);
    taken
}

fn store(config: &Config, parcel: &Parcel) -> Result<String, String> {
    let files = config.secret_files();
    let mut here = std::collections::BTreeMap::new();
    for path in secrets::by_path(&files)?.into_keys() {
        here.insert(path, read(path)?);
    }
    let wanted = parcel.wanted(&files, |path| here.get(path).cloned().flatten())?;
    for (path, text) in &wanted {
        write(path, text)?;
    }
    let paths: Vec<&str> = wanted.iter().map(|(path, _)| *path).collect();
    Ok(match paths.as_slice() {
        [] => "has them already".to_owned(),
        paths => format!("has taken {}", paths.join(", ")),
    })
}

/// Where this host offers: beside its beacons' port.
fn place(config: &Config, host: HostId) -> SocketAddr {
    (config.host(host).inside_address(), config.peer.port).into()
}

fn accept(listener: &TcpListener, until: Instant) -> io::Result<Option<(TcpStream, SocketAddr)>> {
    loop {
        let left = until.since(clock::now());
        if left == Duration::ZERO {
            return Ok(None);
        }
        let limit = Timespec::try_from(left).map_err(io::Error::other)?;
        let mut ready = [PollFd::new(listener, PollFlags::IN)];
        match poll(&mut ready, Some(&limit)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return listener.accept().map(Some),
            Err(errno) => return Err(errno.into()),
        }
    }
}

enum Handed {
    Wrong,
    Taken(String),
    Refused(String),
}

fn hand_over(
    mut stream: TcpStream,
    code: &Code,
    digest: [u8; 8],
    parcel: &Parcel,
) -> io::Result<Handed> {
    let ours = random().map_err(io::Error::other)?;
    let theirs = greet(&mut stream, ours)?;
    let mut channel = Channel::new(Side::Offer, code, [theirs, ours]);
    let Some(their_digest) = channel.open(&read_frame(&mut stream)?) else {
        return Ok(Handed::Wrong);
    };
    let parcel = postcard::to_stdvec(parcel).map_err(io::Error::other)?;
    write_frame(&mut stream, &channel.seal(&parcel))?;
    let told = channel.open(&read_frame(&mut stream)?);
    let told = told.ok_or_else(|| io::Error::other("an answer with another code"))?;
    let told: Result<String, String> = postcard::from_bytes(&told).map_err(io::Error::other)?;
    Ok(match told {
        Ok(told) if their_digest == digest => Handed::Taken(told),
        Ok(told) => Handed::Taken(format!(
            "{told}; its configuration is another text than this host's: make both one"
        )),
        Err(why) => Handed::Refused(why),
    })
}

/// Each side's random bytes; after this every call ends in time.
fn greet(stream: &mut TcpStream, ours: [u8; NONCE_BYTES]) -> io::Result<[u8; NONCE_BYTES]> {
    stream.set_read_timeout(Some(limits::SECRETS_TALK_LIMIT))?;
    stream.set_write_timeout(Some(limits::SECRETS_TALK_LIMIT))?;
    stream.write_all(&ours)?;
    let mut theirs = [0; NONCE_BYTES];
    stream.read_exact(&mut theirs)?;
    Ok(theirs)
}

fn write_frame(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).ok().filter(|_| bytes.len() <= FRAME_BYTES_MAX);
    let length = length.ok_or_else(|| io::Error::other("more secrets than one frame holds"))?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat())
}

fn read_frame(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let length = usize::from(u16::from_be_bytes(length));
    if length > FRAME_BYTES_MAX {
        return Err(io::Error::other(format!("a frame of {length} bytes")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
