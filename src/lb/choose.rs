//! By which algorithm a backend chooses, and whom a new session has to wait behind.

use super::backend::{Backend, PickRequest, Policy};
use super::server::Server;
use super::table::Table;
use super::{first, hashed, key, leastconn, peak_ewma, random, roundrobin};
use crate::base::ids::ServerId;
use crate::config::plan::Balance;

impl Backend {
    /// Takes a connection by the backend's algorithm: the index of the server, or the only server
    /// to wait for, if there is one. The table is not empty.
    pub(super) fn choose(
        &self,
        table: &Table,
        request: PickRequest<'_>,
    ) -> Result<usize, Option<ServerId>> {
        let avoid = request.avoid;
        let policy = &table.policy;
        let draws_seed = policy.seeds.draws;
        let cursors = &self.lasting.cursors[table.set as usize];
        let cursor = if avoid.is_none() {
            &cursors.first
        } else {
            &cursors.retry
        };
        let index = match policy.balance {
            Balance::RoundRobin | Balance::StaticRr => roundrobin::choose(table, cursor, avoid),
            Balance::LeastConn => leastconn::choose(table, cursor, draws_seed, avoid),
            Balance::PeakEwma => {
                let tick = self.lasting.latency_clock.tick();
                peak_ewma::choose(table, cursor, draws_seed, avoid, tick)
            }
            Balance::First => first::choose(table, avoid),
            Balance::Random { draws } => random::choose(table, cursor, draws_seed, draws, avoid),
            Balance::Hash(_) => match place_of(policy, &request) {
                Some(place) if avoid.is_none() => return self.choose_home(table, place),
                Some(place) => hashed::choose_other(table, place, avoid, policy.bound.as_ref()),
                // A connection without a key has nothing to hash.
                None => roundrobin::choose(table, cursor, avoid),
            },
        };
        // The server that failed is better than none.
        let avoided = || {
            table
                .index_of(avoid?)
                .filter(|index| table.entries[*index].server.take())
        };
        index.or_else(avoided).ok_or(None)
    }

    /// Takes a connection of any server, if there is one.
    pub(super) fn choose_any(&self, table: &Table) -> Option<usize> {
        if table.entries.is_empty() {
            return None;
        }
        self.choose(table, PickRequest::ANY).ok()
    }

    /// Whether a new session has to wait because others already do, and for which server.
    pub(super) fn behind_others(
        &self,
        table: &Table,
        request: PickRequest<'_>,
    ) -> Option<Option<ServerId>> {
        let policy = &table.policy;
        let place = place_of(policy, &request).filter(|_| request.avoid.is_none());
        let Some(place) = place else {
            return Some(None);
        };
        // The others may all be waiting for servers that this one has nothing to do with.
        let index = hashed::home(table, place, policy.bound.as_ref());
        let home = &table.entries[index].server;
        if self.has_full_queue(home) {
            return self.queue().lock().has_any().then_some(None);
        }
        let waits = self.queue().lock().waits_for(home.id);
        waits.then_some(Some(home.id))
    }

    /// Takes a connection of the server that a hash leads to.
    fn choose_home(&self, table: &Table, place: u64) -> Result<usize, Option<ServerId>> {
        let bound = table.policy.bound.as_ref();
        let home = &table.entries[hashed::home(table, place, bound)].server;
        if self.has_full_queue(home) {
            // Enough wait for it: any other is better than to wait longer.
            return hashed::choose_other(table, place, Some(home.id), bound).ok_or(None);
        }
        hashed::take_home(table, place, bound).map_err(Some)
    }

    /// Whether as many sessions wait for this server alone as may (`maxqueue`).
    fn has_full_queue(&self, server: &Server) -> bool {
        let most = server.plan.maxqueue as usize;
        most > 0 && self.queued_for(server.id) >= most
    }
}

/// Where a hash leads; `None` = the algorithm hashes nothing, or there is nothing to hash.
fn place_of(policy: &Policy, request: &PickRequest<'_>) -> Option<u64> {
    let hash = policy.balance.hash()?;
    key::place(hash, policy.seeds.hash, request)
}
