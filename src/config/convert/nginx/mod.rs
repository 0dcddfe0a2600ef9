//! nginx's `stream` block as HAProxy text.
//!
//! Each `server` becomes a frontend (a `listen` where it passes to one address), each `upstream` a
//! backend for every kind of server that passes to it, because what nginx says in `server` about
//! connecting is said in the backend here. What can't be carried over is a comment at its place in
//! the result and a note. Other blocks of a whole file are left out; a bare list of `upstream` and
//! `server` blocks is taken for what stands in `stream`.

mod output;
mod server;
mod settings;
mod syntax;
mod units;
mod upstream;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Converted;
use crate::config::diagnostics::{Diagnostic, Place, Report, Severity};
use output::{Names, Output, Section};
use server::{Mode, Server};
use settings::{Fate, Settings};
use syntax::Directive;
use upstream::{SERVER_PORT, Target, Upstream};

/// How much of a file is looked at to guess its format.
const GUESS_BYTES_MAX: usize = 1 << 20;

/// Most lines that backends may have in all: an upstream is written once for each kind of server
/// that passes to it.
const BACKEND_LINES_MAX: usize = 200_000;

/// Whether a file looks like one of nginx: a line that opens one of its blocks.
pub(super) fn is_likely(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(GUESS_BYTES_MAX)]);
    let blocks = ["events", "http", "server", "stream", "upstream"];
    text.lines().any(|line| {
        let (code, _) = line.split_once('#').unwrap_or((line, ""));
        let first = code.split([' ', '\t', '{']).find(|word| !word.is_empty());
        code.contains('{') && first.is_some_and(|word| blocks.contains(&word))
    })
}

/// Converts a file.
pub(super) fn convert(file: &Arc<str>, bytes: &[u8]) -> Result<Converted, Vec<Diagnostic>> {
    let fault = |line: u32, text: String| {
        let mut report = Report::default();
        report.alert(
            &Place {
                file: file.clone(),
                line,
            },
            None,
            text,
        );
        report.finish()
    };
    let text = str::from_utf8(bytes).map_err(|error| {
        let line = bytes[..error.valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        let line = u32::try_from(line + 1).unwrap_or(u32::MAX);
        fault(line, "the file is not valid UTF-8.".to_owned())
    })?;
    let tree = syntax::parse(text).map_err(|found| fault(found.line, found.text))?;
    let mut conversion = Conversion::new(file);
    conversion.file(&tree.directives);
    let mut notes = conversion.output.notes;
    if tree.comments > 0 {
        let text = format!(
            "comments are not carried over; lines that have one: {}.",
            tree.comments
        );
        notes.add(Severity::Notice, None, text);
    }
    let texts: Vec<String> = conversion.sections.iter().map(Section::text).collect();
    Ok(Converted {
        text: texts.join("\n"),
        notes: notes.finish(),
    })
}

/// What makes a backend: the upstream's name, what it carries, its lines and server parameters.
type BackendKey<'a> = (&'a str, Mode, Vec<Vec<String>>, Vec<String>);

struct Conversion<'a> {
    output: Output,
    sections: Vec<Section>,
    upstreams: BTreeMap<&'a str, Upstream>,
    used: BTreeSet<&'a str>,
    backends: BTreeMap<BackendKey<'a>, String>,
    backend_lines_left: usize,
}

impl<'a> Conversion<'a> {
    fn new(file: &Arc<str>) -> Conversion<'a> {
        Conversion {
            output: Output::new(file),
            sections: Vec::new(),
            upstreams: BTreeMap::new(),
            used: BTreeSet::new(),
            backends: BTreeMap::new(),
            backend_lines_left: BACKEND_LINES_MAX,
        }
    }

    fn file(&mut self, directives: &'a [Directive]) {
        let in_stream = |directive: &&Directive| directive.name() == "stream";
        let bare = directives
            .iter()
            .all(|directive| directive.name() != "stream");
        let mut global = Section::new(&["global"]);
        let (mut threads, mut comments) = (false, Vec::new());
        for directive in directives.iter().filter(|directive| !in_stream(directive)) {
            let (severity, what) = match directive.name() {
                "upstream" | "server" if bare => continue,
                "worker_processes" if directive.arg(0).parse::<u16>().is_ok_and(|n| n > 0) => {
                    global.add(&["nbthread", directive.arg(0)]);
                    threads = true;
                    continue;
                }
                // One for each CPU is what happens anyway.
                "worker_processes" => continue,
                "worker_connections" | "events" => (
                    Severity::Notice,
                    "left out; 'maxconn' is computed from the limits",
                ),
                "http" | "location" | "mail" => {
                    (Severity::Warning, "left out; only 'stream' is carried over")
                }
                "include" => (Severity::Warning, "not followed; convert that file too"),
                // Settings of a snippet without its stream block.
                name if bare && name.starts_with("proxy_") => continue,
                _ => (Severity::Notice, "left out"),
            };
            comments.push(self.output.note(severity, directive, what));
        }
        let stream: Vec<&Directive> = match bare {
            true => directives.iter().collect(),
            false => directives
                .iter()
                .filter(in_stream)
                .flat_map(Directive::inside)
                .collect(),
        };
        let settings = self.settings(&stream, bare, &mut comments);
        let mut defaults = defaults(&settings);
        let first = if threads { &mut global } else { &mut defaults };
        first.comment_before("Converted from nginx's language; check it before it is used.");
        comments
            .iter()
            .for_each(|comment| first.comment_before(comment));
        self.sections.extend(threads.then_some(global));
        self.sections.push(defaults);
        for directive in stream
            .iter()
            .filter(|directive| directive.name() == "upstream")
        {
            let upstream = Upstream::read(directive, &mut self.output);
            self.upstreams.insert(directive.arg(0), upstream);
        }
        for directive in stream
            .iter()
            .filter(|directive| directive.name() == "server")
        {
            self.server(directive, &settings);
        }
        for directive in stream
            .iter()
            .filter(|directive| directive.name() == "upstream")
        {
            if !self.used.contains(directive.arg(0)) {
                self.backend((directive.arg(0), Mode::Tcp, Vec::new(), Vec::new()));
            }
        }
    }

    /// The settings of the whole block.
    fn settings(
        &mut self,
        stream: &[&'a Directive],
        bare: bool,
        comments: &mut Vec<String>,
    ) -> Settings {
        let mut settings = Settings::default();
        for directive in stream {
            let name = directive.name();
            if matches!(name, "upstream" | "server") || (bare && !name.starts_with("proxy_")) {
                continue;
            }
            if let Fate::LeftOut(severity, what) = settings.take(directive) {
                comments.push(self.output.note(severity, directive, &what));
            }
        }
        settings
    }

    fn server(&mut self, block: &'a Directive, outer: &Settings) {
        if block
            .inside()
            .iter()
            .any(|directive| directive.name() == "location")
        {
            let what = "left out: it is one of 'http'";
            let comment = self.output.note(Severity::Warning, block, what);
            let mut section = Section::default();
            section.comment_before(&comment);
            return self.sections.push(section);
        }
        let server = Server::read(block, outer, &mut self.output);
        if server.modes().is_empty() {
            let comment = self
                .output
                .note(Severity::Warning, block, "left out: no 'listen'");
            let mut section = Section::default();
            section.comment_before(&comment);
            self.sections.push(section);
        }
        for mode in server.modes() {
            self.frontend(&server, mode, outer);
        }
    }

    fn frontend(&mut self, server: &Server<'a>, mode: Mode, outer: &Settings) {
        let name = self.output.unique(&server.name(mode));
        let Some(pass) = server.pass else {
            let mut section = Section::new(&["frontend", &name]);
            server.write_front(mode, outer, &mut section);
            section.comment("There is no 'proxy_pass': whatever comes is turned away.");
            return self.sections.push(section);
        };
        let target = pass.arg(0);
        let parameters = server.server_parameters(mode);
        let lines = server.back_lines(mode, outer);
        let is_address = target.starts_with("unix:") || target.contains(':');
        let is_variable = target.trim_end_matches(SERVER_PORT).contains('$');
        if !self.upstreams.contains_key(target) && is_address && !is_variable {
            let mut section = Section::new(&["listen", &name]);
            server.write_front(mode, outer, &mut section);
            add_all(&mut section, &lines);
            section.add(&["balance", "roundrobin"]);
            if let Some(target) = Target::parse(target) {
                let name = target.name(&mut Names::default());
                let mut line = vec!["server", &name, &target.address];
                line.extend(parameters.iter().map(String::as_str));
                section.add(&line);
            }
            return self.sections.push(section);
        }
        let mut section = Section::new(&["frontend", &name]);
        server.write_front(mode, outer, &mut section);
        if is_variable {
            let what = "not carried over: the target is a variable; every connection is closed";
            section.comment(&self.output.note(Severity::Alert, pass, what));
            return self.sections.push(section);
        }
        if !self.upstreams.contains_key(target) {
            let what =
                format!("upstream '{target}' is not in this file; its backend has no server");
            section.comment(&self.output.note(Severity::Warning, pass, &what));
        }
        let at = self.sections.len();
        let backend = self.backend((target, mode, lines, parameters));
        section.add(&["default_backend", &backend]);
        // Before a backend that was made for it.
        self.sections.insert(at, section);
    }

    /// The name of a backend, which is made if there is none like it yet.
    fn backend(&mut self, key: BackendKey<'a>) -> String {
        if let Some(name) = self.backends.get(&key) {
            return name.clone();
        }
        let (upstream, mode, lines, parameters) = &key;
        let name = self.output.unique(upstream);
        self.used.insert(upstream);
        let mut section = Section::new(&["backend", &name]);
        if *mode == Mode::Udp {
            section.add(&["mode", "udp"]);
        }
        add_all(&mut section, lines);
        match self.upstreams.get(upstream) {
            Some(upstream) if upstream.len() > self.backend_lines_left => {
                let text = "servers are left out: the result would be too long.";
                section.comment(text);
                self.output
                    .notes
                    .add(Severity::Alert, None, format!("backend '{name}' : {text}"));
            }
            Some(upstream) => {
                self.backend_lines_left -= upstream.len();
                upstream.write(*mode, parameters, &mut section);
            }
            None => section.add(&["balance", "roundrobin"]),
        }
        self.sections.push(section);
        self.backends.insert(key, name.clone());
        name
    }
}

fn add_all(section: &mut Section, lines: &[Vec<String>]) {
    for line in lines {
        let words: Vec<&str> = line.iter().map(String::as_str).collect();
        section.add(&words);
    }
}

/// What nginx does where its configuration says nothing.
fn defaults(settings: &Settings) -> Section {
    let mut section = Section::new(&["defaults"]);
    section.add(&["mode", "tcp"]);
    section.add(&["timeout", "connect", &settings.timeout_connect]);
    section.add(&["timeout", "client", &settings.timeout]);
    section.add(&["timeout", "server", &settings.timeout]);
    section.add(&["retries", &settings.retries()]);
    if settings.next_upstream {
        section.comment("A server that can't be reached: another one is tried at once.");
        section.add(&["option", "redispatch", "1"]);
    }
    section
}
