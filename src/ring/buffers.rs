//! One ring of provided buffers: its memory and who holds what of it.
//!
//! A buffer is with the kernel, or lent out in pieces, or both (incremental rings fill it step by
//! step while earlier steps are still being read). It goes back when the kernel has done with it
//! and the last piece is released; `turn` publishes what went back. The accounting is the same for
//! the real ring and the scripted one; only the way a buffer number reaches the kernel differs.

use std::collections::VecDeque;

use super::memory::Mapping;

/// A stretch of received bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Piece {
    /// Which buffer.
    pub buffer: u16,
    /// Offset in it.
    pub offset: u32,
    /// Length, never 0.
    pub length: u32,
}

/// Shape of a ring.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BufferLayout {
    /// Buffers, a power of two.
    pub count: u16,
    /// Bytes of each.
    pub size: u32,
    /// The kernel fills buffers step by step.
    pub incremental: bool,
}

/// State of one buffer.
#[derive(Clone, Copy, Default, Debug)]
struct Buffer {
    /// Bytes the kernel has filled.
    filled: u32,
    /// Bytes lent out and not yet released.
    lent: u32,
    /// The kernel may fill more of it.
    with_kernel: bool,
}

/// A ring's buffers.
#[derive(Debug)]
pub struct BufferGroup {
    layout: BufferLayout,
    memory: Mapping,
    buffers: Vec<Buffer>,
    /// Buffers with the kernel in the order it will take them; a bundle spans consecutive ones.
    order: VecDeque<u16>,
    /// Released and not yet published.
    returned: Vec<u16>,
}

impl BufferGroup {
    /// A ring with all its buffers waiting to be published.
    pub fn new(layout: BufferLayout) -> BufferGroup {
        assert!(
            layout.count.is_power_of_two() && layout.size > 0,
            "shape of a buffer ring"
        );
        BufferGroup {
            layout,
            memory: Mapping::new(usize::from(layout.count) * layout.size as usize),
            buffers: vec![Buffer::default(); usize::from(layout.count)],
            order: VecDeque::with_capacity(usize::from(layout.count)),
            returned: (0..layout.count).collect(),
        }
    }

    /// Its shape.
    pub fn layout(&self) -> BufferLayout {
        self.layout
    }

    /// Buffers the kernel has, or will have after the next turn.
    pub fn available(&self) -> usize {
        self.order.len() + self.returned.len()
    }

    /// Hands every returned buffer to `publish`, in order.
    pub fn publish_returned(&mut self, mut publish: impl FnMut(u16, *mut u8, u32)) {
        for buffer in self.returned.drain(..) {
            let state = &mut self.buffers[usize::from(buffer)];
            debug_assert!(!state.with_kernel && state.lent == 0);
            *state = Buffer {
                filled: 0,
                lent: 0,
                with_kernel: true,
            };
            self.order.push_back(buffer);
            let start = usize::from(buffer) * self.layout.size as usize;
            publish(buffer, self.memory.at(start), self.layout.size);
        }
    }

    /// Takes `length` received bytes that begin in `buffer` and hands their pieces to `emit`.
    /// `more` = the kernel goes on filling that buffer. A length of 0 only settles the buffer's
    /// ownership.
    pub fn take(&mut self, buffer: u16, length: u32, more: bool, mut emit: impl FnMut(Piece)) {
        let mut left = length;
        let mut next = Some(buffer);
        loop {
            let Some(buffer) = next else {
                debug_assert!(left == 0, "a receive longer than the buffers published");
                return;
            };
            let size = self.layout.size;
            let state = &mut self.buffers[usize::from(buffer)];
            debug_assert!(
                state.with_kernel,
                "the kernel filled a buffer that it does not have"
            );
            let offset = state.filled;
            let length = left.min(size - offset);
            state.filled += length;
            state.lent += length;
            left -= length;
            let kernel_keeps = self.layout.incremental && more;
            if !kernel_keeps {
                state.with_kernel = false;
                let unused = state.lent == 0;
                if let Some(place) = self.order.iter().position(|b| *b == buffer) {
                    self.order.remove(place);
                    next = self.order.get(place).copied();
                }
                if unused {
                    self.returned.push(buffer);
                }
            }
            if length > 0 {
                emit(Piece {
                    buffer,
                    offset,
                    length,
                });
            }
            if left == 0 {
                return;
            }
            debug_assert!(!kernel_keeps, "an incremental receive stays in one buffer");
        }
    }

    /// The bytes of a piece that `take` lent.
    pub fn bytes(&self, piece: Piece) -> &[u8] {
        let start = usize::from(piece.buffer) * self.layout.size as usize + piece.offset as usize;
        self.memory.bytes(start, piece.length as usize)
    }

    /// Gives bytes of a piece back; the buffer returns to the kernel with its last byte.
    pub fn release(&mut self, buffer: u16, length: u32) {
        let state = &mut self.buffers[usize::from(buffer)];
        assert!(state.lent >= length, "more bytes released than lent");
        state.lent -= length;
        if state.lent == 0 && !state.with_kernel && length > 0 {
            self.returned.push(buffer);
        }
    }

    /// Gives everything of a buffer back that `take` has lent.
    pub fn release_all(&mut self, buffer: u16) {
        let lent = self.buffers[usize::from(buffer)].lent;
        assert!(lent > 0, "a buffer given back that was not lent");
        self.release(buffer, lent);
    }

    /// Where a scripted kernel writes. The stretch must not have been lent.
    pub fn fill(&mut self, buffer: u16, offset: u32, bytes: &[u8]) {
        assert!(
            bytes.len() + offset as usize <= self.layout.size as usize,
            "past the buffer"
        );
        let start = usize::from(buffer) * self.layout.size as usize + offset as usize;
        self.memory.write(start, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(incremental: bool) -> BufferGroup {
        let mut group = BufferGroup::new(BufferLayout {
            count: 4,
            size: 16,
            incremental,
        });
        group.publish_returned(|_, _, _| {});
        group
    }

    #[test]
    fn incremental_buffers_return_after_the_last_piece() {
        let mut group = group(true);
        let mut pieces = Vec::new();
        group.fill(0, 0, b"hello");
        group.take(0, 5, true, |p| pieces.push(p));
        group.fill(0, 5, b"world");
        group.take(0, 5, false, |p| pieces.push(p));
        assert_eq!(group.bytes(pieces[0]), b"hello");
        assert_eq!(group.bytes(pieces[1]), b"world");
        assert_eq!(group.available(), 3);
        group.release(0, 7);
        assert_eq!(group.available(), 3);
        group.release(0, 3);
        assert_eq!(group.available(), 4);
    }

    #[test]
    fn bundles_span_buffers_in_publishing_order() {
        let mut group = group(false);
        group.take(0, 16, false, |_| {});
        group.release(0, 16);
        group.publish_returned(|_, _, _| {});
        // The order is now 1, 2, 3, 0.
        let mut pieces = Vec::new();
        group.take(2, 40, false, |p| pieces.push(p));
        let shape: Vec<_> = pieces
            .iter()
            .map(|p| (p.buffer, p.offset, p.length))
            .collect();
        assert_eq!(shape, [(2, 0, 16), (3, 0, 16), (0, 0, 8)]);
        assert_eq!(group.available(), 1);
        for piece in pieces {
            group.release(piece.buffer, piece.length);
        }
        assert_eq!(group.available(), 4);
    }

    #[test]
    fn an_empty_receive_returns_its_buffer() {
        let mut group = group(false);
        group.take(0, 0, false, |_| panic!("no bytes"));
        assert_eq!(group.available(), 4);
    }
}
