//! System calls of the tests that no safe wrapper has.

use std::os::unix::process::CommandExt;
use std::process::Command;

/// Has `command` run with io_uring_setup answered by `errno`.
pub(crate) fn deny_io_uring(command: &mut Command, errno: i32) {
    // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe.
    unsafe { command.pre_exec(move || filter_io_uring(errno)) };
}

/// A seccomp filter (seccomp(2)) that answers io_uring_setup with `errno` and allows everything
/// else.
fn filter_io_uring(errno: i32) -> std::io::Result<()> {
    let word = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter {
        code: u16::try_from(code).expect("BPF codes are small"),
        jt,
        jf,
        k,
    };
    let setup = u32::try_from(libc::SYS_io_uring_setup).expect("a system call number");
    let refuse = libc::SECCOMP_RET_ERRNO | errno.cast_unsigned();
    let mut filter = [
        // Offset 0 of struct seccomp_data is the system call's number.
        word(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        word(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, setup, 0, 1),
        word(libc::BPF_RET | libc::BPF_K, refuse, 0, 0),
        word(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: 4,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: PR_SET_NO_NEW_PRIVS takes plain numbers.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: `program` and its four instructions live until the call returns.
    if unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}
