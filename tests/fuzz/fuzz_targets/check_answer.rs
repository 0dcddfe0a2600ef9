//! Any bytes as a server's answers to a check, split anywhere: no panic, and the same verdict as
//! with all bytes at once.

#![no_main]

use std::sync::LazyLock;

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config::load_text;
use tidegate::config::plan::Script;
use tidegate::health::{Finding, Next, Run};

/// Kinds of checks whose verdict is that of the bytes: what is sent begins no other answer, and a
/// pattern that is there stays there.
const CHECKS: &[&str] = &[
    "option redis-check",
    "option smtpchk",
    "option mysql-check",
    "option mysql-check user u",
    "option pgsql-check user u",
    "option ldap-check",
    "option ssl-hello-chk",
    "option httpchk",
    "option httpchk\n http-check expect ! status 500-599",
    "option httpchk\n http-check expect rstatus ^[23]",
    "option httpchk\n http-check expect string up",
    "option httpchk\n http-check expect ! rstring u+p",
    "option tcp-check\n tcp-check expect string ab\n tcp-check expect ! string abc",
    "option tcp-check\n tcp-check expect binary 00ff\n tcp-check expect rstring [a-c]x",
    "option tcp-check\n tcp-check expect rbinary 0A.{0,4}FF",
];

static SCRIPTS: LazyLock<Vec<Script>> = LazyLock::new(|| CHECKS.iter().map(script).collect());

fn script(lines: &&str) -> Script {
    let text =
        format!("backend b\n {lines}\n server s 127.0.0.1:1 check\nglobal\n stats socket /s\n");
    let (plan, messages) = load_text("check.cfg", text, &World);
    let plan = plan.unwrap_or_else(|| panic!("{messages:?}"));
    let back = plan.proxies[0].back.as_ref().expect("a backend");
    let check = back.servers[0].check.as_ref().expect("a check");
    let scripted = check.scripted.as_ref().expect("a script");
    Script::clone(&scripted.script)
}

/// Plays a script; the bytes come in pieces of these sizes, over and over.
fn play(script: &Script, mut bytes: &[u8], sizes: &[u8]) -> Finding {
    let mut run = Run::new(script);
    let mut sizes = sizes.iter().cycle();
    loop {
        match run.next_act() {
            Next::Connect(_) => run.connected(),
            Next::Send(_) => run.sent(),
            Next::Receive(room) => {
                let size = sizes.next().map_or(room, |size| usize::from(*size).max(1));
                let size = size.min(room).min(bytes.len());
                if size == 0 {
                    run.closed();
                }
                run.received(&bytes[..size]);
                bytes = &bytes[size..];
            }
            Next::End(finding, _) => return finding,
        }
    }
}

fuzz_target!(|input: (u8, Vec<u8>, Vec<u8>)| {
    let (kind, sizes, bytes) = input;
    let script = &SCRIPTS[usize::from(kind) % SCRIPTS.len()];
    let whole = play(script, &bytes, &[]);
    let split = play(script, &bytes, &sizes);
    assert_eq!(whole, split, "{:?}", bytes.escape_ascii().to_string());
});
