//! The one vocabulary of change while the program runs.
//!
//! A probe's outcome, a runtime command and, later, a reload all become `Change` values; the
//! control thread alone applies them. A change names its subject by the stable slot of the server,
//! never by a place in a file.

use crate::base::ids::ServerId;

/// Something that changes at run time.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Checks found a server to be up or down.
    ServerHealth {
        /// The server.
        server: ServerId,
        /// Whether it may get connections.
        up: bool,
    },
    /// An operator took a server out or back in.
    ServerAdmin {
        /// The server.
        server: ServerId,
        /// What it is to be.
        state: AdminState,
    },
}

/// What an operator wants of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AdminState {
    /// In service, as its health allows.
    Ready,
    /// No new connections; the open ones end by themselves.
    Drain,
    /// In maintenance: no new connections and no checks.
    Maintenance,
}
