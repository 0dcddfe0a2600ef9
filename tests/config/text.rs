//! Lines, words, variables, conditions, files: what is read before any keyword.

use std::path::Path;

use tidegate::config;

use crate::world::{World, back, load, plan, printed};

#[test]
fn words() {
    let tag = |word: &str| plan(&format!("global\nlog-tag {word}\n")).global.log_tag;
    let table = [
        (r"plain", "plain"),
        (r"'single $PORT \n'", r"single $PORT \n"),
        (r#"a"b c"d'e f'"#, "ab cde f"),
        (r#""$PORT""#, "8080"),
        (r#""${PORT}x""#, "8080x"),
        (r#""${UNSET-de fault}""#, "de fault"),
        (r#""${PORT-default}""#, "8080"),
        (r#"x"$UNSET""#, "x"),
        (r"$PORT", "$PORT"),
        (r#""\$PORT""#, "$PORT"),
        (r"\$PORT", r"\$PORT"),
        (r"a\ b\\c\#d\'e\x41", r"a b\c#d'eA"),
        (r"a\tb", "a\tb"),
        (r"\q\1", r"\q\1"),
        (r"end\", r"end\"),
        (r"a#b", "a"),
        ("tag\r", "tag"),
        ("\ttag \t ", "tag"),
    ];
    for (word, expected) in table {
        assert_eq!(tag(word), expected, "{word}");
    }
    let server = back(r#"server a 1.1.1.1:80 "${LIST[*]}" weight 3"#).servers[0].clone();
    assert_eq!(
        (server.check.clone().unwrap().inter_ms, server.weight),
        (3_000, 3)
    );
}

#[test]
fn bytes_that_are_no_text() {
    let messages = |bytes: &[u8]| printed(&config::load_text("t.cfg", bytes, &World::new()).1);
    let first = |bytes: &[u8]| {
        let end = "[ALERT]    Error(s) found";
        let text = messages(bytes);
        text.split_once(end)
            .map(|(first, _)| first.trim_end().to_owned())
    };
    let cases: &[(&[u8], &str)] = &[
        (
            b"global\n maxconn 3",
            "Missing LF on last line, file might have been truncated at position 11.",
        ),
        (
            b"global\n max\0conn 3\n",
            "Stray NUL character at position 5.",
        ),
        (
            b"global\n log-tag a\rb\n",
            "Stray carriage return at position 11:\n  log-tag a?b\n           ^",
        ),
        (
            b"global\n log-tag \xff\n",
            "word at position 10 is not valid UTF-8.",
        ),
    ];
    for (bytes, expected) in cases {
        let line = 2;
        let expected = format!("[ALERT]    parsing [t.cfg:{line}]: {expected}");
        assert_eq!(first(bytes).as_deref(), Some(expected.as_str()));
    }
    assert_eq!(messages(b"global\r\n maxconn 3\r\n# \xff\r\n\r\n"), "");
    let long = format!("global\n log-tag {}\n", "x".repeat(70_000));
    let expected = "[ALERT]    parsing [t.cfg:2]: line is longer than 65536 bytes.";
    assert_eq!(first(long.as_bytes()).as_deref(), Some(expected));
}

#[test]
fn files_are_read_as_one() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (first, second) = (directory.join("a.cfg"), directory.join("b.cfg"));
    std::fs::write(
        &first,
        "defaults\n timeout client 3s\nfrontend f\n default_backend b\n foo\n",
    )
    .unwrap();
    std::fs::write(&second, " bar\nbackend b\nlisten l\n bind :80\n baz\n").unwrap();
    let missing = directory.join("missing.cfg");
    let (plan, messages) = config::load(
        &[first.clone(), second.clone(), missing.clone()],
        &World::new(),
    );
    assert!(plan.is_none());
    let (first, second) = (first.display(), second.display());
    let expected = format!(
        "[ALERT]    parsing [{first}:5] : unknown keyword 'foo' in 'frontend' section\n\
         [ALERT]    parsing [{second}:1]: unknown keyword 'bar' out of section.\n\
         [ALERT]    parsing [{second}:5] : unknown keyword 'baz' in 'listen' section\n\
         [ALERT]    Could not open configuration file {} : No such file or directory (os error 2)\n\
         [ALERT]    Error(s) found in configuration file : {first}\n\
         [ALERT]    Error(s) found in configuration file : {second}\n\
         [ALERT]    Fatal errors found in configuration.\n",
        missing.display()
    );
    assert_eq!(printed(&messages), expected);
}

/// What one file says about variables and defaults holds in the next; its branches end with it.
#[test]
fn what_a_file_leaves_to_the_next() {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (first, second) = (directory.join("c.cfg"), directory.join("d.cfg"));
    std::fs::write(&first, "global\n setenv NAME x\n.if 0\n").unwrap();
    std::fs::write(&second, ".notice \"$NAME\"\nglobal\n maxconn x\n").unwrap();
    let (_, messages) = config::load(&[first.clone(), second.clone()], &World::new());
    let (first, second) = (first.display(), second.display());
    let expected = format!(
        "[ALERT]    parsing [{first}:3]: non-terminated '.if' block.\n   \
         | The innermost begins at line 3.\n\
         [NOTICE]   parsing [{second}:1]: 'x'.\n\
         [ALERT]    parsing [{second}:3] : 'maxconn' expects an integer argument.\n\
         [ALERT]    Error(s) found in configuration file : {first}\n\
         [ALERT]    Error(s) found in configuration file : {second}\n\
         [ALERT]    Fatal errors found in configuration.\n"
    );
    assert_eq!(printed(&messages), expected);
}

#[test]
fn what_is_only_suspicious_is_said_on_request() {
    let text = ".diag \"look here\"\nlisten l\n disabled\n";
    assert_eq!(printed(&load(text).1), "");
    let mut world = World::new();
    world.options.diagnose = true;
    let (plan, messages) = config::load_text("t.cfg", text, &world);
    assert!(plan.is_some());
    assert_eq!(
        printed(&messages),
        "[DIAG]     parsing [t.cfg:1]: 'look here'.\n"
    );
}

#[test]
fn conditions_of_the_command_line() {
    let condition = |text: &str| config::condition(text, &World::new());
    for text in [
        "1",
        " 1 ",
        "defined(PORT)",
        "streq(\"$PORT\",8080)",
        "streq(a#b,a#b)",
        "!0",
    ] {
        assert_eq!(condition(text), Ok(true), "{text}");
    }
    for text in [
        "",
        "0",
        "defined(UNSET)",
        "feature(OPENSSL)",
        "version_before(3.0)",
    ] {
        assert_eq!(condition(text), Ok(false), "{text}");
    }
    for (text, expected) in [
        (
            " ",
            "Failed to evaluate condition at position 2: a number, a predicate, '!' or '(' \
               expected before the end\n  \n  ^",
        ),
        (
            "1 foo",
            "Failed to evaluate condition at position 3: unexpected 'foo'\n  1 foo\n    ^",
        ),
        (
            "streq(\"a",
            "Syntax error in condition: unmatched quote at position 7:\n  \
                      streq(\"a\n        ^",
        ),
        (
            "\"${PORT\"",
            "Syntax error in condition: unmatched brace in environment variable name \
                        at position 3:\n  \"${PORT\"\n    ^",
        ),
    ] {
        assert_eq!(condition(text).unwrap_err(), expected, "{text}");
    }
}

/// Nothing that nests goes deeper than its bound, and what is open doesn't end in more errors.
#[test]
fn nesting_is_bounded() {
    let nested = |depth: usize| ".if 1\n".repeat(depth) + &".endif\n".repeat(depth);
    assert_eq!(printed(&load(&nested(100)).1), "");
    let messages = printed(&load(&nested(101)).1);
    assert_eq!(
        messages.lines().next(),
        Some("[ALERT]    parsing [t.cfg:101]: too many nested '.if', at most 100 are allowed.")
    );
    assert_eq!(messages.lines().count(), 3);
    let nested = |depth: usize| "(".repeat(depth) + "1" + &")".repeat(depth);
    let condition = |text: &str| config::condition(text, &World::new());
    assert_eq!(condition(&nested(100)), Ok(true));
    assert!(
        condition(&nested(101))
            .unwrap_err()
            .contains("more than 100 nested parentheses")
    );
}

/// A file can't make itself longer than memory by variables that double.
#[test]
fn what_variables_bring_is_bounded() {
    let mut text = String::from("global\n setenv A 1234567890123456\n");
    text.push_str(&" setenv A \"$A$A\"\n".repeat(11));
    let unread = " foo\n";
    text.push_str(&" log-tag \"$A\"\n".repeat(1_000));
    text.push_str(unread);
    let (plan, messages) = load(&text);
    assert!(plan.is_none());
    let messages = printed(&messages);
    assert!(
        messages.contains("variables make the file longer by"),
        "{messages}"
    );
    assert!(!messages.contains("foo"));
}
