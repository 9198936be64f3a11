//! The appliance's disk: its partitions, found by name; made ready, checked and mounted.
//!
//! In: the kernel's list of block devices. Out: mounted file systems. Must not: make a file system
//! unless the boot loader's partition says so; guess which of two disks is meant.
//! Read first: image/build (who lays the disk out), `appliance::gpt`; facts/image.md 2(a) and (d).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::file::{named, remove_tree};
use super::{init, sys};
use crate::appliance::gpt;
use crate::appliance::slots::Slot;

/// Where ext4's superblock has its magic number.
const EXT4_MAGIC_AT: u64 = 1024 + 56;
const EXT4_MAGIC: [u8; 2] = [0x53, 0xef];
/// Where the boot loader's partition is mounted while somebody reads or writes it.
pub(super) const ESP: &str = "/esp";
/// A file there: the data partition is to be made. image/build puts it there.
const DATA_IS_NEW: &str = "data.new";
const STICK: &str = "/run/stick";
/// Where the configuration's partition is mounted while somebody reads or writes it.
pub const CONFIG: &str = "/config";
const E2FSCK: &str = "/usr/sbin/e2fsck";
const NAMES: [&str; 5] = ["esp", "config", "payload-a", "payload-b", "data"];

/// A disk with all partitions of an appliance.
#[derive(Debug)]
pub struct Disk {
    device: PathBuf,
    /// By name.
    partitions: BTreeMap<String, PathBuf>,
}

/// The disk, if the kernel has found it by now. An error if there are two.
pub fn find() -> io::Result<Option<Disk>> {
    let mut disks: BTreeMap<PathBuf, BTreeMap<String, PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir("/sys/class/block")? {
        let folder = fs::canonicalize(entry?.path())?;
        let text = fs::read_to_string(folder.join("uevent")).unwrap_or_default();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
                .map(str::to_owned)
        };
        let (Some(name), Some(device)) = (value("PARTNAME"), value("DEVNAME")) else { continue };
        let Some(disk) = folder.parent().and_then(Path::file_name) else { continue };
        let disk = Path::new("/dev").join(disk);
        disks.entry(disk).or_default().insert(name, Path::new("/dev").join(device));
    }
    disks.retain(|_, partitions| NAMES.iter().all(|name| partitions.contains_key(*name)));
    if disks.len() > 1 {
        let names: Vec<String> = disks.keys().map(|it| it.display().to_string()).collect();
        return Err(io::Error::other(format!(
            "{} all hold an appliance: leave one in this machine",
            names.join(" and ")
        )));
    }
    Ok(disks.pop_first().map(|(device, partitions)| Disk { device, partitions }))
}

impl Disk {
    #[must_use]
    pub(super) fn device(&self) -> &Path {
        &self.device
    }

    pub(super) fn partition(&self, name: &str) -> &Path {
        &self.partitions[name]
    }

    /// Lets the last partition take the rest of the disk; whether it did not have it yet. Before
    /// anything is mounted.
    pub(super) fn grow(&self) -> io::Result<bool> {
        let mut disk = OpenOptions::new().read(true).write(true).open(&self.device)?;
        let blocks = disk.seek(SeekFrom::End(0))? / gpt::BLOCK;
        let mut table = vec![0; gpt::TABLE_BYTES];
        disk.seek(SeekFrom::Start(0))?;
        disk.read_exact(&mut table)?;
        let writes = gpt::grow(&table, blocks).or_else(|why| {
            let mut copy = vec![0; gpt::COPY_BYTES];
            let back = i64::try_from(copy.len()).map_err(|_| why.clone())?;
            let read = disk.seek(SeekFrom::End(-back)).and_then(|_| disk.read_exact(&mut copy));
            read.map_err(|error| format!("{why}; {error}"))?;
            gpt::restore(&copy, blocks).map_err(|_| why)
        });
        let writes = writes.map_err(io::Error::other)?;
        for write in &writes {
            disk.seek(SeekFrom::Start(write.block * gpt::BLOCK))?;
            disk.write_all(&write.bytes)?;
            disk.sync_all()?;
        }
        if !writes.is_empty() {
            sys::read_partitions_again(&disk)?;
        }
        Ok(!writes.is_empty())
    }

    /// The configuration's partition, to /config.
    pub(super) fn mount_config(&self) -> io::Result<()> {
        mount_fat(self.partition("config"), CONFIG, MountFlags::RDONLY)
    }

    /// Reads a file of the configuration partition, which is mounted for that.
    pub fn read_config(&self, name: &str) -> io::Result<String> {
        self.with_config(MountFlags::RDONLY, |folder| fs::read_to_string(folder.join(name)))
    }

    /// Replaces a file of the configuration partition. It is the old one or the new one, as far as
    /// FAT can promise that.
    pub fn write_config(&self, name: &str, text: &str) -> io::Result<()> {
        self.with_config(MountFlags::empty(), |folder| {
            let beside = folder.join(format!("{name}.new"));
            let mut file = File::create(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&beside, folder.join(name))?;
            rustix::fs::syncfs(&file)?;
            Ok(())
        })
    }

    /// Does something with the boot loader's partition, which is mounted for that.
    pub(super) fn with_esp<T>(
        &self,
        writes: bool,
        job: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        let access = if writes { MountFlags::empty() } else { MountFlags::RDONLY };
        mount_fat(self.partition("esp"), ESP, access)?;
        let done = job(Path::new(ESP)).and_then(|done| sync_at(ESP).map(|()| done));
        unmount_at(ESP)?;
        done
    }

    fn with_config<T>(
        &self,
        access: MountFlags,
        job: impl FnOnce(&Path) -> io::Result<T>,
    ) -> io::Result<T> {
        mount_fat(self.partition("config"), CONFIG, access)?;
        let done = job(Path::new(CONFIG));
        unmount_at(CONFIG)?;
        done
    }

    /// The programs of this slot, to /usr.
    pub(super) fn mount_payload(&self, slot: Slot) -> io::Result<()> {
        let device = self.partition(slot.payload());
        let flags = MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
        mount(device, "/usr", "squashfs", flags, None).map_err(|error| named(device, error.into()))
    }

    /// Whether the data are to be made at this boot: of a disk that was just flashed, or by order.
    pub(super) fn is_data_new(&self) -> io::Result<bool> {
        self.with_esp(false, |esp| Ok(esp.join(DATA_IS_NEW).exists()))
    }

    /// The next boot is to forget the data.
    pub fn order_new_data(&self) -> io::Result<()> {
        self.with_esp(true, |esp| File::create(esp.join(DATA_IS_NEW))?.sync_all())
    }

    /// Mends the data partition as far as it goes, whatever is lost by it; what is done goes to the
    /// terminal. Not while it is mounted.
    pub fn repair_data(&self, slot: Slot) -> io::Result<()> {
        if !Path::new(E2FSCK).exists() {
            self.mount_payload(slot)?;
        }
        run(E2FSCK, &["-f", "-y"], self.partition("data"), &mut || {})
    }

    /// Makes the file system if that was asked for, checks it otherwise, and mounts it.
    /// `while_waiting` is called several times a second. Returns what was done.
    pub(super) fn mount_data(
        &self,
        target: &str,
        while_waiting: &mut dyn FnMut(),
    ) -> io::Result<&'static str> {
        let device = self.partition("data");
        let done = if self.is_data_new()? {
            let words = ["-q", "-F", "-t", "ext4", "-L", "tandem-data", "-m", "1"];
            run("/usr/sbin/mke2fs", &words, device, while_waiting)?;
            File::open(device)?.sync_all()?;
            // The wish goes last: a power cut before has it done again. If it stayed, the next boot
            // would take what is written from here on.
            self.with_esp(true, |esp| fs::remove_file(esp.join(DATA_IS_NEW)))?;
            if self.is_data_new()? {
                return Err(io::Error::other(format!("{ESP}/{DATA_IS_NEW} cannot be removed")));
            }
            "made"
        } else if is_ext4(device)? {
            run(E2FSCK, &["-p"], device, while_waiting)?;
            "checked"
        } else {
            let why =
                "holds no file system, and may be the only copy of something: it is left alone";
            return Err(named(device, io::Error::other(why)));
        };
        let flags = MountFlags::NODEV | MountFlags::NOSUID | MountFlags::NOATIME;
        mount(device, target, "ext4", flags, c"errors=remount-ro")
            .map_err(|error| named(device, error.into()))?;
        Ok(done)
    }
}

/// On an appliance the configuration that the daemon was started with is a copy: the next boot
/// takes this one.
pub(super) fn keep_config(text: &str) -> Result<(), String> {
    if !init::is_appliance() {
        return Ok(());
    }
    keep("tandem.toml", text).map_err(|error| format!("saved until the next boot alone: {error}"))
}

/// Replaces a file of the appliance's configuration partition.
pub(super) fn keep(name: &str, text: &str) -> io::Result<()> {
    let disk = find()?.ok_or_else(|| io::Error::other("the appliance's disk is gone"))?;
    disk.write_config(name, text)
}

fn mount_fat(device: &Path, target: &str, access: MountFlags) -> io::Result<()> {
    let options = c"umask=077,iocharset=ascii";
    let flags = access | MountFlags::NOEXEC | MountFlags::NOSUID | MountFlags::NODEV;
    mount(device, target, "vfat", flags, options).map_err(|error| named(device, error.into()))
}

/// A file of that name on a FAT file system of another disk, which stays mounted.
pub(super) fn find_on_stick(name: &str) -> io::Result<Option<PathBuf>> {
    let own = find()?.map(|disk| disk.device);
    for entry in fs::read_dir("/sys/class/block")? {
        let folder = fs::canonicalize(entry?.path())?;
        let disk = folder.parent().and_then(Path::file_name).map(|it| Path::new("/dev").join(it));
        let Some(device) = folder.file_name().map(|it| Path::new("/dev").join(it)) else {
            continue;
        };
        if Some(&device) == own.as_ref() || disk == own {
            continue;
        }
        fs::create_dir_all(STICK)?;
        // What is no FAT is no stick of ours.
        if mount_fat(&device, STICK, MountFlags::RDONLY).is_ok() {
            let path = Path::new(STICK).join(name);
            if path.exists() {
                return Ok(Some(path));
            }
            unmount_at(STICK)?;
        }
    }
    Ok(None)
}

fn is_ext4(device: &Path) -> io::Result<bool> {
    let mut magic = [0; 2];
    let mut file = File::open(device)?;
    file.seek(SeekFrom::Start(EXT4_MAGIC_AT))?;
    file.read_exact(&mut magic)?;
    Ok(magic == EXT4_MAGIC)
}

/// Runs a program on a device to its end; 0 and 1 (corrected) are well, as in fsck(8).
fn run(
    program: &str,
    words: &[&str],
    device: &Path,
    while_waiting: &mut dyn FnMut(),
) -> io::Result<()> {
    let mut child = Command::new(program).args(words).arg(device).stdin(Stdio::null()).spawn()?;
    loop {
        if let Some(status) = child.try_wait()? {
            return match status.code() {
                Some(0 | 1) => Ok(()),
                _ => Err(named(device, io::Error::other(format!("{program}: {status}")))),
            };
        }
        while_waiting();
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

pub(super) fn unmount_at(target: &str) -> io::Result<()> {
    Ok(unmount(target, UnmountFlags::empty())?)
}

/// What is on its way to the disk of this file system is there when it returns.
pub(super) fn sync_at(target: &str) -> io::Result<()> {
    Ok(rustix::fs::syncfs(File::open(target)?)?)
}

/// Copies a folder with all in it, owned by `owner`, beside its place, and then puts it there: it
/// is whole or it is not there.
pub(super) fn copy_folder(from: &Path, to: &Path, owner: u32) -> io::Result<()> {
    let beside = to.with_extension("new");
    remove_tree(&beside)?;
    copy_into(from, &beside, owner)?;
    let parent = to.parent().unwrap_or_else(|| Path::new("/"));
    sync_at(&parent.to_string_lossy())?;
    fs::rename(&beside, to)?;
    File::open(parent)?.sync_all()
}

fn copy_into(from: &Path, to: &Path, owner: u32) -> io::Result<()> {
    fs::create_dir(to)?;
    std::os::unix::fs::chown(to, Some(owner), Some(owner))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let there = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_into(&entry.path(), &there, owner)?;
        } else {
            let mut source = File::open(entry.path())?;
            let mut copy = File::create(&there)?;
            io::copy(&mut source, &mut copy)?;
            std::os::unix::fs::chown(&there, Some(owner), Some(owner))?;
        }
    }
    Ok(())
}
