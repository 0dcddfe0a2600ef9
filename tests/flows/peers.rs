//! Clients and servers: what they send, and that each datagram can be told from all others.
//!
//! A datagram begins with its number, which is its place in the list of all that were sent, and the
//! rest follows from that. An empty one carries its client's number as its traffic class.

use std::net::{IpAddr, SocketAddr};

use super::Simulation;
use super::plan::ANSWER_MAX_US;
use tidegate::base::hash;
use tidegate::ring::scripted::Datagram;

/// Bytes of a number.
const NUMBER: usize = 8;

/// What happens at some time.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Send(usize),
    Answer(Answer),
    Change,
    Restore,
    There(SocketAddr, bool),
    Drain,
    Stop,
}

/// What a server is about to send.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) server: SocketAddr,
    /// From where it sends: seldom not from its own address.
    pub(crate) from: SocketAddr,
    /// Where what it answers came from.
    pub(crate) to: SocketAddr,
    pub(crate) client: usize,
    pub(crate) length: usize,
    pub(crate) class: u8,
    pub(crate) count: u64,
}

/// A client.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) address: SocketAddr,
    /// Whom it writes to.
    pub(crate) local: SocketAddr,
    pub(crate) proxy: usize,
    class: u8,
    /// How often it sends.
    left: u64,
}

/// A datagram that was sent.
#[derive(Debug)]
pub(crate) struct Known {
    pub(crate) client: usize,
    /// The server that sent it; `None` = the client did.
    pub(crate) server: Option<SocketAddr>,
    /// From an address that is nobody's.
    pub(crate) forged: bool,
    length: usize,
    class: u8,
}

/// All of them.
#[derive(Default, Debug)]
pub(crate) struct Peers {
    pub(crate) clients: Vec<Client>,
    known: Vec<Known>,
    pub(crate) actions: Vec<Action>,
    /// How many were sent, the empty ones too.
    pub(crate) requests: u64,
    pub(crate) answers: u64,
}

/// Which datagram it is: its number, or whose empty one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Which {
    Number(usize),
    Empty(usize),
}

impl Peers {
    /// Which datagram it is; everything of it is checked.
    pub(crate) fn which(&self, datagram: &Datagram) -> Which {
        let bytes = &datagram.bytes;
        if bytes.is_empty() {
            return Which::Empty(usize::from(datagram.traffic_class) - 1);
        }
        let number: &[u8; NUMBER] = bytes.first_chunk().expect("a number");
        let number = usize::try_from(u64::from_be_bytes(*number)).expect("a number");
        let known = &self.known[number];
        assert!(*bytes == content(number, known.length), "wrong bytes");
        assert_eq!(datagram.traffic_class, known.class, "traffic class");
        Which::Number(number)
    }

    /// Whose it is, or for whom.
    pub(crate) fn client_of(&self, which: Which) -> usize {
        match which {
            Which::Number(number) => self.known[number].client,
            Which::Empty(client) => client,
        }
    }

    /// What is known of it beside that.
    pub(crate) fn known(&self, which: Which) -> Option<&Known> {
        match which {
            Which::Number(number) => Some(&self.known[number]),
            Which::Empty(_) => None,
        }
    }

    fn make(&mut self, known: Known) -> Vec<u8> {
        let bytes = content(self.known.len(), known.length);
        match known.server {
            None => self.requests += 1,
            Some(_) => self.answers += 1,
        }
        if known.length > 0 {
            self.known.push(known);
        }
        bytes
    }
}

/// The bytes of a datagram.
fn content(number: usize, length: usize) -> Vec<u8> {
    let [filler, ..] = hash::mix(number as u64).to_le_bytes();
    let mut bytes = vec![filler; length];
    if let Some(begin) = bytes.first_chunk_mut::<NUMBER>() {
        *begin = (number as u64).to_be_bytes();
    }
    bytes
}

impl Simulation {
    /// Everybody is there, and what is to happen has its time.
    pub(super) fn begin(&mut self) {
        for proxy in self.scenario.proxies.clone() {
            for server in proxy.servers {
                self.works.network.borrow_mut().datagram_peer(server, true);
            }
        }
        for number in 0..self.scenario.clients + self.scenario.forged {
            self.add_client(number);
        }
        for us in self.scenario.admin_us.clone() {
            self.at(us, Action::Change);
        }
        if let Some(us) = self.scenario.admin_us.iter().max().copied() {
            self.at(us + 2_000_000, Action::Restore);
        }
        for us in self.scenario.ends_us.clone() {
            let place = self.works.random.place(self.scenario.proxies.len());
            let servers = self.scenario.proxies[place].servers.clone();
            let server = self.works.random.pick(&servers);
            self.at(us, Action::There(server, false));
            let later = us + self.works.random.below(8_000_000);
            self.at(later, Action::There(server, true));
        }
        if let Some(us) = self.scenario.drain_us {
            self.at(us, Action::Drain);
        }
        if let Some(us) = self.scenario.stop_us {
            self.at(us, Action::Stop);
        }
    }

    fn at(&mut self, us: u64, action: Action) {
        let number = u32::try_from(self.peers.actions.len()).expect("few");
        self.peers.actions.push(action);
        self.works.network.borrow_mut().timer(us, number);
    }

    fn add_client(&mut self, number: u32) {
        let forged = number >= self.scenario.clients;
        let proxy = self.works.random.place(self.scenario.proxies.len());
        let bind = {
            let binds = &self.scenario.proxies[proxy].binds;
            self.works.random.pick(binds)
        };
        let low = u8::try_from(number).expect("few");
        // Some share an address.
        let host = if self.works.random.chance(300) {
            1
        } else {
            low
        };
        let v4 = |host: u8| IpAddr::from([192, 0, 2, host]);
        let v6 = |host: u8| IpAddr::from([0xfd00, 1, 0, 0, 0, 0, 0, host.into()]);
        let (own, local) = if !bind.ip().is_unspecified() {
            (v4(host), bind.ip())
        } else if bind.is_ipv6() && self.works.random.chance(500) {
            let to = self.works.random.pick(&[1, 2]);
            (v6(host), IpAddr::from([0xfd00, 2, 0, 0, 0, 0, 0, to]))
        } else {
            let to = self.works.random.pick(&[1, 2]);
            (v4(host), IpAddr::from([10, 0, 1, to]))
        };
        let address = SocketAddr::new(own, 1_000 + u16::from(low));
        self.works.network.borrow_mut().datagram_peer(address, true);
        self.peers.clients.push(Client {
            address,
            local: SocketAddr::new(local, bind.port()),
            proxy,
            class: low + 1,
            left: if forged {
                1
            } else {
                self.works.random.between(1, 20)
            },
        });
        let us = self.works.random.below(self.scenario.arrivals_us + 1);
        self.at(us, Action::Send(number as usize));
    }

    fn length(&mut self) -> usize {
        match self.works.random.chance(self.scenario.empty) {
            true => 0,
            false => {
                let place = self.works.random.place(self.scenario.lengths.len());
                self.scenario.lengths[place].max(NUMBER)
            }
        }
    }

    /// A client sends some datagrams, goes, and perhaps comes again.
    pub(super) fn client_sends(&mut self, number: usize) {
        let burst = match self.works.random.below(4) {
            0 => self.works.random.between(1, 20),
            _ => self.works.random.between(1, 3),
        };
        let mut length = self.length();
        let mut class = self.peers.clients[number].class;
        for _ in 0..burst {
            if self.works.random.chance(200) {
                length = self.length();
            }
            if self.works.random.chance(50) {
                class = u8::try_from(self.works.random.below(256)).expect("a byte");
            }
            let client = &self.peers.clients[number];
            let (from, to, own) = (client.address, client.local, client.class);
            let traffic_class = if length == 0 { own } else { class };
            let bytes = self.peers.make(Known {
                client: number,
                server: None,
                forged: false,
                length,
                class: traffic_class,
            });
            self.works.network.borrow_mut().send_datagram(Datagram {
                from,
                to,
                traffic_class,
                bytes,
            });
        }
        let client = &mut self.peers.clients[number];
        client.left -= 1;
        if client.left > 0 {
            let most = self
                .works
                .random
                .pick(&[0, 1_000, 200_000, 500_000, 2_000_000, 10_000_000]);
            let us = self.works.random.below(most + 1);
            self.at(us, Action::Send(number));
        } else if self.works.random.chance(300) {
            let address = client.address;
            self.at(2_000, Action::There(address, false));
        }
    }

    /// Something has come to a client, or to a server.
    pub(super) fn arrive(&mut self, datagram: Datagram) {
        let which = self.peers.which(&datagram);
        let mut clients = self.peers.clients.iter();
        if clients.any(|client| client.address == datagram.to) {
            return;
        }
        let number = self.peers.client_of(which);
        let client = &self.peers.clients[number];
        let (proxy, class) = (client.proxy, client.class);
        assert!(
            self.scenario.leads_to(proxy, datagram.to),
            "a wrong place: {datagram:?}"
        );
        let times = match self.works.random.below(8) {
            0 => 0,
            1 => 2,
            2 => 3,
            _ => 1,
        };
        for _ in 0..times {
            let mut us = match self.works.random.below(4) {
                0 => self.works.random.below(ANSWER_MAX_US),
                1 => self.works.random.below(1_000),
                _ => 0,
            };
            // It speaks first, as long as it may.
            let mapping_ms = self.scenario.proxies[proxy].mapping_ms;
            if let Some(ms) = mapping_ms.filter(|_| self.works.random.chance(200)) {
                us = self.works.random.below((ms - 1_000) * 1_000);
            }
            let mut from = datagram.to;
            if !self.scenario.clean && self.works.random.chance(30) {
                from.set_port(54);
            }
            let length = self.length();
            let class = match length {
                0 => class,
                _ => datagram.traffic_class,
            };
            let answer = Answer {
                server: datagram.to,
                from,
                to: datagram.from,
                client: number,
                length,
                class,
                count: self.works.random.pick(&[1, 1, 1, 2, 10]),
            };
            match us {
                0 => self.server_sends(answer),
                _ => self.at(us, Action::Answer(answer)),
            }
        }
    }

    pub(super) fn server_sends(&mut self, answer: Answer) {
        for _ in 0..answer.count {
            let bytes = self.peers.make(Known {
                client: answer.client,
                server: Some(answer.server),
                forged: answer.from != answer.server,
                length: answer.length,
                class: answer.class,
            });
            self.works.network.borrow_mut().send_datagram(Datagram {
                from: answer.from,
                to: answer.to,
                traffic_class: answer.class,
                bytes,
            });
        }
    }
}
