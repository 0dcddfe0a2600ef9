//! `tidegate convert`: a configuration from one format into another. What could not be carried over
//! is said on standard error; where that matters the exit code is 1, and the text is written all
//! the same.

use std::io::{Read, Write};
use std::path::Path;

use super::commands::Convert;
use super::load;
use crate::config;
use crate::config::convert::{self, Format, Request};
use crate::config::diagnostics::Diagnostic;
use crate::control::messages::Console;

/// Stands for standard input and standard output.
const STANDARD: &str = "-";

/// Converts and returns the exit code.
pub(super) fn run(wanted: &Convert) -> u8 {
    let console = Console::new(false);
    let bytes = match read(&wanted.file) {
        Ok(bytes) => bytes,
        Err(error) => {
            console.alert(&format!("Cannot read {}: {error}", wanted.file.display()));
            return 1;
        }
    };
    let file = wanted.file.to_string_lossy();
    let from = wanted.from.unwrap_or_else(|| Format::guess(&file, &bytes));
    let request = Request {
        file: &file,
        bytes: &bytes,
        from,
        to: wanted.to.unwrap_or_else(|| from.counterpart()),
    };
    let environment = load::environment(&super::Options::default());
    match convert::convert(&request, &environment) {
        Ok(converted) => {
            say(&console, &converted.notes);
            if let Err(error) = write(wanted.output.as_deref(), &converted.text) {
                console.alert(&format!("Cannot write the result: {error}"));
                return 1;
            }
            u8::from(converted.notes.iter().any(Diagnostic::is_fatal))
        }
        Err(diagnostics) => {
            say(&console, &diagnostics);
            1
        }
    }
}

fn say(console: &Console, diagnostics: &[Diagnostic]) {
    let pid = std::process::id();
    for diagnostic in diagnostics {
        console.introduce();
        console.line(&diagnostic.format(pid));
    }
}

/// Reads a byte more than a configuration may have, and not a pipe without an end.
fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let most = config::FILE_BYTES_MAX as u64 + 1;
    if path.as_os_str() == STANDARD {
        std::io::stdin().lock().take(most).read_to_end(&mut bytes)?;
    } else {
        std::fs::File::open(path)?
            .take(most)
            .read_to_end(&mut bytes)?;
    }
    Ok(bytes)
}

fn write(path: Option<&Path>, text: &str) -> std::io::Result<()> {
    match path.filter(|path| path.as_os_str() != STANDARD) {
        Some(path) => std::fs::write(path, text),
        None => std::io::stdout().lock().write_all(text.as_bytes()),
    }
}
