//! The keyword table is the truth, and the documentation is the table.

use std::path::Path;

use tidegate::config::Diagnostic;
use tidegate::config::diagnostics::Severity;
use tidegate::config::keywords::{self, Keyword, Side, Standing, reference};

use crate::world::{load, printed};

/// `conf/full.cfg` shows every keyword and every parameter that works. That it loads without a
/// warning is another test.
#[test]
fn full_config_has_every_keyword() {
    let text = include_str!("../../conf/full.cfg");
    let lines = || text.lines().map(str::trim_start);
    let working = |standing: Standing| standing == Standing::Works;
    for keyword in keywords::keywords().filter(|keyword| working(keyword.standing())) {
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + " ";
        let wanted = format!("{} ", keyword.name);
        let shown = lines().map(|line| line.trim_start_matches("no "));
        assert!(
            shown.map(words).any(|line| line.starts_with(&wanted)),
            "{}",
            keyword.name
        );
        assert!(!keyword.help.is_empty());
        assert_eq!(
            keyword.args_max == 0,
            keyword.syntax.is_empty(),
            "{}",
            keyword.name
        );
    }
    let has = |starts: &[&str], name: &str| {
        let mut wanted = lines().map(|line| line.trim_start_matches("# "));
        wanted.any(|line| {
            let mut words = line.split_whitespace();
            words.next().is_some_and(|word| starts.contains(&word))
                && words.any(|word| word == name)
        })
    };
    for parameter in keywords::bind_parameters().filter(|p| working(p.standing)) {
        assert!(has(&["bind"], parameter.name), "bind {}", parameter.name);
    }
    for parameter in keywords::server_parameters().filter(|p| working(p.standing)) {
        assert!(
            has(&["server", "default-server"], parameter.name),
            "server {}",
            parameter.name
        );
    }
}

/// A config of one line that holds a keyword, in a section where it has a meaning.
fn config_with(keyword: &Keyword) -> String {
    let name = keyword.name.replace('*', "x");
    let section = match keyword.side {
        Side::Global | Side::Everywhere => "global",
        Side::Front => "frontend f",
        Side::Back | Side::Both => "backend b",
    };
    format!("{section}\n    {name} 1 2\n")
}

/// A config of one line that holds a keyword with an argument that isn't there yet.
fn config_with_argument(keyword: &Keyword, argument: &str) -> String {
    let args = match (keyword.name, argument) {
        ("hash-type", "avalanche") => "map-based sdbm avalanche".to_owned(),
        ("hash-type", function) => format!("map-based {function}"),
        ("log", target) if target.ends_with('@') => format!("{target}x local0"),
        ("log", parameter) => format!("stdout {parameter} 1:2 local0"),
        ("bind", prefix) => format!("{prefix}:1"),
        _ => argument.to_owned(),
    };
    format!("listen l\n    {} {args}\n", keyword.name)
}

/// What the table says of a word that doesn't work is what happens to it, and `help --missing`
/// lists exactly those that aren't there yet.
#[test]
fn words_that_do_nothing_say_so() {
    let mut missing = Vec::new();
    let mut check = |name: String, standing: Standing, text: &str| {
        let (_, messages) = load(text);
        let severity = match standing {
            Standing::Works => return,
            Standing::NoEffect(_) | Standing::Later(_) => Severity::Warning,
            Standing::Needed | Standing::Never(_) => Severity::Alert,
        };
        let said = match standing {
            Standing::Works => return,
            Standing::NoEffect(reason) => format!("has no effect: {reason}."),
            Standing::Later("") => "not implemented in Tidegate yet and is left out.".to_owned(),
            Standing::Later(meaning) => format!("yet and is left out: {meaning}."),
            Standing::Needed => "is not implemented in Tidegate yet, and without".to_owned(),
            Standing::Never(reason) => format!(" : {reason}."),
        };
        let found = messages.iter().any(|message| {
            message.severity == severity
                && message.text.contains(&format!("{name}' "))
                && message.text.contains(&said)
        });
        assert!(found, "{text}{}", printed(&messages));
        if matches!(standing, Standing::Later(_) | Standing::Needed) {
            missing.push(name);
        }
    };
    for keyword in keywords::keywords() {
        let name = keyword.name.replace('*', "x");
        check(name, keyword.standing(), &config_with(keyword));
    }
    for parameter in keywords::bind_parameters() {
        let name = parameter.name.replace('*', "x");
        let text = format!("listen l\n bind :1 {name} 1 2\n");
        check(name, parameter.standing, &text);
    }
    for parameter in keywords::server_parameters() {
        let name = parameter.name.replace('*', "x");
        let text = format!("listen l\n server s 1.1.1.1:1 {name} 1 2\n");
        check(name, parameter.standing, &text);
    }
    for section in keywords::sections() {
        let text = format!("{} x\n", section.name);
        check(section.name.to_owned(), section.standing, &text);
    }
    for keyword in keywords::keywords() {
        for lacking in keyword.lacks {
            let text = config_with_argument(keyword, lacking);
            let (_, messages) = load(&text);
            let bare = lacking.trim_end_matches('@');
            let said = messages.iter().any(|message| {
                message.text.contains("is not implemented") && message.text.contains(bare)
            });
            assert!(said, "{text}{}", printed(&messages));
            missing.push(format!("{} {lacking}", keyword.name));
        }
    }
    let listed = reference::missing();
    let listed = listed.lines().map(|line| {
        let (_, word) = line.split_once(": ").expect("a place and a word");
        word.trim_end_matches(" (error)").replace('*', "x")
    });
    let mut listed: Vec<String> = listed.collect();
    listed.sort();
    missing.sort();
    assert_eq!(listed, missing);
}

/// No word of HAProxy's, of whichever version, is a typing error: `haproxy_keywords.txt` has a
/// place and a word per line.
#[test]
fn every_word_of_haproxys_is_known() {
    let data = include_str!("../data/haproxy_keywords.txt");
    let mut unknown = Vec::new();
    for line in data.lines() {
        let (place, word) = line.split_once(' ').expect("a place and a word");
        let text = match place {
            "global" => format!("global\n {word} 1\n"),
            "proxy" => format!("listen l\n {word} 1\n"),
            "bind" => format!("listen l\n bind :1 {word} 1\n"),
            "server" => format!("listen l\n server s 1.1.1.1:1 {word} 1\n"),
            _ => panic!("{line}"),
        };
        let (_, messages) = load(&text);
        let about_it = |message: &Diagnostic| {
            let last = word.rsplit(' ').next().unwrap_or_default();
            ["keyword", "option"]
                .iter()
                .any(|kind| message.text.contains(&format!("unknown {kind} '{last}'")))
                || message.text.contains(&format!("(got '{last}')"))
        };
        if messages.iter().any(about_it) {
            unknown.push(line);
        }
    }
    assert!(unknown.is_empty(), "{unknown:#?}");
}

/// `docs/keywords.md` is the table. What it should be is left in the target directory.
#[test]
fn the_reference_page_is_the_table() {
    let page = reference::page();
    let copy = Path::new(env!("CARGO_TARGET_TMPDIR")).join("keywords.md");
    std::fs::write(&copy, &page).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keywords.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == page,
        "docs/keywords.md should be {}",
        copy.display()
    );
}
