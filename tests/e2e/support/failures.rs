//! Failures are told when they happen.
//!
//! The test harness keeps what a test prints until all have run; a record that shows only the
//! surroundings of the first failed test would not have its reason.

use std::io::Write;
use std::sync::Once;

/// Longest text of a failure that is told at once; the harness prints the rest at the end.
const TEXT_MAX: usize = 4_000;

/// Tells failures past the capture of the output, from now on.
pub(crate) fn tell() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let thread = std::thread::current();
            let name = thread.name().unwrap_or("a thread of a test");
            let text: String = panic.to_string().chars().take(TEXT_MAX).collect();
            // Whole, so that no other thread's line comes between.
            let text = format!("\n{name} fails: {text}\n");
            let _ = std::io::stderr().write_all(text.as_bytes());
            before(panic);
        }));
    });
}
