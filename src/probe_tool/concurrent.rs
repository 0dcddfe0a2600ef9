//! `concurrent`: connections that are all open at the same time, held for a while, and looked at
//! again. One that was reset meanwhile has failed after all.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::sync::watch;

use super::attempt::{self, Open, Plan};
use super::tally::Tally;
use crate::sys::clock;

/// What came of it, beside the tally.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Held {
    /// Open at the same time.
    pub(super) most: usize,
    /// Of these, reset while they were held.
    pub(super) reset: usize,
}

/// Opens so many, a few at a time, and holds them.
pub(super) async fn run(
    plan: &Plan,
    count: u64,
    at_a_time: u32,
    hold: Duration,
    tally: &Rc<RefCell<Tally>>,
    stop: &watch::Receiver<bool>,
) -> Held {
    let open: Rc<RefCell<Vec<Open>>> = Rc::default();
    let left = Rc::new(std::cell::Cell::new(count));
    let worker = |_| {
        let (plan, tally) = (plan.clone(), Rc::clone(tally));
        let (open, left, mut stop) = (Rc::clone(&open), Rc::clone(&left), stop.clone());
        tokio::task::spawn_local(async move {
            let work = async {
                while left.get() > 0 {
                    left.set(left.get() - 1);
                    let outcome = attempt::open(&plan).await;
                    let outcome = outcome.map(|(answer, stays)| {
                        open.borrow_mut().push(stays);
                        answer
                    });
                    tally.borrow_mut().record(clock::now(), outcome);
                }
            };
            tokio::select! {
                () = work => {}
                _ = stop.wait_for(|stop| *stop) => {}
            }
        })
    };
    let workers: Vec<_> = (0..u64::from(at_a_time).min(count)).map(worker).collect();
    for worker in workers {
        let _ = worker.await;
    }
    let mut stopped = stop.clone();
    tokio::select! {
        () = tokio::time::sleep(hold) => {}
        _ = stopped.wait_for(|stop| *stop) => {}
    }
    // One turn of the runtime, so that it knows of what has come.
    tokio::task::yield_now().await;
    let open = open.take();
    let reset = open.iter().filter(|open| open.is_reset()).count();
    for _ in 0..reset {
        tally.borrow_mut().cut_off();
    }
    Held {
        most: open.len(),
        reset,
    }
}
