//! Servers chosen by what a datagram says: torrents of the DHT, connections of QUIC.

use std::net::SocketAddr;

use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::free_port;
use crate::support::{Balancer, skip, turn};

/// A proxy in front of silent servers, and where it is.
fn start(lines: &str, servers: &[DatagramServer], ids: &[&str]) -> (Balancer, SocketAddr) {
    let bind: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let mut text = format!("listen u\n mode udp\n bind {bind}\n timeout udp 5s\n {lines}\n");
    for (n, server) in servers.iter().enumerate() {
        let id = ids
            .get(n)
            .map_or(String::new(), |id| format!(" quic-id {id}"));
        text.push_str(&format!(" server s{n} {}{id}\n", server.address()));
    }
    (Balancer::start(text), bind)
}

fn silent(count: usize) -> Vec<DatagramServer> {
    (0..count).map(|_| DatagramServer::silent()).collect()
}

/// Which of the servers have got this datagram.
fn holders(servers: &[DatagramServer], datagram: &[u8]) -> Vec<usize> {
    let has = |server: &DatagramServer| server.arrivals().iter().any(|a| a.bytes == datagram);
    (0..servers.len()).filter(|n| has(&servers[*n])).collect()
}

/// Sends a datagram and waits for it: the server that got it.
fn server_of(servers: &[DatagramServer], client: &DatagramClient, datagram: &[u8]) -> usize {
    let received = || servers.iter().map(DatagramServer::received).sum::<u64>();
    let before = received();
    client.send(datagram);
    crate::support::eventually("the datagram", || received() > before);
    let holders = holders(servers, datagram);
    assert_eq!(holders.len(), 1, "{}", datagram.escape_ascii());
    holders[0]
}

/// A query for the peers of a torrent; all have the same length.
fn get_peers(torrent: usize, transaction: usize) -> Vec<u8> {
    format!(
        "d1:ad2:id20:abcdefghij01234567899:info_hash20:torrent {torrent:012}e1:q9:get_peers\
         1:t8:{transaction:08}1:y1:qe"
    )
    .into_bytes()
}

/// Each by its own torrent: neither by the first one's nor, because more than a message is no
/// message, by the address of the client.
#[test]
fn datagrams_that_come_together_have_keys_of_their_own() {
    const TORRENTS: usize = 24;
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let servers = silent(3);
    let lines = "balance hash udp.dht_target\n hash-type maglev\n udp-requests 1";
    let (_balancer, target) = start(lines, &servers, &[]);
    let client = DatagramClient::new(target, 0);
    let ask = |torrent| server_of(&servers, &client, &get_peers(torrent, 0));
    let homes: Vec<_> = (0..TORRENTS).map(ask).collect();
    let used: std::collections::BTreeSet<_> = homes.iter().collect();
    assert!(used.len() > 1, "{homes:?}");
    // The same torrents by another client, in one train.
    let received = || servers.iter().map(DatagramServer::received).sum::<u64>();
    let other = DatagramClient::new(target, 1);
    let train: Vec<_> = (0..TORRENTS).map(|torrent| get_peers(torrent, 1)).collect();
    other.send_together(&train);
    let all = 2 * TORRENTS as u64;
    crate::support::eventually("the train", || received() == all);
    for (datagram, home) in train.iter().zip(homes) {
        assert_eq!(holders(&servers, datagram), [home]);
    }
}

/// A packet with a short header, to a connection ID that names a server by two bytes.
fn packet(server: [u8; 2], number: u8) -> Vec<u8> {
    [&[0x41, 0x07], &server[..], b"nonce", &[number; 20]].concat()
}

/// The first packet of a connection: its connection ID is the client's own.
fn initial(id: &[u8; 8], number: u8) -> Vec<u8> {
    [&b"\xc0\0\0\0\x01\x08"[..], id, &[0], &[number; 40]].concat()
}

#[test]
fn a_connection_stays_with_its_server_wherever_its_client_is() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let servers = silent(3);
    let ids = ["000a", "000b", "000c"];
    let (_balancer, target) = start("balance roundrobin\n quic-lb 1,2", &servers, &ids);
    let clients: Vec<_> = (0..6).map(|n| DatagramClient::new(target, n)).collect();
    let to = |client: usize, datagram: &[u8]| server_of(&servers, &clients[client], datagram);
    // New connections take turns, also one whose own ID happens to name the third server.
    assert_eq!(to(0, &initial(b"\x07\0\x0cabcde", 0)), 0);
    assert_eq!(to(1, &initial(b"\x07zzabcde", 1)), 1);
    // Their flows keep them until the server has given out an ID of its own; then it decides.
    assert_eq!(to(0, &packet([0, 10], 2)), 0);
    assert_eq!(to(1, &packet([0, 11], 3)), 1);
    // From another address, and back; a flow goes where its connection is.
    for (client, number) in [(2, 4), (3, 5), (0, 6)] {
        assert_eq!(to(client, &packet([0, 11], number)), 1);
    }
    assert_eq!(to(2, &packet([0, 12], 7)), 2);
    // Nobody's ID: as balanced, and then by its flow.
    let stranger = to(4, &packet([9, 9], 8));
    assert_eq!(to(4, &packet([9, 9], 9)), stranger);
}
