//! A machine of QEMU with an appliance's disk: its power, its serial line, its two cards.
//!
//! In: a disk image, what goes into its configuration partition. Out: a computer on the switches of
//! a world, by software emulation; what its serial line prints. Power off is SIGKILL to the
//! emulator. Must not: outlive the thread that made it.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::check;
use crate::host::text;
use crate::pair::binary;
use crate::world::{Link, Outcome, World, wait_until};

/// What starts the boot loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi,
}

#[derive(Debug)]
pub struct Machine {
    pub name: &'static str,
    number: u8,
    disk: PathBuf,
    world: u32,
    folder: PathBuf,
    firmware: Firmware,
    emulator: Option<Child>,
    serial: Option<UnixStream>,
    screen: Arc<Mutex<String>>,
    /// All that ever came over the line.
    log: Arc<Mutex<String>>,
}

const DISK_BYTES: u64 = 1 << 30;
const UEFI_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
const UEFI_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// The image of the board that QEMU is, made by image/build from the binary under test, once.
pub fn image() -> Outcome<PathBuf> {
    static IMAGE: Mutex<Option<Outcome<PathBuf>>> = Mutex::new(None);
    let mut image = IMAGE.lock().unwrap_or_else(PoisonError::into_inner);
    image.get_or_insert_with(|| build(&binary())).clone()
}

/// Another build of the same, later by so many seconds; with this in place of its initramfs.
pub fn update(to: &Path, later: u64, initramfs: Option<&Path>) -> Outcome<()> {
    let image = image()?;
    let parts = image.with_extension("parts");
    let built = fs::read_to_string(parts.join("built")).map_err(text)?;
    let built = built.trim().parse::<u64>().map_err(text)? + later;
    let key = image.with_file_name("update-key.pem");
    let mut words = vec!["qemu-x86_64".to_owned(), "--built".to_owned(), built.to_string()];
    words.extend(["--key".to_owned(), key.display().to_string()]);
    words.extend(["--to".to_owned(), to.display().to_string()]);
    words.extend(initramfs.iter().flat_map(|it| ["--initramfs".into(), it.display().to_string()]));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    run("image/bundle", &words).map(drop)
}

/// What one of the project's scripts prints.
fn run(script: &str, words: &[&str]) -> Outcome<String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(script).args(words).output().map_err(text)?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

fn build(binary: &Path) -> Outcome<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    run("scripts/packages", &["image", "qemu"])?;
    let binary = binary.to_str().ok_or("a path in UTF-8")?;
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), Into::into);
    let folder = target.join("image");
    fs::create_dir_all(&folder).map_err(text)?;
    let key = folder.join("update-key.pem");
    let made = Command::new("openssl")
        .args(["genpkey", "-algorithm", "ed25519", "-out"])
        .arg(&key)
        .status()
        .map_err(text)?;
    if !made.success() {
        return Err(format!("{}: openssl: {made}", key.display()));
    }
    let folder = folder.to_str().ok_or("a path in UTF-8")?;
    let key = key.to_str().ok_or("a path in UTF-8")?;
    let words = ["qemu-x86_64", "--binary", binary, "--key", key, "--to", folder];
    let printed = match run("image/build", &words) {
        // A pinned package may have left the mirror since: then the newest is what can be tested.
        Err(why) if why.contains("superseded") => {
            println!("{why}\nThe image is made of what there is now.");
            let lock = std::env::temp_dir().join(format!("tandem-lock-{}", std::process::id()));
            let lock = lock.to_str().ok_or("a path in UTF-8")?;
            run("image/lock", &["--to", lock])?;
            let printed = run("image/build", &[&words[..], &["--lock", lock]].concat());
            fs::remove_file(lock).map_err(text)?;
            printed?
        }
        printed => printed?,
    };
    println!("{printed}");
    let path = printed.lines().last().ok_or("image/build prints no path")?;
    Ok(path.into())
}

impl Machine {
    /// A machine with a disk of its own, switched off; its cables are in.
    pub fn new(
        world: &World,
        name: &'static str,
        number: u8,
        image: &Path,
        firmware: Firmware,
    ) -> Outcome<Self> {
        let folder = world.dir().join(name);
        fs::create_dir(&folder).map_err(text)?;
        let disk = folder.join("disk");
        let copied = Command::new("cp").args(["--sparse=always"]).args([image, &disk]).status();
        if !copied.map_err(text)?.success() {
            return Err(format!("{}: cannot be copied", image.display()));
        }
        let file = OpenOptions::new().write(true).open(&disk).map_err(text)?;
        file.set_len(DISK_BYTES).map_err(text)?;
        fs::copy(UEFI_VARIABLES, folder.join("variables")).map_err(text)?;
        for link in Link::ALL {
            let port = port(name, link);
            world.ip(&format!(
                "tuntap add dev {port} mode tap\nlink set {port} master {} up",
                link.switch()
            ))?;
        }
        Ok(Self {
            name,
            number,
            disk,
            world: world.pid(),
            folder,
            firmware,
            emulator: None,
            serial: None,
            screen: Arc::default(),
            log: Arc::default(),
        })
    }

    /// Puts a file into the configuration partition, as any PC can while the disk is in it.
    pub fn put(&self, path: &str, content: &[u8]) -> Outcome<()> {
        let place = format!("{}@@{}", self.disk.display(), self.partition_at(2)?);
        if let Some((folder, _)) = path.rsplit_once('/') {
            // It may be there already.
            let _made = mtools("mmd", &["-D", "s", "-i", &place, &format!("::/{folder}")], &[]);
        }
        mtools("mcopy", &["-o", "-i", &place, "-", &format!("::/{path}")], content)
    }

    /// Where the partition of this entry of the table, from 0, begins.
    fn partition_at(&self, entry: u64) -> Outcome<u64> {
        let mut disk = File::open(&self.disk).map_err(text)?;
        let mut first = [0; 8];
        // The table begins in block 2.
        disk.seek(SeekFrom::Start(1024 + entry * 128 + 32)).map_err(text)?;
        disk.read_exact(&mut first).map_err(text)?;
        Ok(u64::from_le_bytes(first) * 512)
    }

    /// Clears the inode of a folder of the data partition, with what hangs below it, and marks the
    /// file system as the kernel does when it comes upon that.
    pub fn damage(&self, folder: &str) -> Outcome<()> {
        let place = format!("{}?offset={}", self.disk.display(), self.partition_at(5)?);
        for order in [format!("clri {folder}"), "set_super_value state 2".to_owned()] {
            let output = Command::new("debugfs").args(["-w", "-R", &order, &place]).output();
            let output = output.map_err(|error| format!("debugfs: {error}"))?;
            check(output.status.success(), || format!("debugfs {order}: {output:?}"))?;
        }
        Ok(())
    }

    /// Switches it on.
    pub fn power_on(&mut self) -> Outcome<Instant> {
        let socket = self.folder.join("serial");
        let _of_the_boot_before = fs::remove_file(&socket);
        // With 192 UEFI leaves GRUB no room for kernel and initramfs.
        let memory_mib = match self.firmware {
            Firmware::Bios => "192",
            Firmware::Uefi => "256",
        };
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "nsenter", "-t", &self.world.to_string(), "-n", "--"])
            .args(["qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "1"])
            .args(["-m", memory_mib, "-display", "none", "-nodefaults"])
            .args(["-monitor", "none", "-no-reboot", "-device", "virtio-rng-pci"])
            .arg("-chardev")
            .arg(format!("socket,id=line,path={},server=on,wait=on", socket.display()))
            .args(["-serial", "chardev:line", "-drive"])
            .arg(format!("if=none,id=disk,format=raw,cache=unsafe,file={}", self.disk.display()))
            .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0,addr=5"]);
        match self.firmware {
            Firmware::Bios => command.args(["-machine", "pc"]),
            Firmware::Uefi => command
                .args(["-machine", "q35", "-drive"])
                .arg(format!("if=pflash,format=raw,unit=0,readonly=on,file={UEFI_CODE}"))
                .arg("-drive")
                .arg(format!(
                    "if=pflash,format=raw,unit=1,file={}",
                    self.folder.join("variables").display()
                )),
        };
        for link in Link::ALL {
            let (id, port) = (link.switch(), port(self.name, link));
            let tap = format!("tap,id={id},ifname={port},script=no,downscript=no");
            let (slot, number, place) = (3 + link.index(), self.number, link.index());
            let mac = format!("52:54:00:00:{number:02x}:{place:02x}");
            let card = format!("virtio-net-pci,netdev={id},addr={slot},romfile=,mac={mac}");
            command.args(["-netdev", &tap, "-device", &card]);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.emulator = Some(command.spawn().map_err(text)?);
        // It waits for the line before it starts, so that no byte is lost.
        wait_until("the emulator has a line", Duration::from_secs(10), || {
            self.serial = UnixStream::connect(&socket).ok();
            self.serial.is_some()
        })?;
        let at = Instant::now();
        let serial = self.serial.as_ref().ok_or("a line")?;
        let mut line = serial.try_clone().map_err(text)?;
        let (screen, log) = (self.screen.clone(), self.log.clone());
        lock(&screen).clear();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = line.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
                lock(&screen).push_str(&text);
                lock(&log).push_str(&text);
            }
        });
        Ok(at)
    }

    /// Pulls its plug.
    pub fn power_off(&mut self) -> Outcome<Instant> {
        let at = Instant::now();
        if let Some(mut emulator) = self.emulator.take() {
            emulator.kill().map_err(text)?;
            emulator.wait().map_err(text)?;
        }
        self.serial = None;
        Ok(at)
    }

    /// Whether it switched itself off, or was reset.
    pub fn wait_for_end(&mut self, limit: Duration) -> Outcome<Duration> {
        let emulator = self.emulator.as_mut().ok_or("it is off")?;
        let waited = wait_until("the machine ends", limit, || {
            emulator.try_wait().is_ok_and(|status| status.is_some())
        });
        waited.map_err(|why| format!("{why}; the line: {:?}", lock(&self.screen)))
    }

    /// Types on the serial line.
    pub fn types(&mut self, keys: &str) -> Outcome<()> {
        let name = self.name;
        let serial = self.serial.as_mut().ok_or_else(|| format!("{name} is off"))?;
        serial.write_all(keys.as_bytes()).map_err(|error| format!("{name}: {error}"))
    }

    /// Waits until these words have come over the line; what came up to their end is taken off.
    pub fn wait_for(&self, words: &str, limit: Duration) -> Outcome<String> {
        let mut seen = None;
        let waited = wait_until(&format!("{}: {words:?}", self.name), limit, || {
            let mut screen = lock(&self.screen);
            seen = screen.find(words).map(|at| screen.drain(..at + words.len()).collect());
            seen.is_some()
        });
        waited.map_err(|why| format!("{why}; the line: {:?}", lock(&self.screen)))?;
        seen.ok_or_else(|| "it was seen".to_owned())
    }

    /// Types a line when the prompt is there.
    pub fn answers(&mut self, prompt: &str, line: &str, limit: Duration) -> Outcome<()> {
        self.wait_for(prompt, limit)?;
        self.types(&format!("{line}\r"))
    }

    /// The last lines of the serial line.
    pub fn log(&self, lines: usize) -> String {
        let log = lock(&self.log);
        let all: Vec<&str> = log.lines().collect();
        let last = &all[all.len().saturating_sub(lines)..];
        format!("---- {} serial\n{}\n", self.name, last.join("\n"))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _off_already = self.power_off();
    }
}

fn lock(text: &Mutex<String>) -> std::sync::MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

fn port(name: &str, link: Link) -> String {
    format!("{name}-t{}", link.index())
}

/// One of mtools, fed this.
fn mtools(program: &str, words: &[&str], input: &[u8]) -> Outcome<()> {
    let mut child = Command::new(program)
        .args(words)
        .env("MTOOLS_SKIP_CHECK", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("{program}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input).map_err(text)?;
    }
    let output = child.wait_with_output().map_err(text)?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())),
    }
}
