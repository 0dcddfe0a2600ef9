//! From a file to its sections: lines of words with their places, nothing interpreted yet.
//!
//! This is `Raw`. It knows the names of sections, because they end the one before, and the prefixes
//! `no` and `default`; it doesn't know a keyword. What can't be read is reported and left out.

use std::sync::Arc;

use super::diagnostics::{Diagnostic, Form, Place, Report, Severity};
use super::token::{self, Word};

/// A statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Line {
    /// Where it stands.
    pub(super) place: Place,
    /// What stood before the keyword.
    pub(super) prefix: Prefix,
    /// The keyword and its arguments; never empty.
    pub(super) words: Vec<Word>,
}

/// The word before a keyword.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Prefix {
    /// None.
    Set,
    /// `no`: off, whatever was inherited.
    No,
    /// `default`: back to the built-in default.
    Default,
}

/// A section: its header and the lines up to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Section {
    /// What it is.
    pub(super) kind: SectionKind,
    /// `global`, `frontend name`, ...
    pub(super) header: Line,
    /// Its statements.
    pub(super) lines: Vec<Line>,
}

/// The sections that are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum SectionKind {
    /// `global`
    Global,
    /// `defaults`
    Defaults,
    /// `frontend`
    Frontend,
    /// `backend`
    Backend,
    /// `listen`
    Listen,
}

impl SectionKind {
    const ALL: [SectionKind; 5] = [
        SectionKind::Global,
        SectionKind::Defaults,
        SectionKind::Frontend,
        SectionKind::Backend,
        SectionKind::Listen,
    ];

    /// The word that begins it.
    pub(super) fn name(self) -> &'static str {
        match self {
            SectionKind::Global => "global",
            SectionKind::Defaults => "defaults",
            SectionKind::Frontend => "frontend",
            SectionKind::Backend => "backend",
            SectionKind::Listen => "listen",
        }
    }
}

/// HAProxy's sections that are known and not implemented: one alert each, their lines are skipped.
const SECTIONS_REFUSED: &[&str] = &[
    "acme",
    "cache",
    "crt-store",
    "fcgi-app",
    "http-errors",
    "log-forward",
    "log-profile",
    "mailers",
    "peers",
    "program",
    "resolvers",
    "ring",
    "traces",
    "userlist",
];

/// What may follow `no` and `default`.
const NEGATABLE: &[&str] = &["option", "log"];

/// Reads a file's bytes into sections.
pub(super) fn read(
    file: &Arc<str>,
    bytes: &[u8],
    variables: &dyn Fn(&str) -> Option<String>,
    report: &mut Report,
) -> Vec<Section> {
    let mut reader = Reader {
        sections: Vec::new(),
        state: State::Outside,
        report,
    };
    let mut rest = bytes;
    let mut number = 0u32;
    while !rest.is_empty() && !reader.report.is_full() {
        number = number.saturating_add(1);
        let place = Place {
            file: file.clone(),
            line: number,
        };
        let (line, complete) = match rest.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let line = &rest[..end];
                rest = &rest[end + 1..];
                (line, true)
            }
            None => (std::mem::take(&mut rest), false),
        };
        reader.line(&place, line, variables);
        if !complete {
            let text = format!(
                "Missing LF on last line, file might have been truncated at position {}.",
                line.len() + 1
            );
            reader.tight(&place, text);
        }
    }
    reader.sections
}

enum State {
    /// Before the first section.
    Outside,
    /// In the last of `sections`.
    Inside,
    /// In a section that is not implemented or whose header is wrong.
    Skipping,
}

struct Reader<'a> {
    sections: Vec<Section>,
    state: State,
    report: &'a mut Report,
}

impl Reader<'_> {
    fn tight(&mut self, place: &Place, text: String) {
        let (severity, place, form) = (Severity::Alert, Some(place.clone()), Form::Tight);
        self.report.push(Diagnostic {
            severity,
            place,
            word: None,
            form,
            text,
        });
    }

    fn line(&mut self, place: &Place, line: &[u8], variables: &dyn Fn(&str) -> Option<String>) {
        if let Some(position) = line.iter().position(|byte| *byte == 0) {
            self.tight(
                place,
                format!("Stray NUL character at position {}.", position + 1),
            );
            return;
        }
        let lookup = |name: &str| match name {
            ".FILE" => Some(place.file.to_string()),
            ".LINE" => Some(place.line.to_string()),
            ".SECTION" => match self.state {
                State::Inside => {
                    let names = self.sections.last().map(|s| &s.header.words);
                    names
                        .and_then(|words| words.get(1))
                        .map(|word| word.text.clone())
                }
                State::Outside | State::Skipping => None,
            },
            _ => variables(name),
        };
        match token::split(line, &lookup) {
            Ok(words) => self.words(place, words),
            Err(fault) => self.tight(place, fault.kind.message(fault.column, line)),
        }
    }

    fn words(&mut self, place: &Place, mut words: Vec<Word>) {
        let Some(first) = words.first() else { return };
        let prefix = match first.text.as_str() {
            "no" => Prefix::No,
            "default" => Prefix::Default,
            _ => Prefix::Set,
        };
        if prefix != Prefix::Set {
            if !words
                .get(1)
                .is_some_and(|word| NEGATABLE.contains(&word.text.as_str()))
            {
                let text = "negation/default currently supported only for options and log.";
                self.tight(place, text.to_owned());
                return;
            }
            words.remove(0);
        }
        let name = words[0].text.as_str();
        let kind = SectionKind::ALL
            .into_iter()
            .find(|kind| kind.name() == name);
        if let Some(kind) = kind {
            let header = Line {
                place: place.clone(),
                prefix,
                words,
            };
            self.sections.push(Section {
                kind,
                header,
                lines: Vec::new(),
            });
            self.state = State::Inside;
        } else if SECTIONS_REFUSED.contains(&name) {
            let text = format!("section '{name}' is not implemented in Tidegate.");
            self.report.alert(place, words.first(), text);
            self.state = State::Skipping;
        } else if matches!(name, ".if" | ".elif" | ".else" | ".endif") {
            let text = format!("'{name}' is not implemented yet.");
            self.report.alert(place, words.first(), text);
        } else if let ".alert" | ".warning" | ".notice" | ".diag" = name {
            self.message(place, &words);
        } else {
            match self.state {
                State::Outside => {
                    self.tight(place, format!("unknown keyword '{name}' out of section."));
                }
                State::Skipping => {}
                State::Inside => {
                    if let Some(section) = self.sections.last_mut() {
                        section.lines.push(Line {
                            place: place.clone(),
                            prefix,
                            words,
                        });
                    }
                }
            }
        }
    }

    /// `.alert "text"` and its like say what the author of the file wants said.
    fn message(&mut self, place: &Place, words: &[Word]) {
        let text = words.get(1).map_or("", |word| word.text.as_str());
        let severity = match words[0].text.as_str() {
            ".alert" => Severity::Alert,
            ".warning" => Severity::Warning,
            ".notice" => Severity::Notice,
            // Shown by HAProxy only with -dD.
            _ => return,
        };
        let (place, form) = (Some(place.clone()), Form::Parsing);
        self.report.push(Diagnostic {
            severity,
            place,
            word: None,
            form,
            text: format!("'{text}'."),
        });
    }
}
