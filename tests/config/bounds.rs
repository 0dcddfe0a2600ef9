//! Whatever the bytes: no panic, and time that is linear in the length.

use std::time::Duration;

use tidegate::config::{self, Diagnostic};

use crate::world::{Random, World, cpu_time, load};

/// Whatever the bytes, loading gives a plan or says why not, and never panics.
#[test]
fn no_input_panics() {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for text in [
        include_str!("../../conf/full.cfg"),
        include_str!("../data/messages.txt"),
    ] {
        lines.extend(text.lines().map(|line| line.as_bytes().to_vec()));
    }
    let special = b" \t\"'\\$#{}[]*-@:/,.0129\r\n\0\x80\xffxnk";
    for seed in 1..=400u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut bytes = Vec::new();
        if seed % 4 == 0 {
            let length = random.below(4_000);
            bytes.extend((0..length).map(|_| special[random.below(special.len())]));
        } else {
            for _ in 0..random.below(60) {
                let mut line = lines[random.below(lines.len())].clone();
                for _ in 0..random.below(4) {
                    let at = random.below(line.len() + 1);
                    match random.below(4) {
                        0 => line.insert(at, special[random.below(special.len())]),
                        1 if at < line.len() => drop(line.remove(at)),
                        2 => line.truncate(at),
                        _ => {
                            let word = lines[random.below(lines.len())].clone();
                            line.splice(at..at, word);
                        }
                    }
                }
                bytes.extend(line);
                bytes.push(b'\n');
            }
        }
        let (plan, messages) = config::load_text("t.cfg", &bytes, &World::new());
        assert_eq!(
            plan.is_some(),
            !messages.iter().any(Diagnostic::is_fatal),
            "seed {seed}"
        );
        assert!(messages.len() < 1_000, "seed {seed}");
    }
}

/// A text of a number of lines.
type Long = fn(usize) -> String;

/// Files that are long in one way each.
#[rustfmt::skip]
const LONG: &[(&str, Long)] = &[
    ("sections", |n| lines(n, |i| format!("listen l{i}\n bind 127.0.0.1:{}\n", i % 60_000 + 1))),
    ("servers", |n| format!("backend b\n{}", lines(n, |i| format!("server s{i} 10.0.0.1:80 check\n")))),
    ("names taken twice", |n| lines(n, |_| "backend b\n server s 10.0.0.1:80\n".to_owned())),
    ("warnings", |n| format!("defaults\n{}", lines(n, |_| "option httpclose\n".to_owned()))),
    ("defaults", |n| lines(n, |i| format!("defaults d{i}\n timeout client {i}\n"))),
    ("defaults from defaults", |n| format!("defaults d0\n{}", lines(n, |i| format!("defaults d{} from d{i}\n log 127.0.0.1 local0\n", i + 1)))),
    ("inherited logs", |n| format!("defaults\n{}{}", lines(n / 2, |_| "log 127.0.0.1 local0\n".to_owned()), lines(n / 2, |i| format!("backend b{i}\n")))),
    ("globals' logs", |n| format!("global\n{}defaults\nlog global\n{}", lines(n / 2, |_| "log 127.0.0.1 local0\n".to_owned()), lines(n / 2, |i| format!("backend b{i}\n")))),
    ("ports", |n| format!("frontend f\n{}", lines(n, |_| "bind :1-4096\n".to_owned()))),
    ("addresses", |n| format!("frontend f\n{}", lines(n, |i| format!("bind 10.{}.{}.{}:80\n", i / 65_536, i / 256 % 256, i % 256)))),
    ("variables", |n| format!("global\n{}", lines(n, |_| "log-tag \"$PORT$PORT$PORT${LIST}\"\n".to_owned()))),
    ("default servers", |n| format!("backend b\n{}", lines(n, |_| "default-server check inter 3s\n".to_owned()))),
    ("blank", |n| "\n".repeat(n)),
    ("comments", |n| lines(n, |_| "# \"'$\n".to_owned())),
    ("branches", |n| lines(n, |_| ".if 1\n.if streq(a,b)\nx\n.elif 1\n.else\n.endif\n.endif\n".to_owned())),
    ("conditions", |n| format!(".if 1{}\n.endif\n", lines(n, |_| "&&1".to_owned()))),
    ("arguments", |n| format!(".if defined({}\n.endif\n", lines(n, |_| "'\"a\",'".to_owned()))),
    ("setenv", |n| format!("global\n{}", lines(n, |i| format!("setenv V{i} \"$PORT\"\nunsetenv V{}\n", i / 2)))),
    ("doubled variables", |n| format!("global\nsetenv A a\n{}", lines(n, |_| "setenv A \"$A$A\"\n".to_owned()))),
    ("messages", |n| lines(n, |_| ".notice a\n".to_owned())),
    ("skipped sections", |n| lines(n, |_| "peers p\npeer a 127.0.0.1:80\n".to_owned())),
    ("defaults of one name", |n| lines(n, |i| format!("defaults d\nlisten l{i} from d\n"))),
    ("ids of sockets", |n| format!("frontend f\n{}", lines(n, |i| format!("bind abns@{i} id {}\n", i + 1)))),
    ("interfaces", |n| format!("frontend f\n{}", lines(n, |i| format!("bind :1 interface i{i}\n")))),
    ("sets", |n| format!("global\ncpu-map 1/{} 0-{}\n", "1-,".repeat(n) + "1", ",0-".repeat(n))),
    ("proxies that pass connections on", |n| lines(n, |i| format!("listen l{i}\n bind abns@{i}\n server s abns@{}\n", i + 1))),
    ("proxies that pass connections round", |n| lines(n, |i| format!("listen l{i}\n bind abns@{i}\n server s abns@{}\n", (i + 1) % n))),
    ("ids", |n| lines(n, |i| format!("backend b{i}\n id {}\n", i + 1))),
];

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

/// Eight times the lines take about eight times the time; a loop within a loop over them would
/// take sixty-four times. The time is the thread's own, so a busy machine doesn't disturb it.
#[test]
fn time_is_linear_in_the_length() {
    for (name, text) in LONG {
        let time = |count: usize| {
            let text = text(count);
            let begun = cpu_time();
            let (plan, messages) = load(&text);
            assert!(plan.is_some() || !messages.is_empty());
            cpu_time() - begun
        };
        // Long enough to be measured: at least 5 ms, unless the reading stops early.
        let mut count = 500;
        let mut short = time(count);
        while short < Duration::from_millis(5) && count < 64_000 {
            count *= 2;
            short = time(count);
        }
        let short = short.max(Duration::from_millis(5));
        // The better of two, for what the allocator and the caches do once.
        let long = time(count * 8).min(time(count * 8));
        assert!(
            long < short * 8 * 4,
            "{name}: {count} lines {short:?}, 8 times {long:?}"
        );
    }
}
