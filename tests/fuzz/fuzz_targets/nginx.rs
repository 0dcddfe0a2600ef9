//! Any bytes as a configuration of nginx: what is made of them can be read.

#![no_main]

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config::convert::{Format, Request, convert};
use tidegate::config::load_text;

fuzz_target!(|bytes: &[u8]| {
    let request = Request {
        file: "nginx.conf",
        bytes,
        from: Format::Nginx,
        to: Format::HaProxy,
    };
    if let Ok(converted) = convert(&request, &World) {
        load_text("made.cfg", converted.text, &World);
    }
});
