//! Which server a flow goes to: every way of choosing, weights, connection IDs that name servers.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

use crate::agent::Agent;
use crate::support::balancer::Setup;
use crate::support::datagram::{DatagramClient, DatagramServer};
use crate::support::port::{free_port, free_ports};
use crate::support::{Balancer, Syslog, eventually, skip, turn};

/// What servers answer three times: where two answers to each question are expected, the flow of a
/// client that has asked once before ends with that.
const BYE: &[u8] = b"bye";

/// A proxy before servers that answer with their number.
pub(crate) struct Farm {
    pub(crate) balancer: Balancer,
    pub(crate) servers: Vec<DatagramServer>,
    pub(crate) port: u16,
}

impl Farm {
    /// With these lines, and a server for each of `words`, which has them on its line.
    pub(crate) fn start(shards: u32, lines: &[&str], words: &[&str]) -> Farm {
        let port = free_port();
        let bind = format!("bind 127.0.0.1:{port}");
        Farm::start_on(port, shards, &[&[bind.as_str()][..], lines].concat(), words)
    }

    fn start_on(port: u16, shards: u32, lines: &[&str], words: &[&str]) -> Farm {
        let names = (0..words.len()).map(|number| number.to_string());
        let server = |name: String| {
            DatagramServer::start(move |arrival| {
                let times = if arrival.bytes == BYE { 3 } else { 1 };
                vec![name.clone().into_bytes(); times]
            })
        };
        let servers: Vec<_> = names.map(server).collect();
        let mut text = "listen u\n    mode udp\n    timeout udp 3s\n".to_owned();
        for line in lines {
            text += &format!("    {line}\n");
        }
        for (number, (server, words)) in servers.iter().zip(words).enumerate() {
            text += &format!("    server s{number} {} {words}\n", server.address());
        }
        let balancer = Setup::new(text).shards(shards).start();
        Farm {
            balancer,
            servers,
            port,
        }
    }

    pub(crate) fn client(&self) -> DatagramClient {
        self.client_from(Ipv4Addr::LOCALHOST)
    }

    pub(crate) fn client_from(&self, own: Ipv4Addr) -> DatagramClient {
        let target = (Ipv4Addr::LOCALHOST, self.port).into();
        DatagramClient::from((own, 0).into(), target, 0)
    }

    pub(crate) fn clients(&self, count: usize) -> Vec<DatagramClient> {
        (0..count).map(|_| self.client()).collect()
    }

    pub(crate) fn count(&self, name: &str) -> u64 {
        let number = self.balancer.activity().number(name);
        number.unwrap_or_else(|| panic!("no {name}"))
    }

    pub(crate) fn of_server(&self, server: usize, column: &str) -> u64 {
        let stat = self.balancer.stat();
        stat.number("u", &format!("s{server}"), column)
    }

    /// What an agent of a server says, and the status that it then has.
    pub(crate) fn say(&self, agent: &Agent, server: usize, words: &str, status: &str) {
        agent.say(words);
        eventually(words, || {
            let stat = self.balancer.stat();
            let now = stat.text("u", &format!("s{server}"), "status");
            now.starts_with(status)
        });
    }

    /// How many of these places each server has.
    fn shares(&self, places: &[usize]) -> Vec<usize> {
        let share = |server| places.iter().filter(|place| **place == server).count();
        (0..self.servers.len()).map(share).collect()
    }
}

/// The number of the server that answers.
pub(crate) fn ask(client: &DatagramClient, bytes: &[u8]) -> usize {
    client.send(bytes);
    number_of(&client.receive())
}

fn number_of(answer: &[u8]) -> usize {
    let text = std::str::from_utf8(answer).ok();
    let number = text.and_then(|text| text.parse().ok());
    number.unwrap_or_else(|| panic!("no number of a server but {answer:?}"))
}

fn places(clients: &[DatagramClient]) -> Vec<usize> {
    clients.iter().map(|client| ask(client, b"who?")).collect()
}

/// The one place that all of these are at.
fn only(places: impl IntoIterator<Item = usize>, what: &str) -> usize {
    let places: BTreeSet<_> = places.into_iter().collect();
    assert_eq!(places.len(), 1, "{what}: {places:?}");
    places.into_iter().next().unwrap()
}

/// The words of a server that an agent speaks for; its own check always passes.
fn agent_words(agent: &Agent) -> String {
    let port = agent.port();
    format!("check port {port} inter 50 rise 1 agent-check agent-port {port} agent-inter 50")
}

/// Addresses of clients.
fn loopback(number: u8) -> Ipv4Addr {
    Ipv4Addr::new(127, 0, 9, number + 1)
}

#[test]
fn round_robin_goes_by_weights() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for line in ["balance roundrobin", "balance static-rr"] {
        let farm = Farm::start(1, &[line], &["weight 3", "weight 2", "weight 1"]);
        let clients = farm.clients(12);
        let first = places(&clients);
        assert_eq!(farm.shares(&first), [6, 4, 2], "{line}");
        assert_eq!(places(&clients), first, "flows stay");
        farm.balancer.settle();
        let chosen: Vec<_> = (0..3).map(|s| farm.of_server(s, "lbtot")).collect();
        assert_eq!(chosen, [6, 4, 2], "{line}");
    }
}

#[test]
fn leastconn_counts_the_flows_that_live() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance leastconn", "udp-responses 2", "timeout udp 3s"];
    let farm = Farm::start(1, &lines, &["", "", ""]);
    let clients = farm.clients(3);
    let first = places(&clients);
    assert_eq!(farm.shares(&first), [1, 1, 1]);
    for (client, place) in clients.iter().zip(&first) {
        // Four answers to two questions.
        assert_eq!(ask(client, BYE), *place);
        eventually("it has ended", || farm.of_server(*place, "scur") == 0);
        assert_eq!(ask(&farm.client(), b"who?"), *place);
        assert_eq!(farm.of_server(*place, "scur"), 1);
    }
    farm.balancer.settle();
}

#[test]
fn the_first_has_all_until_it_is_full_and_who_finds_no_room_is_dropped() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance first", "udp-responses 2", "timeout udp 3s"];
    let farm = Farm::start(1, &lines, &["maxconn 2", "maxconn 2", "maxconn 1"]);
    let clients = farm.clients(5);
    assert_eq!(places(&clients), [0, 0, 1, 1, 2]);
    let late = farm.client();
    for dropped in 1..4 {
        late.send(b"any room?");
        eventually("it is counted", || {
            farm.count("flows_refused_server") == dropped
        });
    }
    late.expect_silence(Duration::from_millis(10));
    let received: u64 = farm.servers.iter().map(DatagramServer::received).sum();
    assert_eq!(received, 5, "nothing of it has left");
    // There is no queue: it has to ask again.
    assert_eq!(ask(&clients[2], BYE), 1);
    eventually("it has ended", || farm.of_server(1, "scur") == 1);
    late.expect_silence(Duration::from_millis(10));
    assert_eq!(ask(&late, b"and now?"), 1);
    farm.balancer.settle();
}

#[test]
fn random_reaches_all() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let farm = Farm::start(2, &["balance random"], &["", "", ""]);
    let shares = farm.shares(&places(&farm.clients(60)));
    assert!(shares.iter().all(|share| *share > 0), "{shares:?}");
    farm.balancer.settle();
}

#[test]
fn all_flows_of_an_address_go_to_one_server_by_source() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    for more in [
        "hash-type map-based",
        "hash-type consistent",
        "hash-type maglev",
    ] {
        let farm = Farm::start(2, &["balance source", more], &["", "", ""]);
        let one = |number| {
            let clients: Vec<_> = (0..4).map(|_| farm.client_from(loopback(number))).collect();
            only(places(&clients), more)
        };
        let used: BTreeSet<_> = (0..20).map(one).collect();
        assert!(used.len() > 1, "{more}: all addresses are at {used:?}");
        farm.balancer.settle();
    }
}

#[test]
fn the_source_with_its_port_spreads_the_flows_of_an_address() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = [
        "balance hash src+port",
        "hash-type consistent",
        "udp-responses 1",
    ];
    let farm = Farm::start(2, &lines, &["", "", ""]);
    let clients = farm.clients(40);
    let first = places(&clients);
    let used: BTreeSet<_> = first.iter().collect();
    assert!(used.len() > 1, "all ports are at {used:?}");
    // Each question is a flow of its own, which is where the one before was.
    for _ in 0..2 {
        assert_eq!(places(&clients), first);
    }
    farm.balancer.settle();
    assert_eq!(farm.balancer.stat().number("u", "FRONTEND", "stot"), 120);
}

#[test]
fn the_port_of_the_listener_may_choose() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let ports = free_ports(20);
    let bind = format!("bind 127.0.0.1:{}-{}", ports.start(), ports.end());
    let lines = [bind.as_str(), "balance hash dst_port"];
    let farm = Farm::start_on(*ports.start(), 2, &lines, &["", "", ""]);
    let at = |port| {
        let client = |number| {
            let target = (Ipv4Addr::LOCALHOST, port).into();
            DatagramClient::from((loopback(number), 0).into(), target, 0)
        };
        let clients: Vec<_> = (0..3).map(client).collect();
        only(places(&clients), "a port")
    };
    let used: BTreeSet<_> = ports.map(at).collect();
    assert!(used.len() > 1, "all ports are at {used:?}");
    farm.balancer.settle();
}

#[test]
fn bytes_of_the_first_datagram_may_choose() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance hash udp.payload(4,4)", "udp-responses 1"];
    let farm = Farm::start(2, &lines, &["", "", ""]);
    let clients: Vec<_> = (0..4).map(|n| farm.client_from(loopback(n))).collect();
    let mut used = BTreeSet::new();
    for key in 0..30u32 {
        let of_client = |(number, client): (u32, &DatagramClient)| {
            let words = [number, key.wrapping_mul(0x9e37_79b9), number];
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
            ask(client, &bytes)
        };
        used.insert(only((0..).zip(&clients).map(of_client), "a key"));
    }
    assert!(used.len() > 1, "all keys are at {used:?}");
    // Without these bytes a client's address chooses.
    for client in &clients {
        only((0..5).map(|length| ask(client, &[length; 4])), "short");
    }
    farm.balancer.settle();
}

/// A question of the DHT for the peers of a thing.
fn get_peers(node: u8, hash: u8) -> Vec<u8> {
    let id = |byte: u8| [byte; 20];
    let mut bytes = b"d1:ad2:id20:".to_vec();
    bytes.extend(id(node));
    bytes.extend(b"9:info_hash20:");
    bytes.extend(id(hash));
    bytes.extend(b"e1:q9:get_peers1:t2:aa1:y1:qe");
    bytes
}

#[test]
fn requests_of_the_dht_for_one_thing_reach_one_node() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = [
        "balance hash udp.dht_target",
        "hash-type consistent",
        "udp-requests 1",
    ];
    let farm = Farm::start(2, &lines, &["", "", ""]);
    let clients: Vec<_> = (0..20).map(|n| farm.client_from(loopback(n))).collect();
    let mut used = BTreeSet::new();
    for hash in 0..20 {
        let of_client = |(node, client)| ask(client, &get_peers(node, hash));
        used.insert(only((100..).zip(&clients).map(of_client), "a hash"));
    }
    assert!(used.len() > 1, "all hashes are at {used:?}");
    // What isn't a message goes by the address.
    for client in &clients {
        let whole = get_peers(1, 2);
        let bad: [&[u8]; 4] = [b"", b"d1:ad2:id20:", &whole[..30], b"le"];
        only(bad.map(|bytes| ask(client, bytes)), "bad messages");
    }
    farm.balancer.settle();
}

/// The first packet of a connection of QUIC, to an ID that the client made up.
fn initial(id: &[u8]) -> Vec<u8> {
    let length = u8::try_from(id.len()).unwrap();
    let head = [0xc3, 0, 0, 0, 1, length];
    [&head[..], id, &[8], &[5; 8], &[0; 1_178]].concat()
}

/// A later one, to an ID that the server gave out.
fn short(id: &[u8]) -> Vec<u8> {
    [&[0x41], id, &[7; 40]].concat()
}

#[test]
fn a_connection_id_of_quic_chooses_the_first_time() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance hash udp.quic_cid", "hash-type consistent"];
    let farm = Farm::start(2, &lines, &["", "", ""]);
    let mut used = BTreeSet::new();
    for seed in 0..20u8 {
        let id = [seed, 1, 2, 3, 4, 5, 6, seed];
        let clients: Vec<_> = (0..3).map(|n| farm.client_from(loopback(n))).collect();
        let place = only(clients.iter().map(|c| ask(c, &initial(&id))), "an ID");
        // The ID is the same in a short header.
        assert_eq!(ask(&farm.client(), &short(&id)), place);
        // A flow stays, whatever IDs its packets have.
        assert_eq!(ask(&clients[0], &short(&[seed ^ 0x55; 8])), place);
        used.insert(place);
    }
    assert!(used.len() > 1, "all IDs are at {used:?}");
    farm.balancer.settle();
}

/// A connection ID that a server has given out, as `quic-lb 1,2` reads it.
fn of_server(server: u8, nonce: u8) -> Vec<u8> {
    vec![0x21, 0, server + 1, nonce, nonce, nonce, nonce, nonce]
}

const QUIC_SERVERS: [&str; 3] = ["quic-id 0001", "quic-id 0002", "quic-id 0003"];

#[test]
fn a_client_of_quic_that_changes_its_address_stays_on_its_server() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance roundrobin", "quic-lb 1,2", "timeout udp 6s"];
    let farm = Farm::start(4, &lines, &QUIC_SERVERS);
    // Three connections, each of which is at a new address, and maybe another shard, every time.
    for round in 0..16u8 {
        for server in 0..3u8 {
            let client = farm.client_from(loopback(round));
            let id = of_server(server, round);
            assert_eq!(ask(&client, &short(&id)), usize::from(server));
            assert_eq!(ask(&client, &short(&id)), usize::from(server));
        }
    }
    let activity = farm.balancer.activity();
    let flows = activity.of_each_shard("flows");
    let busy = flows.iter().filter(|flows| **flows > 0).count();
    assert!(busy > 1, "only one shard had a part: {flows:?}");
    assert_eq!(farm.count("flows_moved"), 0);
    // A flow that names another server goes there, and back.
    let client = farm.client();
    for server in [1, 2, 0, 1] {
        let id = of_server(server, 77);
        assert_eq!(ask(&client, &short(&id)), usize::from(server));
    }
    assert_eq!(farm.count("flows_moved"), 3);
    farm.balancer.settle();
    // A move by a client's own word is no redispatch.
    assert_eq!(farm.balancer.stat().number("u", "BACKEND", "wredis"), 0);
}

#[test]
fn connection_ids_that_name_nobody_are_balanced() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance roundrobin", "quic-lb 1,2"];
    let farm = Farm::start(1, &lines, &QUIC_SERVERS);
    let mut no_configuration = of_server(0, 9);
    no_configuration[0] = 0xe1;
    let nobodys = [
        // A client has made it up, whatever its bytes are.
        initial(&of_server(0, 9)),
        // No server has that ID.
        short(&of_server(200, 9)),
        short(&no_configuration),
        // Too short for one, and not of QUIC at all.
        vec![0x41, 0x21],
        Vec::new(),
        b"\xffnonsense".to_vec(),
    ];
    let clients = farm.clients(nobodys.len());
    let places: Vec<_> = clients
        .iter()
        .zip(&nobodys)
        .map(|(client, bytes)| ask(client, bytes))
        .collect();
    assert_eq!(farm.shares(&places), [2, 2, 2]);
    // In a flow they change nothing.
    for bytes in &nobodys {
        assert_eq!(ask(&clients[1], bytes), places[1]);
    }
    assert_eq!(farm.count("flows_moved"), 0);
    farm.balancer.settle();
}

/// One that drains is still named by its clients; one that is down can't be.
#[test]
fn a_named_server_keeps_its_clients_while_it_is_there() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let lines = ["balance roundrobin", "quic-lb 1,2"];
    let agent = Agent::new("up\n");
    let watched = format!("quic-id 0002 {}", agent_words(&agent));
    let servers = [QUIC_SERVERS[0], &watched, QUIC_SERVERS[2]];
    let farm = Farm::start(2, &lines, &servers);
    farm.say(&agent, 1, "drain\n", "DRAIN");
    let fresh: Vec<_> = (0..8).map(|n| initial(&[n; 8])).collect();
    for bytes in &fresh {
        assert_ne!(ask(&farm.client(), bytes), 1, "no new ones");
    }
    assert_eq!(ask(&farm.client(), &short(&of_server(1, 3))), 1);
    farm.say(&agent, 1, "down\n", "DOWN");
    let client = farm.client();
    let place = ask(&client, &short(&of_server(1, 3)));
    assert_ne!(place, 1);
    assert_eq!(ask(&client, &short(&of_server(1, 3))), place);
    farm.balancer.settle();
}

#[test]
fn only_the_clients_of_a_server_that_goes_move_and_they_come_back() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    // Each question is a flow: what is tested is the choice.
    let lines = ["balance source", "hash-type consistent", "udp-responses 1"];
    let agent = Agent::new("up\n");
    let farm = Farm::start(2, &lines, &["", "", &agent_words(&agent), ""]);
    let clients: Vec<_> = (0..200).map(|n| farm.client_from(loopback(n))).collect();
    let before = places(&clients);
    let shares = farm.shares(&before);
    // A quarter each, and not more than twice that.
    assert!(shares.iter().all(|s| (10..100).contains(s)), "{shares:?}");
    farm.say(&agent, 2, "down\n", "DOWN");
    let without = places(&clients);
    for (before, without) in before.iter().zip(&without) {
        assert!(*without != 2 && (*before == 2 || before == without));
    }
    farm.say(&agent, 2, "up\n", "UP");
    assert_eq!(places(&clients), before);
    farm.balancer.settle();
}

#[test]
fn a_server_in_drain_keeps_its_flows_and_gets_no_new_ones() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let agent = Agent::new("up\n");
    let farm = Farm::start(1, &["balance roundrobin"], &[&agent_words(&agent), ""]);
    let clients = farm.clients(4);
    let first = places(&clients);
    assert_eq!(farm.shares(&first), [2, 2]);
    farm.say(&agent, 0, "drain\n", "DRAIN");
    let late = farm.clients(6);
    assert_eq!(places(&late), [1; 6]);
    assert_eq!(places(&clients), first);
    assert_eq!(
        (farm.of_server(0, "scur"), farm.count("flows_moved")),
        (2, 0)
    );
    farm.say(&agent, 0, "down\n", "DOWN");
    assert_eq!(places(&clients), [1; 4], "and now they go");
    assert_eq!(
        (farm.of_server(0, "scur"), farm.count("flows_moved")),
        (0, 2)
    );
    assert_eq!(farm.of_server(0, "wredis"), 2);
    farm.balancer.settle();
}

#[test]
fn a_server_that_is_marked_down_may_end_its_flows_at_once() {
    let _turn = turn::shared();
    if skip("it has no UDP") {
        return;
    }
    let syslog = Syslog::start();
    let checked = TcpListener::bind("127.0.0.1:0").unwrap();
    let check = checked.local_addr().unwrap().port();
    let words =
        format!("check port {check} inter 50ms fall 1 rise 1 on-marked-down shutdown-sessions");
    let log = format!("log {} local0", syslog.address());
    let lines = [log.as_str(), "option udplog", "balance roundrobin"];
    let lines = [&lines[..], &["timeout udp 3s"]].concat();
    let farm = Farm::start(1, &lines, &[&words, ""]);
    let clients = farm.clients(2);
    assert_eq!(places(&clients), [0, 1]);
    drop(checked);
    let line = syslog.wait_line("server-down");
    assert!(
        line.contains(&format!("{} [", clients[0].address())),
        "{line}"
    );
    assert!(line.contains(" u/s0 ") && line.contains(" D- "), "{line}");
    assert_eq!(farm.count("flows"), 1);
    assert_eq!(places(&clients), [1, 1]);
    assert_eq!(farm.count("flows_moved"), 0, "it is a new flow");
    farm.balancer.settle();
}
