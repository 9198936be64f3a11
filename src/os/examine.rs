//! Looks at this host for `tandem doctor`.
//!
//! In: a configuration. Out: facts, as `doctor` wants them. Must not: judge, change anything.
//! Read first: proc(5); getifaddrs(3); `doctor::host`.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;

use super::listener;
use crate::config::Config;
use crate::doctor::host::{Device, Facts, Listener, Ping};
use crate::web::probe::{self, Probe};
use crate::wire::HostId;

/// Of a ping of php-fpm, and of its connection.
const PING_LIMIT: Duration = Duration::from_secs(1);
/// TCP_CLOSE, which a UDP socket without a peer is in.
const UNCONNECTED: &str = "07";

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
fn programs() -> Vec<(i32, String)> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let name = fs::read_to_string(entry.path().join("comm")).ok()?;
            Some((pid, name.trim().to_owned()))
        })
        .collect()
}

fn listeners(programs: &[(i32, String)]) -> Vec<Listener> {
    let mut found = Vec::new();
    for (file, is_udp) in [("tcp", false), ("tcp6", false), ("udp", true), ("udp6", true)] {
        let table = fs::read_to_string(format!("/proc/net/{file}")).unwrap_or_default();
        let state = if is_udp { UNCONNECTED } else { listener::LISTEN };
        for (address, inode) in listener::sockets(&table, state) {
            let program = owner(programs, inode).unwrap_or_else(|| "somebody".into());
            found.push(Listener { is_udp, address, program });
        }
    }
    found
}

fn owner(programs: &[(i32, String)], inode: u64) -> Option<String> {
    let (pid, name) = programs.iter().find(|(pid, _)| listener::holds(*pid, &[inode]))?;
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
    fn a_closed_port_is_no_php() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        assert_eq!(ping(address), Ping::Silent);
        drop(listener);
        assert!(matches!(ping(address), Ping::Unreachable(_)));
    }
}
