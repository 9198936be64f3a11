//! A world: two switches in a network namespace of their own, and a place for hosts.
//!
//! In: orders to make hosts and to pull cables. Out: nothing of the machine is touched: every
//! process of a world lives in the world's pid namespace, whose first process reads a pipe (the
//! lifeline) that only this process holds open. When the holder ends, however it ends, the kernel
//! kills every process of the world and the keeper removes the world's directory.
//! Must not: know what a database or tandem is.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Everything here fails with a sentence for a person.
pub type Outcome<T> = Result<T, String>;

/// The two networks of the scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    Outside,
    Inside,
}

impl Link {
    pub const ALL: [Self; 2] = [Self::Outside, Self::Inside];

    /// The switch's name, in the switches' namespace.
    pub const fn switch(self) -> &'static str {
        match self {
            Self::Outside => "outside",
            Self::Inside => "inside",
        }
    }

    /// The interface's name, in every host.
    pub const fn device(self) -> &'static str {
        match self {
            Self::Outside => "eth0",
            Self::Inside => "eth1",
        }
    }

    pub const fn index(self) -> usize {
        match self {
            Self::Outside => 0,
            Self::Inside => 1,
        }
    }
}

#[derive(Debug)]
pub struct World {
    dir: PathBuf,
    pid: u32,
    lifeline: Option<ChildStdin>,
    keeper: Child,
    kept: bool,
}

/// The first process of a world: says its pid (as this /proc sees it), then lives on the lifeline.
/// A host's processes are its grandchildren, in pid namespaces of their own.
const INIT: &str = "read -r pid _ </proc/self/stat; echo $pid; exec >/dev/null 2>&1; read -r _";
/// Outlives the holder to remove the directory; signals of the terminal are not for it.
const KEEPER: &str = "trap '' HUP INT TERM; \
    unshare --net --pid --fork bash -c \"$1\" || :; rm -rf -- \"$2\"";

impl World {
    /// Makes the namespaces and the two switches.
    pub fn new() -> Outcome<Self> {
        need_root()?;
        sweep();
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("{PREFIX}{}-{serial}", std::process::id()));
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        let mut keeper = Command::new("sh")
            .args(["-c", KEEPER, "keeper", INIT])
            .arg(&dir)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start unshare: {error}"))?;
        let lifeline = keeper.stdin.take();
        let pid = first_line_pid(&mut keeper)
            .ok_or("cannot make namespaces: this needs root and a kernel with namespaces")?;
        let world = Self { dir, pid, lifeline, keeper, kept: false };
        world.ip("link set lo up")?;
        for link in Link::ALL {
            let name = link.switch();
            // A plain switch: no spanning tree, no learning of multicast groups.
            world.ip(&format!("link add {name} type bridge stp_state 0 mcast_snooping 0"))?;
            world.ip(&format!("link set {name} up"))?;
        }
        Ok(world)
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The first process, as this process sees it: `nsenter -t PID -n` shows the switches.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Runs `ip` commands (one a line) in the switches' namespace, all in one go.
    pub fn ip(&self, lines: &str) -> Outcome<()> {
        batch(self.pid, "ip", lines)
    }

    /// Plugs a host's two cables in: interfaces eth0 and eth1 appear there, still down.
    pub fn plug(&self, host: &str, number: u8, pid: u32) -> Outcome<()> {
        for link in Link::ALL {
            let port = port(host, link);
            let (device, switch) = (link.device(), link.switch());
            // The same address after every boot, as a network card has.
            let mac = format!("02:7a:00:00:{number:02x}:{:02x}", link.index());
            self.ip(&format!(
                "link add {port} type veth peer name {device} address {mac} netns {pid}\n\
                 link set {port} master {switch} up"
            ))?;
        }
        Ok(())
    }

    /// Pulls or restores cables: the host's interface loses or regains its carrier.
    pub fn cable(&self, host: &str, links: &[Link], up: bool) -> Outcome<()> {
        let state = if up { "up" } else { "down" };
        let lines: Vec<String> =
            links.iter().map(|&link| format!("link set {} {state}", port(host, link))).collect();
        self.ip(&lines.join("\n"))
    }

    /// Cuts a cable in silence: the carrier stays, no frame passes.
    pub fn mute(&self, host: &str, link: Link, mute: bool) -> Outcome<()> {
        // Bridge port states of the kernel: 0 disabled, 3 forwarding.
        let state = if mute { 0 } else { 3 };
        batch(self.pid, "bridge", &format!("link set dev {} state {state}", port(host, link)))
    }

    /// Lets no multicast through to a host, as a filtering switch does.
    pub fn filter_multicast(&self, host: &str, link: Link, filter: bool) -> Outcome<()> {
        let flood = if filter { "off" } else { "on" };
        let lines = format!("link set dev {} mcast_flood {flood}", port(host, link));
        batch(self.pid, "bridge", &lines)
    }

    /// Takes a host's cables away for good; its interfaces vanish at once.
    pub fn unplug(&self, host: &str) -> Outcome<()> {
        for link in Link::ALL {
            self.ip(&format!("link del {}", port(host, link)))?;
        }
        Ok(())
    }

    /// Hands the lifeline to a sleeper, so that the world outlives this process. Returns the
    /// sleeper's pid: killing it ends the world.
    pub fn keep(&mut self) -> Outcome<u32> {
        let lifeline = self.lifeline.take().ok_or("the world has been kept already")?;
        let sleeper = Command::new("sleep")
            .arg("infinity")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::from(lifeline))
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(|error| format!("cannot start the sleeper: {error}"))?;
        self.kept = true;
        Ok(sleeper.id())
    }

    pub const fn is_kept(&self) -> bool {
        self.kept
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.kept {
            drop(self.lifeline.take());
            while let Ok(None) = self.keeper.try_wait() {
                continue_all();
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// Every nsenter that was started. One stops when the program that it started is stopped, and then
/// does not take note of that program's end, which the end of its world waits for.
static ENTERED: Mutex<Vec<u32>> = Mutex::new(Vec::new());

pub fn remember(pid: u32) {
    ENTERED.lock().unwrap_or_else(PoisonError::into_inner).push(pid);
}

fn continue_all() {
    for pid in ENTERED.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let pid = Pid::from_raw(i32::try_from(*pid).unwrap_or(i32::MAX));
        let _gone = kill(pid, Signal::SIGCONT);
    }
}

fn port(host: &str, link: Link) -> String {
    format!("{host}-{}", link.device())
}

/// Runs commands of `ip` or `bridge`, one a line, in the network namespace of `pid`.
pub fn batch(pid: u32, program: &str, lines: &str) -> Outcome<()> {
    let mut child = Command::new("nsenter")
        .args(["-t", &pid.to_string(), "-n", "--", program, "-batch", "-"])
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cannot start nsenter: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(lines.as_bytes()).map_err(|error| format!("{program}: {error}"))?;
        let _ = stdin.write_all(b"\n");
    }
    let output = child.wait_with_output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} {lines:?}: {}", why.trim()))
}

/// The pid that a namespace's first process prints.
pub fn first_line_pid(child: &mut Child) -> Option<u32> {
    let mut line = String::new();
    BufReader::new(child.stdout.take()?).read_line(&mut line).ok()?;
    line.trim().parse().ok()
}

/// Polls until `condition` holds; the time that it took, or what was waited for.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Outcome<Duration> {
    let start = Instant::now();
    loop {
        if condition() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > limit {
            return Err(format!("waited {:.1} s in vain: {what}", limit.as_secs_f64()));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn need_root() -> Outcome<()> {
    if rustix::process::geteuid().is_root() {
        return Ok(());
    }
    Err("end-to-end runs make network namespaces and need root (scripts/test --fast leaves them \
         out)"
        .into())
}

/// Removes what a keeper could not (the machine was reset, say): directories without their holder.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(rest) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        // A kept world's holder is gone, but its keeper still names the directory.
        let holder = rest.split('-').next().unwrap_or(rest);
        let used = Path::new("/proc").join(holder).exists() || is_named_by_a_process(&name);
        if !used {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn is_named_by_a_process(name: &std::ffi::OsStr) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return true };
    let name = name.as_encoded_bytes();
    entries.flatten().any(|entry| {
        fs::read(entry.path().join("cmdline"))
            .is_ok_and(|words| words.windows(name.len()).any(|part| part == name))
    })
}

const PREFIX: &str = "tandem-e2e-";
