//! Pipes to splice through, and splice(2). Each call is one non-blocking system call, except the
//! making of a pipe, which asks for its size too.
//!
//! SPLICE_F_MORE is never set: the kernel sets it between the parts of one call by itself, and
//! after the last part nobody knows whether more will follow.

use std::io;
use std::os::fd::RawFd;

/// How often the wanted size is halved where the kernel grants less.
const HALVINGS_MAX: u32 = 3;

/// The two ends of a pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PipeEnds {
    /// Where bytes come out.
    pub output: RawFd,
    /// Where bytes go in.
    pub input: RawFd,
    /// Bytes it was given room for.
    pub size: u32,
}

fn last_number() -> i32 {
    io::Error::last_os_error()
        .raw_os_error()
        .unwrap_or(libc::EIO)
}

/// Makes a pipe that has room for about `size` bytes, or for less: users without privileges have a
/// bound for one pipe (pipe-max-size) and one for all of theirs (pipe-user-pages-soft and -hard,
/// pipe(7)), above which growing gives EPERM and new pipes have two pages.
pub fn make(size: u32) -> Result<PipeEnds, i32> {
    let mut ends: [libc::c_int; 2] = [-1; 2];
    // SAFETY: pipe2(2) writes two descriptors into `ends`.
    let result = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) };
    if result != 0 {
        return Err(last_number());
    }
    let [output, input] = ends;
    let usual = size_of_pipe(input);
    // A smaller one is never refused.
    let mut granted = (size < usual)
        .then(|| resize(input, size))
        .flatten()
        .unwrap_or(usual);
    for halvings in 0..=HALVINGS_MAX {
        let wanted = size >> halvings;
        if wanted <= usual {
            break;
        }
        if let Some(bytes) = resize(input, wanted) {
            granted = bytes;
            break;
        }
    }
    Ok(PipeEnds {
        output,
        input,
        size: granted,
    })
}

/// F_SETPIPE_SZ, fcntl(2); `None` where the kernel refuses.
fn resize(fd: RawFd, size: u32) -> Option<u32> {
    let size = libc::c_int::try_from(size).ok()?;
    // SAFETY: takes an int and no pointer.
    let result = unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, size) };
    u32::try_from(result).ok()
}

/// F_GETPIPE_SZ, fcntl(2).
fn size_of_pipe(fd: RawFd) -> u32 {
    // SAFETY: takes no argument.
    let result = unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) };
    u32::try_from(result).unwrap_or(0)
}

/// Moves at most `length` bytes; one of the descriptors is an end of a pipe. EAGAIN = the source is
/// empty, or the target is full. A broken target would raise SIGPIPE, which Rust's runtime ignores.
pub fn splice(from: RawFd, to: RawFd, length: u32) -> Result<usize, i32> {
    let flags = libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE;
    let none = std::ptr::null_mut();
    // SAFETY: null offsets are what splice(2) demands for pipes and sockets; no memory is passed.
    let moved = unsafe { libc::splice(from, none, to, none, length as usize, flags) };
    usize::try_from(moved).map_err(|_| last_number())
}

/// Takes bytes out of a pipe by copying.
pub fn read(output: RawFd, buffer: &mut [u8]) -> Result<usize, i32> {
    // SAFETY: read(2) writes at most `buffer.len()` bytes into `buffer`, alive for the call.
    let count = unsafe { libc::read(output, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(count).map_err(|_| last_number())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::stream;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    fn close(pipe: PipeEnds) {
        stream::close(pipe.output);
        stream::close(pipe.input);
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (other, _) = listener.accept().unwrap();
        (one, other)
    }

    #[test]
    fn bytes_go_from_socket_to_socket_through_a_pipe() {
        let (mut client, ours) = pair();
        let (theirs, mut server) = pair();
        ours.set_nonblocking(true).unwrap();
        let pipe = make(256 << 10).unwrap();
        let empty = splice(ours.as_raw_fd(), pipe.input, 100);
        assert_eq!(empty, Err(libc::EAGAIN));
        client.write_all(b"a few words").unwrap();
        // Both ends of a loopback connection see it at once.
        let moved = splice(ours.as_raw_fd(), pipe.input, pipe.size).unwrap();
        assert_eq!(moved, 11);
        assert_eq!(splice(pipe.output, theirs.as_raw_fd(), 5), Ok(5));
        let mut rest = [0; 16];
        assert_eq!(read(pipe.output, &mut rest), Ok(6));
        assert_eq!(&rest[..6], b" words");
        let mut arrived = [0; 5];
        server.read_exact(&mut arrived).unwrap();
        assert_eq!(&arrived, b"a few");
        drop(client);
        assert_eq!(splice(ours.as_raw_fd(), pipe.input, 100), Ok(0), "its end");
        close(pipe);
    }

    #[test]
    fn what_cannot_be_spliced_says_so() {
        let pipe = make(4096).unwrap();
        let event = crate::sys::EventFd::new().unwrap();
        assert_eq!(splice(event.raw(), pipe.input, 100), Err(libc::EINVAL));
        close(pipe);
    }

    #[test]
    fn a_pipe_is_as_large_as_the_kernel_allows() {
        let pipe = make(128 << 10).unwrap();
        assert!(pipe.size >= 8 << 10, "{}", pipe.size);
        close(pipe);
        // More than the kernel gives to anybody: what it gives by itself is taken.
        let pipe = make(u32::MAX).unwrap();
        assert!(pipe.size >= 8 << 10, "{}", pipe.size);
        close(pipe);
    }
}
