//! Listening sockets of the front, and the filter that leaves new clients to the other host.
//!
//! In: addresses, whether to drain. Out: accepted connections. Must not: close a listener to drain
//! it: that would reset the clients in its accept queue. Read first: socket(7), SO_ATTACH_FILTER;
//! tcp_v4_rcv, which applies a listener's filter to the TCP header on.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// Connections that wait in the kernel for `accept`.
const BACKLOG: i32 = 1024;

#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    pub(super) address: SocketAddr,
    pub(super) is_virtual: bool,
    /// Clients speak TLS.
    pub(super) is_ssl: bool,
    /// epoll said that connections wait, and `accept` has not said that there are none.
    pub(super) is_readable: bool,
}

/// What one `accept` gave.
#[derive(Debug)]
pub(super) enum Accepted {
    Connection(OwnedFd, SocketAddr),
    Nothing,
    /// Descriptors or memory ran out; connections wait in the kernel.
    Exhausted,
}

impl Listener {
    pub(super) fn new(address: SocketAddr, is_virtual: bool, is_ssl: bool) -> io::Result<Self> {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM.nonblocking().cloexec(),
            Some(Protocol::TCP),
        )?;
        socket.set_reuse_address(true)?;
        match address {
            // The virtual address may be on the other host at this moment.
            SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
            SocketAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        // Accepted sockets inherit it: answers are written whole, so Nagle could only delay them.
        socket.set_tcp_nodelay(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let address = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok(Self { socket, address, is_virtual, is_ssl, is_readable: false })
    }

    pub(super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) fn accept(&self) -> Accepted {
        loop {
            match acceptfrom_with(&self.socket, SocketFlags::NONBLOCK | SocketFlags::CLOEXEC) {
                Ok((socket, address)) => {
                    let address = address.and_then(|address| SocketAddr::try_from(address).ok());
                    return Accepted::Connection(socket, address.unwrap_or(self.address));
                }
                Err(rustix::io::Errno::AGAIN) => return Accepted::Nothing,
                // accept(2): errors of the connection that was to be accepted are passed on here.
                Err(
                    rustix::io::Errno::MFILE
                    | rustix::io::Errno::NFILE
                    | rustix::io::Errno::NOBUFS
                    | rustix::io::Errno::NOMEM,
                ) => return Accepted::Exhausted,
                Err(rustix::io::Errno::BADF | rustix::io::Errno::INVAL) => {
                    return Accepted::Nothing;
                }
                Err(_) => {}
            }
        }
    }

    /// From here on the first packet of a new connection is dropped, as if it had been lost: the
    /// client repeats it after a second, to the host that has the address by then. Everything else
    /// passes, the last packet of a handshake that already began too.
    pub(super) fn drop_new(&self) -> io::Result<()> {
        const LOAD_BYTE_ABSOLUTE: u16 = 0x30;
        const AND: u16 = 0x54;
        const JUMP_IF_EQUAL: u16 = 0x15;
        const RETURN: u16 = 0x06;
        const FLAGS_OFFSET: u32 = 13;
        const SYN: u32 = 0x02;
        const SYN_OR_ACK: u32 = 0x12;
        self.socket.attach_filter(&[
            SockFilter::new(LOAD_BYTE_ABSOLUTE, 0, 0, FLAGS_OFFSET),
            SockFilter::new(AND, 0, 0, SYN_OR_ACK),
            SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
            SockFilter::new(RETURN, 0, 0, 0),
            SockFilter::new(RETURN, 0, 0, u32::MAX),
        ])
    }

    pub(super) fn take_new(&self) -> io::Result<()> {
        self.socket.detach_filter()
    }

    /// Whether a connection waits to be accepted.
    pub(super) fn has_waiting(&self) -> bool {
        let mut descriptors = [PollFd::new(&self.socket, PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut descriptors, Some(&now)).is_ok_and(|count| count > 0)
    }
}
