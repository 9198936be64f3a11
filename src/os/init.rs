//! PID 1 of the appliance: from the kernel's hand-over to the guard, and from the guard to the end.
//!
//! In: the board, the disk, its configuration. Out: a machine on which the guard can keep node,
//! consoles and services. Must not: end, as the kernel would panic; wait for anything without
//! feeding the watchdog.
//! Read first: `appliance`, `disk`, `service`; facts/image.md 5, "Init duties in order".
//!
//! ```text
//!  mounts -> log to the kernel's ring -> modules -> watchdog -> settings -> disk -> configuration
//!  -> name, cards, addresses -> payload -> data -> files of the services -> guard -> the end
//! ```

use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, finit_module, reboot, sethostname};
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};

use super::children::{CONSOLE, Children, Spec};
use super::disk::{self, Disk};
use super::file::{self, named};
use super::guard::{self, End, Household};
use super::storage::Storage;
use super::watchdog::Watchdog;
use super::{cards, clock, notes, service, terminal, update};
use crate::appliance::board::{self, Board, Identity};
use crate::appliance::slots::Slot;
use crate::appliance::{kernel, services};
use crate::config::Config;
use crate::console::message::{Power, RELEASE};
use crate::console::note::Note;
use crate::wire::HostId;

const CONFIG: &str = "/etc/tandem/tandem.toml";
/// In the initramfs alone.
const BOARD: &str = "/etc/tandem/board.toml";
/// Of a file of the configuration partition that is copied into memory.
const SETTING_BYTES_MAX: u64 = 1024 * 1024;
/// A disk on a slow bus is found within this.
const DISK_PATIENCE: Duration = Duration::from_secs(15);

/// What is mounted before anything is known: source, target, kind, options.
const MOUNTS: [(&str, &str, &str, &str); 8] = [
    ("proc", "/proc", "proc", ""),
    ("sysfs", "/sys", "sysfs", ""),
    ("devtmpfs", "/dev", "devtmpfs", "mode=0755"),
    ("devpts", "/dev/pts", "devpts", "mode=0620,ptmxmode=0666"),
    ("tmpfs", "/dev/shm", "tmpfs", "mode=1777"),
    ("tmpfs", "/run", "tmpfs", "mode=0755,size=16m"),
    ("tmpfs", "/tmp", "tmpfs", "mode=1777,size=16m"),
    ("cgroup2", "/sys/fs/cgroup", "cgroup2", ""),
];
/// Folders of the data partition: who owns them, and their mode.
const FOLDERS: [(&str, u32, u32); 4] = [
    ("/data/tandem", 0, 0o700),
    ("/data/tmp", 0, 0o1777),
    ("/data/php", services::WWW_ID, 0o700),
    ("/run/mysqld", services::MYSQL_ID, 0o755),
];

/// Runs the machine; returns never.
pub fn run() -> ! {
    let mut boot = Boot { watchdog: None, line: None, board: None };
    let end = match boot.serve() {
        Ok(end) => end,
        Err(why) => boot.stranded(&why),
    };
    boot.end(end)
}

/// Whether this process is one of an appliance.
#[must_use]
pub fn is_appliance() -> bool {
    Path::new(BOARD).exists()
}

/// Ends a machine that does not serve.
pub fn end_now(power: Power) {
    rustix::fs::sync();
    let error = reboot(command(End::Ordered(power)));
    eprintln!("reboot: {error:?}");
}

const fn command(end: End) -> RebootCommand {
    match end {
        End::Ordered(Power::Off) => RebootCommand::PowerOff,
        End::Asked | End::Ordered(Power::Reboot) => RebootCommand::Restart,
    }
}

struct Boot {
    watchdog: Option<Watchdog>,
    /// The first terminal, on which the boot is told; none before it is known.
    line: Option<OwnedFd>,
    board: Option<Board>,
}

/// What a step says when it does not go.
fn step<T>(what: &str, done: io::Result<T>) -> Result<T, String> {
    done.map_err(|error| format!("{what}: {error}"))
}

impl Boot {
    fn serve(&mut self) -> Result<End, String> {
        step("first mounts", first_mounts())?;
        step("the kernel's log", log_to_kernel())?;
        let signals = step("signals", guard::block_signals())?;
        drop(signals);
        let _older_kernel = reboot(RebootCommand::CadOff);
        let text = step("board.toml", fs::read_to_string(BOARD))?;
        let board = board::parse(&text).map_err(|why| format!("board.toml: {why}"))?;
        self.board = Some(board.clone());
        set_clock_floor();
        self.open_line(&board);
        self.say(format_args!("tandem {RELEASE}, slot {}, {}", slot(), uptime()));
        self.load_modules(&board)?;
        // Of a terminal whose driver is a module.
        self.open_line(&board);
        for setting in kernel::SETTINGS {
            let path = Path::new("/proc/sys").join(setting.name);
            if let Err(error) = fs::write(&path, setting.value) {
                self.say(format_args!("{}: {error}", path.display()));
            }
        }
        let disk = self.find_disk()?;
        let (mut config, me, identity) = self.configure(&disk)?;
        let host = config.host(me).name.clone();
        step("host name", sethostname(host.as_bytes()).map_err(io::Error::from))?;
        step("/etc/hosts", fs::write("/etc/hosts", hosts(&config)))?;
        cards::set_up(&config, me, &board, &identity)?;
        // With the network up: the other host may have what is missing.
        config.resolve(file::read_secret).map_err(|error| format!("tandem.toml: {error}"))?;
        step("payload", disk.mount_payload(slot()))?;
        self.prepare_data(&disk)?;
        step(disk::CONFIG, disk::unmount_at(disk::CONFIG))?;
        let facts = step("services", service::facts(&config, me))?;
        step("files of the services", write_files(&facts))?;
        self.say(format_args!("{host}, {}", uptime()));
        notes::open(false);
        if let Some(place) = &config.console.syslog {
            notes::send_to(place, &host);
        }
        self.guard(&disk, &config, &host, &facts)
    }

    fn guard(
        &mut self,
        disk: &Disk,
        config: &Config,
        host: &str,
        facts: &services::Facts,
    ) -> Result<End, String> {
        let board = self.board.clone().ok_or("no board")?;
        let console = crate::console::Config {
            tty: board.tty.clone(),
            speed: board.speed,
            ..config.console.clone()
        };
        let (node, consoles) = guard::commands(CONFIG, host, &console);
        let spec = |service: services::Service| Spec {
            name: service.name.to_owned(),
            arguments: guard::words(&[
                "run",
                "--config",
                CONFIG,
                "--host",
                host,
                "--as-service",
                service.name,
            ]),
            policy: service.policy,
            is_service: true,
        };
        let mut services: Vec<Spec> = services::all(facts).into_iter().map(spec).collect();
        let (environment, running) = (step("boot partition", update::environment(disk))?, slot());
        if environment.pending.is_some_and(|(slot, _)| slot == running) {
            let what = format!("slot {running} is on trial");
            self.say(&what);
            notes::tell(&Note::Boot { what });
            services.push(Spec {
                name: "update".to_owned(),
                arguments: guard::words(&["update", "--confirm"]),
                policy: services::POLICY,
                is_service: true,
            });
        }
        if let Some(failed) = environment.failed {
            let what = format!("the build in slot {failed} did not do: what ran before runs again");
            self.say(&what);
            notes::tell(&Note::BootTrouble { what });
        }
        // The node begins with what was noted by now.
        notes::save();
        let mut household = Household {
            consoles: Children::new(consoles),
            services: Children::new(services),
            watchdog: self.watchdog.take(),
            storage: Some(Storage::new("/data")),
        };
        // Consoles talk on the line from here on.
        self.line = None;
        let ended = step("guard", guard::run(&node, &mut household));
        self.watchdog = household.watchdog.take();
        ended
    }

    /// On the first terminal and in the kernel's log.
    fn say(&mut self, what: impl Display) {
        log::info!("boot: {what}");
        if let Some(line) = &self.line {
            // A terminal that does not take it now goes without.
            let _full = rustix::io::write(line, format!("{what}\r\n").as_bytes());
        }
    }

    fn open_line(&mut self, board: &Board) {
        if self.line.is_none() {
            self.line =
                board.tty.first().and_then(|tty| terminal::open_to_tell(tty, board.speed).ok());
        }
    }

    /// Loads every module of the image; the watchdogs' are tried one after the other.
    fn load_modules(&mut self, board: &Board) -> Result<(), String> {
        let order = step("modules", fs::read_to_string("/modules/order"))?;
        let is_watchdog = |file: &str| {
            let name = file.trim_end_matches(".ko");
            board.watchdog.iter().any(|it| it.split(' ').next() == Some(name))
        };
        for name in order.lines().filter(|name| !is_watchdog(name)) {
            if let Err(error) = load(name, "") {
                self.say(format_args!("module {name}: {error}"));
            }
        }
        for module in &board.watchdog {
            let (name, parameters) = module.split_once(' ').unwrap_or((module, ""));
            // Hardware that is not there is the usual case.
            let _none_here = load(&format!("{name}.ko"), parameters);
            match Watchdog::open() {
                Ok(Some(watchdog)) => {
                    self.watchdog = Some(watchdog);
                    log::info!("boot: watchdog {module}");
                    self.feed();
                    return Ok(());
                }
                Ok(None) => {}
                Err(error) => self.say(format_args!("watchdog {name}: {error}")),
            }
        }
        self.say("no watchdog: a machine that hangs stays so");
        Ok(())
    }

    fn feed(&mut self) {
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed(clock::now());
        }
    }

    /// Waits for `limit` at most until `look` finds something.
    fn wait_for<T>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> io::Result<Option<T>> {
        let until = clock::now() + limit;
        loop {
            if let Some(found) = look()? {
                return Ok(Some(found));
            }
            if clock::now() >= until {
                return Ok(None);
            }
            self.feed();
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn find_disk(&mut self) -> Result<Disk, String> {
        let found = step("disk", self.wait_for(DISK_PATIENCE, disk::find))?;
        let disk = found.ok_or("no disk with the partitions of an appliance was found")?;
        let device = disk.device().display().to_string();
        match disk.grow() {
            Ok(true) => {
                self.say(format_args!("{device}: the data partition takes the rest of the disk"))
            }
            Ok(false) => {}
            // It serves with what it has.
            Err(error) => self.say(format_args!("{device}: {error}")),
        }
        Ok(disk)
    }

    /// Takes the configuration from its partition, which stays mounted for its files; secrets that
    /// stand in files are left there.
    fn configure(&mut self, disk: &Disk) -> Result<(Config, HostId, Identity), String> {
        step("the configuration partition", disk.mount_config())?;
        let read = |name: &str| {
            fs::read_to_string(Path::new(disk::CONFIG).join(name))
                .map_err(|error| format!("{name} in the configuration partition: {error}"))
        };
        let identity =
            Identity::parse(&read("host.toml")?).map_err(|why| format!("host.toml: {why}"))?;
        read("tandem.toml")?;
        step("/etc/tandem", copy_settings())?;
        let config = file::read_config(CONFIG)?;
        let me = config.find_host(&identity.host).map_err(|error| format!("host.toml: {error}"))?;
        Ok((config, me, identity))
    }

    fn prepare_data(&mut self, disk: &Disk) -> Result<(), String> {
        let mut watchdog = self.watchdog.take();
        let mut feed = || {
            if let Some(watchdog) = &mut watchdog {
                watchdog.feed(clock::now());
            }
        };
        let done = disk.mount_data("/data", &mut feed);
        self.watchdog = watchdog;
        let done = step("data", done)?;
        self.say(format_args!("data partition {done}, {}", uptime()));
        let made = FOLDERS.iter().try_for_each(|(path, owner, mode)| {
            fs::create_dir_all(path)?;
            chown(path, Some(*owner), Some(*owner))?;
            fs::set_permissions(path, fs::Permissions::from_mode(*mode))
        });
        step("data", made)?;
        step(file::STATE_DIR, symlink("/data/tandem", file::STATE_DIR))?;
        fs::create_dir_all("/var/www")
            .and_then(|()| symlink("/data/www", "/var/www/html"))
            .or_else(|error| step("/var/www/html", Err(error)))?;
        let (site, place) = (Path::new(disk::CONFIG).join("www"), Path::new("/data/www"));
        match (site.is_dir(), place.exists()) {
            (true, false) => {
                step("www", disk::copy_folder(&site, place, services::WWW_ID))?;
                self.say("www: copied from the configuration partition");
            }
            (false, false) => step("www", fs::create_dir(place))?,
            (true | false, true) => {}
        }
        Ok(())
    }

    /// Something keeps this machine from serving: it says what on every terminal, and waits there
    /// for somebody who mends it.
    fn stranded(&mut self, why: &str) -> End {
        self.say(format_args!("this machine does not serve: {why}"));
        let _not_mounted = disk::unmount_at(disk::CONFIG);
        if is_on_trial() {
            // A build that cannot even begin is not kept.
            self.say("its build is on trial: the boot loader has another one");
            return End::Asked;
        }
        let (terminals, speed) = match &self.board {
            Some(board) => (board.tty.clone(), board.speed.to_string()),
            None => (vec!["console".to_owned()], "115200".to_owned()),
        };
        let console = |tty: String| Spec {
            name: format!("rescue on {tty}"),
            arguments: guard::words(&["rescue", "--tty", &tty, "--speed", &speed, "--why", why]),
            policy: CONSOLE,
            is_service: false,
        };
        let mut household = Household {
            consoles: Children::new(terminals.into_iter().map(console).collect()),
            watchdog: self.watchdog.take(),
            ..Household::default()
        };
        self.line = None;
        let kept = guard::block_signals().and_then(|signals| household.keep(&signals));
        self.watchdog = household.watchdog.take();
        self.say(format_args!("rescue: {kept:?}"));
        End::Asked
    }

    /// All services have ended: the disk is left in order.
    fn end(&mut self, end: End) -> ! {
        rustix::fs::sync();
        for target in ["/data", "/usr"] {
            if let Err(error) = disk::unmount_at(target) {
                self.say(format_args!("{target}: {error}"));
            }
        }
        rustix::fs::sync();
        let command = command(end);
        loop {
            let error = reboot(command);
            self.say(format_args!("reboot: {error:?}"));
            // The watchdog is not fed any more.
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

/// Whether the slot that runs is not known to be good.
fn is_on_trial() -> bool {
    let disk = disk::find().ok().flatten();
    let environment = disk.and_then(|disk| update::environment(&disk).ok());
    environment.and_then(|it| it.pending).is_some_and(|(slot, _)| slot == self::slot())
}

/// Copies every file of the configuration partition that is not a folder's: the configuration,
/// certificates, files with secrets. They are root's alone.
fn copy_settings() -> io::Result<()> {
    for entry in fs::read_dir(disk::CONFIG)? {
        let entry = entry?;
        let is_kept = entry.metadata()?.is_file() && entry.metadata()?.len() <= SETTING_BYTES_MAX;
        if is_kept {
            let there = Path::new("/etc/tandem").join(entry.file_name());
            fs::write(&there, fs::read(entry.path())?)?;
            fs::set_permissions(&there, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

fn first_mounts() -> io::Result<()> {
    for (source, target, kind, options) in MOUNTS {
        fs::create_dir_all(target)?;
        let options = std::ffi::CString::new(options)?;
        match mount(source, target, kind, MountFlags::NOSUID, options.as_c_str()) {
            // The kernel may have mounted its devices itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => return Err(named(Path::new(target), error.into())),
        }
    }
    let controllers = Path::new("/sys/fs/cgroup/cgroup.subtree_control");
    for name in ["+memory", "+pids", "+cpu"] {
        let _kernel_without_it = fs::write(controllers, name);
    }
    Ok(())
}

/// Standard output and error of this process and of its children: a line is a record there.
fn log_to_kernel() -> io::Result<()> {
    let ring = OpenOptions::new().write(true).open("/dev/kmsg")?;
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    rustix::stdio::dup2_stdout(&ring)?;
    rustix::stdio::dup2_stderr(&ring)?;
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"))
        .format(|out, record| writeln!(out, "tandem: {}", record.args()))
        .init();
    Ok(())
}

/// A clock without a battery begins where the image was built: certificates were valid then.
fn set_clock_floor() {
    let built = identity().ok().and_then(|(_, built)| i64::try_from(built).ok());
    if let Some(built) = built.filter(|&built| clock_gettime(ClockId::Realtime).tv_sec < built) {
        let _refused = clock_settime(ClockId::Realtime, Timespec { tv_sec: built, tv_nsec: 0 });
    }
}

fn load(name: &str, parameters: &str) -> io::Result<()> {
    let module = File::open(Path::new("/modules").join(name))?;
    let parameters = std::ffi::CString::new(parameters)?;
    match finit_module(&module, &parameters, 0) {
        // Built in or loaded already; hardware that is not there.
        Ok(()) | Err(rustix::io::Errno::EXIST | rustix::io::Errno::NODEV) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// The slot that the boot loader started.
#[must_use]
pub fn slot() -> Slot {
    let line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let slot = line.split_whitespace().find_map(|word| word.strip_prefix("tandem.slot="));
    slot.and_then(Slot::parse).unwrap_or(Slot::A)
}

/// Of the image that runs: its board, and when it was built, in seconds since 1970.
pub fn identity() -> io::Result<(String, u64)> {
    #[derive(serde::Deserialize)]
    struct Image {
        board: String,
        built: u64,
    }
    let text = fs::read_to_string("/etc/tandem/image.toml")?;
    let Image { board, built } =
        toml::from_str(&text).map_err(|error| io::Error::other(format!("image.toml: {error}")))?;
    Ok((board, built))
}

fn uptime() -> String {
    let up = Duration::from_nanos(clock::now().as_nanos());
    format!("{}.{:02} s after the kernel", up.as_secs(), up.subsec_millis() / 10)
}

fn hosts(config: &Config) -> String {
    let line = |id| {
        let host = config.host(id);
        format!("{} {}\n", host.inside_address(), host.name)
    };
    HostId::ALL.into_iter().map(line).fold("127.0.0.1 localhost\n".to_owned(), |all, it| all + &it)
}

fn write_files(facts: &services::Facts) -> io::Result<()> {
    fs::write(services::DATABASE_CONFIG, services::database_config(facts))?;
    fs::write(services::PHP_CONFIG, services::php_config(facts))?;
    fs::write(services::PHP_INI, services::php_ini())
}
