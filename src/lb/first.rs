//! First: the first server, by number, that has room. The others stay idle until it is full.

use super::table::Table;
use crate::base::ids::ServerId;

/// Takes a connection of the first server with room; `None` when all are full (but for `avoid`).
pub(super) fn choose(table: &Table, avoid: Option<ServerId>) -> Option<usize> {
    table.entries.iter().position(|entry| {
        let server = &entry.server;
        // Looking first spares the full ones a write.
        Some(server.id) != avoid && server.room().is_some() && server.take()
    })
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, backend, backend_of, picked, planned, server};
    use super::super::{Outcome, Pick, PickRequest};
    use crate::config::plan::{Balance, Server};
    use std::sync::Arc;

    const ANY: PickRequest = PickRequest::ANY;

    #[test]
    fn servers_fill_in_the_order_of_their_numbers() {
        let numbered = |id: u32, sid| {
            Arc::new(Server {
                sid,
                ..(*planned(id, id, server(1, 3))).clone()
            })
        };
        let servers = vec![numbered(0, 30), numbered(1, 10), numbered(2, 20)];
        let backend = backend_of(Balance::First, servers, 0);
        let order: Vec<_> = (0..9)
            .map(|_| picked(&backend.pick(ANY)).unwrap())
            .collect();
        assert_eq!(order, [1, 1, 1, 2, 2, 2, 0, 0, 0]);
        assert!(matches!(backend.pick(ANY), Pick::Wait { only: None }));
        // What becomes free of the first is taken before the last is used again.
        for id in [0, 1, 2] {
            let server = &backend.servers[id];
            assert!(backend.release(server, Outcome::Completed).is_none());
        }
        let order: Vec<_> = (0..3)
            .map(|_| picked(&backend.pick(ANY)).unwrap())
            .collect();
        assert_eq!(order, [1, 2, 0]);
    }

    #[test]
    fn without_a_bound_the_first_gets_all() {
        let backend = backend(Balance::First, &[server(1, 0), server(256, 0)]);
        assert_eq!(testing::spread(&backend, 100), [100, 0]);
    }
}
