//! The sockets of one link: VRRP in and out, ARP, beacons.
//!
//! In: bytes to send. Out: bytes received. Must not: look into them.
//! Read first: facts/vrrp.md 1.8; raw(7), packet(7), ip(7).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;

use async_io::Async;
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use super::sys::PacketAddress;
use crate::vrrp::packet;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;

/// Where the link's traffic goes from and to.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub device: String,
    pub index: u32,
    pub own: Ipv4Addr,
    pub peer: Ipv4Addr,
    pub beacon_port: u16,
}

#[derive(Debug)]
pub struct LinkSockets {
    pub vrrp: Async<Socket>,
    pub arp: Async<OwnedFd>,
    /// Sees frames of VRRP before the firewall does.
    pub frames: Async<Socket>,
    pub beacon: Async<UdpSocket>,
    sender: Socket,
    endpoints: Endpoints,
}

impl LinkSockets {
    pub fn open(endpoints: Endpoints) -> io::Result<Self> {
        Ok(Self {
            vrrp: Async::new_nonblocking(open_receiver(&endpoints)?)?,
            arp: Async::new_nonblocking(open_arp(endpoints.index)?)?,
            frames: Async::new_nonblocking(open_frames(endpoints.index)?)?,
            beacon: Async::new_nonblocking(open_beacon(&endpoints)?)?,
            sender: open_sender(&endpoints.device, endpoints.own)?,
            endpoints,
        })
    }

    pub fn send_vrrp(&self, datagram: &[u8]) -> io::Result<()> {
        send_advertisement(&self.sender, datagram)
    }

    pub fn send_arp(&self, frame: &[u8]) -> io::Result<()> {
        let address = PacketAddress::new(self.endpoints.index, ETH_P_ARP);
        net::sendto(self.arp.get_ref(), frame, SendFlags::empty(), &address)?;
        Ok(())
    }

    pub fn send_beacon(&self, datagram: &[u8]) -> io::Result<()> {
        let peer = SocketAddrV4::new(self.endpoints.peer, self.endpoints.beacon_port);
        self.beacon.get_ref().send_to(datagram, peer)?;
        Ok(())
    }
}

/// A socket for whole datagrams of protocol 112, header included; it receives nothing.
pub fn open_sender(device: &str, own: Ipv4Addr) -> io::Result<Socket> {
    let socket = raw_socket()?;
    socket.set_header_included_v4(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_recv_buffer_size(0)?;
    Ok(socket)
}

pub fn send_advertisement(sender: &Socket, datagram: &[u8]) -> io::Result<()> {
    sender.send_to(datagram, &SocketAddr::from((packet::GROUP, 0)).into())?;
    Ok(())
}

fn raw_socket() -> io::Result<Socket> {
    let protocol = Protocol::from(i32::from(packet::PROTOCOL));
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open_receiver(endpoints: &Endpoints) -> io::Result<Socket> {
    let socket = raw_socket()?;
    socket.bind_device(Some(endpoints.device.as_bytes()))?;
    socket.set_multicast_all_v4(false)?;
    let interface = InterfaceIndexOrAddress::Index(endpoints.index);
    socket.join_multicast_v4_n(&packet::GROUP, &interface)?;
    socket.bind(&SocketAddr::from((packet::GROUP, 0)).into())?;
    Ok(socket)
}

fn open_arp(index: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Protocol 0 receives nothing until bind names one (packet(7)).
    let socket = net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    net::bind(&socket, &PacketAddress::new(index, ETH_P_ARP))?;
    Ok(socket)
}

/// A packet socket that the kernel feeds with IPv4 frames of protocol 112 and nothing else.
fn open_frames(index: u32) -> io::Result<Socket> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, None)?;
    let socket = Socket::from(socket);
    // Classic BPF over the IP header: ldb [9]; jeq #112; return all or nothing (linux/filter.h).
    socket.attach_filter(&[
        SockFilter::new(0x30, 0, 0, 9),
        SockFilter::new(0x15, 0, 1, u32::from(packet::PROTOCOL)),
        SockFilter::new(0x06, 0, 0, u32::MAX),
        SockFilter::new(0x06, 0, 0, 0),
    ])?;
    net::bind(&socket, &PacketAddress::new(index, ETH_P_IP))?;
    Ok(socket)
}

fn open_beacon(endpoints: &Endpoints) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    // The address may come later than the daemon at boot.
    socket.set_freebind_v4(true)?;
    socket.bind_device(Some(endpoints.device.as_bytes()))?;
    // Internetwork control, as VRRP itself.
    socket.set_tos_v4(0xc0)?;
    socket.bind(&SocketAddr::from((endpoints.own, endpoints.beacon_port)).into())?;
    Ok(socket.into())
}

/// The kernel's number of an interface.
pub fn index_of(device: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let index = net::netdevice::name_to_index(&socket, device)?;
    NonZeroU32::new(index)
        .map(NonZeroU32::get)
        .ok_or_else(|| io::Error::other(format!("interface {device} has no index")))
}
