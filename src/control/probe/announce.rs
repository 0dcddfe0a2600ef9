//! The PROXY header that a probe begins with, where its server expects one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use crate::base::send_proxy::{SendProxy, Version};
use crate::flow::proxy_protocol::{Fields, header};
use crate::sys::stream;

/// Sends the header of a probe's own connection. As HAProxy has it: the second version says that
/// it is nobody's but ours (LOCAL), the first, which can't, has the connection's addresses.
pub(super) fn announce(socket: &impl AsFd, wanted: SendProxy) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let addresses = match wanted.version {
        Version::One => stream::local_address(fd).zip(stream::peer_address(fd)),
        Version::Two => None,
    };
    let header = header(wanted, addresses, Fields::default());
    let sent = stream::send_ahead(fd, header.as_bytes(), false);
    match sent.map_err(io::Error::from_raw_os_error)? {
        sent if sent == header.as_bytes().len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
