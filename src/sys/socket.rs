//! Listening sockets: options, bind, listen, adoption of inherited ones.
//!
//! Options are set on the listening socket before `listen`, because accepted sockets inherit them
//! (TCP_NODELAY, keep-alive, buffer sizes, TCP_USER_TIMEOUT): the data plane then makes no
//! `setsockopt` call per connection.

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use socket2::{Domain, SockAddr, SockRef, Socket, Type};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::base::address::AbstractName;

/// Options of a listening socket.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct ListenOptions {
    /// Length of the accept queue asked for.
    pub backlog: u32,
    /// TCP_DEFER_ACCEPT: the connection is seen when its first data is there.
    pub defer_accept: bool,
    /// IPV6_V6ONLY; `None` = the system's default.
    pub v6only: Option<bool>,
    /// TCP_USER_TIMEOUT, milliseconds, 0 = none.
    pub tcp_user_timeout_ms: u32,
    /// SO_KEEPALIVE with its idle seconds, interval seconds and count (`None` = the system's).
    pub keepalive: Option<[Option<u32>; 3]>,
    /// SO_BINDTODEVICE: the interface it listens on.
    pub interface: Option<String>,
    /// IP_TRANSPARENT: it may be bound to addresses that aren't the machine's.
    pub transparent: bool,
    /// TCP_FASTOPEN, with the backlog as the bound of pending requests.
    pub fast_open: bool,
    /// TCP_MAXSEG in bytes, 0 = the kernel's.
    pub mss: u16,
    /// TCP_CONGESTION.
    pub congestion: Option<String>,
    /// TCP_QUICKACK off: the first data is acknowledged with the answer to it.
    pub delayed_ack: bool,
    /// SO_RCVBUF in bytes.
    pub rcvbuf: Option<u32>,
    /// SO_SNDBUF in bytes.
    pub sndbuf: Option<u32>,
}

/// Why a socket does not listen.
#[derive(Debug)]
pub struct ListenError {
    /// The parameter that the kernel refused; `None` = the address itself.
    pub parameter: Option<String>,
    /// What it said.
    pub error: io::Error,
}

impl From<io::Error> for ListenError {
    fn from(error: io::Error) -> Self {
        ListenError {
            parameter: None,
            error,
        }
    }
}

impl ListenError {
    /// Names the parameter that an option comes from.
    pub(super) fn of(parameter: impl Into<String>) -> impl FnOnce(io::Error) -> ListenError {
        let parameter = Some(parameter.into());
        |error| ListenError { parameter, error }
    }
}

/// Listens on a TCP address with one socket for each of `members` (at least 1), which share the
/// connections (SO_REUSEPORT).
///
/// The first socket binds and listens *without* SO_REUSEPORT, so that another program on the
/// address, even one of the same user that has set it, gives EADDRINUSE; of two that start at once,
/// `listen` lets one pass. Then the option is set and the others join: Linux looks at it when they
/// bind.
pub fn listen_tcp(
    address: SocketAddr,
    options: &ListenOptions,
    members: usize,
) -> Result<Vec<OwnedFd>, ListenError> {
    let first = open_tcp(address, options)?;
    first.bind(&SockAddr::from(address))?;
    listen(&first, options)?;
    set_option(&first, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    // With port 0 the kernel has chosen one for the first.
    let address = first.local_addr()?.as_socket().unwrap_or(address);
    let mut group = vec![OwnedFd::from(first)];
    for _ in 1..members {
        group.push(join_tcp(address, options)?);
    }
    Ok(group)
}

/// A further member of a group that this process already has.
pub fn join_tcp(address: SocketAddr, options: &ListenOptions) -> Result<OwnedFd, ListenError> {
    let socket = open_tcp(address, options)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    socket.bind(&SockAddr::from(address))?;
    listen(&socket, options)?;
    Ok(socket.into())
}

/// Gives a socket that listens other options, which connections from now on have. What can't be
/// taken back is refused, with the parameter's name, before anything is changed.
pub fn renew_tcp(
    socket: BorrowedFd<'_>,
    before: &ListenOptions,
    after: &ListenOptions,
) -> Result<(), ListenError> {
    let lasting = [
        (
            "cc",
            before.congestion.is_some() && after.congestion.is_none(),
        ),
        (
            "tune.rcvbuf.client",
            before.rcvbuf.is_some() && after.rcvbuf.is_none(),
        ),
        (
            "tune.sndbuf.client",
            before.sndbuf.is_some() && after.sndbuf.is_none(),
        ),
        ("interface", before.interface != after.interface),
        ("transparent", before.transparent != after.transparent),
        ("v6only", before.v6only != after.v6only),
    ];
    if let Some((parameter, _)) = lasting.iter().find(|(_, lasts)| *lasts) {
        let error = io::Error::from(io::ErrorKind::Unsupported);
        return Err(ListenError::of(*parameter)(error));
    }
    let socket = SockRef::from(&socket);
    let set = |level, name, value: u32| {
        let value = i32::try_from(value).unwrap_or(i32::MAX);
        set_option(&socket, level, name, value)
    };
    set(
        libc::IPPROTO_TCP,
        libc::TCP_DEFER_ACCEPT,
        after.defer_accept.into(),
    )?;
    set(
        libc::IPPROTO_TCP,
        libc::TCP_USER_TIMEOUT,
        after.tcp_user_timeout_ms,
    )?;
    if let Some(bytes) = after.rcvbuf {
        set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    if let Some(bytes) = after.sndbuf {
        set(libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    set(
        libc::SOL_SOCKET,
        libc::SO_KEEPALIVE,
        after.keepalive.is_some().into(),
    )?;
    let names = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];
    for (name, value) in names.into_iter().zip(after.keepalive.unwrap_or_default()) {
        if let Some(value) = value {
            set(libc::IPPROTO_TCP, name, value)?;
        }
    }
    if before.mss != after.mss {
        set(libc::IPPROTO_TCP, libc::TCP_MAXSEG, after.mss.into())
            .map_err(ListenError::of(format!("mss {}", after.mss)))?;
    }
    if let Some(algorithm) = &after.congestion {
        socket
            .set_tcp_congestion(algorithm.as_bytes())
            .map_err(ListenError::of(format!("cc {algorithm}")))?;
    }
    if before.fast_open != after.fast_open {
        let pending = if after.fast_open { backlog(after) } else { 0 };
        set_option(&socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, pending)
            .map_err(ListenError::of("tfo"))?;
    }
    if before.backlog != after.backlog {
        // A socket that listens goes on to, with another length of its queue.
        socket.listen(backlog(after))?;
    }
    set(
        libc::IPPROTO_TCP,
        libc::TCP_QUICKACK,
        (!after.delayed_ack).into(),
    )?;
    Ok(())
}

fn listen(socket: &Socket, options: &ListenOptions) -> io::Result<()> {
    socket.listen(backlog(options))?;
    if options.delayed_ack {
        // After listen, which sets the state of acknowledgements back.
        set_option(socket, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 0)?;
    }
    Ok(())
}

fn backlog(options: &ListenOptions) -> i32 {
    i32::try_from(options.backlog).unwrap_or(i32::MAX)
}

fn open_tcp(address: SocketAddr, options: &ListenOptions) -> Result<Socket, ListenError> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    let set = |level, name, value: u32| {
        set_option(
            &socket,
            level,
            name,
            i32::try_from(value).unwrap_or(i32::MAX),
        )
    };
    if let (SocketAddr::V6(_), Some(only)) = (address, options.v6only) {
        socket.set_only_v6(only)?;
    }
    set(libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    if options.defer_accept {
        set(libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, 1)?;
    }
    if options.tcp_user_timeout_ms > 0 {
        set(
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            options.tcp_user_timeout_ms,
        )?;
    }
    if let Some(bytes) = options.rcvbuf {
        set(libc::SOL_SOCKET, libc::SO_RCVBUF, bytes)?;
    }
    if let Some(bytes) = options.sndbuf {
        set(libc::SOL_SOCKET, libc::SO_SNDBUF, bytes)?;
    }
    if let Some(keepalive) = options.keepalive {
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1)?;
        let names = [libc::TCP_KEEPIDLE, libc::TCP_KEEPINTVL, libc::TCP_KEEPCNT];
        for (name, value) in names.into_iter().zip(keepalive) {
            if let Some(value) = value {
                set(libc::IPPROTO_TCP, name, value)?;
            }
        }
    }
    set_parameters(&socket, address, options)?;
    Ok(socket)
}

/// What the machine may not have or allow: an interface, a privilege, an algorithm, a size.
fn set_parameters(
    socket: &Socket,
    address: SocketAddr,
    options: &ListenOptions,
) -> Result<(), ListenError> {
    if let Some(name) = &options.interface {
        socket
            .bind_device(Some(name.as_bytes()))
            .map_err(ListenError::of(format!("interface {name}")))?;
    }
    if options.transparent {
        set_transparent(socket, address).map_err(ListenError::of("transparent"))?;
    }
    if options.fast_open {
        let pending = backlog(options);
        set_option(socket, libc::IPPROTO_TCP, libc::TCP_FASTOPEN, pending)
            .map_err(ListenError::of("tfo"))?;
    }
    if options.mss > 0 {
        let mss = i32::from(options.mss);
        set_option(socket, libc::IPPROTO_TCP, libc::TCP_MAXSEG, mss)
            .map_err(ListenError::of(format!("mss {mss}")))?;
    }
    if let Some(algorithm) = &options.congestion {
        socket
            .set_tcp_congestion(algorithm.as_bytes())
            .map_err(ListenError::of(format!("cc {algorithm}")))?;
    }
    Ok(())
}

/// Lets a socket be bound to a foreign address. Without the privilege for it the weaker option is
/// taken: it binds, and doesn't get what a firewall's TPROXY rule would redirect.
pub(super) fn set_transparent(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    let (level, options) = match address {
        SocketAddr::V4(_) => (libc::IPPROTO_IP, [libc::IP_TRANSPARENT, libc::IP_FREEBIND]),
        SocketAddr::V6(_) => {
            let options = [libc::IPV6_TRANSPARENT, libc::IPV6_FREEBIND];
            (libc::IPPROTO_IPV6, options)
        }
    };
    let [transparent, foreign] = options;
    set_option(socket, level, transparent, 1).or_else(|_| set_option(socket, level, foreign, 1))
}

/// Listens on an abstract Unix name. A name on which somebody listens gives `AddrInUse`.
pub fn listen_abstract(name: &AbstractName, backlog: u32) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&abstract_address(name)?)?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// An abstract name as the system calls take it.
pub(crate) fn abstract_address(name: &AbstractName) -> io::Result<SockAddr> {
    use std::os::unix::ffi::OsStrExt;
    let mut path = [0; AbstractName::LENGTH_MAX + 1];
    let length = 1 + name.bytes().len();
    path[1..length].copy_from_slice(name.bytes());
    SockAddr::unix(Path::new(std::ffi::OsStr::from_bytes(&path[..length])))
}

pub(super) fn set_option(socket: &Socket, level: i32, name: i32, value: i32) -> io::Result<()> {
    let pointer: *const i32 = &raw const value;
    let length = size_of::<i32>() as libc::socklen_t;
    // SAFETY: the descriptor is open while `socket` is borrowed; `pointer` is to a local i32 that
    // outlives the call, and `length` is its size.
    let result =
        unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, pointer.cast(), length) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A Unix socket that listens, and how to recognise its file later.
#[derive(Debug)]
pub struct UnixListening {
    /// The socket.
    pub socket: OwnedFd,
    /// Device and inode of the socket file.
    pub file: (u64, u64),
}

/// Listens on a Unix path: binds a temporary name, sets mode and owner, and renames it over the
/// path, so that clients find either the old socket or a ready one. A path on which somebody
/// listens gives `AddrInUse` unless it is to be replaced; a socket left behind is replaced, any
/// other file is not.
pub fn listen_unix(
    path: &Path,
    backlog: u32,
    access: UnixAccess,
    replacing: bool,
) -> io::Result<UnixListening> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
    if let Ok(found) = std::fs::symlink_metadata(path) {
        if !found.file_type().is_socket() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "not a socket"));
        }
        if !replacing && is_served(path) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
    }
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = Path::new(&name);
    let _ = std::fs::remove_file(temporary);
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(temporary)?)?;
    let finish = || -> io::Result<(u64, u64)> {
        if let Some(mode) = access.mode {
            std::fs::set_permissions(temporary, std::fs::Permissions::from_mode(mode))?;
        }
        if access.uid.is_some() || access.gid.is_some() {
            chown(temporary, access.uid, access.gid)?;
        }
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        let file = std::fs::symlink_metadata(temporary)?;
        std::fs::rename(temporary, path)?;
        Ok((file.dev(), file.ino()))
    };
    match finish() {
        Ok(file) => Ok(UnixListening {
            socket: socket.into(),
            file,
        }),
        Err(error) => {
            let _ = std::fs::remove_file(temporary);
            Err(error)
        }
    }
}

/// Whether somebody listens on a Unix path. A full queue (EAGAIN) means yes.
fn is_served(path: &Path) -> bool {
    match UnixStream::connect(path) {
        Ok(_) => true,
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

/// Who may connect to a Unix path; `None` = as the system has made it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct UnixAccess {
    /// The file's mode.
    pub mode: Option<u32>,
    /// Its owner.
    pub uid: Option<u32>,
    /// Its group.
    pub gid: Option<u32>,
}

/// Changes who may connect to a socket file that is still the one that was bound.
pub fn renew_unix(
    path: &Path,
    file: (u64, u64),
    before: UnixAccess,
    after: UnixAccess,
) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    let is_lost = |before: Option<u32>, after: Option<u32>| before.is_some() && after.is_none();
    if is_lost(before.mode, after.mode)
        || is_lost(before.uid, after.uid)
        || is_lost(before.gid, after.gid)
    {
        let text = "what it would be without is not known";
        return Err(io::Error::new(io::ErrorKind::Unsupported, text));
    }
    let found = std::fs::symlink_metadata(path)?;
    if (found.dev(), found.ino()) != file {
        return Err(io::Error::other("the file is another one"));
    }
    if after.uid.is_some() || after.gid.is_some() {
        chown(path, after.uid, after.gid)?;
    }
    match after.mode {
        Some(mode) => std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)),
        None => Ok(()),
    }
}

/// Removes a socket file if it is still the one that was bound.
pub fn unlink_unix(path: &Path, file: (u64, u64)) {
    use std::os::unix::fs::MetadataExt;
    if std::fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == file) {
        let _ = std::fs::remove_file(path);
    }
}

/// Descriptors that one message may carry; the kernel's bound is 253 (SCM_MAX_FD).
pub const DESCRIPTORS_PER_MESSAGE_MAX: usize = 64;

/// Sends bytes, which must fit at once, with descriptors attached to the first.
pub fn send_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let attached = [ControlMessage::ScmRights(&numbers)];
    let pieces = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    let number = socket.as_raw_fd();
    let sent = uninterrupted(|| {
        sendmsg::<UnixAddr>(number, &pieces, &attached, flags, None).map_err(io::Error::from)
    })?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::WriteZero.into())
    }
}

/// Receives bytes, and the descriptors that are attached to them.
pub fn receive_descriptors(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    uninterrupted(|| receive_descriptors_once(socket, bytes, descriptors))
}

/// Makes a call again that was interrupted. Calls with a timeout of the socket's are not restarted
/// by the kernel (signal(7)), and what interrupts need not be a signal: the end of a ring that this
/// thread had does, too.
fn uninterrupted<R>(mut call: impl FnMut() -> io::Result<R>) -> io::Result<R> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn receive_descriptors_once(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> io::Result<usize> {
    let mut space = nix::cmsg_space!([RawFd; DESCRIPTORS_PER_MESSAGE_MAX]);
    let mut pieces = [IoSliceMut::new(bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let number = socket.as_raw_fd();
    let message = recvmsg::<UnixAddr>(number, &mut pieces, Some(&mut space), flags)?;
    for attached in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = attached {
            for number in numbers {
                // SAFETY: the kernel has just installed this descriptor for us, and nobody else
                // has seen its number.
                descriptors.push(unsafe { OwnedFd::from_raw_fd(number) });
            }
        }
    }
    Ok(message.bytes)
}

/// Takes over a listening socket inherited as descriptor `number`.
pub fn adopt_listener(number: RawFd) -> io::Result<OwnedFd> {
    let invalid = |text: &str| io::Error::new(io::ErrorKind::InvalidInput, text.to_owned());
    if number < 0 {
        return Err(invalid("not a listening socket"));
    }
    // SAFETY: fcntl with F_GETFD takes no pointers and only looks the number up.
    if unsafe { libc::fcntl(number, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open (just checked) and stays so while borrowed: nothing else runs yet,
    // as this is for the start of the process.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    let reference = socket2::SockRef::from(&borrowed);
    if !reference
        .is_listener()
        .map_err(|_| invalid("not a listening socket"))?
    {
        return Err(invalid("not a listening socket"));
    }
    reference.set_nonblocking(true)?;
    reference.set_cloexec(true)?;
    // SAFETY: the descriptor was passed to this program for this purpose, is open, and the registry
    // adopts every number once, so nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_group_is_closed_to_others_and_gets_every_connection() {
        let options = ListenOptions {
            backlog: 64,
            ..ListenOptions::default()
        };
        let group = listen_tcp("127.0.0.1:0".parse().unwrap(), &options, 1).unwrap();
        let first = TcpListener::from(group.into_iter().next().unwrap());
        let address = first.local_addr().unwrap();
        let second = TcpListener::from(join_tcp(address, &options).unwrap());
        let refused = listen_tcp(address, &options, 2).unwrap_err();
        assert_eq!(refused.error.kind(), io::ErrorKind::AddrInUse);
        let clients: Vec<_> = (0..64)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let count = |listener: &TcpListener| {
            std::iter::from_fn(|| listener.accept().ok().map(|(stream, _)| stream))
                .inspect(|stream| assert!(stream.nodelay().unwrap(), "NODELAY is inherited"))
                .count()
        };
        let counts = [count(&first), count(&second)];
        assert_eq!(counts.iter().sum::<usize>(), clients.len());
        assert!(counts.iter().all(|n| *n > 8), "{counts:?}");
    }

    #[test]
    fn a_stale_unix_socket_is_replaced_and_a_live_one_is_not() {
        use std::os::unix::fs::PermissionsExt;
        let path = std::env::temp_dir().join(format!("tidegate-unit-{}.sock", std::process::id()));
        let with_mode = |mode| UnixAccess {
            mode: Some(mode),
            ..UnixAccess::default()
        };
        let first = listen_unix(&path, 8, with_mode(0o600), false).unwrap();
        let error = listen_unix(&path, 8, UnixAccess::default(), false).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let second = listen_unix(&path, 8, UnixAccess::default(), false).unwrap();
        let (device, inode) = second.file;
        let renew = |file, mode| {
            renew_unix(&path, file, UnixAccess::default(), with_mode(mode))?;
            let found = std::fs::symlink_metadata(&path)?;
            io::Result::Ok(found.permissions().mode() & 0o777)
        };
        assert_eq!(renew(second.file, 0o620).unwrap(), 0o620);
        assert!(renew((device, inode.wrapping_add(1)), 0o666).is_err());
        let unknown = renew_unix(&path, second.file, with_mode(0o620), UnixAccess::default());
        assert_eq!(unknown.unwrap_err().kind(), io::ErrorKind::Unsupported);
        unlink_unix(&path, (device, inode.wrapping_add(1)));
        assert!(path.exists());
        unlink_unix(&path, second.file);
        assert!(!path.exists());
    }
}
