//! Receives of the scripted ring: how the kernel takes provided buffers, step by step as
//! [`ReceiveStep`](crate::base::receive::ReceiveStep) says.

use std::collections::VecDeque;

use super::socket::Read;
use super::{Kind, Scripted};
use crate::base::receive::ReceiveStep;
use crate::ring::BufferUse;
use crate::ring::buffers::{BufferGroup, BufferLayout};

/// A buffer ring and what the kernel knows of it.
#[derive(Debug)]
pub(super) struct Provided {
    pub(super) buffers: BufferGroup,
    /// Buffers the kernel has, in the order it takes them.
    queue: VecDeque<u16>,
    /// Bytes filled of the first one (incremental rings).
    filled: u32,
}

impl Provided {
    pub(super) fn new(layout: BufferLayout) -> Provided {
        Provided {
            buffers: BufferGroup::new(layout),
            queue: VecDeque::new(),
            filled: 0,
        }
    }

    pub(super) fn publish(&mut self) {
        let queue = &mut self.queue;
        self.buffers
            .publish_returned(|buffer, _, _| queue.push_back(buffer));
    }

    pub(super) fn incremental(&self) -> bool {
        self.buffers.layout().incremental
    }

    /// Bytes that one receive can take: a buffer's rest, a buffer, or (`bundle`) all buffers.
    fn room(&self, bundle: bool) -> u32 {
        let size = self.buffers.layout().size;
        let count = u32::try_from(self.queue.len()).expect("few buffers");
        match count {
            0 => 0,
            _ if bundle => size * count,
            _ => size - self.filled,
        }
    }

    /// Whether the kernel has no buffer.
    pub(super) fn is_dry(&self) -> bool {
        self.queue.is_empty()
    }

    /// Puts bytes into the first buffer, or into as many as they need.
    pub(super) fn fill(&mut self, bytes: &[u8]) -> BufferUse {
        let layout = self.buffers.layout();
        let buffer = *self.queue.front().expect("room was there");
        if layout.incremental {
            self.buffers.fill(buffer, self.filled, bytes);
            self.filled += u32::try_from(bytes.len()).expect("at most a buffer");
            let more = self.filled < layout.size;
            if !more {
                self.queue.pop_front();
                self.filled = 0;
            }
            return BufferUse { buffer, more };
        }
        for part in bytes.chunks(layout.size as usize) {
            let buffer = self.queue.pop_front().expect("room was there");
            self.buffers.fill(buffer, 0, part);
        }
        BufferUse {
            buffer,
            more: false,
        }
    }
}

impl Scripted {
    /// Lets a receive take what is there.
    pub(super) fn receive_some(&mut self, index: usize) {
        let fd = self.active[index].fd.0;
        let multishot = self.step == ReceiveStep::Limit;
        let bundle = self.step == ReceiveStep::Bundle;
        loop {
            let Kind::Receive { group, left, .. } = self.active[index].kind else {
                return;
            };
            // The kernel picks a buffer before it looks for data: a dry ring fails either way.
            let room = self.groups[group as usize].room(bundle);
            if room == 0 {
                return self.post(index, -libc::ENOBUFS, false, None);
            }
            let (id, readable) = {
                let mut network = self.network.borrow_mut();
                let id = network.stream(fd);
                (id, network.at(id).readable())
            };
            if let Kind::Receive { issued, .. } = &mut self.active[index].kind {
                *issued = true;
            }
            if !readable {
                return;
            }
            if self.chance(|settings| settings.spurious) {
                return self.post(index, -libc::EAGAIN, false, None);
            }
            let mut length = room.min(left);
            let read = {
                let mut network = self.network.borrow_mut();
                if bundle && network.random.chance(300) {
                    // One more transfer follows a bundle when the socket has more.
                    length = room;
                }
                if network.random.chance(100) {
                    length = u32::try_from(network.random.between(1, u64::from(length)))
                        .expect("at most a length");
                }
                network.read(id, length as usize)
            };
            let bytes = match read {
                Read::Bytes(bytes) => bytes,
                Read::End => return self.post(index, 0, false, None),
                Read::Error(errno) => return self.post(index, -errno, false, None),
                Read::Empty => return,
            };
            let count = u32::try_from(bytes.len()).expect("at most a length");
            let used = self.groups[group as usize].fill(&bytes);
            let left = left.saturating_sub(count);
            if let Kind::Receive { left: rest, .. } = &mut self.active[index].kind {
                *rest = left;
            }
            let more = multishot && left > 0 && !self.overflow();
            self.post(index, count.cast_signed(), more, Some(used));
            if !more || self.chance(|settings| settings.late) {
                return;
            }
        }
    }
}
