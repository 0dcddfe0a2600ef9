//! How many pipes there may be: what the configuration asks for, and what the kernel lets this
//! user have, pipe(7) and proc(5).
//!
//! Beyond `pipe-user-pages-soft` a user without privileges gets pipes of two pages that can't grow:
//! to splice through those costs more than copying. So a computed number stays below.

use std::path::Path;

use crate::config::plan::{Global, Plan};
use crate::sys::PAGE;

/// Capabilities, linux/capability.h: either lifts the limits of a user, the second alone that of a
/// pipe's size.
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;
/// The user map of the namespace in which capabilities count for these limits.
const FIRST_NAMESPACE: [&str; 3] = ["0", "0", "4294967295"];
/// Pipes where no proxy asks for splicing: only what a busy shard moves in bulk is spliced then,
/// and a direction has a pipe only while its bytes are in it.
const UNASKED_MAX: u64 = 64;
/// Two processes of the user share its pages while one takes the other's place.
const PROCESSES: u64 = 2;

/// What the kernel allows, and to whom.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct KernelLimits {
    /// Largest pipe of a user without privileges, bytes.
    size_max: u64,
    /// Pages of all pipes of such a user, 0 = any number.
    user_pages: u64,
    /// Effective capabilities that count.
    capabilities: u64,
}

/// Pipes that are asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// None: nothing is spliced.
    None,
    /// As many as `maxpipes` says.
    Configured(u32),
    /// A quarter of the connections, and no more than this.
    Computed {
        /// What users' limits and memory leave.
        most: u32,
    },
}

impl Wanted {
    /// Those that are counted on whatever the number of connections.
    pub fn configured(self) -> u32 {
        match self {
            Wanted::Configured(number) => number,
            Wanted::None | Wanted::Computed { .. } => 0,
        }
    }

    /// Those for a number of connections, of at most `room`.
    pub fn number(self, maxconn: u32, room: u64) -> u32 {
        match self {
            Wanted::None => 0,
            Wanted::Configured(number) => number,
            Wanted::Computed { most } => {
                let room = u32::try_from(room).unwrap_or(u32::MAX);
                maxconn.div_ceil(4).min(most).min(room)
            }
        }
    }
}

impl KernelLimits {
    /// Those of this process. What can't be read limits nothing: making a pipe will tell.
    pub(super) fn read() -> KernelLimits {
        let text = |path: &str| std::fs::read_to_string(Path::new(path)).unwrap_or_default();
        let number = |path: &str| text(path).trim().parse().ok();
        let map = text("/proc/self/uid_map");
        let is_first = map.split_whitespace().eq(FIRST_NAMESPACE);
        let status = text("/proc/self/status");
        let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
        let effective = effective.and_then(|word| u64::from_str_radix(word.trim(), 16).ok());
        KernelLimits {
            size_max: number("/proc/sys/fs/pipe-max-size").unwrap_or(u64::MAX),
            user_pages: number("/proc/sys/fs/pipe-user-pages-soft").unwrap_or(0),
            capabilities: effective.filter(|_| is_first).unwrap_or(0),
        }
    }

    /// Capabilities once the process has become who it is to be.
    fn kept(&self, global: &Global) -> u64 {
        match global.process.user_id {
            None | Some(0) => self.capabilities,
            Some(_) => 0,
        }
    }

    /// The size that pipes can have, bytes; a size that was asked for and can't be had is told.
    pub(super) fn size(&self, global: &Global) -> (u32, Option<String>) {
        let rounded = |size: u32| size.max(PAGE as u32).next_power_of_two();
        let wanted = rounded(global.pipe_size);
        let free = self.kept(global) & CAP_SYS_RESOURCE != 0;
        if free || u64::from(wanted) <= self.size_max {
            return (wanted, None);
        }
        let size = rounded(u32::try_from(self.size_max).unwrap_or(u32::MAX));
        let told = (global.pipe_size != Global::default().pipe_size).then(|| {
            format!(
                "tune.pipesize {} is more than this user may ask for: pipes have {size} bytes \
                 (/proc/sys/fs/pipe-max-size).",
                global.pipe_size
            )
        });
        (size, told)
    }

    /// Pipes that are asked for; `memory_bytes` is what a computed number may take.
    pub(super) fn wanted(&self, plan: &Plan, size: u32, memory_bytes: u64) -> Wanted {
        if !plan.global.splice {
            return Wanted::None;
        }
        if let Some(number) = plan.global.maxpipes {
            return Wanted::Configured(number);
        }
        let size = u64::from(size);
        let privileged = self.kept(&plan.global) & (CAP_SYS_ADMIN | CAP_SYS_RESOURCE) != 0;
        let pages = if privileged || self.user_pages == 0 {
            u64::MAX
        } else {
            self.user_pages / PROCESSES
        };
        let asked = plan.proxies.iter().any(|proxy| proxy.splice.any());
        let needed = if asked { u64::MAX } else { UNASKED_MAX };
        let most = needed
            .min(pages / (size / PAGE as u64))
            .min(memory_bytes / size);
        Wanted::Computed {
            most: u32::try_from(most).unwrap_or(u32::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load_text;
    use crate::control::resolve::SystemEnvironment;

    fn plan(global: &str, options: &str) -> Plan {
        let text = format!(
            "global\n{global}\nlisten l\n  bind 127.0.0.1:1\n  {options}\n  server s 127.0.0.1:2\n"
        );
        load_text("t.cfg", text.as_bytes(), &SystemEnvironment::new())
            .0
            .expect("a plan")
    }

    const USER: KernelLimits = KernelLimits {
        size_max: 1 << 20,
        user_pages: 16_384,
        capabilities: 0,
    };

    #[test]
    fn pipes_are_computed_from_what_a_user_may_have() {
        let splices = plan("", "option splice-auto");
        let wanted = |limits: KernelLimits, memory| limits.wanted(&splices, 1 << 20, memory);
        assert_eq!(wanted(USER, 1 << 40), Wanted::Computed { most: 32 });
        assert_eq!(wanted(USER, 5 << 20), Wanted::Computed { most: 5 });
        let root = KernelLimits {
            capabilities: CAP_SYS_ADMIN,
            ..USER
        };
        assert_eq!(wanted(root, 1 << 30), Wanted::Computed { most: 1024 });
        let anything = KernelLimits {
            user_pages: 0,
            ..USER
        };
        assert_eq!(wanted(anything, 1 << 30), Wanted::Computed { most: 1024 });
        // Whoever gives the privileges up is a user like any other.
        let leaves = plan("  uid 65534", "option splice-response");
        let most = root.wanted(&leaves, 64 << 10, 1 << 40);
        assert_eq!(most, Wanted::Computed { most: 512 });
    }

    #[test]
    fn pipes_are_for_whom_they_are_asked() {
        let of = |global, options| USER.wanted(&plan(global, options), 1 << 20, 1 << 40);
        assert_eq!(of("  maxpipes 9", ""), Wanted::Configured(9));
        assert_eq!(of("", ""), Wanted::Computed { most: 32 });
        let root = KernelLimits {
            capabilities: CAP_SYS_RESOURCE,
            ..USER
        };
        let unasked = root.wanted(&plan("", ""), 1 << 20, 1 << 40);
        assert_eq!(
            unasked,
            Wanted::Computed {
                most: UNASKED_MAX as u32
            }
        );
        assert_eq!(of("  nosplice", "option splice-auto"), Wanted::None);
        assert_eq!(
            of("  maxpipes 9", "option splice-request"),
            Wanted::Configured(9)
        );
        assert_eq!(Wanted::Configured(9).number(1, 0), 9);
        let computed = Wanted::Computed { most: 100 };
        let numbers = [(1, 50), (399, 500), (9_000, 500), (9_000, 3)];
        let pipes = numbers.map(|(maxconn, room)| computed.number(maxconn, room));
        assert_eq!(pipes, [1, 100, 100, 3]);
    }

    #[test]
    fn a_pipe_is_a_power_of_two_and_no_larger_than_allowed() {
        let size = |limits: KernelLimits, bytes: u32| {
            let global = Global {
                pipe_size: bytes,
                ..Global::default()
            };
            let (size, told) = limits.size(&global);
            (size, told.is_some())
        };
        assert_eq!(size(USER, 1 << 20), (1 << 20, false));
        assert_eq!(size(USER, 1), (4_096, false));
        assert_eq!(size(USER, 70_000), (131_072, false));
        assert_eq!(size(USER, 2 << 20), (1 << 20, true));
        let small = KernelLimits {
            size_max: 65_536,
            ..USER
        };
        // Nobody has asked for the default.
        assert_eq!(size(small, 1 << 20), (65_536, false));
        let root = KernelLimits {
            capabilities: CAP_SYS_RESOURCE,
            ..USER
        };
        assert_eq!(size(root, 2 << 20), (2 << 20, false));
    }
}
