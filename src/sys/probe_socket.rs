//! The socket of a check by datagrams.

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::net::SocketAddr;

use super::stream::bind_source;
use crate::base::source::Source;

/// A non-blocking socket of datagrams that hears nobody but that address, and all that the network
/// says of what is sent there: without IP_RECVERR an unreachable host is no error (ip(7)).
pub fn connect_datagrams(to: &SocketAddr, source: Option<&Source>) -> Result<Socket, i32> {
    let number = |error: io::Error| error.raw_os_error().unwrap_or(libc::EIO);
    let kind = Type::DGRAM.nonblocking().cloexec();
    let domain = Domain::for_address(*to);
    let socket = Socket::new_raw(domain, kind, Some(Protocol::UDP)).map_err(number)?;
    let tells = match to {
        SocketAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true),
        SocketAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true),
    };
    tells.map_err(|errno| errno as i32)?;
    if let Some(source) = source {
        bind_source(&socket, source, to)?;
    }
    socket.connect(&SockAddr::from(*to)).map_err(number)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;

    #[test]
    fn it_comes_from_its_source_and_hears_its_server_alone() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let source = Source {
            ip: Some("127.0.0.2".parse().unwrap()),
            ports: None,
            interface: None,
            foreign: None,
        };
        let to = server.local_addr().unwrap();
        let socket = UdpSocket::from(connect_datagrams(&to, Some(&source)).unwrap());
        let own = socket.local_addr().unwrap();
        assert_eq!(own.ip(), source.ip.unwrap());
        socket.send(b"x").unwrap();
        assert_eq!(server.recv_from(&mut [0; 8]).unwrap(), (1, own));
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        stranger.send_to(b"stranger", own).unwrap();
        server.send_to(b"y", own).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 1);
        assert_eq!(buffer[0], b'y');
        drop(server);
        socket.send(b"x").unwrap();
        let error = socket.recv(&mut buffer).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
