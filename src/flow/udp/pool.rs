//! Sockets towards servers, each used for one flow with every server at a time.
//!
//! A datagram of a server names a socket by arriving there and a server by its source: together a
//! pair, which has at most one flow. In the steady state a new flow takes the pair of one that has
//! ended, and costs no system call. What could go wrong is a late reply to the former flow:
//!
//! - The pair that was released first is used first, and not before it has rested. Only where
//!   there can be no more sockets, a pair that rests is better than none.
//! - A pair whose server may still speak first (a mapping) is nobody else's until that ends, even
//!   if new flows are refused for it. It goes back to the same client at any time.
//! - Servers with the same address share their pairs, whatever backends they are in: a reply can't
//!   tell them apart.
//! - The pairs of a server that is gone are kept until they have rested, and it finds them again.
//!
//! A pool is for sockets of one kind (source address, family, interface). It opens and closes
//! nothing itself.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::answers::{PoolLimits, Refusal, Reply, Rest, Take};
use super::mappings::{Mapping, Mappings};
use super::pairs::{Column, NONE, SOCKETS_MAX, State, Tick};
use super::{FlowId, FlowKey, PairAt, normalised};
use crate::base::time::Moment;

/// A socket.
#[derive(Clone, Copy, Debug)]
struct Socket {
    /// Pairs that have a flow.
    flows: u32,
    /// Until when one of the others is kept for somebody.
    kept_until: Moment,
}

/// Sockets of one kind.
#[derive(Debug)]
pub struct Pool {
    number: u16,
    limits: PoolLimits,
    /// By number; a socket that was lost leaves a hole, which the next one fills.
    sockets: Vec<Option<Socket>>,
    open: u16,
    grown: u16,
    columns: Vec<Column>,
    by_address: HashMap<SocketAddr, u16>,
    /// The column of each server, or `NONE`.
    by_upstream: Vec<u16>,
    mappings: Mappings,
}

impl Pool {
    /// An empty pool; `number` stands in its pairs.
    pub fn new(number: u16, limits: PoolLimits) -> Pool {
        Pool {
            number,
            limits,
            sockets: Vec::new(),
            open: 0,
            grown: 0,
            columns: Vec::new(),
            by_address: HashMap::new(),
            by_upstream: Vec::new(),
            mappings: Mappings::new(),
        }
    }

    /// A turn begins: sockets may be added again.
    pub fn begin_turn(&mut self) {
        self.grown = 0;
    }

    /// A server that flows may have; whether there was room. One that has had another address is
    /// moved.
    pub fn add_upstream(&mut self, upstream: u32, address: SocketAddr, now: Moment) -> bool {
        self.remove_upstream(upstream);
        let address = normalised(address);
        let Some(column) = self.column_for(address, now) else {
            return false;
        };
        self.columns[usize::from(column)].users += 1;
        let index = upstream as usize;
        if self.by_upstream.len() <= index {
            self.by_upstream.resize(index + 1, NONE);
        }
        self.by_upstream[index] = column;
        true
    }

    /// A server is gone. Its flows keep their pairs until they are closed.
    pub fn remove_upstream(&mut self, upstream: u32) {
        if let Some(column) = self.column_of(upstream) {
            self.by_upstream[upstream as usize] = NONE;
            self.columns[usize::from(column)].users -= 1;
        }
    }

    /// A pair for a new flow, in this order: the one that the server knows this client by, the one
    /// that has rested longest, one that was never used, one of a new socket, and, where there can
    /// be none, one that still rests.
    pub fn take(
        &mut self,
        upstream: u32,
        key: &FlowKey,
        flow: FlowId,
        now: Moment,
        may_grow: bool,
    ) -> Take {
        let Some(number) = self.column_of(upstream) else {
            return Take::Refused(Refusal::Unknown);
        };
        let own = self.mappings.find(number, key);
        let own = own.and_then(|slot| Some(self.mappings.at(slot)?.socket));
        let found = own
            .or_else(|| self.rested(number, now))
            .or_else(|| self.unused(number));
        if let Some(socket) = found {
            return Take::Pair(self.give(number, socket, flow));
        }
        if may_grow && self.open < self.limits.sockets_max {
            return match self.grown < self.limits.growth_max {
                true => Take::Grow,
                false => Take::Refused(Refusal::Growth),
            };
        }
        let column = &self.columns[usize::from(number)];
        match (column.longest_free(), column.longest_mapped()) {
            (Some((socket, _)), _) => Take::Pair(self.give(number, socket, flow)),
            (None, Some(_)) => Take::Refused(Refusal::Mapped),
            (None, None) => Take::Refused(Refusal::Full),
        }
    }

    /// The pair of a flow that has ended, or has another one now.
    pub fn release(&mut self, pair: PairAt, rest: Rest<'_>, now: Moment) {
        let State::Flow(_) = self.state(pair.column, pair.socket) else {
            return;
        };
        let mut until = now.after_ms(self.limits.quarantine_ms.into());
        let state = match rest {
            Rest::Quarantine => State::Free(Tick::after(now)),
            Rest::Mapping {
                key,
                upstream,
                last,
                lifetime_ms,
            } => {
                until = until.max(last.after_ms(lifetime_ms.into()));
                let mapping = Mapping {
                    key: *key,
                    socket: pair.socket,
                    column: pair.column,
                    upstream,
                    until,
                };
                match self.mappings.insert(mapping) {
                    Some(slot) => State::Mapped(slot),
                    None => State::Free(Tick::after(until)),
                }
            }
        };
        let column = &mut self.columns[usize::from(pair.column)];
        column.set(pair.socket, state);
        column.flows -= 1;
        column.rests_until = column.rests_until.max(until);
        if let Some(Some(socket)) = self.sockets.get_mut(usize::from(pair.socket)) {
            socket.flows -= 1;
            socket.kept_until = socket.kept_until.max(until);
        }
    }

    /// Whom a datagram is for that came from `from` to a socket.
    #[inline]
    pub fn reply(&self, socket: u16, from: SocketAddr, now: Moment) -> Reply {
        let Some(&column) = self.by_address.get(&normalised(from)) else {
            return Reply::Unknown;
        };
        match self.state(column, socket) {
            State::Flow(slot) => Reply::Flow(slot),
            State::Mapped(slot) => self.speaks_first(slot, now),
            State::Absent | State::Free(_) => Reply::Unknown,
        }
    }

    /// Gives a pair to a flow of the client that it remembers; whether it still does.
    pub fn resume(&mut self, pair: PairAt, flow: FlowId) -> bool {
        let State::Mapped(_) = self.state(pair.column, pair.socket) else {
            return false;
        };
        self.give(pair.column, pair.socket, flow);
        true
    }

    /// A socket has been opened; `None` if there may be no more.
    pub fn add_socket(&mut self, now: Moment) -> Option<u16> {
        if self.open >= self.limits.sockets_max {
            return None;
        }
        let socket = Socket {
            flows: 0,
            kept_until: now,
        };
        let hole = match usize::from(self.open) < self.sockets.len() {
            true => self.sockets.iter().position(Option::is_none),
            false => None,
        };
        let index = hole.unwrap_or(self.sockets.len());
        let number = u16::try_from(index)
            .ok()
            .filter(|number| *number < SOCKETS_MAX)?;
        if index == self.sockets.len() {
            self.sockets.push(Some(socket));
        } else {
            self.sockets[index] = Some(socket);
            for column in &mut self.columns {
                column.put_first(number);
            }
        }
        self.open += 1;
        self.grown += 1;
        Some(number)
    }

    /// A socket is of no use any more and will be closed. The slots of flows that were on it are
    /// appended to `flows`: they have no pair any more, and have to be closed or moved before
    /// another socket is added.
    pub fn lose_socket(&mut self, socket: u16, flows: &mut Vec<u32>) {
        match self.sockets.get_mut(usize::from(socket)) {
            Some(present @ Some(_)) => *present = None,
            _ => return,
        }
        self.open -= 1;
        for column in &mut self.columns {
            match column.state(socket) {
                State::Absent => continue,
                State::Free(_) => {}
                State::Flow(slot) => {
                    flows.push(slot);
                    column.flows -= 1;
                }
                State::Mapped(slot) => {
                    self.mappings.remove(slot);
                }
            }
            column.set(socket, State::Absent);
        }
        while let Some(None) = self.sockets.last() {
            self.sockets.pop();
        }
        let len = self.sockets.len();
        for column in &mut self.columns {
            column.truncate(len);
        }
    }

    /// The last socket, if nobody has needed it for a while: it is not the pool's any more.
    pub fn shrink(&mut self, now: Moment) -> Option<u16> {
        let last = u16::try_from(self.sockets.len().checked_sub(1)?).ok()?;
        let socket = self.sockets[usize::from(last)]?;
        let spare_from = socket.kept_until.after_ms(self.limits.spare_ms.into());
        if socket.flows > 0 || now < spare_from {
            return None;
        }
        self.lose_socket(last, &mut Vec::new());
        Some(last)
    }

    /// Sockets there are.
    pub fn sockets(&self) -> u16 {
        self.open
    }

    /// Pairs that have a flow.
    pub fn flows(&self) -> u32 {
        self.columns.iter().map(|column| column.flows).sum()
    }

    /// Pairs that are kept for a client, or were until lately.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    fn state(&self, column: u16, socket: u16) -> State {
        let column = self.columns.get(usize::from(column));
        column.map_or(State::Absent, |column| column.state(socket))
    }

    fn column_of(&self, upstream: u32) -> Option<u16> {
        let column = self.by_upstream.get(upstream as usize).copied();
        column.filter(|column| *column != NONE)
    }

    /// The column of an address: its own, one that nobody needs any more, or a new one.
    fn column_for(&mut self, address: SocketAddr, now: Moment) -> Option<u16> {
        if let Some(&column) = self.by_address.get(&address) {
            return Some(column);
        }
        let spare =
            |column: &Column| column.users == 0 && column.flows == 0 && column.rests_until <= now;
        let index = match self.columns.iter().position(spare) {
            Some(index) => {
                self.forget(index);
                self.columns[index] = Column::new(address);
                index
            }
            None => {
                self.columns.push(Column::new(address));
                self.columns.len() - 1
            }
        };
        let number = u16::try_from(index).ok().filter(|number| *number != NONE)?;
        self.by_address.insert(address, number);
        Some(number)
    }

    /// Nothing leads to a column any more.
    fn forget(&mut self, index: usize) {
        let column = &mut self.columns[index];
        self.by_address.remove(&column.address);
        while let Some((socket, mapping)) = column.longest_mapped() {
            self.mappings.remove(mapping);
            column.set(socket, State::Free(Tick::default()));
        }
    }

    /// A pair that has rested, or been kept, for as long as it has to.
    fn rested(&self, number: u16, now: Moment) -> Option<u16> {
        let column = &self.columns[usize::from(number)];
        if let Some((socket, since)) = column.longest_free()
            && since.moment().after_ms(self.limits.quarantine_ms.into()) <= now
        {
            return Some(socket);
        }
        let (socket, mapping) = column.longest_mapped()?;
        (self.mappings.at(mapping)?.until <= now).then_some(socket)
    }

    /// A pair with a socket that the column has not had yet.
    fn unused(&mut self, number: u16) -> Option<u16> {
        let column = &mut self.columns[usize::from(number)];
        while column.len() < self.sockets.len() {
            let socket = column.extend();
            if self.sockets[usize::from(socket)].is_some() {
                return Some(socket);
            }
        }
        None
    }

    fn give(&mut self, number: u16, socket: u16, flow: FlowId) -> PairAt {
        let column = &mut self.columns[usize::from(number)];
        if let State::Mapped(mapping) = column.state(socket) {
            self.mappings.remove(mapping);
        }
        column.set(socket, State::Flow(flow.slot));
        column.flows += 1;
        if let Some(Some(socket)) = self.sockets.get_mut(usize::from(socket)) {
            socket.flows += 1;
        }
        PairAt {
            pool: self.number,
            socket,
            column: number,
        }
    }

    /// A datagram of a server to a pair without a flow.
    fn speaks_first(&self, mapping: u32, now: Moment) -> Reply {
        match self.mappings.at(mapping) {
            Some(mapping)
                if now < mapping.until
                    && self.column_of(mapping.upstream) == Some(mapping.column) =>
            {
                Reply::Mapping {
                    key: mapping.key,
                    upstream: mapping.upstream,
                    pair: PairAt {
                        pool: self.number,
                        socket: mapping.socket,
                        column: mapping.column,
                    },
                }
            }
            _ => Reply::Unknown,
        }
    }
}
