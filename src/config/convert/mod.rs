//! From one format of a configuration to another, for `tidegate convert`.
//!
//! HAProxy's language and TOML are turned into each other statement by statement, so keywords that
//! Tidegate doesn't implement are kept; a `stream` block of nginx becomes proxies of HAProxy's
//! language. Nothing is validated here: the result is checked by loading it.
//!
//! The command line reads the file, asks `Format::guess` where it wasn't told, and calls `convert`.
//! `Converted::text` is the result; each of `Converted::notes` is printed as `Diagnostic::format`
//! has it. A note of severity `Alert` means that something that matters (who may connect) is not
//! in the result: the text is written all the same, and the exit code is 1. `Err` holds the
//! diagnostics of a file that can't be read; there is no text then.

mod nginx;
mod text;
mod toml;

use std::path::Path;
use std::sync::Arc;

use super::FILE_BYTES_MAX;
use super::diagnostics::{Diagnostic, Form, Place, Report, Severity};
use super::environment::Environment;
use super::raw::Statement;
use super::raw::variables::Variables;

/// A format of configurations.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// HAProxy's language.
    HaProxy,
    /// The same in TOML.
    Toml,
    /// nginx's; read only.
    Nginx,
}

impl Format {
    /// The names on the command line.
    pub const NAMES: &[(&str, Format)] = &[
        ("haproxy", Format::HaProxy),
        ("toml", Format::Toml),
        ("nginx", Format::Nginx),
    ];

    /// The format of a name.
    pub fn named(name: &str) -> Option<Format> {
        let mut names = Format::NAMES.iter();
        names
            .find(|(known, _)| *known == name)
            .map(|(_, format)| *format)
    }

    /// The likely format of a file: by its extension, else by what nginx alone has.
    pub fn guess(file: &str, bytes: &[u8]) -> Format {
        match Path::new(file).extension().and_then(|end| end.to_str()) {
            Some("toml") => Format::Toml,
            Some("cfg") => Format::HaProxy,
            _ if nginx::is_likely(bytes) => Format::Nginx,
            _ => Format::HaProxy,
        }
    }

    /// What it is turned into unless something else is wanted.
    pub fn counterpart(self) -> Format {
        match self {
            Format::HaProxy => Format::Toml,
            Format::Toml | Format::Nginx => Format::HaProxy,
        }
    }
}

/// What to convert.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Name of the file, for messages.
    pub file: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// Its format.
    pub from: Format,
    /// The wanted format; not nginx.
    pub to: Format,
}

/// The result of a conversion.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Converted {
    /// The whole file.
    pub text: String,
    /// What could not be carried over, in the order of the lines.
    pub notes: Vec<Diagnostic>,
}

/// Converts a file. Variables have the value that they have in `environment`.
pub fn convert(
    request: &Request<'_>,
    environment: &dyn Environment,
) -> Result<Converted, Vec<Diagnostic>> {
    let file: Arc<str> = request.file.into();
    if request.to == Format::Nginx {
        return Err(vec![bare(
            "a configuration can't be written in nginx's language.",
        )]);
    }
    if request.bytes.len() > FILE_BYTES_MAX {
        let text = format!("configuration file {file} is larger than {FILE_BYTES_MAX} bytes");
        return Err(vec![bare(&text)]);
    }
    if request.from == Format::Nginx {
        let converted = nginx::convert(&file, request.bytes)?;
        if request.to == Format::HaProxy {
            return Ok(converted);
        }
        let (bytes, from) = (converted.text.as_bytes(), Format::HaProxy);
        let mut second = convert(
            &Request {
                bytes,
                from,
                ..*request
            },
            environment,
        )?;
        // The places of the second step are in a text that nobody has.
        second.notes = converted.notes;
        return Ok(second);
    }
    let mut notes = Notes::default();
    let mut variables = Variables::new(environment);
    let mut report = Report::default();
    let statements = match request.from {
        Format::Toml => {
            toml::note_comments(request.bytes, &mut notes);
            super::raw::toml::read(&file, request.bytes, &mut variables, &mut report)
        }
        Format::HaProxy | Format::Nginx => text::read(
            &file,
            request.bytes,
            &mut variables,
            &mut report,
            &mut notes,
        ),
    };
    let text = match request.to {
        Format::Toml => toml::write(&statements, &mut report),
        Format::HaProxy | Format::Nginx => text::write(&statements),
    };
    report.end_file();
    if report.has_fatal() {
        return Err(report.finish());
    }
    let asked = variables.asked();
    if !asked.is_empty() {
        let text = format!(
            "variables count with their present values: {}.",
            asked.join(", ")
        );
        notes.add(Severity::Warning, None, text);
    }
    Ok(Converted {
        text,
        notes: notes.finish(),
    })
}

fn bare(text: &str) -> Diagnostic {
    let (severity, form, text) = (Severity::Alert, Form::Bare, text.to_owned());
    Diagnostic {
        severity,
        place: None,
        word: None,
        form,
        text,
    }
}

/// Collects what could not be carried over.
#[derive(Debug, Default)]
struct Notes(Vec<Diagnostic>);

impl Notes {
    fn add(&mut self, severity: Severity, place: Option<&Place>, text: String) {
        let (place, form) = (place.cloned(), Form::Parsing);
        self.0.push(Diagnostic {
            severity,
            place,
            word: None,
            form,
            text,
        });
    }

    fn finish(mut self) -> Vec<Diagnostic> {
        // Those about the whole file last.
        self.0
            .sort_by_key(|note| note.place.as_ref().map_or(u32::MAX, |place| place.line));
        self.0
    }
}

/// The texts of a statement's words.
fn texts(statement: &Statement) -> Vec<&str> {
    statement
        .words
        .iter()
        .map(|word| word.text.as_str())
        .collect()
}
