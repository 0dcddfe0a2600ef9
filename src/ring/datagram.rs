//! Datagrams, as a shard receives and sends them.

use std::net::{IpAddr, SocketAddr};

use super::Fd;

pub use crate::sys::datagram::{
    DatagramOptions, EACH_MAX, Outgoing, Single, Undelivered, UndeliveredReason,
};

/// The buffer ring datagrams are received into: a flood of replies must not take the buffers of
/// requests, nor the other way round.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Inbox {
    /// Of clients, from listening sockets.
    Clients = 2,
    /// Of servers.
    Servers = 3,
}

/// Both.
pub const INBOXES: [Inbox; 2] = [Inbox::Clients, Inbox::Servers];

/// The bytes of a received datagram. They are lent until the buffer is given back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Where it lies.
    pub inbox: Inbox,
    /// Which buffer.
    pub buffer: u16,
    /// Offset in it.
    pub offset: u32,
    /// Length; 0 for an empty datagram.
    pub length: u32,
}

/// What a completed receive has brought: a datagram, or several of one sender that the kernel has
/// joined (UDP_GRO).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arrival {
    /// Who sent it, an IPv4 address never as an IPv6 one.
    pub from: SocketAddr,
    /// The address it was sent to, where the socket tells (listeners on a wildcard).
    pub to: Option<IpAddr>,
    /// Length of each datagram but the last, which may be shorter; `None` = it is a single one.
    pub segment: Option<u16>,
    /// Its DSCP and ECN bits: the TOS byte of IPv4, the traffic class of IPv6.
    pub traffic_class: u8,
    /// It did not fit into the buffer, or its control data didn't: never to be passed on.
    pub truncated: bool,
    /// Its bytes.
    pub payload: Payload,
}

/// Calls for datagrams, as [`super::Kernel`] has them for streams.
///
/// `receive_datagrams` goes on until it is cancelled or fails: `-ENOBUFS` when the inbox has run
/// dry, an errno that the network has told (ECONNREFUSED), or nothing but `more == false` with the
/// last datagram: an empty one, or one that has filled the completion queue. It is armed anew by
/// whoever wants more; what has not been received stays in the socket. Before a socket towards
/// servers is armed again after an error, and after a send that was `EMSGSIZE`, `undelivered` is
/// asked until it has no more: what waits there would keep the kernel awake, looking for datagrams
/// in vain.
///
/// Every completion of `receive_datagrams` goes through `arrival`, which takes its buffer over, and
/// every arrival's buffer is given back before the next turn.
pub trait DatagramKernel {
    /// Makes the buffers of both inboxes; before the first `receive_datagrams`.
    fn prepare_datagrams(&mut self) -> std::io::Result<()>;

    /// Receives datagrams into buffers of `inbox`.
    fn receive_datagrams(&mut self, fd: Fd, inbox: Inbox, token: super::Token);

    /// What a completion of `receive_datagrams` has brought; `None` if nothing. Its buffer is lent
    /// until `return_buffer`.
    fn arrival(&mut self, inbox: Inbox, completion: &super::Completion) -> Option<Arrival>;

    /// The bytes of an arrival.
    fn payload(&self, payload: Payload) -> &[u8];

    /// Gives a buffer back, whole. The kernel has it after the next turn.
    fn return_buffer(&mut self, inbox: Inbox, buffer: u16);

    /// Buffers of an inbox that the kernel has, or will have after the next turn.
    fn inbox_available(&self, inbox: Inbox) -> usize;

    /// Sends without blocking. `EAGAIN`, `ENOBUFS`: no room, it is lost. `ECONNREFUSED` and its
    /// like: what an earlier datagram met; this one was not sent, and a second try sends it.
    /// `EMSGSIZE`: over the path MTU. `EINVAL`, `EIO` and `EMSGSIZE` with `segment`: the path can't
    /// cut it (udp(7)), its parts have to be sent one by one.
    fn send_datagrams(&self, fd: Fd, outgoing: &Outgoing<'_>) -> Result<(), super::Errno>;

    /// Sends datagrams of one socket, [`EACH_MAX`] at the most, each as `send_datagrams` would:
    /// how many have left. The error of the first one, if that has none; of a later one, nothing.
    fn send_each(&self, fd: Fd, singles: &[Single<'_>]) -> Result<usize, super::Errno>;

    /// Opens a socket towards servers, bound and ready to be received from.
    fn open_datagram_socket(&self, options: &DatagramOptions) -> Result<Fd, super::Errno>;

    /// The next thing the network has said of what was sent on a socket of
    /// `open_datagram_socket`; not what a send has told already.
    fn undelivered(&self, fd: Fd) -> Option<Undelivered>;

    /// Datagrams the kernel has dropped because the socket's buffer was full, since it was opened
    /// (modulo 2^32).
    fn datagrams_dropped(&self, fd: Fd) -> u32;
}
