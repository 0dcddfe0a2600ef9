//! Looking for completions without a system call.
//!
//! The kernel does receive work only in this thread's enter (DEFER_TASKRUN), and says in the flags
//! of the submission queue that there is some (IORING_SETUP_TASKRUN_FLAG): it sets the flag when it
//! queues work for this thread and keeps it set while any is left. Flags and completion queue are
//! memory shared with it.

use std::io;
use std::time::Duration;

use super::Uring;
use crate::ring::{Kernel, Spun};

/// Looks between two readings of the clock: a pause takes 10 to 50 ns, a reading about as long.
const LOOKS_PER_READING: u32 = 8;
/// A gap between two readings that only another thread's turn on this CPU explains: longer than
/// interrupts take, shorter than a slice of the scheduler.
const INTERRUPTED: Duration = Duration::from_micros(200);
/// A spin this long ends by letting others have the CPU: under a realtime policy a shard that never
/// sleeps would keep it for good, from the thread that waits for signals too.
const YIELD_AFTER: Duration = Duration::from_millis(1);

impl Uring {
    /// Whether an enter would find something.
    pub(super) fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        if queue.taskrun() || queue.cq_overflow() {
            return true;
        }
        drop(queue);
        !self.ring.completion().is_empty()
    }

    pub(super) fn spin_for(&mut self, time: Duration) -> io::Result<Spun> {
        self.publish();
        if self.completions.is_empty() && self.unsubmitted > 0 {
            // Receives of what is there already are done here: work, unlike the look.
            self.enter(0, None)?;
            self.gather();
        }
        if !self.completions.is_empty() || self.has_work() {
            return Ok(Spun::Ready);
        }
        let (spun, looked) = self.look(time);
        self.spun_ns += u64::try_from(looked.as_nanos()).unwrap_or(0);
        if spun == Spun::InVain && time >= YIELD_AFTER {
            std::thread::yield_now();
        }
        Ok(spun)
    }

    /// What is found within `time`, and how long this thread has looked for it.
    fn look(&mut self, time: Duration) -> (Spun, Duration) {
        let began = self.now();
        let mut last = began;
        loop {
            for _ in 0..LOOKS_PER_READING {
                std::hint::spin_loop();
                if self.has_work() {
                    let looked = self.now() - began;
                    return (Spun::Found(looked), looked);
                }
            }
            let now = self.now();
            if now - last > INTERRUPTED {
                return (Spun::Interrupted, last - began);
            }
            if now - began >= time {
                return (Spun::InVain, now - began);
            }
            last = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::ring::{Caps, Fd, Group, Interest, Op, Token, Wait};
    use crate::sys::clock;

    fn ring() -> Uring {
        let caps = Caps {
            deferred_work: true,
            registered_ring: true,
            ..Caps::least(2)
        };
        Uring::with_entries(&caps, 8, 64).expect("io_uring is available to tests")
    }

    #[test]
    fn work_is_seen_without_an_enter() {
        let mut kernel = ring();
        let (mut near, far) = UnixStream::pair().unwrap();
        let token = Token::plain(Op::Wake, 1);
        kernel.receive(Fd(far.as_raw_fd()), Group::Small, 64, token);
        // Submits, and finds nothing.
        let nothing = kernel.spin(Duration::from_micros(50)).unwrap();
        assert!(matches!(nothing, Spun::InVain | Spun::Interrupted));
        assert!(!kernel.has_work());
        near.write_all(b"now").unwrap();
        assert!(kernel.has_work());
        assert_eq!(kernel.spin(Duration::from_secs(9)).unwrap(), Spun::Ready);
        kernel.turn(Wait::No).unwrap();
        let completion = kernel.next_completion().expect("the receive");
        assert_eq!((completion.token, completion.result), (token, 3));
        assert!(!kernel.has_work());
    }

    #[test]
    fn a_look_is_no_work_and_what_it_finds_is() {
        let mut kernel = ring();
        let time = Duration::from_millis(20);
        // On a busy machine another thread may take this one's CPU.
        while kernel.spin(time).unwrap() != Spun::InVain {}
        assert!(kernel.spun_ns >= 20_000_000, "{}", kernel.spun_ns);
        let worked_ns = kernel.worked_ns();
        let used_ns = clock::thread_ns();
        assert!(
            worked_ns == 0 || worked_ns + kernel.spun_ns <= used_ns,
            "{worked_ns} of {used_ns} are called work"
        );
        // What a submission brings at once.
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(&[7; 64]).unwrap();
        let spun_ns = kernel.spun_ns;
        let token = Token::plain(Op::Wake, 1);
        kernel.receive(Fd(far.as_raw_fd()), Group::Small, 64, token);
        assert_eq!(kernel.spin(time).unwrap(), Spun::Ready);
        assert_eq!(kernel.spun_ns, spun_ns, "the receive is called a look");
    }

    #[test]
    fn work_that_comes_meanwhile_ends_the_look() {
        let mut kernel = ring();
        let (mut near, far) = UnixStream::pair().unwrap();
        let token = Token::plain(Op::Wake, 1);
        kernel.poll(Fd(far.as_raw_fd()), Interest::Read, false, token);
        kernel.turn(Wait::No).unwrap();
        let writer = std::thread::spawn(move || near.write_all(b"x").map(|()| near));
        // On a busy machine the writer may come first, or take this thread's CPU.
        let found = (0..10_000).any(|_| {
            let spun = kernel.spin(Duration::from_millis(10)).unwrap();
            matches!(spun, Spun::Ready | Spun::Found(_))
        });
        assert!(found);
        kernel.turn(Wait::No).unwrap();
        assert!(kernel.next_completion().is_some_and(|c| c.token == token));
        drop(writer.join().unwrap());
    }

    #[test]
    fn what_a_look_has_gathered_is_not_asked_for_again() {
        let mut kernel = ring();
        let (mut near, far) = UnixStream::pair().unwrap();
        near.write_all(b"before").unwrap();
        let token = Token::plain(Op::Wake, 1);
        kernel.receive(Fd(far.as_raw_fd()), Group::Small, 64, token);
        assert_eq!(kernel.spin(Duration::from_secs(9)).unwrap(), Spun::Ready);
        kernel.turn(Wait::Forever).unwrap();
        let completion = kernel.next_completion().expect("the receive");
        assert_eq!((completion.token, completion.result), (token, 6));
    }
}
