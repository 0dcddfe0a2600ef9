//! `show listeners`: the listening sockets with their accept queues, as the kernel has them.
//!
//! The command is ours. A full queue means that clients wait for the program, or for a limit of it;
//! what comes on top of a full queue the kernel drops, and the client tries again after a second.
//! Sockets for datagrams have a receive buffer in the place of the queue, and bytes in its columns.
//! The control thread asks for it when somebody wants to know; no shard does.

use std::fmt::Write;
use std::sync::PoisonError;

use crate::config::plan::Endpoint;
use crate::config::threads::ThreadSet;
use crate::control::Shared;
use crate::control::listeners::Listening;

const HEADER: &str = "# proxy id name socket threads queued limit drops address\n";

/// The answer to `show listeners`: a line per socket.
pub(super) fn show(shared: &Shared) -> String {
    let mut text = HEADER.to_owned();
    let world = shared.world();
    for socket in sockets(shared) {
        let Some(listener) = world.listener(socket.listener_id) else {
            continue;
        };
        let front = world.frontend(listener.proxy_id);
        let proxy = front.map_or("-", |front| &front.proxy.name);
        let name = match listener.name.as_str() {
            "" => "-",
            name => name,
        };
        let number = |number: Option<u32>| number.map_or("-".to_owned(), |n| n.to_string());
        let queue = socket.queue.as_ref();
        let _ = writeln!(
            text,
            "{proxy} {} {name} {} {} {} {} {} {}",
            listener.socket_id,
            u32::from(socket.index) + 1,
            threads(socket.shards),
            number(queue.map(|queue| queue.length)),
            number(queue.map(|queue| queue.limit)),
            number(queue.and_then(|queue| queue.drops)),
            listener.endpoint,
        );
    }
    text
}

/// How many connections wait on all sockets, and how many were dropped. Datagrams are the shards'.
pub(super) fn totals(shared: &Shared) -> [u64; 2] {
    let mut totals = [0; 2];
    let world = shared.world();
    let of_streams = |socket: &Listening| {
        let listener = world.listener(socket.listener_id);
        listener.is_some_and(|one| !matches!(one.endpoint, Endpoint::Datagram(_)))
    };
    let sockets = sockets(shared).into_iter().filter(of_streams);
    for queue in sockets.filter_map(|socket| socket.queue) {
        totals[0] += u64::from(queue.length);
        totals[1] += u64::from(queue.drops.unwrap_or(0));
    }
    totals
}

/// None before the runtime sockets are served, and none once the process drains.
fn sockets(shared: &Shared) -> Vec<Listening> {
    let Some(registry) = shared.registry.get() else {
        return Vec::new();
    };
    let registry = registry.lock().unwrap_or_else(PoisonError::into_inner);
    registry.listening()
}

/// HAProxy's numbers of threads, which begin at 1: `1-4,7`; `-` where no shard accepts.
fn threads(set: ThreadSet) -> String {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for number in set.iter().map(|shard| shard.0 + 1) {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    let texts: Vec<String> = ranges
        .into_iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    match texts.is_empty() {
        true => "-".to_owned(),
        false => texts.join(","),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::ShardId;

    #[test]
    fn threads_are_ranges_from_one() {
        let text = |shards: &[u16]| threads(shards.iter().map(|n| ShardId(*n)).collect());
        assert_eq!(text(&[0]), "1");
        assert_eq!(text(&[0, 1, 2, 3, 6]), "1-4,7");
        assert_eq!(text(&[1, 255]), "2,256");
    }
}
