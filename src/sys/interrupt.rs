//! SIGINT, SIGTERM and SIGHUP as something that can be waited for, for commands that run in a
//! terminal: what they have begun is brought to an end, and reported.

use crossbeam::channel::{Receiver, bounded};
use nix::sys::signal::{SigSet, Signal};
use std::io;

/// Takes the signals from this thread and those it starts afterwards, and hands over the first
/// that comes. After it, they do again what they always do. Must be called before other threads
/// are started.
pub fn watch() -> io::Result<Receiver<Signal>> {
    let mut set = SigSet::empty();
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        set.add(signal);
    }
    set.thread_block()?;
    let (sender, receiver) = bounded(1);
    let wait = move || {
        if let Ok(signal) = set.wait() {
            let _ = sender.send(signal);
            // Whoever asks a second time doesn't want to wait for the end of anything.
            let _ = set.thread_unblock();
            loop {
                std::thread::park();
            }
        }
    };
    std::thread::Builder::new()
        .name("interrupts".to_owned())
        .spawn(wait)?;
    Ok(receiver)
}

/// Lets this thread, and what it starts, have every signal.
pub fn unblock_all() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}
