//! How sessions are written by `show sess`.
//!
//! The line has HAProxy's fields in HAProxy's order; tools read id, protocol, addresses, names and
//! age. What means something inside HAProxy only is 0 or empty.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use crate::base::ids::{SessionKey, ShardId};
use crate::base::time::Moment;
use crate::config::plan::Proxy;
use crate::control::Shared;
use crate::control::log::local_date;
use crate::shard::{DirectionRow, SessionRow, SessionStage};

/// The name of a session in the process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SessionId {
    pub(super) shard: ShardId,
    pub(super) key: SessionKey,
}

/// Bits of a slot, and of its generation: a slab has no more.
const BITS: u32 = 24;

impl SessionId {
    /// What was written as a number, with `0x` before it or not.
    pub(super) fn parse(word: &str) -> Option<SessionId> {
        let number = match word.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok()?,
            None => word.parse().ok()?,
        };
        let part = |shift: u32| u32::try_from(number >> shift & ((1 << BITS) - 1)).ok();
        Some(SessionId {
            shard: ShardId(u16::try_from(number >> (2 * BITS)).ok()?),
            key: SessionKey {
                slot: part(0)?,
                generation: part(BITS)?,
            },
        })
    }

    pub(super) fn number(self) -> u64 {
        let SessionKey { slot, generation } = self.key;
        u64::from(self.shard.0) << (2 * BITS) | u64::from(generation) << BITS | u64::from(slot)
    }
}

/// One session in one line.
pub(super) fn line(shard: ShardId, row: &SessionRow, now: Moment) -> String {
    let id = SessionId {
        shard,
        key: row.key,
    }
    .number();
    let [up, down] = &row.directions;
    let backend = row.backend.as_ref();
    format!(
        "{id:#x}: proto={} src={} fe={} be={} srv={} ts=00 epoch=0 age={} calls=0 rate=0 cpu=0 \
         lat=0 rq[{}] rp[{}] scf=[{},0h,fd={},rex=,wex=] scb=[{},0h,fd={},rex=,wex=] exp={} \
         rc={} c_exp=",
        protocol(row.client),
        source(row.client),
        row.frontend.proxy.name,
        backend.map_or("<NONE>", |backend| &backend.proxy.name),
        row.server
            .as_ref()
            .map_or("<none>", |server| &server.plan.name),
        duration(now.ms_since(row.accepted_at)),
        buffer(up),
        buffer(down),
        ESTABLISHED,
        row.descriptors[0],
        state(row.stage),
        row.descriptors[1],
        expiry(row.deadline, now),
        row.retries,
    )
}

/// One session with everything that there is to say.
pub(super) fn long(shared: &Shared, shard: ShardId, row: &SessionRow, now: Moment) -> String {
    let id = SessionId {
        shard,
        key: row.key,
    }
    .number();
    let world = &shared.world();
    let zero_ms = world.unix_ms_at_zero.load(Relaxed);
    let accepted_ms = zero_ms + row.accepted_at.0 / 1_000_000;
    let listener = world.listener(row.listener_id);
    let name = listener.map(|listener| listener.name.as_str());
    let name = name.filter(|name| !name.is_empty()).unwrap_or("?");
    let address =
        |address: Option<SocketAddr>| address.map_or("-".to_owned(), |address| address.to_string());
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{id:#x}: [{}] id={} proto={} source={}",
        local_date(accepted_ms),
        row.key.slot,
        protocol(row.client),
        source(row.client),
    );
    let _ = writeln!(
        text,
        "  flags=0x0, conn_retries={}, conn_exp=<NEVER> conn_et=0x000 waiting={} epoch=0",
        row.retries,
        u8::from(row.stage == SessionStage::Queue),
    );
    let _ = writeln!(
        text,
        "  frontend={}, listener={name} (id={}) addr={}",
        proxy(&row.frontend.proxy),
        listener.map_or(0, |listener| listener.socket_id),
        address(row.local),
    );
    let _ = match &row.backend {
        Some(backend) => writeln!(
            text,
            "  backend={} addr={}",
            proxy(&backend.proxy),
            address(row.towards[0])
        ),
        None => writeln!(text, "  backend=<NONE> (id=-1 mode=-)"),
    };
    let _ = match &row.server {
        Some(server) => writeln!(
            text,
            "  server={} (id={}) addr={}",
            server.plan.name,
            server.plan.sid,
            row.towards[1].map_or_else(|| server.plan.address.to_string(), |to| to.to_string())
        ),
        None => writeln!(text, "  server=<NONE> (id=-1)"),
    };
    let connected = row.connected_at.map(|at| duration(now.ms_since(at)));
    let _ = writeln!(
        text,
        "  task=shard {} (state={} exp={} age={} connected={})",
        shard.0 + 1,
        stage(row.stage),
        expiry(row.deadline, now),
        duration(now.ms_since(row.accepted_at)),
        connected.unwrap_or_else(|| "-".to_owned()),
    );
    let sides = [("scf", ESTABLISHED, 0), ("scb", state(row.stage), 1)];
    for (side, state, index) in sides {
        let descriptor = row.descriptors[index];
        let _ = writeln!(text, "  {side}=(state={state} fd={descriptor})");
    }
    for (name, direction) in ["req", "res"].into_iter().zip(&row.directions) {
        let _ = writeln!(
            text,
            "  {name}=(f={:#x} i={} total={} spliced={} idle={})",
            flags(direction),
            direction.held,
            direction.bytes,
            u8::from(direction.spliced),
            duration(now.ms_since(direction.active_at)),
        );
    }
    text
}

fn proxy(proxy: &Proxy) -> String {
    let mode = if proxy.is_udp() { "udp" } else { "tcp" };
    format!("{} (id={} mode={mode})", proxy.name, proxy.iid)
}

/// The number that HAProxy has for a connected side.
const ESTABLISHED: u8 = 8;

/// HAProxy's numbers for where the server's side is.
fn state(stage: SessionStage) -> u8 {
    match stage {
        SessionStage::Prelude => 0,
        SessionStage::Queue => 2,
        SessionStage::Connect => 5,
        SessionStage::Data => ESTABLISHED,
        SessionStage::Ending => 9,
    }
}

fn stage(stage: SessionStage) -> &'static str {
    match stage {
        SessionStage::Prelude => "header",
        SessionStage::Queue => "queue",
        SessionStage::Connect => "connect",
        SessionStage::Data => "data",
        SessionStage::Ending => "ending",
    }
}

fn protocol(client: Option<SocketAddr>) -> &'static str {
    match client {
        Some(SocketAddr::V4(_)) => "tcpv4",
        Some(SocketAddr::V6(_)) => "tcpv6",
        None => "unix_stream",
    }
}

fn source(client: Option<SocketAddr>) -> String {
    client.map_or("unix:1".to_owned(), |client| match client {
        // As HAProxy writes it, without brackets.
        SocketAddr::V6(client) => format!("{}:{}", client.ip(), client.port()),
        SocketAddr::V4(client) => client.to_string(),
    })
}

/// 1 = the source has ended, 2 = the sink takes no more, 4 = through a pipe.
fn flags(direction: &DirectionRow) -> u8 {
    u8::from(direction.ended) | u8::from(direction.closed) << 1 | u8::from(direction.spliced) << 2
}

fn buffer(direction: &DirectionRow) -> String {
    format!("f={:x}h,i={},an=00h,ax=", flags(direction), direction.held)
}

/// What is left until a deadline; nothing where there is none.
fn expiry(deadline: Moment, now: Moment) -> String {
    if deadline == Moment::NEVER {
        return String::new();
    }
    duration(deadline.ms_since(now))
}

/// `4s`, `1m5s`, `2h3m`, `1d4h`.
pub(super) fn duration(ms: u64) -> String {
    let seconds = ms / 1000;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, _, _) => format!("{hours}h{}m", minutes % 60),
        _ => format!("{days}d{}h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_says_which_session() {
        for (shard, slot, generation) in [(0, 0, 1), (3, 77, 12), (255, 0xff_ffff, 0xff_ffff)] {
            let key = SessionKey { slot, generation };
            let id = SessionId {
                shard: ShardId(shard),
                key,
            };
            let text = format!("{:#x}", id.number());
            assert_eq!(SessionId::parse(&text), Some(id));
            assert_eq!(SessionId::parse(&id.number().to_string()), Some(id));
        }
        for word in ["", "foo", "0x", "0xg", "-1", "0x1ffffffffffffffff"] {
            assert_eq!(SessionId::parse(word), None, "{word}");
        }
    }

    #[test]
    fn times_have_their_two_largest_units() {
        let texts = [999, 59_000, 65_000, 7_380_000, 100_800_000].map(duration);
        assert_eq!(texts, ["0s", "59s", "1m5s", "2h3m", "1d4h"]);
        let at = |ms: u64| Moment(ms * 1_000_000);
        assert_eq!(expiry(at(5_000), at(2_000)), "3s");
        assert_eq!(expiry(Moment::NEVER, at(2_000)), "");
    }
}
