//! Conversions between the formats.

use std::path::{Path, PathBuf};

use tidegate::config::convert::{Converted, Format, Request, convert};
use tidegate::config::{self, Diagnostic};

use crate::world::{World, printed};

pub(crate) fn data() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data")
}

pub(crate) fn converted(file: &str, text: &str, from: Format, to: Format) -> Converted {
    let bytes = text.as_bytes();
    let result = convert(
        &Request {
            file,
            bytes,
            from,
            to,
        },
        &World::that_knows_all(),
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
        let (_, messages) = config::load_text("x.cfg", &result.text, &World::that_knows_all());
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
        let messages = printed(&convert(&request, &World::that_knows_all()).unwrap_err());
        assert!(messages.starts_with(expected), "{text}\n{messages}");
        let end = "Fatal errors found in configuration.\n";
        assert!(messages.ends_with(end), "{messages}");
    }
}
