//! The one unsafe corner: a packet socket's address, a block device's order, a signal's default,
//! which no crate here has safely.
//!
//! In: interface index, protocol; a disk; a signal. Out: an address that rustix passes to bind and
//! sendto. Read first: packet(7), struct sockaddr_ll; linux/fs.h, BLKRRPART; signal(7).
#![allow(unsafe_code)]

use std::io;
use std::os::fd::AsFd;

use nix::sys::signal::{SigHandler, Signal};
use rustix::ioctl::{NoArg, ioctl};
use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};

/// Address of an AF_PACKET socket: an interface and an Ethernet protocol.
#[derive(Debug, Clone, Copy)]
#[repr(C)]
pub(crate) struct PacketAddress {
    family: u16,
    protocol_be: u16,
    index: i32,
    hardware_type: u16,
    packet_type: u8,
    address_length: u8,
    address: [u8; 8],
}

const AF_PACKET: u16 = 17;

impl PacketAddress {
    pub(crate) fn new(index: u32, protocol: u16) -> Self {
        Self {
            family: AF_PACKET,
            protocol_be: protocol.to_be(),
            index: i32::try_from(index).unwrap_or(0),
            hardware_type: 0,
            packet_type: 0,
            address_length: 6,
            address: [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0],
        }
    }
}

// SAFETY: `PacketAddress` is `repr(C)` with the fields of struct sockaddr_ll in its order, without
// padding (2+2+4+2+1+1+8 = 20 bytes), all initialised; the pointer is to `self`, which outlives
// the call. Safe code cannot: rustix has no type for this address family.
unsafe impl SocketAddrArg for PacketAddress {
    unsafe fn with_sockaddr<R>(
        &self,
        f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R,
    ) -> R {
        let length = SocketAddrLen::try_from(size_of::<Self>()).expect("20 fits");
        f(std::ptr::from_ref(self).cast(), length)
    }
}

/// A signal that was ignored by whoever started this process has its usual effect.
pub(crate) fn stop_ignoring(signal: Signal) {
    // SAFETY: the default action installs no handler, so that none can run at a wrong moment.
    let _always_can = unsafe { nix::sys::signal::signal(signal, SigHandler::SigDfl) };
}

/// Lets the kernel read a disk's partition table again; no partition of it may be in use.
pub(crate) fn read_partitions_again(disk: impl AsFd) -> io::Result<()> {
    const BLKRRPART: rustix::ioctl::Opcode = 0x125f;
    // SAFETY: BLKRRPART takes no argument and returns none (linux/fs.h, block/ioctl.c), so the
    // kernel reads and writes no memory of this process.
    unsafe { ioctl(disk, NoArg::<BLKRRPART>::new()) }.map_err(io::Error::from)
}
