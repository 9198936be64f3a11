//! Socket diagnosis: asks the kernel for another program's TCP socket on this host, and reads how
//! many bytes that program has not taken from it.
//!
//! In: the two ends of a connection. Out: a request, the bytes unread. Must not: open sockets.
//! Read first: sock_diag(7), inet_diag_req_v2; linux/inet_diag.h, struct inet_diag_msg; `ss` does
//! the same for all sockets.
//!
//! ```text
//!   nlmsghdr      0 length u32 | 4 type u16 | 6 flags u16 | 8 sequence u32 | 12 port u32
//!   request      16 family u8 | protocol u8 | extensions u8 | pad u8 | 20 states u32 | 24 id
//!   id (48)       0 source port be16 | destination port be16 | 4 source [16] | 20 destination [16]
//!                36 interface u32 | 40 cookie u32 u32
//!   answer       16 family, state, timer, retransmits | 20 id | 68 expires u32 | 72 rqueue u32
//! ```

use std::net::{IpAddr, SocketAddr};

mod field {
    pub(super) const BY_FAMILY: u16 = 20;
    pub(super) const REQUEST: u16 = 0x1;
    pub(super) const HEADER_BYTES: usize = 16;
    pub(super) const REQUEST_BYTES: u32 = 72;
    pub(super) const RECEIVE_QUEUE_AT: usize = 72;
    pub(super) const PROTOCOL_TCP: u8 = 6;
    pub(super) const FAMILY_INET: u8 = 2;
    pub(super) const FAMILY_INET6: u8 = 10;
    pub(super) const ANY_STATE: u32 = u32::MAX;
    /// INET_DIAG_NOCOOKIE.
    pub(super) const NO_COOKIE: [u8; 8] = [0xff; 8];
}

/// Asks for the socket whose own end is `local` and whose other end is `remote`.
#[must_use]
pub fn request(local: SocketAddr, remote: SocketAddr) -> Vec<u8> {
    let family = if local.is_ipv4() { field::FAMILY_INET } else { field::FAMILY_INET6 };
    let mut out = Vec::with_capacity(72);
    out.extend_from_slice(&field::REQUEST_BYTES.to_ne_bytes());
    out.extend_from_slice(&field::BY_FAMILY.to_ne_bytes());
    out.extend_from_slice(&field::REQUEST.to_ne_bytes());
    out.extend_from_slice(&[0; 8]);
    out.extend_from_slice(&[family, field::PROTOCOL_TCP, 0, 0]);
    out.extend_from_slice(&field::ANY_STATE.to_ne_bytes());
    out.extend_from_slice(&local.port().to_be_bytes());
    out.extend_from_slice(&remote.port().to_be_bytes());
    for end in [local, remote] {
        out.extend_from_slice(&address(end.ip()));
    }
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&field::NO_COOKIE);
    out
}

fn address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// The bytes that wait in the socket for its program; `None` when there is no such socket.
#[must_use]
pub fn unread_bytes(answer: &[u8]) -> Option<u32> {
    let kind: [u8; 2] = *answer.get(4..)?.first_chunk()?;
    let queue: [u8; 4] = *answer.get(field::RECEIVE_QUEUE_AT..)?.first_chunk()?;
    let is_socket = u16::from_ne_bytes(kind) == field::BY_FAMILY;
    (is_socket && answer.len() > field::HEADER_BYTES).then(|| u32::from_ne_bytes(queue))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn emits_a_request_of_the_length_that_it_says() {
        let [local, remote] =
            ["127.0.0.1:9000", "127.0.0.1:258"].map(|text| text.parse().expect("an address"));
        let request = request(local, remote);
        assert_eq!(request.len(), 72);
        assert_eq!(request[..4], 72u32.to_ne_bytes());
        assert_eq!(request[24..28], [0x23, 0x28, 1, 2], "ports, big-endian");
        assert_eq!(request[28..32], [127, 0, 0, 1]);
        assert_eq!(request[64..], [0xff; 8]);
    }

    #[test]
    fn parses_the_queue_and_refuses_errors_and_pieces() {
        let mut answer = vec![0; 92];
        answer[4..6].copy_from_slice(&20u16.to_ne_bytes());
        answer[72..76].copy_from_slice(&300u32.to_ne_bytes());
        assert_eq!(unread_bytes(&answer), Some(300));
        for cut in 0..76 {
            assert_eq!(unread_bytes(&answer[..cut]), None, "{cut}");
        }
        // NLMSG_ERROR: no such socket.
        answer[4] = 2;
        assert_eq!(unread_bytes(&answer), None);
    }
}
