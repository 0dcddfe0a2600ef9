//! Any text as a condition: yes, no, or why it can't be decided.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config;

fuzz_target!(|text: &str| {
    if let Err(message) = config::condition(text, &World) {
        assert!(!message.is_empty());
    }
});
