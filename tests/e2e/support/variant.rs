//! The variant that a whole run of these tests is about: an engine, a receive step.
//!
//! `tests/engines.rs` runs the data path's tests again in each variant. It says so by environment
//! variables: lines for the `global` and `defaults` sections of every configuration, and what `show
//! activity` then has to show, without which a run could be about nothing; and it is told how many
//! bytes each balancer has spliced.

use std::io::Write;

use super::stats::Activity;

/// Lines for the `global` section.
const GLOBAL: &str = "TIDEGATE_TEST_GLOBAL";
/// Lines for every `defaults` section.
const DEFAULTS: &str = "TIDEGATE_TEST_DEFAULTS";
/// Lines of `show activity`.
const SHOWN: &str = "TIDEGATE_TEST_SHOWN";
/// A file for the bytes that each balancer has spliced, a line each.
const SPLICED: &str = "TIDEGATE_TEST_SPLICED";

fn lines(variable: &str) -> Vec<String> {
    let text = std::env::var(variable).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// A configuration with the variant's lines.
pub(crate) fn apply(text: &str) -> String {
    let text = insert(text, "global", &lines(GLOBAL));
    insert(&text, "defaults", &lines(DEFAULTS))
}

/// Puts lines at the head of each section of a kind, or of a new one where there is none.
fn insert(text: &str, section: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return text.to_owned();
    }
    let added: String = lines.iter().map(|line| format!("    {line}\n")).collect();
    let is_head = |line: &str| line.split_whitespace().next() == Some(section);
    if !text.lines().any(is_head) {
        return format!("{section}\n{added}{text}");
    }
    let mut result = String::new();
    for line in text.lines() {
        result += &format!("{line}\n");
        if is_head(line) {
            result += &added;
        }
    }
    result
}

/// Fails unless a balancer runs in the variant.
pub(crate) fn check(activity: &Activity) {
    for line in lines(SHOWN) {
        assert!(activity.has_line(&line), "not '{line}': {activity:?}");
    }
}

/// Notes what a balancer has spliced, when its test is over.
pub(crate) fn note(activity: &Activity) {
    let Some(path) = std::env::var_os(SPLICED) else {
        return;
    };
    let bytes = activity.number("spliced_bytes").expect("spliced bytes");
    let file = std::fs::File::options().append(true).open(path);
    let written = file.and_then(|mut file| file.write_all(format!("{bytes}\n").as_bytes()));
    written.expect("note what was spliced");
}
