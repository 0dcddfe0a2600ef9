//! The line of a server that a command adds: read by the parser of the files.

use super::outside::AtRuntime;
use super::{subject, texts};
use crate::config::diagnostics::{Diagnostic, Place, Report};
use crate::config::draft::{ProxyDraft, ServerDraft, ServerSettings};
use crate::config::keywords::{SERVER, Status};
use crate::config::parse::{Parser, parameters};
use crate::config::plan::{ProxyKind, ServerOrigin};
use crate::config::raw::token::{WORDS_MAX, Word};
use crate::config::raw::{Line, Prefix, SectionKind};

/// What stands for the file in messages about what commands have brought.
const PLACE: &str = "runtime command";
/// What only the files may say of a server, as HAProxy has it: it is about names that are looked
/// up, about HTTP, or about what there is at the start.
const REFUSED: [&str; 11] = [
    "cookie",
    "init-addr",
    "namespace",
    "no-check",
    "non-stick",
    "redir",
    "resolve-net",
    "resolve-opts",
    "resolve-prefer",
    "resolvers",
    "stick",
];

/// The words that a server which is added may have.
pub fn words_of_servers() -> impl Iterator<Item = &'static str> {
    let working = SERVER
        .iter()
        .filter(|word| matches!(word.status, Status::Works(_)));
    let names = working.map(|word| word.help.name);
    names.filter(|name| !REFUSED.contains(name))
}

/// Reads the line of a server. What `default-server` says is for the servers of the files.
pub(super) fn read(
    proxy: &ProxyDraft,
    environment: &AtRuntime<'_>,
    name: &str,
    words: &[&str],
) -> Result<(ServerDraft, Vec<String>), String> {
    let mut column = 0;
    let mut word = |text: &str| {
        let at = column;
        column += u32::try_from(text.len()).unwrap_or(0) + 1;
        let text = text.to_owned();
        Word {
            text,
            column: at,
            lines_below: 0,
        }
    };
    let written = ["server", name].into_iter().chain(words.iter().copied());
    let line: Vec<Word> = written.map(&mut word).collect();
    if line.len() > WORDS_MAX {
        return Err(format!("A server has at most {WORDS_MAX} words."));
    }
    let given = line.get(3..).unwrap_or_default();
    let named = |wanted: &[&str]| {
        let names = parameters::names(SERVER, given);
        let found = names.filter(|word| wanted.contains(&word.text.as_str()));
        found.last().map(|word| word.text.clone())
    };
    if let Some(refused) = named(&REFUSED) {
        return Err(format!(
            "'{refused}' option is not accepted for dynamic server"
        ));
    }
    let enabled = named(&["enabled", "disabled"]).is_some_and(|last| last == "enabled");
    let mut report = Report::new(false);
    let mut parser = Parser::new(environment, &mut report);
    parser.kind = match proxy.kind {
        ProxyKind::Frontend => SectionKind::Frontend,
        ProxyKind::Backend => SectionKind::Backend,
        ProxyKind::Listen => SectionKind::Listen,
    };
    parser.mode = proxy.settings.mode;
    parser.current = ProxyDraft {
        servers: Vec::new(),
        ..proxy.clone()
    };
    parser.current.settings.server = ServerSettings::default();
    parser.line(&Line {
        place: Place {
            file: PLACE.into(),
            line: 1,
        },
        prefix: Prefix::Set,
        words: line,
    });
    let server = parser.current.servers.pop();
    let (own, said) = (subject(&proxy.name, name), report.finish());
    if let Some(asked) = environment.first_name() {
        return Err(format!(
            "'{asked}' is no address, and no name is looked up for a command."
        ));
    }
    let faults = texts(said.clone(), Some(&own), Diagnostic::is_fatal);
    match (server, faults.is_empty()) {
        (Some(server), true) => {
            let said = texts(said, Some(&own), |one| !one.is_fatal());
            let origin = ServerOrigin::Command { enabled };
            Ok((ServerDraft { origin, ..server }, said))
        }
        (_, true) => Err("It is not known what is wrong with it.".to_owned()),
        (_, false) => Err(faults.join("\n")),
    }
}
