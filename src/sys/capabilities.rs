//! The one privilege that is kept when the user changes: to connect from addresses that aren't the
//! machine's. capabilities(7), capset(2).

use std::io;

/// Either allows IP_TRANSPARENT, ip(7). The first allows less else and is taken where there is a
/// choice: raw sockets, not the change of routes and addresses.
const EITHER: [u32; 2] = [CAP_NET_RAW, CAP_NET_ADMIN];
/// linux/capability.h.
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
/// _LINUX_CAPABILITY_VERSION_3: two words of 32 each.
const VERSION: u32 = 0x2008_0522;

/// The header of capset(2).
#[repr(C)]
struct Header {
    version: u32,
    process: i32,
}

/// 32 capabilities, as capset(2) takes them.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Word {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Has the next change of the user leave the permitted capabilities. Of the calling thread, which
/// must be the only one.
pub fn keep() -> io::Result<()> {
    let keep: libc::c_ulong = 1;
    // SAFETY: prctl(2) with PR_SET_KEEPCAPS takes one number and no pointer.
    done(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, keep, 0, 0, 0) })
}

/// Takes one of what was kept, for threads to come too, and gives up the rest.
pub fn take_foreign_addresses() -> io::Result<()> {
    let mut result = Err(io::ErrorKind::PermissionDenied.into());
    for capability in EITHER {
        if result.is_err() {
            result = take_only(1 << capability);
        }
    }
    result
}

fn take_only(capabilities: u32) -> io::Result<()> {
    let header = Header {
        version: VERSION,
        process: 0,
    };
    let word = Word {
        effective: capabilities,
        permitted: capabilities,
        inheritable: 0,
    };
    let words = [word, Word::default()];
    // SAFETY: capset(2) reads one header and, with its version 3, two words; both outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) };
    done(i32::try_from(result).unwrap_or(-1))
}

fn done(result: i32) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
