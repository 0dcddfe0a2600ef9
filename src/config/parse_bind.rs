//! `bind` lines: the addresses and the parameters of listeners.

use super::address::{Host, Port, Written};
use super::draft::{BindDraft, BindSettings, Owner};
use super::environment::Environment;
use super::keywords::{Origin, ParameterHelp, closest, did_you_mean};
use super::parser::{Call, Complaint, Outcome, Parser};
use super::plan::Endpoint;
use super::refused;
use super::units::{self, Unit};
use crate::base::address::Address;

/// Listeners that one `bind` line may make by a range of ports.
const LISTENERS_PER_LINE_MAX: usize = 4096;

/// A parameter of a line; `bind` and `server` have a table each.
pub(super) struct Parameter<T> {
    pub(super) help: ParameterHelp,
    /// Sets it; gets its own name and its value.
    pub(super) set: Set<T>,
}

/// How a parameter is set.
pub(super) type Set<T> = fn(&dyn Environment, &mut T, &str, &str) -> Result<(), String>;

pub(super) const fn parameter<T>(
    name: &'static str,
    syntax: &'static str,
    help: &'static str,
    set: Set<T>,
) -> Parameter<T> {
    Parameter {
        help: ParameterHelp {
            name,
            syntax,
            help,
            origin: Origin::HaProxy,
        },
        set,
    }
}

/// The parameters of `bind`.
#[rustfmt::skip]
pub(super) static PARAMETERS: &[Parameter<BindSettings>] = &[
    parameter("backlog", "<number>", "Length of the kernel's accept queue.", |_, bind, name, value| {
        bind.backlog = Some(number(name, value)?);
        Ok(())
    }),
    parameter("defer-accept", "", "Accept a client only once it has sent something.", |_, bind, _, _| {
        bind.defer_accept = true;
        Ok(())
    }),
    parameter("gid", "<number>", "Group of a Unix socket.", set_owner),
    parameter("group", "<name>", "Group of a Unix socket, by name.", set_owner),
    parameter("maxconn", "<number>", "Most connections at a time.", |_, bind, name, value| {
        bind.maxconn = number(name, value)?;
        Ok(())
    }),
    parameter("mode", "<octal>", "File mode of a Unix socket.", set_owner),
    parameter("name", "<name>", "Name for statistics.", |_, bind, _, value| {
        value.clone_into(&mut bind.name);
        Ok(())
    }),
    parameter("tcp-ut", "<time>", "Longest time that sent data may stay unacknowledged.", |_, bind, name, value| {
        bind.tcp_user_timeout_ms = positive_delay(name, value)?;
        Ok(())
    }),
    parameter("uid", "<number>", "Owner of a Unix socket.", set_owner),
    parameter("user", "<name>", "Owner of a Unix socket, by name.", set_owner),
    parameter("v4v6", "", "An IPv6 wildcard takes IPv4 too.", |_, bind, _, _| {
        bind.v6only = Some(false);
        Ok(())
    }),
    parameter("v6only", "", "An IPv6 wildcard takes IPv6 only.", |_, bind, _, _| {
        bind.v6only = Some(true);
        Ok(())
    }),
];

pub(super) fn bind(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let Some(addresses) = call.args.first() else {
        let text =
            "'bind' expects {<path>|[addr1]:port1[-end1]}{,[addr]:port[-end]}... as arguments.";
        return Err(text.into());
    };
    let fault = |text: String| Complaint::about(addresses, format!("'bind' : {text}"));
    let mut endpoints = Vec::new();
    for text in addresses.text.split(',') {
        add_endpoints(parser, text, &mut endpoints).map_err(fault)?;
        if endpoints.len() > LISTENERS_PER_LINE_MAX {
            let text = format!("more than {LISTENERS_PER_LINE_MAX} addresses on one line");
            return Err(fault(text));
        }
    }
    let section = parser.kind.name();
    let what = format!("'bind {}' in section '{section}'", addresses.text);
    let mut settings = BindSettings::default();
    let mut args = call.args[1..].iter();
    while let Some(word) = args.next() {
        let name = word.text.as_str();
        if let Some(parameter) = PARAMETERS
            .iter()
            .find(|parameter| parameter.help.name == name)
        {
            let mut value = "";
            if !parameter.help.syntax.is_empty() {
                let Some(word) = args.next() else {
                    let text = format!("{what} : '{name}' : missing value");
                    return Err(Complaint::about(word, text));
                };
                value = &word.text;
            }
            (parameter.set)(parser.environment, &mut settings, name, value)
                .map_err(|text| Complaint::about(word, format!("{what} : {text}")))?;
        } else if let Some((values, verdict)) = refused::bind_parameter(name) {
            args.by_ref().take(values).for_each(|_| {});
            parser.refused(call.line, &format!("bind ... {name}"), verdict);
        } else {
            let near = did_you_mean(closest(name, PARAMETERS.iter().map(|p| p.help.name)));
            return Err(Complaint::about(
                word,
                format!("{what} : unknown keyword '{name}'{near}"),
            ));
        }
    }
    let place = call.line.place.clone();
    parser.current.binds.push(BindDraft {
        place,
        endpoints,
        settings,
    });
    Ok(())
}

fn add_endpoints(
    parser: &Parser<'_>,
    text: &str,
    endpoints: &mut Vec<Endpoint>,
) -> Result<(), String> {
    let missing = || format!("missing port specification in '{text}'");
    let (host, low, high) = match Written::parse(text)? {
        Written::Unix(path) => {
            endpoints.push(Endpoint::Address(Address::Unix(path)));
            return Ok(());
        }
        Written::Descriptor(number) => {
            endpoints.push(Endpoint::Descriptor(number));
            return Ok(());
        }
        Written::Ip(_, Port::None) => return Err(missing()),
        Written::Ip(_, Port::Relative) => {
            return Err(format!("invalid port in '{text}'"));
        }
        Written::Ip(host, Port::One(port)) => (host, port, port),
        Written::Ip(host, Port::Range(low, high)) => (host, low, high),
    };
    if low == 0 {
        return Err("invalid port '0'".to_owned());
    }
    let ip = match &host {
        Host::Name(..) => host
            .resolve(parser.environment)
            .map_err(|cause| format!("invalid address: {cause} in '{text}'"))?,
        Host::Any(_) | Host::Address(_) => host.resolve(parser.environment)?,
    };
    let all = (low..=high).take(LISTENERS_PER_LINE_MAX + 1);
    endpoints.extend(all.map(|port| Endpoint::Address(Address::Ip((ip, port).into()))));
    Ok(())
}

fn set_owner(
    environment: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    owner(environment, &mut bind.owner, name, value)
}

/// `mode`, `user`, `uid`, `group`, `gid` of a Unix socket.
pub(super) fn owner(
    environment: &dyn Environment,
    owner: &mut Owner,
    name: &str,
    value: &str,
) -> Result<(), String> {
    match name {
        "mode" => {
            let mode = u32::from_str_radix(value, 8).ok();
            let mode = mode.filter(|mode| *mode <= 0o7777 && !value.starts_with('+'));
            let fault =
                || format!("'mode' : missing or invalid mode '{value}' (octal integer expected)");
            owner.mode = Some(mode.ok_or_else(fault)?);
        }
        "user" => {
            let id = environment.user_id(value);
            owner.uid = Some(id.ok_or_else(|| format!("'user' : unknown user name '{value}'"))?);
        }
        "group" => {
            let id = environment.group_id(value);
            owner.gid = Some(id.ok_or_else(|| format!("'group' : unknown group name '{value}'"))?);
        }
        "uid" => owner.uid = Some(number(name, value)?),
        _ => owner.gid = Some(number(name, value)?),
    }
    Ok(())
}

/// A plain number as a parameter's value.
pub(super) fn number(name: &str, value: &str) -> Result<u32, String> {
    let number = units::integer(value, i32::MAX as u64).and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| format!("'{name}' : invalid value '{value}', integer expected"))
}

/// The value of `tcp-ut`.
pub(super) fn positive_delay(name: &str, value: &str) -> Result<u32, String> {
    let delay = units::time(value, Unit::Milliseconds)
        .ok()
        .filter(|delay| *delay > 0);
    delay.ok_or_else(|| format!("'{name}' : expects a positive delay in milliseconds"))
}
