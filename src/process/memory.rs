//! The bound of the process's memory, and what it leaves for sessions, their bytes and pipes.
//!
//! Everything that grows with load is counted before it is let in: a session by the process's limit
//! of connections, a receive by its reservation, a pipe by their number. So the sum made here at
//! the start holds without anybody looking at it later. What does not grow is measured generously.

use super::pipes::Wanted;
use crate::config::plan::{Global, Plan};
use crate::limits;
use crate::ring::INBOXES_BYTES;

const _: () = assert!(INBOXES_BYTES <= limits::MEMORY_OF_DATAGRAMS);

/// What is to be shared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'a> {
    pub(super) plan: &'a Plan,
    pub(super) shards: u16,
    /// Memory of the machine or of the cgroup, whichever is less, bytes; 0 = unknown.
    pub(super) there: u64,
}

/// How it is shared.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Shares {
    /// The bound of all together.
    pub(super) limit: u64,
    /// Connections that fit.
    pub(super) maxconn: u32,
    /// Private memory of all directions.
    pub(super) private: u64,
    /// Pipes that fit.
    pub(super) pipes: u32,
    /// Flows of datagrams that fit.
    pub(super) flows: u32,
    /// Why there are fewer connections or pipes than were asked for.
    pub(super) warnings: Vec<String>,
}

impl Asked<'_> {
    fn global(&self) -> &Global {
        &self.plan.global
    }

    /// What the process takes without a single session.
    fn fixed(&self) -> u64 {
        let rings = u64::from(self.global().ring_buffers) * limits::MEMORY_PER_RING_BUFFER;
        let each = limits::MEMORY_PER_SHARD + rings;
        limits::MEMORY_OF_PROCESS + u64::from(self.shards) * each + self.inboxes()
    }

    /// What the shards receive datagrams into.
    fn inboxes(&self) -> u64 {
        match self.plan.has_datagrams() {
            true => u64::from(self.shards) * limits::MEMORY_OF_DATAGRAMS,
            false => 0,
        }
    }

    /// The least that the process can do with.
    fn least(&self) -> u64 {
        self.fixed() + limits::MEMORY_MIN
    }

    /// What a connection takes beside its bytes.
    fn per_session(&self) -> u64 {
        limits::MEMORY_PER_SESSION + u64::from(self.shards) * limits::MEMORY_PER_MESSAGE
    }

    /// The bound where none is configured: half of what is there, as the kernel's buffers of all
    /// these connections need some too.
    fn usual(&self) -> u64 {
        let floor = self.least() + limits::MEMORY_FLOOR;
        (self.there / limits::MEMORY_DIVISOR).max(floor)
    }

    /// Bytes that a computed number of pipes may take: an eighth of the bound.
    pub(super) fn for_pipes(&self) -> u64 {
        let limit = self.global().memory_limit.unwrap_or_else(|| self.usual());
        limit.saturating_sub(self.fixed()) / 8
    }

    /// Memory of flows on top of a sum of everything else.
    fn flows_beside(&self, sum: u64) -> u64 {
        match self.global().udp_flows_max {
            _ if !self.plan.has_datagrams() => 0,
            Some(asked) => u64::from(asked) * limits::MEMORY_PER_FLOW,
            None => sum / (limits::FLOWS_MEMORY_DIVISOR - 1),
        }
    }

    /// Flows of datagrams within `rest`, which sessions share with them: those that are asked for
    /// as far as they fit into half of it.
    fn flows(&self, rest: u64, is_sum: bool, warnings: &mut Vec<String>) -> u32 {
        if !self.plan.has_datagrams() {
            return 0;
        }
        let of = |bytes: u64| u32::try_from(bytes / limits::MEMORY_PER_FLOW).unwrap_or(u32::MAX);
        let Some(asked) = self.global().udp_flows_max else {
            let computed = of(rest / limits::FLOWS_MEMORY_DIVISOR);
            return computed.clamp(1, limits::FLOWS_COMPUTED_MAX);
        };
        // The bound is the sum of what is asked for.
        let most = if is_sum { asked } else { of(rest / 2).max(1) };
        if asked > most {
            warnings.push(format!(
                "tune.udp.maxflows {asked} takes {} of the {} of memory that are left, of which \
                 half can be for flows. Lowered to {most}.",
                mebibytes(u64::from(asked) * limits::MEMORY_PER_FLOW),
                mebibytes(rest)
            ));
        }
        asked.min(most)
    }

    /// Shares it. `maxconn` is what descriptors allow; `is_asked` = the configuration says so.
    pub(super) fn share(
        &self,
        maxconn: u32,
        is_asked: bool,
        (pipes, wanted, pipe_size): (u32, Wanted, u32),
    ) -> Result<Shares, String> {
        let global = self.global();
        let mut warnings = Vec::new();
        let each = self.per_session() + 2 * limits::MEMORY_PER_DIRECTION_MIN;
        let pipe_size = u64::from(pipe_size);
        // As much again for what directions hold above the least, so that some can be fast.
        let for_sessions = |count: u32| (u64::from(count) + 1) * each / 3 * 4;
        let for_pipes = |count: u32| u64::from(count) * pipe_size;
        let needed = self.least() + for_sessions(maxconn) + for_pipes(pipes);
        let limit = match (global.memory_limit, global.memory_bytes) {
            (Some(limit), _) => limit,
            // A budget of private memory is asked for, and the rest is added.
            (None, Some(private)) => {
                let sessions = u64::from(maxconn) * self.per_session();
                let private = private.max(self.private_min(maxconn));
                let sum = self.fixed() + sessions + private + for_pipes(pipes);
                sum + self.flows_beside(sum)
            }
            // Who asks for so many connections gets them as long as they fit into the machine.
            (None, None) if is_asked || wanted.configured() > 0 => {
                self.usual().max(needed.min(self.there))
            }
            (None, None) => self.usual(),
        };
        let Some(rest) = limit.checked_sub(self.least()) else {
            let of_datagrams = match self.inboxes() {
                0 => String::new(),
                bytes => format!(", {} of it to receive datagrams", mebibytes(bytes)),
            };
            return Err(format!(
                "memory-limit {} is too low: {} shards need {} without any connection{of_datagrams}. \
                 Raise it or lower nbthread or tune.ring.buffers.",
                mebibytes(limit),
                self.shards,
                mebibytes(self.least())
            ));
        };
        // The bound is the sum of what is asked for.
        let is_sum = global.memory_limit.is_none() && global.memory_bytes.is_some();
        let pipes_most = if is_sum {
            pipes
        } else {
            u32::try_from(rest / 2 / pipe_size).unwrap_or(u32::MAX)
        };
        if pipes > pipes_most && matches!(wanted, Wanted::Configured(_)) {
            let text = format!(
                "maxpipes {pipes} takes {} of the bound of memory, {}, of which {} can be for pipes",
                mebibytes(for_pipes(pipes)),
                mebibytes(limit),
                mebibytes(rest / 2)
            );
            // A bound that nobody has set refuses nothing.
            if global.process.strict_limits && global.memory_limit.is_some() {
                return Err(format!("{text}. Lower maxpipes to {pipes_most} at most."));
            }
            warnings.push(format!("{text}. Lowered to {pipes_most}."));
        }
        let pipes = pipes.min(pipes_most);
        let rest = rest - for_pipes(pipes);
        let flows = self.flows(rest, is_sum, &mut warnings);
        let rest = rest.saturating_sub(u64::from(flows) * limits::MEMORY_PER_FLOW);
        let fit = u32::try_from(rest / 4 * 3 / each)
            .unwrap_or(u32::MAX)
            .max(1);
        let fitting = if is_sum { maxconn } else { maxconn.min(fit) };
        if fitting < maxconn && is_asked {
            warnings.push(format!(
                "maxconn {maxconn} needs {} of memory and the bound is {}: {fitting} connections \
                 are let in at a time, more wait to be accepted.",
                mebibytes(needed),
                mebibytes(limit)
            ));
        }
        let left = rest + limits::MEMORY_MIN;
        let mut private = left.saturating_sub(u64::from(fitting) * self.per_session());
        if let Some(asked) = global.memory_bytes {
            private = private.min(asked.max(self.private_min(fitting)));
        }
        Ok(Shares {
            limit,
            maxconn: fitting,
            // Chunks have names of their own, which are not in them.
            private: private / 64 * 63,
            pipes,
            flows,
            warnings,
        })
    }

    /// Private memory with which every direction can have its page and some can be fast.
    fn private_min(&self, maxconn: u32) -> u64 {
        2 * u64::from(maxconn) * limits::MEMORY_PER_DIRECTION_MIN + limits::MEMORY_MIN
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(memory_limit: Option<u64>, memory_bytes: Option<u64>) -> Plan {
        let global = Global {
            memory_limit,
            memory_bytes,
            ..Global::default()
        };
        Plan {
            global,
            ..Plan::default()
        }
    }

    const MIB: u64 = 1 << 20;
    const NONE: (u32, Wanted, u32) = (0, Wanted::None, 1 << 20);

    fn asked(plan: &Plan, there: u64) -> Asked<'_> {
        Asked {
            plan,
            shards: 2,
            there,
        }
    }

    /// What a process of these shares can come to.
    fn most(asked: Asked<'_>, shares: &Shares) -> u64 {
        asked.fixed()
            + u64::from(shares.maxconn) * asked.per_session()
            + shares.private / 63 * 64
            + u64::from(shares.pipes) * MIB
            + u64::from(shares.flows) * limits::MEMORY_PER_FLOW
    }

    #[test]
    fn the_shares_stay_within_the_bound() {
        for limit in [48, 64, 100, 1_000, 20_000].map(|mib| mib * MIB) {
            for maxconn in [1, 100, 9_000, 500_000] {
                for pipes in [0, 7, 3_000] {
                    let plan = plan(Some(limit), None);
                    let asked = asked(&plan, 1 << 40);
                    let pipes = (pipes, Wanted::Computed { most: pipes }, 1 << 20);
                    let shares = asked.share(maxconn, false, pipes).unwrap();
                    assert_eq!(shares.limit, limit);
                    assert!(most(asked, &shares) <= limit, "{shares:?}");
                    assert!(shares.private >= asked.private_min(shares.maxconn) / 2);
                    assert!(shares.maxconn > 0 && shares.warnings.is_empty());
                }
            }
        }
    }

    #[test]
    fn flows_have_their_part_and_no_more() {
        let of = |limit: Option<u64>, bytes, flows| {
            let mut plan = crate::process::budget::tests::datagrams();
            plan.global.memory_limit = limit;
            plan.global.memory_bytes = bytes;
            plan.global.udp_flows_max = flows;
            let asked = asked(&plan, 1 << 40);
            let shares = asked.share(1_000, true, NONE).unwrap();
            assert!(most(asked, &shares) <= shares.limit, "{shares:?}");
            (shares.flows, shares.maxconn, shares.warnings.len())
        };
        let limit = Some(1_024 * MIB);
        let (computed, maxconn, warnings) = of(limit, None, None);
        // An eighth of what is left beside the shards.
        assert!((200_000..250_000).contains(&computed), "{computed}");
        assert_eq!((maxconn, warnings), (1_000, 0));
        assert_eq!(of(limit, None, Some(5_000)), (5_000, 1_000, 0));
        let (lowered, _, warnings) = of(limit, None, Some(2_000_000));
        assert!(lowered < 1_000_000 && warnings == 1, "{lowered}");
        assert_eq!(of(Some(1 << 36), None, None).0, limits::FLOWS_COMPUTED_MAX);
        // On top of a budget of private memory.
        let (flows, maxconn, warnings) = of(None, Some(16 * MIB), Some(50_000));
        assert_eq!((flows, maxconn, warnings), (50_000, 1_000, 0));
        let streams = plan(limit, None);
        let shares = asked(&streams, 1 << 40).share(1_000, true, NONE).unwrap();
        assert_eq!(shares.flows, 0);
    }

    #[test]
    fn who_asks_for_too_many_connections_is_told() {
        let small = plan(Some(64 * MIB), None);
        let shares = asked(&small, 1 << 40).share(50_000, true, NONE).unwrap();
        assert!(shares.maxconn < 5_000);
        let warning = &shares.warnings[0];
        assert!(
            warning.contains("maxconn 50000") && warning.contains("64 MiB"),
            "{warning}"
        );
        // Without a bound of its own they are let in as long as the machine has the memory.
        let usual = plan(None, None);
        let there = 1_024 * MIB;
        let many = asked(&usual, there).share(70_000, true, NONE).unwrap();
        assert_eq!((many.maxconn, many.warnings.len()), (70_000, 0));
        assert!(many.limit > there / 2 && many.limit <= there);
        let few = asked(&usual, there).share(70_000, false, NONE).unwrap();
        assert_eq!(few.limit, there / 2);
        assert!(few.maxconn < 70_000 && few.warnings.is_empty());
    }

    #[test]
    fn what_can_not_be_is_refused() {
        let tiny = plan(Some(8 * MIB), None);
        let error = asked(&tiny, 1 << 40).share(10, false, NONE).unwrap_err();
        assert!(
            error.contains("memory-limit 8 MiB") && error.contains("2 shards"),
            "{error}"
        );
        assert!(!error.contains("datagrams"), "{error}");
        // Enough for two shards, and too little for what they receive datagrams into.
        let mut relays = crate::process::budget::tests::datagrams();
        relays.global.memory_limit = Some(60 * MIB);
        let streams = plan(Some(60 * MIB), None);
        assert!(asked(&streams, 1 << 40).share(10, false, NONE).is_ok());
        let error = asked(&relays, 1 << 40).share(10, false, NONE).unwrap_err();
        let expected = [
            ", 35 MiB of it to receive datagrams.",
            "memory-limit 60 MiB",
        ];
        assert!(expected.iter().all(|text| error.contains(text)), "{error}");
        let mut small = plan(Some(100 * MIB), None);
        let pipes = (500, Wanted::Configured(500), 1 << 20);
        let error = asked(&small, 1 << 40).share(10, false, pipes).unwrap_err();
        assert!(error.contains("maxpipes 500"), "{error}");
        small.global.process.strict_limits = false;
        let shares = asked(&small, 1 << 40).share(10, false, pipes).unwrap();
        assert!(shares.pipes < 100 && shares.warnings.len() == 1);
    }

    #[test]
    fn a_budget_of_private_memory_alone_is_not_a_bound_of_connections() {
        let plan = plan(None, Some(16 * MIB));
        let asked = asked(&plan, 1 << 40);
        let shares = asked.share(9_000, true, NONE).unwrap();
        assert_eq!((shares.maxconn, shares.warnings.len()), (9_000, 0));
        assert!(shares.private >= 9_000 * 8_192);
        assert!(most(asked, &shares) <= shares.limit);
        // Pipes that are asked for come on top of it too.
        let pipes = (64, Wanted::Configured(64), 1 << 20);
        let shares = asked.share(100, true, pipes).unwrap();
        assert_eq!((shares.pipes, shares.warnings.len()), (64, 0));
        assert!(most(asked, &shares) <= shares.limit);
    }

    #[test]
    fn a_machine_that_is_unknown_or_tiny_is_of_use() {
        let plan = plan(None, None);
        let shares = asked(&plan, 0).share(100_000, false, NONE).unwrap();
        assert!((1_000..10_000).contains(&shares.maxconn), "{shares:?}");
    }
}
