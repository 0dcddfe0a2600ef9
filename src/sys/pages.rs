//! Pages of this process that can be given back one by one.
//!
//! The allocator keeps what is freed between two pieces that are in use, so a burst would stay
//! resident for as long as one byte of it does. What comes and goes with load lies in pages of its
//! own, and leaves by madvise(2).

use std::alloc::{Layout, handle_alloc_error};
use std::ptr::NonNull;

/// Bytes of a page: that of every architecture this runs on, or a part of it.
pub const PAGE: usize = 4096;

/// A stretch of zero-filled memory. Its pages take none before they are written to.
#[derive(Debug)]
pub struct Pages {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is owned by this value alone; moving the owner to another thread moves the
// access.
unsafe impl Send for Pages {}

impl Pages {
    /// A stretch of `length` bytes, a multiple of [`PAGE`]. Without address space for it the
    /// program ends, as with any other allocation.
    pub fn new(length: usize) -> Pages {
        // SAFETY: an anonymous private mapping of our own; no existing memory is touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        let (Some(base), true) = (NonNull::new(base.cast()), base != libc::MAP_FAILED) else {
            let layout = Layout::from_size_align(length, PAGE).unwrap_or(Layout::new::<u8>());
            handle_alloc_error(layout);
        };
        let pages = Pages { base, length };
        // A huge page would make 2 MiB resident for the first byte. Where the kernel has none, the
        // call fails and nothing is lost.
        pages.advise(0, length, libc::MADV_NOHUGEPAGE);
        pages
    }

    /// Bytes of a part.
    pub fn bytes(&self, start: usize, length: usize) -> &[u8] {
        let from = self.at(start, length);
        // SAFETY: inside the mapping, initialised by mmap, and only written through `&mut self`.
        unsafe { std::slice::from_raw_parts(from.as_ptr(), length) }
    }

    /// The same to write to.
    pub fn bytes_mut(&mut self, start: usize, length: usize) -> &mut [u8] {
        let from = self.at(start, length);
        // SAFETY: inside the mapping, initialised by mmap, and borrowed for as long as `self` is.
        unsafe { std::slice::from_raw_parts_mut(from.as_ptr(), length) }
    }

    /// Gives the memory of whole pages back; what was in them is lost, the next look finds zeros.
    pub fn give_back(&mut self, start: usize, length: usize) {
        assert!(start.is_multiple_of(PAGE) && length.is_multiple_of(PAGE));
        self.advise(start, length, libc::MADV_DONTNEED);
    }

    fn advise(&self, start: usize, length: usize, advice: i32) {
        let from = self.at(start, length);
        // SAFETY: the stretch is inside the mapping, which is private and anonymous: the advices
        // given here leave it readable and writable. Nobody has borrowed bytes of it: that of
        // `give_back` needs `&mut self`, that of `new` comes before any.
        unsafe { libc::madvise(from.as_ptr().cast(), length, advice) };
    }

    fn at(&self, start: usize, length: usize) -> NonNull<u8> {
        assert!(start < self.length && length <= self.length - start);
        // SAFETY: `start` is inside the mapping.
        unsafe { self.base.add(start) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, unmapped once, while nobody borrows from it.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_comes_back_as_zeros() {
        let mut pages = Pages::new(4 * PAGE);
        pages.bytes_mut(0, 4 * PAGE).fill(7);
        pages.give_back(PAGE, 2 * PAGE);
        assert_eq!(pages.bytes(PAGE - 1, 2), [7, 0]);
        assert_eq!(pages.bytes(3 * PAGE - 1, 2), [0, 7]);
        pages.bytes_mut(PAGE, 1)[0] = 3;
        assert_eq!(pages.bytes(PAGE, 2), [3, 0]);
    }

    #[test]
    #[should_panic(expected = "assertion failed")]
    fn no_part_reaches_beyond_the_end() {
        Pages::new(PAGE).bytes(1, PAGE);
    }
}
