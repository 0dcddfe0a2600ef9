//! Any bytes sent to the runtime socket: commands, chains, payloads, prompts. Every session ends.

#![no_main]

use std::cell::OnceCell;
use std::time::Duration;

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config;
use tidegate::config::plan::Level;
use tidegate::control::runtime_api::Rehearsal;

const TEXT: &str = "defaults\n    mode tcp\n    timeout connect 1s\n    timeout client 1s\n    \
    timeout server 1s\nfrontend fe\n    bind 127.0.0.1:1\n    default_backend be\nbackend be\n    \
    balance source\n    server s1 127.0.0.1:2 check weight 3\n    server s2 127.0.0.1:3 backup\n\
    listen l\n    bind 127.0.0.1:4\n    balance leastconn\n    server s1 127.0.0.1:5 maxconn 3\n";

/// A command may wait for something that doesn't come; it is left then.
const PATIENCE: Duration = Duration::from_millis(200);

thread_local! {
    static RUNTIME: OnceCell<(tokio_uring::Runtime, Rehearsal)> = const { OnceCell::new() };
}

fn start() -> (tokio_uring::Runtime, Rehearsal) {
    let runtime = tokio_uring::Runtime::new(&tokio_uring::builder()).expect("a runtime");
    let (plan, said) = config::load_text("t.cfg", TEXT, &World);
    let plan = plan.unwrap_or_else(|| panic!("{said:?}"));
    (runtime, Rehearsal::new(plan).expect("descriptors"))
}

fuzz_target!(|data: &[u8]| {
    let Some((first, input)) = data.split_first() else {
        return;
    };
    let level = match first % 3 {
        0 => Level::User,
        1 => Level::Operator,
        _ => Level::Admin,
    };
    RUNTIME.with(|cell| {
        let (runtime, rehearsal) = cell.get_or_init(start);
        let answer = async { tokio::time::timeout(PATIENCE, rehearsal.answer(level, input)).await };
        if let Ok(answer) = runtime.block_on(answer) {
            let ended = answer.is_empty() || answer.ends_with(b"\n") || answer.ends_with(b"> ");
            assert!(ended, "{:?}", String::from_utf8_lossy(&answer));
        }
    });
});
