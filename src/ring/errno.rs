//! Error numbers, decoded once per operation by a total match. What no arm names is `Unexpected`
//! and is counted by the shard.

use std::fmt;

/// An error number of the kernel, positive.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Errno(pub i32);

impl Errno {
    /// The error of the last call on this thread.
    pub fn last() -> Errno {
        Errno(std::io::Error::last_os_error().raw_os_error().unwrap_or(0))
    }
}

impl fmt::Debug for Errno {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::io::Error::from_raw_os_error(self.0))
    }
}

/// Why an accept failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AcceptError {
    /// The client was gone before the accept: nothing to do.
    ClientGone,
    /// Descriptors or memory are used up: try again after a release.
    Resource,
    /// The operation was cancelled.
    Cancelled,
    /// Not in the table.
    Unexpected(Errno),
}

impl AcceptError {
    /// Decodes the error of an accept, accept(2).
    pub fn of(errno: Errno) -> AcceptError {
        match errno.0 {
            // accept(2): errors already pending on the new socket are passed on as accept errors.
            libc::ECONNABORTED
            | libc::EPROTO
            | libc::ENETDOWN
            | libc::ENOPROTOOPT
            | libc::EHOSTDOWN
            | libc::ENONET
            | libc::EHOSTUNREACH
            | libc::EOPNOTSUPP
            | libc::ENETUNREACH
            | libc::EPERM
            | libc::EINTR
            | libc::EAGAIN => AcceptError::ClientGone,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => AcceptError::Resource,
            libc::ECANCELED => AcceptError::Cancelled,
            _ => AcceptError::Unexpected(errno),
        }
    }
}

/// Why a receive ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReceiveError {
    /// The buffer ring has run dry: arm again when buffers are back.
    NoBuffers,
    /// Nothing was there after all: arm again.
    Again,
    /// The operation was cancelled.
    Cancelled,
    /// The peer reset the connection, or the network gave it up.
    Broken,
    /// Not in the table; handled as `Broken`.
    Unexpected(Errno),
}

impl ReceiveError {
    /// Decodes the error of a receive, recv(2) and tcp(7).
    pub fn of(errno: Errno) -> ReceiveError {
        match errno.0 {
            libc::ENOBUFS => ReceiveError::NoBuffers,
            libc::EAGAIN | libc::EINTR => ReceiveError::Again,
            libc::ECANCELED => ReceiveError::Cancelled,
            libc::ECONNRESET
            | libc::EPIPE
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ECONNREFUSED
            | libc::ENOTCONN
            | libc::ECONNABORTED
            | libc::ENETDOWN
            | libc::EHOSTDOWN => ReceiveError::Broken,
            _ => ReceiveError::Unexpected(errno),
        }
    }
}

/// Why a send did not send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendError {
    /// The socket is full: wait until it is writable.
    Full,
    /// The connection is gone.
    Broken,
    /// Not in the table; handled as `Broken`.
    Unexpected(Errno),
}

impl SendError {
    /// Decodes the error of a send, send(2) and tcp(7). ENOBUFS and ENOMEM are passing shortages.
    pub fn of(errno: Errno) -> SendError {
        match errno.0 {
            libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EINTR => SendError::Full,
            libc::ECONNRESET
            | libc::EPIPE
            | libc::ETIMEDOUT
            | libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ECONNREFUSED
            | libc::ENOTCONN
            | libc::ENETDOWN
            | libc::EHOSTDOWN => SendError::Broken,
            _ => SendError::Unexpected(errno),
        }
    }
}

/// Why a connect failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectError {
    /// The server refused or reset it, or nothing listens there.
    Refused,
    /// The network says that the server can't be reached.
    Unreachable,
    /// The deadline, or the kernel's own.
    TimedOut,
    /// Descriptors or memory of this host are used up.
    Resource,
    /// No port is free here towards that server, or the address to connect from isn't there.
    NoPort,
    /// Not in the table; handled as `Refused`.
    Unexpected(Errno),
}

impl ConnectError {
    /// Decodes the error of socket(2) or connect(2).
    pub fn of(errno: Errno) -> ConnectError {
        match errno.0 {
            // EAGAIN is a Unix listener with a full queue; ENOENT and EACCES are about its path.
            libc::ECONNREFUSED
            | libc::ECONNRESET
            | libc::EPIPE
            | libc::ECONNABORTED
            | libc::EAGAIN
            | libc::ENOENT
            | libc::EACCES
            | libc::EPERM => ConnectError::Refused,
            // ENODEV is an interface to leave by that isn't there, EAFNOSUPPORT a source of another
            // family than the server.
            libc::EHOSTUNREACH
            | libc::ENETUNREACH
            | libc::ENETDOWN
            | libc::EHOSTDOWN
            | libc::ENODEV
            | libc::EAFNOSUPPORT => ConnectError::Unreachable,
            libc::ETIMEDOUT => ConnectError::TimedOut,
            libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM => ConnectError::Resource,
            libc::EADDRNOTAVAIL | libc::EADDRINUSE => ConnectError::NoPort,
            _ => ConnectError::Unexpected(errno),
        }
    }
}
