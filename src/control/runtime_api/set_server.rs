//! Commands that change servers: `set server`, `set weight`, `enable` and `disable` of servers,
//! checks and agents. And `get weight`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::command::{Answer, Call, Command, Run, Waiting};
use super::{server_changes, subject};
use crate::base::address::Address;
use crate::config::plan::Level;
use crate::control::operator::{self, Said};
use crate::control::{Shared, admin, steps};
use crate::health::AgentWeight;
use crate::lb::{Admin, Backend, Server};

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["disable", "agent"], level: Level::Admin, usage: "disable agent <bk>/<srv>",
        help: "stop asking a server's agent", run: Run::Now(|call| agent_runs(call, false)) },
    Command { words: &["disable", "health"], level: Level::Admin, usage: "disable health <bk>/<srv>",
        help: "stop a server's health checks", run: Run::Now(|call| checks_run(call, false)) },
    Command { words: &["disable", "server"], level: Level::Admin, usage: "disable server <bk>/<srv>",
        help: "put a server into maintenance", run: Run::Now(|call| set_admin(call, Admin::Maintenance)) },
    Command { words: &["enable", "agent"], level: Level::Admin, usage: "enable agent <bk>/<srv>",
        help: "ask a server's agent again", run: Run::Now(|call| agent_runs(call, true)) },
    Command { words: &["enable", "health"], level: Level::Admin, usage: "enable health <bk>/<srv>",
        help: "go on with a server's health checks", run: Run::Now(|call| checks_run(call, true)) },
    Command { words: &["enable", "server"], level: Level::Admin, usage: "enable server <bk>/<srv>",
        help: "put a server back into service", run: Run::Now(|call| set_admin(call, Admin::Ready)) },
    Command { words: &["get", "weight"], level: Level::User, usage: "get weight <bk>/<srv>",
        help: "report a server's weight and that of the configuration", run: Run::Now(get_weight) },
    Command { words: &["set", "server"], level: Level::Admin, usage: "set server <bk>/<srv> [opts]",
        help: "change a server's state, weight, address, health, agent or checks", run: Run::Wait(set_server) },
    Command { words: &["set", "weight"], level: Level::Admin, usage: "set weight <bk>/<srv> <weight>[%]",
        help: "change a server's weight", run: Run::Now(|call| answer(set_weight(call, call.words.get(1)))) },
];

const USAGE: &str = "usage: set server <backend>/<server> addr | agent | agent-addr | agent-port | \
                     agent-send | check-addr | check-port | fqdn | health | ssl | state | weight";
const NO_AGENT: &str = "agent checks are not enabled on this server.";
const NO_CHECKS: &str = "health checks are not enabled on this server";

type Outcome = Result<(), Answer>;

fn answer(outcome: Outcome) -> Answer {
    match outcome {
        Ok(()) => Answer::Nothing,
        Err(answer) => answer,
    }
}

fn refused(text: impl Into<String>) -> Outcome {
    Err(Answer::error(text))
}

/// The server that a command's first word names.
fn named(call: &Call<'_>) -> Result<(Arc<Backend>, Arc<Server>), Answer> {
    subject::server(call.shared, call.words.first())
}

fn set_server<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    match call.words.get(1) {
        Some(&"addr") => server_changes::set_address(call),
        _ => Box::pin(async move { Ok(answer(set_something(call))) }),
    }
}

fn set_something(call: &Call<'_>) -> Outcome {
    let (backend, server) = named(call)?;
    let (shared, values) = (call.shared, call.words.get(2..).unwrap_or(&[]));
    let value = values.first().copied();
    match call.words.get(1).copied() {
        Some("state") => {
            let state = match value {
                Some("ready") => Admin::Ready,
                Some("drain") => Admin::Drain,
                Some("maint") => Admin::Maintenance,
                _ => {
                    return refused(
                        "'set server <srv> state' expects 'ready', 'drain' and 'maint'.",
                    );
                }
            };
            admin::set_own(shared, &backend, &server, state);
            Ok(())
        }
        Some("weight") => set_weight(call, values.first()),
        Some("health") => set_health(shared, &backend, &server, value),
        Some("agent") => set_agent(shared, &backend, &server, value),
        Some("agent-addr") => set_agent_address(&server, values),
        Some("agent-port") => set_agent_port(&server, value),
        Some("agent-send") => {
            if server.plan.watch.agent.is_none() {
                return refused(NO_AGENT);
            }
            let question: Arc<str> = unescaped(&values.join(" ")).into();
            let asks = Some(question).filter(|question| !question.is_empty());
            server.tuned.change(|tuning| tuning.agent_question = asks);
            Ok(())
        }
        Some("check-addr") => set_check_address(&server, values),
        Some("check-port") => set_check_port(&server, value),
        Some("fqdn") => {
            refused("set server <b>/<s> fqdn failed because no resolution is configured.")
        }
        Some("ssl") => refused(
            "'set server <srv> ssl' cannot be set.  default-server should define ssl settings",
        ),
        _ => refused(USAGE),
    }
}

fn set_admin(call: &mut Call<'_>, state: Admin) -> Answer {
    match named(call) {
        Ok((backend, server)) => {
            admin::set_own(call.shared, &backend, &server, state);
            Answer::Nothing
        }
        Err(answer) => answer,
    }
}

fn get_weight(call: &mut Call<'_>) -> Answer {
    match named(call) {
        Ok((_, server)) => {
            let (weight, initial) = (server.weight(), server.plan.weight);
            Answer::Text(format!("{weight} (initial {initial})\n"))
        }
        Err(answer) => answer,
    }
}

fn set_weight(call: &Call<'_>, word: Option<&&str>) -> Outcome {
    let (backend, server) = named(call)?;
    let Some(word) = word else {
        return refused("Require <weight> or <weight%>.");
    };
    let configured = server.plan.weight;
    let weight = parse_weight(word).map_err(Answer::error)?.of(configured);
    if backend.is_static() && weight != 0 && weight != u32::from(configured) {
        return refused(
            "Backend is using a static LB algorithm and only accepts weights '0%' and '100%'.",
        );
    }
    steps::cancel(call.shared, &backend, &server);
    operator::set_weight(call.shared, &backend, &server, weight);
    Ok(())
}

/// A weight or a part of the configured one.
fn parse_weight(word: &str) -> Result<AgentWeight, &'static str> {
    let (text, is_percent) = match word.strip_suffix('%') {
        Some(text) => (text, true),
        None => (word, false),
    };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit());
    match end {
        Some(0) => return Err("Empty weight string empty or preceded by garbage"),
        _ if digits.is_empty() => return Err("Empty weight string empty or preceded by garbage"),
        Some(_) => return Err("Trailing garbage in weight string"),
        None => {}
    }
    let number: i64 = text.parse().unwrap_or(i64::MAX);
    match (u32::try_from(number.min(i64::from(u32::MAX))), is_percent) {
        (Err(_), true) => Err("Relative weight must be positive."),
        (Ok(percent), true) => Ok(AgentWeight::Percent(percent)),
        (Ok(weight @ ..=256), false) => Ok(AgentWeight::Number(weight)),
        (_, false) => Err("Absolute weight can only be between 0 and 256 inclusive."),
    }
}

fn set_health(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    value: Option<&str>,
) -> Outcome {
    if server.plan.watch.tracks.is_some() {
        return refused("cannot change health on a tracking server.");
    }
    let said = match value {
        Some("up") => Said::Up,
        Some("stopping") => Said::Stopping,
        Some("down") => Said::Down,
        _ => return refused("'set server <srv> health' expects 'up', 'stopping', or 'down'."),
    };
    operator::set_health(shared, backend, server, said);
    Ok(())
}

fn set_agent(
    shared: &Shared,
    backend: &Backend,
    server: &Arc<Server>,
    value: Option<&str>,
) -> Outcome {
    if server.plan.watch.agent.is_none() || server.tuned.agent_stopped() {
        return refused(NO_AGENT);
    }
    let is_up = match value {
        Some("up") => true,
        Some("down") => false,
        _ => return refused("'set server <srv> agent' expects 'up' or 'down'."),
    };
    operator::set_agent(shared, backend, server, is_up);
    Ok(())
}

fn set_agent_address(server: &Server, values: &[&str]) -> Outcome {
    let Some(agent) = &server.plan.watch.agent else {
        return refused(NO_AGENT.trim_end_matches('.'));
    };
    let present = server.tuned.get().agent_address;
    let present = present.unwrap_or_else(|| agent.address.clone());
    let next = moved(&present, values, "agent-addr")?;
    server
        .tuned
        .change(|tuning| tuning.agent_address = Some(next));
    Ok(())
}

fn set_agent_port(server: &Server, value: Option<&str>) -> Outcome {
    let Some(agent) = &server.plan.watch.agent else {
        return refused(NO_AGENT.trim_end_matches('.'));
    };
    let Some(word) = value else {
        return refused("set server <b>/<s> agent-port requires a port.");
    };
    let present = server.tuned.get().agent_address;
    let present = present.unwrap_or_else(|| agent.address.clone());
    let next = at_port(&present, &agent.address, word)?;
    server
        .tuned
        .change(|tuning| tuning.agent_address = Some(next));
    Ok(())
}

fn set_check_address(server: &Server, values: &[&str]) -> Outcome {
    let Some(check) = &server.plan.check else {
        return refused(NO_CHECKS);
    };
    let present = server.tuned.get().check_address;
    let present = present.unwrap_or_else(|| check.address.clone());
    let next = moved(&present, values, "check-addr")?;
    server
        .tuned
        .change(|tuning| tuning.check_address = Some(next));
    Ok(())
}

fn set_check_port(server: &Server, value: Option<&str>) -> Outcome {
    let Some(check) = &server.plan.check else {
        return refused(NO_CHECKS);
    };
    let Some(word) = value else {
        return refused("set server <b>/<s> check-port requires a port.");
    };
    let present = server.tuned.get().check_address;
    let present = present.unwrap_or_else(|| check.address.clone());
    let next = at_port(&present, &check.address, word)?;
    server
        .tuned
        .change(|tuning| tuning.check_address = Some(next));
    Ok(())
}

/// An address in the place of another one: `<ip> [port <port>]`.
fn moved(present: &Address, values: &[&str], what: &str) -> Result<Address, Answer> {
    let Some(word) = values.first() else {
        return Err(Answer::error(format!(
            "set server <b>/<s> {what} requires an address and optionally a port."
        )));
    };
    let ip: IpAddr = match word.trim_matches(['[', ']']).parse() {
        Ok(ip) => ip,
        Err(_) => return Err(Answer::error(format!("invalid addr '{word}'"))),
    };
    let port = match (values.get(1), present) {
        (Some(&"port"), _) => port_of(values.get(2).copied().unwrap_or(""))?,
        (_, Address::Ip(address)) => address.port(),
        (_, Address::Unix(_) | Address::Abstract(_)) => 0,
    };
    if port == 0 {
        return Err(Answer::error("provided port is invalid"));
    }
    Ok(Address::Ip(SocketAddr::new(ip, port)))
}

/// An address with another port; 0 = that of the configuration.
fn at_port(present: &Address, configured: &Address, word: &str) -> Result<Address, Answer> {
    let (Address::Ip(present), Address::Ip(configured)) = (present, configured) else {
        return Err(Answer::error("an address of a Unix socket has no port"));
    };
    let port = match port_of(word)? {
        0 => configured.port(),
        port => port,
    };
    Ok(Address::Ip(SocketAddr::new(present.ip(), port)))
}

fn port_of(word: &str) -> Result<u16, Answer> {
    let number: i64 = match word.parse() {
        Ok(number) => number,
        Err(_) => return Err(Answer::error("provided port is not an integer")),
    };
    u16::try_from(number).map_err(|_| Answer::error("provided port is invalid"))
}

/// `\n` and the like, which a line can't hold.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        plain.push(match letter {
            '\\' => match letters.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(other) => other,
                None => '\\',
            },
            other => other,
        });
    }
    plain
}

fn checks_run(call: &mut Call<'_>, run: bool) -> Answer {
    let server = match named(call) {
        Ok((_, server)) => server,
        Err(answer) => return answer,
    };
    if server.plan.check.is_none() {
        let text = "Health check was not configured on this server, cannot enable.";
        // There are none to stop either, which is no error.
        return if run {
            Answer::error(text)
        } else {
            Answer::Nothing
        };
    }
    server.tuned.change(|tuning| tuning.checks_stopped = !run);
    Answer::Nothing
}

fn agent_runs(call: &mut Call<'_>, run: bool) -> Answer {
    let server = match named(call) {
        Ok((_, server)) => server,
        Err(answer) => return answer,
    };
    if server.plan.watch.agent.is_none() {
        let text = "Agent was not configured on this server, cannot enable.";
        return if run {
            Answer::error(text)
        } else {
            Answer::Nothing
        };
    }
    server.tuned.change(|tuning| tuning.agent_stopped = !run);
    Answer::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_numbers_and_parts() {
        let of = |word| parse_weight(word).map(|weight| weight.of(10));
        assert_eq!(of("5"), Ok(5));
        assert_eq!(of("256"), Ok(256));
        assert_eq!((of("50%"), of("0%"), of("100%")), (Ok(5), Ok(0), Ok(10)));
        assert_eq!(of("99999999999999999999%"), Ok(256));
        let range = "Absolute weight can only be between 0 and 256 inclusive.";
        for word in ["257", "-1", "99999999999999999999"] {
            assert_eq!(of(word), Err(range), "{word}");
        }
        assert_eq!(of("-1%"), Err("Relative weight must be positive."));
        for word in ["", "%", "x", "-", "x5"] {
            let empty = "Empty weight string empty or preceded by garbage";
            assert_eq!(of(word), Err(empty), "{word}");
        }
        for word in ["5x", "5 %", "5%%"] {
            assert_eq!(of(word), Err("Trailing garbage in weight string"), "{word}");
        }
    }

    #[test]
    fn addresses_keep_what_is_not_said() {
        let text = |result: Result<Address, Answer>| match result {
            Ok(address) => address.to_string(),
            Err(Answer::Message(_, text)) => text,
            Err(other) => panic!("{other:?}"),
        };
        let present = Address::Ip("127.0.0.1:80".parse().unwrap());
        let to = |values: &[&str]| text(moved(&present, values, "check-addr"));
        assert_eq!(to(&["10.0.0.1"]), "10.0.0.1:80");
        assert_eq!(to(&["::1", "port", "81"]), "[::1]:81");
        assert_eq!(to(&["foo"]), "invalid addr 'foo'");
        assert_eq!(
            to(&["10.0.0.1", "port", "x"]),
            "provided port is not an integer"
        );
        assert_eq!(to(&["10.0.0.1", "port"]), "provided port is not an integer");
        assert!(to(&[]).contains("check-addr requires an address"));
        let next = Address::Ip("10.0.0.1:81".parse().unwrap());
        let at = |word| text(at_port(&next, &present, word));
        assert_eq!(
            (at("82").as_str(), at("0").as_str()),
            ("10.0.0.1:82", "10.0.0.1:80")
        );
        assert_eq!(at("70000"), "provided port is invalid");
    }

    #[test]
    fn a_question_may_have_a_line_feed() {
        assert_eq!(unescaped(r"how\nare\\you"), "how\nare\\you");
    }
}
