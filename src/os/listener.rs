//! The process that listens on a TCP address of this host, and its end.
//!
//! In: an address. Out: SIGKILL. Must not: end a process that it has not seen listening.
//! Read first: proc(5), /proc/net/tcp and /proc/PID/fd; pidfd_open(2).
//!
//! A database is found by its socket and not by a file that names a process: that file may be
//! wrong, and the number in it another process by now.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use nix::sys::signal::{Signal, kill};
use rustix::process::{Pid, PidfdFlags, pidfd_open, pidfd_send_signal};

/// Ends whatever listens on `address`; yields the processes, none if nothing listens there.
pub fn end(address: SocketAddrV4) -> io::Result<Vec<i32>> {
    let mut inodes = listening(&fs::read_to_string("/proc/net/tcp")?, address);
    // Not there when the kernel has no IPv6.
    inodes.extend(listening(&fs::read_to_string("/proc/net/tcp6").unwrap_or_default(), address));
    let mut ended = Vec::new();
    if inodes.is_empty() {
        return Ok(ended);
    }
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if holds(pid, &inodes) && end_process(pid, &inodes)? {
            ended.push(pid);
        }
    }
    Ok(ended)
}

/// The handle is taken first: what listens afterwards is what the handle stands for.
fn end_process(pid: i32, inodes: &[u64]) -> io::Result<bool> {
    let handle = Pid::from_raw(pid).map(|pid| pidfd_open(pid, PidfdFlags::empty()));
    match handle {
        Some(Ok(handle)) if holds(pid, inodes) => {
            pidfd_send_signal(handle, rustix::process::Signal::KILL)?;
        }
        Some(Ok(_)) | None => return Ok(false),
        // Linux before 5.3.
        Some(Err(rustix::io::Errno::NOSYS)) => {
            kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        Some(Err(error)) => return Err(error.into()),
    }
    Ok(true)
}

/// Whether one of the sockets is open in that process. One that ends meanwhile holds nothing.
pub(super) fn holds(pid: i32, inodes: &[u64]) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.flatten().any(|entry| {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        let socket = target.to_str().and_then(|text| text.strip_prefix("socket:["));
        let inode = socket.and_then(|text| text.strip_suffix(']')).and_then(|n| n.parse().ok());
        inode.is_some_and(|inode| inodes.contains(&inode))
    })
}

/// TCP_LISTEN.
pub(super) const LISTEN: &str = "0A";

/// The sockets of a table of /proc/net that are in `state`: local address and inode.
pub(super) fn sockets(table: &str, state: &str) -> Vec<(SocketAddr, u64)> {
    let read = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _remote, is) = (words.next()?, words.next()?, words.next()?);
        let (host, port) = local.split_once(':')?;
        let address = SocketAddr::new(address(host)?, u16::from_str_radix(port, 16).ok()?);
        // tx:rx, timer, retransmits, uid, timeout.
        let inode = words.nth(5)?.parse().ok()?;
        (is == state).then_some((address, inode))
    };
    table.lines().skip(1).filter_map(read).collect()
}

/// The inodes of the sockets that listen on `address`, or on its port of every address.
fn listening(table: &str, address: SocketAddrV4) -> Vec<u64> {
    let listeners = sockets(table, LISTEN).into_iter();
    listeners
        .filter(|(at, _)| at.port() == address.port() && takes_in(at.ip(), *address.ip()))
        .map(|(_, inode)| inode)
        .collect()
}

/// Whether a socket on `at` gets what is sent to `wanted`.
fn takes_in(at: IpAddr, wanted: Ipv4Addr) -> bool {
    at.is_unspecified() || at.to_canonical() == IpAddr::V4(wanted)
}

/// An address of the table: words in the machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |index: usize| u32::from_str_radix(text.get(index * 8..index * 8 + 8)?, 16).ok();
    let words: Option<Vec<u32>> = (0..text.len() / 8).map(word).collect();
    let bytes: Vec<u8> = words?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if let Ok(bytes) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    <[u8; 16]>::try_from(&bytes[..]).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_tell_who_waits() {
        let line = |local: &str, state: &str| {
            format!("0: {local} 00000000:0000 {state} 0:0 00:0 00000000 999 0 4711 1 0 100\n")
        };
        let table = "header\n".to_owned()
            + &line("00000000:0050", "0A")
            + &line("0100007F:0CEA", "01")
            + &line(&format!("{:032}:0CEB", 0), "0A")
            + "junk\n: :\n";
        let found: Vec<String> = sockets(&table, LISTEN)
            .iter()
            .map(|(address, inode)| format!("{address} {inode}"))
            .collect();
        assert_eq!(found, ["0.0.0.0:80 4711", "[::]:3307 4711"]);
    }

    #[test]
    fn the_table_tells_who_listens() {
        let line = |local: &str, state: &str, inode: u64| {
            format!("0: {local} 00000000:0000 {state} 0:0 00:0 00000000 999 0 {inode} 1 0 100\n")
        };
        let v4 = "  sl  local_address rem_address st tx_queue rx_queue tr tm->when\n".to_owned()
            + &line("6403A8C0:0CEA", "0A", 4711)
            + &line("00000000:0CEB", "0A", 4712)
            + &line("6403A8C0:0CEA", "01", 4713);
        let at = |port| SocketAddrV4::new(Ipv4Addr::new(192, 168, 3, 100), port);
        if cfg!(target_endian = "little") {
            assert_eq!(listening(&v4, at(3306)), [4711], "and not its connections");
        }
        assert_eq!(listening(&v4, at(3307)), [4712], "on every address");
        assert!(listening(&v4, at(3308)).is_empty());
        assert!(listening("junk\nand more\n: : :\n", at(3306)).is_empty());
        let v6 = "header\n".to_owned() + &line(&format!("{:032}:0CEA", 0), "0A", 4714);
        assert_eq!(listening(&v6, at(3306)), [4714]);
    }

    #[test]
    fn whoever_listens_is_ended_and_nobody_else() {
        use std::net::TcpListener;
        use std::os::fd::AsFd;
        use std::process::{Command, Stdio};
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let SocketAddr::V4(address) = listener.local_addr().expect("bound") else {
            panic!("asked for IPv4");
        };
        let holder = listener.as_fd().try_clone_to_owned().expect("a second handle");
        let mut child = Command::new("sleep")
            .arg("30")
            .stdin(Stdio::from(holder))
            .spawn()
            .expect("sleep is installed");
        drop(listener);
        let pid = i32::try_from(child.id()).expect("a pid");
        // The socket is still the child's standard input.
        assert_eq!(end(address).expect("proc is mounted"), [pid]);
        assert!(!child.wait().expect("our own child").success());
        assert!(end(address).expect("proc is mounted").is_empty());
    }
}
