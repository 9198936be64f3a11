//! Descriptors run out: in a process of its own, since the limit is the process's.

use std::io::{BufRead, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::backend::Backend;
use crate::client::{Client, get};
use crate::front::Front;

/// The process whose descriptors run out; its parent is the test below.
#[test]
#[ignore = "run by the test beside it"]
fn child() {
    let backends = Backend::pair();
    let front = Front::start(backends.each_ref().map(|backend| backend.address));
    let limit = Rlimit { current: Some(48), ..getrlimit(Resource::Nofile) };
    setrlimit(Resource::Nofile, limit).unwrap();
    println!("address {}", front.address);
    // The parent closes it when it is done.
    let _ = std::io::stdin().read(&mut [0]);
}

/// User and system time of a process in clock ticks (proc(5), stat).
fn ticks(process: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[test]
fn accepting_pauses_without_spinning_and_recovers() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "exhaustion::child", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let address: SocketAddr = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .find_map(|line| Some(line.split_once("address ")?.1.parse().unwrap()))
        .expect("the child says where it listens");
    let mut clients: Vec<Client> = (0..100).map(|_| Client::connect(address)).collect();
    std::thread::sleep(Duration::from_millis(300));
    let before = ticks(child.id());
    std::thread::sleep(Duration::from_millis(1000));
    let used = ticks(child.id()) - before;
    println!("{used} ticks of CPU in a second without descriptors");
    assert!(used < 30, "{used} ticks");
    clients.clear();
    assert_eq!(get(address, "/range.txt").status, 200);
    drop(child.stdin.take());
    child.wait().unwrap();
}
