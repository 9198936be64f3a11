//! An update of the appliance: from its file into the slot that does not run.
//!
//! In: where the file is, the key that is trusted. Out: a slot that was read back and compared, to
//! be tried at the next boot. Must not: write a byte before the signature was checked; touch the
//! slot that runs, the partition table, the configuration or the data.
//! Read first: `appliance::bundle`, `appliance::slots`; image/grub.cfg.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Advice, fadvise};
use sha2::{Digest as _, Sha256};

use super::disk::{self, Disk};
use super::file::named;
use super::init;
use crate::appliance::bundle::{self, HEAD_BYTES_MAX, Manifest, Part};
use crate::appliance::slots::{Environment, Slot};
use crate::peer::Build;

const KEY: &str = "/etc/tandem/update.pub";
const ENVIRONMENT: &str = "grub/grubenv";
/// For a server of HTTP to answer, and between two pieces of the file.
const HTTP_LIMIT: Duration = Duration::from_secs(30);
const HTTP_HEAD_MAX: usize = 16 * 1024;
const PIECE: usize = 256 * 1024;

/// An update whose signature is right; its parts are still to be read.
pub struct Update {
    pub manifest: Manifest,
    rest: Box<dyn Read>,
}

impl std::fmt::Debug for Update {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Update").field("manifest", &self.manifest).finish_non_exhaustive()
    }
}

/// A file by HTTP, or on a stick (its name there), or by its path.
pub fn source(place: &str) -> io::Result<Box<dyn Read>> {
    Ok(match place.strip_prefix("http://") {
        Some(rest) => Box::new(fetch(rest)?),
        None => Box::new(File::open(on_stick(place)?)?),
    })
}

/// Opens an update at such a place.
pub fn open(place: &str) -> Result<Update, String> {
    let wrong = |error: io::Error| format!("{place}: {error}");
    let mut source = source(place).map_err(wrong)?;
    let mut head = Vec::new();
    let limit = u64::try_from(HEAD_BYTES_MAX).unwrap_or(u64::MAX);
    source.by_ref().take(limit).read_to_end(&mut head).map_err(wrong)?;
    let key = fs::read(KEY).map_err(|error| format!("{KEY}: {error}"))?;
    let (manifest, length) = bundle::open(&head, &key).map_err(|why| format!("{place}: {why}"))?;
    let begun = io::Cursor::new(head.split_off(length));
    Ok(Update { manifest, rest: Box::new(begun.chain(source)) })
}

/// The path itself, or that name on the first stick that has it.
fn on_stick(place: &str) -> io::Result<std::path::PathBuf> {
    if place.starts_with('/') {
        return Ok(place.into());
    }
    disk::find_on_stick(place)?.ok_or_else(|| {
        io::Error::other("no stick has it: write http://... or the name of a file on a FAT stick")
    })
}

/// The body of an answer to GET.
fn fetch(rest: &str) -> io::Result<impl Read + use<>> {
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let place =
        if authority.contains(':') { authority.to_owned() } else { format!("{authority}:80") };
    let address = place
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::other("the name has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, HTTP_LIMIT)?;
    stream.set_read_timeout(Some(HTTP_LIMIT))?;
    stream.set_write_timeout(Some(HTTP_LIMIT))?;
    write!(stream, "GET /{path} HTTP/1.0\r\nHost: {authority}\r\n\r\n")?;
    let mut head = Vec::new();
    let mut byte = [0];
    let mut reader = io::BufReader::new(stream);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == HTTP_HEAD_MAX || reader.read(&mut byte)? == 0 {
            return Err(io::Error::other("the server's answer has no end of its head"));
        }
        head.push(byte[0]);
    }
    let status = String::from_utf8_lossy(&head);
    let status = status.lines().next().unwrap_or_default();
    match status.split(' ').nth(1) {
        Some("200") => Ok(reader),
        _ => Err(io::Error::other(format!("the server answers {status:?}"))),
    }
}

/// What this host tells the other one of its build; nothing where it is no appliance.
#[must_use]
pub fn image() -> Build {
    let Ok((_, built)) = init::identity() else { return Build::default() };
    let environment = disk::find().ok().flatten().and_then(|disk| environment(&disk).ok());
    let pending = environment.and_then(|it| it.pending);
    Build { built, is_on_trial: pending.is_some_and(|(slot, _)| slot == init::slot()) }
}

/// What is known of both slots.
pub fn environment(disk: &Disk) -> io::Result<Environment> {
    disk.with_esp(false, read_environment)
}

fn read_environment(esp: &Path) -> io::Result<Environment> {
    let path = esp.join(ENVIRONMENT);
    match fs::read(&path) {
        Ok(bytes) => Ok(Environment::parse(&String::from_utf8_lossy(&bytes))),
        // As the boot loader takes it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Environment::parse("")),
        Err(error) => Err(named(&path, error)),
    }
}

/// In place: the boot loader knows the blocks.
fn write_environment(esp: &Path, environment: &Environment) -> io::Result<()> {
    let path = esp.join(ENVIRONMENT);
    let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
    file.write_all(environment.emit().as_bytes())?;
    file.sync_all()
}

/// The slot that runs is good, if it was on trial; whether it was.
pub fn confirm(disk: &Disk) -> io::Result<bool> {
    let running = init::slot();
    disk.with_esp(true, |esp| match read_environment(esp)?.confirm(running) {
        Some(confirmed) => write_environment(esp, &confirmed).map(|()| true),
        None => Ok(false),
    })
}

/// When what is in a slot was built, if that is known.
fn built(esp: &Path, slot: Slot) -> Option<u64> {
    fs::read_to_string(esp.join(slot.to_string()).join("built")).ok()?.trim().parse().ok()
}

/// Whether this update failed on this machine the last time it was tried.
pub fn has_failed(disk: &Disk, manifest: &Manifest) -> io::Result<bool> {
    disk.with_esp(false, |esp| {
        let failed = read_environment(esp)?.failed;
        Ok(failed.is_some_and(|slot| built(esp, slot) == Some(manifest.built)))
    })
}

/// Writes the parts into the slot that does not run, reads them back, and lets the next boot try
/// it.
pub fn install(
    disk: &Disk,
    mut update: Update,
    tell: &mut dyn FnMut(String),
) -> Result<Slot, String> {
    let slot = init::slot().other();
    let wrong = |what: &str, error: io::Error| format!("{what}: {error}");
    let Manifest { kernel, initramfs, payload, .. } = update.manifest.clone();
    disk.with_esp(true, |esp| {
        // Nothing may start what is half written.
        let environment = read_environment(esp)?;
        if environment.pending.is_some() {
            return Err(io::Error::other("a trial is under way: it ends first"));
        }
        write_environment(esp, &Environment { failed: None, ..environment })?;
        let folder = esp.join(slot.to_string());
        fs::create_dir_all(&folder)?;
        for (name, part) in [("vmlinuz", &kernel), ("initrd", &initramfs)] {
            let path = folder.join(name);
            let mut file = File::create(&path)?;
            copy(&mut update.rest, &mut file, part).map_err(|error| named(&path, error))?;
        }
        fs::write(folder.join("built"), format!("{}\n", update.manifest.built))
    })
    .map_err(|error| wrong("boot partition", error))?;
    tell(format!("kernel and initramfs are in slot {slot}"));
    let partition = disk.partition(slot.payload());
    let written = (|| {
        let mut device = OpenOptions::new().write(true).open(partition)?;
        let room = device.seek(io::SeekFrom::End(0))?;
        device.rewind()?;
        if payload.bytes > room {
            return Err(io::Error::other(format!("{} bytes do not fit {room}", payload.bytes)));
        }
        copy(&mut update.rest, &mut device, &payload)
    })();
    written.map_err(|error| wrong("payload", error))?;
    tell("the payload is written".to_owned());
    let checked = disk.with_esp(false, |esp| {
        let folder = esp.join(slot.to_string());
        check(&folder.join("vmlinuz"), &kernel)?;
        check(&folder.join("initrd"), &initramfs)?;
        check(partition, &payload)
    });
    checked.map_err(|error| wrong("reading it back", error))?;
    tell("all was read back and compared".to_owned());
    let tried = disk.with_esp(true, |esp| {
        let tried = read_environment(esp)?.try_other();
        write_environment(esp, &tried.ok_or_else(|| io::Error::other("a trial is under way"))?)
    });
    tried.map_err(|error| wrong("boot partition", error))?;
    Ok(slot)
}

/// So many bytes, on the disk when this returns.
fn copy(source: &mut dyn Read, to: &mut File, part: &Part) -> io::Result<()> {
    let sum = pass(source, part.bytes, &mut |piece| to.write_all(piece))?;
    to.sync_all()?;
    compare(&sum, part)
}

/// What is on the disk, and not what the kernel remembers of it.
fn check(path: &Path, part: &Part) -> io::Result<()> {
    let mut file = File::open(path)?;
    fadvise(&file, 0, None, Advice::DontNeed)?;
    let sum = pass(&mut file, part.bytes, &mut |_| Ok(()))?;
    compare(&sum, part).map_err(|error| named(path, error))
}

/// Passes `bytes` bytes on; their SHA-256.
fn pass(
    source: &mut dyn Read,
    bytes: u64,
    sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<String> {
    let mut sum = Sha256::new();
    let mut buffer = vec![0; PIECE];
    let mut left = bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let count = source.read(&mut buffer[..wanted])?;
        if count == 0 {
            return Err(io::Error::other(format!("it ends {left} bytes too early")));
        }
        sum.update(&buffer[..count]);
        sink(&buffer[..count])?;
        left -= u64::try_from(count).unwrap_or(left);
    }
    Ok(sum.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn compare(sum: &str, part: &Part) -> io::Result<()> {
    match sum == part.sha256 {
        true => Ok(()),
        false => Err(io::Error::other(format!("its SHA-256 is {sum}, not {}", part.sha256))),
    }
}
