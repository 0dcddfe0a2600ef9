//! What the configuration has to say about itself: alerts, warnings and notices as values.
//!
//! A diagnostic knows its file and line and, where there is one, the word at fault. It is formatted
//! in HAProxy's form, so that tools that read HAProxy's messages read these too:
//! `[ALERT]    (pid) : config : parsing [file:line] : text`. Nothing here prints: the caller does.

use std::fmt;
use std::sync::Arc;

use super::raw::token::Word;

/// Fatal errors of one file after which reading it stops.
pub const FATAL_PER_FILE_MAX: usize = 50;

/// How urgent a message is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Something can't work: the configuration can't be used.
    Alert,
    /// Something is probably not as meant, or a server changed state.
    Warning,
    /// Worth knowing.
    Notice,
    /// Suspicious to some eyes; shown on request (`-dD`) and without consequences.
    Diag,
}

impl Severity {
    fn label(self) -> &'static str {
        match self {
            Severity::Alert => "[ALERT]",
            Severity::Warning => "[WARNING]",
            Severity::Notice => "[NOTICE]",
            Severity::Diag => "[DIAG]",
        }
    }

    /// A message in HAProxy's form, without a line feed. The label is padded to ten characters, so
    /// the texts of all severities begin in one column.
    pub fn format(self, pid: u32, text: &str) -> String {
        format!("{:<10} ({pid}) : {text}", self.label())
    }
}

/// A line of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// File name as it was given.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// How the place stands before the text. HAProxy has three habits, and its users' tools know them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// `parsing [file:line] : text`
    Parsing,
    /// `parsing [file:line]: text`, the form of the line reader.
    Tight,
    /// `text` alone: about a whole proxy, a whole file or everything.
    Bare,
}

/// One message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where, unless it is about everything.
    pub place: Option<Place>,
    /// The word at fault, with its column.
    pub word: Option<Word>,
    /// How the place is printed.
    pub form: Form,
    /// The message; may hold several lines.
    pub text: String,
}

impl Diagnostic {
    /// Whether the configuration can't be used because of it.
    pub fn is_fatal(&self) -> bool {
        self.severity == Severity::Alert
    }

    /// The message in HAProxy's form, without a line feed at its end.
    pub fn format(&self, pid: u32) -> String {
        self.severity.format(pid, &format!("config : {self}"))
    }
}

/// The message without severity and process id.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.place, self.form) {
            (Some(place), Form::Parsing) => write!(f, "parsing [{place}] : {}", self.text),
            (Some(place), Form::Tight) => write!(f, "parsing [{place}]: {}", self.text),
            (_, _) => f.write_str(&self.text),
        }
    }
}

/// Collects the diagnostics of a load.
#[derive(Debug, Default)]
pub struct Report {
    list: Vec<Diagnostic>,
    /// Where the current file's diagnostics begin.
    file_start: usize,
    fatal_in_file: usize,
    files_at_fault: Vec<Arc<str>>,
    stopped: bool,
    /// Whether `Severity::Diag` is wanted.
    diagnose: bool,
}

impl Report {
    /// An empty report; without `diagnose` it forgets what is only `Severity::Diag`.
    pub fn new(diagnose: bool) -> Report {
        Report {
            diagnose,
            ..Report::default()
        }
    }

    /// Adds a diagnostic.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        if diagnostic.severity == Severity::Diag && !self.diagnose {
            return;
        }
        if diagnostic.is_fatal() {
            self.fatal_in_file += 1;
            if let Some(place) = &diagnostic.place
                && !self.files_at_fault.contains(&place.file)
            {
                self.files_at_fault.push(place.file.clone());
            }
        }
        self.list.push(diagnostic);
    }

    /// Adds an alert about a place and perhaps a word.
    pub fn alert(&mut self, place: &Place, word: Option<&Word>, text: impl Into<String>) {
        self.add(Severity::Alert, place, word, Form::Parsing, text.into());
    }

    /// Adds a warning about a place and perhaps a word.
    pub fn warning(&mut self, place: &Place, word: Option<&Word>, text: impl Into<String>) {
        self.add(Severity::Warning, place, word, Form::Parsing, text.into());
    }

    /// Adds a message about a place and perhaps a word.
    pub fn about(
        &mut self,
        severity: Severity,
        place: &Place,
        word: Option<&Word>,
        text: impl Into<String>,
    ) {
        self.add(severity, place, word, Form::Parsing, text.into());
    }

    /// Adds a message of the line reader.
    pub fn tight(&mut self, severity: Severity, place: &Place, text: impl Into<String>) {
        self.add(severity, place, None, Form::Tight, text.into());
    }

    /// Adds a message about a whole proxy, printed without its place.
    pub fn bare(&mut self, severity: Severity, place: &Place, text: impl Into<String>) {
        self.add(severity, place, None, Form::Bare, text.into());
    }

    fn add(
        &mut self,
        severity: Severity,
        place: &Place,
        word: Option<&Word>,
        form: Form,
        text: String,
    ) {
        let mut place = place.clone();
        place.line += word.map_or(0, |word| word.lines_below);
        self.push(Diagnostic {
            severity,
            place: Some(place),
            word: word.cloned(),
            form,
            text,
        });
    }

    /// Begins a file: its fatal errors are counted from 0.
    pub fn begin_file(&mut self) {
        self.file_start = self.list.len();
        self.fatal_in_file = 0;
    }

    /// Whether the current file had so many fatal errors that reading on makes no sense.
    pub fn is_full(&self) -> bool {
        self.fatal_in_file >= FATAL_PER_FILE_MAX
    }

    /// Ends a file: what the line reader and the parser said comes in the order of its lines.
    pub fn end_file(&mut self) {
        self.list[self.file_start..].sort_by_key(|d| d.place.as_ref().map_or(0, |p| p.line));
        if self.is_full() {
            let place = self.list.last().and_then(|last| last.place.clone());
            let text = format!(
                "too many fatal errors ({}), stopping now.",
                self.fatal_in_file
            );
            self.push(Diagnostic {
                severity: Severity::Alert,
                place,
                word: None,
                form: Form::Tight,
                text,
            });
            self.stopped = true;
        }
    }

    /// Whether a file was not read to its end.
    pub fn has_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether anything is fatal.
    pub fn has_fatal(&self) -> bool {
        self.list.iter().any(Diagnostic::is_fatal)
    }

    /// All diagnostics; after fatal ones, a closing line per file and one for all.
    pub fn finish(mut self) -> Vec<Diagnostic> {
        if !self.has_fatal() {
            return self.list;
        }
        let closing = self.files_at_fault.iter().map(|file| {
            let text = format!("Error(s) found in configuration file : {file}");
            (
                Some(Place {
                    file: file.clone(),
                    line: 0,
                }),
                text,
            )
        });
        let last = (None, "Fatal errors found in configuration.".to_owned());
        let closing: Vec<_> = closing.chain([last]).collect();
        for (place, text) in closing {
            let (severity, form) = (Severity::Alert, Form::Bare);
            self.list.push(Diagnostic {
                severity,
                place,
                word: None,
                form,
                text,
            });
        }
        self.list
    }
}
