//! The descriptor limit of the process: what is asked of the system, and what follows from it.

use super::budget::{self, Budget};
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
    console: &Console,
) -> Result<Budget, String> {
    let process = &plan.global.process;
    let mut limit = system::raise_descriptors()
        .map_err(|error| format!("Cannot read the descriptor limit: {error}"))?;
    let needed = maxconn.map_or(0, |maxconn| budget::needed(plan, shards, maxconn));
    // What `maxconn` needs beyond the limit is asked for only where the file sets none.
    let wanted = process.descriptors.or((needed > limit).then_some(needed));
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
    match budget::descriptors(plan, shards, maxconn, limit) {
        Err(text) if !process.strict_limits => {
            console.warning(&format!("{text} Lowered, because of 'no strict-limits'."));
            budget::descriptors(plan, shards, None, limit)
        }
        other => other,
    }
}
