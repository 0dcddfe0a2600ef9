//! The kernel's ring.
//!
//! One ring per shard, made on the shard's own thread (SINGLE_ISSUER, DEFER_TASKRUN: receive work
//! runs only inside this thread's `turn`, io_uring_setup(2)). One `io_uring_enter` per turn
//! submits, runs the deferred work and waits. Descriptors are plain, not registered: shutdown(2)
//! and splice(2) need them.

mod datagram;
mod spin;

pub use datagram::INBOXES_BYTES;

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::buffers::{BufferGroup, BufferLayout};
use super::caps::Caps;
use super::errno::Errno;
use super::memory::Mapping;
use super::token::{Op, Token};
use super::{
    BufferUse, Completion, Fd, Group, Interest, Kernel, Pipe, Readiness, SocketOptions, Spun, Wait,
};
use crate::base::address::Address;
use crate::base::receive::ReceiveStep;
use crate::base::time::Moment;
use crate::sys::{clock, pipe, stream};

/// Submission entries. A turn that needs more submits in between.
pub(super) const SQ_ENTRIES: u32 = 2048;
/// Completion entries: 8 per submission entry, because multishot operations complete many times.
pub(super) const CQ_ENTRIES: u32 = 16_384;

/// `IOU_PBUF_RING_INC` (io_uring_register(2), Linux 6.12).
const PBUF_RING_INC: u16 = 2;
/// `IORING_ENTER_GETEVENTS`, `IORING_ENTER_EXT_ARG`, `IORING_ENTER_REGISTERED_RING`,
/// io_uring_enter(2).
const ENTER_GETEVENTS: u32 = 1;
const ENTER_EXT_ARG: u32 = 8;
const ENTER_REGISTERED_RING: u32 = 16;
/// `IORING_REGISTER_RING_FDS`, io_uring_register(2).
const REGISTER_RING_FDS: libc::c_uint = 20;
/// Offset of `optlen` in a submission entry: the total a multishot receive may deliver (Linux 6.17,
/// include/uapi/linux/io_uring.h).
const SQE_OPTLEN: usize = 44;
/// Offset of `ioprio`; `IORING_RECVSEND_BUNDLE` is bit 4 of it.
const SQE_IOPRIO: usize = 2;
const RECVSEND_BUNDLE: u16 = 1 << 4;

/// Shape of both rings for a receive step, with `count` buffers in each incremental ring.
pub(super) fn layouts(step: ReceiveStep, count: u16) -> [BufferLayout; 2] {
    let layout = |count, size, incremental| BufferLayout {
        count,
        size,
        incremental,
    };
    match step {
        // 8 x 32 KiB + 8 x 256 KiB = 2.25 MiB: the kernel cycles through all of a ring, so both
        // must stay in the L2 cache.
        ReceiveStep::Limit | ReceiveStep::Incremental => [
            layout(count, 32 << 10, true),
            layout(count, 256 << 10, true),
        ],
        // The same bytes in pieces of 4 KiB, which a bundle joins.
        ReceiveStep::Bundle => [
            layout(count * 8, 4 << 10, false),
            layout(count * 64, 4 << 10, false),
        ],
        // One receive takes one buffer: 4 KiB for messages, 64 KiB for bulk.
        ReceiveStep::Plain => [
            layout(count * 8, 4 << 10, false),
            layout(count * 4, 64 << 10, false),
        ],
    }
}

/// The ring of one shard.
///
/// Field order is drop order: the ring's descriptor first, then the buffer rings it writes to.
pub struct Uring {
    ring: IoUring,
    rings: [BufferRing; 2],
    /// The buffers of datagrams, where there are any to come.
    inboxes: Option<datagram::Inboxes>,
    /// Whether datagrams may be sent several at a time (UDP_SEGMENT), and received so (UDP_GRO).
    segments: bool,
    joins: bool,
    step: ReceiveStep,
    /// Whether one accept may bring many connections.
    multishot_accept: bool,
    /// Entries pushed since the last enter.
    unsubmitted: u32,
    /// Index of the registered ring descriptor, which spares a look-up per enter.
    registered: Option<u32>,
    completions: VecDeque<Completion>,
    operations: u64,
    overflows: u64,
    /// Time it has spun, nanoseconds.
    spun_ns: u64,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("step", &self.step)
            .finish_non_exhaustive()
    }
}

/// A group's accounting and the ring page through which its buffers reach the kernel.
struct BufferRing {
    entries: Entries,
    group: BufferGroup,
    tail: u16,
    /// Bytes that the kernel may fill of each buffer.
    usable: u32,
}

impl Uring {
    /// Makes the ring with both buffer rings on the calling thread, which alone may use it.
    pub fn new(caps: &Caps) -> io::Result<Uring> {
        Uring::with_entries(caps, SQ_ENTRIES, CQ_ENTRIES)
    }

    /// The same with other queue sizes.
    pub fn with_entries(caps: &Caps, sq: u32, cq: u32) -> io::Result<Uring> {
        let step = caps.receive;
        let ring = bare(caps.deferred_work, sq, cq)?;
        let [small, bulk] = layouts(step, caps.buffers);
        let rings = [
            BufferRing::register(&ring, Group::Small as u16, small, small.size)?,
            BufferRing::register(&ring, Group::Bulk as u16, bulk, bulk.size)?,
        ];
        let registered = caps
            .registered_ring
            .then(|| register_ring_descriptor(ring.as_raw_fd()))
            .flatten();
        let mut uring = Uring {
            ring,
            rings,
            inboxes: None,
            segments: caps.gso,
            joins: caps.gro,
            step,
            multishot_accept: caps.multishot_accept,
            unsubmitted: 0,
            registered,
            completions: VecDeque::with_capacity(1024),
            operations: 0,
            overflows: 0,
            spun_ns: 0,
        };
        uring.publish();
        Ok(uring)
    }

    /// Whether enter(2) names the ring by its index.
    pub(super) fn is_registered(&self) -> bool {
        self.registered.is_some()
    }

    /// Pushes an entry, submitting first if the queue is full.
    fn push(&mut self, entry: squeue::Entry, token: Token) {
        let entry = entry.user_data(token.0);
        loop {
            // SAFETY: the entry points to no memory of ours (buffers come from the rings, which
            // live as long as the ring, as does the message header that receives of datagrams
            // name), and its descriptor stays open until its last completion.
            let pushed = unsafe { self.ring.submission().push(&entry) };
            if pushed.is_ok() {
                break;
            }
            if let Err(error) = self.enter(0, None) {
                log::error!("io_uring_enter: {error}");
            }
            self.gather();
        }
        self.unsubmitted += 1;
        if token.op() != Some(Op::Cancel) {
            self.operations += 1;
        }
    }

    /// io_uring_enter(2): submits all, runs deferred work, waits for `want` completions.
    fn enter(&mut self, want: u32, timeout: Option<Duration>) -> io::Result<()> {
        let (descriptor, mut flags) = match self.registered {
            Some(index) => (index.cast_signed(), ENTER_GETEVENTS | ENTER_REGISTERED_RING),
            None => (self.ring.as_raw_fd(), ENTER_GETEVENTS),
        };
        let time = timeout.map(|t| Timespec {
            seconds: i64::try_from(t.as_secs()).unwrap_or(i64::MAX),
            nanoseconds: i64::from(t.subsec_nanos()),
        });
        let argument = GetEventsArgument {
            signal_mask: 0,
            signal_mask_size: 0,
            min_wait_us: 0,
            timespec: time.as_ref().map_or(0, |t| std::ptr::from_ref(t) as u64),
        };
        let (pointer, size) = if time.is_some() {
            flags |= ENTER_EXT_ARG;
            (
                std::ptr::from_ref(&argument).cast::<libc::c_void>(),
                size_of::<GetEventsArgument>(),
            )
        } else {
            (std::ptr::null(), 0)
        };
        // SAFETY: the argument block and its timespec outlive the call; the kernel only reads them.
        let result = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                descriptor,
                self.unsubmitted,
                want,
                flags,
                pointer,
                size,
            )
        };
        if result < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                // Timed out, interrupted, or (EBUSY, EAGAIN) completions must be taken first:
                // nothing of this is a failure, but what was to be submitted may still be in the
                // queue.
                Some(libc::ETIME) => {
                    self.unsubmitted = self.left_in_queue();
                    Ok(())
                }
                Some(libc::EINTR | libc::EBUSY | libc::EAGAIN) => {
                    self.unsubmitted = self.left_in_queue();
                    Ok(())
                }
                _ => Err(error),
            };
        }
        let submitted = u32::try_from(result).unwrap_or(0);
        self.unsubmitted = self.unsubmitted.saturating_sub(submitted);
        Ok(())
    }

    fn left_in_queue(&mut self) -> u32 {
        u32::try_from(self.ring.submission().len()).unwrap_or(0)
    }

    /// Takes everything from the completion queue.
    fn gather(&mut self) {
        let mut queue = self.ring.completion();
        self.overflows += u64::from(queue.overflow() != 0);
        for entry in &mut queue {
            let token = Token(entry.user_data());
            if token.op() == Some(Op::Cancel) {
                continue;
            }
            let flags = entry.flags();
            let more = cqueue::more(flags);
            if !more {
                self.operations -= 1;
            }
            let buffer = cqueue::buffer_select(flags).map(|buffer| BufferUse {
                buffer,
                more: cqueue::buffer_more(flags),
            });
            self.completions.push_back(Completion {
                token,
                result: entry.result(),
                more,
                buffer,
                left: cqueue::sock_nonempty(flags),
            });
        }
    }

    fn publish(&mut self) {
        for ring in &mut self.rings {
            ring.publish();
        }
        if let Some(inboxes) = &mut self.inboxes {
            inboxes.publish();
        }
    }
}

impl Kernel for Uring {
    fn now(&self) -> Moment {
        Moment(stream::monotonic_ns())
    }

    fn accept(&mut self, listener: Fd, multishot: bool, token: Token) {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let fd = types::Fd(listener.0);
        // A single accept is what a multishot one is after an early end: it is armed again.
        let entry = if multishot && self.multishot_accept {
            opcode::AcceptMulti::new(fd).flags(flags).build()
        } else {
            let nowhere = std::ptr::null_mut();
            opcode::Accept::new(fd, nowhere, nowhere.cast())
                .flags(flags)
                .build()
        };
        self.push(entry, token);
    }

    fn receive(&mut self, fd: Fd, group: Group, limit: u32, token: Token) {
        let fd = types::Fd(fd.0);
        let entry = match self.step {
            ReceiveStep::Limit => {
                // `len` bounds the first receive and `optlen` the sum: the sum alone lets one
                // receive take a whole buffer past it (seen on Linux 6.18).
                let entry = opcode::RecvMulti::new(fd, group as u16).len(limit).build();
                patch(entry, SQE_OPTLEN, &limit.to_ne_bytes())
            }
            ReceiveStep::Incremental | ReceiveStep::Plain => one_receive(fd, group, limit),
            ReceiveStep::Bundle => {
                let entry = one_receive(fd, group, limit);
                patch(entry, SQE_IOPRIO, &RECVSEND_BUNDLE.to_ne_bytes())
            }
        };
        self.push(entry, token);
    }

    fn poll(&mut self, fd: Fd, interest: Interest, multishot: bool, token: Token) {
        let events = match interest {
            Interest::Read => libc::POLLIN | libc::POLLRDHUP,
            Interest::Write => libc::POLLOUT,
        };
        let events = u32::from(events.cast_unsigned());
        let entry = opcode::PollAdd::new(types::Fd(fd.0), events)
            .multi(multishot)
            .build();
        self.push(entry, token);
    }

    fn cancel(&mut self, target: Token) {
        let entry = opcode::AsyncCancel::new(target.0).build();
        self.push(
            entry.flags(squeue::Flags::SKIP_SUCCESS),
            Token::plain(Op::Cancel, 0),
        );
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        self.publish();
        let idle = self.completions.is_empty();
        if !idle && self.unsubmitted == 0 && !self.has_work() {
            // A spin has entered already.
            return Ok(());
        }
        match wait {
            Wait::Forever if idle => self.enter(1, None)?,
            Wait::For(time) if idle && !time.is_zero() => self.enter(1, Some(time))?,
            Wait::No | Wait::Forever | Wait::For(_) => self.enter(0, None)?,
        }
        self.gather();
        Ok(())
    }

    fn spin(&mut self, time: Duration) -> io::Result<Spun> {
        self.spin_for(time)
    }

    fn next_completion(&mut self) -> Option<Completion> {
        self.completions.pop_front()
    }

    fn readiness(&self, result: i32) -> Readiness {
        let has = |bit: i16| result & i32::from(bit) != 0;
        Readiness {
            writable: result >= 0 && has(libc::POLLOUT),
            failed: result < 0 || has(libc::POLLERR),
            hung_up: result >= 0 && has(libc::POLLHUP),
            ended: result >= 0 && has(libc::POLLRDHUP),
        }
    }

    fn buffers(&mut self, group: Group) -> &mut BufferGroup {
        &mut self.rings[group as usize].group
    }

    fn buffers_ref(&self, group: Group) -> &BufferGroup {
        &self.rings[group as usize].group
    }

    fn connect(&self, to: &Address, options: &SocketOptions) -> Result<(Fd, bool), Errno> {
        stream::connect(to, options)
            .map(|(fd, done)| (Fd(fd), done))
            .map_err(Errno)
    }

    fn send(&self, fd: Fd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        stream::send(fd.0, parts).map_err(Errno)
    }

    fn peek(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
        stream::peek(fd.0, buffer).map_err(Errno)
    }

    fn take(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
        stream::take(fd.0, buffer).map_err(Errno)
    }

    fn send_ahead(&self, fd: Fd, bytes: &[u8], more: bool) -> Result<usize, Errno> {
        stream::send_ahead(fd.0, bytes, more).map_err(Errno)
    }

    fn shutdown_write(&self, fd: Fd) -> Result<(), Errno> {
        stream::shutdown_write(fd.0).map_err(Errno)
    }

    fn take_error(&self, fd: Fd) -> Option<Errno> {
        stream::take_error(fd.0).map(Errno)
    }

    fn unacknowledged(&self, fd: Fd) -> usize {
        stream::unacknowledged(fd.0)
    }

    fn segment(&self, fd: Fd) -> u32 {
        stream::segment(fd.0)
    }

    fn close(&self, fd: Fd) {
        stream::close(fd.0);
    }

    fn close_with_reset(&self, fd: Fd) {
        stream::close_with_reset(fd.0);
    }

    fn peer_address(&self, fd: Fd) -> Option<SocketAddr> {
        stream::peer_address(fd.0)
    }

    fn local_address(&self, fd: Fd) -> Option<SocketAddr> {
        stream::local_address(fd.0)
    }

    fn accept_now(&self, listener: Fd) -> Result<Fd, Errno> {
        stream::accept_now(listener.0).map(Fd).map_err(Errno)
    }

    fn make_pipe(&self, size: u32) -> Result<Pipe, Errno> {
        let ends = pipe::make(size).map_err(Errno)?;
        Ok(Pipe {
            output: Fd(ends.output),
            input: Fd(ends.input),
            size: ends.size,
        })
    }

    fn close_pipe(&self, pipe: Pipe) {
        stream::close(pipe.output.0);
        stream::close(pipe.input.0);
    }

    fn splice_in(&self, from: Fd, pipe: Pipe, length: u32) -> Result<usize, Errno> {
        pipe::splice(from.0, pipe.input.0, length).map_err(Errno)
    }

    fn splice_out(&self, pipe: Pipe, to: Fd, length: u32) -> Result<usize, Errno> {
        pipe::splice(pipe.output.0, to.0, length).map_err(Errno)
    }

    fn read_pipe(&self, pipe: Pipe, buffer: &mut [u8]) -> Result<usize, Errno> {
        pipe::read(pipe.output.0, buffer).map_err(Errno)
    }

    fn worked_ns(&self) -> u64 {
        clock::thread_ns().saturating_sub(self.spun_ns)
    }

    fn drain_wake(&self, fd: Fd) {
        stream::drain_eventfd(fd.0);
    }

    fn overflows(&self) -> u64 {
        self.overflows
    }

    fn operations(&self) -> u64 {
        self.operations
    }
}

/// A ring without buffers. `deferred_work` = receive work waits for the thread's own enter
/// (io_uring_setup(2)); otherwise the thread is not interrupted for it, and it runs at the next
/// system call of any kind.
pub(super) fn bare(deferred_work: bool, sq: u32, cq: u32) -> io::Result<IoUring> {
    let mut builder = IoUring::builder();
    builder
        .setup_cqsize(cq)
        .setup_submit_all()
        .setup_taskrun_flag()
        .dontfork();
    if deferred_work {
        builder.setup_single_issuer().setup_defer_taskrun();
    } else {
        builder.setup_coop_taskrun();
    }
    builder.build(sq)
}

/// A single receive into a provided buffer; the ring's buffer pointer replaces the null one.
fn one_receive(fd: types::Fd, group: Group, limit: u32) -> squeue::Entry {
    opcode::Recv::new(fd, std::ptr::null_mut(), limit)
        .buf_group(group as u16)
        .build()
        .flags(squeue::Flags::BUFFER_SELECT)
}

/// Sets a field that the `io-uring` crate has no setter for.
fn patch(entry: squeue::Entry, offset: usize, value: &[u8]) -> squeue::Entry {
    const SIZE: usize = size_of::<squeue::Entry>();
    // SAFETY: an entry is 64 bytes of plain kernel data without padding that matters.
    let mut bytes = unsafe { std::mem::transmute::<squeue::Entry, [u8; SIZE]>(entry) };
    bytes[offset..offset + value.len()].copy_from_slice(value);
    // SAFETY: every bit pattern is a valid entry; the kernel checks what it says.
    unsafe { std::mem::transmute::<[u8; SIZE], squeue::Entry>(bytes) }
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_getevents_arg`, io_uring_enter(2).
#[repr(C)]
struct GetEventsArgument {
    signal_mask: u64,
    signal_mask_size: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct ResourceUpdate {
    offset: u32,
    reserved: u32,
    data: u64,
}

/// Registers the ring's own descriptor with this thread; `None` where the kernel refuses.
fn register_ring_descriptor(fd: i32) -> Option<u32> {
    let mut update = ResourceUpdate {
        offset: u32::MAX,
        reserved: 0,
        data: u64::try_from(fd).ok()?,
    };
    // SAFETY: REGISTER_RING_FDS reads and writes one io_uring_rsrc_update.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            REGISTER_RING_FDS,
            &raw mut update,
            1 as libc::c_uint,
        )
    };
    (result == 1).then_some(update.offset)
}

impl BufferRing {
    fn register(
        ring: &IoUring,
        id: u16,
        layout: BufferLayout,
        usable: u32,
    ) -> io::Result<BufferRing> {
        debug_assert!(usable <= layout.size);
        let entries = Entries::new(layout.count);
        let flags = if layout.incremental { PBUF_RING_INC } else { 0 };
        // SAFETY: the entries are page-aligned and live as long as this value, which `Uring` drops
        // after the ring.
        unsafe {
            ring.submitter().register_buf_ring_with_flags(
                entries.base() as u64,
                layout.count,
                id,
                flags,
            )?;
        }
        Ok(BufferRing {
            entries,
            group: BufferGroup::new(layout),
            tail: 0,
            usable,
        })
    }

    fn publish(&mut self) {
        let mask = self.entries.count - 1;
        let before = self.tail;
        let (tail, entries) = (&mut self.tail, &self.entries);
        let usable = self.usable;
        self.group.publish_returned(|buffer, address, _| {
            entries.write(*tail & mask, address, usable, buffer);
            *tail = tail.wrapping_add(1);
        });
        if self.tail != before {
            self.entries.publish(self.tail);
        }
    }
}

/// The page(s) of `struct io_uring_buf` shared with the kernel. Zero-filled: valid empty entries.
struct Entries {
    memory: Mapping,
    count: u16,
}

impl Entries {
    fn new(count: u16) -> Entries {
        let length = usize::from(count) * size_of::<types::BufRingEntry>();
        Entries {
            memory: Mapping::new(length),
            count,
        }
    }

    fn base(&self) -> *mut types::BufRingEntry {
        self.memory.at(0).cast()
    }

    fn write(&self, index: u16, address: *mut u8, size: u32, buffer: u16) {
        assert!(index < self.count);
        // SAFETY: inside the mapping.
        let slot = unsafe { self.base().add(usize::from(index)) };
        // SAFETY: the kernel reads this entry only after `publish` moves the tail past it; only
        // this thread writes. Address, length and id are set one by one so that `resv` of entry 0,
        // which holds the tail, stays.
        let entry = unsafe { &mut *slot };
        entry.set_addr(address as u64);
        entry.set_len(size);
        entry.set_bid(buffer);
    }

    fn publish(&self, tail: u16) {
        // SAFETY: the first entry of a live ring.
        let shared = unsafe { types::BufRingEntry::tail(self.base()) };
        // SAFETY: the tail is an aligned u16 inside the mapping that both sides access atomically.
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        shared.store(tail, Ordering::Release);
    }
}
