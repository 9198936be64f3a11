//! Listening sockets of the front and of the FastCGI port, and the filter that leaves new clients
//! to the other host.
//!
//! In: addresses, whether to drain. Out: accepted connections. Must not: close a listener to drain
//! it: that would reset the clients in its accept queue. Read first: socket(7), SO_ATTACH_FILTER;
//! tcp_v4_rcv, which applies a listener's filter to the TCP header on; unix(7).

use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixStream;

use nix::unistd::Group;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{SocketFlags, acceptfrom_with};
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};

use crate::console::note::Note;
use crate::os::notes;
use crate::web::place::Place;

/// Connections that wait in the kernel for `accept`.
const BACKLOG: i32 = 1024;

/// What clients of a listener speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speech {
    Http,
    Https,
    /// They are web servers.
    FastCgi,
}

#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    /// Of a unix socket it is 0.0.0.0:0.
    pub(super) address: SocketAddr,
    pub(super) is_virtual: bool,
    pub(super) speech: Speech,
    file: Option<SocketFile>,
    /// epoll said that connections wait, and `accept` has not said that there are none.
    pub(super) is_readable: bool,
}

/// The file of a unix socket, which goes with it.
#[derive(Debug)]
struct SocketFile(String);

/// What one `accept` gave.
#[derive(Debug)]
pub(super) enum Accepted {
    Connection(OwnedFd, SocketAddr),
    Nothing,
    /// Descriptors or memory ran out; connections wait in the kernel.
    Exhausted,
}

impl Listener {
    pub(super) fn new(address: SocketAddr, is_virtual: bool, speech: Speech) -> io::Result<Self> {
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
        Ok(Self { socket, address, is_virtual, speech, file: None, is_readable: false })
    }

    /// A listener of the FastCGI port; `group` is who else may use a unix socket.
    pub(super) fn of_port(place: &Place, group: &str) -> io::Result<Self> {
        let opened = match place {
            Place::Tcp(address) => Self::new(*address, false, Speech::FastCgi),
            Place::Unix(path) => Self::unix(path, group),
        };
        opened.map_err(|error| io::Error::other(format!("fastcgi_listen {place}: {error}")))
    }

    fn unix(path: &str, group: &str) -> io::Result<Self> {
        remove_stale(path)?;
        let kind = Type::STREAM.nonblocking().cloexec();
        let socket = Socket::new(Domain::UNIX, kind, None)?;
        socket.bind(&SockAddr::unix(path)?)?;
        // Nobody can connect before `listen`, so the mode is in time.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        match Group::from_name(group) {
            Ok(Some(group)) => chown(path, None, Some(group.gid.as_raw()))?,
            Ok(None) | Err(_) => {
                let what = format!("fastcgi_group: no group {group:?}: only root may use {path}");
                notes::tell(&Note::Front { what });
            }
        }
        socket.listen(BACKLOG)?;
        Ok(Self {
            socket,
            address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            is_virtual: false,
            speech: Speech::FastCgi,
            file: Some(SocketFile(path.into())),
            is_readable: false,
        })
    }

    pub(super) const fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(super) const fn is_unix(&self) -> bool {
        self.file.is_some()
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

impl Drop for SocketFile {
    fn drop(&mut self) {
        // What is left behind is stale, and removed by the next start.
        let _gone = fs::remove_file(&self.0);
    }
}

/// Removes the socket of a process that is gone. Whatever else is there stays: `bind` says so.
fn remove_stale(path: &str) -> io::Result<()> {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|it| it.file_type().is_socket());
    let is_stale = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).as_ref().is_err_and(is_stale) {
        return fs::remove_file(path);
    }
    Ok(())
}
