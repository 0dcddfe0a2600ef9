//! The kernel interface over a virtual network and clock: the shipped shard runs on it in
//! simulation.
//!
//! Everything a seed can bring about here, Linux may do too: operations end early, late, in another
//! order than they began, or for nothing; sends are short or refused; descriptors run out and are
//! reused at once. What Linux never does, the simulation doesn't do either: completions of one
//! operation, and those of receives that fill one incremental ring, keep their order.
//!
//! It panics where a shard breaks the contract: a descriptor that is not open, one that is closed
//! with operations outstanding, a token that is still in use, bytes held back for more to come that
//! the turn does not send.
//!
//! A turn that would sleep returns `WouldBlock` instead and says until when; the simulation calls
//! again when the shard can go on. So a lost wake-up shows as a shard that sleeps for ever.

mod datagram;
#[cfg(test)]
mod datagram_tests;
mod kernel;
mod network;
mod random;
mod receive;
mod socket;

pub use network::{Datagram, DatagramSettings, Network, Notice, Passed, Settings, Way};
pub use random::Random;
pub use socket::{Read, SocketId};

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use super::buffers::BufferLayout;
use super::{Completion, Fd, Group, Inbox, Interest, Op, Token};
use crate::base::ids::SessionKey;
use crate::base::receive::ReceiveStep;
use crate::base::time::Moment;
use crate::sys::stream;
use datagram::Inboxes;
use receive::Provided;

/// What an operation waits for.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Wake,
    Accept {
        multishot: bool,
    },
    Receive {
        group: Group,
        left: u32,
        issued: bool,
    },
    Poll {
        interest: Interest,
        multishot: bool,
        /// The socket's wake-ups at the last look; `None` before the first.
        seen: Option<u64>,
    },
    Datagrams {
        inbox: Inbox,
        issued: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Operation {
    token: Token,
    fd: Fd,
    kind: Kind,
    cancelled_at: Option<Moment>,
}

#[derive(Clone, Copy, Debug)]
enum Entry {
    Start(Operation),
    Cancel(Token),
}

/// Completions that keep their order among themselves.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Lane {
    Group(u16),
    Operation(u64),
}

/// The ring of one simulated shard.
#[derive(Debug)]
pub struct Scripted {
    network: Rc<RefCell<Network>>,
    step: ReceiveStep,
    entries_max: usize,
    pushed: Vec<Entry>,
    active: Vec<Operation>,
    /// Posted and not yet gathered.
    posted: Vec<(Lane, Completion)>,
    gathered: VecDeque<Completion>,
    /// Descriptors of the operations whose last completion has not been taken.
    outstanding: BTreeMap<u64, Fd>,
    groups: [Provided; 2],
    inboxes: Option<Inboxes>,
    inbox_buffers: u16,
    overflows: u64,
    sleeps_until: Option<Moment>,
    /// Sockets that were promised more to send in this turn.
    promised: RefCell<BTreeSet<i32>>,
    /// The wake-up descriptor was readable.
    woken: Cell<bool>,
    /// Processor time so far, and up to when it was counted.
    worked: Cell<(u64, Moment)>,
    /// The client's socket of each session, as its operations name it.
    clients: BTreeMap<SessionKey, SocketId>,
}

impl Scripted {
    /// A ring with `entries_max` submission entries and these buffer rings.
    pub fn new(
        network: Rc<RefCell<Network>>,
        step: ReceiveStep,
        layouts: [BufferLayout; 2],
        entries_max: usize,
    ) -> Scripted {
        let mut scripted = Scripted {
            network,
            step,
            entries_max,
            pushed: Vec::new(),
            active: Vec::new(),
            posted: Vec::new(),
            gathered: VecDeque::new(),
            outstanding: BTreeMap::new(),
            groups: layouts.map(Provided::new),
            inboxes: None,
            inbox_buffers: 128,
            overflows: 0,
            sleeps_until: None,
            promised: RefCell::default(),
            woken: Cell::new(false),
            worked: Cell::new((0, Moment(0))),
            clients: BTreeMap::new(),
        };
        scripted.publish();
        scripted
    }

    /// The shapes that the real ring has for a receive step.
    pub fn layouts(step: ReceiveStep, buffers: u16) -> [BufferLayout; 2] {
        super::uring::layouts(step, buffers)
    }

    /// Until when the shard sleeps, if its last turn was to sleep.
    pub fn sleeps_until(&self) -> Option<Moment> {
        self.sleeps_until
    }

    /// Whether a turn would find something.
    pub fn is_ready(&self) -> bool {
        let mut network = self.network.borrow_mut();
        !self.posted.is_empty()
            || !self.gathered.is_empty()
            || self.active.iter().any(|op| self.ready(op, &mut network))
    }

    /// Accepted connections that the shard hasn't seen yet.
    pub fn accepted_unseen(&self) -> usize {
        let posted = self.posted.iter().map(|(_, completion)| completion);
        let accepted = posted
            .chain(&self.gathered)
            .filter(|c| c.token.op() == Some(Op::Accept) && c.result >= 0);
        accepted.count()
    }

    /// Tokens of the operations that have not ended.
    pub fn outstanding(&self) -> impl Iterator<Item = Token> {
        self.outstanding.keys().map(|token| Token(*token))
    }

    fn publish(&mut self) {
        for group in &mut self.groups {
            group.publish();
        }
        if let Some(inboxes) = &mut self.inboxes {
            inboxes.publish();
        }
    }

    fn push(&mut self, token: Token, fd: Fd, kind: Kind) {
        let before = self.outstanding.insert(token.0, fd);
        assert!(before.is_none(), "{:?} is in use: {token:?}", token.op());
        if !matches!(kind, Kind::Wake) {
            self.network.borrow_mut().hold(fd.0);
        }
        let cancelled_at = None;
        self.enter(Entry::Start(Operation {
            token,
            fd,
            kind,
            cancelled_at,
        }));
    }

    fn enter(&mut self, entry: Entry) {
        if self.pushed.len() == self.entries_max {
            self.submit();
            self.gather();
        }
        self.pushed.push(entry);
    }

    /// Takes the submission queue in its order; what can complete at once may do so.
    fn submit(&mut self) {
        for entry in std::mem::take(&mut self.pushed) {
            match entry {
                Entry::Start(operation) => {
                    self.check_prelude_is_over(&operation);
                    self.active.push(operation);
                    let late = self.chance(|settings| settings.late);
                    if !late {
                        self.advance(self.active.len() - 1);
                        self.sweep();
                    }
                }
                Entry::Cancel(target) => self.start_cancel(target),
            }
        }
    }

    /// A poll for what comes before a session would wake its shard for every byte of it.
    fn check_prelude_is_over(&self, started: &Operation) {
        let receives = matches!(started.kind, Kind::Receive { .. });
        let mut others = self.active.iter();
        let polled = others.any(|other| {
            let prelude = other.token.op() == Some(Op::Prelude);
            prelude && other.fd == started.fd && other.cancelled_at.is_none()
        });
        assert!(!receives || !polled, "{:?} is still polled", started.fd);
    }

    fn start_cancel(&mut self, target: Token) {
        let mut network = self.network.borrow_mut();
        let found = self.active.iter_mut().find(|op| op.token == target);
        if let Some(operation) = found {
            let most = network.settings.cancel_max_us;
            let us = network.random.below(most + 1);
            network.wake_at(us);
            let at = Moment(network.now().0 + us * 1_000);
            let first = operation.cancelled_at.unwrap_or(at);
            operation.cancelled_at = Some(first.min(at));
        }
    }

    /// Lets every operation do what it can, in any order; `all` = none is put off.
    fn work(&mut self, all: bool) {
        let mut order: Vec<usize> = (0..self.active.len()).collect();
        for last in (1..order.len()).rev() {
            let other = self.network.borrow_mut().random.place(last + 1);
            order.swap(last, other);
        }
        for index in order {
            if all || !self.chance(|settings| settings.late) {
                self.advance(index);
            }
        }
        self.sweep();
    }

    fn chance(&self, odds: impl Fn(&Settings) -> u32) -> bool {
        let mut network = self.network.borrow_mut();
        let odds = odds(&network.settings);
        network.random.chance(odds)
    }

    /// Lets one operation do what it can. One that ends is marked and swept away later.
    fn advance(&mut self, index: usize) {
        let operation = self.active[index];
        let issue = matches!(
            operation.kind,
            Kind::Receive { issued: false, .. } | Kind::Datagrams { issued: false, .. }
        );
        if !issue && !self.ready(&operation, &mut self.network.borrow_mut()) {
            return;
        }
        let now = self.network.borrow().now();
        if operation.cancelled_at.is_some_and(|at| at <= now) {
            return self.post(index, -libc::ECANCELED, false, None);
        }
        match operation.kind {
            Kind::Wake => {
                self.woken.set(false);
                self.post(index, i32::from(libc::POLLIN), true, None);
            }
            Kind::Accept { multishot } => self.accept_some(index, multishot),
            Kind::Receive { .. } => self.receive_some(index),
            Kind::Poll {
                interest,
                multishot,
                ..
            } => self.poll_once(index, interest, multishot),
            Kind::Datagrams { inbox, .. } => self.receive_datagrams_some(index, inbox),
        }
    }

    fn accept_some(&mut self, index: usize, multishot: bool) {
        let fd = self.active[index].fd.0;
        loop {
            let accepted = self.network.borrow_mut().accept(fd);
            let more = multishot && accepted.is_ok() && !self.overflow();
            match accepted {
                Ok(client) => self.post(index, client, more, None),
                Err(errno) => self.post(index, -errno, false, None),
            }
            let again = more && self.network.borrow_mut().has_queued(fd);
            if !again {
                return;
            }
        }
    }

    fn poll_once(&mut self, index: usize, interest: Interest, multishot: bool) {
        let fd = self.active[index].fd.0;
        let (mask, wakes) = {
            let mut network = self.network.borrow_mut();
            let id = network.stream(fd);
            let socket = network.at(id);
            (socket.mask(interest), socket.wakes(interest))
        };
        if let Kind::Poll { seen, .. } = &mut self.active[index].kind {
            *seen = Some(wakes);
        }
        if mask != 0 {
            let more = multishot && !self.overflow();
            self.post(index, i32::from(mask), more, None);
        }
    }

    /// Whether a multishot operation ends by itself now.
    fn overflow(&mut self) -> bool {
        let overflow = self.chance(|settings| settings.overflow);
        self.overflows += u64::from(overflow);
        overflow
    }

    fn post(&mut self, index: usize, result: i32, more: bool, buffer: Option<super::BufferUse>) {
        let operation = &mut self.active[index];
        let token = operation.token;
        let lane = match operation.kind {
            Kind::Receive { group, .. } if self.groups[group as usize].incremental() => {
                Lane::Group(group as u16)
            }
            _ => Lane::Operation(token.0),
        };
        let left = match operation.kind {
            Kind::Receive { .. } if result > 0 => {
                let mut network = self.network.borrow_mut();
                let id = network.stream(operation.fd.0);
                !network.at(id).incoming.is_empty()
            }
            _ => false,
        };
        if !more {
            operation.kind = Kind::Poll {
                interest: Interest::Write,
                multishot: false,
                seen: Some(u64::MAX),
            };
            operation.fd = Fd::NONE;
        }
        self.network.borrow_mut().note(|| {
            let (op, key) = (token.op(), token.key());
            format!("  posted {op:?} {key:?} {result} more={more} {buffer:?}")
        });
        self.posted.push((
            lane,
            Completion {
                token,
                result,
                more,
                buffer,
                left,
            },
        ));
    }

    /// Forgets the operations that have ended.
    fn sweep(&mut self) {
        self.active.retain(|operation| operation.fd != Fd::NONE);
    }

    /// Gathers what was posted: lanes keep their order, otherwise any order goes, and some of it
    /// may come with the next turn.
    fn gather(&mut self) {
        let mut lanes: BTreeMap<Lane, VecDeque<Completion>> = BTreeMap::new();
        for (lane, completion) in self.posted.drain(..) {
            lanes.entry(lane).or_default().push_back(completion);
        }
        let mut lanes: Vec<_> = lanes.into_iter().collect();
        while !lanes.is_empty() {
            if !self.gathered.is_empty() && self.chance(|settings| settings.late / 4) {
                for (lane, completions) in lanes {
                    self.posted
                        .extend(completions.into_iter().map(|c| (lane, c)));
                }
                return;
            }
            let place = self.network.borrow_mut().random.place(lanes.len());
            let completion = lanes[place].1.pop_front().expect("not empty");
            self.gathered.push_back(completion);
            if lanes[place].1.is_empty() {
                lanes.swap_remove(place);
            }
        }
    }

    /// Whether an operation could complete now.
    fn ready(&self, operation: &Operation, network: &mut Network) -> bool {
        if operation.cancelled_at.is_some_and(|at| at <= network.now()) {
            return true;
        }
        match operation.kind {
            Kind::Wake => {
                // Reading it here makes it a latch: later notifications make it readable again.
                if stream::drain_eventfd(operation.fd.0) {
                    self.woken.set(true);
                }
                self.woken.get()
            }
            Kind::Accept { .. } => network.has_queued(operation.fd.0),
            Kind::Datagrams { issued, .. } => !issued || network.has_datagram(operation.fd.0),
            Kind::Receive { issued, .. } => {
                let id = network.stream(operation.fd.0);
                !issued || network.at(id).readable()
            }
            Kind::Poll { interest, seen, .. } => {
                if operation.fd == Fd::NONE {
                    return false;
                }
                let id = network.stream(operation.fd.0);
                let socket = network.at(id);
                seen != Some(socket.wakes(interest)) && socket.mask(interest) != 0
            }
        }
    }

    /// Notes which sockets a session's operations name.
    fn link(&mut self, fd: Fd, token: Token) {
        let id = self.network.borrow_mut().stream(fd.0);
        match token.op() {
            Some(Op::ReceiveClient) => {
                self.clients.insert(token.key(), id);
            }
            Some(Op::ReceiveServer | Op::Connect) => {
                let client = self.clients.get(&token.key());
                let client = *client.expect("the client was received from before");
                self.network.borrow_mut().link(client, id);
            }
            _ => {}
        }
    }
}
