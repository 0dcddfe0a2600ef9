//! How a server is checked.

use super::check_script::Scripted;
use crate::base::address::Address;
use crate::base::source::Source;

/// An active check: a connect, or the steps of a script.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// Where to connect (`port` applied).
    pub address: Address,
    /// `inter`, 2,000 by default: time between checks while the server is up and nothing points
    /// to a change.
    pub inter_ms: u32,
    /// `fastinter`: the same while it is on its way up or down, or was never checked.
    pub fast_inter_ms: u32,
    /// `downinter`: the same while it is down.
    pub down_inter_ms: u32,
    /// `fall`, 3 by default.
    pub fall: u16,
    /// `rise`, 2 by default.
    pub rise: u16,
    /// Bound of one probe: min(`timeout connect`, `inter`) as HAProxy has it, `timeout check` where
    /// set.
    pub timeout_ms: u32,
    /// The server's `source`.
    pub source: Option<Source>,
    /// What is done beyond a connect.
    pub scripted: Option<Scripted>,
}

impl Check {
    /// A check of an address with the defaults that HAProxy has.
    pub fn of(address: Address) -> Check {
        Check {
            address,
            inter_ms: 2000,
            fast_inter_ms: 2000,
            down_inter_ms: 2000,
            fall: 3,
            rise: 2,
            timeout_ms: 2000,
            source: None,
            scripted: None,
        }
    }
}
