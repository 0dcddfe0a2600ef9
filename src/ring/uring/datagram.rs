//! Datagrams on the kernel's ring: multishot RECVMSG into two rings of large buffers.
//!
//! A buffer holds the largest datagram there is with all that comes before it, so nothing is ever
//! cut; pages that no datagram has reached stay untouched, and cost nothing. There are few of them,
//! because the kernel goes through all: with 2,048 instead of 128 each datagram costs a tenth more.

use std::io;
use std::mem;

use io_uring::{opcode, types};

use super::{BufferRing, Uring};
use crate::ring::arrival;
use crate::ring::buffers::{BufferLayout, Piece};
use crate::ring::datagram::{
    Arrival, DatagramKernel, DatagramOptions, INBOXES, Inbox, Outgoing, Payload, Single,
    Undelivered,
};
use crate::ring::{Completion, Errno, Fd, Token};
use crate::sys::datagram;

/// Buffers of an inbox.
const BUFFERS: u16 = 128;
/// Bytes the kernel may fill of each: the largest datagram, or several joined, is 65,527 bytes, and
/// 176 come before it.
const SIZE: u32 = 65_792;
/// Bytes from one to the next: not a multiple of a page, or the beginnings of all buffers would
/// share a few sets of the cache.
const STRIDE: u32 = 69_952;
/// Bytes of both inboxes, with the entries of their rings.
pub const INBOXES_BYTES: u64 = 2 * BUFFERS as u64 * (STRIDE as u64 + 16);
const _: () = assert!(arrival::PAYLOAD + 65_527 <= SIZE as usize && SIZE <= STRIDE);

/// Both inboxes.
pub(super) struct Inboxes {
    rings: [BufferRing; 2],
    /// Read by the kernel for the room that name and control messages have in a buffer, each time
    /// a receive is submitted. It points nowhere.
    shape: Box<libc::msghdr>,
}

impl Inboxes {
    fn new(ring: &io_uring::IoUring) -> io::Result<Inboxes> {
        let layout = BufferLayout {
            count: BUFFERS,
            size: STRIDE,
            incremental: false,
        };
        let [clients, servers] = INBOXES;
        // SAFETY: an all-zero msghdr is a valid empty message.
        let mut shape: libc::msghdr = unsafe { mem::zeroed() };
        shape.msg_namelen = arrival::NAME as libc::socklen_t;
        shape.msg_controllen = arrival::CONTROL;
        Ok(Inboxes {
            rings: [
                BufferRing::register(ring, clients as u16, layout, SIZE)?,
                BufferRing::register(ring, servers as u16, layout, SIZE)?,
            ],
            shape: Box::new(shape),
        })
    }

    pub(super) fn publish(&mut self) {
        for ring in &mut self.rings {
            ring.publish();
        }
    }

    fn ring(&self, inbox: Inbox) -> &BufferRing {
        match inbox {
            Inbox::Clients => &self.rings[0],
            Inbox::Servers => &self.rings[1],
        }
    }

    fn ring_mut(&mut self, inbox: Inbox) -> &mut BufferRing {
        match inbox {
            Inbox::Clients => &mut self.rings[0],
            Inbox::Servers => &mut self.rings[1],
        }
    }
}

impl DatagramKernel for Uring {
    fn prepare_datagrams(&mut self) -> io::Result<()> {
        if self.inboxes.is_none() {
            self.inboxes = Some(Inboxes::new(&self.ring)?);
        }
        Ok(())
    }

    fn receive_datagrams(&mut self, fd: Fd, inbox: Inbox, token: Token) {
        let inboxes = self.inboxes.as_ref().expect("inboxes are prepared");
        let shape: *const libc::msghdr = &raw const *inboxes.shape;
        let entry = opcode::RecvMsgMulti::new(types::Fd(fd.0), shape, inbox as u16).build();
        self.push(entry, token);
    }

    fn arrival(&mut self, inbox: Inbox, completion: &Completion) -> Option<Arrival> {
        let group = &mut self.inboxes.as_mut()?.ring_mut(inbox).group;
        arrival::take(group, inbox, completion)
    }

    fn payload(&self, payload: Payload) -> &[u8] {
        if payload.length == 0 {
            return &[];
        }
        let inboxes = self.inboxes.as_ref().expect("an arrival came from it");
        inboxes.ring(payload.inbox).group.bytes(Piece {
            buffer: payload.buffer,
            offset: payload.offset,
            length: payload.length,
        })
    }

    fn return_buffer(&mut self, inbox: Inbox, buffer: u16) {
        let inboxes = self.inboxes.as_mut().expect("an arrival came from it");
        inboxes.ring_mut(inbox).group.release_all(buffer);
    }

    fn inbox_available(&self, inbox: Inbox) -> usize {
        let inboxes = self.inboxes.as_ref();
        inboxes.map_or(0, |inboxes| inboxes.ring(inbox).group.available())
    }

    fn send_datagrams(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Result<(), Errno> {
        if outgoing.segment.is_some() && !self.segments {
            return Err(Errno(libc::EINVAL));
        }
        datagram::send(fd.0, outgoing).map_err(Errno)
    }

    fn send_each(&self, fd: Fd, singles: &[Single<'_>]) -> Result<usize, Errno> {
        datagram::send_each(fd.0, singles).map_err(Errno)
    }

    fn open_datagram_socket(&self, options: &DatagramOptions) -> Result<Fd, Errno> {
        datagram::open(options, self.joins).map(Fd).map_err(Errno)
    }

    fn undelivered(&self, fd: Fd) -> Option<Undelivered> {
        datagram::undelivered(fd.0)
    }

    fn datagrams_dropped(&self, fd: Fd) -> u32 {
        datagram::dropped_of(fd.0).unwrap_or(0)
    }
}
