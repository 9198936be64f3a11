//! `network`, of an appliance, which has no ip(8) and no ping(8): cards, routes and neighbours as
//! the kernel has them; `network ping ADDRESS`: whether somebody answers.
//!
//! Exit code 0: told, answered. 1: nobody answered. Read first: proc(5), /proc/net; RFC 792.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::net::icmp::Echo;
use crate::os::{clock, link};

const PINGS: u16 = 4;
const PING_PAUSE: Duration = Duration::from_secs(1);

pub(super) fn run(arguments: &[String]) -> ExitCode {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let told = match words.as_slice() {
        [] => look().map(|text| {
            super::put(&text);
            true
        }),
        ["ping", address] => match address.parse() {
            Ok(address) => ping(address),
            Err(_) => return super::wrong("network", "ping takes an IPv4 address"),
        },
        [..] => return super::wrong("network", "takes nothing, or ping and an address"),
    };
    match told {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => super::failed(&error.to_string()),
    }
}

fn look() -> io::Result<String> {
    let mut text = String::new();
    let mut names: Vec<String> = fs::read_dir("/sys/class/net")?
        .filter_map(|entry| Some(entry.ok()?.file_name().to_string_lossy().into_owned()))
        .collect();
    names.sort();
    for name in names.iter().filter(|name| *name != "lo") {
        let value = |file: &str| {
            let path = Path::new("/sys/class/net").join(name).join(file);
            fs::read_to_string(path).map_or_else(|_| "?".to_owned(), |text| text.trim().to_owned())
        };
        let carrier = if value("carrier") == "1" { "carrier" } else { "NO CARRIER" };
        let speed = value("speed").parse().ok().filter(|speed: &i64| *speed > 0);
        let speed = speed.map_or_else(String::new, |speed| format!(" {speed} Mbit/s"));
        let _infallible =
            writeln!(text, "{name:<8} {} {carrier}{speed}, mtu {}", value("address"), value("mtu"));
        for (what, way) in [("received", "rx"), ("sent", "tx")] {
            let count = |kind: &str| value(&format!("statistics/{way}_{kind}"));
            let _infallible = writeln!(
                text,
                "         {what:<8} {} packets, {} bytes, {} errors, {} dropped",
                count("packets"),
                count("bytes"),
                count("errors"),
                count("dropped")
            );
        }
    }
    text += &routes(&fs::read_to_string("/proc/net/route")?);
    text += &neighbours(&fs::read_to_string("/proc/net/arp")?);
    Ok(text)
}

/// /proc/net/route: device, destination, gateway, flags, ..., mask (the eighth), in hexadecimal
/// digits of the machine's own order.
fn routes(table: &str) -> String {
    let mut text = String::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [device, destination, gateway, _, _, _, _, mask, ..] = fields.as_slice() else {
            continue;
        };
        let number = |digits: &str| u32::from_str_radix(digits, 16).unwrap_or(0);
        let address = |digits: &str| Ipv4Addr::from(number(digits).to_ne_bytes());
        let to = format!("{}/{}", address(destination), number(mask).count_ones());
        let by = match number(gateway) {
            0 => String::new(),
            _ => format!(" by {}", address(gateway)),
        };
        let _infallible = writeln!(text, "route    {to}{by} on {device}");
    }
    text
}

/// /proc/net/arp: address, type, flags, MAC address, mask, device.
fn neighbours(table: &str) -> String {
    let mut text = String::new();
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [address, _, flags, mac, _, device] = fields.as_slice() else { continue };
        let seen = if *flags == "0x0" { "does not answer" } else { mac };
        let _infallible = writeln!(text, "near     {address} {seen} on {device}");
    }
    text
}

/// Whether it answered at least once.
fn ping(address: Ipv4Addr) -> io::Result<bool> {
    let socket = link::open_echo()?;
    socket.set_nonblocking(false)?;
    let identifier = u16::try_from(std::process::id() & 0xffff).unwrap_or(0);
    let mut has_answered = false;
    for sequence in 1..=PINGS {
        let sent_at = clock::now();
        let to = SocketAddr::from((address, 0)).into();
        socket.send_to(&Echo { identifier, sequence }.request(), &to)?;
        let mut answered = None;
        while let Some(left) = PING_PAUSE.checked_sub(clock::now().since(sent_at)) {
            socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut datagram = [0; 512];
            let Ok(count) = (&socket).read(&mut datagram) else { continue };
            let reply = Echo::parse_reply(&datagram[..count]);
            if reply == Some((address, Echo { identifier, sequence })) {
                answered.get_or_insert_with(|| clock::now().since(sent_at));
            }
        }
        match answered {
            Some(time) => println!("{address} answers after {:.1} ms", time.as_secs_f64() * 1000.0),
            None => println!("{address} does not answer"),
        }
        has_answered |= answered.is_some();
    }
    Ok(has_answered)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_tables_are_read() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\n\
            eth0\t00000000\t0199600A\t0003\t0\t0\t0\t00000000\t0\n\
            eth1\t0003A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n";
        assert_eq!(
            routes(table),
            "route    0.0.0.0/0 by 10.96.153.1 on eth0\nroute    192.168.3.0/24 on eth1\n"
        );
        let table = "IP address    HW type   Flags     HW address            Mask   Device\n\
            192.168.3.101    0x1         0x2         02:7a:00:00:02:01     *        eth1\n\
            10.96.153.9      0x1         0x0         00:00:00:00:00:00     *        eth0\n";
        assert_eq!(
            neighbours(table),
            "near     192.168.3.101 02:7a:00:00:02:01 on eth1\n\
             near     10.96.153.9 does not answer on eth0\n"
        );
    }
}
