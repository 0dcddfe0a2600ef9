//! What this kernel can do, probed and self-tested at start.
//!
//! Versions lie (back-ports, patched kernels), so nothing is decided by a version number: rings are
//! made, and each receive step, best first, has to carry a known pattern through a socket pair
//! unchanged and to keep its byte limit. What is optional and missing is worked around, and shown.

use std::fmt;
use std::io;

use super::{self_test, uring};
use crate::base::receive::{Capability, ReceiveStep};
use crate::sys::datagram::Feature;

/// What the data plane uses of this kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Caps {
    /// The receive step.
    pub receive: ReceiveStep,
    /// Buffers in each of a shard's two rings.
    pub buffers: u16,
    /// Receive work runs only inside the shard's own turn.
    pub deferred_work: bool,
    /// The ring is named by an index.
    pub registered_ring: bool,
    /// One accept brings many connections.
    pub multishot_accept: bool,
    /// One call sends several datagrams (UDP_SEGMENT).
    pub gso: bool,
    /// One receive brings several datagrams (UDP_GRO).
    pub gro: bool,
    /// Clients of UDP are led to shards by their address and port.
    pub steering: bool,
}

/// What the configuration says about it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// This step or none.
    pub forced: Option<ReceiveStep>,
    /// What counts as missing.
    pub without: Vec<Capability>,
    /// Buffers in each of a shard's two rings.
    pub buffers: u16,
}

/// Why no ring can be used here, and what allows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SetupError(pub String);

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a self-test of a receive step found.
type Finding = (ReceiveStep, io::Result<()>);

impl Caps {
    /// Probes the kernel: takes the first receive step (or the forced one alone) that passes its
    /// self-test.
    pub fn probe(wanted: &Wanted) -> Result<Caps, SetupError> {
        let base = Caps::optional(wanted)?;
        let receive = choose(wanted.forced, |step| base.test(step, wanted))?;
        Ok(Caps { receive, ..base })
    }

    /// What each receive step would be here, best first.
    pub fn survey(&self, wanted: &Wanted) -> Vec<Finding> {
        let steps = ReceiveStep::ALL.into_iter();
        steps.map(|step| (step, self.test(step, wanted))).collect()
    }

    /// What else the ring can do, one line each.
    pub fn describe(&self) -> [(&'static str, bool); 6] {
        [
            ("deferred_work", self.deferred_work),
            ("registered_ring", self.registered_ring),
            ("multishot_accept", self.multishot_accept),
            ("gso", self.gso),
            ("gro", self.gro),
            ("steering", self.steering),
        ]
    }

    /// What every kernel has that can be used at all.
    pub fn least(buffers: u16) -> Caps {
        Caps {
            receive: ReceiveStep::Plain,
            buffers,
            deferred_work: false,
            registered_ring: false,
            multishot_accept: false,
            gso: false,
            gro: false,
            steering: false,
        }
    }

    /// Everything but the receive step, for which the plainest stands.
    fn optional(wanted: &Wanted) -> Result<Caps, SetupError> {
        let may = |capability| !wanted.without.contains(&capability);
        // The least that a shard's ring needs (Linux 5.19).
        uring::bare(false, 8, 64).map_err(|error| SetupError(unusable(&error)))?;
        let mut caps = Caps::least(wanted.buffers);
        caps.deferred_work = may(Capability::DeferredWork) && uring::bare(true, 8, 64).is_ok();
        let unusable = |error: io::Error| SetupError(unusable(&error));
        if may(Capability::RegisteredRing) {
            caps.registered_ring = true;
            let ring = uring::Uring::with_entries(&caps, 8, 64).map_err(unusable)?;
            caps.registered_ring = ring.is_registered();
        }
        if may(Capability::MultishotAccept) {
            caps.multishot_accept = true;
            // An error is a kernel that lacks it: accept4(2) needs nothing else.
            caps.multishot_accept = self_test::multishot_accept(&caps).unwrap_or(false);
        }
        let has = |feature: Feature| feature.is_there().is_ok();
        caps.gso = may(Capability::Gso) && has(Feature::Gso);
        caps.gro = may(Capability::Gro) && has(Feature::Gro);
        caps.steering = may(Capability::Steering) && has(Feature::Steering);
        Ok(caps)
    }

    fn test(&self, step: ReceiveStep, wanted: &Wanted) -> io::Result<()> {
        if wanted.without.contains(&Capability::Receive(step)) {
            return Err(io::Error::other("left out by 'tune.ring.without'"));
        }
        self_test::receive(&Caps {
            receive: step,
            ..self.clone()
        })
    }
}

/// The first step, or the forced one alone, that passes `test`.
fn choose(
    forced: Option<ReceiveStep>,
    mut test: impl FnMut(ReceiveStep) -> io::Result<()>,
) -> Result<ReceiveStep, SetupError> {
    if let Some(step) = forced {
        let failed = |error| {
            SetupError(format!(
                "'tune.ring.receive {}' can't be had from this kernel: {error}. It came with Linux {}; 'auto' \
             takes the best step that works.",
                step.name(),
                step.since()
            ))
        };
        return test(step).map(|()| step).map_err(failed);
    }
    let mut findings = Vec::new();
    for step in ReceiveStep::ALL {
        match test(step) {
            Ok(()) => return Ok(step),
            Err(error) => {
                log::info!("receive step {}: {error}", step.name());
                findings.push(format!("{}: {error}", step.name()));
            }
        }
    }
    Err(SetupError(format!(
        "this kernel passes none of the io_uring receive self-tests ({}). Linux 6.0 or later is needed, \
         6.17 or later is best.",
        findings.join("; ")
    )))
}

/// Why there is no ring at all.
fn unusable(error: &io::Error) -> String {
    let known = error.raw_os_error().and_then(explain);
    known.map_or_else(
        || {
            format!(
                "io_uring can't be used: a ring is refused ({error}). Linux 6.0 or later is needed, 6.17 \
                 or later is best."
            )
        },
        str::to_owned,
    )
}

/// Whether the process, as who it is now, may make a ring: what was probed before it gave up its
/// privileges may not hold any more.
pub fn rings_allowed() -> Result<(), SetupError> {
    let ring = io_uring::IoUring::new(8).map(drop);
    ring.map_err(|error| SetupError(unusable(&error)))
}

/// What an error of ring set-up means and how to allow it; `None` = nothing that is known.
fn explain(errno: i32) -> Option<&'static str> {
    match errno {
        libc::ENOSYS => Some(
            "io_uring is missing: this kernel has no io_uring_setup system call (built without \
             CONFIG_IO_URING, or a sandbox hides it). Use a kernel with io_uring, or a container runtime \
             that passes it through.",
        ),
        libc::EPERM | libc::EACCES => Some(
            "io_uring is forbidden: io_uring_setup was refused. Either the sysctl kernel.io_uring_disabled \
             is 1 or 2 (allow it with `sysctl -w kernel.io_uring_disabled=0`, or at 1 add the process's \
             group to kernel.io_uring_group), or a seccomp profile denies it (allow io_uring_setup, \
             io_uring_enter and io_uring_register; in a container: --security-opt seccomp=PROFILE; in \
             systemd: SystemCallFilter=@io-event io_uring_setup io_uring_enter io_uring_register).",
        ),
        libc::ENOMEM => Some(
            "io_uring has no memory: the locked-memory limit is too low for a ring (raise RLIMIT_MEMLOCK, \
             `LimitMEMLOCK=infinity` in systemd).",
        ),
        libc::EMFILE | libc::ENFILE => {
            Some("io_uring can't be set up: no descriptor is left (raise RLIMIT_NOFILE).")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> Wanted {
        Wanted {
            forced: None,
            without: Vec::new(),
            buffers: 8,
        }
    }

    #[test]
    fn every_step_passes_on_this_kernel() {
        for step in ReceiveStep::ALL {
            for buffers in [2, 8] {
                let forced = Wanted {
                    forced: Some(step),
                    buffers,
                    ..wanted()
                };
                let caps = Caps::probe(&forced).unwrap();
                assert_eq!((caps.receive, caps.buffers), (step, buffers));
            }
        }
    }

    #[test]
    fn every_step_passes_without_what_is_optional() {
        let least = Wanted {
            without: Capability::ALL[4..].to_vec(),
            ..wanted()
        };
        let caps = Caps::probe(&least).unwrap();
        assert!(caps.describe().iter().all(|(_, has)| !has), "{caps:?}");
        for (step, found) in caps.survey(&wanted()) {
            assert!(found.is_ok(), "{}: {found:?}", step.name());
        }
    }

    #[test]
    fn the_best_step_is_chosen_and_nothing_is_missing() {
        let caps = Caps::probe(&wanted()).unwrap();
        let mut found = caps.survey(&wanted()).into_iter();
        let best = found.find(|(_, found)| found.is_ok()).unwrap();
        assert_eq!(caps.receive, best.0);
        assert!(caps.describe().iter().all(|(_, has)| *has), "{caps:?}");
    }

    #[test]
    fn a_mismatch_leads_to_the_next_lower_step() {
        for (passing, step) in ReceiveStep::ALL.into_iter().enumerate() {
            let mut asked = 0;
            let chosen = choose(None, |_| {
                asked += 1;
                if asked > passing {
                    Ok(())
                } else {
                    Err(io::Error::other("the pattern came back changed"))
                }
            });
            assert_eq!((chosen, asked), (Ok(step), passing + 1));
        }
        let none = choose(None, |_| Err(io::Error::from_raw_os_error(libc::EINVAL)));
        let SetupError(text) = none.unwrap_err();
        assert!(text.contains("Linux 6.0 or later is needed"), "{text}");
        for step in ReceiveStep::ALL {
            assert!(text.contains(step.name()), "{text}");
        }
    }

    #[test]
    fn a_forced_step_that_fails_is_not_replaced() {
        for step in ReceiveStep::ALL {
            let mut asked = Vec::new();
            let chosen = choose(Some(step), |step| {
                asked.push(step);
                Err(io::Error::from_raw_os_error(libc::EINVAL))
            });
            let SetupError(text) = chosen.unwrap_err();
            assert_eq!(asked, [step]);
            assert!(
                text.contains(&format!("'tune.ring.receive {}'", step.name())),
                "{text}"
            );
            assert!(text.contains(step.since()), "{text}");
        }
    }

    #[test]
    fn refusals_are_explained() {
        assert!(explain(libc::ENOSYS).is_some_and(|t| t.contains("missing")));
        assert!(explain(libc::EPERM).is_some_and(|t| t.contains("io_uring_disabled")));
        assert!(explain(libc::EINVAL).is_none());
        let old = unusable(&io::Error::from_raw_os_error(libc::EINVAL));
        assert!(old.contains("Linux 6.0 or later is needed"), "{old}");
    }
}
