//! Walks the sections of `Raw`, finds each line's keyword in the table and calls its parser.
//!
//! What holds for every keyword is decided here and only here: unknown names, sections in which a
//! keyword is not allowed, sides that a proxy doesn't have, surplus arguments. The parsers see only
//! arguments. Nothing is looked up across proxies yet.

pub(super) mod acl;
pub(super) mod balance;
pub(super) mod bind;
pub(super) mod check;
mod expression;
pub(super) mod global;
mod headers;
pub(super) mod health;
pub(super) mod http_check;
pub(super) mod line_format;
pub(super) mod log;
pub(super) mod log_format;
mod log_sample;
pub(super) mod pages;
pub(super) mod parameters;
pub(super) mod passive;
pub(super) mod process;
pub(super) mod proxy;
mod sample;
pub(super) mod send_proxy;
pub(super) mod server;
pub(super) mod slow_start;
pub(super) mod source;
pub(super) mod source_ports;
pub(super) mod state_file;
pub(super) mod tcp_check;
pub(super) mod tcp_request;
pub(super) mod threads;
pub(super) mod udp;
pub(super) mod udp_check;

use super::diagnostics::{Place, Report};
use super::draft::{Draft, Mode, ProxyDraft, Settings};
use super::environment::Environment;
use super::keywords::{self, Found, Keyword, Side, Standing, Status};
use super::plan::ProxyKind;
use super::raw::token::Word;
use super::raw::{Line, Section, SectionKind};
use super::values::units;
use headers::Origins;

/// Why a line is refused: a message and the word at fault.
#[derive(Debug)]
pub(in crate::config) struct Complaint {
    pub(in crate::config) text: String,
    pub(in crate::config) word: Option<Word>,
}

impl From<String> for Complaint {
    fn from(text: String) -> Self {
        Complaint { text, word: None }
    }
}

impl From<&str> for Complaint {
    fn from(text: &str) -> Self {
        Complaint::from(text.to_owned())
    }
}

impl Complaint {
    /// A complaint about a word.
    pub(in crate::config) fn about(word: &Word, text: impl Into<String>) -> Complaint {
        Complaint {
            text: text.into(),
            word: Some(word.clone()),
        }
    }
}

/// What a keyword's parser says.
pub(in crate::config) type Outcome = Result<(), Complaint>;

/// A line as a keyword's parser sees it.
pub(in crate::config) struct Call<'a> {
    /// The entry of the table.
    pub(in crate::config) keyword: &'static Keyword,
    /// The whole line.
    pub(in crate::config) line: &'a Line,
    /// What follows the keyword.
    pub(in crate::config) args: &'a [Word],
}

impl Call<'_> {
    /// The text of argument `index`, empty where there is none.
    pub(in crate::config) fn arg(&self, index: usize) -> &str {
        self.args.get(index).map_or("", |word| word.text.as_str())
    }

    /// A complaint about argument `index`.
    pub(in crate::config) fn complain(&self, index: usize, text: impl Into<String>) -> Complaint {
        Complaint {
            text: text.into(),
            word: self.args.get(index).cloned(),
        }
    }
}

/// The state of reading.
pub(in crate::config) struct Parser<'a> {
    /// The outside world.
    pub(in crate::config) environment: &'a dyn Environment,
    /// Where messages go.
    pub(in crate::config) report: &'a mut Report,
    /// What is finished; `global` is filled in place.
    pub(in crate::config) draft: Draft,
    /// The proxy or the defaults being read.
    pub(in crate::config) current: ProxyDraft,
    /// The kind of the section being read.
    pub(in crate::config) kind: SectionKind,
    /// What it carries, wherever its `mode` line stands.
    pub(in crate::config) mode: Mode,
    /// Listeners of all `bind` lines so far.
    pub(in crate::config) listeners_count: usize,
    /// What a section may begin from.
    origins: Origins,
}

impl<'a> Parser<'a> {
    /// A parser that has read nothing.
    pub(in crate::config) fn new(environment: &'a dyn Environment, report: &'a mut Report) -> Self {
        let place = Place {
            file: "".into(),
            line: 0,
        };
        Parser {
            environment,
            report,
            draft: Draft::default(),
            current: blank(place),
            kind: SectionKind::Global,
            mode: Mode::Tcp,
            listeners_count: 0,
            origins: Origins::default(),
        }
    }

    /// Reads the sections of one file.
    pub(in crate::config) fn file(&mut self, sections: &[Section]) {
        for section in sections {
            if self.report.is_full() {
                return;
            }
            self.kind = section.kind;
            self.current = blank(section.header.place.clone());
            let header = &section.header;
            let (current, report) = (&mut self.current, &mut *self.report);
            if let Err(complaint) = self.origins.header(section.kind, header, current, report) {
                self.complain(header, complaint);
            }
            self.mode = self.mode_of(section);
            if self.mode != Mode::Http || self.is_of_pages(section) {
                for line in &section.lines {
                    if self.report.is_full() {
                        return;
                    }
                    self.line(line);
                }
            }
            self.end_section();
        }
    }

    /// What a proxy carries: the last `mode` line of its section wins, else what is inherited.
    fn mode_of(&self, section: &Section) -> Mode {
        if matches!(self.kind, SectionKind::Global | SectionKind::Defaults) {
            return Mode::Tcp;
        }
        let mut modes = section.lines.iter().rev();
        let line = modes.find(|line| line.words[0].text == "mode");
        match line.and_then(|line| line.words.get(1)) {
            None => self.current.settings.mode,
            Some(word) => Mode::named(&word.text).unwrap_or(Mode::Tcp),
        }
    }

    fn complain(&mut self, line: &Line, complaint: Complaint) {
        let word = complaint.word.as_ref().or(line.words.first());
        self.report.alert(&line.place, word, complaint.text);
    }

    fn end_section(&mut self) {
        let place = self.current.place.clone();
        let finished = std::mem::replace(&mut self.current, blank(place));
        match self.kind {
            SectionKind::Global => {}
            SectionKind::Defaults => self.origins.add(finished),
            SectionKind::Frontend | SectionKind::Backend | SectionKind::Listen => {
                self.draft.proxies.push(finished);
            }
        }
    }

    /// Reads one line of the section at hand.
    pub(in crate::config) fn line(&mut self, line: &Line) {
        let section = self.kind.name();
        match keywords::find(&line.words, self.kind) {
            Found::Keyword(keyword, name, words) => {
                if !self.allowed(keyword, &name, line) {
                    return;
                }
                let Status::Works(parse) = &keyword.status else {
                    self.not_working(line, &line.words[0], &name, keyword.standing());
                    return;
                };
                let args = line.words.get(words..).unwrap_or_default();
                if let Some(word) = args.get(keyword.args_max) {
                    let argument = word.text.as_str();
                    let text = if keyword.lacks.contains(&argument) {
                        format!("'{name} {argument}' is not implemented in Tidegate yet.")
                    } else {
                        format!("'{name}' cannot handle unexpected argument '{argument}'.")
                    };
                    self.report.alert(&line.place, Some(word), text);
                    return;
                }
                let call = Call {
                    keyword,
                    line,
                    args,
                };
                match parse(self, &call) {
                    Ok(()) if keyword.syntax == "<time>" => self.check_time(line, args.first()),
                    Ok(()) => {}
                    Err(complaint) => self.complain(line, complaint),
                }
            }
            Found::Unknown(text) => {
                let text = text.unwrap_or_else(|| {
                    let name = &line.words[0].text;
                    let near = keywords::did_you_mean(keywords::closest_keyword(name, self.kind));
                    format!("unknown keyword '{name}' in '{section}' section{near}")
                });
                self.report.alert(&line.place, line.words.first(), text);
            }
        }
    }

    /// Warns about what follows the unit of a time.
    pub(in crate::config) fn check_time(&mut self, line: &Line, word: Option<&Word>) {
        if let Some(word) = word
            && let Some(c) = units::surplus(&word.text)
        {
            let text = format!(
                "unexpected character '{c}' after the timer value '{}': only us, ms, s, m, h and d \
                 are units, and what follows them is ignored.",
                word.text
            );
            self.report.warning(&line.place, Some(word), text);
        }
    }

    /// Says what becomes of a known word that does nothing.
    pub(in crate::config) fn not_working(
        &mut self,
        line: &Line,
        word: &Word,
        name: &str,
        standing: Standing,
    ) {
        if let Some((severity, text)) = standing.message(&format!("'{name}'")) {
            self.report.about(severity, &line.place, Some(word), text);
        }
    }

    /// Whether a keyword means something here; says why not.
    fn allowed(&mut self, keyword: &Keyword, name: &str, line: &Line) -> bool {
        let word = line.words.first();
        if self.kind == SectionKind::Defaults && !keyword.in_defaults {
            let text = format!("'{name}' not allowed in 'defaults' section.");
            self.report.alert(&line.place, word, text);
            return false;
        }
        let is_proxy = !matches!(self.kind, SectionKind::Global | SectionKind::Defaults);
        if is_proxy && self.mode == Mode::Http {
            return self.allowed_in_pages(keyword, name, line);
        }
        let (section, proxy) = (self.kind.name(), &self.current.name);
        let because = match (self.kind, keyword.side, keyword.only) {
            (SectionKind::Frontend, Side::Back, _) => {
                format!("because {section} '{proxy}' has no backend capability")
            }
            (SectionKind::Backend, Side::Front, _) => {
                format!("because {section} '{proxy}' has no frontend capability")
            }
            (SectionKind::Global | SectionKind::Defaults, ..) => return true,
            (_, _, Some(only)) if only != self.mode => {
                let mode = self.mode.name();
                format!("because {section} '{proxy}' is in 'mode {mode}'")
            }
            _ => return true,
        };
        if matches!(name, "server" | "server-template") {
            // Traffic would be lost, so HAProxy makes this one an error.
            self.report.alert(
                &line.place,
                word,
                format!("'{name}' not allowed {because}."),
            );
            return false;
        }
        let text = if name.starts_with("timeout ") {
            format!("'{name}' will be ignored {because}")
        } else {
            let name = name.strip_prefix("option ").unwrap_or(name);
            format!("'{name}' ignored {because}.")
        };
        self.report.warning(&line.place, word, text);
        false
    }
}

fn blank(place: Place) -> ProxyDraft {
    ProxyDraft {
        name: String::new(),
        kind: ProxyKind::Listen,
        place,
        id: None,
        guid: None,
        description: String::new(),
        settings: Settings::default(),
        binds: Vec::new(),
        servers: Vec::new(),
    }
}

/// The first character that a proxy's or a server's name may not hold.
pub(in crate::config) fn name_fault(name: &str) -> Option<char> {
    name.chars()
        .find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':')))
}
