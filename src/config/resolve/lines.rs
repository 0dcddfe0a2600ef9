//! The forms of log lines: what each proxy has of its own, else of its options.

use super::{Builder, kind_word};
use crate::config::diagnostics::Severity;
use crate::config::draft::Mode;
use crate::config::draft::{FormatWord, ProxyDraft};
use crate::config::parse::line_format;
use crate::config::plan::{Item, LineFormat, Piece, Reads, SessionLines, Stage, Value};
use crate::config::raw::variables::TCP_LOG_FORMAT;

/// The short line at the accept.
const SHORT: &str = "Connect from %ci:%cp to %fi:%fp (%f/TCP)";
/// The same of a Unix client, as HAProxy has it.
const SHORT_UNIX: &str = "Connect to %ci:%cp (%f/TCP)";

impl Builder<'_, '_> {
    /// What is logged of a frontend's sessions, and how.
    pub(super) fn session_lines(&mut self, draft: &ProxyDraft, has_logs: bool) -> SessionLines {
        let settings = &draft.settings;
        let words = &settings.lines;
        let mut read = |name: &str, word: &Option<FormatWord>| {
            self.line_format(name, word.as_ref().filter(|_| !settings.disabled)?)
        };
        let own = read("log-format", &words.line);
        let structured = read("log-format-sd", &words.structured);
        let error = read("error-log-format", &words.error);
        let unique_id = read("unique-id", &words.unique_id);
        let formed = words.line.as_ref().or(words.structured.as_ref());
        if let Some(form) = formed.filter(|_| self.whole && !has_logs && !settings.disabled) {
            let text = format!(
                "log format ignored for {} '{}' since it has no log address.",
                kind_word(draft.kind),
                draft.name
            );
            self.report.bare(Severity::Warning, &form.place, text);
        }
        let is_flow = settings.mode == Mode::Udp;
        let is_short = !is_flow && words.line.is_none() && !settings.tcplog && !settings.http_log;
        let (line, unix_line) = match own {
            _ if is_flow => (of_flows(), LineFormat::default()),
            Some(own) => (own, LineFormat::default()),
            None if is_short => (known(SHORT), known(SHORT_UNIX)),
            None => (known(TCP_LOG_FORMAT), LineFormat::default()),
        };
        let forms = [Some(&line), error.as_ref(), structured.as_ref()];
        let forms = || forms.into_iter().flatten();
        let reads = forms().chain(&unique_id).map(LineFormat::reads);
        let needs_end = line.needs_end() || structured.as_ref().is_some_and(LineFormat::needs_end);
        let stage = if is_short {
            Stage::Accepted
        } else if needs_end && (is_flow || !words.asap) {
            Stage::Ended
        } else {
            Stage::Connected
        };
        SessionLines {
            reads: reads.fold(Reads::default(), Reads::or),
            line,
            unix_line,
            error,
            structured,
            unique_id,
            stage,
            asap: words.asap && !is_flow,
        }
    }

    fn line_format(&mut self, name: &str, form: &FormatWord) -> Option<LineFormat> {
        match line_format::parse(&form.word.text) {
            Ok(format) => Some(format),
            Err(fault) => {
                let text = format!("failed to parse {name} : {fault}.");
                self.report.alert(&form.place, Some(&form.word), text);
                None
            }
        }
    }
}

/// The form of `option udplog`: that of sessions, and after it the bytes of the client, datagrams
/// of both sides, and why the flow has ended.
fn of_flows() -> LineFormat {
    let mut format = known(TCP_LOG_FORMAT);
    let item = |value| {
        Piece::Item(Item {
            name: String::new(),
            cast: None,
            quote: false,
            hexadecimal: false,
            escape: false,
            json: false,
            value,
        })
    };
    format.pieces.extend([
        Piece::Space,
        item(Value::BytesIn),
        Piece::Space,
        item(Value::FlowRequests),
        Piece::Text("/".to_owned()),
        item(Value::FlowReplies),
        Piece::Space,
        item(Value::FlowReason),
    ]);
    format
}

/// A form of our own.
fn known(text: &str) -> LineFormat {
    // A test reads each of them.
    line_format::parse(text).unwrap_or_default()
}
