//! How bytes, ends and resets travel from one end of a connection to the other.

use std::net::SocketAddr;

use super::super::socket::{Read, SocketId};
use super::{Event, Network, Notice};

impl Network {
    /// Reads from a socket.
    pub fn read(&mut self, id: SocketId, length: usize) -> Read {
        let read = self.socket(id).read(length);
        if let (Read::Bytes(_), Some(peer)) = (&read, self.at(id).peer) {
            self.start_delivery(peer);
        }
        read
    }

    /// Looks at what a socket has received.
    pub(in super::super) fn peek(&mut self, id: SocketId, length: usize) -> Read {
        self.socket(id).peek(length)
    }

    /// What the owner of a socket has sent so far doesn't count: it is for the shard itself.
    pub fn forget_sent(&mut self, id: SocketId) {
        self.socket(id).sent = 0;
    }

    /// Sends on a socket; the count may be short.
    pub fn write(&mut self, id: SocketId, parts: &[&[u8]]) -> Result<usize, i32> {
        let mut most = usize::MAX;
        let short = self.settings.send_short;
        if !self.at(id).scripted && self.random.chance(short) {
            // Memory is short: the kernel takes a part, or nothing, and tells when it may take
            // more.
            most = self.random.pick(&[0, 1, 100, 4096]);
            let soon = self.random.between(1, 3_000);
            self.schedule(soon, Event::Space(id));
            let socket = self.at(id);
            if most == 0 && socket.error == 0 && !socket.dead && self.random.chance(500) {
                return Err(self.random.pick(&[libc::ENOBUFS, libc::ENOMEM]));
            }
        }
        let written = self.socket(id).write(parts, most);
        if written.is_ok() {
            self.start_delivery(id);
        }
        written
    }

    /// Sends a FIN after what was sent.
    pub fn finish(&mut self, id: SocketId) -> Result<(), i32> {
        let socket = self.socket(id);
        if socket.dead || socket.connecting {
            return Err(libc::ENOTCONN);
        }
        socket.finished = true;
        self.start_delivery(id);
        Ok(())
    }

    /// Closes a socket: by a FIN, or by a reset if that is asked for or bytes are unread
    /// (tcp_close).
    pub fn close(&mut self, id: SocketId, reset: bool) {
        let socket = self.socket(id);
        assert!(socket.open, "closed twice");
        socket.open = false;
        if socket.dead {
            return;
        }
        if socket.connecting {
            socket.dead = true;
            socket.connecting = false;
            return;
        }
        if !reset && socket.incoming.is_empty() {
            socket.finished = true;
            return self.start_delivery(id);
        }
        self.note(|| format!("{id:?} resets"));
        // Of what it has sent, some may be on its way already.
        let under_way = self.at(id).outgoing.len();
        let count = self.random.place(under_way + 1);
        self.socket(id).outgoing.truncate(count);
        self.deliver_bytes(id, count);
        let socket = self.socket(id);
        socket.dead = true;
        socket.outgoing.clear();
        if let Some(peer) = socket.peer {
            let latency = self.latency();
            self.schedule(latency, Event::Reset(peer));
        }
    }

    /// Bytes that were sent and have not arrived, a FIN counting as one.
    pub fn unacknowledged(&self, id: SocketId) -> usize {
        let socket = self.at(id);
        socket.outgoing.len() + usize::from(socket.finished && !socket.finish_arrived)
    }

    /// The pending error of a socket.
    pub(in super::super) fn take_error(&mut self, id: SocketId) -> Option<i32> {
        self.socket(id).take_error()
    }

    /// Bytes that a socket's queue has room for.
    pub fn room(&self, id: SocketId) -> u64 {
        self.at(id).room() as u64
    }

    /// Bytes that the owner of a socket has sent.
    pub fn sent(&self, id: SocketId) -> u64 {
        self.at(id).sent
    }

    /// The other end of a connection.
    pub fn peer(&self, id: SocketId) -> Option<SocketId> {
        self.at(id).peer
    }

    /// A session of a shard has these two sockets.
    pub(in super::super) fn link(&mut self, client: SocketId, server: SocketId) {
        self.links.insert(client, server);
        self.links.insert(server, client);
    }

    /// The shard's other socket of a session.
    pub fn linked(&self, id: SocketId) -> Option<SocketId> {
        self.links.get(&id).copied()
    }

    /// The scripted peer at the far end of the session that a scripted peer is at the near end of.
    pub fn counterpart(&self, id: SocketId) -> Option<SocketId> {
        self.peer(self.linked(self.peer(id)?)?)
    }

    /// Whether the owner of a socket has ended its stream properly, after all that it has sent.
    pub fn finished(&self, id: SocketId) -> bool {
        self.at(id).finished
    }

    /// Whether the peer's FIN has arrived at a socket.
    pub fn end_received(&self, id: SocketId) -> bool {
        self.at(id).end_received
    }

    /// Whether a connect has succeeded and the socket has not been reset.
    pub fn alive(&self, id: SocketId) -> bool {
        !self.at(id).connecting && !self.at(id).dead
    }

    /// The addresses of a socket: its own and the other end's.
    pub fn addresses(&self, id: SocketId) -> [SocketAddr; 2] {
        [self.at(id).local, self.at(id).remote]
    }

    pub(super) fn start_delivery(&mut self, id: SocketId) {
        let socket = self.socket(id);
        let pending = !socket.outgoing.is_empty() || (socket.finished && !socket.finish_arrived);
        if socket.delivering || socket.dead || !pending || socket.peer.is_none() {
            return;
        }
        socket.delivering = true;
        let latency = self.latency();
        self.schedule(latency, Event::Deliver(id));
    }

    pub(super) fn deliver(&mut self, id: SocketId) {
        self.socket(id).delivering = false;
        let socket = self.at(id);
        let Some(peer) = socket.peer.filter(|_| !socket.dead) else {
            return;
        };
        if !socket.outgoing.is_empty() && !self.at(peer).open && !self.at(peer).dead {
            // Data for a socket that its owner has closed: a reset comes back, and what that socket
            // had still to send is lost (tcp_rcv_state_process).
            self.note(|| format!("{id:?} sends to {peer:?}, which is closed"));
            self.socket(peer).kill(0);
            let latency = self.latency();
            return self.schedule(latency, Event::Reset(id));
        }
        if self.at(peer).dead {
            return;
        }
        let before = self.at(id).outgoing.len();
        let count = if self.random.chance(300) {
            1 + self.random.place(before.max(1))
        } else {
            before
        };
        self.deliver_bytes(id, count);
        self.tell_of_space(id);
        if self.at(id).outgoing.is_empty() {
            // The FIN travels with the last bytes, or after them.
            if self.at(id).finished && (before == 0 || self.random.chance(500)) {
                self.socket(id).finish_arrived = true;
                let peer_socket = self.socket(peer);
                peer_socket.end_received = true;
                peer_socket.wakes += 1;
                self.tell(peer);
            }
            self.start_delivery(id);
        } else if self.at(peer).incoming.len() < self.at(peer).incoming_max {
            self.start_delivery(id);
        }
    }

    pub(super) fn deliver_bytes(&mut self, id: SocketId, count: usize) {
        let Some(peer) = self.at(id).peer else {
            return;
        };
        if self.at(peer).dead || !self.at(peer).open || count == 0 {
            return;
        }
        let to = self.at(peer);
        let room = to.incoming_max.saturating_sub(to.incoming.len());
        let count = count.min(room).min(self.at(id).outgoing.len());
        let bytes: Vec<u8> = self.socket(id).outgoing.drain(..count).collect();
        self.socket(peer).incoming.extend(bytes);
        if count > 0 {
            self.socket(peer).arrivals += 1;
            self.tell(peer);
        }
    }

    /// Wakes the polls of a socket that was full and has room now (sk_stream_write_space).
    pub(super) fn tell_of_space(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.wants_space && socket.writable() {
            socket.wants_space = false;
            socket.wakes += 1;
            self.tell(id);
        }
    }

    pub(super) fn space(&mut self, id: SocketId) {
        if !self.at(id).dead {
            self.socket(id).wants_space = true;
            self.tell_of_space(id);
        }
    }

    pub(super) fn reset_arrives(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.dead {
            return;
        }
        // tcp_reset: a connection that had its end already breaks as a pipe does.
        let error = match (socket.open, socket.end_received) {
            (false, _) => 0,
            (true, true) => libc::EPIPE,
            (true, false) => libc::ECONNRESET,
        };
        socket.kill(error);
        self.note(|| format!("{id:?} is reset"));
        self.tell(id);
    }

    /// Tells a scripted owner that something happened.
    pub(super) fn tell(&mut self, id: SocketId) {
        let socket = self.socket(id);
        if socket.scripted && socket.open && !socket.told {
            socket.told = true;
            self.schedule(0, Event::Tell(Notice::Activity(id)));
        }
    }
}
