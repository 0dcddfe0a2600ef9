//! Who has an address: the kernel's tables of datagram sockets, proc(5) `/proc/net/udp`.

use std::io;
use std::net::{IpAddr, SocketAddr};

/// How many sockets of the host, of whatever process, are bound to this very address and port.
pub fn sockets_on(address: SocketAddr) -> io::Result<usize> {
    let table = match address {
        SocketAddr::V4(_) => "/proc/self/net/udp",
        SocketAddr::V6(_) => "/proc/self/net/udp6",
    };
    let text = std::fs::read_to_string(table)?;
    Ok(count(&text, address))
}

fn count(table: &str, address: SocketAddr) -> usize {
    let wanted = name(address);
    let lines = table.lines().skip(1);
    lines
        .filter(|line| line.split_whitespace().nth(1) == Some(wanted.as_str()))
        .count()
}

/// An address as the tables have it: words of four bytes, each as a number of this machine.
fn name(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (words, _) = octets.as_chunks::<4>();
    let words = words.iter().map(|word| u32::from_ne_bytes(*word));
    let mut name: String = words.map(|word| format!("{word:08X}")).collect();
    name.push_str(&format!(":{:04X}", address.port()));
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_of_an_address_are_counted() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let socket = std::net::UdpSocket::bind((ip, 0)).unwrap();
            let address = socket.local_addr().unwrap();
            assert_eq!(sockets_on(address).unwrap(), 1, "{address}");
            // Another address with the same port is another.
            let other = match ip {
                IpAddr::V4(_) => "0.0.0.0",
                IpAddr::V6(_) => "::",
            };
            let other: IpAddr = other.parse().unwrap();
            let other = SocketAddr::new(other, address.port());
            assert_eq!(sockets_on(other).unwrap(), 0, "{other}");
        }
    }
}
