//! The program that leads a client's datagrams to one socket of a group, SO_ATTACH_REUSEPORT_CBPF
//! in socket(7).
//!
//! The kernel's own choice changes for about half of all clients when a member comes or goes, and
//! takes the receive hash of the network card, which the loopback interface doesn't have. This one
//! takes the source address and port as they are in the packet and a modulo that is fixed, so that
//! a flow stays with its socket whatever happens to the group. The port is read where it lies in
//! nearly all packets: behind an IPv4 header without options, or an IPv6 header with nothing
//! between. Elsewhere the address decides alone. Fragments are whole again when the program runs,
//! and go where whole datagrams go.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Offsets of the network header in a packet that the program reads.
const NETWORK: u32 = libc::SKF_NET_OFF.cast_unsigned();
const IPV4_SOURCE: u32 = NETWORK + 12;
const IPV4_PORT: u32 = NETWORK + 20;
const IPV6_NEXT_HEADER: u32 = NETWORK + 6;
const IPV6_SOURCE: u32 = NETWORK + 8;
const IPV6_PORT: u32 = NETWORK + 40;
/// The first byte of an IPv4 header without options: version 4, five words.
const IPV4_PLAIN: u32 = 0x45;
/// Fibonacci hashing: 2^32 divided by the golden ratio, which spreads neighbours.
const SPREAD: u32 = 2_654_435_761;

const LOAD_WORD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
const LOAD_HALF: u32 = libc::BPF_LD | libc::BPF_H | libc::BPF_ABS;
const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_NUMBER: u32 = libc::BPF_LD | libc::BPF_IMM;
const LOAD_KEPT: u32 = libc::BPF_LD | libc::BPF_MEM;
const KEEP: u32 = libc::BPF_ST;
const TO_X: u32 = libc::BPF_MISC | libc::BPF_TAX;
const ADD_X: u32 = libc::BPF_ALU | libc::BPF_ADD | libc::BPF_X;
const MULTIPLY: u32 = libc::BPF_ALU | libc::BPF_MUL | libc::BPF_K;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const MODULO: u32 = libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_A;
const IF_EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const GO: u32 = libc::BPF_JMP | libc::BPF_JA;

fn step(code: u32, k: u32) -> libc::sock_filter {
    jump(code, k, 0, 0)
}

fn jump(code: u32, k: u32, if_true: u8, if_false: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: if_true,
        jf: if_false,
        k,
    }
}

/// The program for a group of `members` sockets, at least 1. The comments count what a jump passes.
fn program(members: u16) -> [libc::sock_filter; 35] {
    [
        step(LOAD_BYTE, NETWORK),
        step(SHIFT_RIGHT, 4),
        jump(IF_EQUAL, 6, 6, 0),
        // IPv4 (6 steps): the address is kept, the port left.
        step(LOAD_WORD, IPV4_SOURCE),
        step(KEEP, 0),
        step(LOAD_BYTE, NETWORK),
        jump(IF_EQUAL, IPV4_PLAIN, 0, 20),
        step(LOAD_HALF, IPV4_PORT),
        step(GO, 19),
        // IPv6 (18 steps): the same, with the four words of the address made one.
        step(LOAD_WORD, IPV6_SOURCE),
        step(MULTIPLY, SPREAD),
        step(TO_X, 0),
        step(LOAD_WORD, IPV6_SOURCE + 4),
        step(ADD_X, 0),
        step(MULTIPLY, SPREAD),
        step(TO_X, 0),
        step(LOAD_WORD, IPV6_SOURCE + 8),
        step(ADD_X, 0),
        step(MULTIPLY, SPREAD),
        step(TO_X, 0),
        step(LOAD_WORD, IPV6_SOURCE + 12),
        step(ADD_X, 0),
        step(KEEP, 0),
        step(LOAD_BYTE, IPV6_NEXT_HEADER),
        jump(IF_EQUAL, libc::IPPROTO_UDP.cast_unsigned(), 0, 2),
        step(LOAD_HALF, IPV6_PORT),
        step(GO, 1),
        // Where the port isn't at its place (1 step).
        step(LOAD_NUMBER, 0),
        // All: address and port, spread, and one of the members by the upper half.
        step(TO_X, 0),
        step(LOAD_KEPT, 0),
        step(ADD_X, 0),
        step(MULTIPLY, SPREAD),
        step(SHIFT_RIGHT, 16),
        step(MODULO, u32::from(members.max(1))),
        step(RETURN, 0),
    ]
}

/// Steers the datagrams of the group that `member` belongs to: among its first `members` sockets,
/// in the order in which they were bound.
pub fn attach(member: BorrowedFd<'_>, members: u16) -> io::Result<()> {
    let mut steps = program(members);
    let program = libc::sock_fprog {
        len: u16::try_from(steps.len()).unwrap_or(0),
        filter: steps.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&program)).unwrap_or(0);
    // SAFETY: setsockopt(2) reads `program` and the steps it points to, both alive for the call; it
    // copies them.
    let result = unsafe {
        libc::setsockopt(
            member.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
