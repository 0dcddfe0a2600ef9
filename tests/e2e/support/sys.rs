//! System calls of the tests that no safe wrapper has.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The result of a system call that is negative on errors.
fn checked(result: libc::c_long) -> io::Result<i32> {
    let result = i32::try_from(result).map_err(io::Error::other)?;
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(result)
}

/// A duplicate of descriptor `number` of a child (pidfd_getfd(2)).
pub(crate) fn descriptor_of(pid: i32, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes plain numbers.
    let process = checked(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the descriptor was just opened, nothing else owns it.
    let process = unsafe { OwnedFd::from_raw_fd(process) };
    // SAFETY: pidfd_getfd takes plain numbers.
    let copy = unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
    let copy = checked(copy)?;
    // SAFETY: as above.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// A socket option that is a number.
pub(crate) fn option(socket: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let mut value = 0i32;
    let mut length = size_of::<i32>() as libc::socklen_t;
    let pointer = (&raw mut value).cast();
    // SAFETY: `value` and `length` live until the call returns, `length` is the size of `value`.
    let result = unsafe { libc::getsockopt(socket, level, name, pointer, &raw mut length) };
    checked(libc::c_long::from(result))?;
    Ok(value)
}

/// Sets a socket option to these bytes.
pub(crate) fn set_option(
    socket: &impl AsRawFd,
    level: i32,
    name: i32,
    value: &[u8],
) -> io::Result<()> {
    let length = value.len() as libc::socklen_t;
    let (fd, pointer) = (socket.as_raw_fd(), value.as_ptr().cast());
    // SAFETY: the kernel reads `length` bytes of `value`, which lives until the call returns.
    let result = unsafe { libc::setsockopt(fd, level, name, pointer, length) };
    checked(libc::c_long::from(result))?;
    Ok(())
}

/// Segments with data that a connection has received (tcpi_data_segs_in).
pub(crate) fn data_segments_received(stream: &std::net::TcpStream) -> io::Result<u32> {
    tcp_info(stream, 152)
}

/// Segments that a connection has sent again (tcpi_total_retrans), its SYN included.
pub(crate) fn segments_repeated(socket: &impl AsRawFd) -> io::Result<u32> {
    tcp_info(socket, 100)
}

/// A number at an offset of tcp(7)'s TCP_INFO, which the C library's structure ends before.
fn tcp_info(socket: &impl AsRawFd, at: usize) -> io::Result<u32> {
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    let fd = socket.as_raw_fd();
    let pointer = info.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `length` bytes to `info`; both live until the call returns.
    let result = unsafe {
        libc::getsockopt(
            fd,
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            pointer,
            &raw mut length,
        )
    };
    checked(libc::c_long::from(result))?;
    let number = info[at..at + 4].try_into().map_err(io::Error::other)?;
    Ok(u32::from_ne_bytes(number))
}

/// Puts the calling thread into a network namespace of its own.
pub(crate) fn leave_network() -> io::Result<()> {
    // SAFETY: unshare takes plain numbers.
    checked(libc::c_long::from(unsafe {
        libc::unshare(libc::CLONE_NEWNET)
    }))
    .map(drop)
}

/// Has `command` run with io_uring_setup answered by `errno`.
pub(crate) fn deny_io_uring(command: &mut Command, errno: i32) {
    deny(command, libc::SYS_io_uring_setup, None, errno);
}

/// Has `command` run with one operation of io_uring_register answered by `errno`.
pub(crate) fn deny_registering(command: &mut Command, operation: u32, errno: i32) {
    deny(command, libc::SYS_io_uring_register, Some(operation), errno);
}

fn deny(command: &mut Command, call: libc::c_long, operation: Option<u32>, errno: i32) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(move || filter(call, operation, errno)) };
}

/// A seccomp filter (seccomp(2)) that answers a system call with `errno`, all of them or those with
/// this second argument, and allows everything else.
fn filter(call: libc::c_long, operation: Option<u32>, errno: i32) -> io::Result<()> {
    let word = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("BPF codes are small"),
        jt,
        jf,
        k,
    };
    let load = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let call = u32::try_from(call).expect("a system call number");
    let refuse = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    // Where there is no operation to compare, the jump goes on either way.
    let (operation, other) = operation.map_or((0, 0), |operation| (operation, 1));
    let mut filter = [
        // Of struct seccomp_data: the call's number, and the low half of its second argument.
        word(load, 0, 0, 0),
        word(equal, call, 0, 3),
        word(load, 24, 0, 0),
        word(equal, operation, 0, other),
        word(libc::BPF_RET | libc::BPF_K, refuse, 0, 0),
        word(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 6,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` and its six instructions live until the call returns.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
