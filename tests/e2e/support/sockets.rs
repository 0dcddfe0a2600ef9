//! The sockets of another process, to read their options.

use socket2::Socket;
use std::os::fd::AsRawFd;

use super::sys;

/// Duplicates of the sockets of a process of ours that `wanted` picks.
pub(crate) fn sockets_of(pid: i32, wanted: impl Fn(&Socket) -> bool) -> Vec<Socket> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else {
        return Vec::new();
    };
    let socket = |entry: std::io::Result<std::fs::DirEntry>| {
        let entry = entry.ok()?;
        let target = std::fs::read_link(entry.path()).ok()?;
        if !target.to_string_lossy().starts_with("socket:") {
            return None;
        }
        let number = entry.file_name().to_string_lossy().parse().ok()?;
        let copy =
            sys::descriptor_of(pid, number).expect("a descriptor of a child is ours to copy");
        Some(Socket::from(copy))
    };
    entries
        .filter_map(socket)
        .filter(|socket| wanted(socket))
        .collect()
}

/// Whether a socket listens on a port.
pub(crate) fn listens_on(socket: &Socket, port: u16) -> bool {
    let local = socket.local_addr().ok().and_then(|a| a.as_socket());
    let listens = socket.is_listener().unwrap_or(false);
    listens && local.is_some_and(|address| address.port() == port)
}

/// Whether a socket is the other end of a connection to a port.
pub(crate) fn accepted_on(socket: &Socket, port: u16) -> bool {
    let local = socket.local_addr().ok().and_then(|a| a.as_socket());
    let listens = socket.is_listener().unwrap_or(true);
    !listens && local.is_some_and(|address| address.port() == port)
}

/// An option that is a number.
pub(crate) fn option(socket: &Socket, level: i32, name: i32) -> i32 {
    sys::option(socket.as_raw_fd(), level, name).expect("getsockopt")
}
