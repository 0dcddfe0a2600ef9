//! The pairs of one server's address with the sockets of a pool, in eight bytes each.
//!
//! A column has a place for each socket up to the highest that it ever used, so a server with few
//! flows beside a busy one costs little. Pairs without a flow stand in one of two lists, in the
//! order of their release: those that rest, and those that remember a client.

use std::net::SocketAddr;

use crate::base::time::Moment;

/// Most sockets of a pool: two numbers are left for lists.
pub(super) const SOCKETS_MAX: u16 = u16::MAX - 1;
/// No socket.
pub(super) const NONE: u16 = u16::MAX;

/// A coarse moment of 30 bits: steps of 134 ms since the origin of the clock, enough for 4 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(super) struct Tick(u32);

impl Tick {
    const SHIFT: u32 = 27;
    const MAX: u64 = (1 << KIND_SHIFT) - 1;

    /// The first tick that is not before a moment.
    pub(super) fn after(moment: Moment) -> Tick {
        Tick(moment.0.div_ceil(1 << Tick::SHIFT).min(Tick::MAX) as u32)
    }

    /// The moment it stands for.
    pub(super) fn moment(self) -> Moment {
        Moment(u64::from(self.0) << Tick::SHIFT)
    }
}

/// What a pair is in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// There is no such socket now.
    Absent,
    /// It has the flow in this slot.
    Flow(u32),
    /// It rests since then.
    Free(Tick),
    /// It remembers a client: the slot of the mapping.
    Mapped(u32),
}

const KIND_SHIFT: u32 = 30;
const VALUE: u32 = (1 << KIND_SHIFT) - 1;

#[derive(Clone, Copy, Debug)]
struct Pair {
    /// Kind and value of its state.
    word: u32,
    /// Neighbours in its list, which is circular.
    next: u16,
    previous: u16,
}

impl Pair {
    const ABSENT: Pair = Pair {
        word: 0,
        next: NONE,
        previous: NONE,
    };

    fn state(self) -> State {
        let value = self.word & VALUE;
        match self.word >> KIND_SHIFT {
            0 => State::Absent,
            1 => State::Flow(value),
            2 => State::Free(Tick(value)),
            _ => State::Mapped(value),
        }
    }

    fn set(&mut self, state: State) {
        let (kind, value) = match state {
            State::Absent => (0, 0),
            State::Flow(slot) => (1, slot),
            State::Free(Tick(since)) => (2, since),
            State::Mapped(slot) => (3, slot),
        };
        debug_assert!(value <= VALUE, "slots have 24 bits, ticks 30");
        self.word = kind << KIND_SHIFT | value & VALUE;
    }
}

/// The pairs of one server's address.
#[derive(Debug)]
pub(super) struct Column {
    pub(super) address: SocketAddr,
    /// Servers that have this address; none = it is kept for its pairs only.
    pub(super) users: u32,
    /// Pairs that have a flow.
    pub(super) flows: u32,
    /// When everything in it may be forgotten, once it has no flow.
    pub(super) rests_until: Moment,
    pairs: Vec<Pair>,
    /// The pair that has rested longest.
    free: u16,
    /// The pair that has remembered a client longest.
    mapped: u16,
}

impl Column {
    pub(super) fn new(address: SocketAddr) -> Column {
        Column {
            address,
            users: 0,
            flows: 0,
            rests_until: Moment(0),
            pairs: Vec::new(),
            free: NONE,
            mapped: NONE,
        }
    }

    /// How many sockets it has a place for.
    pub(super) fn len(&self) -> usize {
        self.pairs.len()
    }

    pub(super) fn state(&self, socket: u16) -> State {
        let pair = self.pairs.get(usize::from(socket));
        pair.map_or(State::Absent, |pair| pair.state())
    }

    /// Changes the state of a pair that has a place, and the list it is in with it. At the end of
    /// its new list, as the one that rests the shortest.
    pub(super) fn set(&mut self, socket: u16, state: State) {
        self.unlink(socket);
        self.pairs[usize::from(socket)].set(state);
        self.link(socket);
    }

    /// A place for the next socket, which stands nowhere yet.
    pub(super) fn extend(&mut self) -> u16 {
        self.pairs.push(Pair::ABSENT);
        self.pairs.len() as u16 - 1
    }

    /// A socket is back in its place: the pair has never been used and comes first.
    pub(super) fn put_first(&mut self, socket: u16) {
        if usize::from(socket) < self.pairs.len() {
            self.set(socket, State::Free(Tick::default()));
            self.free = socket;
        }
    }

    /// Places of sockets from `len` on are gone; they are absent.
    pub(super) fn truncate(&mut self, len: usize) {
        self.pairs.truncate(len);
    }

    /// The pair that has rested longest, and since when.
    pub(super) fn longest_free(&self) -> Option<(u16, Tick)> {
        match self.state(self.free) {
            State::Free(since) => Some((self.free, since)),
            _ => None,
        }
    }

    /// The pair that has remembered a client longest, and its mapping.
    pub(super) fn longest_mapped(&self) -> Option<(u16, u32)> {
        match self.state(self.mapped) {
            State::Mapped(mapping) => Some((self.mapped, mapping)),
            _ => None,
        }
    }

    /// The head of the list that pairs in a state stand in.
    fn head(&mut self, state: State) -> Option<&mut u16> {
        match state {
            State::Free(_) => Some(&mut self.free),
            State::Mapped(_) => Some(&mut self.mapped),
            State::Absent | State::Flow(_) => None,
        }
    }

    fn link(&mut self, socket: u16) {
        let Some(head) = self.head(self.state(socket)) else {
            return;
        };
        let first = *head;
        if first == NONE {
            *head = socket;
            self.between(socket, socket, socket);
        } else {
            let last = self.pairs[usize::from(first)].previous;
            self.between(last, socket, first);
        }
    }

    fn unlink(&mut self, socket: u16) {
        let Pair { next, previous, .. } = self.pairs[usize::from(socket)];
        let Some(head) = self.head(self.state(socket)) else {
            return;
        };
        if next == socket {
            *head = NONE;
            return;
        }
        if *head == socket {
            *head = next;
        }
        self.pairs[usize::from(previous)].next = next;
        self.pairs[usize::from(next)].previous = previous;
    }

    fn between(&mut self, previous: u16, socket: u16, next: u16) {
        self.pairs[usize::from(previous)].next = socket;
        self.pairs[usize::from(next)].previous = socket;
        let pair = &mut self.pairs[usize::from(socket)];
        pair.next = next;
        pair.previous = previous;
    }
}
