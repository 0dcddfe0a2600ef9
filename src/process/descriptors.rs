//! The descriptor limit of the process: what is asked of the system, and what follows from it.

use super::budget::{self, Budget};
use super::pipes::Wanted;
use crate::config::plan::Plan;
use crate::control::listeners::error_text;
use crate::control::messages::Console;
use crate::sys::process as system;

/// Sets the descriptor limit as the configuration and the number of connections ask, as far as the
/// system lets us, and distributes it.
pub(super) fn limit(
    plan: &Plan,
    shards: u16,
    maxconn: Option<u32>,
    pipes: Wanted,
    console: &Console,
) -> Result<Budget, String> {
    let process = &plan.global.process;
    let mut limit = system::raise_descriptors()
        .map_err(|error| format!("Cannot read the descriptor limit: {error}"))?;
    let needed = |pipes| maxconn.map_or(0, |maxconn| budget::needed(plan, shards, maxconn, pipes));
    let least = needed(pipes.configured());
    // What `maxconn` needs beyond the limit is asked for only where the file sets none. With all
    // the pipes that it would like to have first: they are not worth a word.
    let most = needed(maxconn.map_or(0, |maxconn| pipes.number(maxconn, u64::MAX)));
    if process.descriptors.is_none() && most > limit && system::set_descriptors(most).is_ok() {
        limit = most;
    }
    let wanted = process.descriptors.or((least > limit).then_some(least));
    if let Some(wanted) = wanted {
        match system::set_descriptors(wanted) {
            Ok(()) => limit = wanted,
            // The sum below says more about a `maxconn` that is too high.
            Err(_) if process.descriptors.is_none() => {}
            Err(error) => {
                let why = error_text(&error);
                let text = format!("Cannot raise FD limit to {wanted}, limit is {limit} ({why}).");
                if process.strict_limits {
                    return Err(text);
                }
                console.warning(&text);
            }
        }
    }
    match budget::descriptors(plan, shards, maxconn, pipes, limit) {
        Err(text) if !process.strict_limits => {
            console.warning(&format!("{text} Lowered, because of 'no strict-limits'."));
            lowered(plan, shards, maxconn, pipes, limit)
        }
        other => other,
    }
}

/// What fits: pipes are given up before connections are.
fn lowered(
    plan: &Plan,
    shards: u16,
    maxconn: Option<u32>,
    pipes: Wanted,
    limit: u64,
) -> Result<Budget, String> {
    let fewer = match pipes {
        Wanted::Configured(most) => Wanted::Computed { most },
        other => other,
    };
    budget::descriptors(plan, shards, maxconn, fewer, limit)
        .or_else(|_| budget::descriptors(plan, shards, None, fewer, limit))
}
