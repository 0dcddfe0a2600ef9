//! Clients of UDP by the thousands, each with an address of its own of 127.0.0.0/8 and no socket
//! but for as long as it waits for an answer.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;

use super::datagram::{PATIENCE, identify, payload};
use super::port::free_port;

/// Sockets that wait for an answer at a time.
const AT_ONCE: usize = 200;

/// Clients of one balancer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Crowd {
    target: SocketAddr,
    port: u16,
    /// The second byte of their addresses.
    network: u8,
}

impl Crowd {
    /// Clients whose addresses are those of `127.network.0.0` and the networks that follow.
    pub(crate) fn new(target: SocketAddr, network: u8) -> Self {
        Crowd {
            target,
            port: free_port(),
            network,
        }
    }

    /// The address of one of them.
    pub(crate) fn address(&self, number: u32) -> SocketAddr {
        let [_, high, middle, low] = number.to_be_bytes();
        SocketAddr::from(([127, self.network + high, middle, low], self.port))
    }

    /// Sends datagram `round` of a client, which then waits with its socket.
    pub(crate) fn ask(&self, number: u32, round: u32, length: usize) -> UdpSocket {
        let address = self.address(number);
        let socket = UdpSocket::bind(address).unwrap_or_else(|e| panic!("bind {address}: {e}"));
        let bytes = payload(number, round, length);
        let sent = socket.send_to(&bytes, self.target);
        assert_eq!(sent.expect("send"), bytes.len());
        socket
    }

    /// The answer, which has to be this client's own.
    pub(crate) fn answer(&self, socket: &UdpSocket, number: u32, round: u32, length: usize) {
        let mut buffer = [0; 2_048];
        socket
            .set_read_timeout(Some(PATIENCE))
            .expect("read timeout");
        let (count, from) = loop {
            match socket.recv_from(&mut buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.unwrap_or_else(|e| panic!("client {number}: {e}")),
            }
        };
        assert_eq!(from, self.target, "client {number}: who answers");
        let got = identify(&buffer[..count]);
        assert_eq!((got, count), (Ok((number, round)), length));
    }

    /// One datagram of each of these clients, and its answer.
    pub(crate) fn exchange(&self, clients: Range<u32>, round: u32, length: usize) {
        let clients: Vec<u32> = clients.collect();
        for part in clients.chunks(AT_ONCE) {
            let ask = |number: &u32| (*number, self.ask(*number, round, length));
            let waiting: Vec<_> = part.iter().map(ask).collect();
            for (number, socket) in &waiting {
                self.answer(socket, *number, round, length);
            }
        }
    }
}
