//! A server in a process group of its own, which ends with whoever started it.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

pub(crate) struct Group(Child);

impl Group {
    /// Starts a program and waits until it listens; `None`, told, where it cannot be started.
    pub(crate) fn start(words: &[&str], address: SocketAddr, limit: Duration) -> Option<Self> {
        let path = format!("{}:/usr/sbin", std::env::var("PATH").unwrap_or_default());
        let spawned = Command::new(words[0])
            .args(&words[1..])
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let group = match spawned {
            Ok(child) => Self(child),
            Err(error) => {
                println!("skipped: {} cannot be started: {error}", words[0]);
                return None;
            }
        };
        let end = Instant::now() + limit;
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < end, "{words:?} did not come up on {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(group)
    }

    /// The first process of the group.
    pub(crate) fn leader(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.0.id()).unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        killpg(self.leader(), signal).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = killpg(self.leader(), Signal::SIGKILL);
        let _ = self.0.wait();
    }
}
