//! Exact messages.

use std::path::{Path, PathBuf};

use tidegate::config::diagnostics::Severity;
use tidegate::config::{self, Diagnostic};

use crate::world::{Case, World, cases, load, printed};

#[test]
fn every_shipped_config_loads() {
    let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("conf");
    let mut count = 0;
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "cfg") {
            let (plan, messages) = config::load(std::slice::from_ref(&path), &World::new());
            let texts: Vec<String> = messages.iter().map(|message| message.format(1)).collect();
            assert!(
                plan.is_some_and(|plan| plan.has_listener()),
                "{path:?}: {texts:#?}"
            );
            let bad = messages
                .iter()
                .any(|message| message.severity != Severity::Notice);
            assert!(!bad, "{path:?}: {texts:#?}");
            count += 1;
        }
    }
    assert!(count > 0);
}

/// The exact messages of every case. What they are now is left in the target directory, so that a
/// wanted change of many messages can be looked at and copied.
#[test]
fn messages_are_exact() {
    let mut now = String::new();
    let mut wrong = Vec::new();
    for Case {
        title,
        text,
        expected,
    } in cases(include_str!("../data/messages.txt"))
    {
        let (plan, messages) = load(&text);
        let got = printed(&messages);
        assert_eq!(
            plan.is_some(),
            !messages.iter().any(Diagnostic::is_fatal),
            "{title}"
        );
        now.push_str(&format!("=== {title}\n{text}---\n{got}"));
        if got != expected {
            wrong.push(format!("{title}\n--- expected\n{expected}--- got\n{got}"));
        }
    }
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("messages.txt");
    std::fs::write(&copy, now).unwrap();
    assert!(
        wrong.is_empty(),
        "{}\nall as they are now: {}",
        wrong.join("\n"),
        copy.display()
    );
}

#[test]
fn messages_have_haproxys_form() {
    let (_, messages) = load("global\n foo\n noepoll\n");
    let word = messages[0].word.clone().unwrap();
    assert_eq!((word.text.as_str(), word.column), ("foo", 1));
    let line =
        "[ALERT]    (42) : config : parsing [t.cfg:2] : unknown keyword 'foo' in 'global' section";
    assert_eq!(messages[0].format(42), line);
    assert!(
        messages[1]
            .format(42)
            .starts_with("[WARNING]  (42) : config : parsing [t.cfg:3] : ")
    );
}
