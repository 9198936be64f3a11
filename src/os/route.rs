//! The netlink socket: links and addresses of this host, watched and changed.
//!
//! In: request bytes of `net::netlink`. Out: datagrams of the kernel. Must not: look into them.
//! Read first: netlink(7).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Opens a route socket that hears of `groups` (`net::netlink::GROUPS`, or 0).
pub fn open(groups: u32) -> io::Result<OwnedFd> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    // NETLINK_ROUTE is protocol 0.
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

/// Hands a request to the kernel, which performs it before this returns.
pub fn send(socket: impl AsFd, request: &[u8]) -> io::Result<()> {
    net::sendto(socket, request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

/// The next datagram of the kernel; `WouldBlock` when there is none.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (length, _) = net::recv(socket, buffer, RecvFlags::empty())?;
    Ok(length)
}
