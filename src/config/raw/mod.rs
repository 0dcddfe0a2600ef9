//! From a file to its sections: lines of words with their places, nothing interpreted yet.
//!
//! This is `Raw`. It knows the names of sections, because they end the one before, and the prefixes
//! `no` and `default`. It knows no keyword but those that change how the next line is read: the
//! directives, and the statements about variables. What can't be read is reported and left out.

pub(super) mod arguments;
pub(super) mod conditions;
pub(super) mod fault;
mod features;
mod preprocessor;
pub(super) mod sections;
pub(super) mod token;
pub(super) mod toml;
pub(super) mod variables;

use std::sync::Arc;

use super::diagnostics::{Place, Report, Severity};
use super::keywords::did_you_mean;
use fault::with_caret;
use preprocessor::{Branches, Directive};
use token::Word;
use variables::{Remark, Variables};

pub(in crate::config) use sections::SectionKind;

/// A statement.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Line {
    /// Where it stands.
    pub(in crate::config) place: Place,
    /// What stood before the keyword.
    pub(in crate::config) prefix: Prefix,
    /// The keyword and its arguments; never empty.
    pub(in crate::config) words: Vec<Word>,
}

/// A line's words as they stand in a file, a prefix among them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Statement {
    /// Where it stands.
    pub(in crate::config) place: Place,
    /// Whether it begins a section.
    pub(in crate::config) header: bool,
    /// Never empty.
    pub(in crate::config) words: Vec<Word>,
}

/// The word before a keyword.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Prefix {
    /// None.
    Set,
    /// `no`: off, whatever was inherited.
    No,
    /// `default`: back to the built-in default.
    Default,
}

/// A section: its header and the lines up to the next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in crate::config) struct Section {
    /// What it is.
    pub(in crate::config) kind: SectionKind,
    /// `global`, `frontend name`, ...
    pub(in crate::config) header: Line,
    /// Its statements.
    pub(in crate::config) lines: Vec<Line>,
}

/// What may follow `no` and `default`.
const NEGATABLE: &[&str] = &[
    "option",
    "log",
    "busy-polling",
    "set-dumpable",
    "strict-limits",
    "insecure-fork-wanted",
    "numa-cpu-mapping",
];

/// How much longer than the file its words may be: what variables bring is held in memory.
pub(in crate::config) const EXPANSION_BYTES_MAX: usize = 16 << 20;

/// Reads a file's bytes into sections. Statements about variables are carried out and left out;
/// their effect lasts.
pub(in crate::config) fn read(
    file: &Arc<str>,
    bytes: &[u8],
    variables: &mut Variables<'_>,
    report: &mut Report,
) -> Vec<Section> {
    let mut reader = Reader::new(bytes.len(), variables, report);
    reader.file(file, bytes);
    reader.sections
}

/// Makes sections of statements that another format has, in which no directive is.
pub(in crate::config) fn read_statements(
    statements: Vec<Statement>,
    variables: &mut Variables<'_>,
    report: &mut Report,
) -> Vec<Section> {
    let mut reader = Reader::new(0, variables, report);
    for statement in statements {
        if reader.report.is_full() {
            break;
        }
        reader.words(&statement.place, statement.words);
    }
    reader.sections
}

/// A file's statements, those of sections that aren't read and those about variables among them.
#[derive(Debug, Default)]
pub(in crate::config) struct Whole {
    pub(in crate::config) statements: Vec<Statement>,
    /// How many directives there were; they are followed and have nothing to say.
    pub(in crate::config) directives: u32,
    in_global: bool,
}

/// Reads a file's bytes into statements.
pub(in crate::config) fn read_whole(
    file: &Arc<str>,
    bytes: &[u8],
    variables: &mut Variables<'_>,
    report: &mut Report,
) -> Whole {
    let mut reader = Reader::new(bytes.len(), variables, report);
    reader.whole = Some(Whole::default());
    reader.file(file, bytes);
    reader.whole.unwrap_or_default()
}

enum State {
    /// Before the first section.
    Outside,
    /// In the last of `sections`.
    Inside,
    /// In a section that is not read, begun by this word.
    Skipping(String),
}

struct Reader<'a, 'v> {
    sections: Vec<Section>,
    state: State,
    /// What `.SECTION` stands for: the section's name, or its word where it has none.
    section_name: String,
    branches: Branches,
    /// How many bytes the words of the lines to come may have.
    words_bytes_left: usize,
    /// Takes the statements instead of `sections`.
    whole: Option<Whole>,
    variables: &'a mut Variables<'v>,
    report: &'a mut Report,
}

impl<'a, 'v> Reader<'a, 'v> {
    fn new(bytes: usize, variables: &'a mut Variables<'v>, report: &'a mut Report) -> Self {
        Reader {
            sections: Vec::new(),
            state: State::Outside,
            section_name: String::new(),
            branches: Branches::default(),
            words_bytes_left: bytes + EXPANSION_BYTES_MAX,
            whole: None,
            variables,
            report,
        }
    }

    fn file(&mut self, file: &Arc<str>, bytes: &[u8]) {
        let mut place = Place {
            file: file.clone(),
            line: 0,
        };
        let mut rest = bytes;
        while !rest.is_empty() && self.goes_on() {
            place.line = place.line.saturating_add(1);
            let (line, complete) = match rest.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let line = &rest[..end];
                    rest = &rest[end + 1..];
                    (line, true)
                }
                None => (std::mem::take(&mut rest), false),
            };
            self.line(&place, line);
            if !complete {
                let text = format!(
                    "Missing LF on last line, file might have been truncated at position {}.",
                    line.len() + 1
                );
                self.complain(&place, text);
            }
        }
        if let Some(line) = self.branches.opened_at()
            && self.goes_on()
        {
            let text =
                format!("non-terminated '.if' block.\n   | The innermost begins at line {line}.");
            self.complain(&place, text);
        }
    }

    fn goes_on(&self) -> bool {
        self.words_bytes_left > 0 && !self.report.is_full()
    }

    fn complain(&mut self, place: &Place, text: String) {
        self.report.tight(Severity::Alert, place, text);
    }

    fn line(&mut self, place: &Place, line: &[u8]) {
        if let Some(position) = line.iter().position(|byte| *byte == 0) {
            let text = format!("Stray NUL character at position {}.", position + 1);
            return self.complain(place, text);
        }
        let lookup = |name: &str| match name {
            ".FILE" => Some(place.file.to_string()),
            ".LINE" => Some(place.line.to_string()),
            ".SECTION" => Some(self.section_name.clone()),
            _ => self.variables.get(name),
        };
        let words = if preprocessor::takes_condition(line) {
            token::split_first(line, &lookup)
        } else {
            token::split(line, &lookup)
        };
        match words {
            Ok(words) => {
                let bytes = words.iter().map(|word| word.text.len()).sum();
                self.words_bytes_left = self.words_bytes_left.saturating_sub(bytes);
                if self.words_bytes_left == 0 {
                    let text = format!(
                        "variables make the file longer by {EXPANSION_BYTES_MAX} bytes, stopping \
                         now."
                    );
                    return self.complain(place, text);
                }
                self.words(place, words);
            }
            // A word may be empty because the branch's condition is what it is.
            Err(fault) if fault.kind.is_empty_word() && self.branches.is_skipping() => {}
            Err(fault) => self.complain(place, fault.kind.message(fault.column, line)),
        }
    }

    fn words(&mut self, place: &Place, mut words: Vec<Word>) {
        let Some(first) = words.first() else { return };
        if first.text.starts_with('.') {
            return self.directive(place, &words);
        }
        if self.branches.is_skipping() {
            return;
        }
        if let Some(mut whole) = self.whole.take() {
            self.keep(&mut whole, place, words);
            self.whole = Some(whole);
            return;
        }
        let prefix = match first.text.as_str() {
            "no" => Prefix::No,
            "default" => Prefix::Default,
            _ => Prefix::Set,
        };
        if prefix != Prefix::Set {
            let keyword = words.get(1).map_or("", |word| word.text.as_str());
            if !NEGATABLE.contains(&keyword) {
                let (last, others) = NEGATABLE.split_last().unwrap_or((&"", &[]));
                let text = format!(
                    "negation/default currently supported only for {} and {last}.",
                    others.join(", ").replacen("option", "options", 1)
                );
                return self.complain(place, text);
            }
            words.remove(0);
        }
        let name = words[0].text.as_str();
        if let Some(kind) = SectionKind::of(name) {
            self.name_section(&words);
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
        } else if let Some(standing) = sections::standing(name) {
            if let Some((severity, text)) = standing.message(&format!("section '{name}'")) {
                self.report.about(severity, place, words.first(), text);
            }
            self.name_section(&words);
            self.state = State::Skipping(name.to_owned());
        } else {
            self.statement(Line {
                place: place.clone(),
                prefix,
                words,
            });
        }
    }

    fn keep(&mut self, whole: &mut Whole, place: &Place, words: Vec<Word>) {
        let name = words[0].text.as_str();
        let header = sections::standing(name).is_some();
        if header {
            self.name_section(&words);
            whole.in_global = name == SectionKind::Global.name();
        } else if whole.statements.is_empty() {
            let text = format!("unknown keyword '{name}' out of section.");
            return self.complain(place, text);
        } else if whole.in_global
            && let Some(Err(Remark::Error(text))) = self.variables.statement(&words)
        {
            return self.complain(place, text);
        }
        whole.statements.push(Statement {
            place: place.clone(),
            header,
            words,
        });
    }

    fn name_section(&mut self, header: &[Word]) {
        let named = |word: &&Word| word.text != "from";
        let name = header.get(1).filter(named).or(header.first());
        self.section_name = name.map_or_else(String::new, |word| word.text.clone());
    }

    fn statement(&mut self, line: Line) {
        match &self.state {
            State::Outside => {
                let text = format!("unknown keyword '{}' out of section.", line.words[0].text);
                self.complain(&line.place, text);
            }
            State::Skipping(section) => {
                let name = &line.words[0].text;
                if let Some(near) = sections::misspelt(name) {
                    let text = format!(
                        "unknown keyword '{name}' in '{section}' section{}",
                        did_you_mean(Some(near))
                    );
                    self.report.alert(&line.place, line.words.first(), text);
                }
            }
            State::Inside => {
                let Some(section) = self.sections.last_mut() else {
                    return;
                };
                let variables = match section.kind {
                    SectionKind::Global => self.variables.statement(&line.words),
                    _ => None,
                };
                match variables {
                    None => section.lines.push(line),
                    Some(Ok(())) => {}
                    Some(Err(Remark::Error(text))) => self.complain(&line.place, text),
                    Some(Err(Remark::Warning(text))) => {
                        self.report.tight(Severity::Warning, &line.place, text);
                    }
                }
            }
        }
    }

    fn directive(&mut self, place: &Place, words: &[Word]) {
        if let Some(whole) = &mut self.whole {
            whole.directives += 1;
        }
        let variables = &*self.variables;
        let decide = |condition: &str| {
            conditions::evaluate(condition, variables).map_err(|fault| {
                let name = &words[0].text;
                let shown = format!("{name} {condition}");
                let shown = with_caret(shown.as_bytes(), name.len() + 1 + fault.column);
                let position = fault.column + 1;
                format!("'{name}' at position {position} : {}\n{shown}", fault.text)
            })
        };
        match self.branches.follow(words, place.line, &decide) {
            Ok(Directive::Branch | Directive::Skipped) => {}
            Ok(Directive::Message(..)) if self.whole.is_some() => {}
            Ok(Directive::Message(severity, text)) => self.report.tight(severity, place, text),
            Err(text) => self.complain(place, text),
        }
    }
}
