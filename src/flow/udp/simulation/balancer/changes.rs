//! What happens beside the datagrams: servers and sockets that come and go, time, the end.

use std::net::SocketAddr;

use super::model::Owner;
use super::{Balancer, key_of};
use crate::base::time::Moment;
use crate::flow::udp::simulation::{Random, Summary};
use crate::flow::udp::{FlowId, Reason};

impl Balancer {
    /// Servers go down, come back, are removed and added; sockets are lost.
    pub(in super::super) fn change_something(&mut self, random: &mut Random, now: Moment) {
        let index = random.below(self.upstreams.len() as u64) as u32;
        let upstream = &mut self.upstreams[index as usize];
        match random.below(120) {
            0 => upstream.up = !upstream.up,
            1 => {
                upstream.up = false;
                self.end_all_of(index, now);
            }
            2 if upstream.present => {
                upstream.present = false;
                self.removed.insert(upstream.address);
                self.pool.remove_upstream(index);
                self.summary.removed += 1;
                self.end_all_of(index, now);
            }
            3 | 4 if !upstream.present => {
                upstream.present = true;
                if index > 1 && random.once_in(2) {
                    upstream
                        .address
                        .set_port(7_000 + 2 * random.below(3) as u16);
                }
                let address = upstream.address;
                assert!(self.pool.add_upstream(index, address, now));
            }
            5 if !self.sockets.is_empty() => {
                let socket = random.below(self.settings.pool.sockets_max.into()) as u16;
                let mut slots = Vec::new();
                self.pool.lose_socket(socket, &mut slots);
                self.forget_socket(socket);
                self.summary.lost += u64::from(!slots.is_empty());
                for slot in slots {
                    let id = self.table.id_at(slot).expect("a pair names a live flow");
                    self.close(id, Reason::SocketLost, now);
                }
            }
            _ => self.upstreams.iter_mut().for_each(|server| {
                if !server.up && random.once_in(200) {
                    server.up = true;
                }
            }),
        }
    }

    pub(in super::super) fn end_turn(&mut self, now: Moment) {
        for (id, reason) in std::mem::take(&mut self.ending) {
            if self.table.get(id).is_some() {
                self.close(id, reason, now);
            }
        }
        let mut ended = Vec::new();
        self.table.expire(now, &mut ended);
        self.summary.expired += ended.len() as u64;
        for (id, reason) in ended {
            let (flow, model) = (self.table.get(id).expect("live"), self.flows[&key_of(id)]);
            let time_ms = self.time_ms(flow.is_confirmed());
            assert!(
                model.last.after_ms(time_ms) <= now,
                "a flow ended too early"
            );
            assert_eq!(reason == Reason::Unconfirmed, model.replies == 0);
            self.close(id, reason, now);
        }
        assert!(self.table.next_deadline().is_none_or(|next| next > now));
        for (key, model) in &self.flows {
            let time_ms = self.time_ms(model.replies > 0);
            let latest = model.last.after_ms(time_ms + time_ms / 64 + 2);
            assert!(latest >= now, "{key:?} should have ended");
        }
        while let Some(socket) = self.pool.shrink(now) {
            let number = self.sockets[&socket];
            let kept = |(pair, owner): (&(u32, SocketAddr), &Owner)| {
                pair.0 == number && (owner.flow.is_some() || now < owner.kept_until)
            };
            assert!(!self.pairs.iter().any(kept), "a socket was in use");
            self.forget_socket(socket);
            self.summary.shrunk += 1;
        }
        self.compare();
    }

    /// Everything ends; nothing may be left.
    pub(in super::super) fn finish(mut self, now: Moment) -> Summary {
        let all: Vec<FlowId> = self.table.iter().map(|(id, _)| id).collect();
        for id in all {
            self.close(id, Reason::Shutdown, now);
        }
        self.compare();
        assert_eq!((self.table.len(), self.table.unconfirmed()), (0, 0));
        assert_eq!(self.table.next_deadline(), None);
        assert_eq!((self.pool.flows(), self.counts.addresses()), (0, 0));
        let lifetime_ms = self.settings.mapping_ms.unwrap_or(0).max(1_000);
        let later = now.after_ms(u64::from(lifetime_ms) + 60_000);
        while self.pool.shrink(later).is_some() {}
        assert_eq!((self.pool.sockets(), self.pool.mappings()), (0, 0));
        self.summary
    }

    fn end_all_of(&mut self, upstream: u32, now: Moment) {
        while let Some(id) = self.table.first_of(upstream) {
            self.close(id, Reason::ServerDown, now);
        }
    }

    fn forget_socket(&mut self, socket: u16) {
        if let Some(number) = self.sockets.remove(&socket) {
            self.pairs.retain(|pair, _| pair.0 != number);
        }
    }
}
