//! How connections come about in the network: clients that connect to listeners, shards to servers.

use std::net::SocketAddr;

use super::super::socket::SocketId;
use super::{Event, Listener, Network, Notice, Target};

impl Network {
    /// A scripted client connects to a listener. Gives its end of the connection.
    pub fn connect_client(&mut self, to: SocketAddr) -> SocketId {
        self.clients_made += 1;
        let [a, b, c, d] = (0xc0a8_0000 + self.clients_made).to_be_bytes();
        let from = SocketAddr::from(([a, b, c, d], 40_000));
        let client = self.make_socket(from, to);
        self.socket(client).scripted = true;
        self.socket(client).connecting = true;
        let latency = self.latency();
        self.schedule(latency, Event::Arrive(client));
        client
    }

    pub(super) fn arrive(&mut self, client: SocketId) {
        if !self.at(client).connecting {
            return;
        }
        let (from, to) = (self.at(client).local, self.at(client).remote);
        let listens = |listener: &Listener| listener.open && listener.address == to;
        let group: Vec<usize> = (0..self.listeners.len())
            .filter(|index| listens(&self.listeners[*index]))
            .collect();
        if group.is_empty() {
            self.note(|| format!("{client:?} finds nobody listening"));
            self.socket(client).kill(libc::ECONNREFUSED);
            return self.tell(client);
        }
        let index = self.random.pick(&group);
        if self.listeners[index].queue.len() >= self.settings.backlog {
            // The SYN is dropped and sent again a second later.
            return self.schedule(1_000_000, Event::Arrive(client));
        }
        let accepted = self.make_socket(to, from);
        self.socket(accepted).peer = Some(client);
        self.socket(client).peer = Some(accepted);
        self.socket(client).connecting = false;
        self.listeners[index].queue.push_back(accepted);
        self.tell(client);
    }

    /// A shard connects to a server, from a port that it names or one of the system's choice.
    pub(in super::super) fn connect(
        &mut self,
        to: SocketAddr,
        port: Option<u16>,
    ) -> Result<(i32, bool), i32> {
        let settings = self.settings.clone();
        if let Some(port) = port {
            // Somebody else's, or in TIME_WAIT; those of its own connections a shard knows.
            let own = self.connects_from(port, to);
            assert!(!own, "port {port} is taken for two connections to {to}");
            if self.random.chance(settings.port_taken) {
                return Err(self.random.pick(&[libc::EADDRINUSE, libc::EADDRNOTAVAIL]));
            }
        }
        if self.random.chance(settings.connect_error) {
            let errors = [libc::EMFILE, libc::EADDRNOTAVAIL, libc::ENETUNREACH];
            return Err(self.random.pick(&errors));
        }
        let from = SocketAddr::from(([10, 9, 9, 9], port.unwrap_or(1)));
        let id = self.make_socket(from, to);
        let Some(fd) = self.open_descriptor(Target::Stream(id)) else {
            return Err(libc::EMFILE);
        };
        self.note(|| format!("connecting {id:?} as {fd} to {to}"));
        self.socket(id).connecting = true;
        self.socket(id).connects = true;
        let immediate = self.random.chance(settings.connect_immediate);
        if immediate {
            let notice = self.connect_done(id);
            self.schedule(0, Event::Tell(notice));
            return Ok((fd, true));
        }
        let latency = self.latency();
        if self.random.chance(settings.connect_never) {
            // The kernel itself gives up after about 127 seconds (tcp(7), tcp_syn_retries).
            self.schedule(127_000_000, Event::ConnectFailed(id, libc::ETIMEDOUT));
        } else if self.random.chance(settings.connect_refused) {
            let error = self.random.pick(&[libc::ECONNREFUSED, libc::EHOSTUNREACH]);
            self.schedule(latency, Event::ConnectFailed(id, error));
        } else {
            self.schedule(latency, Event::ConnectDone(id));
        }
        Ok((fd, false))
    }

    pub(super) fn connect_done(&mut self, id: SocketId) -> Notice {
        if !self.at(id).connecting {
            return Notice::Nothing;
        }
        let (local, remote) = (self.at(id).local, self.at(id).remote);
        let server = self.make_socket(remote, local);
        self.socket(server).scripted = true;
        self.socket(server).peer = Some(id);
        let socket = self.socket(id);
        socket.peer = Some(server);
        socket.connecting = false;
        socket.wakes += 1;
        self.note(|| format!("{id:?} is connected with {server:?}"));
        Notice::Connected(server)
    }

    pub(super) fn connect_failed(&mut self, id: SocketId, error: i32) {
        if self.at(id).connecting {
            self.note(|| format!("connect of {id:?} fails with {error}"));
            self.socket(id).kill(error);
        }
    }
}
