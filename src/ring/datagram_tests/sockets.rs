//! What datagram sockets have: sources, peers, errors, drops, groups.

use std::io::IoSlice;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::AsFd;

use super::{Ring, client, listener, loopback, options, pool, to};
use crate::base::source::Source;
use crate::ring::{
    DatagramKernel, DatagramOptions, Errno, Fd, Inbox, Kernel, Outgoing, UndeliveredReason,
};
use crate::sys::datagram::{DatagramListenOptions, listen, steering};
use crate::sys::stream;

#[test]
fn a_connected_socket_marks_too_and_hears_its_server_alone() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut ring = Ring::new();
        let (_socket, fd, at) = listener(address, &options());
        ring.arm(fd, Inbox::Clients);
        let dedicated = DatagramOptions {
            connected: Some(at),
            ..pool(at.is_ipv6())
        };
        let own = ring.kernel.open_datagram_socket(&dedicated).unwrap();
        ring.arm(own, Inbox::Servers);
        let parts = [IoSlice::new(b"marked")];
        let outgoing = Outgoing {
            to: None,
            traffic_class: 3,
            ..to(at, &parts)
        };
        ring.send(own, &outgoing).unwrap();
        let (arrival, _) = ring.arrival();
        assert_eq!((arrival.from, arrival.traffic_class), (loopback(own), 3));
        client(address).send_to(b"intruder", arrival.from).unwrap();
        ring.send(fd, &to(arrival.from, &parts)).unwrap();
        let (arrival, bytes) = ring.arrival();
        assert_eq!((arrival.from, &*bytes), (at, &b"marked"[..]));
        ring.kernel.close(own);
    }
}

#[test]
fn a_refusal_is_told_with_the_server_that_refused() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let mut ring = Ring::new();
        let own = ring
            .kernel
            .open_datagram_socket(&pool(address.starts_with('[')))
            .unwrap();
        ring.arm(own, Inbox::Servers);
        let gone = client(address).local_addr().unwrap();
        ring.send(own, &to(gone, &[IoSlice::new(b"anybody?")]))
            .unwrap();
        assert_eq!(ring.end().result, -libc::ECONNREFUSED);
        let told = ring.kernel.undelivered(own).unwrap();
        assert_eq!((told.to, told.reason), (gone, UndeliveredReason::Refused));
        assert_eq!(ring.kernel.undelivered(own), None);
        // It goes on as before.
        ring.arm(own, Inbox::Servers);
        client(address).send_to(b"here", loopback(own)).unwrap();
        assert_eq!(ring.arrival().1, b"here");
        assert!(ring.ended.is_empty());
        ring.kernel.close(own);
    }
}

#[test]
fn what_must_not_be_fragmented_is_refused_and_told_once() {
    for ipv6 in [false, true] {
        let ring = Ring::new();
        let options = DatagramOptions {
            fragment: false,
            ..pool(ipv6)
        };
        let own = ring.kernel.open_datagram_socket(&options).unwrap();
        let at = loopback(own);
        // More than the interface takes: the loopback's MTU is 65,536 bytes, header included.
        let bytes = vec![0; if ipv6 { 65_500 } else { 65_507 }];
        let parts = [IoSlice::new(&bytes)];
        let fits = ring.send(own, &to(at, &parts));
        let too_large = [IoSlice::new(&bytes), IoSlice::new(&[0; 100])];
        let refused = ring.send(own, &to(at, &too_large));
        assert_eq!(
            (ipv6 || fits.is_ok(), refused),
            (true, Err(Errno(libc::EMSGSIZE)))
        );
        assert_eq!(ring.kernel.undelivered(own), None);
        ring.kernel.close(own);
    }
}

#[test]
fn drops_are_counted_by_the_kernel() {
    let small = DatagramListenOptions {
        rcvbuf: 8 << 10,
        ..options()
    };
    let ring = Ring::new();
    let (_socket, fd, at) = listener("127.0.0.1:0", &small);
    assert_eq!(ring.kernel.datagrams_dropped(fd), 0);
    let client = client("127.0.0.1:0");
    for _ in 0..200 {
        client.send_to(&[0; 1_000], at).unwrap();
    }
    let mut ring = ring;
    let dropped = ring.kernel.datagrams_dropped(fd) as usize;
    assert!((100..200).contains(&dropped), "{dropped}");
    ring.arm(fd, Inbox::Clients);
    assert_eq!(ring.arrivals(200 - dropped).len() + dropped, 200);
}

#[test]
fn a_client_stays_with_its_socket_and_clients_spread() {
    for address in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
        let dual = DatagramListenOptions {
            v6only: Some(false),
            ..options()
        };
        let bound = listen::listen(address.parse().unwrap(), &dual, 4).unwrap();
        let sockets: Vec<UdpSocket> = bound.sockets.into_iter().map(UdpSocket::from).collect();
        steering::attach(sockets[0].as_fd(), 4).unwrap();
        let port = sockets[0].local_addr().unwrap().port();
        let families: &[&str] = match address {
            "[::]:0" => &["127.0.0.1", "::1"],
            "[::1]:0" => &["::1"],
            _ => &["127.0.0.1"],
        };
        let mut clients = Vec::new();
        for family in families {
            let ip: IpAddr = family.parse().unwrap();
            let client = || (UdpSocket::bind((ip, 0)).unwrap(), SocketAddr::new(ip, port));
            clients.extend((0..200).map(|_| client()));
        }
        let mut places = std::collections::HashMap::new();
        let mut round = |sockets: &[UdpSocket]| {
            for (client, at) in &clients {
                client.send_to(b"hello", *at).unwrap();
            }
            let mut counts = vec![0; sockets.len()];
            for (place, socket) in sockets.iter().enumerate() {
                while let Ok((_, from)) = socket.recv_from(&mut [0; 16]) {
                    assert_eq!(*places.entry(from).or_insert(place), place, "{from}");
                    counts[place] += 1;
                }
            }
            counts
        };
        let counts = round(&sockets);
        let sum: usize = counts.iter().sum();
        assert_eq!(sum, clients.len());
        // A quarter each, give or take four times the standard deviation of chance.
        let most = sum / 4 + 4 * (sum as f64 * 3.0 / 16.0).sqrt() as usize;
        let least = sum / 4 - 4 * (sum as f64 * 3.0 / 16.0).sqrt() as usize;
        assert!(
            counts.iter().all(|count| (least..=most).contains(count)),
            "{counts:?}"
        );
        // Whoever joins later is given nothing, and takes nobody away.
        let mut sockets = sockets;
        let at = sockets[0].local_addr().unwrap();
        sockets.push(UdpSocket::from(listen::join(at, &dual).unwrap().0));
        let later = round(&sockets);
        assert_eq!(later, [&counts[..], &[0]].concat());
    }
}

#[test]
fn a_source_gives_address_and_ports_and_what_is_taken_is_passed_over() {
    let ring = Ring::new();
    let from = |ip: &str, ports| DatagramOptions {
        source: Some(Source {
            ip: Some(ip.parse().unwrap()),
            ports,
            interface: None,
            foreign: None,
        }),
        ..pool(ip.contains(':'))
    };
    let open = |options: &DatagramOptions| ring.kernel.open_datagram_socket(options);
    let address = |fd: Fd| stream::local_address(fd.0).unwrap();
    let first = open(&from("127.0.9.1", None)).unwrap();
    assert_eq!(address(first).ip(), IpAddr::from([127, 0, 9, 1]));
    // A range of three of which one is taken gives two sockets and no third.
    let taken = address(first).port();
    let range = (taken.min(65_533), taken.min(65_533) + 2);
    let options = from("127.0.9.1", Some(range));
    let sockets = [open(&options).unwrap(), open(&options).unwrap()];
    assert_eq!(open(&options), Err(Errno(libc::EADDRINUSE)));
    let mut ports: Vec<u16> = [first, sockets[0], sockets[1]]
        .map(|fd| address(fd).port())
        .into();
    ports.sort_unstable();
    assert_eq!(ports, (range.0..=range.1).collect::<Vec<_>>());
    for fd in [first, sockets[0], sockets[1]] {
        ring.kernel.close(fd);
    }
    // TEST-NET-1, RFC 5737: not ours.
    assert_eq!(
        open(&from("192.0.2.1", None)),
        Err(Errno(libc::EADDRNOTAVAIL))
    );
    let other_family = DatagramOptions {
        ipv6: true,
        ..from("127.0.9.1", None)
    };
    assert_eq!(open(&other_family), Err(Errno(libc::EAFNOSUPPORT)));
}

#[test]
fn a_group_is_closed_to_others() {
    let bound = listen::listen("127.0.0.1:0".parse().unwrap(), &options(), 2).unwrap();
    let at = socket2::SockRef::from(&bound.sockets[0])
        .local_addr()
        .unwrap();
    let refused = listen::listen(at.as_socket().unwrap(), &options(), 1).unwrap_err();
    assert_eq!(refused.error.kind(), std::io::ErrorKind::AddrInUse);
    let got = socket2::SockRef::from(&bound.sockets[0])
        .recv_buffer_size()
        .unwrap();
    let bytes = bound.short_buffer.unwrap_or(options().rcvbuf);
    assert_eq!(got, 2 * bytes as usize);
}
