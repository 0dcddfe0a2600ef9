//! How many connections the process may have after a reload: what the file asks for, within what
//! the process was made for and what descriptors are left beside everything else.

use std::fmt;
use std::sync::Arc;

use super::Origin;
use crate::config::plan::Plan;
use crate::shard::World;

/// There are not enough descriptors for so many connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Short {
    /// So many there are enough for.
    pub room: u32,
    /// The sum, in words.
    pub text: String,
}

type Fits = dyn Fn(&Plan, u32, u32) -> Result<(), Short> + Send + Sync;

/// Says whether there are descriptors for so many connections and pipes beside what a plan needs.
#[derive(Clone)]
pub struct Room(Arc<Fits>);

impl Room {
    /// By this function, of a plan, connections and pipes.
    pub fn new(
        fits: impl Fn(&Plan, u32, u32) -> Result<(), Short> + Send + Sync + 'static,
    ) -> Room {
        Room(Arc::new(fits))
    }
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Room")
    }
}

/// A bound that was lowered for want of descriptors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Lowered {
    from: u32,
    to: u32,
}

impl fmt::Display for Lowered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Lowered { from, to } = self;
        write!(
            f,
            "global maxconn is {to}, not {from}: listeners, checks and log targets leave \
             descriptors for so many"
        )
    }
}

/// Connections from now on, and whether there would be more of them. An error where the file asks
/// for a number that there are no descriptors for.
pub(super) fn maxconn(
    world: &World,
    origin: &Origin,
    plan: &Plan,
    reads_files: bool,
    lowered: Option<Lowered>,
    kept: &mut Vec<String>,
) -> Result<(u32, Option<Lowered>), String> {
    let wanted = wanted(world, origin, plan, reads_files, lowered, kept);
    let short = match (origin.room.0)(plan, wanted, world.pipes_max) {
        Ok(()) => return Ok((wanted, None)),
        Err(short) => short,
    };
    let is_asked = origin.maxconn_is_fixed || plan.global.maxconn.is_some();
    if short.room == 0 || (is_asked && plan.global.process.strict_limits) {
        return Err(short.text);
    }
    let (from, to) = (wanted, short.room);
    Ok((to, Some(Lowered { from, to })))
}

fn wanted(
    world: &World,
    origin: &Origin,
    plan: &Plan,
    reads_files: bool,
    lowered: Option<Lowered>,
    kept: &mut Vec<String>,
) -> u32 {
    let present = world.limits.max(world.process_limit);
    let is_same = plan.global.maxconn == origin.asked.maxconn;
    if !reads_files || origin.maxconn_is_fixed || is_same {
        // It may have been set since at run time.
        let lowered = lowered.filter(|lowered| lowered.to == present);
        return lowered.map_or(present, |lowered| lowered.from);
    }
    let capacity = world.capacity;
    match plan.global.maxconn {
        Some(maxconn) if maxconn > capacity => {
            kept.push(format!(
                "global maxconn is {capacity}, not {maxconn}, until a restart: descriptors and \
                 memory were divided for so many"
            ));
            capacity
        }
        Some(maxconn) => maxconn,
        None => capacity,
    }
}
