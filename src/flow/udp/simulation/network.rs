//! The network and its servers: datagrams are lost, late, doubled, overtaken and forged.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::{Random, Settings};
use crate::base::time::Moment;

/// How late a reply may be after its request: within the quarantine, which is a second.
const LATE_MS: u64 = 950;

/// What is on its way.
#[derive(Clone, Copy, Debug)]
pub(super) enum Packet {
    Request {
        socket: u32,
        server: SocketAddr,
        client: u32,
    },
    Reply(ServerDatagram),
}

/// A datagram towards a socket of the pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct ServerDatagram {
    /// Which socket, counted from the first that was ever opened.
    pub(super) socket: u32,
    pub(super) from: SocketAddr,
    /// Whom it is for.
    pub(super) client: u32,
    pub(super) kind: Kind,
}

/// What has to become of a server's datagram.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// It answers.
    Answer,
    /// A server speaks first, while the mapping lives: it reaches the client if it can.
    First,
    /// A server speaks when the mapping has ended: it reaches nobody for whom it isn't.
    Late,
    /// Nobody whom the socket has spoken to: it reaches nobody.
    Forged,
}

/// Who has written to a server, and when that left.
#[derive(Clone, Copy, Debug)]
struct Heard {
    socket: u32,
    server: SocketAddr,
    client: u32,
    at: Moment,
}

#[derive(Debug, Default)]
pub(super) struct Network {
    packets: BTreeMap<(Moment, u64), Packet>,
    sent: u64,
    heard: Vec<Heard>,
}

impl Network {
    /// What arrives next, and when; nothing if that is later than `now`.
    pub(super) fn next_due(&mut self, now: Moment) -> Option<(Moment, Packet)> {
        let entry = self.packets.first_entry()?;
        let at = entry.key().0;
        (at <= now).then(|| (at, entry.remove()))
    }

    /// A datagram of a client leaves the balancer.
    pub(super) fn send(
        &mut self,
        random: &mut Random,
        now: Moment,
        socket: u32,
        server: SocketAddr,
        client: u32,
    ) {
        let heard = Heard {
            socket,
            server,
            client,
            at: now,
        };
        self.heard.push(heard);
        if self.heard.len() > 300 {
            self.heard.remove(random.below(300) as usize);
        }
        if !random.once_in(20) {
            self.put(
                now,
                Packet::Request {
                    socket,
                    server,
                    client,
                },
            );
        }
    }

    /// A server has a request, and answers it in some way. It came at once: all that is late is in
    /// the answer.
    pub(super) fn serve(
        &mut self,
        settings: &Settings,
        random: &mut Random,
        now: Moment,
        (socket, server, client): (u32, SocketAddr, u32),
    ) {
        let answers = match client >= 1_000 {
            true => random.below(4) / 3,
            false => random.one_of(&[0, 1, 1, 1, 2, 3]),
        };
        for _ in 0..answers {
            let usual_ms = LATE_MS.min(settings.step_ms + 1);
            let within_ms = random.one_of(&[usual_ms, usual_ms, LATE_MS]);
            let reply = ServerDatagram {
                socket,
                from: server,
                client,
                kind: Kind::Answer,
            };
            self.put(now.after_ms(random.below(within_ms)), Packet::Reply(reply));
        }
        if random.once_in(4) {
            let mut from = server;
            match random.below(3) {
                0 => from.set_port(server.port() ^ 1),
                1 => from.set_ip("198.51.100.9".parse().expect("an address")),
                _ => from.set_ip("::1".parse().expect("an address")),
            }
            let forged = ServerDatagram {
                socket,
                from,
                client,
                kind: Kind::Forged,
            };
            self.put(now, Packet::Reply(forged));
        }
    }

    /// Servers remember who wrote, and write by themselves.
    pub(super) fn servers_speak_first(
        &mut self,
        settings: &Settings,
        random: &mut Random,
        now: Moment,
    ) {
        if self.heard.is_empty() || !random.once_in(3) {
            return;
        }
        let index = random.below(self.heard.len() as u64) as usize;
        let heard = self.heard[index];
        let age_ms = now.ms_since(heard.at);
        let kind = match settings.mapping_ms {
            Some(mapping_ms) if age_ms < u64::from(mapping_ms) => Kind::First,
            _ if age_ms < LATE_MS => return,
            _ => Kind::Late,
        };
        if kind == Kind::Late {
            self.heard.swap_remove(index);
        }
        let reply = ServerDatagram {
            socket: heard.socket,
            from: heard.server,
            client: heard.client,
            kind,
        };
        self.put(now, Packet::Reply(reply));
    }

    fn put(&mut self, at: Moment, packet: Packet) {
        self.sent += 1;
        self.packets.insert((at, self.sent), packet);
    }
}
