//! Whose turn it is: ordinary tests run beside each other, heavy ones alone.
//!
//! `cargo test` runs tests on parallel threads of one process with one descriptor limit; the
//! smallest supported host has two cores. A test that holds thousands of sockets, needs a quiet
//! core or measures shares takes the turn `alone`.

use super::failures;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

static TURN: RwLock<()> = RwLock::new(());

/// The right to run beside other ordinary tests.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    failures::tell();
    // A failed test poisons the lock but leaves nothing behind that the next one could trip over.
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// The right to run with no other test beside.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    failures::tell();
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}
