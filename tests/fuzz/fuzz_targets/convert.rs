//! Any bytes in any format, converted: a text that can be read again, or messages that say why not.
//! As TOML they are loaded too.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config::convert::{Format, Request, convert};
use tidegate::config::{self, Diagnostic};

fuzz_target!(|bytes: &[u8]| {
    for (_, from) in Format::NAMES {
        for to in [Format::Toml, Format::HaProxy] {
            let (file, from) = ("fuzz", *from);
            match convert(&Request { file, bytes, from, to }, &World) {
                Ok(converted) => {
                    let bytes = converted.text.as_bytes();
                    assert!(convert(&Request { file, bytes, from: to, to }, &World).is_ok());
                }
                Err(messages) => assert!(messages.iter().any(Diagnostic::is_fatal)),
            }
        }
    }
    let (plan, messages) = config::load_text("fuzz.toml", bytes, &World);
    assert_eq!(plan.is_none(), messages.iter().any(Diagnostic::is_fatal));
});
