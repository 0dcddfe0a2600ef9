//! Any bytes through the line reader alone: what it made of them, written as TOML, read, written as
//! text and read again, is the same.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config::convert::{Format, Request, convert};

fn turned(bytes: &[u8], from: Format, to: Format) -> Option<String> {
    let request = Request {
        file: "fuzz",
        bytes,
        from,
        to,
    };
    Some(convert(&request, &World).ok()?.text)
}

fuzz_target!(|bytes: &[u8]| {
    let Some(toml) = turned(bytes, Format::HaProxy, Format::Toml) else {
        return;
    };
    let text = turned(toml.as_bytes(), Format::Toml, Format::HaProxy).expect("our TOML");
    let again = turned(text.as_bytes(), Format::HaProxy, Format::Toml).expect("our text");
    assert_eq!(toml, again);
});
