//! Pipes to splice through: a shard's pool of empty ones, and the bound of the process.
//!
//! A pipe is in the pool or lent to a direction that has bytes in it, and counts against the bound
//! either way. One that still has bytes is never taken back into the pool: it is closed. Pipes that
//! nobody has needed for a while are given back to the kernel.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use crate::base::time::Moment;
use crate::ring::{Errno, Kernel, Pipe};

/// A pipe with less room is not worth its calls: copying is as good.
const SIZE_MIN: u32 = 64 << 10;
/// After a refusal of the kernel or at the bound, nobody asks for so long.
const REFUSED_REST_MS: u64 = 100;
/// Pipes that were in the pool for so long without a break are given back.
const POOL_REST_MS: u64 = 500;

/// No pipe, where a direction's is named.
pub(super) const NONE: u32 = u32::MAX;

/// The pipes of a shard.
#[derive(Debug)]
pub(super) struct Pipes {
    /// Bytes a pipe is to hold.
    size: u32,
    /// Pipes the process may have.
    most: u32,
    /// Those in the pool, the last one the warmest.
    free: Vec<Pipe>,
    /// Those lent, by the number that their direction has.
    lent: Vec<Option<Pipe>>,
    /// Numbers of `lent` that are free.
    numbers: Vec<u32>,
    /// No new pipe is asked for before.
    refused_until: Moment,
    /// When the pool is looked through next; `NEVER` while it is empty.
    look_at: Moment,
    /// The fewest there were in the pool since the last look.
    fewest: usize,
}

/// Why a direction got no pipe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum NoPipe {
    /// The process has as many as it may have, or the kernel has just refused one.
    Bound,
    /// The kernel refuses: descriptors, or the user's pipe memory.
    Refused,
    /// An error that no table names.
    Unexpected(Errno),
}

impl Pipes {
    pub(super) fn new(size: u32, most: u32) -> Pipes {
        Pipes {
            size,
            most,
            free: Vec::new(),
            lent: Vec::new(),
            numbers: Vec::new(),
            refused_until: Moment(0),
            look_at: Moment::NEVER,
            fewest: 0,
        }
    }

    /// Whether a pipe could be had: one is free, or one more may be made.
    pub(super) fn may_lend(&self, now: Moment, made: &AtomicU32) -> bool {
        !self.free.is_empty() || (self.refused_until <= now && made.load(Relaxed) < self.most)
    }

    /// Lends a pipe, made now if none is free.
    pub(super) fn lend<K: Kernel>(
        &mut self,
        kernel: &K,
        now: Moment,
        made: &AtomicU32,
    ) -> Result<(u32, Pipe), NoPipe> {
        let pipe = match self.free.pop() {
            Some(pipe) => {
                self.fewest = self.fewest.min(self.free.len());
                pipe
            }
            None => {
                if self.refused_until > now {
                    return Err(NoPipe::Bound);
                }
                let pipe = self.make(kernel, made);
                if pipe.is_err() {
                    self.refused_until = now.after_ms(REFUSED_REST_MS);
                }
                pipe?
            }
        };
        let number = self.numbers.pop().unwrap_or_else(|| {
            self.lent.push(None);
            u32::try_from(self.lent.len() - 1).expect("fewer than descriptors")
        });
        self.lent[number as usize] = Some(pipe);
        Ok((number, pipe))
    }

    fn make<K: Kernel>(&mut self, kernel: &K, made: &AtomicU32) -> Result<Pipe, NoPipe> {
        let most = self.most;
        let take = |count: u32| (count < most).then_some(count + 1);
        if made.fetch_update(Relaxed, Relaxed, take).is_err() {
            return Err(NoPipe::Bound);
        }
        let why = match kernel.make_pipe(self.size) {
            Ok(pipe) if pipe.size >= SIZE_MIN.min(self.size) => return Ok(pipe),
            Ok(pipe) => {
                kernel.close_pipe(pipe);
                NoPipe::Refused
            }
            Err(Errno(libc::EMFILE | libc::ENFILE | libc::ENOMEM | libc::EPERM)) => NoPipe::Refused,
            Err(errno) => NoPipe::Unexpected(errno),
        };
        made.fetch_sub(1, Relaxed);
        Err(why)
    }

    /// A pipe that is lent.
    pub(super) fn at(&self, number: u32) -> Pipe {
        self.lent[number as usize].expect("a lent pipe")
    }

    fn take_back(&mut self, number: u32) -> Pipe {
        self.numbers.push(number);
        self.lent[number as usize].take().expect("a lent pipe")
    }

    /// Takes a pipe back that is empty.
    pub(super) fn give_back(&mut self, number: u32, now: Moment) {
        let pipe = self.take_back(number);
        self.free.push(pipe);
        if self.look_at == Moment::NEVER {
            self.look_at = now.after_ms(POOL_REST_MS);
            self.fewest = 0;
        }
    }

    /// Closes a pipe with what is in it.
    pub(super) fn destroy<K: Kernel>(&mut self, number: u32, kernel: &K, made: &AtomicU32) {
        kernel.close_pipe(self.take_back(number));
        made.fetch_sub(1, Relaxed);
    }

    /// When [`Pipes::look_through`] has something to do.
    pub(super) fn look_at(&self) -> Moment {
        self.look_at
    }

    /// Gives back to the kernel what nobody needed since the last look.
    pub(super) fn look_through<K: Kernel>(&mut self, now: Moment, kernel: &K, made: &AtomicU32) {
        if now < self.look_at {
            return;
        }
        self.close_free(self.fewest, kernel, made);
        self.fewest = self.free.len();
        self.look_at = match self.free.len() {
            0 => Moment::NEVER,
            _ => now.after_ms(POOL_REST_MS),
        };
    }

    /// Closes the pool, before the shard ends.
    pub(super) fn retire<K: Kernel>(&mut self, kernel: &K, made: &AtomicU32) {
        self.close_free(self.free.len(), kernel, made);
    }

    /// Closes the coldest of the pool.
    fn close_free<K: Kernel>(&mut self, count: usize, kernel: &K, made: &AtomicU32) {
        for pipe in self.free.drain(..count) {
            kernel.close_pipe(pipe);
            made.fetch_sub(1, Relaxed);
        }
    }

    /// Pipes that are lent, and those in the pool.
    pub(super) fn counts(&self) -> [u64; 2] {
        [self.lent.len() - self.numbers.len(), self.free.len()].map(|count| count as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::receive::ReceiveStep;
    use crate::ring::scripted::{Network, Scripted, Settings};
    use std::cell::RefCell;
    use std::rc::Rc;

    const SIZE: u32 = 1 << 20;
    const START: Moment = Moment(1_000_000_000);

    /// A kernel that refuses so many of 1,000 pipes.
    fn kernel(pipe_refused: u32) -> (Scripted, Rc<RefCell<Network>>) {
        let settings = Settings {
            latency_max_us: 0,
            queue: [1_000, 1_000],
            descriptors_max: 10,
            backlog: 1,
            connect_immediate: 0,
            connect_refused: 0,
            connect_never: 0,
            connect_error: 0,
            port_taken: 0,
            accept_error: 0,
            send_short: 0,
            late: 0,
            overflow: 0,
            spurious: 0,
            cancel_max_us: 0,
            pipe_refused,
            splice_unfit: false,
            load_max: 0,
        };
        let network = Rc::new(RefCell::new(Network::new(1, settings)));
        let step = ReceiveStep::Plain;
        let layouts = Scripted::layouts(step, 2);
        let kernel = Scripted::new(Rc::clone(&network), step, layouts, 8);
        (kernel, network)
    }

    #[test]
    fn the_bound_is_of_all_pools_and_counts_what_is_pooled() {
        let (kernel, network) = kernel(0);
        let made = AtomicU32::new(0);
        let mut one = Pipes::new(SIZE, 2);
        let mut other = Pipes::new(SIZE, 2);
        let (first, _) = one.lend(&kernel, START, &made).unwrap();
        let (second, _) = one.lend(&kernel, START, &made).unwrap();
        assert!(!other.may_lend(START, &made));
        assert_eq!(other.lend(&kernel, START, &made), Err(NoPipe::Bound));
        one.give_back(first, START);
        assert_eq!((one.counts(), made.load(Relaxed)), ([1, 1], 2));
        assert!(one.may_lend(START, &made) && !other.may_lend(START, &made));
        one.destroy(second, &kernel, &made);
        assert_eq!((one.counts(), network.borrow().pipes_open()), ([0, 1], 1));
        // Who was refused asks again only after a while.
        assert!(!other.may_lend(START, &made));
        let later = START.after_ms(REFUSED_REST_MS);
        assert!(other.may_lend(later, &made));
        let (_, pipe) = other.lend(&kernel, later, &made).unwrap();
        assert_eq!(pipe.size, SIZE);
        one.retire(&kernel, &made);
        assert_eq!(made.load(Relaxed), 1);
    }

    #[test]
    fn what_the_kernel_refuses_is_not_counted() {
        let (kernel, network) = kernel(1_000);
        let made = AtomicU32::new(0);
        let mut pipes = Pipes::new(SIZE, 2);
        assert_eq!(pipes.lend(&kernel, START, &made), Err(NoPipe::Refused));
        assert_eq!(made.load(Relaxed), 0);
        // Half of them have little room.
        network.borrow_mut().settings.pipe_refused = 500;
        let later = |times: u64| START.after_ms(times * REFUSED_REST_MS);
        let lent = (1..50).filter(|times| pipes.lend(&kernel, later(*times), &made).is_ok());
        assert_eq!(lent.count(), 2);
        assert_eq!(network.borrow().pipes_open(), 2);
    }

    #[test]
    fn what_nobody_needs_for_a_while_is_given_back() {
        let (kernel, network) = kernel(0);
        let made = AtomicU32::new(0);
        let mut pipes = Pipes::new(SIZE, 8);
        let lent = [(); 3].map(|()| pipes.lend(&kernel, START, &made).unwrap().0);
        assert_eq!(pipes.look_at(), Moment::NEVER);
        for number in lent {
            pipes.give_back(number, START);
        }
        let mut now = START;
        for left in [3, 1, 0] {
            // One of them is in use again and again, for two looks.
            if left > 0 {
                let (number, _) = pipes.lend(&kernel, now, &made).unwrap();
                pipes.give_back(number, now);
            }
            now = pipes.look_at();
            pipes.look_through(now, &kernel, &made);
            assert_eq!(pipes.counts(), [0, left]);
        }
        assert_eq!(network.borrow().pipes_open(), 0);
        assert_eq!(pipes.look_at(), Moment::NEVER);
    }
}
