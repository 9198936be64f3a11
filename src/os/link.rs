//! The sockets of one link: VRRP in and out, beacons; and of one interface: its Ethernet frames.
//!
//! In: bytes to send. Out: bytes received. Must not: look into them.
//! Read first: facts/vrrp.md 1.8; raw(7), packet(7), ip(7), ipv6(7).

use std::cell::OnceCell;
use std::io::{self, IoSliceMut, Read};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::num::NonZeroU32;
use std::os::fd::{AsRawFd, OwnedFd};

use async_io::Async;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, setsockopt, sockopt::Ipv6RecvPacketInfo,
};
use rustix::net::{self, AddressFamily, SendFlags, SocketFlags, SocketType};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockFilter, Socket, Type};

use super::sys::PacketAddress;
use crate::vrrp::packet;
use crate::vrrp::router::Datagram;

const ETH_P_IP: u16 = 0x0800;
const ETH_P_ARP: u16 = 0x0806;
const ETH_P_IPV6: u16 = 0x86dd;
/// IPPROTO_RAW: the sender writes the whole IPv6 header.
const PROTOCOL_RAW: i32 = 255;

/// Where the link's traffic goes from and to.
#[derive(Debug, Clone)]
pub struct Endpoints {
    pub device: String,
    pub own: Ipv4Addr,
    pub peer: Ipv4Addr,
    pub beacon_port: u16,
    /// Which families have virtual addresses here.
    pub has_ipv4: bool,
    pub has_ipv6: bool,
}

/// Where advertisements come in.
#[derive(Debug)]
pub enum Receiver {
    /// A raw socket of IPv4, bound to the group or to this host's address: the header is there.
    V4(Async<Socket>),
    /// A raw socket of IPv6: what its header said comes beside the message.
    V6(Async<Socket>),
}

#[derive(Debug)]
pub struct LinkSockets {
    pub vrrp: Vec<Receiver>,
    pub beacon: Async<UdpSocket>,
    /// Errors about what was sent.
    pub icmp: Async<Socket>,
    senders: Senders,
    endpoints: Endpoints,
}

impl LinkSockets {
    pub fn open(endpoints: Endpoints) -> io::Result<Self> {
        let index = index_of(&endpoints.device)?;
        let mut vrrp = Vec::new();
        if endpoints.has_ipv4 {
            let group = open_group_v4(&endpoints.device, index)?;
            let unicast = open_unicast_v4(&endpoints.device, endpoints.own)?;
            vrrp.push(Receiver::V4(Async::new_nonblocking(group)?));
            vrrp.push(Receiver::V4(Async::new_nonblocking(unicast)?));
        }
        if endpoints.has_ipv6 {
            let receiver = open_receiver_v6(&endpoints.device, index).map_err(|error| {
                let advice = "is IPv6 disabled there? its virtual addresses need it";
                io::Error::new(
                    error.kind(),
                    format!("IPv6 on {}: {error}: {advice}", endpoints.device),
                )
            })?;
            vrrp.push(Receiver::V6(Async::new_nonblocking(receiver)?));
        }
        Ok(Self {
            vrrp,
            beacon: Async::new_nonblocking(open_beacon(&endpoints)?)?,
            icmp: Async::new_nonblocking(open_icmp(&endpoints.device)?)?,
            senders: Senders::new(&endpoints.device),
            endpoints,
        })
    }

    pub fn send_vrrp(&self, datagram: &Datagram) -> io::Result<()> {
        self.senders.send(datagram)
    }

    pub fn send_beacon(&self, datagram: &[u8]) -> io::Result<()> {
        let peer = SocketAddrV4::new(self.endpoints.peer, self.endpoints.beacon_port);
        self.beacon.get_ref().send_to(datagram, peer)?;
        Ok(())
    }
}

impl Receiver {
    /// The next datagram, IP header first.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::V4(socket) => socket.read_with(|mut socket| socket.read(buffer)).await,
            Self::V6(socket) => socket.read_with(|socket| receive_v6(socket, buffer)).await,
        }
    }
}

/// Sockets that send whole datagrams of protocol 112, header included; each is opened when it is
/// first needed, and receives nothing.
#[derive(Debug)]
pub struct Senders {
    device: String,
    v4: OnceCell<Socket>,
    /// With the interface's number, which is the scope of link-local addresses.
    v6: OnceCell<(Socket, u32)>,
}

impl Senders {
    #[must_use]
    pub fn new(device: &str) -> Self {
        Self { device: device.to_owned(), v4: Default::default(), v6: Default::default() }
    }

    pub fn send(&self, datagram: &Datagram) -> io::Result<()> {
        match (datagram.source, datagram.destination) {
            (IpAddr::V4(own), IpAddr::V4(destination)) => {
                let to = SocketAddr::from((destination, 0)).into();
                let open = || open_sender_v4(&self.device, own);
                get_or_open(&self.v4, open)?.send_to(&datagram.bytes, &to)
            }
            (_, IpAddr::V6(destination)) => {
                let (socket, index) = get_or_open(&self.v6, || open_sender_v6(&self.device))?;
                let to = SocketAddr::from(SocketAddrV6::new(destination, 0, 0, *index)).into();
                socket.send_to(&datagram.bytes, &to)
            }
            (IpAddr::V6(_), IpAddr::V4(_)) => Err(io::ErrorKind::InvalidInput.into()),
        }?;
        Ok(())
    }
}

fn get_or_open<T>(cell: &OnceCell<T>, open: impl FnOnce() -> io::Result<T>) -> io::Result<&T> {
    if let Some(opened) = cell.get() {
        return Ok(opened);
    }
    let opened = open()?;
    Ok(cell.get_or_init(|| opened))
}

fn raw_socket(domain: Domain, protocol: i32) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(protocol)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

fn open_sender_v4(device: &str, own: Ipv4Addr) -> io::Result<Socket> {
    let socket = raw_socket(Domain::IPV4, packet::PROTOCOL.into())?;
    socket.set_header_included_v4(true)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_loop_v4(false)?;
    // It is never read: nothing may be queued on it.
    socket.attach_filter(&[SockFilter::new(0x06, 0, 0, 0)])?;
    Ok(socket)
}

fn open_sender_v6(device: &str) -> io::Result<(Socket, u32)> {
    let index = index_of(device)?;
    let socket = raw_socket(Domain::IPV6, PROTOCOL_RAW)?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_if_v6(index)?;
    socket.set_multicast_loop_v6(false)?;
    Ok((socket, index))
}

fn open_group_v4(device: &str, index: u32) -> io::Result<Socket> {
    let socket = raw_socket(Domain::IPV4, packet::PROTOCOL.into())?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.set_multicast_all_v4(false)?;
    let interface = InterfaceIndexOrAddress::Index(index);
    socket.join_multicast_v4_n(&packet::GROUP, &interface)?;
    socket.bind(&SocketAddr::from((packet::GROUP, 0)).into())?;
    Ok(socket)
}

/// What a peer sends to this host alone (keepalived: unicast_peer).
fn open_unicast_v4(device: &str, own: Ipv4Addr) -> io::Result<Socket> {
    let socket = raw_socket(Domain::IPV4, packet::PROTOCOL.into())?;
    socket.bind_device(Some(device.as_bytes()))?;
    // The address may come later than the daemon at boot.
    socket.set_freebind_v4(true)?;
    socket.bind(&SocketAddr::from((own, 0)).into())?;
    Ok(socket)
}

fn open_receiver_v6(device: &str, index: u32) -> io::Result<Socket> {
    let socket = raw_socket(Domain::IPV6, packet::PROTOCOL.into())?;
    socket.bind_device(Some(device.as_bytes()))?;
    socket.join_multicast_v6(&packet::GROUP_V6, index)?;
    socket.set_recv_hoplimit_v6(true)?;
    setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
    Ok(socket)
}

/// Receives a message and puts the IPv6 header before it that the kernel took off.
fn receive_v6(socket: &Socket, buffer: &mut [u8]) -> io::Result<usize> {
    let (header, message) = buffer
        .split_first_chunk_mut::<{ packet::IPV6_HEADER_BYTES }>()
        .ok_or(io::ErrorKind::InvalidInput)?;
    let mut control = nix::cmsg_space!(nix::libc::in6_pktinfo, nix::libc::c_int);
    let mut parts = [IoSliceMut::new(message)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrIn6>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let source = received.address.map_or(Ipv6Addr::UNSPECIFIED, |address| address.ip());
    let (mut destination, mut hop_limit) = (Ipv6Addr::UNSPECIFIED, 0);
    for said in received.cmsgs()? {
        if let ControlMessageOwned::Ipv6PacketInfo(info) = said {
            destination = Ipv6Addr::from(info.ipi6_addr.s6_addr);
        } else if let ControlMessageOwned::Ipv6HopLimit(limit) = said {
            hop_limit = u8::try_from(limit).unwrap_or(0);
        }
    }
    *header = packet::ipv6_header(source, destination, hop_limit, received.bytes);
    Ok(packet::IPV6_HEADER_BYTES + received.bytes)
}

/// The packet sockets of one interface: whole Ethernet frames, as they come off the wire.
#[derive(Debug)]
pub struct DeviceSockets {
    index: u32,
    pub frames: Vec<Async<OwnedFd>>,
}

impl DeviceSockets {
    pub fn open(device: &str, has_ipv6: bool) -> io::Result<Self> {
        let index = index_of(device)?;
        let mut frames = vec![open_packets(index, ETH_P_ARP, &[])?];
        frames.push(open_packets(index, ETH_P_IP, &VRRP_OVER_IPV4)?);
        if has_ipv6 {
            frames.push(open_packets(index, ETH_P_IPV6, &VRRP_AND_ND_OVER_IPV6)?);
        }
        let frames = frames.into_iter().map(Async::new_nonblocking).collect::<Result<_, _>>()?;
        Ok(Self { index, frames })
    }

    /// Sends a frame, Ethernet header included.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        let Some(socket) = self.frames.first() else { return Ok(()) };
        let kind = frame.get(12..).and_then(|rest| rest.first_chunk()).copied();
        let address = PacketAddress::new(self.index, kind.map_or(0, u16::from_be_bytes));
        net::sendto(socket.get_ref(), frame, SendFlags::empty(), &address)?;
        Ok(())
    }
}

// Classic BPF (linux/filter.h): ldb [k], jeq #k, return. Offsets count from the Ethernet header.
const LOAD_BYTE: u16 = 0x30;
const JUMP_IF_EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Byte 9 of the IPv4 header is its protocol.
const VRRP_OVER_IPV4: [SockFilter; 4] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 9),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, packet::PROTOCOL as u32),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// Byte 6 of the IPv6 header is the next one, byte 0 of ICMPv6 its type: 135 solicitation, 136
/// advertisement.
const VRRP_AND_ND_OVER_IPV6: [SockFilter; 8] = [
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 6),
    SockFilter::new(JUMP_IF_EQUAL, 4, 0, packet::PROTOCOL as u32),
    SockFilter::new(JUMP_IF_EQUAL, 0, 4, 58),
    SockFilter::new(LOAD_BYTE, 0, 0, 14 + 40),
    SockFilter::new(JUMP_IF_EQUAL, 1, 0, 135),
    SockFilter::new(JUMP_IF_EQUAL, 0, 1, 136),
    SockFilter::new(RETURN, 0, 0, u32::MAX),
    SockFilter::new(RETURN, 0, 0, 0),
];

/// A packet socket of one Ethernet protocol, fed with what passes `filter`.
fn open_packets(index: u32, protocol: u16, filter: &[SockFilter]) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // Protocol 0 receives nothing until bind names one (packet(7)).
    let socket = net::socket_with(AddressFamily::PACKET, SocketType::RAW, flags, None)?;
    let socket = Socket::from(socket);
    if !filter.is_empty() {
        socket.attach_filter(filter)?;
    }
    net::bind(&socket, &PacketAddress::new(index, protocol))?;
    Ok(socket.into())
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

/// A raw socket that is fed with ICMP's "destination unreachable" alone.
fn open_icmp(device: &str) -> io::Result<Socket> {
    const UNREACHABLE: u32 = 3;
    let socket = open_icmp_of(UNREACHABLE)?;
    socket.bind_device(Some(device.as_bytes()))?;
    Ok(socket)
}

/// A raw socket that sends ICMP wherever the routing table says, and is fed with echo replies.
pub fn open_echo() -> io::Result<Socket> {
    const ECHO_REPLY: u32 = 0;
    open_icmp_of(ECHO_REPLY)
}

fn open_icmp_of(kind: u32) -> io::Result<Socket> {
    let socket = raw_socket(Domain::IPV4, nix::libc::IPPROTO_ICMP)?;
    // Byte 0 behind an IPv4 header without options is ICMP's type.
    socket.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, 20),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, kind),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
        SockFilter::new(RETURN, 0, 0, 0),
    ])?;
    Ok(socket)
}

/// The kernel's number of an interface.
pub fn index_of(device: &str) -> io::Result<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    let index = net::netdevice::name_to_index(&socket, device).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("{device}: {error}"))
    })?;
    NonZeroU32::new(index)
        .map(NonZeroU32::get)
        .ok_or_else(|| io::Error::other(format!("interface {device} has no index")))
}
