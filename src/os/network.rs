//! The network as the node sees it: every socket of both links, every interface, and the kernel's
//! own messages; read by one task each.
//!
//! In: bytes to send. Out: `node::Input` through one bounded queue. Must not: decide.
//! Read first: `link` and `route` (the sockets).

use std::io::{self, Read};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use async_io::{Async, Timer};
use smol::LocalExecutor;
use smol::channel::Sender;
use socket2::Socket;

use super::link::{DeviceSockets, Endpoints, LinkSockets, open_echo};
use super::route;
use crate::config::Config;
use crate::limits;
use crate::net::netlink;
use crate::node::Input;
use crate::wire::{DeviceId, HostId, LinkId};

pub type Executor = Rc<LocalExecutor<'static>>;

#[derive(Debug)]
pub struct Network {
    links: Rc<[LinkSockets; 2]>,
    /// By `DeviceId`.
    devices: Rc<[DeviceSockets]>,
    netlink: Rc<Async<OwnedFd>>,
    /// Where there are witnesses beyond the two networks.
    echo: Option<Rc<Async<Socket>>>,
}

impl Network {
    /// Opens every socket.
    pub fn open(config: &Config, me: HostId) -> io::Result<Self> {
        let [outside, inside] = LinkId::ALL.map(|link| open_link(config, me, link));
        let has_ipv6 =
            config.links.iter().flat_map(|it| &it.vip).any(|vip| vip.address.address.is_ipv6());
        let devices = config.devices().into_iter();
        let devices = devices.map(|name| DeviceSockets::open(name, has_ipv6));
        Ok(Self {
            links: Rc::new([outside?, inside?]),
            devices: devices.collect::<io::Result<Vec<_>>>()?.into(),
            netlink: Rc::new(Async::new_nonblocking(route::open(netlink::GROUPS)?)?),
            echo: match config.peer.witnesses.is_empty() {
                true => None,
                false => Some(Rc::new(Async::new_nonblocking(open_echo()?)?)),
            },
        })
    }

    #[must_use]
    pub fn link(&self, link: LinkId) -> &LinkSockets {
        &self.links[link.index()]
    }

    pub fn send_frame(&self, device: DeviceId, frame: &[u8]) -> io::Result<()> {
        self.devices.get(device.index()).map_or(Ok(()), |sockets| sockets.send(frame))
    }

    pub fn send_echo(&self, destination: Ipv4Addr, message: &[u8]) -> io::Result<()> {
        let to = SocketAddr::from((destination, 0)).into();
        self.echo.as_ref().map_or(Ok(()), |it| it.get_ref().send_to(message, &to).map(drop))
    }

    pub fn send_netlink(&self, request: &[u8]) -> io::Result<()> {
        route::send(self.netlink.get_ref(), request)
    }

    /// Starts the tasks that read every socket; what comes in goes to `inputs`.
    pub fn start_readers(&self, executor: &Executor, inputs: &Sender<Input>) {
        for link in LinkId::ALL {
            for place in 0..self.links[link.index()].vrrp.len() {
                let sockets = self.links.clone();
                spawn_reader(executor, inputs.clone(), async move |buffer| {
                    let receiver = &sockets[link.index()].vrrp[place];
                    Ok((receiver.receive(buffer).await?, Make::Vrrp(link)))
                });
            }
            let sockets = self.links.clone();
            spawn_reader(executor, inputs.clone(), async move |buffer| {
                let count = sockets[link.index()].beacon.recv(buffer).await?;
                Ok((count, Make::Beacon(link)))
            });
            let sockets = self.links.clone();
            spawn_reader(executor, inputs.clone(), async move |buffer| {
                let socket = &sockets[link.index()].icmp;
                let count = socket.read_with(|mut socket| socket.read(buffer)).await?;
                Ok((count, Make::Icmp(link)))
            });
        }
        for (place, sockets) in self.devices.iter().enumerate() {
            let Some(device) = DeviceId::new(place) else { continue };
            for number in 0..sockets.frames.len() {
                let devices = self.devices.clone();
                spawn_reader(executor, inputs.clone(), async move |buffer| {
                    let socket = &devices[place].frames[number];
                    let read = |fd: &OwnedFd| Ok(rustix::io::read(fd, &mut buffer[..])?);
                    Ok((socket.read_with(read).await?, Make::Frame(device)))
                });
            }
        }
        if let Some(socket) = self.echo.clone() {
            spawn_reader(executor, inputs.clone(), async move |buffer| {
                let count = socket.read_with(|mut socket| socket.read(buffer)).await?;
                Ok((count, Make::Echo))
            });
        }
        let socket = self.netlink.clone();
        spawn_reader(executor, inputs.clone(), async move |buffer| {
            match socket.read_with(|fd| route::receive(fd, buffer)).await {
                Ok(count) => Ok((count, Make::Netlink)),
                // netlink(7): the socket's buffer was too small for what happened.
                Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => {
                    Ok((0, Make::NetlinkLost))
                }
                Err(error) => Err(error),
            }
        });
    }
}

/// Reads one socket for ever, a bounded number of datagrams before others get their turn.
fn spawn_reader<F>(executor: &Executor, inputs: Sender<Input>, mut receive: F)
where
    F: AsyncFnMut(&mut [u8]) -> io::Result<(usize, Make)> + 'static,
{
    executor
        .spawn(async move {
            let mut buffer = vec![0; 32 * 1024];
            loop {
                for _ in 0..limits::DATAGRAMS_PER_TURN {
                    match receive(&mut buffer).await {
                        Ok((count, make)) => {
                            let datagram = buffer.get(..count).unwrap_or(&[]).to_vec();
                            if inputs.send(make.call(datagram)).await.is_err() {
                                return;
                            }
                        }
                        // The interface is down, or the queue overflowed: go on reading.
                        Err(error) => {
                            log::debug!("receive: {error}");
                            Timer::after(Duration::from_millis(50)).await;
                        }
                    }
                }
                smol::future::yield_now().await;
            }
        })
        .detach();
}

/// Makes an input of a datagram.
#[derive(Debug, Clone, Copy)]
enum Make {
    Vrrp(LinkId),
    Frame(DeviceId),
    Beacon(LinkId),
    Icmp(LinkId),
    Echo,
    Netlink,
    NetlinkLost,
}

impl Make {
    fn call(self, datagram: Vec<u8>) -> Input {
        match self {
            Self::Vrrp(link) => Input::Vrrp { link, datagram },
            Self::Frame(device) => Input::Frame { device, frame: datagram },
            Self::Icmp(link) => Input::Icmp { link, datagram },
            Self::Echo => Input::Echo { datagram },
            Self::Beacon(link) => Input::Beacon { link, datagram },
            Self::Netlink => Input::Netlink { datagram },
            Self::NetlinkLost => Input::NetlinkLost,
        }
    }
}

fn open_link(config: &Config, me: HostId, link: LinkId) -> io::Result<LinkSockets> {
    let has = |is_meant: fn(&IpAddr) -> bool| {
        config.link(link).vip.iter().any(|vip| is_meant(&vip.address.address))
    };
    LinkSockets::open(Endpoints {
        device: config.link(link).device.clone(),
        own: config.host(me).address(link).address,
        peer: config.host(me.other()).address(link).address,
        beacon_port: config.peer.port,
        has_ipv4: has(IpAddr::is_ipv4),
        has_ipv6: has(IpAddr::is_ipv6),
    })
    .map_err(|error| io::Error::new(error.kind(), format!("{link} link: {error}")))
}
