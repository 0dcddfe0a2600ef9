//! `tidegate check`: the problems of a configuration, for people: a paragraph each, with the line
//! at fault and the word in it underlined. Coloured where standard output is a terminal.

use anstyle::{AnsiColor, Style};
use std::collections::HashMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

use super::commands::Check;
use super::flags::Options;
use super::load;
use crate::config::Diagnostic;
use crate::config::diagnostics::{Form, Severity};
use crate::config::plan::{Plan, ProxyKind};

const PLACE: Style = AnsiColor::Blue.on_default();

fn style(severity: Severity) -> (Style, &'static str) {
    match severity {
        Severity::Alert => (AnsiColor::Red.on_default().bold(), "error"),
        Severity::Warning => (AnsiColor::Yellow.on_default().bold(), "warning"),
        Severity::Notice | Severity::Diag => (AnsiColor::Cyan.on_default().bold(), "note"),
    }
}

/// Checks the files; the exit code is that of `-c`.
pub(super) fn run(check: &Check) -> u8 {
    let options = Options {
        files: check.files.clone(),
        ..Options::default()
    };
    let loaded = match load::load(&options) {
        Ok(loaded) => loaded,
        Err(text) => {
            super::complain(&text);
            return 1;
        }
    };
    let mut sources = Sources::default();
    let mut text = String::new();
    for diagnostic in loaded.diagnostics.iter().filter(|d| !is_closing(d)) {
        paragraph(&mut text, diagnostic, &mut sources);
    }
    let count = |severity| {
        let of_severity = |d: &&Diagnostic| d.severity == severity && !is_closing(d);
        loaded.diagnostics.iter().filter(of_severity).count()
    };
    let (errors, warnings) = (count(Severity::Alert), count(Severity::Warning));
    let code = match &loaded.plan {
        Some(plan) => conclude(&mut text, plan, warnings),
        None => {
            let _ = writeln!(
                text,
                "{} and {}.",
                counted(errors, "error"),
                counted(warnings, "warning")
            );
            1
        }
    };
    // A reader that goes away early has seen enough.
    let _ = anstream::stdout().lock().write_all(text.as_bytes());
    code
}

/// The lines that close HAProxy's messages say nothing that the count doesn't.
fn is_closing(diagnostic: &Diagnostic) -> bool {
    let whole = diagnostic
        .place
        .as_ref()
        .is_none_or(|place| place.line == 0);
    whole
        && diagnostic.form == Form::Bare
        && (diagnostic.text.starts_with("Error(s) found")
            || diagnostic.text.starts_with("Fatal errors"))
}

/// `1 error`, `2 errors`
fn counted(count: usize, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

fn conclude(text: &mut String, plan: &Plan, warnings: usize) -> u8 {
    let with = if warnings > 0 {
        format!(", with {}", counted(warnings, "warning"))
    } else {
        String::new()
    };
    if !plan.has_listener() {
        let _ = writeln!(
            text,
            "Valid{with}, and it would not start: there is no listener."
        );
        return 2;
    }
    let _ = writeln!(text, "Valid{with}. It would listen on:");
    for listener in &plan.listeners {
        let proxy = plan.proxies.get(usize::from(listener.proxy_id.0));
        let (kind, name) = proxy.map_or(("frontend", "?"), |proxy| {
            let kind = match proxy.kind {
                ProxyKind::Listen => "listen",
                ProxyKind::Frontend | ProxyKind::Backend => "frontend",
            };
            (kind, &*proxy.name)
        });
        let _ = writeln!(text, "  {} ({kind} {name})", listener.endpoint);
    }
    for socket in &plan.global.stats_sockets {
        let _ = writeln!(text, "  {} (runtime socket)", socket.endpoint);
    }
    0
}

fn paragraph(text: &mut String, diagnostic: &Diagnostic, sources: &mut Sources) {
    let (style, label) = style(diagnostic.severity);
    let _ = writeln!(text, "{style}{label}{style:#}: {}", diagnostic.text);
    let Some(place) = diagnostic.place.as_ref().filter(|place| place.line > 0) else {
        text.push('\n');
        return;
    };
    let number = place.line.to_string();
    let margin = " ".repeat(number.len());
    let column = diagnostic.word.as_ref().map(|word| word.column as usize);
    let column_text = column.map_or_else(String::new, |column| format!(":{}", column + 1));
    let _ = writeln!(text, "{margin}{PLACE}-->{PLACE:#} {place}{column_text}");
    // A message about quotes or a condition has the line and its own caret.
    let has_caret = diagnostic.text.lines().last().map(str::trim) == Some("^");
    if !has_caret && let Some(line) = sources.line(&place.file, place.line) {
        let _ = writeln!(text, "{margin} {PLACE}|{PLACE:#}");
        let _ = writeln!(text, "{PLACE}{number} |{PLACE:#} {line}");
        if let Some((before, under)) = column.and_then(|column| underline(&line, column)) {
            let _ = writeln!(
                text,
                "{margin} {PLACE}|{PLACE:#} {before}{style}{under}{style:#}"
            );
        }
    }
    text.push('\n');
}

/// What stands below a line so that the word at `column` is underlined: blanks of the same width,
/// tabs kept, and carets. `None` where the line has no such column.
fn underline(line: &str, column: usize) -> Option<(String, String)> {
    let before = line.get(..column)?;
    let word = &line[column..word_end(line, column)];
    let blanks = before.chars().map(|c| if c == '\t' { '\t' } else { ' ' });
    Some((blanks.collect(), "^".repeat(word.chars().count().max(1))))
}

/// Where a word ends in the line as it is written, with its quotes.
fn word_end(line: &str, start: usize) -> usize {
    let (mut quote, mut escaped) = (None, false);
    for (index, c) in line[start..].char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, ' ' | '\t') => return start + index,
            _ => {}
        }
    }
    line.trim_end().len().max(start)
}

/// The lines of the files that were read.
#[derive(Default)]
struct Sources(HashMap<String, Vec<String>>);

impl Sources {
    fn line(&mut self, file: &str, number: u32) -> Option<String> {
        let lines = self.0.entry(file.to_owned()).or_insert_with(|| {
            let bytes = std::fs::read(Path::new(file)).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            // What would move the cursor or change colours stays out of a terminal.
            let shown = |c: char| if c.is_control() && c != '\t' { '?' } else { c };
            text.lines()
                .map(|line| line.chars().map(shown).collect())
                .collect()
        });
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        lines.get(index).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_at_fault_is_underlined_as_it_is_written() {
        let under = |line: &str, column| underline(line, column).unwrap();
        assert_eq!(
            under("    sevrer s", 4),
            ("    ".to_owned(), "^^^^^^".to_owned())
        );
        assert_eq!(
            under("\ta \"b c\" d", 3),
            ("\t  ".to_owned(), "^^^^^".to_owned())
        );
        assert_eq!(under("a b\\ c d", 2).1, "^^^^");
        assert_eq!(under("a", 1), (" ".to_owned(), "^".to_owned()));
        assert_eq!(underline("a", 9), None);
    }
}
