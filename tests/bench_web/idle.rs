//! What a kept-alive client that asks for nothing costs in memory.
//!
//! In: a server. Out: bytes of resident memory for each client, after one small file.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::Outcome;
use crate::servers::Server;

/// Below nginx's worker_connections here.
const CLIENTS: usize = 2000;

pub(crate) fn bytes_a_client(server: &Server) -> Outcome<f64> {
    let open = || -> std::io::Result<TcpStream> {
        let mut stream = TcpStream::connect(server.address)?;
        stream.write_all(b"GET /1k.bin HTTP/1.1\r\nHost: a\r\n\r\n")?;
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"xxxx") || answer.len() < 1024 {
            match stream.read(&mut buffer)? {
                0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
                count => answer.extend_from_slice(&buffer[..count]),
            }
        }
        Ok(stream)
    };
    let ask = || open().map_err(|error| format!("{}: {error}", server.name));
    // What the first clients make a server set up is not theirs.
    drop((0..50).map(|_| ask()).collect::<Outcome<Vec<_>>>()?);
    let before = resident_kib(server.pid());
    let clients = (0..CLIENTS).map(|_| ask()).collect::<Outcome<Vec<_>>>()?;
    let grown = resident_kib(server.pid()).saturating_sub(before);
    drop(clients);
    let grown = u32::try_from(grown).map_err(|_| "too much memory")?;
    Ok(f64::from(grown) * 1024.0 / f64::from(u32::try_from(CLIENTS).unwrap_or(u32::MAX)))
}

/// Of a process and its children.
fn resident_kib(process: u32) -> u64 {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let status = read(format!("/proc/{process}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let own = line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0);
    let children = read(format!("/proc/{process}/task/{process}/children"));
    let children = children.split_whitespace().filter_map(|text| text.parse().ok());
    own + children.map(resident_kib).sum::<u64>()
}
