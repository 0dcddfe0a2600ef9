//! `show balance <backend> [key <key>]`: how a backend chooses now, and which server a key gets.
//!
//! The command is ours. A key is what the backend hashes: an address with or without a port, or
//! the bytes of a datagram (`0x...`, or the text itself). Only the table in force is read, as a
//! pick would; nothing is counted.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};

use super::command::{Answer, Call, Command, Run};
use super::condition::server_status;
use super::subject::is_called;
use crate::config::plan::{Balance, Hash, HashFunction, HashKey, HashKind, Level};
use crate::lb::{Backend, Candidate, Explanation, PickRequest, PlaceKind};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["show", "balance"], level: Level::Operator,
        usage: "show balance <backend> [key <key>]",
        help: "explain how a backend chooses, or which server a key gets", run: Run::Now(show) },
];

/// Longest datagram that a key may stand for, bytes.
const DATAGRAM_MAX: usize = 2_048;

fn show(call: &mut Call<'_>) -> Answer {
    let (name, key) = match call.words {
        [name] => (name, None),
        [name, "key", key] => (name, Some(*key)),
        _ => return Answer::error("Usage: show balance <backend> [key <key>]"),
    };
    let world = call.shared.world();
    let mut backends = world.backends.iter().flatten();
    let Some(backend) = backends.find(|backend| is_called(&backend.proxy, name)) else {
        return Answer::error("No such backend.");
    };
    let balance = backend
        .proxy
        .back
        .as_ref()
        .map_or(Balance::RoundRobin, |back| back.balance);
    let datagram;
    let mut request = PickRequest::default();
    if let Some(key) = key {
        let Some(hash) = balance.hash() else {
            return Answer::error("This backend's algorithm has no key.");
        };
        if is_of_datagrams(hash) {
            let Some(bytes) = bytes(key) else {
                return Answer::error(
                    "A key is the bytes of a datagram: a text, or 0x and digits.",
                );
            };
            datagram = bytes;
            request.datagram = Some(&datagram);
        } else {
            let Some(address) = address(key) else {
                return Answer::error("A key is an address here, with or without a port.");
            };
            (request.client, request.local) = (Some(address), Some(address));
        }
    }
    let said = backend.explain(&request);
    let mut text = String::new();
    let _ = writeln!(text, "backend: {name}");
    let _ = writeln!(text, "algorithm: {}", algorithm(backend, &balance));
    let _ = writeln!(text, "table: {}", table(&said));
    for candidate in &said.servers {
        candidate_line(&mut text, candidate);
    }
    for server in backend.servers.iter() {
        if !said
            .servers
            .iter()
            .any(|candidate| candidate.server.id == server.id)
        {
            let status = server_status(call.shared, server);
            let what = if server.plan.backup { "backup, " } else { "" };
            let _ = writeln!(text, "not chosen: {} {what}{status}", server.plan.name);
        }
    }
    verdict(&mut text, &said, key);
    Answer::Text(text)
}

/// The end of an answer: who gets the next connection, or the key's.
fn verdict(text: &mut String, said: &Explanation, key: Option<&str>) {
    let name = |index: usize| {
        said.servers
            .get(index)
            .map_or("-", |s| &*s.server.plan.name)
    };
    if said.servers.is_empty() {
        text.push_str("chosen: - (no server is usable)\n");
        return;
    }
    let Some(key) = key else {
        let _ = match said.next {
            Some(index) => writeln!(text, "next: {}", name(index)),
            None => writeln!(text, "next: - (a draw decides)"),
        };
        return;
    };
    let Some(home) = said.home else {
        let next = said.next.map_or("-", name);
        let _ = writeln!(
            text,
            "key: {key}\nchosen: {next} (nothing to hash: servers take turns)"
        );
        return;
    };
    let _ = writeln!(text, "key: {key}");
    let _ = writeln!(text, "hash: {:#018x}", home.hash);
    let (kind, count) = said.places;
    let _ = writeln!(
        text,
        "place: {} {} of {count}",
        place_name(kind),
        home.place
    );
    let _ = writeln!(text, "owner: {}", name(home.owner));
    let why = match said.servers.get(home.chosen) {
        _ if home.chosen != home.owner => " (its owner is at its bound)",
        Some(chosen) if chosen.server.active() >= chosen.server.maxconn() => {
            " (full: clients wait for it)"
        }
        _ => "",
    };
    let _ = writeln!(text, "chosen: {}{why}", name(home.chosen));
}

fn candidate_line(text: &mut String, candidate: &Candidate) {
    let server = &candidate.server;
    let limit = match server.maxconn() {
        u32::MAX => "-".to_owned(),
        limit => limit.to_string(),
    };
    let _ = write!(
        text,
        "server: {} weight {} share {}.{}% connections {} limit {limit}",
        server.plan.name,
        candidate.weight,
        candidate.permille / 10,
        candidate.permille % 10,
        server.active(),
    );
    if let Some(bound) = candidate.bound {
        let _ = write!(text, " bound {bound}");
    }
    text.push('\n');
}

fn table(said: &Explanation) -> String {
    let (kind, count) = said.places;
    let set = if said.on_backup { "backup" } else { "active" };
    let name = place_name(kind);
    format!("{} {set} servers, {count} {name}s", said.servers.len())
}

fn place_name(kind: PlaceKind) -> &'static str {
    match kind {
        PlaceKind::Turns => "turn",
        PlaceKind::Points => "point",
        PlaceKind::Slots => "slot",
    }
}

/// Its name, and of a hash how it is made.
fn algorithm(backend: &Backend, balance: &Balance) -> String {
    let name = backend.algorithm();
    let Some(hash) = balance.hash() else {
        return name.to_owned();
    };
    let kind = match hash.method.kind {
        HashKind::MapBased => "map-based",
        HashKind::Consistent => "consistent",
        HashKind::Maglev => "maglev",
    };
    let function = match (hash.key, hash.method.function) {
        (HashKey::Source, _) => "",
        (_, HashFunction::Sdbm) => " sdbm",
        (_, HashFunction::Djb2) => " djb2",
        (_, HashFunction::Wt6) => " wt6",
        (_, HashFunction::Crc32) => " crc32",
        (_, HashFunction::None) => " none",
    };
    let avalanche = if hash.method.avalanche {
        " avalanche"
    } else {
        ""
    };
    let bound = match hash.factor {
        0 => String::new(),
        factor => format!(", bounded to {factor}%"),
    };
    format!("{name}, {kind}{function}{avalanche}{bound}")
}

fn is_of_datagrams(hash: &Hash) -> bool {
    match hash.key {
        HashKey::Source => false,
        HashKey::Expression(expression) => expression.fetch.is_datagram(),
    }
}

/// An address, with port 0 where there is none.
fn address(key: &str) -> Option<SocketAddr> {
    let alone = || key.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0));
    key.parse().ok().or_else(alone)
}

/// `0x` and pairs of digits, or a text.
fn bytes(key: &str) -> Option<Vec<u8>> {
    let Some(digits) = key.strip_prefix("0x") else {
        return (key.len() <= DATAGRAM_MAX).then(|| key.as_bytes().to_vec());
    };
    let whole = digits.len().is_multiple_of(2) && digits.len() <= 2 * DATAGRAM_MAX;
    if !whole || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = digits
        .as_bytes()
        .chunks(2)
        .map(|pair| str::from_utf8(pair).ok());
    pairs
        .map(|pair| u8::from_str_radix(pair?, 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_addresses_or_bytes() {
        assert_eq!(address("10.0.0.1"), Some("10.0.0.1:0".parse().unwrap()));
        assert_eq!(address("[::1]:5"), Some("[::1]:5".parse().unwrap()));
        assert_eq!(address("::1"), Some("[::1]:0".parse().unwrap()));
        assert_eq!(address("example"), None);
        assert_eq!(bytes("0x00ff"), Some(vec![0, 255]));
        assert_eq!(bytes("abc"), Some(b"abc".to_vec()));
        for wrong in ["0x0", "0xgg", "0x+1", "0x\u{e4}"] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }
}
