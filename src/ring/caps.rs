//! What this kernel can do, probed and self-tested at start.
//!
//! Versions lie (back-ports, patched kernels), so nothing is decided by a version number: a ring is
//! made, and each receive step, best first, has to carry a known pattern through a socket pair
//! unchanged and to keep its byte limit.

use std::fmt;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::token::{Op, Token};
use super::uring::{Uring, layouts};
use super::{Completion, Fd, Group, Kernel, Wait};
use crate::base::receive::ReceiveStep;

/// What the data plane uses of this kernel.
#[derive(Clone, Debug)]
pub struct Caps {
    /// The receive step.
    pub receive: ReceiveStep,
    /// Buffers in each of a shard's two rings.
    pub buffers: u16,
    /// One line per finding, for `-vv`.
    pub findings: Vec<String>,
}

/// Why no ring can be used here, and what allows it.
#[derive(Clone, Debug)]
pub struct SetupError(pub String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Caps {
    /// Probes the kernel: takes the first receive step (or `forced` alone) that passes its
    /// self-test.
    pub fn probe(forced: Option<ReceiveStep>, buffers: u16) -> Result<Caps, SetupError> {
        let mut findings = Vec::new();
        let mut last = None;
        let steps: Vec<ReceiveStep> = match forced {
            Some(step) => vec![step],
            None => ReceiveStep::ALL.to_vec(),
        };
        for step in steps {
            match self_test(step, buffers) {
                Ok(()) => {
                    let how = if forced.is_some() { "forced, " } else { "" };
                    findings.push(format!(
                        "receive step {}: {how}self-test passed",
                        step.name()
                    ));
                    return Ok(Caps {
                        receive: step,
                        buffers,
                        findings,
                    });
                }
                Err(error) => {
                    findings.push(format!("receive step {}: {error}", step.name()));
                    // Without any ring there is no lower step to try.
                    let missing = error.raw_os_error().and_then(explain);
                    last = Some(error);
                    if let Some(text) = missing {
                        return Err(SetupError(text.to_owned()));
                    }
                }
            }
        }
        let why = last.map_or_else(String::new, |e| format!(" ({e})"));
        Err(SetupError(format!(
            "this kernel passes none of the io_uring receive self-tests{why}: {}. Linux 6.1 or later is \
             needed, 6.17 or later is best.",
            findings.join("; ")
        )))
    }
}

/// Whether the process, as who it is now, may make a ring: what was probed before it gave up its
/// privileges may not hold any more. Takes microseconds, a probe with its buffers takes 0.2 s.
pub fn rings_allowed() -> Result<(), SetupError> {
    let ring = io_uring::IoUring::new(8).map(drop);
    ring.map_err(|error| {
        let text = error.raw_os_error().and_then(explain);
        SetupError(text.map_or_else(|| format!("no ring can be made: {error}"), str::to_owned))
    })
}

/// What an error of ring set-up means and how to allow it; `None` = try a lower step.
fn explain(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOSYS => Some(
            "io_uring is missing: this kernel has no io_uring_setup system call (built without \
             CONFIG_IO_URING, or a sandbox hides it). Use a kernel with io_uring, or a container runtime \
             that passes it through.",
        ),
        libc::EPERM | libc::EACCES => Some(
            "io_uring is forbidden: io_uring_setup was refused. Either the sysctl kernel.io_uring_disabled \
             is 1 or 2 (allow it with `sysctl -w kernel.io_uring_disabled=0`, or at 1 add the process's \
             group to kernel.io_uring_group), or a seccomp profile denies it (allow io_uring_setup, \
             io_uring_enter and io_uring_register; in a container: --security-opt seccomp=PROFILE; in \
             systemd: SystemCallFilter=@io-event io_uring_setup io_uring_enter io_uring_register).",
        ),
        libc::ENOMEM => Some(
            "io_uring has no memory: the locked-memory limit is too low for a ring (raise RLIMIT_MEMLOCK, \
             `LimitMEMLOCK=infinity` in systemd).",
        ),
        libc::EMFILE | libc::ENFILE => {
            Some("io_uring can't be set up: no descriptor is left (raise RLIMIT_NOFILE).")
        }
        _ => None,
    }
}

/// Sends a known pattern through a socket pair and receives it by `step`, in limited pieces.
fn self_test(step: ReceiveStep, buffers: u16) -> io::Result<()> {
    let mut kernel = Uring::with_entries(step, buffers, 8, 64)?;
    let (mut sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    let pattern: Vec<u8> = (0..40_000u32)
        .map(|i| (i.wrapping_mul(31) >> 3).to_le_bytes()[0])
        .collect();
    for group in super::GROUPS {
        let mut received = Vec::with_capacity(pattern.len());
        let mut sent = 0;
        // 40,000 bytes in pieces of at most 8 KiB need at least five receives; 1,000 is a bound.
        for _ in 0..1_000 {
            if received.len() == pattern.len() {
                break;
            }
            sent += sender.write(&pattern[sent..]).or_else(would_block)?;
            let before = received.len();
            receive_once(&mut kernel, Fd(receiver.as_raw_fd()), group, &mut received)?;
            let limit = LIMIT as usize + overshoot_max(step, group, buffers);
            if received.len() - before > limit {
                return Err(io::Error::other("the byte limit was not kept"));
            }
        }
        if received != pattern {
            return Err(io::Error::other("the pattern came back changed"));
        }
    }
    Ok(())
}

/// What a receive may deliver above its limit. A bundle is followed by one more transfer when the
/// socket has more (seen on Linux 6.18: 36 KiB for a limit of 8 KiB), so it is bounded only by its
/// ring.
fn overshoot_max(step: ReceiveStep, group: Group, buffers: u16) -> usize {
    match step {
        ReceiveStep::Limit | ReceiveStep::Incremental | ReceiveStep::Plain => 0,
        ReceiveStep::Bundle => {
            let layout = layouts(step, buffers)[group as usize];
            usize::from(layout.count) * layout.size as usize
        }
    }
}

/// Byte limit of a self-test receive: under the smallest buffer doubled, so that every step wraps.
const LIMIT: u32 = 8 << 10;

fn would_block(error: io::Error) -> io::Result<usize> {
    if error.kind() == io::ErrorKind::WouldBlock {
        Ok(0)
    } else {
        Err(error)
    }
}

/// One receive operation to its end.
fn receive_once(
    kernel: &mut Uring,
    fd: Fd,
    group: Group,
    received: &mut Vec<u8>,
) -> io::Result<()> {
    let token = Token::plain(Op::Wake, 0);
    kernel.receive(fd, group, LIMIT, token);
    loop {
        let before = received.len();
        kernel.turn(Wait::For(Duration::from_millis(200)))?;
        let mut ended = false;
        while let Some(completion) = kernel.next_completion() {
            ended |= !completion.more;
            take(kernel, completion, group, received)?;
        }
        if ended {
            return Ok(());
        }
        if received.len() == before {
            // Nothing more is queued below the limit: end the operation.
            kernel.cancel(token);
        }
    }
}

fn take(
    kernel: &mut Uring,
    completion: Completion,
    group: Group,
    received: &mut Vec<u8>,
) -> io::Result<()> {
    let length = match completion.result {
        errno if errno == -libc::ECANCELED || errno == -libc::ENOBUFS => 0,
        errno if errno < 0 => return Err(io::Error::from_raw_os_error(-errno)),
        length => length.cast_unsigned(),
    };
    let Some(used) = completion.buffer else {
        return if length == 0 {
            Ok(())
        } else {
            Err(io::Error::other("bytes without a buffer"))
        };
    };
    let mut pieces = Vec::new();
    kernel
        .buffers(group)
        .take(used.buffer, length, used.more, |piece| pieces.push(piece));
    for piece in pieces {
        received.extend_from_slice(kernel.buffers(group).bytes(piece));
        kernel.buffers(group).release(piece.buffer, piece.length);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_passes_on_this_kernel_or_says_why_not() {
        for step in ReceiveStep::ALL {
            for buffers in [2, 8] {
                let caps = Caps::probe(Some(step), buffers);
                assert!(caps.is_ok(), "{}: {:?}", step.name(), caps);
            }
        }
    }

    #[test]
    fn the_best_step_is_chosen() {
        let caps = Caps::probe(None, 8).expect("io_uring is available to the tests");
        assert!(!caps.findings.is_empty());
        assert!(ReceiveStep::ALL.contains(&caps.receive));
    }

    #[test]
    fn refusals_are_explained() {
        assert!(explain(libc::ENOSYS).is_some_and(|t| t.contains("missing")));
        assert!(explain(libc::EPERM).is_some_and(|t| t.contains("io_uring_disabled")));
        assert!(explain(libc::EINVAL).is_none());
    }
}
