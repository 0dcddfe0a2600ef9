//! From text to an immutable plan: `text -> Raw (words with places) -> Plan (resolved, validated)`.
//!
//! `raw` splits lines, follows directives and finds the sections (from TOML too), `parse` reads the
//! keywords of the tables in `keywords` into a `draft`, `resolve` makes the `plan` of it. `convert`
//! turns one format into another. All errors are collected. Nothing outside this layer sees `Raw`.
//! Nothing in it opens a socket, reads a clock or knows a ring; files are read and names resolved
//! through the caller's `Environment`.

pub mod change;
pub mod convert;
pub mod diagnostics;
mod draft;
mod draft_check;
mod draft_udp;
pub mod edit;
mod environment;
pub mod keywords;
mod parse;
pub mod plan;
mod raw;
mod resolve;
mod state_file;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use diagnostics::Diagnostic;
pub use environment::{Environment, Options, Resolver};
pub use parse::global::master_socket;
pub use raw::token::Word;
pub use values::threads;
use values::units::{self, Unit};

use diagnostics::{Form, Report, Severity};
use parse::Parser;
use plan::{Plan, Written};
use raw::variables::Variables;
use raw::{conditions, fault, token, toml};

/// Largest file. A line may be long and a config have many, but not this many.
pub const FILE_BYTES_MAX: usize = 64 << 20;

/// Loads a configuration from files, read in their order as if they were one.
///
/// There is a plan unless a diagnostic is fatal.
pub fn load(files: &[PathBuf], environment: &dyn Environment) -> (Option<Plan>, Vec<Diagnostic>) {
    let read = |path: &PathBuf| {
        let name: Arc<str> = path.to_string_lossy().into();
        (name, read_file(path, environment))
    };
    load_all(files.iter().map(read), environment)
}

/// A time as the configuration writes it, in milliseconds where no unit stands; for words that come
/// from elsewhere.
pub fn time_ms(text: &str) -> Result<u32, String> {
    match (units::time(text, Unit::Milliseconds), units::surplus(text)) {
        (Ok(ms), None) => Ok(ms),
        (Ok(_), Some(stray)) => Err(format!("unexpected character '{stray}'")),
        (Err(fault), _) => Err(fault.to_string()),
    }
}

/// A time in whole seconds, as operators write it: `90`, `2m`.
pub fn seconds(text: &str) -> Option<u32> {
    units::time(text, Unit::Seconds).ok()
}

/// Decides a condition as `.if` would before the first line, for the command line.
pub fn condition(text: &str, environment: &dyn Environment) -> Result<bool, String> {
    let variables = Variables::new(environment);
    let text = token::unquote(text, &|name| variables.get(name)).map_err(|fault| {
        format!(
            "Syntax error in condition: {}",
            fault.kind.message(fault.column, text.as_bytes())
        )
    })?;
    conditions::evaluate(&text, &variables).map_err(|fault| {
        let shown = fault::with_caret(text.as_bytes(), fault.column);
        let position = fault.column + 1;
        format!(
            "Failed to evaluate condition at position {position}: {}\n{shown}",
            fault.text
        )
    })
}

/// Loads a configuration from a text; `name` stands for the file in messages.
pub fn load_text(
    name: &str,
    text: impl AsRef<[u8]>,
    environment: &dyn Environment,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let file = (Arc::from(name), Ok(text.as_ref().to_vec()));
    load_all([file].into_iter(), environment)
}

fn read_file(path: &Path, environment: &dyn Environment) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let bytes = environment
        .read(path)
        .map_err(|error| format!("Could not open configuration file {shown} : {error}"))?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(format!(
            "configuration file {shown} is larger than {FILE_BYTES_MAX} bytes"
        ));
    }
    Ok(bytes)
}

/// Whether a file is written in TOML: its name says so.
fn is_toml(file: &str) -> bool {
    Path::new(file).extension().is_some_and(|end| end == "toml")
}

fn load_all(
    files: impl Iterator<Item = (Arc<str>, Result<Vec<u8>, String>)>,
    environment: &dyn Environment,
) -> (Option<Plan>, Vec<Diagnostic>) {
    let mut report = Report::new(environment.options().diagnose);
    let mut variables = Variables::new(environment);
    let mut parser = Parser::new(environment, &mut report);
    for (file, bytes) in files {
        parser.report.begin_file();
        match bytes {
            Ok(bytes) => {
                let sections = if is_toml(&file) {
                    let statements = toml::read(&file, &bytes, &mut variables, parser.report);
                    raw::read_statements(statements, &mut variables, parser.report)
                } else {
                    raw::read(&file, &bytes, &mut variables, parser.report)
                };
                parser.file(&sections);
            }
            Err(text) => {
                let (severity, form) = (Severity::Alert, Form::Bare);
                parser.report.push(Diagnostic {
                    severity,
                    place: None,
                    word: None,
                    form,
                    text,
                });
            }
        }
        parser.report.end_file();
    }
    let mut draft = parser.draft;
    draft.global.variables = variables.changes();
    if report.has_stopped() {
        // What was not read would be missing everywhere.
        return (None, report.finish());
    }
    let mut plan = resolve::plan(&draft, environment, &mut report);
    plan.written = Written::new(draft, environment.options());
    let plan = (!report.has_fatal()).then_some(plan);
    (plan, report.finish())
}
