//! The network's descriptors and listeners: numbers that are reused at once, and the queues of
//! accepts.

use std::collections::VecDeque;
use std::net::SocketAddr;

use super::super::socket::{Socket, SocketId};
use super::{Descriptor, Listener, Network, Target};

/// First descriptor: above those of the process itself, so that the two can't be mixed up.
const DESCRIPTOR_FIRST: usize = 100_000;

impl Network {
    /// Opens a listener and gives its descriptor.
    pub fn listen(&mut self, address: SocketAddr) -> i32 {
        self.listeners.push(Listener {
            address,
            queue: VecDeque::new(),
            open: true,
        });
        let target = Target::Listener(self.listeners.len() - 1);
        self.open_descriptor(target).expect("a descriptor")
    }

    /// Descriptors open now: sockets and listeners of streams.
    pub fn descriptors(&self) -> [usize; 2] {
        let count = |is_one: fn(Target) -> bool| {
            let open = self.descriptors.iter().flatten();
            open.filter(|d| is_one(d.target)).count()
        };
        [
            count(|target| matches!(target, Target::Stream(_))),
            count(|target| matches!(target, Target::Listener(_))),
        ]
    }

    /// Connections of shards that are open now: those they accepted, and those to an address.
    pub fn connections(&self, to: SocketAddr) -> [usize; 2] {
        let open = self.descriptors.iter().flatten();
        let streams = open.filter_map(|descriptor| match descriptor.target {
            Target::Stream(id) => Some(self.at(id)),
            Target::Listener(_) | Target::Datagrams(_) => None,
        });
        let mut counts = [0; 2];
        for socket in streams {
            counts[0] += usize::from(!socket.connects);
            counts[1] += usize::from(socket.connects && socket.remote == to);
        }
        counts
    }

    /// Whether a shard has a connection from a port to an address.
    pub(super) fn connects_from(&self, port: u16, to: SocketAddr) -> bool {
        let mut open = self.descriptors.iter().flatten();
        open.any(|descriptor| match descriptor.target {
            Target::Stream(id) => {
                let socket = self.at(id);
                socket.connects && socket.local.port() == port && socket.remote == to
            }
            Target::Listener(_) | Target::Datagrams(_) => false,
        })
    }

    pub(super) fn open_descriptor(&mut self, target: Target) -> Option<i32> {
        let open = self.descriptors.iter().flatten().count();
        if open >= self.settings.descriptors_max {
            return None;
        }
        let descriptor = Some(Descriptor { target, busy: 0 });
        // The lowest free one, as the kernel does: a stale number soon names another socket.
        let place = self.descriptors.iter().position(Option::is_none);
        let place = place.unwrap_or_else(|| {
            self.descriptors.push(None);
            self.descriptors.len() - 1
        });
        self.descriptors[place] = descriptor;
        Some(i32::try_from(DESCRIPTOR_FIRST + place).expect("few descriptors"))
    }

    pub(super) fn descriptor(&mut self, fd: i32) -> &mut Descriptor {
        let place = usize::try_from(fd).ok();
        place
            .and_then(|fd| fd.checked_sub(DESCRIPTOR_FIRST))
            .and_then(|place| self.descriptors.get_mut(place)?.as_mut())
            .unwrap_or_else(|| panic!("descriptor {fd} is not open"))
    }

    /// The stream socket of a descriptor.
    pub(in super::super) fn stream(&mut self, fd: i32) -> SocketId {
        match self.descriptor(fd).target {
            Target::Stream(id) => id,
            Target::Listener(_) | Target::Datagrams(_) => {
                panic!("descriptor {fd} is no stream")
            }
        }
    }

    pub(in super::super) fn at(&self, id: SocketId) -> &Socket {
        &self.sockets[id.0 as usize]
    }

    /// Counts an operation on a descriptor.
    pub(in super::super) fn hold(&mut self, fd: i32) {
        self.descriptor(fd).busy += 1;
    }

    /// An operation on a descriptor has ended.
    pub(in super::super) fn let_go(&mut self, fd: i32) {
        self.descriptor(fd).busy -= 1;
    }

    /// Closes a descriptor.
    pub(in super::super) fn close_descriptor(&mut self, fd: i32, reset: bool) {
        let descriptor = *self.descriptor(fd);
        assert!(
            descriptor.busy == 0,
            "descriptor {fd} is closed with {} operations outstanding",
            descriptor.busy
        );
        let place = usize::try_from(fd).expect("open") - DESCRIPTOR_FIRST;
        self.descriptors[place] = None;
        match descriptor.target {
            Target::Stream(id) => self.close(id, reset),
            Target::Listener(index) => {
                self.listeners[index].open = false;
                for id in std::mem::take(&mut self.listeners[index].queue) {
                    self.close(id, true);
                }
            }
            Target::Datagrams(index) => self.close_datagrams(index),
        }
    }

    /// Whether a listener has a connection.
    pub(in super::super) fn has_queued(&mut self, fd: i32) -> bool {
        match self.descriptor(fd).target {
            Target::Listener(index) => !self.listeners[index].queue.is_empty(),
            Target::Stream(_) | Target::Datagrams(_) => {
                panic!("descriptor {fd} does not listen")
            }
        }
    }

    /// Accepts a connection.
    pub(in super::super) fn accept(&mut self, fd: i32) -> Result<i32, i32> {
        let Target::Listener(index) = self.descriptor(fd).target else {
            panic!("descriptor {fd} does not listen");
        };
        let Some(id) = self.listeners[index].queue.front().copied() else {
            return Err(libc::EAGAIN);
        };
        if self.random.chance(self.settings.accept_error) {
            return Err(self.random.pick(&[libc::ECONNABORTED, libc::EMFILE]));
        }
        let accepted = self.open_descriptor(Target::Stream(id));
        let Some(accepted) = accepted else {
            return Err(libc::EMFILE);
        };
        self.listeners[index].queue.pop_front();
        let client = self.peer(id);
        self.note(|| format!("accepted {id:?}, of {client:?}, as {accepted}"));
        Ok(accepted)
    }
}
