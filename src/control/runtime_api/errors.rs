//! `show errors`: the last connection of each frontend that was closed for what it sent.
//!
//! HAProxy keeps requests and responses that broke HTTP, of which there is none here; what can
//! break a protocol is a PROXY header.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt::Write;
use std::sync::Arc;

use super::command::{Answer, Call};
use crate::shard::{Frontend, LastRefusal, Refusal};
use crate::sys::clock;

/// The answer to `show errors`.
pub(super) fn show(call: &mut Call<'_>) -> Answer {
    let world = &call.shared.world();
    let wanted = call.words.first();
    let is_meant = |name: &str, iid: u32| {
        wanted.is_none_or(|word| {
            let number = word.strip_prefix('#').unwrap_or(word);
            *word == name || *word == "-1" || number.parse() == Ok(iid)
        })
    };
    let mut proxies = world.plan.proxies.iter();
    if !proxies.any(|proxy| is_meant(&proxy.name, proxy.iid)) {
        return Answer::error("No such proxy.");
    }
    let fronts: Vec<&Arc<Frontend>> = world
        .frontends
        .iter()
        .flatten()
        .filter(|front| is_meant(&front.proxy.name, front.proxy.iid))
        .collect();
    let total: u64 = fronts.iter().map(|front| front.refusals.count()).sum();
    let now = date(clock::unix_ms());
    let mut text = format!("Total events captured on [{now}] : {total}\n");
    for front in fronts {
        if let Some(last) = front.refusals.last() {
            entry(&mut text, front, &last);
        }
    }
    Answer::Text(text)
}

fn entry(text: &mut String, front: &Frontend, last: &LastRefusal) {
    let proxy = &front.proxy;
    let why = match last.why {
        Refusal::NotProxy => "no PROXY header",
        Refusal::Invalid => "wrong PROXY header",
        Refusal::Protocol => "PROXY header of an unknown protocol",
        Refusal::TimedOut { .. } => "PROXY header not in time",
        Refusal::CutOff | Refusal::Closed | Refusal::Broken => "PROXY header cut off",
    };
    let client = last
        .client
        .map_or("unix".to_owned(), |client| client.to_string());
    let _ = writeln!(
        text,
        "[{}] frontend {} (#{}): {why}\n  src {client}, listener #{}, {} in all",
        date(last.unix_ms),
        proxy.name,
        proxy.iid,
        u32::from(last.listener_id.0) + 1,
        front.refusals.count(),
    );
}

/// `22/Nov/2026:01:33:56.463`, local time.
fn date(unix_ms: u64) -> String {
    let at = i64::try_from(unix_ms).ok().map(Timestamp::from_millisecond);
    let at = at.and_then(Result::ok).unwrap_or_default();
    at.to_zoned(TimeZone::system())
        .strftime("%d/%b/%Y:%H:%M:%S%.3f")
        .to_string()
}
