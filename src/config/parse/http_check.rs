//! `http-check` lines: the steps of an HTTP check, in the order connect, send, expect.

use super::check::is_line;
use super::tcp_check::{
    Common, Words, bounded, comment, connect, expression, split_negation, unknown,
};
use super::{Call, Complaint, Outcome, Parser};
use crate::config::draft_check::{HttpSend, Rule, RuleStep};
use crate::config::plan::{Answer, Expect, HttpAnswer, HttpWanted};

const KINDS: &str = "'comment', 'connect', 'send', 'expect'";

pub(in crate::config) fn http_check(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let mut words = Words::new(call, 1);
    if call.arg(0) == "send-state" {
        let text = "'http-check send-state' is not implemented in Tidegate yet and is left out: the \
                    request doesn't tell the server its state.";
        let word = call.args.first();
        parser.report.warning(&call.line.place, word, text);
        return Ok(());
    }
    let rule = match call.arg(0) {
        "comment" => comment(call)?,
        "connect" => {
            let (step, comment) = connect(parser.environment, &mut words)?;
            Rule::Step(RuleStep::Connect(step), comment)
        }
        "send" => {
            let (request, comment) = send(&mut words)?;
            Rule::Step(RuleStep::Request(request), comment)
        }
        "expect" => {
            let (expect, comment) = expect(&mut words)?;
            Rule::Step(RuleStep::Expect(expect), comment)
        }
        word => return Err(unknown(call, word, KINDS)),
    };
    let rules = &mut parser.current.settings.check_kind.http;
    let before = rules.own_steps().next_back();
    let missing = match (&rule, before) {
        (
            Rule::Step(RuleStep::Connect(_), _),
            Some(RuleStep::Connect(_) | RuleStep::Request(_)),
        ) => Some("expect"),
        (Rule::Step(RuleStep::Request(_), _), Some(RuleStep::Request(_) | RuleStep::Expect(_))) => {
            Some("connect")
        }
        (Rule::Step(RuleStep::Expect(_), _), Some(RuleStep::Connect(_))) => Some("send"),
        _ => None,
    };
    if let Some(missing) = missing {
        let (kind, number) = (call.arg(0), rules.list.len() + 1);
        let text = format!(
            "'http-check {kind}' : unable to add http-check {kind} rule at step {number} (missing \
             {missing} rule)."
        );
        return Err(call.complain(0, text));
    }
    bounded(call, rules.list.len())?;
    rules.push(rule);
    Ok(())
}

fn send(words: &mut Words<'_, '_>) -> Result<(HttpSend, String), Complaint> {
    let (mut request, mut comment) = (HttpSend::default(), String::new());
    let mut first = None;
    while let Some(word) = words.next() {
        first = first.or(Some(word));
        let name = word.text.as_str();
        match name {
            "meth" => request.method = Some(words.named_text(name)?),
            "uri" => request.uri = Some(words.named_text(name)?),
            "ver" => request.version = Some(words.named_text(name)?),
            "hdr" => {
                let expects = "'hdr' expects <name> and <value>";
                let name = words.required(expects)?.text.clone();
                let value = words.required(expects)?.text.clone();
                request.headers.push((name, value));
            }
            "body" => request.body = Some(words.named_text(name)?),
            "comment" => comment = words.named_text(name)?,
            _ => {
                let expects = "'comment', 'meth', 'uri', 'ver', 'hdr' or 'body'";
                return Err(words.unexpected(word, expects));
            }
        }
    }
    if let Some(word) = first {
        check_request(&request).map_err(|fault| words.about(word, fault))?;
    }
    Ok((request, comment))
}

/// Whether the parts of a request make one: a blank in the wrong place, or an end of a line, makes
/// another one of it.
pub(super) fn check_request(request: &HttpSend) -> Result<(), String> {
    let word = |text: &&String| !text.contains(|c: char| c.is_ascii_whitespace() || c.is_control());
    let parts = [
        ("method", &request.method),
        ("uri", &request.uri),
        ("version", &request.version),
    ];
    for (name, part) in parts {
        if let Some(text) = part.as_ref().filter(|text| text.is_empty() || !word(text)) {
            let text = text.escape_debug();
            return Err(format!("the {name} '{text}' is not one word."));
        }
    }
    let name_letter = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    for (name, value) in &request.headers {
        if name.is_empty() || !name.chars().all(name_letter) || !is_line(value) {
            let field = format!("{name}: {value}");
            let field = field.escape_debug();
            return Err(format!("'{field}' can't be a header field."));
        }
    }
    Ok(())
}

fn expect(words: &mut Words<'_, '_>) -> Result<(Expect, String), Complaint> {
    let (mut common, mut negated, mut wanted) = (Common::none(), false, None);
    while let Some(word) = words.next() {
        let (marks, name) = split_negation(&word.text);
        negated ^= marks % 2 == 1;
        if name.is_empty() || (marks == 0 && name != "min-recv" && common.take(word, words)?) {
            continue;
        }
        let read: fn(&str) -> Result<HttpWanted, String> = match name {
            "status" | "rstatus" | "string" | "rstring" if wanted.is_some() => {
                return Err(words.about(word, "only one pattern expected."));
            }
            "status" => statuses,
            "rstatus" => |text: &str| expression(text).map(HttpWanted::StatusRegex),
            "string" => |text: &str| Ok(HttpWanted::Text(text.to_owned())),
            "rstring" => |text: &str| expression(text).map(HttpWanted::Regex),
            _ => {
                let expects = "'ok-status', 'error-status', 'tout-status', 'on-success', \
                               'on-error', 'comment', '[!]status', '[!]rstatus', '[!]string', \
                               '[!]rstring'";
                return Err(words.unexpected(word, expects));
            }
        };
        let text = words.required(&format!("'{name}' expects a <pattern>"))?;
        wanted = Some(read(&text.text).map_err(|fault| words.about(text, fault))?);
    }
    let Some(wanted) = wanted else {
        let text = "expects at least a matching pattern: '[!]status', '[!]rstatus', '[!]string', \
                    '[!]rstring'";
        return Err(words.required(text).err().unwrap_or_else(|| text.into()));
    };
    Ok(common.expect(Answer::Http(HttpAnswer { wanted, negated })))
}

/// `200-299,404`
fn statuses(text: &str) -> Result<HttpWanted, String> {
    let range = |part: &str| {
        let (low, high) = part.split_once('-').unwrap_or((part, part));
        let (low, high) = (low.parse().ok()?, high.parse().ok()?);
        (low <= high).then_some((low, high))
    };
    let mut ranges = Vec::new();
    for part in text.split(',') {
        if let Some(wrong) = part.chars().find(|c| !c.is_ascii_digit() && *c != '-') {
            return Err(format!(
                "invalid character '{wrong}' in the list of status codes."
            ));
        }
        let fault = || format!("invalid range of status codes '{part}'.");
        ranges.push(range(part).ok_or_else(fault)?);
    }
    Ok(HttpWanted::Statuses(ranges))
}
