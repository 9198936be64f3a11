//! Looks at this host for `tandem doctor`.
//!
//! In: a configuration. Out: facts, as `doctor` wants them. Must not: judge, change anything.
//! Read first: proc(5); getifaddrs(3); `doctor::host`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use crate::config::Config;
use crate::doctor::host::{Device, Facts, Listener, Ping};
use crate::web::probe::{self, Probe};
use crate::wire::HostId;

/// Of a ping of php-fpm, and of its connection.
const PING_LIMIT: Duration = Duration::from_secs(1);

pub fn host(config: &Config, config_path: &str) -> io::Result<Facts> {
    let status = fs::read_to_string("/proc/self/status")?;
    let capabilities = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let programs = programs();
    Ok(Facts {
        kernel: rustix::system::uname().release().to_string_lossy().into_owned(),
        capabilities: capabilities
            .and_then(|text| u64::from_str_radix(text.trim(), 16).ok())
            .unwrap_or(0),
        devices: devices()?,
        listeners: listeners(&programs),
        programs: programs.into_iter().map(|(_, name)| name).collect(),
        config_path: config_path.to_owned(),
        config_mode: fs::metadata(config_path)?.mode(),
        addresses: HostId::ALL.map(|id| resolve(&config.host(id).name)),
        php: HostId::ALL.map(|id| {
            let address = IpAddr::V4(config.host(id).inside.address);
            ping(SocketAddr::new(address, config.web.php_port))
        }),
    })
}

/// What a program prints, where this host has it.
pub fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let path = "/usr/sbin:/sbin:/usr/bin:/bin";
    let output = Command::new(program).args(arguments).env("PATH", path).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn resolve(name: &str) -> Vec<IpAddr> {
    let found = (name, 0).to_socket_addrs();
    found.map(|all| all.map(|address| address.ip()).collect()).unwrap_or_default()
}

fn devices() -> io::Result<Vec<Device>> {
    let mut devices: Vec<Device> = Vec::new();
    for entry in getifaddrs().map_err(io::Error::from)? {
        let name = entry.interface_name;
        let at = devices.iter().position(|device| device.name == name).unwrap_or_else(|| {
            let carrier = fs::read_to_string(format!("/sys/class/net/{name}/carrier"));
            let has_carrier = carrier.is_ok_and(|text| text.trim() == "1");
            devices.push(Device { name, has_carrier, addresses: Vec::new() });
            devices.len() - 1
        });
        let address = entry.address.and_then(|address| {
            let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
        });
        if let Some(device) = devices.get_mut(at) {
            device.addresses.extend(address);
        }
    }
    Ok(devices)
}

/// Process and name of every program.
fn programs() -> Vec<(u32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        })
        .collect()
}

fn listeners(programs: &[(u32, String)]) -> Vec<Listener> {
    let mut found = Vec::new();
    for (file, is_udp) in [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)] {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        for (address, inode) in open_sockets(&table, is_udp) {
            let program = owner(programs, inode).unwrap_or_else(|| "somebody".into());
            found.push(Listener { is_udp, address, program });
        }
    }
    found
}

/// The sockets of a table that wait for somebody: local address and inode.
fn open_sockets(table: &str, is_udp: bool) -> Vec<(SocketAddr, u64)> {
    // TCP_LISTEN; an unconnected UDP socket is TCP_CLOSE.
    let wanted = if is_udp { "07" } else { "0A" };
    let read = |line: &str| {
        let mut words = line.split_ascii_whitespace().skip(1);
        let (local, _remote, state) = (words.next()?, words.next()?, words.next()?);
        let (host, port) = local.split_once(':')?;
        let address = SocketAddr::new(address(host)?, u16::from_str_radix(port, 16).ok()?);
        let inode = words.nth(5)?.parse().ok()?;
        (state == wanted).then_some((address, inode))
    };
    table.lines().skip(1).filter_map(read).collect()
}

/// An address of such a table: words in the machine's byte order.
fn address(text: &str) -> Option<IpAddr> {
    let word = |index: usize| u32::from_str_radix(text.get(index * 8..index * 8 + 8)?, 16).ok();
    let count = text.len() / 8;
    let words: Option<Vec<u32>> = (0..count).map(word).collect();
    let bytes: Vec<u8> = words?.iter().flat_map(|word| word.to_ne_bytes()).collect();
    if let Ok(bytes) = <[u8; 4]>::try_from(&bytes[..]) {
        return Some(IpAddr::V4(Ipv4Addr::from(bytes)));
    }
    <[u8; 16]>::try_from(&bytes[..]).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes)))
}

fn owner(programs: &[(u32, String)], inode: u64) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    let holds = |pid: u32| {
        let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        entries.into_iter().any(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        })
    };
    let (pid, name) = programs.iter().find(|(pid, _)| holds(*pid))?;
    Some(format!("{name} ({pid})"))
}

fn ping(address: SocketAddr) -> Ping {
    let talk = || -> io::Result<Option<bool>> {
        let mut stream = TcpStream::connect_timeout(&address, PING_LIMIT)?;
        stream.set_read_timeout(Some(PING_LIMIT))?;
        stream.write_all(&probe::ping())?;
        let (mut probe, mut buffer) = (Probe::default(), [0; 4096]);
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(Some(false)),
                Ok(count) => {
                    let bytes = buffer.get(..count).unwrap_or_default();
                    if let Some(is_answer) = probe.handle(bytes) {
                        return Ok(Some(is_answer));
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
                // php-fpm lets nobody else in: it closes what it has not read.
                Err(_reset) => return Ok(Some(false)),
            }
        }
    };
    match talk() {
        Ok(Some(true)) => Ping::Answered,
        Ok(Some(false)) => Ping::Closed,
        Ok(None) => Ping::Silent,
        Err(error) => Ping::Unreachable(error.to_string()),
    }
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
        let found: Vec<String> = open_sockets(&table, false)
            .iter()
            .map(|(address, inode)| format!("{address} {inode}"))
            .collect();
        assert_eq!(found, ["0.0.0.0:80 4711", "[::]:3307 4711"]);
    }

    #[test]
    fn a_closed_port_is_no_php() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        assert_eq!(ping(address), Ping::Silent);
        drop(listener);
        assert!(matches!(ping(address), Ping::Unreachable(_)));
    }
}
