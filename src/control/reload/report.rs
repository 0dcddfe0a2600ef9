//! What is said of a reload when it is over: to who asked, to the log, and in `show reload`.

use super::history::Entry;
use super::{Following, Reloader, Report, State};
use crate::config::change::Change;
use crate::control::Shared;
use crate::control::messages::{Severity, format as message_line};
use crate::sys::{clock, process as system};

impl Reloader {
    pub(super) fn report(&mut self, shared: &Shared, following: Following) {
        let Following {
            changes,
            kept,
            warnings,
            ..
        } = following;
        if self.working_for.is_empty() {
            return;
        }
        let number = shared.reload.locked().next();
        let by = self.working_for[0].by;
        for change in &changes {
            let text = format!("Reload {number} ({by}): {change}.");
            match change.proxy {
                Some(proxy) => shared.messages.for_proxy(proxy, 5, Severity::Notice, text),
                None => shared.messages.console(Severity::Notice, &text),
            }
        }
        let mut messages = warnings;
        for text in &kept {
            let text = format!("Reload {number} ({by}): {text}.");
            shared.messages.console(Severity::Warning, &text);
            messages.push(message_line(Severity::Warning, &text));
        }
        let done = match changes.len() {
            0 => "nothing has changed".to_owned(),
            1 => "1 object has changed".to_owned(),
            count => format!("{count} objects have changed"),
        };
        let text = format!("Reload {number} ({by}): {done}.");
        shared.messages.console(Severity::Notice, &text);
        messages.push(message_line(Severity::Notice, &text));
        let changes = changes.iter().map(Change::to_string).collect();
        self.answer(shared, true, changes, messages);
    }

    /// The same for a command that has edited the plan, which is no reload to those who look.
    pub(super) fn report_edit(
        &mut self,
        shared: &Shared,
        changes: &[Change],
        warnings: Vec<String>,
    ) {
        let by = self.working_for.first().map_or("", |request| request.by);
        for warning in &warnings {
            let text = format!("CLI : '{by}' : {warning}");
            shared.messages.console(Severity::Warning, &text);
        }
        for change in changes {
            let text = format!("CLI : '{by}' : {change}.");
            match change.proxy {
                Some(proxy) => shared.messages.for_proxy(proxy, 5, Severity::Notice, text),
                None => shared.messages.console(Severity::Notice, &text),
            }
        }
        self.reply(true, &warnings);
    }

    pub(super) fn refuse(&mut self, shared: &Shared, errors: Vec<String>) {
        self.state = State::Idle;
        if self.working_for.is_empty() {
            return;
        }
        if self.is_edit {
            return self.reply(false, &errors);
        }
        let number = shared.reload.locked().next();
        let by = self.working_for[0].by;
        for line in errors.iter().flat_map(|text| text.lines()) {
            shared.messages.line(line);
        }
        let text = format!("Reload {number} ({by}) failed: nothing was changed.");
        shared.messages.console(Severity::Alert, &text);
        self.answer(shared, false, Vec::new(), errors);
    }

    fn answer(
        &mut self,
        shared: &Shared,
        success: bool,
        changes: Vec<String>,
        messages: Vec<String>,
    ) {
        let by = self.working_for.first().map_or("", |request| request.by);
        shared.reload.locked().add(Entry {
            number: 0,
            by,
            at_unix_ms: clock::unix_ms(),
            took_ms: clock::now().ms_since(self.began),
            success,
            changes,
            messages: messages.clone(),
        });
        self.reply(success, &messages);
        if !shared.is_stopping() {
            system::notify_service("READY=1\nSTATUS=Ready.");
        }
    }

    /// Tells those for whom it worked.
    fn reply(&mut self, success: bool, messages: &[String]) {
        for request in self.working_for.drain(..) {
            let report = Report {
                success,
                messages: messages.to_vec(),
            };
            // Who has gone doesn't want to know any more.
            let _ = request.reply.map(|reply| reply.send(report));
        }
    }
}

/// A message to who asked: for a command the text alone, which is its answer.
pub(super) fn message_of(is_edit: bool, text: &str) -> String {
    match is_edit {
        true => text.to_owned(),
        false => message_line(Severity::Alert, text),
    }
}
