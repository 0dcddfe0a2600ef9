//! What the kernel says of a listening socket's accept queue: how many wait, how many may, how many
//! it has dropped.
//!
//! TCP tells by options of the socket. A Unix socket is asked for by the kernel's socket monitoring
//! (sock_diag(7)), where that is there; nothing counts its drops, as its clients are told at once.

use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// An accept queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AcceptQueue {
    /// Connections that wait to be accepted.
    pub length: u32,
    /// How many may wait: the backlog, or somaxconn if that is less.
    pub limit: u32,
    /// Connections dropped since the socket listens, most of them because the queue was full,
    /// modulo 2^32; `None` where nobody counts them.
    pub drops: Option<u32>,
}

impl AcceptQueue {
    /// Of a listening socket.
    pub fn of(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
        if SockRef::from(&socket).domain()? == Domain::UNIX {
            return of_unix(socket);
        }
        // Of a listening socket tcpi_unacked is the length and tcpi_sacked the limit.
        const LENGTH: usize = 6;
        let info: [u32; 8] = words(socket, libc::IPPROTO_TCP, libc::TCP_INFO)?;
        let memory: [u32; MEMORY] = words(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
        Ok(AcceptQueue {
            length: info[LENGTH],
            limit: info[LENGTH + 1],
            drops: Some(memory[MEMORY - 1]),
        })
    }

    /// The receive buffer of a socket for datagrams: bytes instead of connections, with what the
    /// kernel keeps beside them.
    pub fn of_datagrams(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
        let memory: [u32; MEMORY] = words(socket, libc::SOL_SOCKET, libc::SO_MEMINFO)?;
        Ok(AcceptQueue {
            length: memory[0],
            limit: memory[1],
            drops: Some(memory[MEMORY - 1]),
        })
    }
}

/// `sk_meminfo_vars` of include/uapi/linux/sock_diag.h: nine words, of which the first is what is
/// in the receive buffer, the second its size, the last the drops.
const MEMORY: usize = 9;

/// The first words of an option.
fn words<const N: usize>(socket: BorrowedFd<'_>, level: i32, name: i32) -> io::Result<[u32; N]> {
    let mut words = [0u32; N];
    let size = size_of_val(&words);
    let mut length = libc::socklen_t::try_from(size).map_err(io::Error::other)?;
    // SAFETY: getsockopt(2) writes at most `length` bytes to `words`, which has as many and lives
    // through the call; the descriptor is open while it is borrowed.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            level,
            name,
            words.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    if (length as usize) < size {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(words)
}

/// `SOCK_DIAG_BY_FAMILY`, the type of request and answer.
const BY_FAMILY: u16 = 20;
/// `NETLINK_SOCK_DIAG`.
const SOCK_DIAG: i32 = 4;
/// `UDIAG_SHOW_RQLEN`, and the attribute that it asks for.
const SHOW_QUEUE: u32 = 0x10;
const ATTRIBUTE_QUEUE: u16 = 4;
/// A netlink header, and the fixed part of an answer about a Unix socket.
const HEADER: usize = 16;
const ANSWER: usize = 16;

fn of_unix(socket: BorrowedFd<'_>) -> io::Result<AcceptQueue> {
    let inode = nix::sys::stat::fstat(socket)?.st_ino;
    let kind = Type::RAW.cloexec().nonblocking();
    let mut diag = Socket::new_raw(
        Domain::from(libc::AF_NETLINK),
        kind,
        Some(Protocol::from(SOCK_DIAG)),
    )?;
    let inode = u32::try_from(inode).map_err(io::Error::other)?;
    diag.send(&unix_request(inode))?;
    // The kernel has answered before the send returns.
    let mut bytes = [0; 512];
    let length = diag.read(&mut bytes)?;
    unix_answer(&bytes[..length]).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Asks for one Unix socket by its inode.
fn unix_request(inode: u32) -> Vec<u8> {
    let two = |low: u16, high: u16| {
        let ([a, b], [c, d]) = (low.to_ne_bytes(), high.to_ne_bytes());
        u32::from_ne_bytes([a, b, c, d])
    };
    const LENGTH: u32 = 40;
    // NLM_F_REQUEST and AF_UNIX, in their widths.
    const REQUEST: u16 = 1;
    const UNIX: u8 = 1;
    let words = [
        // nlmsghdr: length, type and flags, sequence, port.
        LENGTH,
        two(BY_FAMILY, REQUEST),
        1,
        0,
        // unix_diag_req: family, states, inode, what to show, no cookie.
        u32::from_ne_bytes([UNIX, 0, 0, 0]),
        u32::MAX,
        inode,
        SHOW_QUEUE,
        u32::MAX,
        u32::MAX,
    ];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The queue in the kernel's answer; `None` if it is an error.
fn unix_answer(bytes: &[u8]) -> Option<AcceptQueue> {
    let word = |at: usize| {
        let bytes = bytes.get(at..at + 4)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    };
    let half = |at: usize| {
        let bytes = bytes.get(at..at + 2)?;
        Some(u16::from_ne_bytes(bytes.try_into().ok()?))
    };
    if half(4)? != BY_FAMILY {
        return None;
    }
    let mut at = HEADER + ANSWER;
    loop {
        let length = usize::from(half(at)?);
        if half(at + 2)? == ATTRIBUTE_QUEUE {
            return Some(AcceptQueue {
                length: word(at + 4)?,
                limit: word(at + 8)?,
                drops: None,
            });
        }
        // Attributes begin at multiples of four; none is shorter than its head.
        at += length.max(4).next_multiple_of(4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    #[test]
    fn of_tcp_its_length_limit_and_drops() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        socket.bind(&any.into()).unwrap();
        socket.listen(1).unwrap();
        let queue = || AcceptQueue::of(socket.as_fd()).unwrap();
        let empty = AcceptQueue {
            length: 0,
            limit: 1,
            drops: Some(0),
        };
        assert_eq!(queue(), empty);
        // One more than the limit waits; whoever comes then is dropped.
        let to = socket.local_addr().unwrap();
        let clients: Vec<Socket> = (0..6)
            .map(|_| {
                let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                client.set_nonblocking(true).unwrap();
                let _ = client.connect(&to);
                client
            })
            .collect();
        assert_eq!(queue().length, 2);
        assert!(queue().drops > Some(0), "{:?}", queue());
        drop(clients);
    }

    #[test]
    fn of_unix_its_length_and_limit() {
        let name = format!("tidegate-queue-{}.sock", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).unwrap();
        let clients = [(); 3].map(|()| UnixStream::connect(&path).unwrap());
        let _ = std::fs::remove_file(&path);
        match AcceptQueue::of(listener.as_fd()) {
            Ok(queue) => {
                assert_eq!((queue.length, queue.drops), (3, None));
                assert!(queue.limit > 3, "{queue:?}");
            }
            // A kernel without the monitoring of Unix sockets.
            Err(error) => eprintln!("left out: {error}"),
        }
        drop(clients);
    }

    #[test]
    fn an_answer_without_the_queue_is_none() {
        assert_eq!(unix_answer(&[]), None);
        assert_eq!(unix_answer(&[0; 64]), None);
        let mut bytes = vec![0; HEADER + ANSWER];
        bytes[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        assert_eq!(unix_answer(&bytes), None);
        // An attribute of no length is passed over.
        bytes.extend([0; 8]);
        assert_eq!(unix_answer(&bytes), None);
    }
}
