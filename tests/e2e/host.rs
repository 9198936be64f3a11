//! A host: its own network, mounts, host name and process tree, on a disk that outlives them.
//!
//! In: boot, power off, commands to run inside. Out: processes, their logs (kept outside, on
//! the host's disk). Power off is SIGKILL to the host's first process: the kernel kills the rest at
//! once and gives nobody a last word. The same disk and the same MAC addresses boot again.
//! Must not: know what the programs inside do.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::{Link, Outcome, World, batch, first_line_pid, remember, wait_until};

/// Logs and how long they were.
pub type Lengths = BTreeMap<PathBuf, usize>;

/// What tells one host from another.
#[derive(Debug, Clone)]
pub struct Identity {
    pub name: &'static str,
    pub number: u8,
    pub outside: &'static str,
    pub inside: &'static str,
}

#[derive(Debug)]
pub struct Host {
    identity: Identity,
    disk: PathBuf,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    pid: u32,
    unshare: Child,
    children: Vec<(String, Child)>,
}

/// The first process of a host. /proc is still the outside one when it says its pid.
const BOOT: &str = r#"
set -eu
disk=$1 name=$2
read -r pid _ </proc/self/stat
# In a chroot / is no mount point; then it is enough that nothing is shared with the machine.
mount --make-rprivate / 2>/dev/null || ! grep -q shared: /proc/self/mountinfo ||
    { echo "mounts would be seen by the machine: / is no mount point and shared" >&2; exit 1; }
echo "$name" >/proc/sys/kernel/hostname
mount --rbind /var/cache "$disk/var/cache"
mount --bind "$disk/etc" /etc
mount --rbind "$disk/var" /var
mount --bind "$disk/sbin" /usr/local/sbin
mount -t tmpfs -o mode=0755 tmpfs /run
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mkdir -m 0755 /run/mysqld /run/lock /run/php
mount -t proc proc /proc
# Every boot of a machine has one of its own.
cat /proc/sys/kernel/random/uuid >/run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id || :
mount -t sysfs sysfs /sys || :
echo "$pid"
exec </dev/null >/dev/null 2>&1
sleep infinity &
wait
"#;

impl Host {
    /// A host with a fresh disk, switched off.
    pub fn new(world: &World, identity: Identity) -> Outcome<Self> {
        let disk = world.dir().join(identity.name);
        let host = Self { identity, disk, running: None };
        host.format().map_err(|error| format!("{}: disk: {error}", host.name()))?;
        Ok(host)
    }

    pub const fn name(&self) -> &'static str {
        self.identity.name
    }

    pub const fn identity(&self) -> &Identity {
        &self.identity
    }

    /// A path of the host, as seen from outside. Valid for /etc and /var, on or off.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.disk.join(inside.trim_start_matches('/'))
    }

    pub const fn is_on(&self) -> bool {
        self.running.is_some()
    }

    /// The host's first process, as this process sees it.
    pub fn pid(&self) -> Outcome<u32> {
        self.running.as_ref().map(|it| it.pid).ok_or_else(|| format!("{} is off", self.name()))
    }

    /// Namespaces, interfaces, addresses. Programs are somebody else's business.
    pub fn boot(&mut self, world: &World) -> Outcome<()> {
        let mut unshare = Command::new("nsenter")
            .args(["-t", &world.pid().to_string(), "-p", "--"])
            .args(["unshare", "--net", "--mount", "--uts", "--pid", "--fork"])
            .args(["--propagation", "unchanged", "bash", "-c", BOOT, "boot"])
            .arg(&self.disk)
            .arg(self.name())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(self.log("boot")?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{}: boot: {error}", self.name()))?;
        let Some(pid) = first_line_pid(&mut unshare) else {
            let log = fs::read_to_string(self.disk.join("log/boot")).unwrap_or_default();
            return Err(format!("{} does not boot: {}", self.name(), log.trim()));
        };
        self.running = Some(Running { pid, unshare, children: Vec::new() });
        world.plug(self.name(), self.identity.number, pid)?;
        let Identity { outside, inside, .. } = self.identity;
        batch(
            pid,
            "ip",
            &format!(
                "link set lo up\naddr add {outside} brd + dev eth0\n\
                 addr add {inside} brd + dev eth1\nlink set eth0 up\nlink set eth1 up"
            ),
        )
    }

    /// Power loss: every process stands still, the cables go, so that no dying kernel says
    /// good-bye, and then every process ends at once. Returns the moment at which the cables went.
    pub fn power_off(&mut self, world: &World) -> Outcome<Instant> {
        let name = self.name();
        // Without this a database would go on committing for as long as a cable takes to pull.
        let mut running = self.running.take().ok_or_else(|| format!("{name} is off"))?;
        for pid in processes_beside(running.pid)? {
            // One that has just ended stands still too.
            let _ = kill(to_pid(pid), Signal::SIGSTOP);
        }
        let moment = Instant::now();
        world.cable(name, &Link::ALL, false)?;
        kill(to_pid(running.pid), Signal::SIGKILL)
            .map_err(|error| format!("{name}: power off: {error}"))?;
        // The interfaces go now: a namespace may live on for as long as somebody looks into it.
        world.unplug(name)?;
        for (_, child) in &mut running.children {
            // nsenter stops when what it entered with does, and then does not see it end.
            wait_until("nsenter has ended", Duration::from_secs(5), || {
                let _ = kill(to_pid(child.id()), Signal::SIGCONT);
                !matches!(child.try_wait(), Ok(None))
            })?;
        }
        // The namespace's init is the last to go: it waits for all of them.
        let _ = running.unshare.wait();
        Ok(moment)
    }

    /// Every process stands still, as in a virtual machine that is paused: the kernel goes on.
    pub fn freeze(&self) -> Outcome<()> {
        for pid in processes_beside(self.pid()?)? {
            let _gone = kill(to_pid(pid), Signal::SIGSTOP);
        }
        Ok(())
    }

    pub fn thaw(&self) -> Outcome<()> {
        for pid in processes_beside(self.pid()?)? {
            let _gone = kill(to_pid(pid), Signal::SIGCONT);
        }
        // Whoever entered the host for a program was stopped with it.
        for (_, child) in self.running.iter().flat_map(|it| &it.children) {
            let _gone = kill(to_pid(child.id()), Signal::SIGCONT);
        }
        Ok(())
    }

    /// The process that a pid file names, as this process sees it: it can be killed in an instant.
    pub fn outer_pid(&self, pid_file: &str) -> Outcome<Pid> {
        let inner = fs::read_to_string(self.live_path(pid_file)?)
            .map_err(|error| format!("{}: {pid_file}: {error}", self.name()))?;
        let has_that_number = |pid: u32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
            numbers.and_then(|all| all.split_whitespace().last()) == Some(inner.trim())
        };
        let found = processes_beside(self.pid()?)?.into_iter().find(|pid| has_that_number(*pid));
        found.map(to_pid).ok_or_else(|| format!("{}: no process {}", self.name(), inner.trim()))
    }

    /// A command to run inside, not started yet.
    pub fn command(&self, program: &str) -> Outcome<Command> {
        let pid = self.pid()?;
        let mut command = Command::new("nsenter");
        command
            .args(["-t", &pid.to_string(), "-m", "-u", "-n", "-p", "-r", "--", program])
            .current_dir("/")
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .process_group(0);
        Ok(command)
    }

    /// Starts a program that stays, its words into the log of that name.
    pub fn start(&mut self, name: &str, words: &[&str]) -> Outcome<()> {
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let log = self.log(name)?;
        let mut command = self.command(program)?;
        command.args(arguments).stdout(Stdio::from(log.try_clone().map_err(text)?)).stderr(log);
        let child = command
            .spawn()
            .map_err(|error| format!("{}: cannot start {name}: {error}", self.name()))?;
        remember(child.id());
        if let Some(running) = &mut self.running {
            running.children.push((name.to_owned(), child));
        }
        Ok(())
    }

    /// How a program of `start` ended, if it has.
    pub fn ended(&mut self, name: &str) -> Option<ExitStatus> {
        let children = &mut self.running.as_mut()?.children;
        let (_, child) = children.iter_mut().rev().find(|(it, _)| it == name)?;
        child.try_wait().ok().flatten()
    }

    /// Takes note of the end of a program that was stopped (SIGSTOP) and then killed: whoever
    /// entered the host for it was stopped with it. Whether it has ended.
    pub fn bury(&mut self, name: &str) -> bool {
        let Some(running) = self.running.as_mut() else { return true };
        let Some((_, child)) = running.children.iter_mut().rev().find(|(it, _)| it == name) else {
            return true;
        };
        let entered = Pid::from_raw(i32::try_from(child.id()).unwrap_or(0));
        let _ended_already = kill(entered, Signal::SIGCONT);
        // A program that was started anew just now, and has no pid file yet, goes on.
        let buried = wait_until("it is gone", Duration::from_secs(1), || {
            !matches!(child.try_wait(), Ok(None))
        });
        buried.is_ok()
    }

    /// Runs a command to its end, ten seconds at most.
    pub fn run(&self, words: &[&str]) -> Outcome<Output> {
        self.run_within(Duration::from_secs(10), words)
    }

    pub fn run_within(&self, limit: Duration, words: &[&str]) -> Outcome<Output> {
        let (program, arguments) = words.split_first().ok_or("an empty command")?;
        let mut command = self.command("timeout")?;
        command
            .args(["-k", "1", &limit.as_secs().to_string(), program])
            .args(arguments)
            .output()
            .map_err(|error| format!("{}: {program}: {error}", self.name()))
    }

    /// What a command prints; its error output when it fails.
    pub fn read(&self, words: &[&str]) -> Outcome<String> {
        let output = self.run(words)?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        let why = String::from_utf8_lossy(&output.stderr);
        let how = match output.status.signal() {
            Some(signal) => format!("signal {signal}"),
            None => format!("status {}", output.status.code().unwrap_or(-1)),
        };
        Err(format!("{}: {}: {how}: {}", self.name(), words.join(" "), why.trim()))
    }

    /// Sends a signal to the process that a pid file of the host names.
    pub fn signal(&self, pid_file: &str, signal: Signal) -> Outcome<()> {
        let pid = self.read(&["cat", pid_file])?;
        let pid = pid.trim();
        if pid.parse::<u32>().is_err() {
            return Err(format!("{}: {pid_file} holds {pid:?}, not a pid", self.name()));
        }
        let number = (signal as i32).to_string();
        self.read(&["bash", "-c", "kill -\"$0\" \"$1\"", &number, pid]).map(drop)
    }

    /// Whether the process that a pid file names is alive.
    pub fn is_alive(&self, pid_file: &str) -> bool {
        let script = "p=$(cat \"$0\") && kill -0 \"$p\" && ! grep -q '^State:.Z' /proc/$p/status";
        self.run(&["bash", "-c", script, pid_file]).is_ok_and(|it| it.status.success())
    }

    /// Runs `job` on a thread of its own in the host's network namespace.
    pub fn on_network<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Outcome<T> {
        inside(&self.network()?, job)
    }

    /// The network namespace, for threads that move into it.
    pub fn network(&self) -> Outcome<File> {
        File::open(format!("/proc/{}/ns/net", self.pid()?)).map_err(text)
    }

    /// A path of the running host that only it sees (/run, say), as seen from outside.
    pub fn live_path(&self, inside: &str) -> Outcome<PathBuf> {
        Ok(Path::new(&format!("/proc/{}/root", self.pid()?)).join(inside.trim_start_matches('/')))
    }

    /// The last lines of every log of this host.
    pub fn logs(&self, lines: usize) -> String {
        self.logs_since(&Lengths::new(), lines)
    }

    /// How long every log is by now.
    pub fn log_lengths(&self) -> Lengths {
        let length = |path: PathBuf| {
            let length = fs::metadata(&path).map_or(0, |it| it.len());
            (path, usize::try_from(length).unwrap_or(0))
        };
        self.log_paths().into_iter().map(length).collect()
    }

    fn log_paths(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.disk.join("log"));
        let mut paths: Vec<PathBuf> =
            entries.into_iter().flatten().flatten().map(|entry| entry.path()).collect();
        paths.sort();
        paths
    }

    /// The same of what was written since the logs had those lengths.
    pub fn logs_since(&self, begin: &Lengths, lines: usize) -> String {
        let mut all = String::new();
        for path in self.log_paths() {
            let mut bytes = Vec::new();
            let _ = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
            let begin = begin.get(&path).copied().unwrap_or(0);
            let log = String::from_utf8_lossy(bytes.get(begin..).unwrap_or_default());
            let log: Vec<&str> = log.lines().collect();
            let tail = log.get(log.len().saturating_sub(lines)..).unwrap_or_default();
            if !tail.is_empty() {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                all += &format!("---- {} {file}\n{}\n", self.name(), tail.join("\n"));
            }
        }
        all
    }

    /// The whole text of one log.
    pub fn log_text(&self, name: &str) -> String {
        fs::read(self.disk.join("log").join(name))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log(&self, name: &str) -> Outcome<File> {
        let path = self.disk.join("log").join(name);
        OpenOptions::new().create(true).append(true).open(path).map_err(text)
    }

    /// A disk is a private /etc (the machine's, copied) and a private, almost empty /var.
    fn format(&self) -> Outcome<()> {
        let script = r#"
            set -eu
            mkdir -p "$0"/log "$0"/sbin "$0"/var/lib/mysql "$0"/var/lib/tandem "$0"/var/www/html \
                "$0"/var/log "$0"/var/cache "$0"/var/lib/php/sessions
            mkdir -m 1777 "$0"/var/tmp
            ln -s /run "$0"/var/run
            cp -a /etc "$0"/etc
            mkdir -p "$0"/etc/tandem
            echo "$1" >"$0"/etc/hostname"#;
        let output = Command::new("bash")
            .args(["-c", script])
            .arg(&self.disk)
            .arg(self.name())
            .output()
            .map_err(text)?;
        if output.status.success() {
            return Ok(());
        }
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The world's end kills what runs here; only the handles have to be given back.
        let Some(running) = &mut self.running else { return };
        for (_, child) in &mut running.children {
            let _ = child.try_wait();
        }
    }
}

/// Runs `job` on a thread of its own in a network namespace.
pub fn inside<T: Send>(network: &File, job: impl FnOnce() -> T + Send) -> Outcome<T> {
    std::thread::scope(|scope| {
        scope
            .spawn(move || enter(network).map(|()| job()))
            .join()
            .unwrap_or_else(|_| Err("the thread in the namespace panicked".into()))
    })
}

/// Moves the calling thread into a network namespace; its sockets are made there from now on.
pub fn enter(network: &File) -> Outcome<()> {
    move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
        .map_err(|error| format!("cannot enter the network namespace: {error}"))
}

/// Waits until a TCP port of the host itself accepts.
pub fn wait_for_port(host: &Host, port: u16, limit: Duration) -> Outcome<Duration> {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let wait = Duration::from_millis(200);
    wait_until(&format!("{}: port {port} accepts", host.name()), limit, || {
        host.on_network(|| std::net::TcpStream::connect_timeout(&address, wait).is_ok())
            .unwrap_or(false)
    })
}

/// Every other process in the pid namespace of `init`, by its number out here.
fn processes_beside(init: u32) -> Outcome<Vec<u32>> {
    let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let own = space(init).ok_or_else(|| format!("process {init} has gone"))?;
    let numbers = fs::read_dir("/proc")
        .map_err(text)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Ok(numbers.filter(|pid| *pid != init && space(*pid).as_ref() == Some(&own)).collect())
}

fn to_pid(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).unwrap_or(i32::MAX))
}

pub fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
