//! Configurations in TOML, and conversions between the formats, from outside.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tidegate::config::convert::{Converted, Format, Request, convert};
use tidegate::config::diagnostics::Severity;
use tidegate::config::plan::Plan;
use tidegate::config::{self, Diagnostic, Environment, Resolver};

/// A made-up world, in which every name but `nosuch.invalid` has an address.
#[derive(Default)]
struct World {
    variables: BTreeMap<&'static str, &'static str>,
    files: BTreeMap<PathBuf, String>,
}

impl World {
    fn new() -> World {
        let variables = [("PORT", "8080"), ("LIST", "check inter  3s"), ("EMPTY", "")];
        World {
            variables: BTreeMap::from(variables),
            ..World::default()
        }
    }
}

impl Resolver for World {
    fn resolve(&self, host: &str) -> Result<Vec<IpAddr>, String> {
        match host {
            "nosuch.invalid" => Err("name not known".to_owned()),
            // Differs from name to name, so that a plan shows which it was.
            _ => {
                let sum = host
                    .bytes()
                    .fold(7u8, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte));
                Ok(vec![IpAddr::from([10, 0, 0, sum])])
            }
        }
    }
}

impl Environment for World {
    fn variable(&self, name: &str) -> Option<String> {
        self.variables.get(name).map(|value| (*value).to_owned())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        match self.files.get(path) {
            Some(text) => Ok(text.as_bytes().to_vec()),
            None => std::fs::read(path),
        }
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(33),
            "root" => Some(0),
            _ => None,
        }
    }

    fn group_id(&self, name: &str) -> Option<u32> {
        match name {
            "www" => Some(34),
            "root" => Some(0),
            _ => None,
        }
    }

    fn local_addresses(&self) -> &[IpAddr] {
        &[]
    }
}

fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

/// The messages as they are printed, less what is the same in all.
fn printed(messages: &[Diagnostic]) -> String {
    let line = |message: &Diagnostic| {
        let text = message.format(7).replacen(" (7) : config : ", " ", 1);
        format!("{text}\n")
    };
    messages.iter().map(line).collect()
}

fn converted(file: &str, text: &str, from: Format, to: Format) -> Converted {
    let bytes = text.as_bytes();
    let result = convert(
        &Request {
            file,
            bytes,
            from,
            to,
        },
        &World::new(),
    );
    result.unwrap_or_else(|messages| panic!("{text}\n{}", printed(&messages)))
}

/// Compares with a file of the test data; what is there now is left in the target directory, so
/// that a wanted change can be looked at and copied.
fn expect(name: &str, now: &str, wrong: &mut Vec<String>) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("convert");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name), now).unwrap();
    let expected = std::fs::read_to_string(data().join("convert").join(name)).unwrap_or_default();
    if expected != now {
        wrong.push(format!(
            "{name}: see {}\n{now}",
            folder.join(name).display()
        ));
    }
}

#[test]
fn nginx_files_become_haproxy_texts() {
    let (mut count, mut wrong) = (0, Vec::new());
    for entry in std::fs::read_dir(data().join("convert")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|end| end != "conf") {
            continue;
        }
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            Format::guess("x.conf", text.as_bytes()),
            Format::Nginx,
            "{name}"
        );
        let file = format!("{name}.conf");
        let result = converted(&file, &text, Format::Nginx, Format::HaProxy);
        expect(&format!("{name}.cfg"), &result.text, &mut wrong);
        expect(
            &format!("{name}.notes"),
            &printed(&result.notes),
            &mut wrong,
        );
        let (_, messages) = config::load_text("x.cfg", &result.text, &World::new());
        let alerts = messages.iter().filter(|message| message.is_fatal());
        let unexpected = |message: &&Diagnostic| {
            message.place.as_ref().is_some_and(|place| place.line > 0)
                && !message.text.contains("is not implemented")
        };
        let unexpected: Vec<String> = alerts.filter(unexpected).map(ToString::to_string).collect();
        assert!(unexpected.is_empty(), "{name}: {unexpected:#?}");
        count += 1;
    }
    assert!(count >= 10, "{count} files");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A plan as text, without the places in files.
fn shape(plan: &Plan) -> String {
    let text = format!("{plan:#?}");
    let kept = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("place: "));
    kept.collect::<Vec<_>>().join("\n")
}

fn plan(file: &str, text: &str) -> (Option<Plan>, Vec<Diagnostic>) {
    config::load_text(file, text, &World::new())
}

/// A text, the same in TOML, and the text that is made of that again give one plan.
fn same_in_toml(title: &str, text: &str) {
    let (expected, _) = plan("a.cfg", text);
    let expected = expected.unwrap_or_else(|| panic!("{title} loads"));
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml).text;
    let back = converted("a.toml", &toml, Format::Toml, Format::HaProxy).text;
    for (file, text) in [("a.toml", &toml), ("b.cfg", &back)] {
        let (plan, messages) = plan(file, text);
        let plan = plan.unwrap_or_else(|| panic!("{title}\n{text}\n{}", printed(&messages)));
        assert_eq!(shape(&plan), shape(&expected), "{title}\n{text}");
    }
    // What was converted once stays as it is.
    let again = converted("b.cfg", &back, Format::HaProxy, Format::Toml).text;
    assert_eq!(again, toml, "{title}");
}

fn shipped() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let paths = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_config = |path: &PathBuf| path.extension().is_some_and(|end| end == "cfg");
    let paths: Vec<PathBuf> = paths.filter(is_config).collect();
    assert!(paths.len() > 3);
    paths
}

#[test]
fn shipped_configs_are_the_same_in_toml() {
    for path in shipped() {
        let text = std::fs::read_to_string(&path).unwrap();
        same_in_toml(&path.to_string_lossy(), &text);
    }
}

#[test]
fn the_shipped_toml_says_what_the_text_says() {
    let text = plan("a.cfg", include_str!("../conf/minimal.cfg"))
        .0
        .unwrap();
    let toml = plan("a.toml", include_str!("../conf/minimal.toml"))
        .0
        .unwrap();
    assert_eq!(shape(&toml), shape(&text));
}

#[test]
fn good_snippets_are_the_same_in_toml() {
    let mut count = 0;
    for case in cases(include_str!("data/messages.txt")) {
        if plan("a.cfg", &case.text).0.is_some() {
            same_in_toml(&case.title, &case.text);
            count += 1;
        }
    }
    assert!(count >= 10, "{count} good cases");
}

#[test]
fn order_that_matters_is_kept() {
    let text = "\
global
    maxconn 9
global
    nbthread 2
defaults
    timeout client 1s
listen a
    bind :1
    default-server weight 2
    server a 1.1.1.1:1
    default-server weight 3
    server b 1.1.1.1:2
defaults named
    timeout client 2s
    log /dev/log local0
listen b
    bind :2
    no log
    log /dev/log local1
defaults other from named
    retries 1
listen c from named
    bind :3
    option tcplog
    timeout client 5s
    no option tcplog
    option redispatch
    default option redispatch
";
    same_in_toml("defaults between proxies, parameters between servers", text);
}

#[test]
fn keywords_that_are_not_known_are_kept() {
    let text = r#"peers mine
    peer a 10.0.0.1:1024

frontend f from d
    acl local src 127.0.0.1
    tcp-request connection reject if !local
    acl other src 10.0.0.0/8 # why not
    use_backend b if other { req.len gt 1 }
    somewhat odd "it's" 007 -1
    number 7
    number 007
"#;
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml);
    let expected = r#"[peers.mine]
peer = "a 10.0.0.1:1024"

[frontend.f]
from = "d"
lines = [
    "acl local src 127.0.0.1",
    "tcp-request connection reject if !local",
    "acl other src 10.0.0.0/8",
    "use_backend b if other { req.len gt 1 }",
]
somewhat = "odd \"it's\" 007 -1"
number = [
    7,
    "007",
]
"#;
    assert_eq!(toml.text, expected);
    let note = "[NOTICE]   comments are not carried over; lines that have one: 1.\n";
    assert_eq!(printed(&toml.notes), note);
    let back = converted("a.toml", &toml.text, Format::Toml, Format::HaProxy);
    assert_eq!(back.text, text.replace(" # why not", ""));
}

/// Found by fuzzing: a prefix before the name of a section made a key that can't be read.
#[test]
fn a_prefix_before_a_section_is_kept() {
    let text = "global\n    no listen\n    default .if\n";
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml);
    let back = converted("a.toml", &toml.text, Format::Toml, Format::HaProxy);
    assert_eq!(back.text, text);
}

#[test]
fn variables_are_written_with_their_values() {
    let text = "listen l\n bind \":${PORT}\"\n server \"s${NO-x}\" a:1 \"${LIST[*]}\"\n";
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml);
    let expected = "[listen.l]\nbind = \":8080\"\nserver = \"sx a:1 check inter 3s\"\n";
    assert_eq!(toml.text, expected);
    let note = "[WARNING]  variables count with their present values: LIST, NO, PORT.\n";
    assert_eq!(printed(&toml.notes), note);
}

#[test]
fn directives_are_followed() {
    let text = "\
global
    setenv HERE 7
.if streq(\"$HERE\",7)
    maxconn 7
.else
    maxconn 8
.endif
.alert 'not said'
listen l
    bind \":8${HERE}\"
";
    let toml = converted("a.cfg", text, Format::HaProxy, Format::Toml);
    let expected = "[global]\nsetenv = \"HERE 7\"\nmaxconn = 7\n\n[listen.l]\nbind = \":87\"\n";
    assert_eq!(toml.text, expected);
    let notes = "[WARNING]  directives are not carried over, branches are as they turn out now; \
                 lines of them: 4.\n[WARNING]  variables count with their present values: HERE.\n";
    assert_eq!(printed(&toml.notes), notes);
}

#[test]
fn a_toml_file_sets_variables() {
    let text = "[global]\nlog-tag = '\"${TAG-none}\"'\nsetenv = 'PORT 99'\n\
                maxconn = '\"1$PORT\"'\n[listen.l]\nbind = '\":$PORT\"'\n";
    let (plan, messages) = plan("t.toml", text);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    assert_eq!(plan.global.log_tag, "none");
    assert_eq!(plan.global.maxconn, Some(199));
    let endpoint = format!("{:?}", plan.listeners[0].endpoint);
    assert!(endpoint.contains(":99"), "{endpoint}");
}

#[test]
fn what_can_not_be_read_is_said() {
    let table = [
        (
            Format::HaProxy,
            "listen l\n bind 'x\n",
            "[ALERT]    parsing [f:2]",
        ),
        (
            Format::HaProxy,
            "maxconn 5\n",
            "[ALERT]    parsing [f:1]: unknown keyword 'maxconn' out of section.",
        ),
        (
            Format::HaProxy,
            "listen l :80 x\n",
            "[ALERT]    parsing [f:1] : 'listen l :80 x' can't be written in TOML.",
        ),
        (Format::Toml, "a = \n", "[ALERT]    parsing [f:1] : "),
        (
            Format::Nginx,
            "stream {\n",
            "[ALERT]    parsing [f:2] : unexpected end of file: '}' is missing, 'stream' of line 1",
        ),
    ];
    for (from, text, expected) in table {
        let bytes = text.as_bytes();
        let request = Request {
            file: "f",
            bytes,
            from,
            to: Format::Toml,
        };
        let messages = printed(&convert(&request, &World::new()).unwrap_err());
        assert!(messages.starts_with(expected), "{text}\n{messages}");
        let end = "Fatal errors found in configuration.\n";
        assert!(messages.ends_with(end), "{messages}");
    }
}

/// A case of a table of messages: `=== title`, a config, `---`, the messages it gets.
struct Case {
    title: String,
    text: String,
    expected: String,
}

fn cases(data: &str) -> Vec<Case> {
    let case = |part: &str| {
        let (title, rest) = part.split_once('\n').expect("a case has a title");
        let (text, expected) = match rest.strip_prefix("---\n") {
            Some(expected) => ("", expected),
            None => rest.split_once("\n---\n").expect("a case has a ---"),
        };
        let text = if text.is_empty() {
            String::new()
        } else {
            format!("{text}\n")
        };
        Case {
            title: title.to_owned(),
            text,
            expected: expected.to_owned(),
        }
    };
    data.split("=== ").skip(1).map(case).collect()
}

#[test]
fn messages_about_toml_are_exact() {
    let (mut now, mut wrong) = (String::new(), Vec::new());
    let all = cases(include_str!("data/toml_messages.txt"));
    assert!(all.len() >= 20);
    for Case {
        title,
        text,
        expected,
    } in all
    {
        let (plan, messages) = plan("t.toml", &text);
        let got = printed(&messages);
        let is_fatal = messages.iter().any(Diagnostic::is_fatal);
        assert_eq!(plan.is_some(), !is_fatal, "{title}");
        now.push_str(&format!("=== {title}\n{text}---\n{got}"));
        if got != expected {
            wrong.push(format!("{title}\n--- expected\n{expected}--- got\n{got}"));
        }
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("toml_messages.txt");
    std::fs::write(&copy, now).unwrap();
    let copy = copy.display();
    assert!(
        wrong.is_empty(),
        "{}\nall as they are now: {copy}",
        wrong.join("\n")
    );
}

#[test]
fn files_of_both_formats_can_be_given() {
    let mut world = World::new();
    let defaults = "defaults\n    timeout client 3s\n";
    let listen =
        "[listen.l]\nbind = ':80'\nserver = [{ name = 's', address = 'a:1', weight = 7 }]\n";
    world.files.insert("a.cfg".into(), defaults.to_owned());
    world.files.insert("b.toml".into(), listen.to_owned());
    let (plan, messages) = config::load(&["a.cfg".into(), "b.toml".into()], &world);
    let plan = plan.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let proxy = &plan.proxies[0];
    assert_eq!(proxy.front.as_ref().unwrap().timeout_client_ms, 3_000);
    let server = &proxy.back.as_ref().unwrap().servers[0];
    assert_eq!((server.weight, server.place.as_str()), (7, "b.toml:3"));
}

/// The example of the documentation is one that works, and says what the text beside it says.
#[test]
fn the_documented_example_loads() {
    let page = include_str!("../docs/toml.md");
    let block = |language: &str| {
        let begin = format!("```{language}\n");
        let (_, rest) = page.split_once(&begin).expect("an example");
        rest.split_once("```").expect("its end").0
    };
    let (toml, messages) = plan("t.toml", block("toml"));
    let toml = toml.unwrap_or_else(|| panic!("{}", printed(&messages)));
    let (text, _) = plan("t.cfg", block("haproxy"));
    assert_eq!(shape(&toml), shape(&text.expect("the text loads")));
}

/// A small generator (xorshift64*), so that a failure can be repeated from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

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
            match convert(&request, &World::new()) {
                Ok(converted) => {
                    results += 1;
                    let bytes = converted.text.as_bytes();
                    let request = Request {
                        file: "g",
                        bytes,
                        from: to,
                        to,
                    };
                    let again = convert(&request, &World::new());
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
            let (plan, messages) = config::load_text("f.toml", &bytes, &World::new());
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
                let _ = convert(&request, &World::new());
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

/// What this thread has used of its core.
fn cpu_time() -> Duration {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID);
    Duration::from(now.expect("the thread's clock"))
}
