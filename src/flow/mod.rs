//! The pure part of a session: what one direction may do next, and how a session ended. No
//! descriptor, no clock, no ring: events come in as values, decisions go out as values.

mod close;
mod half;
pub mod proxy_protocol;
pub mod splice;
pub mod transform;
pub mod udp;

pub use close::{Cause, Close, Phase, Who};

pub use half::{Arm, FrozenHalf, Half, Limits, Reading, Wish, Writing, taken_at_most};
pub use splice::{Engine, Splice, Splicing};

/// One of the two peers of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// Who connected to us.
    Client = 0,
    /// Whom we connected to.
    Server = 1,
}

impl Side {
    /// Both.
    pub const BOTH: [Side; 2] = [Side::Client, Side::Server];

    /// The other one.
    pub fn other(self) -> Side {
        match self {
            Side::Client => Side::Server,
            Side::Server => Side::Client,
        }
    }

    /// The direction that reads from this side.
    pub fn reads(self) -> Direction {
        match self {
            Side::Client => Direction::Up,
            Side::Server => Direction::Down,
        }
    }

    /// The direction that writes to this side.
    pub fn writes(self) -> Direction {
        self.other().reads()
    }
}

/// One of the two directions of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// From the client to the server.
    Up = 0,
    /// From the server to the client.
    Down = 1,
}

impl Direction {
    /// Both.
    pub const BOTH: [Direction; 2] = [Direction::Up, Direction::Down];

    /// Where its bytes come from.
    pub fn source(self) -> Side {
        match self {
            Direction::Up => Side::Client,
            Direction::Down => Side::Server,
        }
    }

    /// Where its bytes go.
    pub fn sink(self) -> Side {
        self.source().other()
    }
}
