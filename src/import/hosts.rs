//! Hosts: addresses of the two hosts, from the files of their networks.
//!
//! In: /etc/hosts, ifcfg files, /etc/network/interfaces. Out: addresses.
//! Must not: tell of lines that are about neither host.

use std::net::Ipv4Addr;

use super::draft::{Draft, Origin, Whose};

pub(super) fn read(draft: &mut Draft, at: &Origin, text: &str) {
    let name = at.path.rsplit('/').next().unwrap_or_default();
    match name {
        "hosts" => names(draft, at, text),
        _ => settings(draft, at, text, name == "interfaces"),
    }
}

fn names(draft: &mut Draft, at: &Origin, text: &str) {
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let mut words = line.split_whitespace();
        let Some(address) = words.next() else { continue };
        for name in words {
            let short = name.split('.').next().unwrap_or(name).to_owned();
            draft.see(Whose::Named(short), address, None, &at.at(index + 1));
        }
    }
}

/// `IPADDR=10.0.0.1` and `PREFIX=24` or `NETMASK=255.255.255.0`; `address 10.0.0.1/24` and
/// `netmask 255.255.255.0`.
fn settings(draft: &mut Draft, at: &Origin, text: &str, is_debian: bool) {
    let mut found: Vec<(String, Option<u8>, usize)> = Vec::new();
    let mut early = None;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        let pair = match is_debian {
            true => line.split_once(char::is_whitespace),
            false => line.split_once('='),
        };
        let Some((key, value)) = pair else { continue };
        let value = value.trim().trim_matches('"').trim_matches('\'');
        match key.to_ascii_lowercase().as_str() {
            "address" | "ipaddr" | "ipaddr0" => {
                let (address, prefix) = value.split_once('/').unwrap_or((value, ""));
                let prefix = prefix.parse().ok().or_else(|| early.take());
                found.push((address.to_owned(), prefix, index + 1));
            }
            "netmask" | "prefix" | "netmask0" | "prefix0" => {
                let prefix = prefix(value);
                match found.last_mut() {
                    Some(last) => last.1 = last.1.or(prefix),
                    None => early = prefix,
                }
            }
            _ => {}
        }
    }
    for (address, prefix, line) in found {
        draft.see(Whose::Own(at.host), &address, prefix, &at.at(line));
    }
}

fn prefix(text: &str) -> Option<u8> {
    let of_mask = |mask: Ipv4Addr| u8::try_from(u32::from(mask).leading_ones()).ok();
    let parsed = text.parse::<Ipv4Addr>().ok().and_then(of_mask).or_else(|| text.parse().ok());
    parsed.filter(|prefix| (1..=32).contains(prefix))
}
