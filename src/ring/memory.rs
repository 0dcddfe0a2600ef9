//! Memory that this process shares with the kernel.

/// Page-aligned, zero-filled memory that the kernel reads or writes while this process uses other
/// stretches of it. It is only reached through raw pointers, so that no Rust reference ever spans
/// bytes the kernel may write.
#[derive(Debug)]
pub(super) struct Mapping {
    base: *mut u8,
    length: usize,
}

// SAFETY: the memory is owned by this value alone; moving the owner to another thread moves the
// access.
unsafe impl Send for Mapping {}

impl Mapping {
    /// A new mapping; without memory for it the program can't start.
    pub(super) fn new(length: usize) -> Mapping {
        // SAFETY: an anonymous private mapping of our own; no existing memory is touched.
        let base = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(base != libc::MAP_FAILED, "out of memory for a ring");
        Mapping {
            base: base.cast(),
            length,
        }
    }

    /// Where a stretch begins.
    pub(super) fn at(&self, start: usize) -> *mut u8 {
        assert!(start < self.length);
        // SAFETY: `start` is inside the mapping.
        unsafe { self.base.add(start) }
    }

    /// Bytes that the kernel has written and will not write again while they are borrowed: the
    /// caller's accounting has lent them out.
    pub(super) fn bytes(&self, start: usize, length: usize) -> &[u8] {
        assert!(length > 0 && start + length <= self.length);
        let from = self.at(start);
        // SAFETY: inside the mapping, initialised by mmap; the kernel writes only stretches that
        // are not lent, so these bytes don't change while the reference lives.
        unsafe { std::slice::from_raw_parts(from, length) }
    }

    /// Writes bytes, as a scripted kernel does.
    pub(super) fn write(&mut self, start: usize, bytes: &[u8]) {
        assert!(start + bytes.len() <= self.length);
        if bytes.is_empty() {
            return;
        }
        let to = self.at(start);
        // SAFETY: inside the mapping, and `bytes` is not part of it: `&mut self` excludes lent
        // slices.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping of `new`, unmapped once; the ring that uses it is closed before
        // (field order in `Uring`).
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}
