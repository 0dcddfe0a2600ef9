//! Lists of flows, linked through the flows themselves: a flow leaves its lists wherever it stands,
//! and a list costs no memory of its own.

/// No flow.
pub(super) const NONE: u32 = u32::MAX;

/// A flow's neighbours in a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Links {
    pub(super) previous: u32,
    pub(super) next: u32,
}

impl Links {
    pub(super) const UNLINKED: Links = Links {
        previous: NONE,
        next: NONE,
    };
}

/// A list, the flow that came first at its head.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct List {
    pub(super) head: u32,
    tail: u32,
    len: u32,
}

impl List {
    pub(super) const EMPTY: List = List {
        head: NONE,
        tail: NONE,
        len: 0,
    };

    /// Flows in it.
    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Adds a flow at the tail; `links` finds the links of a flow.
    pub(super) fn push<T>(
        &mut self,
        slots: &mut T,
        slot: u32,
        links: impl Fn(&mut T, u32) -> Option<&mut Links>,
    ) {
        if let Some(own) = links(slots, slot) {
            *own = Links {
                previous: self.tail,
                next: NONE,
            };
        }
        match links(slots, self.tail) {
            Some(last) if self.tail != NONE => last.next = slot,
            _ => self.head = slot,
        }
        self.tail = slot;
        self.len += 1;
    }

    /// Takes a flow out, which is in it.
    pub(super) fn unlink<T>(
        &mut self,
        slots: &mut T,
        slot: u32,
        links: impl Fn(&mut T, u32) -> Option<&mut Links>,
    ) {
        let Some(own) = links(slots, slot) else {
            return;
        };
        let Links { previous, next } = std::mem::replace(own, Links::UNLINKED);
        match links(slots, previous) {
            Some(before) if previous != NONE => before.next = next,
            _ => self.head = next,
        }
        match links(slots, next) {
            Some(behind) if next != NONE => behind.previous = previous,
            _ => self.tail = previous,
        }
        self.len -= 1;
    }
}
