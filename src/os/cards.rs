//! The appliance's network cards: which is which, under the configuration's names, with this host's
//! addresses.
//!
//! In: board, identity, configuration. Out: links that are up. Must not: add a virtual address (the
//! node does). Read first: `appliance::board`, `net::netlink`; rtnetlink(7).

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, poll};

use super::route;
use crate::appliance::board::{self, Board, Found, Identity};
use crate::config::Config;
use crate::net::netlink::{self, Event};
use crate::units::IpCidr;
use crate::wire::{HostId, LinkId};

const CLASS: &str = "/sys/class/net";

/// Takes the loopback and both links up.
pub(super) fn set_up(
    config: &Config,
    me: HostId,
    board: &Board,
    identity: &Identity,
) -> Result<(), String> {
    let cards = found().map_err(|error| format!("{CLASS}: {error}"))?;
    let chosen = board::choose(board, identity, cards)?;
    let kernel = Kernel::open().map_err(|error| format!("netlink: {error}"))?;
    kernel.set_up("lo")?;
    // Each under a name that nobody has, as one card's new name may be the other one's old.
    for (link, name) in LinkId::ALL.into_iter().zip(&chosen) {
        kernel.rename(name, &format!("tandem-{link}"))?;
    }
    for link in LinkId::ALL {
        let name = &config.link(link).device;
        kernel.rename(&format!("tandem-{link}"), name)?;
        let own = config.host(me).address(link);
        let address = IpCidr { address: IpAddr::V4(own.address), prefix: own.prefix };
        let index = index(name)?;
        kernel.ask(name, &netlink::set_address(1, index, address, None, None))?;
        kernel.set_up(name)?;
        if let Some(gateway) = config.link(link).gateway.filter(|_| link == LinkId::Outside) {
            kernel.ask(name, &netlink::add_default_route(1, index, gateway))?;
        }
    }
    Ok(())
}

/// Every card with a device behind it.
fn found() -> io::Result<Vec<Found>> {
    let mut cards = Vec::new();
    for entry in fs::read_dir(CLASS)? {
        let entry = entry?;
        let path = fs::canonicalize(entry.path())?;
        if !path.join("device").exists() {
            continue;
        }
        let text = fs::read_to_string(path.join("address"))?;
        let octets: Option<Vec<u8>> =
            text.trim().split(':').map(|part| u8::from_str_radix(part, 16).ok()).collect();
        let Some(mac) = octets.and_then(|octets| octets.try_into().ok()) else { continue };
        cards.push(Found {
            name: entry.file_name().to_string_lossy().into_owned(),
            mac,
            path: path.to_string_lossy().into_owned(),
        });
    }
    Ok(cards)
}

fn index(name: &str) -> Result<u32, String> {
    let path = Path::new(CLASS).join(name).join("ifindex");
    let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    text.trim().parse().map_err(|_| format!("{}: {text:?}", path.display()))
}

/// A netlink socket that waits for each answer.
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> io::Result<Self> {
        route::open(0).map(Self)
    }

    fn set_up(&self, name: &str) -> Result<(), String> {
        self.ask(name, &netlink::set_up(1, index(name)?))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), String> {
        match from == to {
            true => Ok(()),
            false => self.ask(from, &netlink::rename(1, index(from)?, to)),
        }
    }

    fn ask(&self, name: &str, request: &[u8]) -> Result<(), String> {
        let error = self.answer(request).map_err(|error| format!("{name}: netlink: {error}"))?;
        match error {
            0 => Ok(()),
            error => Err(format!("{name}: {}", io::Error::from_raw_os_error(-error))),
        }
    }

    /// 0, or a negative errno.
    fn answer(&self, request: &[u8]) -> io::Result<i32> {
        route::send(self.0.as_fd(), request)?;
        let mut buffer = [0; 4096];
        loop {
            poll(&mut [PollFd::new(&self.0, PollFlags::IN)], None)?;
            let length = route::receive(self.0.as_fd(), &mut buffer)?;
            for event in netlink::parse(&buffer[..length]) {
                if let Event::Acknowledged { error, .. } = event {
                    return Ok(error);
                }
            }
        }
    }
}
