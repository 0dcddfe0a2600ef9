//! Any bytes as a TOML configuration: a plan, or messages that say why not.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config::{self, Diagnostic};

fuzz_target!(|bytes: &[u8]| {
    let (plan, messages) = config::load_text("fuzz.toml", bytes, &World);
    assert_eq!(plan.is_none(), messages.iter().any(Diagnostic::is_fatal));
});
