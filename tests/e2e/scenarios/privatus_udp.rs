//! `conf/privatus-udp.cfg` and the deployment's own text for HAProxy: connections and datagrams of
//! one file, nodes of a DHT behind one port.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use super::{Scenario, named};
use crate::spread::{count_idle, sorted};
use crate::support::client::{self, local};
use crate::support::datagram::{Arrival, DatagramClient, DatagramServer};
use crate::support::{MockServer, eventually, skip, turn};

const OURS: &str = "mode udp is Tidegate's own";

/// A node: answers pings as the DHT does, and everything else with its name.
fn node(name: &str) -> DatagramServer {
    let name = name.as_bytes().to_vec();
    DatagramServer::start(move |arrival: &Arrival| {
        let bytes = &arrival.bytes;
        if memchr::memmem::find(bytes, b"4:ping").is_none() {
            return vec![name.clone()];
        }
        // The transaction of the question: `1:t2:xx`, whatever its length.
        let begin = memchr::memmem::find(bytes, b"1:t").expect("a transaction") + 3;
        let digit = usize::from(bytes[begin] - b'0');
        let transaction = &bytes[begin..begin + 2 + digit];
        let head = &b"d1:rd2:id20:abcdefghij0123456789e1:t"[..];
        vec![[head, transaction, b"1:y1:re"].concat()]
    })
}

/// Clients of a port, each on an address of its own.
fn clients(port: u16, count: u8) -> Vec<DatagramClient> {
    let client = |number: u8| {
        let own = SocketAddr::from((Ipv4Addr::new(127, 0, 5, number + 1), 0));
        DatagramClient::from(own, local(port), number.into())
    };
    (0..count).map(client).collect()
}

fn ask(client: &DatagramClient) -> String {
    client.send(b"who?");
    String::from_utf8(client.receive()).expect("a name")
}

fn ask_all(clients: &[DatagramClient]) -> Vec<String> {
    clients.iter().map(ask).collect()
}

/// Three nodes of each kind, those for streams first.
fn nodes() -> (Vec<MockServer>, Vec<DatagramServer>, Vec<SocketAddr>) {
    let (streams, mut addresses) = named(3);
    let datagrams: Vec<_> = ["u1", "u2", "u3"].map(node).into();
    addresses.extend(datagrams.iter().map(DatagramServer::address));
    (streams, datagrams, addresses)
}

/// A node dies and comes back: its clients move, a third of all, and nobody else's.
#[test]
fn privatus_moves_the_clients_of_a_node_that_dies_and_no_others() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (_streams, mut nodes, addresses) = nodes();
    // Half a minute is too long to wait for a check, and a minute for the end of the flows.
    let sooner = |text: String| {
        let sooner = text.replace("inter 10s", "inter 200ms");
        sooner.replace("timeout udp 60s", "timeout udp 8s")
    };
    let privatus = Scenario::start_changed("privatus-udp.cfg", &addresses, sooner);
    let (backend, dead) = ("privatus_dht_backend", "app2");
    for server in ["app1", "app2", "app3"] {
        privatus.wait_status(backend, server, "UP");
        privatus.wait_status("privatus_backend", server, "UP");
    }
    let port = privatus.ports["privatus_dht_frontend"];
    let streams = privatus.ports["privatus_frontend"];
    let counts = count_idle(&privatus.balancer, "privatus_backend", streams, 30);
    assert_eq!(sorted(&counts), [10, 10, 10]);
    let clients = clients(port, 120);
    let before = ask_all(&clients);
    let its = before.iter().filter(|name| *name == "u2").count();
    // A third, give or take what a hash may.
    assert!((20..=60).contains(&its), "{its} of 120");
    nodes[1].stop();
    privatus.wait_status(backend, dead, "DOWN");
    let without = ask_all(&clients);
    for (before, without) in before.iter().zip(&without) {
        assert!(without != "u2" && (before == "u2" || before == without));
    }
    let activity = privatus.balancer.activity();
    assert_eq!(activity.number("flows_moved"), Some(its as u64));
    let stat = privatus.balancer.stat();
    assert_eq!(stat.number(backend, dead, "wredis"), its as u64);
    // It is back for the flows that begin after that.
    nodes[1].restart();
    privatus.wait_status(backend, dead, "UP");
    assert_eq!(ask_all(&clients), without, "flows stay where they are");
    privatus.balancer.settle();
    assert_eq!(ask_all(&clients), before);
    privatus.balancer.settle();
}

/// The file's own idle times are a minute: what is left of the flows at the end goes with them.
#[test]
fn privatus_serves_connections_and_datagrams_of_one_file() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (_streams, nodes, addresses) = nodes();
    let privatus = Scenario::start("privatus-udp.cfg", &addresses);
    let stream = privatus.ports["privatus_frontend"];
    let clients = clients(privatus.ports["privatus_dht_frontend"], 12);
    let first = ask_all(&clients);
    for _ in 0..3 {
        client::ask_name(local(stream)).expect("a node");
        assert_eq!(ask_all(&clients), first);
    }
    // A node speaks first, as nodes of a DHT do, from the port that the client knows.
    for client in &clients {
        let node = nodes.iter().zip(["u1", "u2", "u3"]);
        let (node, _) = node
            .into_iter()
            .find(|(_, name)| ask(client) == *name)
            .expect("a node");
        let question = node.arrivals().pop().expect("a question");
        let pair = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), question.from.port());
        node.speak(pair, b"and you?");
        assert_eq!(client.receive(), b"and you?");
    }
    let stat = privatus.balancer.stat();
    let flows = stat.number("privatus_dht_frontend", "FRONTEND", "scur");
    assert_eq!(flows, 12);
    assert_eq!(stat.number("privatus_frontend", "FRONTEND", "stot"), 3);
}

/// The deployment's own text, its names and ports replaced by the test's.
#[test]
fn the_privatus_text_for_haproxy_carries_both() {
    let _turn = turn::shared();
    if skip(OURS) {
        return;
    }
    let (_streams, _nodes, addresses) = nodes();
    let path = Path::new("..").join("tests/data/privatus.cfg");
    let complete = |text: String| {
        // It has no runtime socket, which a test can't do without, and its checks go to one port.
        let head = "global\n    stats socket /run/x.sock level admin\n";
        let text = text.replace("check port 8080", "check");
        format!("{head}{text}")
    };
    let privatus = Scenario::start_changed(path.to_str().unwrap(), &addresses, complete);
    let streams = privatus.ports["privatus_frontend"];
    let counts = count_idle(&privatus.balancer, "privatus_backend", streams, 30);
    assert_eq!(sorted(&counts), [10, 10, 10]);
    let clients = clients(privatus.ports["privatus_dht_frontend"], 30);
    let names = ask_all(&clients);
    let used: BTreeSet<_> = names.iter().collect();
    assert_eq!(used.len(), 3, "{names:?}");
    assert_eq!(ask_all(&clients), names);
    eventually("they are counted", || {
        let stat = privatus.balancer.stat();
        let of = |server| stat.number("privatus_dht_backend", server, "scur");
        ["app1", "app2", "app3"].map(of).iter().sum::<u64>() == 30
    });
    clients[0].expect_silence(Duration::from_millis(5));
}
