//! Unread: whether the program at the other end of a local connection has read what it was sent.
//!
//! In: a connected socket of this host to this host. Out: the bytes that wait in the other end.
//! Must not: be asked for each request: it costs five calls. Read first: `net::sock_diag`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, getpeername, getsockname, recv,
    sendto, socket_with,
};

use crate::net::sock_diag;

/// `None` where the kernel cannot tell.
pub(super) fn unread_bytes(socket: &OwnedFd) -> Option<u32> {
    ask(socket).ok().flatten()
}

fn ask(socket: &OwnedFd) -> Result<Option<u32>, Errno> {
    let here = SocketAddr::try_from(getsockname(socket)?)?;
    let there = getpeername(socket)?.ok_or(Errno::NOTCONN)?;
    let there = SocketAddr::try_from(there)?;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let protocol = Some(netlink::SOCK_DIAG);
    let kernel = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    // The kernel answers before sendto(2) returns.
    let request = sock_diag::request(there, here);
    sendto(&kernel, &request, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut answer = [0; 512];
    let (count, _) = recv(&kernel, answer.as_mut_slice(), RecvFlags::empty())?;
    Ok(sock_diag::unread_bytes(answer.get(..count).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn counts_what_the_other_end_has_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
        let address = listener.local_addr().expect("an address");
        let mut client = TcpStream::connect(address).expect("connects");
        let (mut server, _) = listener.accept().expect("accepts");
        client.write_all(b"hello").expect("writes");
        let client_socket = OwnedFd::from(client);
        assert_eq!(unread_bytes(&client_socket), Some(5));
        server.read_exact(&mut [0; 3]).expect("reads");
        assert_eq!(unread_bytes(&client_socket), Some(2));
        server.read_exact(&mut [0; 2]).expect("reads");
        assert_eq!(unread_bytes(&client_socket), Some(0));
    }
}
