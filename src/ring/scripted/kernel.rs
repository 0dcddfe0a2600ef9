//! What a shard asks of the scripted kernel.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::time::Duration;

use super::socket::Read;
use super::{Entry, Kind, Scripted};
use crate::base::address::Address;
use crate::base::time::Moment;
use crate::ring::{
    BufferGroup, Completion, Errno, Fd, Group, Interest, Kernel, Op, Pipe, Readiness,
    SocketOptions, Spun, Token, Wait,
};
use crate::sys::stream;

impl Kernel for Scripted {
    fn now(&self) -> Moment {
        self.network.borrow().now()
    }

    fn accept(&mut self, listener: Fd, multishot: bool, token: Token) {
        self.push(token, listener, Kind::Accept { multishot });
    }

    fn receive(&mut self, fd: Fd, group: Group, limit: u32, token: Token) {
        assert!(limit > 0, "a receive of nothing");
        self.link(fd, token);
        let (left, issued) = (limit, false);
        let kind = Kind::Receive {
            group,
            left,
            issued,
        };
        self.push(token, fd, kind);
    }

    fn poll(&mut self, fd: Fd, interest: Interest, multishot: bool, token: Token) {
        let kind = if token.op() == Some(Op::Wake) {
            Kind::Wake
        } else {
            self.link(fd, token);
            Kind::Poll {
                interest,
                multishot,
                seen: None,
            }
        };
        self.push(token, fd, kind);
    }

    fn cancel(&mut self, target: Token) {
        // Its session may have been ended before the promised bytes could follow.
        if let Some(fd) = self.outstanding.get(&target.0) {
            self.promised.get_mut().remove(&fd.0);
        }
        self.enter(Entry::Cancel(target));
    }

    fn turn(&mut self, wait: Wait) -> io::Result<()> {
        let promised = self.promised.borrow();
        assert!(promised.is_empty(), "nothing followed on {promised:?}");
        drop(promised);
        if let Some(inboxes) = &self.inboxes {
            inboxes.check_nothing_is_held();
        }
        self.sleeps_until = None;
        self.publish();
        self.submit();
        self.work(false);
        self.gather();
        let until = match wait {
            Wait::No => return Ok(()),
            Wait::Forever => Moment::NEVER,
            Wait::For(time) => self.now() + time,
        };
        if self.gathered.is_empty() {
            self.work(true);
            self.gather();
        }
        if self.gathered.is_empty() {
            self.sleeps_until = Some(until);
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(())
    }

    /// Virtual time stands still during a turn, so nothing comes while it looks: there is something
    /// at once, or nothing, or (by chance) another thread takes the CPU.
    fn spin(&mut self, _time: Duration) -> io::Result<Spun> {
        self.publish();
        self.submit();
        self.work(false);
        self.gather();
        if !self.gathered.is_empty() {
            return Ok(Spun::Ready);
        }
        let interrupted = self.network.borrow_mut().random.below(8) == 0;
        Ok(if interrupted {
            Spun::Interrupted
        } else {
            Spun::InVain
        })
    }

    fn next_completion(&mut self) -> Option<Completion> {
        let completion = self.gathered.pop_front()?;
        self.datagram_is_seen(&completion);
        if !completion.more {
            let fd = self.outstanding.remove(&completion.token.0);
            let fd = fd.expect("an operation ends once");
            if completion.token.op() != Some(Op::Wake) {
                self.network.borrow_mut().let_go(fd.0);
            }
        }
        Some(completion)
    }

    fn readiness(&self, result: i32) -> Readiness {
        let has = |bit: i16| result >= 0 && result & i32::from(bit) != 0;
        Readiness {
            writable: has(libc::POLLOUT),
            failed: result < 0 || has(libc::POLLERR),
            hung_up: has(libc::POLLHUP),
            ended: has(libc::POLLRDHUP),
        }
    }

    fn buffers(&mut self, group: Group) -> &mut BufferGroup {
        &mut self.groups[group as usize].buffers
    }

    fn buffers_ref(&self, group: Group) -> &BufferGroup {
        &self.groups[group as usize].buffers
    }

    fn connect(&self, to: &Address, options: &SocketOptions) -> Result<(Fd, bool), Errno> {
        let Address::Ip(to) = to else {
            panic!("the network has no Unix sockets");
        };
        let ports = options.source.and_then(|source| source.ports);
        let port = ports.map(|(port, _)| port);
        let connected = self.network.borrow_mut().connect(*to, port);
        connected.map(|(fd, done)| (Fd(fd), done)).map_err(Errno)
    }

    fn send(&self, fd: Fd, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        self.promised.borrow_mut().remove(&fd.0);
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        let slices: Vec<&[u8]> = parts.iter().map(|part| &**part).collect();
        let sent = network.write(id, &slices);
        network.note(|| format!("  send to {id:?}: {sent:?}"));
        sent.map_err(Errno)
    }

    fn peek(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        fill(buffer, network.peek(id, buffer.len()))
    }

    fn take(&self, fd: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        let read = network.read(id, buffer.len());
        network.note(|| format!("  {id:?} is read directly: {read:?}"));
        fill(buffer, read)
    }

    fn send_ahead(&self, fd: Fd, bytes: &[u8], more: bool) -> Result<usize, Errno> {
        let sent = self.send(fd, &[IoSlice::new(bytes)])?;
        if more {
            self.promised.borrow_mut().insert(fd.0);
        }
        Ok(sent)
    }

    fn shutdown_write(&self, fd: Fd) -> Result<(), Errno> {
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        network.note(|| format!("  shutdown of {id:?}"));
        network.finish(id).map_err(Errno)
    }

    fn take_error(&self, fd: Fd) -> Option<Errno> {
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        network.take_error(id).map(Errno)
    }

    fn unacknowledged(&self, fd: Fd) -> usize {
        let mut network = self.network.borrow_mut();
        let id = network.stream(fd.0);
        network.unacknowledged(id)
    }

    /// The network has no probes: what doesn't fit waits until it does.
    fn segment(&self, _fd: Fd) -> u32 {
        0
    }

    fn close(&self, fd: Fd) {
        self.promised.borrow_mut().remove(&fd.0);
        let mut network = self.network.borrow_mut();
        network.note(|| format!("  close of {fd:?}"));
        network.close_descriptor(fd.0, false);
    }

    fn close_with_reset(&self, fd: Fd) {
        self.promised.borrow_mut().remove(&fd.0);
        let mut network = self.network.borrow_mut();
        network.note(|| format!("  close of {fd:?} by reset"));
        network.close_descriptor(fd.0, true);
    }

    fn peer_address(&self, fd: Fd) -> Option<SocketAddr> {
        let mut network = self.network.borrow_mut();
        if let Some((_, peer)) = network.datagram_addresses(fd.0) {
            return peer;
        }
        let id = network.stream(fd.0);
        Some(network.addresses(id)[1])
    }

    fn local_address(&self, fd: Fd) -> Option<SocketAddr> {
        let mut network = self.network.borrow_mut();
        if let Some((own, _)) = network.datagram_addresses(fd.0) {
            return Some(own);
        }
        let id = network.stream(fd.0);
        Some(network.addresses(id)[0])
    }

    fn accept_now(&self, listener: Fd) -> Result<Fd, Errno> {
        self.network
            .borrow_mut()
            .accept(listener.0)
            .map(Fd)
            .map_err(Errno)
    }

    fn make_pipe(&self, size: u32) -> Result<Pipe, Errno> {
        let made = self.network.borrow_mut().make_pipe(size);
        let ([output, input], size) = made.map_err(Errno)?;
        Ok(Pipe {
            output: Fd(output),
            input: Fd(input),
            size,
        })
    }

    fn close_pipe(&self, pipe: Pipe) {
        self.network.borrow_mut().close_pipe(pipe.output.0);
    }

    fn splice_in(&self, from: Fd, pipe: Pipe, length: u32) -> Result<usize, Errno> {
        let mut network = self.network.borrow_mut();
        let id = network.stream(from.0);
        let moved = network.splice_in(id, pipe.input.0, length);
        network.note(|| format!("  splice from {id:?} into {:?}: {moved:?}", pipe.input));
        moved.map_err(Errno)
    }

    fn splice_out(&self, pipe: Pipe, to: Fd, length: u32) -> Result<usize, Errno> {
        self.promised.borrow_mut().remove(&to.0);
        let mut network = self.network.borrow_mut();
        let id = network.stream(to.0);
        let moved = network.splice_out(pipe.output.0, id, length);
        network.note(|| format!("  splice out of {:?} to {id:?}: {moved:?}", pipe.output));
        moved.map_err(Errno)
    }

    fn read_pipe(&self, pipe: Pipe, buffer: &mut [u8]) -> Result<usize, Errno> {
        let mut network = self.network.borrow_mut();
        network.read_pipe(pipe.output.0, buffer).map_err(Errno)
    }

    fn worked_ns(&self) -> u64 {
        let mut network = self.network.borrow_mut();
        let (worked, until) = self.worked.get();
        let now = network.now();
        let most = network.settings.load_max;
        let busy = network.random.chance(980);
        let permille = if busy {
            most
        } else {
            network.random.below(most + 1)
        };
        let worked = worked + (now.0 - until.0) / 1_000 * permille;
        self.worked.set((worked, now));
        worked
    }

    fn drain_wake(&self, fd: Fd) {
        stream::drain_eventfd(fd.0);
    }

    fn overflows(&self) -> u64 {
        self.overflows
    }

    fn operations(&self) -> u64 {
        self.outstanding.len() as u64
    }
}

/// What a direct read found, as a call returns it.
fn fill(buffer: &mut [u8], read: Read) -> Result<usize, Errno> {
    match read {
        Read::Bytes(bytes) => {
            buffer[..bytes.len()].copy_from_slice(&bytes);
            Ok(bytes.len())
        }
        Read::End => Ok(0),
        Read::Empty => Err(Errno(libc::EAGAIN)),
        Read::Error(errno) => Err(Errno(errno)),
    }
}
