//! Where the splitter is connected to: addresses, a path for programs on this host, the admin port.
//!
//! In: the configuration. Out: listening sockets. Must not: take a path from a program that still
//! listens there. Read first: unix(7); facts/sql.md 4, unix sockets.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use socket2::Socket;

use crate::sql;

/// Who connects here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Port {
    Client,
    Admin,
}

/// Binds everything; addresses first, in the order of the configuration.
pub(super) fn bind(config: &sql::Config) -> io::Result<Vec<(Socket, Port)>> {
    let mut listeners = Vec::new();
    let clients = config.listen.iter().map(|address| (address, Port::Client));
    let admins = config.admin_listen.iter().map(|address| (address, Port::Admin));
    for (address, port) in clients.chain(admins) {
        let listener = TcpListener::bind(address).map_err(|error| at(&error, address))?;
        // Accepted sockets inherit it: replies are written whole, so Nagle could only delay them.
        let listener = Socket::from(listener);
        listener.set_tcp_nodelay(true)?;
        listeners.push((listener, port));
    }
    if let Some(path) = &config.listen_socket {
        let listener = bind_path(path).map_err(|error| at(&error, path))?;
        listeners.push((Socket::from(listener), Port::Client));
    }
    for (listener, _) in &listeners {
        listener.set_nonblocking(true)?;
    }
    Ok(listeners)
}

fn bind_path(path: &str) -> io::Result<UnixListener> {
    // What a killed daemon left behind refuses connections; who listens does not.
    if UnixStream::connect(path)
        .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    // Everybody may connect, as to mysqld's own; the password decides.
    fs::set_permissions(path, fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

fn at(error: &io::Error, place: impl std::fmt::Display) -> io::Error {
    io::Error::new(error.kind(), format!("{place}: {error}"))
}
