//! Whatever the bytes: conversions end, in linear time, with a text that can be read or a reason.

use std::time::Duration;

use tidegate::config::convert::{Format, Request, convert};
use tidegate::config::diagnostics::Severity;
use tidegate::config::{self, Diagnostic};

use crate::convert::{converted, data};
use crate::toml::shipped;
use crate::world::{Random, World, cpu_time};

/// What is put into a good file to spoil it.
#[rustfmt::skip]
const PIECES: &[&str] = &[
    "[", "]", "[[", "]]", "{", "}", "=", "'", "\"", "\"\"\"", "\\", ";", "#", "\n", "\0", "\r", " ",
    "no ", "from = ", "name = 1\n", "lines = [\"a\"]\n", "1.5", "1979-05-27", "true", "\u{fffd}",
    "server ", "listen 80 udp;", "upstream x {", "proxy_pass x;", "\"${A", ".if 1\n", ".endif\n",
    "[frontend.x]\n", "[[defaults]]\n", "999999999999999999999",
];

/// A good file with pieces removed, repeated, exchanged and replaced.
fn mutated(good: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..1 + random.below(12) {
        let at = random.below(bytes.len() + 1);
        let end = (at + random.below(30)).min(bytes.len());
        match random.below(5) {
            0 => drop(bytes.drain(at..end)),
            1 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, piece);
            }
            2 if at < bytes.len() => bytes[at] = random.next() as u8,
            _ => {
                let piece = PIECES[random.below(PIECES.len())];
                bytes.splice(at..at, piece.bytes());
            }
        }
    }
    bytes
}

fn good_files() -> Vec<(Format, Vec<u8>)> {
    let mut goods = Vec::new();
    for path in shipped() {
        let text = std::fs::read_to_string(path).unwrap();
        let toml = converted("a.cfg", &text, Format::HaProxy, Format::Toml).text;
        goods.push((Format::Toml, toml.into_bytes()));
        goods.push((Format::HaProxy, text.into_bytes()));
    }
    for name in ["stream", "whole", "http_server"] {
        let path = data().join("convert").join(format!("{name}.conf"));
        goods.push((Format::Nginx, std::fs::read(path).unwrap()));
    }
    goods
}

/// Whatever the bytes, reading and converting them gives a result that can be read, or says why
/// not.
#[test]
fn no_input_panics() {
    let goods = good_files();
    let (mut results, mut refusals) = (0, 0);
    for seed in 1..=1_000u64 {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let (from, good) = &goods[random.below(goods.len())];
        let bytes = if seed % 8 == 0 {
            (0..random.below(300))
                .map(|_| random.next() as u8)
                .collect()
        } else {
            mutated(good, &mut random)
        };
        for to in [Format::Toml, Format::HaProxy] {
            let request = Request {
                file: "f",
                bytes: &bytes,
                from: *from,
                to,
            };
            match convert(&request, &World::that_knows_all()) {
                Ok(converted) => {
                    results += 1;
                    let bytes = converted.text.as_bytes();
                    let request = Request {
                        file: "g",
                        bytes,
                        from: to,
                        to,
                    };
                    let again = convert(&request, &World::that_knows_all());
                    assert!(again.is_ok(), "seed {seed}: {}\n{again:?}", converted.text);
                }
                Err(messages) => {
                    refusals += 1;
                    let alert = messages.iter().any(|m| m.severity == Severity::Alert);
                    assert!(alert, "seed {seed}");
                }
            }
        }
        if *from == Format::Toml {
            let (plan, messages) = config::load_text("f.toml", &bytes, &World::that_knows_all());
            let is_fatal = messages.iter().any(Diagnostic::is_fatal);
            assert_eq!(plan.is_some(), !is_fatal, "seed {seed}");
        }
    }
    assert!(
        results > 100 && refusals > 100,
        "{results} results, {refusals} refusals"
    );
}

/// A text of a format, as long as is wanted.
type Long = (Format, fn(usize) -> String);

/// Texts of any length, each of a kind that a loop within a loop would take long for.
#[rustfmt::skip]
const LONG: &[Long] = &[
    (Format::Toml, |count| (0..count).map(|n| format!("[listen.l{n}]\nbind = ':1'\n")).collect()),
    (Format::Toml, |count| (0..count).map(|n| format!("[[listen]]\nname = 'l'\na{n} = 1\n")).collect()),
    (Format::Toml, |count| format!("[listen.l]\nserver = [{}]\n", "'a b:1', ".repeat(count))),
    (Format::Toml, |count| format!("[listen.l]\n{}", (0..count).map(|n| format!("k{n} = 1\n")).collect::<String>())),
    (Format::Toml, |count| format!("a = {}", "[".repeat(count))),
    (Format::Toml, |count| "x\n".repeat(count)),
    (Format::Toml, |count| format!("[listen.l]\nlines = ['''{}''']\n", " a\n".repeat(count))),
    (Format::HaProxy, |count| "listen l\n bind :1\n".repeat(count)),
    (Format::HaProxy, |count| format!("listen l\n{}", "default-server check\nserver a b:1\n".repeat(count))),
    (Format::HaProxy, |count| format!("listen l\n{}", (0..count).map(|n| format!("k{n} '\n")).collect::<String>())),
    (Format::Nginx, |count| "server { listen 80; proxy_pass a:1; }\n".repeat(count)),
    (Format::Nginx, |count| (0..count).map(|n| format!("upstream u{n} {{ server a:1; }} server {{ listen {n}; proxy_pass u{n}; }}\n")).collect()),
    (Format::Nginx, |count| format!("upstream u {{ {} }}", "server a:1; allow b;".repeat(count))),
    (Format::Nginx, |count| format!("upstream u {{ {} }} {}", "server a:1;".repeat(count), (1..=count).map(|n| format!("server {{ listen 1; proxy_timeout {n}; proxy_pass u; }}")).collect::<String>())),
    (Format::Nginx, |count| "a ".repeat(count)),
    (Format::Nginx, |count| format!("a {};", "\\x".repeat(count))),
];

/// Eight times the length takes about eight times the time, whatever the format.
#[test]
fn time_is_linear_in_the_length() {
    for (index, (from, text)) in LONG.iter().enumerate() {
        let time = |count: usize| {
            let text = text(count);
            let bytes = text.as_bytes();
            let begun = cpu_time();
            for to in [Format::Toml, Format::HaProxy] {
                let request = Request {
                    file: "f",
                    bytes,
                    from: *from,
                    to,
                };
                let _ = convert(&request, &World::that_knows_all());
            }
            cpu_time() - begun
        };
        let mut count = 500;
        let mut short = time(count);
        while short < Duration::from_millis(5) && count < 32_000 {
            count *= 2;
            short = time(count);
        }
        let short = short.max(Duration::from_millis(5));
        let long = time(count * 8).min(time(count * 8));
        let bound = short * 8 * 4;
        assert!(
            long < bound,
            "{index}: {count} take {short:?}, 8 times as many {long:?}"
        );
    }
}
