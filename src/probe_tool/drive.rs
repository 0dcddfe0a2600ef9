//! The load: so many workers that make attempts one after the other, in turn with the rate, until
//! there were enough, the time is over, or somebody stops them.
//!
//! One thread. A worker is a task; what is open at a time is bounded by their number.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

use super::attempt::{self, Plan};
use super::tally::Tally;
use crate::base::time::Moment;
use crate::sys::clock;

/// An attempt that begins so much after its turn is late: the rate is then not kept.
const LATE: Duration = Duration::from_millis(100);

/// How much load.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Load {
    /// Attempts in all; the time ends it where there is none.
    pub(super) count: Option<u64>,
    pub(super) time: Option<Duration>,
    /// Per second.
    pub(super) rate: Option<u32>,
    pub(super) concurrency: u32,
}

/// What the workers of a load share.
struct Common {
    plan: Plan,
    load: Load,
    begun: Moment,
    next: Cell<u64>,
    tally: Rc<RefCell<Tally>>,
}

impl Common {
    /// The next attempt's turn: when it may begin; `None` after the last.
    fn turn(&self) -> Option<Moment> {
        let number = self.next.get();
        if self.load.count.is_some_and(|count| number >= count) {
            return None;
        }
        let at = match self.load.rate {
            Some(rate) => {
                let ns = u128::from(number) * 1_000_000_000 / u128::from(rate.max(1));
                self.begun + Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX))
            }
            None => clock::now(),
        };
        let end = self.load.time.map(|time| self.begun + time);
        // Even on a host that had no time for it, there is one attempt to tell of.
        if number > 0 && end.is_some_and(|end| at.max(clock::now()) >= end) {
            return None;
        }
        self.next.set(number + 1);
        Some(at)
    }
}

/// Runs a load to its end. What is under way when it is stopped is given up and not counted.
pub(super) async fn drive(
    plan: &Plan,
    load: Load,
    tally: &Rc<RefCell<Tally>>,
    stop: &watch::Receiver<bool>,
) {
    let common = Rc::new(Common {
        plan: plan.clone(),
        load,
        begun: clock::now(),
        next: Cell::new(0),
        tally: Rc::clone(tally),
    });
    let workers = u64::from(load.concurrency).min(load.count.unwrap_or(u64::MAX));
    let worker = |_| {
        let (common, mut stop) = (Rc::clone(&common), stop.clone());
        tokio::task::spawn_local(async move {
            tokio::select! {
                () = work(&common) => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        })
    };
    let workers: Vec<_> = (0..workers).map(worker).collect();
    for worker in workers {
        // It has no way to fail but a panic, which has been reported.
        let _ = worker.await;
    }
}

async fn work(common: &Common) {
    while let Some(turn) = common.turn() {
        let early = turn - clock::now();
        if !early.is_zero() {
            tokio::time::sleep(early).await;
        } else if clock::now() - turn > LATE {
            common.tally.borrow_mut().late += 1;
        }
        let outcome = attempt::attempt(&common.plan).await;
        let now = clock::now();
        match outcome {
            Ok((answer, close)) => {
                common.tally.borrow_mut().record(now, Ok(answer));
                close.await;
            }
            Err(failure) => common.tally.borrow_mut().record(now, Err(failure)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe_tool::options::Identify;

    fn common(load: Load) -> Common {
        let begun = clock::now();
        Common {
            plan: Plan {
                target: ([127, 0, 0, 1], 1).into(),
                udp: false,
                payload: Vec::new(),
                identify: Identify::Nothing,
                timeout: Duration::from_secs(1),
            },
            load,
            begun,
            next: Cell::new(0),
            tally: Rc::new(RefCell::new(Tally::new(begun))),
        }
    }

    const LOAD: Load = Load {
        count: Some(3),
        time: None,
        rate: None,
        concurrency: 1,
    };

    #[test]
    fn attempts_have_turns_by_rate_and_an_end_by_number() {
        let common = common(Load {
            rate: Some(4),
            ..LOAD
        });
        let turns: Vec<u64> = std::iter::from_fn(|| common.turn())
            .map(|turn| turn.ms_since(common.begun))
            .collect();
        assert_eq!(turns, [0, 250, 500]);
    }

    #[test]
    fn a_turn_after_the_end_is_none() {
        let day = Duration::from_secs(86_400);
        let common = common(Load {
            count: None,
            time: Some(day),
            rate: Some(1),
            ..LOAD
        });
        common.next.set(86_399);
        assert!(common.turn().is_some() && common.turn().is_none());
        // The first one always has its turn.
        let mut over = common;
        over.begun = Moment(0);
        over.load.time = Some(Duration::from_nanos(1));
        over.next.set(0);
        assert!(over.turn().is_some() && over.turn().is_none());
    }
}
