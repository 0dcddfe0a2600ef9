//! What passes the sockets of shards: each datagram leaves at most once for each time it has come,
//! in its order, unchanged, and towards nobody but whom it is for.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;

use super::peers::{Peers, Which};
use super::plan::Scenario;
use tidegate::ring::scripted::{Datagram, Passed, Way};

/// What has passed a shard.
#[derive(Clone, Default, Debug)]
pub(crate) struct Seen {
    pub(crate) from_clients: u64,
    pub(crate) from_servers: u64,
    pub(crate) to_servers: u64,
    pub(crate) to_clients: u64,
    pub(crate) bytes_to_servers: u64,
    pub(crate) bytes_to_clients: u64,
    /// Told to have been too large for their path, after they had left.
    pub(crate) told_too_large: u64,
}

/// A socket of a pool, and a server.
type Pair = (SocketAddr, SocketAddr);

/// Everything that has passed.
#[derive(Default, Debug)]
pub(crate) struct Watch {
    seen: HashMap<usize, Seen>,
    /// What came of clients, by shard and client, and may still leave.
    requests: HashMap<(usize, usize), VecDeque<Which>>,
    /// What came of servers, by shard and pair.
    replies: HashMap<(usize, Pair), VecDeque<Which>>,
    /// By which pair a datagram of a server has come.
    came_by: HashMap<usize, Pair>,
    /// Whose datagrams went last from a socket to a server.
    owners: HashMap<Pair, usize>,
}

impl Watch {
    /// What has passed a shard so far.
    pub(crate) fn seen(&self, shard: usize) -> Seen {
        self.seen.get(&shard).cloned().unwrap_or_default()
    }

    /// A shard has been told of so many datagrams that the path was too narrow for them.
    pub(crate) fn told_too_large(&mut self, shard: usize, datagrams: u64) {
        self.seen.entry(shard).or_default().told_too_large += datagrams;
    }

    /// Looks at what has passed a shard in a turn.
    pub(crate) fn look(
        &mut self,
        shard: usize,
        passed: Vec<Passed>,
        peers: &Peers,
        scenario: &Scenario,
    ) {
        // Refused as too large, though that was meant for another one.
        let mut wronged = Vec::new();
        for Passed {
            listens,
            way,
            datagram,
        } in passed
        {
            let which = peers.which(&datagram);
            wronged.retain(|other| *other != which);
            let fits = datagram.bytes.len() <= scenario.datagrams.unfragmented_max;
            if way == Way::Out(Err(libc::EMSGSIZE)) && fits {
                wronged.push(which);
            }
            let seen = self.seen.entry(shard).or_default();
            let length = datagram.bytes.len() as u64;
            match (listens, way) {
                (true, Way::In { truncated }) => {
                    seen.from_clients += 1;
                    let client = peers.client_of(which);
                    if !truncated {
                        let queue = self.requests.entry((shard, client));
                        queue.or_default().push_back(which);
                    }
                }
                (false, Way::In { truncated }) => {
                    seen.from_servers += 1;
                    let pair = (datagram.to, datagram.from);
                    if let Which::Number(number) = which {
                        self.came_by.insert(number, pair);
                    }
                    if !truncated {
                        let queue = self.replies.entry((shard, pair));
                        queue.or_default().push_back(which);
                    }
                }
                (false, Way::Out(result)) => {
                    seen.to_servers += u64::from(result.is_ok());
                    seen.bytes_to_servers += if result.is_ok() { length } else { 0 };
                    self.request_leaves(shard, which, &datagram, result.is_ok(), peers, scenario);
                }
                (true, Way::Out(result)) => {
                    seen.to_clients += u64::from(result.is_ok());
                    seen.bytes_to_clients += if result.is_ok() { length } else { 0 };
                    self.reply_leaves(shard, which, &datagram, result.is_ok(), peers, scenario);
                }
            }
        }
        assert!(wronged.is_empty(), "not tried again: {wronged:?}");
    }

    fn request_leaves(
        &mut self,
        shard: usize,
        which: Which,
        datagram: &Datagram,
        is_sent: bool,
        peers: &Peers,
        scenario: &Scenario,
    ) {
        let number = peers.client_of(which);
        let known = peers.known(which);
        assert!(
            known.is_none_or(|known| known.server.is_none()),
            "an answer goes to a server: {datagram:?}"
        );
        let proxy = peers.clients[number].proxy;
        assert!(
            scenario.leads_to(proxy, datagram.to),
            "a wrong place: {datagram:?}"
        );
        self.owners.insert((datagram.from, datagram.to), number);
        let queue = self.requests.entry((shard, number)).or_default();
        leaves(queue, which, is_sent);
    }

    fn reply_leaves(
        &mut self,
        shard: usize,
        which: Which,
        datagram: &Datagram,
        is_sent: bool,
        peers: &Peers,
        scenario: &Scenario,
    ) {
        let mut clients = peers.clients.iter();
        let to = clients.position(|client| client.address == datagram.to);
        let to = to.unwrap_or_else(|| panic!("to nobody: {datagram:?}"));
        let local = peers.clients[to].local;
        assert_eq!(datagram.from, local, "from another address");
        if let Some(known) = peers.known(which) {
            assert!(known.server.is_some(), "a request goes back: {datagram:?}");
            assert!(!known.forged, "of nobody: {datagram:?}");
        }
        let pair = match which {
            Which::Number(number) => self.came_by[&number],
            // One that the client may get; which of them can't be told.
            Which::Empty(_) => {
                let mut streams = self.replies.iter();
                let found = streams.find(|((of, pair), queue)| {
                    *of == shard && self.owners.get(pair) == Some(&to) && queue.contains(&which)
                });
                let ((_, pair), _) = found.unwrap_or_else(|| panic!("from nowhere: {datagram:?}"));
                *pair
            }
        };
        assert_eq!(self.owners.get(&pair), Some(&to), "of another's pair");
        let due = peers.client_of(which);
        let kept = scenario.proxies[peers.clients[due].proxy]
            .mapping_ms
            .is_some();
        assert!(
            due == to || !(scenario.rests || kept),
            "client {to} gets what is for {due}: {datagram:?}"
        );
        let queue = self.replies.get_mut(&(shard, pair)).expect("it came");
        if let (Which::Empty(_), true) = (which, is_sent) {
            let place = queue.iter().position(|other| *other == which);
            queue.remove(place.expect("just found"));
        } else {
            leaves(queue, which, is_sent);
        }
    }
}

/// A datagram leaves, or is tried in vain: it has come, and what came before it can't follow.
fn leaves(queue: &mut VecDeque<Which>, which: Which, is_sent: bool) {
    let place = queue.iter().position(|other| *other == which);
    let place = place.unwrap_or_else(|| panic!("{which:?} leaves twice, or too late"));
    if is_sent {
        queue.drain(..=place);
    }
}
