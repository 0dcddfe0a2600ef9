//! From a proxy's check lines to the script that its servers are checked by.

use std::sync::Arc;

use super::Builder;
use super::check_protocols as protocols;
use super::server::set;
use crate::base::send_proxy::{SendProxy, Version};
use crate::config::draft::{Mode, ProxyDraft, Timeouts};
use crate::config::draft_check::{CheckDraft, CheckKind, HttpSend, Rule, RuleStep, Rules};
use crate::config::plan::{
    Action, Answer, ConnectStep, Ending, Expect, HttpAnswer, HttpWanted, Manner, Script, Scripted,
    Step,
};

/// What an HTTP check asks for where its lines don't say.
const METHOD_DEFAULT: &str = "OPTIONS";
const URI_DEFAULT: &str = "/";
const VERSION_DEFAULT: &str = "HTTP/1.0";

impl Builder<'_, '_> {
    /// The script of a proxy's checks; `None` = they connect and nothing else. Says which lines are
    /// for another kind of check.
    pub(in crate::config) fn script(&mut self, draft: &ProxyDraft) -> Option<Arc<Script>> {
        let check = &draft.settings.check_kind;
        let families = [
            (
                &check.tcp,
                check.kind == CheckKind::Tcp,
                "tcp-check",
                "tcp-check",
            ),
            (
                &check.http,
                matches!(check.kind, CheckKind::Http(_)),
                "http-check",
                "httpchk",
            ),
            (
                &check.udp,
                check.kind == CheckKind::Udp,
                "udp-check",
                "udp-check",
            ),
        ];
        for (rules, used, keyword, option) in families {
            if self.whole && !used && rules.own {
                let text = format!(
                    "'{keyword}' lines of '{}' have no effect without 'option {option}'.",
                    draft.name
                );
                self.report.warning(&draft.place, None, text);
            }
        }
        let is_empty = check.kind == CheckKind::Udp && check.udp.list.is_empty();
        if self.whole && is_empty && draft.settings.mode == Mode::Udp {
            let text = format!(
                "'option udp-check' of '{}' needs 'udp-check send' lines: nobody answers what isn't \
                 sent.",
                draft.name
            );
            self.report.alert(&draft.place, None, text);
        }
        let script = match &check.kind {
            CheckKind::Connect | CheckKind::Udp | CheckKind::Dns(_) | CheckKind::Dht => {
                return None;
            }
            CheckKind::Tcp => tcp(&check.tcp),
            CheckKind::Http(request) => http(request, &check.http),
            CheckKind::Redis => protocols::redis(),
            CheckKind::Smtp(hello) => protocols::smtp(hello),
            CheckKind::Mysql(user) => protocols::mysql(user.as_ref()),
            CheckKind::Pgsql(user) => protocols::pgsql(user),
            CheckKind::Ldap => protocols::ldap(),
            CheckKind::TlsHello => protocols::tls(),
        };
        Some(Arc::new(script))
    }
}

/// A script with the bounds that hold for a server.
pub(super) fn scripted(
    script: &Arc<Script>,
    timeout_connect_ms: u32,
    timeouts: Timeouts,
    send_proxy: Option<SendProxy>,
) -> Scripted {
    Scripted {
        script: Arc::clone(script),
        timeout_connect_ms,
        timeout_check_ms: set(timeouts.check),
        send_proxy: send_proxy.unwrap_or(SendProxy::of(Version::One)),
    }
}

/// Whether all connects of a check have ports of their own.
pub(in crate::config) fn knows_ports(check: &CheckDraft) -> bool {
    let rules = match &check.kind {
        CheckKind::Tcp => &check.tcp,
        CheckKind::Http(_) => &check.http,
        _ => return false,
    };
    let mut connects = rules.list.iter().filter_map(|rule| match rule {
        Rule::Step(RuleStep::Connect(connect), _) => Some(connect),
        _ => None,
    });
    let first = connects.next().is_some_and(ConnectStep::knows_port);
    first && connects.all(ConnectStep::knows_port)
}

/// A step that nobody has written.
pub(super) fn implied(action: Action) -> Step {
    Step {
        number: 0,
        action,
        comment: String::new(),
    }
}

fn tcp(rules: &Rules) -> Script {
    let mut steps = steps(rules, |_| Vec::new());
    connect_first(&mut steps);
    Script {
        manner: Manner::Steps,
        steps,
        ending: Ending::Reset,
    }
}

fn connect_first(steps: &mut Vec<Step>) {
    if !matches!(steps.first(), Some(step) if matches!(step.action, Action::Connect(_))) {
        steps.insert(0, implied(Action::Connect(ConnectStep::default())));
    }
}

/// The steps of lines, numbered as the lines are; `bytes` makes those of a request.
pub(super) fn steps(rules: &Rules, mut bytes: impl FnMut(&HttpSend) -> Vec<u8>) -> Vec<Step> {
    let (mut steps, mut about) = (Vec::new(), "");
    for (number, rule) in (1u16..).zip(&rules.list) {
        let (step, own) = match rule {
            Rule::Comment(text) => {
                about = text;
                continue;
            }
            Rule::Step(step, own) => (step, own.as_str()),
        };
        let before = std::mem::take(&mut about);
        let comment = if own.is_empty() { before } else { own };
        let action = match step {
            RuleStep::Connect(connect) => Action::Connect(connect.clone()),
            RuleStep::Send(bytes) => Action::Send(bytes.clone()),
            RuleStep::Request(request) => Action::Send(bytes(request)),
            RuleStep::Expect(expect) => Action::Expect(expect.clone()),
        };
        steps.push(Step {
            number,
            action,
            comment: comment.to_owned(),
        });
    }
    steps
}

/// The first request is that of the option with what its line says otherwise.
fn http(option: &HttpSend, rules: &Rules) -> Script {
    let mut first = Some(option);
    let mut steps = steps(rules, |own| match first.take() {
        Some(option) => request(&merged(option, own)),
        None => request(own),
    });
    connect_first(&mut steps);
    if first.is_some() {
        steps.insert(1, implied(Action::Send(request(option))));
    }
    if !matches!(steps.last(), Some(step) if matches!(step.action, Action::Expect(_))) {
        let wanted = HttpWanted::Statuses(vec![(200, 399)]);
        let negated = false;
        let answer = Answer::Http(HttpAnswer { wanted, negated });
        steps.push(implied(Action::Expect(Expect::of(answer))));
    }
    Script {
        manner: Manner::Http,
        steps,
        ending: Ending::Reset,
    }
}

fn merged(option: &HttpSend, own: &HttpSend) -> HttpSend {
    let either = |own: &Option<String>, option: &Option<String>| own.clone().or(option.clone());
    HttpSend {
        method: either(&own.method, &option.method),
        uri: either(&own.uri, &option.uri),
        version: either(&own.version, &option.version),
        headers: [option.headers.as_slice(), &own.headers].concat(),
        body: own.body.clone(),
    }
}

/// A request as it is sent. Its length and where the connection ends are ours to say.
fn request(send: &HttpSend) -> Vec<u8> {
    let or = |text: &Option<String>, default: &str| text.as_deref().unwrap_or(default).to_owned();
    let version = or(&send.version, VERSION_DEFAULT);
    let mut text = format!(
        "{} {} {version}\r\n",
        or(&send.method, METHOD_DEFAULT),
        or(&send.uri, URI_DEFAULT)
    );
    let mut says_end = version == VERSION_DEFAULT;
    for (name, value) in &send.headers {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        if is("content-length") || is("transfer-encoding") {
            continue;
        }
        says_end |= is("connection");
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    let body = send.body.as_deref().unwrap_or_default();
    if !body.is_empty() {
        text.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    if !says_end {
        text.push_str("connection: close\r\n");
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}
