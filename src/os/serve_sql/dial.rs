//! Sockets on their way to a server.
//!
//! In: an address. Out: a socket that connects. Must not: wait for it.
//! Read first: facts/sql.md trap 66; tcp(7), TCP_USER_TIMEOUT.

use std::io;

use socket2::{Domain, SockAddr, Socket, TcpKeepalive, Type};

use crate::limits;

/// Begins to connect.
pub(super) fn dial(domain: Domain, address: &SockAddr) -> io::Result<Socket> {
    let socket = Socket::new(domain, Type::STREAM.nonblocking(), None)?;
    if domain != Domain::UNIX {
        socket.set_tcp_nodelay(true)?;
        // Linux before 2.6.37 has no such option; what was sent is then resent for minutes.
        let _unknown_option = socket.set_tcp_user_timeout(Some(limits::SQL_SERVER_SILENCE));
        // A host that lost power in the middle of a statement has nothing left to acknowledge.
        let keepalive = TcpKeepalive::new()
            .with_time(limits::SQL_SERVER_SILENCE)
            .with_interval(limits::SQL_SERVER_SILENCE / 3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    match socket.connect(address) {
        Ok(()) => Ok(socket),
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) =>
        {
            Ok(socket)
        }
        Err(error) => Err(error),
    }
}
