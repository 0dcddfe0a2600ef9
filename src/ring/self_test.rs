//! The self-tests of a start: small rings that do for real what shards will ask of theirs.

use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use socket2::{Domain, SockAddr, Socket, Type};

use super::caps::Caps;
use super::token::{Op, Token};
use super::uring::{Uring, layouts};
use super::{Completion, Fd, GROUPS, Group, Kernel, Wait};
use crate::base::receive::ReceiveStep;

/// Longest wait for what is there already.
const WAIT: Duration = Duration::from_millis(200);

/// Sends a known pattern through a socket pair and receives it by a step, in limited pieces.
pub(super) fn receive(caps: &Caps) -> io::Result<()> {
    let mut kernel = Uring::with_entries(caps, 8, 64)?;
    let (mut sender, receiver) = UnixStream::pair()?;
    sender.set_nonblocking(true)?;
    let pattern: Vec<u8> = (0..5 * LIMIT)
        .map(|i| (i.wrapping_mul(31) >> 3).to_le_bytes()[0])
        .collect();
    for group in GROUPS {
        let mut received = Vec::with_capacity(pattern.len());
        let mut sent = 0;
        // Five limits need at least five receives; 1,000 is a bound. A whole number of limits: a
        // multishot receive that stays below its own has to be waited for.
        for _ in 0..1_000 {
            if received.len() == pattern.len() {
                break;
            }
            sent += sender.write(&pattern[sent..]).or_else(would_block)?;
            let before = received.len();
            receive_once(&mut kernel, Fd(receiver.as_raw_fd()), group, &mut received)?;
            let limit = LIMIT as usize + overshoot_max(caps, group);
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
fn overshoot_max(caps: &Caps, group: Group) -> usize {
    match caps.receive {
        ReceiveStep::Limit | ReceiveStep::Incremental | ReceiveStep::Plain => 0,
        ReceiveStep::Bundle => {
            let layout = layouts(caps.receive, caps.buffers)[group as usize];
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
        kernel.turn(Wait::For(WAIT))?;
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

/// Takes two connections by one accept; false = they are not all there, or the accept ended.
pub(super) fn multishot_accept(caps: &Caps) -> io::Result<bool> {
    let mut kernel = Uring::with_entries(caps, 8, 64)?;
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // Without a name the kernel chooses one that nobody has (unix(7), autobind).
    listener.bind(&SockAddr::unix("")?)?;
    listener.listen(8)?;
    kernel.accept(Fd(listener.as_raw_fd()), true, Token::plain(Op::Accept, 0));
    let address = listener.local_addr()?;
    let (mut accepted, mut ended) = (0, false);
    for _ in 0..2 {
        let client = Socket::new(Domain::UNIX, Type::STREAM, None)?;
        client.connect(&address)?;
        kernel.turn(Wait::For(WAIT))?;
        while let Some(completion) = kernel.next_completion() {
            if completion.result >= 0 {
                kernel.close(Fd(completion.result));
                accepted += 1;
            }
            ended |= !completion.more;
        }
    }
    Ok(accepted == 2 && !ended)
}
