//! PROXY headers that clients send first: right ones, wrong ones, and parts of them.

use std::net::{IpAddr, SocketAddr};

use tidegate::flow::proxy_protocol::{LOCAL, PROXY, SIGNATURE, TCP4};
use tidegate::ring::scripted::Random;

/// First byte of the addresses that headers make up.
const MADE_UP: u8 = 172;

/// What a client sends before its own bytes.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    /// What is still to be sent.
    pub(crate) left: Vec<u8>,
    /// Longest pause between two pieces.
    pub(crate) pause_us: u64,
    /// Whether it is a whole header and a right one.
    pub(crate) good: bool,
    /// The client's address by the header; `None` = its own.
    pub(crate) says: Option<SocketAddr>,
}

impl Header {
    /// The header of a client to a listener; it fits into a socket's queue of `most` bytes.
    pub(crate) fn new(
        random: &mut Random,
        [client, listener]: [SocketAddr; 2],
        most: u64,
    ) -> Header {
        let IpAddr::V4(own) = client.ip() else {
            panic!("clients have IPv4 addresses");
        };
        let [_, _, c, d] = own.octets();
        let said = SocketAddr::from(([MADE_UP, 16, c, d], client.port()));
        let text = |source: SocketAddr| {
            let (ip, port) = (source.ip(), source.port());
            let to = (listener.ip(), listener.port());
            format!("PROXY TCP4 {ip} {} {port} {}\r\n", to.0, to.1).into_bytes()
        };
        let (mut left, mut says) = match random.below(5) {
            0 => (b"PROXY UNKNOWN\r\n".to_vec(), None),
            1 => (binary(LOCAL, said, listener, 0), None),
            2 => (text(said), Some(said)),
            _ => {
                let filling = random.pick(&[0, 0, 40, 300, 5_000]);
                let room = usize::try_from(most).expect("a size") - 100;
                let filling = filling.min(room);
                (binary(PROXY, said, listener, filling), Some(said))
            }
        };
        let good = random.chance(700);
        if !good {
            says = None;
            match random.below(4) {
                // Cut off.
                0 | 1 => left.truncate(random.place(left.len())),
                2 => left = b"GET / HTTP/1.1\r\n\r\n".to_vec(),
                _ => left[0] ^= 1,
            }
        }
        Header {
            left,
            pause_us: random.pick(&[0, 0, 300, 20_000]),
            good,
            says,
        }
    }
}

/// A header of version 2 with `filling` bytes of a field.
fn binary(command: u8, source: SocketAddr, destination: SocketAddr, filling: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for address in [source, destination] {
        if let IpAddr::V4(ip) = address.ip() {
            body.extend(ip.octets());
        }
    }
    for address in [source, destination] {
        body.extend(address.port().to_be_bytes());
    }
    let length = |count: usize| u16::try_from(count).expect("short").to_be_bytes();
    if filling > 0 {
        body.push(0xe0);
        body.extend(length(filling));
        body.resize(body.len() + filling, 7);
    }
    let head = [&SIGNATURE[..], &[command, TCP4], &length(body.len())];
    [head.concat(), body].concat()
}

/// Whether an address is one that a header made up.
pub(crate) fn is_made_up(client: Option<SocketAddr>) -> bool {
    let ip = client.map(|address| address.ip());
    matches!(ip, Some(IpAddr::V4(ip)) if ip.octets()[0] == MADE_UP)
}
