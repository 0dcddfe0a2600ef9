//! Any bytes as what a client sends to a frontend in `mode http`: answers, or the end of the
//! connection. Every answer is one of HTTP, and nobody without the login sees the statistics.

#![no_main]

use std::cell::OnceCell;

use fuzz_world::World;
use libfuzzer_sys::fuzz_target;
use tidegate::config;
use tidegate::control::pages::offline::Offline;

const TEXT: &str = "frontend f\n mode http\n bind :1\n timeout client 1s\n monitor-uri /alive\n \
                    http-request use-service prometheus-exporter if { path /m } or { path_beg /n/ \
                    }\n stats uri /s\n stats auth user:w8-zq\nlisten l\n bind :2\n timeout client \
                    1s\n timeout connect 1s\n timeout server 1s\n server s1 192.0.2.1:1 check\n";

thread_local! {
    static PAGES: OnceCell<Offline> = const { OnceCell::new() };
}

fn pages() -> Offline {
    let (plan, _) = config::load_text("fuzz.cfg", TEXT.to_owned(), &World);
    Offline::new(plan.expect("a plan")).expect("pages")
}

fuzz_target!(|bytes: &[u8]| {
    let answer = PAGES.with(|cell| cell.get_or_init(pages).converse(bytes));
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1."));
    // The password in the form in which it is sent.
    let knows = bytes.windows(16).any(|part| part == b"dXNlcjp3OC16cQ==");
    let sees = answer.windows(16).any(|part| part == b"<h1>Tidegate 0.1");
    assert!(knows || !sees);
});
