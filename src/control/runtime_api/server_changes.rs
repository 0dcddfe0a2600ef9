//! Commands that change which servers there are and where: `add server`, `del server` and
//! `set server ... addr`. Each is a change of the plan in force that goes the way of a reload; the
//! answer comes when all shards work by it.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::command::{Answer, Call, Command, Run, Severity, Waiting};
use super::{subject, wait};
use crate::base::address::Address;
use crate::config::edit;
use crate::config::plan::{Level, Plan, PortRule, Server, Target};
use crate::control::Shared;
use crate::control::reload::{Edit, Wish};
use crate::control::resolve::SystemEnvironment;

#[rustfmt::skip]
pub(super) const COMMANDS: &[Command] = &[
    Command { words: &["add", "server"], level: Level::Admin, usage: "add server <bk>/<srv> <addr> [opts]",
        help: "add a server to a backend, or list what it takes (add server help)", run: Run::Wait(add_server) },
    Command { words: &["del", "server"], level: Level::Admin, usage: "del server <bk>/<srv>",
        help: "delete a server that is in maintenance and has nobody", run: Run::Wait(del_server) },
];

fn add_server<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        if call.words == ["help"] {
            let words: Vec<&str> = edit::words_of_servers().collect();
            return Ok(Answer::info(format!(
                "Keywords of a server that is added:\n  {}\n",
                words.join("\n  ")
            )));
        }
        let named = call.words.first().and_then(|word| word.split_once('/'));
        let named = named.filter(|(backend, name)| !backend.is_empty() && !name.is_empty());
        let Some((backend, name)) = named else {
            return Ok(Answer::error("Require 'backend/server'."));
        };
        let (backend, name) = (backend.to_owned(), name.to_owned());
        let words = call.words.get(1..).unwrap_or_default();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let add: Edit = Box::new(move |plan| {
            let mut proxies = plan.proxies.iter();
            let meant = proxies.find(|proxy| subject::is_called(proxy, &backend));
            let backend = meant.ok_or("No such backend.")?.name.to_string();
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let outside = SystemEnvironment::new();
            replace(plan, |plan| {
                edit::add_server(plan, &outside, &backend, &name, &words)
            })
        });
        let report = call
            .shared
            .reload
            .wait("add server", Wish::Edited(add))
            .await;
        Ok(match report.success {
            true => Answer::info("New server registered."),
            false => Answer::error(report.messages.join("\n")),
        })
    })
}

fn del_server<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let named = call.words.first().and_then(|word| word.split_once('/'));
        if named.is_none_or(|(backend, name)| backend.is_empty() || name.is_empty()) {
            return Ok(Answer::error("Require 'backend/server'."));
        }
        let word = call.words[0].to_owned();
        let shared = Arc::clone(call.shared);
        let delete: Edit = Box::new(move |plan| {
            let (backend, name) = deletable(&shared, &word)?;
            let outside = SystemEnvironment::new();
            replace(plan, |plan| {
                edit::delete_server(plan, &outside, &backend, &name)
            })
        });
        let report = call
            .shared
            .reload
            .wait("del server", Wish::Edited(delete))
            .await;
        Ok(match report.success {
            true => Answer::info("Server deleted."),
            false => Answer::error(report.messages.join("\n")),
        })
    })
}

/// The names of a server that may be deleted now, or why it may not.
fn deletable(shared: &Shared, word: &str) -> Result<(String, String), String> {
    let (backend, server) = subject::server(shared, Some(&word)).map_err(Answer::into_text)?;
    if let Some(obstacle) = wait::obstacle(shared, &server) {
        return Err(obstacle.to_owned());
    }
    if !wait::is_unused(&backend, &server) {
        return Err("Server still has connections attached to it, cannot remove it.".to_owned());
    }
    Ok((backend.proxy.name.to_string(), server.plan.name.to_string()))
}

/// `set server <b>/<s> addr <ip> [port <port>]`.
pub(super) fn set_address<'c>(call: &'c mut Call<'_>) -> Waiting<'c> {
    Box::pin(async move {
        let (backend, server) = match subject::server(call.shared, call.words.first()) {
            Ok(found) => found,
            Err(answer) => return Ok(answer),
        };
        let values = call.words.get(2..).unwrap_or_default();
        if values.is_empty() {
            return Ok(Answer::error(
                "set server <b>/<s> addr requires an address and optionally a port.",
            ));
        }
        let marked = |text: String| {
            Answer::Message(
                Severity::Warning,
                format!("{text} by 'stats socket command'"),
            )
        };
        let asked = Asked::of(values);
        let (backend, name) = (backend.proxy.name.to_string(), server.plan.name.to_string());
        match asked.as_ref().map(|asked| asked.beside(&server.plan)) {
            Ok(Ok(Move { to: None, text })) => return Ok(marked(text)),
            Ok(Ok(_)) => {}
            Ok(Err(text)) => return Ok(marked(text)),
            Err(text) => return Ok(marked(text.clone())),
        }
        let asked = asked.unwrap_or_default();
        let done = Arc::new(OnceLock::new());
        let say = Arc::clone(&done);
        let change: Edit = Box::new(move |plan| {
            let present = server_of(plan, &backend, &name).ok_or("No such server.")?;
            // Somebody else may have moved it while this waited for its turn.
            let Move { to, text } = asked.beside(present)?;
            let said = match to {
                None => Vec::new(),
                Some((ip, port)) => {
                    let outside = SystemEnvironment::new();
                    let moved = replace(plan, |plan| {
                        edit::move_server(plan, &outside, &backend, &name, ip, port)
                    });
                    moved.map_err(|fault| match fault == edit::NO_PORT_MAP {
                        true => format!("{}, {fault}", text.split(", port").next().unwrap_or("")),
                        false => fault,
                    })?
                }
            };
            let _ = say.set(text);
            Ok(said)
        });
        let report = call
            .shared
            .reload
            .wait("set server addr", Wish::Edited(change))
            .await;
        Ok(match (report.success, done.get()) {
            (true, Some(text)) => marked(text.clone()),
            _ => marked(report.messages.join("\n")),
        })
    })
}

/// Puts an edited plan in the place of the one there is.
fn replace(
    plan: &mut Plan,
    edit: impl FnOnce(&Plan) -> edit::Edited,
) -> Result<Vec<String>, String> {
    let (edited, said) = edit(plan)?;
    *plan = edited;
    Ok(said)
}

fn server_of<'a>(plan: &'a Plan, backend: &str, name: &str) -> Option<&'a Server> {
    let mut backs = plan.proxies.iter().filter(|proxy| *proxy.name == *backend);
    let back = backs.find_map(|proxy| proxy.back.as_ref())?;
    let server = back.servers.iter().find(|server| *server.name == *name);
    server.map(|server| &**server)
}

/// An address that is asked for.
#[derive(Clone, Debug, Default)]
struct Asked {
    /// As it was written, and read.
    address: (String, Option<IpAddr>),
    port: Option<Result<PortRule, String>>,
}

/// What becomes of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Move {
    /// Where it goes; `None` = it is there.
    to: Option<(IpAddr, PortRule)>,
    /// What there is to say.
    text: String,
}

impl Asked {
    /// `<ip> [port <port>]`. HAProxy doesn't mind what else is there.
    fn of(values: &[&str]) -> Result<Asked, String> {
        let word = values.first().copied().unwrap_or_default();
        let ip: Result<IpAddr, _> = word.trim_matches(['[', ']']).parse();
        let ip = ip.map_err(|_| format!("Invalid addr '{word}'"))?;
        let port = match values.get(1) {
            Some(&"port") => Some(port_of(values.get(2).copied().unwrap_or_default())),
            _ => None,
        };
        Ok(Asked {
            address: (word.to_owned(), Some(ip)),
            port,
        })
    }

    /// What a server that is somewhere comes to.
    fn beside(&self, server: &Server) -> Result<Move, String> {
        let (present, port) = match &server.address {
            Target::Fixed(Address::Ip(address)) => {
                (Some(address.ip()), PortRule::Fixed(address.port()))
            }
            Target::OfClient { ip, port } => (*ip, *port),
            Target::Fixed(_) | Target::Unresolved => {
                return Err(
                    "Update for the current server address family is only supported \
                            through configuration file"
                        .to_owned(),
                );
            }
        };
        let any = IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED);
        let present = present.unwrap_or(any);
        let ip = self.address.1.unwrap_or(present);
        let mut text = match ip == present {
            true => "no need to change the addr".to_owned(),
            false => format!("IP changed from '{present}' to '{}'", self.address.0),
        };
        let wanted = match &self.port {
            None => port,
            Some(Err(fault)) => return Err(format!("{text}, {fault}")),
            Some(Ok(wanted)) if *wanted == port => {
                text.push_str(", no need to change the port");
                port
            }
            Some(Ok(wanted)) => {
                let words = [port, *wanted].map(port_text);
                text.push_str(&format!(
                    ", port changed from '{}' to '{}'",
                    words[0], words[1]
                ));
                *wanted
            }
        };
        let to = (ip, wanted) != (present, port);
        Ok(Move {
            to: to.then_some((ip, wanted)),
            text,
        })
    }
}

fn port_of(word: &str) -> Result<PortRule, String> {
    let number: i64 = word
        .parse()
        .map_err(|_| format!("problem converting port '{word}' to an int"))?;
    let out_of_range = || format!("port '{word}' is not within 1 and 65535");
    if word.starts_with(['+', '-']) {
        let offset = i32::try_from(number).ok();
        let offset = offset.filter(|offset| offset.unsigned_abs() <= u32::from(u16::MAX));
        return offset.map(PortRule::Offset).ok_or_else(out_of_range);
    }
    let port = u16::try_from(number).ok().filter(|port| *port > 0);
    port.map(PortRule::Fixed).ok_or_else(out_of_range)
}

fn port_text(port: PortRule) -> String {
    match port {
        PortRule::Fixed(port) => port.to_string(),
        PortRule::Offset(offset) => format!("{offset:+}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn server(address: &str) -> Server {
        let text = format!(
            "defaults\n    timeout connect 1s\n    timeout server 1s\nbackend b\n    server s \
             {address}\n"
        );
        let (plan, said) = config::load_text("t.cfg", text, &SystemEnvironment::new());
        let plan = plan.unwrap_or_else(|| panic!("{said:?}"));
        server_of(&plan, "b", "s").unwrap().clone()
    }

    #[test]
    fn what_changes_is_said_as_haproxy_says_it() {
        let said = |address: &str, words: &[&str]| {
            let asked = Asked::of(words).and_then(|asked| asked.beside(&server(address)));
            asked.map_or_else(|fault| fault, |moved| moved.text)
        };
        let fixed = "127.0.0.1:9001";
        for (words, text) in [
            (&["127.0.0.1"][..], "no need to change the addr"),
            (
                &["127.0.0.1", "port", "9001"],
                "no need to change the addr, no need to change the port",
            ),
            (&["127.0.0.2"], "IP changed from '127.0.0.1' to '127.0.0.2'"),
            (
                &["127.0.0.2", "port", "80"],
                "IP changed from '127.0.0.1' to '127.0.0.2', port changed from '9001' to '80'",
            ),
            (&["[::1]"], "IP changed from '127.0.0.1' to '[::1]'"),
            (
                &["127.0.0.1", "port", "+5"],
                "no need to change the addr, port changed from '9001' to '+5'",
            ),
            (&["localhost"], "Invalid addr 'localhost'"),
            (
                &["::1", "port", "x"],
                "IP changed from '127.0.0.1' to '::1', problem converting port 'x' to an int",
            ),
            (
                &["::1", "port"],
                "IP changed from '127.0.0.1' to '::1', problem converting port '' to an int",
            ),
            (
                &["::1", "port", "0"],
                "IP changed from '127.0.0.1' to '::1', port '0' is not within 1 and 65535",
            ),
            (
                &["::1", "port", "70000"],
                "IP changed from '127.0.0.1' to '::1', port '70000' is not within 1 and 65535",
            ),
            (
                &["::1", "port", "-70000"],
                "IP changed from '127.0.0.1' to '::1', port '-70000' is not within 1 and 65535",
            ),
        ] {
            assert_eq!(said(fixed, words), text, "{words:?}");
        }
        let family = "Update for the current server address family is only supported through \
                      configuration file";
        assert_eq!(said("/run/a.sock", &["127.0.0.1"]), family);
        assert_eq!(
            said("*", &["127.0.0.1", "port", "80"]),
            "IP changed from '0.0.0.0' to '127.0.0.1', port changed from '+0' to '80'"
        );
        assert_eq!(said("*:80", &["0.0.0.0"]), "no need to change the addr");
    }

    #[test]
    fn what_is_not_said_of_an_address_stays() {
        let to = |address: &str, words: &[&str]| {
            let asked = Asked::of(words).unwrap();
            asked.beside(&server(address)).unwrap().to
        };
        let ip: IpAddr = "127.0.0.9".parse().unwrap();
        assert_eq!(
            to("127.0.0.1:80", &["127.0.0.9"]),
            Some((ip, PortRule::Fixed(80)))
        );
        assert_eq!(
            to("127.0.0.1:+7", &["127.0.0.9"]),
            Some((ip, PortRule::Offset(7)))
        );
        assert_eq!(to("127.0.0.9:80", &["127.0.0.9", "port", "80"]), None);
    }
}
