//! Proxies in `mode http`: their words, and which of them are refused.
//!
//! Such a proxy has no traffic to balance: it answers requests for metrics and statistics. What
//! would keep a client away from it, and isn't there, is an error; what changes nothing of the
//! answers is a warning.

use super::acl::{self, anonymous, named};
use super::{Call, Complaint, Outcome, Parser};
use crate::config::diagnostics::Report;
use crate::config::draft::Mode;
use crate::config::keywords::{self, Keyword, Standing};
use crate::config::plan::{PageAsks, PageCondition, PageTerm, StatsPage};
use crate::config::raw::sections;
use crate::config::raw::token::Word;
use crate::config::raw::{Line, Section, SectionKind};
use crate::config::values::units::{self, Unit};

/// Why a word of HTTP is refused.
const PAGES_ONLY: &str = "proxies in 'mode http' only answer with metrics and statistics";
/// Why one changes nothing.
const ONLY_ANSWERS: &str = "this proxy only answers with metrics and statistics";

/// Words that guard a proxy: left out, they would let in whom they keep out.
const GUARDS: &[&str] = &["tcp-request", "http-request", "filter", "rate-limit"];

impl Parser<'_> {
    /// Whether a section in `mode http` is one that is served: it answers something, and has no
    /// traffic to carry. Says what is wrong otherwise; its lines are then not read.
    pub(in crate::config) fn is_of_pages(&mut self, section: &Section) -> bool {
        let lines = &section.lines;
        let begins = |line: &Line, words: &[&str]| words.contains(&line.words[0].text.as_str());
        let answers = |line: &Line| {
            begins(line, &["stats", "monitor-uri"])
                || line.words.iter().any(|word| word.text == "use-service")
        };
        let traffic = [
            "server",
            "server-template",
            "default_backend",
            "use_backend",
        ];
        let has_traffic = lines.iter().any(|line| begins(line, &traffic));
        let answers = lines.iter().any(answers) || !self.current.settings.pages.is_empty();
        if self.kind != SectionKind::Backend && answers && !has_traffic {
            self.current.settings.default_backend = None;
            return true;
        }
        self.current.settings.mode = Mode::Http;
        self.current.settings.disabled = true;
        let (kind, name) = (self.kind.name(), &self.current.name);
        for line in lines {
            misspelt_section(self.report, kind, line);
        }
        let text = format!(
            "{kind} '{name}' is in 'mode http', which is not supported: Tidegate balances streams, \
             not requests; use 'mode tcp'."
        );
        self.report.alert(&section.header.place, None, text);
        false
    }

    /// Whether a keyword means something in a proxy that answers by itself; says why not.
    pub(in crate::config) fn allowed_in_pages(
        &mut self,
        keyword: &Keyword,
        name: &str,
        line: &Line,
    ) -> bool {
        let word = line.words.first();
        match keyword.standing() {
            Standing::Works if keyword.in_pages || keyword.only == Some(Mode::Http) => return true,
            Standing::Works if !GUARDS.contains(&name) => {
                let (section, proxy) = (self.kind.name(), &self.current.name);
                let text =
                    format!("'{name}' ignored because {section} '{proxy}' is in 'mode http'.");
                self.report.warning(&line.place, word, text);
            }
            Standing::NoEffect(_)
                if name.starts_with("option ") || name.starts_with("timeout ") =>
            {
                if let Some(word) = word {
                    self.not_working(line, word, name, Standing::NoEffect(ONLY_ANSWERS));
                }
            }
            Standing::NoEffect(_) if name.starts_with("stats ") => return true,
            Standing::Later(_) if !GUARDS.contains(&name) => return true,
            Standing::Needed | Standing::Never(_) => return true,
            Standing::Works | Standing::NoEffect(_) | Standing::Later(_) => {
                let text = format!("'{name}' is not supported: {PAGES_ONLY}.");
                self.report.alert(&line.place, word, text);
            }
        }
        false
    }
}

/// A misspelt header must not vanish with the lines of the section before it.
fn misspelt_section(report: &mut Report, kind: &str, line: &Line) {
    let word = &line.words[0];
    if let Some(near) = sections::misspelt(&word.text) {
        let text = format!(
            "unknown keyword '{}' in '{kind}' section{}",
            word.text,
            keywords::did_you_mean(Some(near))
        );
        report.alert(&line.place, Some(word), text);
    }
}

/// `http-request`: the exporter is the one service, and it the one action.
pub(in crate::config) fn http_request(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    match (call.arg(0), call.arg(1)) {
        ("use-service", "prometheus-exporter") => {}
        ("use-service", "") => return Err("'http-request use-service' expects a service.".into()),
        ("use-service", service) => {
            let text = format!(
                "'http-request use-service' : there is no service '{service}', only \
                 'prometheus-exporter'."
            );
            return Err(call.complain(1, text));
        }
        ("", _) => return Err("'http-request' expects an action.".into()),
        (action, _) => {
            let text = format!("'http-request {action}' is not supported: {PAGES_ONLY}.");
            return Err(call.complain(0, text));
        }
    }
    let words = call.args.get(2..).unwrap_or_default();
    let condition = condition(parser, words)?;
    parser.current.settings.pages.exporters.push(condition);
    Ok(())
}

fn condition(parser: &Parser<'_>, words: &[Word]) -> Result<PageCondition, Complaint> {
    let what = "'http-request use-service'";
    let in_braces = |brace: &Word, words: &[Word]| match words.split_first() {
        Some((criterion, values)) if matches!(criterion.text.as_str(), "path" | "path_beg") => {
            let paths = paths(criterion, values)?;
            Ok(match criterion.text.as_str() {
                "path" => PageAsks::Path(paths),
                _ => PageAsks::PathBegin(paths),
            })
        }
        Some((criterion, _)) if criterion.text != "src" => {
            let text = format!(
                "criterion '{}' is not supported here, only 'path', 'path_beg' and 'src' are",
                criterion.text
            );
            Err(Complaint::about(criterion, text))
        }
        _ => {
            let networks = anonymous(parser.environment, brace, words)?;
            Ok(PageAsks::Source(vec![networks.into()]))
        }
    };
    let by_name = |word: &Word, name: &str| {
        let (negated, networks) = named(parser, word, name)?;
        Ok((negated, PageAsks::Source(networks)))
    };
    let (unless, alternatives) = acl::rule(parser, what, words, in_braces, by_name)?;
    let term = |(negated, asks)| PageTerm { negated, asks };
    let terms = |terms: Vec<_>| terms.into_iter().map(term).collect();
    Ok(PageCondition {
        unless,
        alternatives: alternatives.into_iter().map(terms).collect(),
    })
}

fn paths(criterion: &Word, values: &[Word]) -> Result<Vec<String>, Complaint> {
    let mut paths = Vec::new();
    let mut flags = true;
    for value in values {
        match value.text.as_str() {
            "--" if flags => flags = false,
            flag if flags && flag.starts_with('-') => {
                let text = format!("flag '{flag}' is not supported for paths");
                return Err(Complaint::about(value, text));
            }
            path => {
                flags = false;
                paths.push(path.to_owned());
            }
        }
    }
    if paths.is_empty() {
        let text = format!("'{}' expects a path", criterion.text);
        return Err(Complaint::about(criterion, text));
    }
    Ok(paths)
}

/// `monitor-uri`
pub(in crate::config) fn monitor_uri(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'monitor-uri' expects an URI.".into());
    }
    parser.current.settings.pages.monitor_uri = Some(call.arg(0).to_owned());
    Ok(())
}

/// The words of the family `stats`. Each of them switches the page on.
pub(in crate::config) fn stats(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let rest = |call: &Call<'_>| {
        let words: Vec<&str> = call.args.iter().map(|word| word.text.as_str()).collect();
        words.join(" ")
    };
    if call.args.is_empty() && matches!(name, "stats uri" | "stats realm" | "stats scope") {
        return Err(format!("'{name}' expects an argument.").into());
    }
    let refresh_s = match name {
        "stats refresh" => refresh(call)?,
        _ => 0,
    };
    if name == "stats auth" && !call.arg(0).contains(':') {
        return Err("'stats auth' expects a user and a password, as in 'user:password'.".into());
    }
    let page: &mut StatsPage = parser.current.settings.pages.stats.get_or_insert_default();
    match name {
        "stats uri" => page.uri = call.arg(0).to_owned(),
        "stats refresh" => page.refresh_s = refresh_s,
        "stats scope" => page.scope.push(call.arg(0).to_owned()),
        "stats show-node" => page.node = Some(call.arg(0).to_owned()),
        "stats show-desc" => page.description = Some(rest(call)),
        "stats hide-version" => page.hides_version = true,
        "stats realm" => page.realm = rest(call),
        "stats auth" => page.logins.push(call.arg(0).to_owned()),
        _ => {}
    }
    Ok(())
}

/// Whole seconds, or a time with its unit.
fn refresh(call: &Call<'_>) -> Result<u32, Complaint> {
    units::time(call.arg(0), Unit::Seconds).map_err(|fault| {
        let text = format!("'stats refresh' expects a time, in seconds ({fault})");
        call.complain(0, text)
    })
}
