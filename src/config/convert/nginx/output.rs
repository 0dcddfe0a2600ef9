//! The HAProxy text as it grows: sections of lines, and comments for what is left out.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::{Notes, text};
use super::syntax::Directive;
use crate::config::diagnostics::{Place, Severity};

/// Most of a directive that a comment shows.
const SHOWN_CHARS_MAX: usize = 72;

/// A section of the result.
#[derive(Debug, Default)]
pub(super) struct Section {
    comments_before: Vec<String>,
    /// Its lines, the header first.
    lines: Vec<String>,
}

impl Section {
    pub(super) fn new(header: &[&str]) -> Section {
        let lines = vec![text::line(header)];
        Section {
            comments_before: Vec::new(),
            lines,
        }
    }

    /// Adds a statement.
    pub(super) fn add(&mut self, words: &[&str]) {
        self.lines.push(format!("    {}", text::line(words)));
    }

    /// Adds a comment.
    pub(super) fn comment(&mut self, comment: &str) {
        self.lines.push(format!("    # {comment}"));
    }

    /// Puts a comment before the section.
    pub(super) fn comment_before(&mut self, comment: &str) {
        self.comments_before.push(format!("# {comment}"));
    }

    pub(super) fn text(&self) -> String {
        let lines = self.comments_before.iter().chain(&self.lines);
        lines.map(|line| format!("{line}\n")).collect()
    }
}

/// What all parts of a conversion share.
pub(super) struct Output {
    pub(super) file: Arc<str>,
    pub(super) notes: Notes,
    names: Names,
}

impl Output {
    pub(super) fn new(file: &Arc<str>) -> Output {
        Output {
            file: file.clone(),
            notes: Notes::default(),
            names: Names::default(),
        }
    }

    /// Says about a directive what has become of it; gives the comment for its place.
    pub(super) fn note(&mut self, severity: Severity, from: &Directive, what: &str) -> String {
        let place = Place {
            file: self.file.clone(),
            line: from.line,
        };
        let shown = shown(from);
        self.notes
            .add(severity, Some(&place), format!("'{shown}' : {what}."));
        let short = self.file.rsplit('/').next().unwrap_or_default();
        let short: String = short.chars().map(printable).collect();
        format!("{short}:{}: '{shown}': {what}.", from.line)
    }

    /// A name for a proxy that no other has.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        self.names.unique(wanted)
    }
}

/// Names that are taken.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Each with the number that the next of the same name may try.
    taken: BTreeMap<String, u32>,
}

impl Names {
    /// A name that wasn't given before, as near as possible to the wanted one.
    pub(super) fn unique(&mut self, wanted: &str) -> String {
        let clean: String = wanted.chars().map(allowed).collect();
        let clean = if clean.is_empty() {
            "unnamed".to_owned()
        } else {
            clean
        };
        let mut number = self.taken.get(&clean).copied().unwrap_or(1);
        let mut name = clean.clone();
        while number > 1 || self.taken.contains_key(&name) {
            number += 1;
            name = format!("{clean}_{number}");
            if !self.taken.contains_key(&name) {
                break;
            }
        }
        self.taken.insert(clean, number);
        self.taken.entry(name.clone()).or_insert(1);
        name
    }

    /// Whether a name can be given as it is.
    pub(super) fn is_free(&self, name: &str) -> bool {
        !self.taken.contains_key(name)
    }
}

/// A character of a name as HAProxy allows it.
pub(super) fn allowed(c: char) -> char {
    if c.is_ascii_alphanumeric() || "-_.:".contains(c) {
        c
    } else {
        '_'
    }
}

fn printable(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// A directive on one line, cut where it is long.
fn shown(directive: &Directive) -> String {
    let mut text = directive.words.join(" ");
    if directive.block.is_some() {
        text.push_str(" {...}");
    }
    let mut shown: String = text.chars().take(SHOWN_CHARS_MAX).map(printable).collect();
    if shown.len() < text.len() {
        shown.push_str("...");
    }
    shown
}
