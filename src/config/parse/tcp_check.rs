//! `tcp-check` lines: the steps of a scripted check. What `http-check` lines have in common with
//! them is here too.

use super::{Call, Complaint, Outcome, Parser};
use crate::base::address::Address;
use crate::config::draft_check::{Rule, RuleStep};
use crate::config::environment::Environment;
use crate::config::plan::{
    Answer, CheckStatus, ConnectStep, Content, Expect, Pattern, RegularExpression,
};
use crate::config::raw::token::Word;
use crate::config::values::address::{Port, Written};
use crate::config::values::units;

/// Steps of a script: what they may wait together is bounded by `timeout check`, this bounds the
/// memory.
const STEPS_MAX: usize = 1000;

const KINDS: &str = "'comment', 'connect', 'send', 'send-binary', 'expect'";
const PATTERNS: &str = "'[!]string', '[!]rstring', '[!]binary', '[!]rbinary'";

pub(in crate::config) fn tcp_check(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let mut words = Words::new(call, 1);
    let rule = match call.arg(0) {
        "comment" => comment(call)?,
        "connect" => {
            let (step, comment) = connect(parser.environment, &mut words)?;
            Rule::Step(RuleStep::Connect(step), comment)
        }
        "send" => {
            let text = words.value("expects a text", |text| Some(text.to_owned()))?;
            let comment = words.only_comment()?;
            Rule::Step(RuleStep::Send(text.into_bytes()), comment)
        }
        "send-binary" => {
            let bytes = words.required("expects a binary string")?;
            let bytes = binary(&bytes.text).map_err(|fault| words.about(bytes, fault))?;
            let comment = words.only_comment()?;
            Rule::Step(RuleStep::Send(bytes), comment)
        }
        "expect" => {
            let (expect, comment) = expect(&mut words)?;
            Rule::Step(RuleStep::Expect(expect), comment)
        }
        word => return Err(unknown(call, word, KINDS)),
    };
    let rules = &mut parser.current.settings.check_kind.tcp;
    if matches!(rule, Rule::Step(RuleStep::Connect(_), _))
        && let Some(first) = rules.own_steps().next()
        && !matches!(first, RuleStep::Connect(_))
    {
        let text = "'tcp-check connect' : first step MUST also be a 'connect', optionally preceded \
                    by a 'comment', when there is a 'connect' step in the tcp-check ruleset.";
        return Err(call.complain(0, text));
    }
    bounded(call, rules.list.len())?;
    rules.push(rule);
    Ok(())
}

/// Whether a script may have another line.
pub(super) fn bounded(call: &Call<'_>, count: usize) -> Outcome {
    if count >= STEPS_MAX {
        let text = format!("'{}' : more than {STEPS_MAX} steps.", call.keyword.name);
        return Err(text.into());
    }
    Ok(())
}

/// `comment <text>`
pub(super) fn comment(call: &Call<'_>) -> Result<Rule, Complaint> {
    let mut words = Words::new(call, 1);
    let text = words.value("expects a string", |text| Some(text.to_owned()))?;
    match words.next() {
        None => Ok(Rule::Comment(text)),
        Some(word) => Err(words.about(word, format!("unexpected argument '{}'.", word.text))),
    }
}

/// What is said of a kind of line that there isn't, or not yet.
pub(super) fn unknown(call: &Call<'_>, word: &str, kinds: &str) -> Complaint {
    let name = call.keyword.name;
    let bare = word.split('(').next().unwrap_or(word);
    let text = if call.keyword.lacks.contains(&bare) {
        format!("'{name} {word}' is not implemented in Tidegate yet.")
    } else {
        format!("'{name}' only supports {kinds}. but got '{word}'")
    };
    call.complain(0, text)
}

/// The words of a line behind the one that says what it does.
pub(super) struct Words<'c, 'a> {
    call: &'c Call<'a>,
    next: usize,
}

impl<'c, 'a> Words<'c, 'a> {
    pub(super) fn new(call: &'c Call<'a>, next: usize) -> Words<'c, 'a> {
        Words { call, next }
    }

    pub(super) fn next(&mut self) -> Option<&'a Word> {
        let word = self.call.args.get(self.next);
        self.next += usize::from(word.is_some());
        word
    }

    /// A complaint about a word.
    pub(super) fn about(&self, word: &Word, text: impl AsRef<str>) -> Complaint {
        Complaint::about(word, self.text(text.as_ref()))
    }

    fn text(&self, text: &str) -> String {
        format!("'{} {}' : {text}", self.call.keyword.name, self.call.arg(0))
    }

    /// The next word; `expects` says what for.
    pub(super) fn required(&mut self, expects: &str) -> Result<&'a Word, Complaint> {
        self.next()
            .ok_or_else(|| Complaint::from(self.text(&format!("{expects} as argument."))))
    }

    /// The next word as a value.
    pub(super) fn value<T>(
        &mut self,
        expects: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Result<T, Complaint> {
        let word = self.required(expects)?;
        read(&word.text).ok_or_else(|| {
            let got = &word.text;
            self.about(word, format!("{expects} as argument (got '{got}')."))
        })
    }

    /// The text behind a keyword.
    pub(super) fn named_text(&mut self, name: &str) -> Result<String, Complaint> {
        let own = |text: &str| Some(text.to_owned());
        self.value(&format!("'{name}' expects a string"), own)
    }

    /// `[comment <text>]` and nothing else.
    pub(super) fn only_comment(&mut self) -> Result<String, Complaint> {
        let mut comment = String::new();
        while let Some(word) = self.next() {
            if word.text != "comment" {
                let text = format!("expects 'comment' but got '{}' as argument.", word.text);
                return Err(self.about(word, text));
            }
            comment = self.named_text("comment")?;
        }
        Ok(comment)
    }

    /// A complaint about a word that the line can't have, or not yet.
    pub(super) fn unexpected(&self, word: &Word, expects: &str) -> Complaint {
        let got = word.text.as_str();
        let keyword = self.call.keyword;
        let lacking = format!("{} {}", self.call.arg(0), got.trim_start_matches('!'));
        if keyword.lacks.contains(&lacking.as_str()) {
            let text = format!(
                "'{} {lacking}' is not implemented in Tidegate yet.",
                keyword.name
            );
            return Complaint::about(word, text);
        }
        let text = format!("expects {expects} but got '{got}' as argument.");
        self.about(word, text)
    }
}

/// The words of a `connect` line, and its comment.
pub(super) fn connect(
    environment: &dyn Environment,
    words: &mut Words<'_, '_>,
) -> Result<(ConnectStep, String), Complaint> {
    let mut step = ConnectStep {
        is_its_own: true,
        ..ConnectStep::default()
    };
    let mut comment = String::new();
    while let Some(word) = words.next() {
        match word.text.as_str() {
            "default" => step.is_its_own = false,
            "port" => {
                let port = |text: &str| units::integer(text, 65_535).filter(|port| *port > 0);
                let port = words.value("'port' expects a port number from 1 to 65535", port)?;
                step.port = u16::try_from(port).ok();
            }
            "addr" => {
                let expects = "'addr' expects an address";
                let word = words.required(expects)?;
                let address = address(environment, &word.text);
                let fault = |fault: String| words.about(word, format!("'addr' : {fault}."));
                step.address = Some(address.map_err(fault)?);
            }
            "send-proxy" => step.send_proxy = true,
            "linger" => step.linger = true,
            "comment" => comment = words.named_text("comment")?,
            _ => {
                let expects = "'comment', 'port', 'addr', 'send-proxy', 'linger' or 'default'";
                return Err(words.unexpected(word, expects));
            }
        }
    }
    Ok((step, comment))
}

/// An address whose port may be missing.
fn address(environment: &dyn Environment, text: &str) -> Result<Address, String> {
    let (host, port) = match Written::parse(text)? {
        Written::Unix(path) => return Ok(Address::Unix(path)),
        Written::Abstract(name) => return Ok(Address::Abstract(name)),
        Written::Ip(host, port) if !host.is_any() => (host, port),
        Written::Ip(..) | Written::Descriptor(_) => {
            return Err(format!("invalid address: '{text}'"));
        }
    };
    let port = match port {
        Port::None => 0,
        Port::One(port) => port,
        Port::Range(..) | Port::Relative(_) => return Err(format!("invalid port in '{text}'")),
    };
    let ip = host.resolve(environment)?;
    Ok(Address::Ip((ip, port).into()))
}

/// What `expect` lines of both kinds have before and after their pattern.
pub(super) struct Common {
    pub(super) bytes_min: Option<u32>,
    pub(super) ok: Option<CheckStatus>,
    pub(super) error: Option<CheckStatus>,
    pub(super) timeout: Option<CheckStatus>,
    pub(super) on_success: Option<String>,
    pub(super) on_error: Option<String>,
    pub(super) comment: String,
}

impl Common {
    pub(super) fn none() -> Common {
        Common {
            bytes_min: None,
            ok: None,
            error: None,
            timeout: None,
            on_success: None,
            on_error: None,
            comment: String::new(),
        }
    }

    /// Takes a word and its value; false = it is none of these.
    pub(super) fn take(
        &mut self,
        word: &Word,
        words: &mut Words<'_, '_>,
    ) -> Result<bool, Complaint> {
        use CheckStatus::{
            L4Failed, L4Ok, L4Timeout, L6Ok, L6Response, L6Timeout, L7Ok, L7Response, L7Status,
            L7Timeout,
        };
        match word.text.as_str() {
            "min-recv" => {
                let number = |text: &str| match text {
                    "-1" => Some(None),
                    text => {
                        let number = units::integer(text, i32::MAX as u64)?;
                        Some(u32::try_from(number).ok())
                    }
                };
                self.bytes_min = words.value("'min-recv' expects -1 or an integer", number)?;
            }
            "ok-status" => self.ok = Some(status(word, words, &[L4Ok, L6Ok, L7Ok])?),
            "error-status" => {
                let allowed = [L4Failed, L6Response, L7Response, L7Status];
                self.error = Some(status(word, words, &allowed)?);
            }
            "tout-status" => {
                let allowed = [L4Timeout, L6Timeout, L7Timeout];
                self.timeout = Some(status(word, words, &allowed)?);
            }
            "on-success" => self.on_success = Some(told(word, words)?),
            "on-error" => self.on_error = Some(told(word, words)?),
            "comment" => self.comment = words.named_text("comment")?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The expectation of an answer.
    pub(super) fn expect(self, answer: Answer) -> (Expect, String) {
        let usual = Expect::of(answer);
        let expect = Expect {
            ok: self.ok.unwrap_or(usual.ok),
            error: self.error,
            timeout: self.timeout.unwrap_or(usual.timeout),
            on_success: self.on_success,
            on_error: self.on_error,
            ..usual
        };
        (expect, self.comment)
    }
}

fn status(
    name: &Word,
    words: &mut Words<'_, '_>,
    allowed: &[CheckStatus],
) -> Result<CheckStatus, Complaint> {
    let name = &name.text;
    let word = words.required(&format!("'{name}' expects a status"))?;
    let got = word.text.as_str();
    let mut matching = allowed.iter().filter(|status| status.name() == got);
    if let Some(status) = matching.next() {
        return Ok(*status);
    }
    if got == "L7OKC" {
        let text = format!(
            "'{name}' : 'L7OKC' is not implemented in Tidegate yet: nothing takes connections away \
             from a server that is up."
        );
        return Err(words.about(word, text));
    }
    let (last, others) = allowed
        .split_last()
        .map_or(("", allowed), |(last, others)| (last.name(), others));
    let others: Vec<String> = others.iter().map(|s| format!("'{}'", s.name())).collect();
    let text = format!(
        "'{name}' only supports {} or '{last}' status (got '{got}').",
        others.join(", ")
    );
    Err(words.about(word, text))
}

/// A text that is told; what would be put together from expressions can't be yet.
fn told(name: &Word, words: &mut Words<'_, '_>) -> Result<String, Complaint> {
    let name = &name.text;
    let word = words.required(&format!("'{name}' expects a string"))?;
    let text = word.text.replace("%%", "\0");
    if text.contains('%') {
        let text = format!("'{name}' : expressions with '%' are not implemented in Tidegate yet.");
        return Err(words.about(word, text));
    }
    Ok(text.replace('\0', "%"))
}

pub(super) fn expect(words: &mut Words<'_, '_>) -> Result<(Expect, String), Complaint> {
    let (mut common, mut negated, mut pattern) = (Common::none(), false, None);
    while let Some(word) = words.next() {
        let (marks, name) = split_negation(&word.text);
        negated ^= marks % 2 == 1;
        if name.is_empty() || (marks == 0 && common.take(word, words)?) {
            continue;
        }
        let read: fn(&str) -> Result<Pattern, String> = match name {
            "string" | "rstring" | "binary" | "rbinary" if pattern.is_some() => {
                return Err(words.about(word, "only one pattern expected."));
            }
            "string" => |text: &str| Ok(Pattern::Text(text.to_owned())),
            "binary" => |text: &str| binary(text).map(Pattern::Binary),
            "rstring" => |text: &str| expression(text).map(Pattern::Regex),
            "rbinary" => |text: &str| expression(text).map(Pattern::BinaryRegex),
            _ => {
                let expects = format!(
                    "'min-recv', 'ok-status', 'error-status', 'tout-status', 'on-success', \
                     'on-error', 'comment', {PATTERNS}"
                );
                return Err(words.unexpected(word, &expects));
            }
        };
        let text = words.required(&format!("'{name}' expects a <pattern>"))?;
        pattern = Some(read(&text.text).map_err(|fault| words.about(text, fault))?);
    }
    let Some(pattern) = pattern else {
        let text = format!("expects at least a matching pattern: {PATTERNS}");
        return Err(words.required(&text).err().unwrap_or_else(|| text.into()));
    };
    let content = Content {
        pattern,
        negated,
        bytes_min: common.bytes_min,
    };
    Ok(common.expect(Answer::Content(content)))
}

/// How many `!` stand before a word, and the word.
pub(super) fn split_negation(text: &str) -> (usize, &str) {
    let name = text.trim_start_matches('!');
    (text.len() - name.len(), name)
}

pub(super) fn expression(text: &str) -> Result<RegularExpression, String> {
    let fault = |fault| format!("regex '{text}' is invalid (error={fault}).");
    RegularExpression::new(text).map_err(fault)
}

/// Bytes in hexadecimal digits.
pub(super) fn binary(text: &str) -> Result<Vec<u8>, String> {
    let digit = |byte: &u8| {
        char::from(*byte)
            .to_digit(16)
            .and_then(|d| u8::try_from(d).ok())
    };
    if let Some(wrong) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        let text =
            format!("'{text}' invalid binary string (an hex digit is expected (found '{wrong}')).");
        return Err(text);
    }
    let pairs = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    pairs.collect::<Option<_>>().ok_or_else(|| {
        format!("'{text}' invalid binary string (an even number of hex digit is expected).")
    })
}
