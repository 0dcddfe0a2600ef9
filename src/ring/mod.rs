//! The kernel interface of a shard. Everything a shard asks of the kernel goes through [`Kernel`],
//! which has two implementations: [`Uring`], and [`scripted::Scripted`], under which the shipped
//! shard, relay and buffer code runs in simulation.
//!
//! Operations are asynchronous and named by a [`Token`]; calls are immediate and never block. Only
//! this module builds submissions, and no submission points into memory: receives land in the
//! buffer rings that the ring owns, everything else carries its arguments in the entry. So the
//! in-flight rule (memory of a pushed submission belongs to the kernel until its last completion)
//! holds by construction for all memory but the buffer rings, and those outlive the ring's file
//! descriptor (see the field order there).

mod arrival;
mod buffers;
mod caps;
mod datagram;
#[cfg(test)]
mod datagram_tests;
mod errno;
mod memory;
pub mod scripted;
mod self_test;
mod token;
mod uring;

pub use arrival::{Received, received};
pub use buffers::{BufferGroup, BufferLayout, Piece};
pub use caps::{Caps, SetupError, Wanted, rings_allowed};
pub use datagram::{
    Arrival, DatagramKernel, DatagramOptions, EACH_MAX, INBOXES, Inbox, Outgoing, Payload, Single,
    Undelivered, UndeliveredReason,
};
pub use errno::{AcceptError, ConnectError, Errno, ReceiveError, SendError};
pub use token::{Op, Token};
pub use uring::{INBOXES_BYTES, Uring};

pub use crate::sys::stream::StreamOptions as SocketOptions;

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use crate::base::address::Address;
use crate::base::time::Moment;

/// A descriptor a shard owns. Plain, because its life is bound to completions rather than to a
/// scope; [`Kernel::close`] ends it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Fd(pub i32);

impl Fd {
    /// No descriptor.
    pub const NONE: Fd = Fd(-1);
}

/// A pipe to splice through. Plain, as [`Fd`] is; [`Kernel::close_pipe`] ends it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Pipe {
    /// Where bytes come out.
    pub output: Fd,
    /// Where bytes go in.
    pub input: Fd,
    /// Bytes it has room for; fewer, where they come in pieces smaller than a page.
    pub size: u32,
}

/// The buffer ring a receive takes its buffers from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u16)]
pub enum Group {
    /// Directions not known to be bulk.
    Small = 0,
    /// Bulk directions.
    Bulk = 1,
}

/// Both rings.
pub const GROUPS: [Group; 2] = [Group::Small, Group::Bulk];

/// What a poll waits for; errors and hang-ups are always included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interest {
    /// Readable, or the peer has sent its FIN.
    Read,
    /// Writable.
    Write,
}

/// What a poll found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Readiness {
    /// Writable.
    pub writable: bool,
    /// An error is pending (POLLERR), or the poll itself failed.
    pub failed: bool,
    /// Both directions are shut, or it was never connected (POLLHUP).
    pub hung_up: bool,
    /// The peer's FIN is here, behind what can still be read (POLLRDHUP).
    pub ended: bool,
}

/// The end or a step of an operation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Completion {
    /// The operation.
    pub token: Token,
    /// Bytes, descriptor or poll mask; negative = errno.
    pub result: i32,
    /// More completions of this operation will follow.
    pub more: bool,
    /// The buffer it filled, for receives.
    pub buffer: Option<BufferUse>,
    /// There was more to receive than it took.
    pub left: bool,
}

/// Which buffer a receive filled.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferUse {
    /// The buffer's number in its ring.
    pub buffer: u16,
    /// The kernel goes on filling this buffer (incremental rings).
    pub more: bool,
}

/// How long a turn may sleep.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until something completes.
    Forever,
    /// Until something completes or the time has passed.
    For(Duration),
}

/// What a spin has found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Spun {
    /// There was something at once.
    Ready,
    /// Something has come after this time.
    Found(Duration),
    /// Nothing.
    InVain,
    /// Nothing, and another thread had the CPU meanwhile.
    Interrupted,
}

/// What a shard asks of the kernel.
///
/// An operation submitted under a token completes at least once; its last completion has `more ==
/// false`. The descriptor and the token stay reserved until then. `receive` delivers at most
/// `limit` bytes in all its completions together, then ends: that is the whole back-pressure
/// contract, whatever the kernel. (The bundle step, for Linux 6.10 and 6.11, may exceed it by what
/// its ring holds.)
pub trait Kernel: DatagramKernel {
    /// The monotonic clock.
    fn now(&self) -> Moment;

    /// Accepts one connection, or connections until cancelled (`multishot`). Accepted descriptors
    /// are non-blocking and close-on-exec.
    fn accept(&mut self, listener: Fd, multishot: bool, token: Token);

    /// Receives at most `limit` bytes into buffers of `group`. Completions: > 0 bytes, 0 = end of
    /// stream, negative errno; `-ENOBUFS` when the group has run dry.
    fn receive(&mut self, fd: Fd, group: Group, limit: u32, token: Token);

    /// Waits for readiness, once or (`multishot`) on every wake-up of the socket, which for `Write`
    /// means whenever a full socket has room again, for `Read` whenever more arrives: what is
    /// there already is told once. Decode results with [`Kernel::readiness`].
    fn poll(&mut self, fd: Fd, interest: Interest, multishot: bool, token: Token);

    /// Ends an operation early. Its last completion still comes (`-ECANCELED` or its result).
    fn cancel(&mut self, target: Token);

    /// Publishes recycled buffers, submits everything and gathers completions, sleeping as `wait`
    /// allows.
    fn turn(&mut self, wait: Wait) -> io::Result<()>;

    /// Looks for completions without sleeping, for `time` at most: submits what is queued, and ends
    /// when the next `turn` will gather something. Nothing is asked of the kernel meanwhile.
    fn spin(&mut self, time: Duration) -> io::Result<Spun>;

    /// The next gathered completion.
    fn next_completion(&mut self) -> Option<Completion>;

    /// What a poll completion says.
    fn readiness(&self, result: i32) -> Readiness;

    /// The buffers of a group: takes received bytes, lends them, recycles them.
    fn buffers(&mut self, group: Group) -> &mut BufferGroup;

    /// The same, to read from.
    fn buffers_ref(&self, group: Group) -> &BufferGroup;

    /// Makes a socket and starts connecting it. `Ok((fd, true))` = connected already.
    fn connect(&self, to: &Address, options: &SocketOptions) -> Result<(Fd, bool), Errno>;

    /// Sends without blocking; the count may be short. `EAGAIN` = the socket is full.
    fn send(&self, fd: Fd, parts: &[IoSlice<'_>]) -> Result<usize, Errno>;

    /// Copies what a socket has received, as much as fits, and leaves it there. 0 = end of stream,
    /// `EAGAIN` = nothing yet.
    fn peek(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// The same, and takes it off the socket.
    fn take(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Sends what goes before a stream, as `send` does; `more` = the stream's first bytes follow in
    /// a moment, and may share a segment with it.
    fn send_ahead(&self, fd: Fd, bytes: &[u8], more: bool) -> Result<usize, Errno>;

    /// Sends a FIN after what was sent.
    fn shutdown_write(&self, fd: Fd) -> Result<(), Errno>;

    /// The pending error of a socket, taken off it.
    fn take_error(&self, fd: Fd) -> Option<Errno>;

    /// Bytes sent but not yet acknowledged by the peer (SIOCOUTQ).
    fn unacknowledged(&self, fd: Fd) -> usize;

    /// Bytes of a full segment to the peer; 0 where there are none (Unix sockets).
    fn segment(&self, fd: Fd) -> u32;

    /// Closes a descriptor.
    fn close(&self, fd: Fd);

    /// Closes a socket by a reset: unsent data is dropped, the peer sees an error.
    fn close_with_reset(&self, fd: Fd);

    /// Address of the peer; `None` for Unix sockets and sockets already gone.
    fn peer_address(&self, fd: Fd) -> Option<SocketAddr>;

    /// Address the socket is bound to.
    fn local_address(&self, fd: Fd) -> Option<SocketAddr>;

    /// Accepts one connection at once, for the emptying of a listener before its close.
    fn accept_now(&self, listener: Fd) -> Result<Fd, Errno>;

    /// Makes an empty pipe with room for about `size` bytes; the kernel may grant less.
    fn make_pipe(&self, size: u32) -> Result<Pipe, Errno>;

    /// Closes a pipe, with what is in it.
    fn close_pipe(&self, pipe: Pipe);

    /// Moves what a socket has received into a pipe, at most `length` bytes. 0 = end of stream;
    /// `EAGAIN` = the socket is empty, or the pipe is full.
    fn splice_in(&self, from: Fd, pipe: Pipe, length: u32) -> Result<usize, Errno>;

    /// Sends bytes of a pipe, at most `length`. A short count does not say that the socket is
    /// full: only `EAGAIN` does.
    fn splice_out(&self, pipe: Pipe, to: Fd, length: u32) -> Result<usize, Errno>;

    /// Takes bytes out of a pipe by copying.
    fn read_pipe(&self, pipe: Pipe, buffer: &mut [u8]) -> Result<usize, Errno>;

    /// Processor time that the shard's thread has used for work, nanoseconds: what it has waited
    /// actively doesn't count.
    fn worked_ns(&self) -> u64;

    /// Takes what made a wake-up descriptor readable.
    fn drain_wake(&self, fd: Fd);

    /// Completion-queue overflows so far.
    fn overflows(&self) -> u64;

    /// Operations pushed to the kernel and not yet ended, the wake-up poll included.
    fn operations(&self) -> u64;
}
