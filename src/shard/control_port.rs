//! The control thread's port: what shards tell it of servers.
//!
//! A full queue drops what is said and counts it: nothing here makes a shard wait. What is lost is
//! one failure among thousands that the control thread has not looked at yet.

use crossbeam::queue::ArrayQueue;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};

use crate::base::ids::ServerId;
use crate::base::time::Moment;
use crate::sys::EventFd;

/// What a shard has seen of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Observation {
    /// An attempt to connect failed by the server's fault.
    Failed {
        /// The server.
        server: ServerId,
        /// When the attempt began.
        began: Moment,
        /// When it failed.
        at: Moment,
    },
    /// `error-limit` attempts in a row have failed.
    ErrorLimit {
        /// The server.
        server: ServerId,
    },
}

/// One for the process.
#[derive(Debug)]
pub struct ControlPort {
    observations: ArrayQueue<Observation>,
    dropped: AtomicU64,
    /// Something was said since the control thread began to listen.
    is_notified: AtomicBool,
    wake: EventFd,
}

impl ControlPort {
    /// A port whose queue holds `capacity` observations.
    pub fn new(capacity: usize) -> std::io::Result<ControlPort> {
        Ok(ControlPort {
            observations: ArrayQueue::new(capacity),
            dropped: AtomicU64::new(0),
            is_notified: AtomicBool::new(false),
            wake: EventFd::new()?,
        })
    }

    /// Tells something; never blocks. The control thread is woken by the first of many.
    pub(super) fn tell(&self, observation: Observation) {
        if self.observations.push(observation).is_err() {
            self.dropped.fetch_add(1, Relaxed);
        }
        self.notify();
    }

    /// Wakes the control thread, if nobody has since it began to listen.
    pub(super) fn notify(&self) {
        if !self.is_notified.swap(true, SeqCst) {
            self.wake.notify();
        }
    }

    /// Gets ready for what is told from now on: whoever tells something after this wakes the
    /// control thread, which takes what is there by `next`.
    pub fn listen(&self) {
        self.wake.take();
        self.is_notified.swap(false, SeqCst);
    }

    /// The oldest observation.
    pub fn next(&self) -> Option<Observation> {
        self.observations.pop()
    }

    /// Observations dropped because the queue was full.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Readable when something was told.
    pub fn wake(&self) -> &EventFd {
        &self.wake
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;

    fn failed(n: u64) -> Observation {
        Observation::Failed {
            server: ServerId(0),
            began: Moment(n),
            at: Moment(n),
        }
    }

    #[test]
    fn the_first_of_many_wakes_and_what_does_not_fit_is_counted() {
        let port = ControlPort::new(2).unwrap();
        assert!(!port.wake.take());
        (0..5).for_each(|n| port.tell(failed(n)));
        assert!(port.wake.take());
        port.tell(failed(5));
        assert!(!port.wake.take(), "it knows already");
        port.listen();
        assert_eq!(
            [port.next(), port.next()],
            [Some(failed(0)), Some(failed(1))]
        );
        assert_eq!((port.next(), port.dropped()), (None, 4));
        port.tell(failed(6));
        assert!(port.wake.take());
        assert_eq!(port.next(), Some(failed(6)));
    }

    /// Nothing that is told stays unseen by who sleeps until it is woken.
    #[test]
    fn nothing_told_is_slept_through() {
        let port = ControlPort::new(1 << 16).unwrap();
        let (shards, each) = (3, 10_000);
        std::thread::scope(|scope| {
            for _ in 0..shards {
                scope.spawn(|| (0..each).for_each(|n| port.tell(failed(n))));
            }
            let (mut seen, until) = (0, clock::now().after_ms(20_000));
            while seen < shards * each && clock::now() < until {
                if !port.wake.take() {
                    std::thread::yield_now();
                    continue;
                }
                port.listen();
                seen += std::iter::from_fn(|| port.next()).count() as u64;
            }
            assert_eq!((seen, port.dropped()), (shards * each, 0));
        });
    }
}
