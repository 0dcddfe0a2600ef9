//! `bind` lines: the addresses and the parameters of listeners.

use super::address::{Host, Port, Written};
use super::draft::{BindDraft, BindSettings, Owner};
use super::environment::Environment;
use super::keywords::BIND;
use super::parse_parameters;
use super::parser::{Call, Complaint, Outcome, Parser};
use super::plan::Endpoint;
use super::units::{self, Unit};
use crate::base::address::Address;

/// Listeners that one `bind` line may make by a range of ports.
const LISTENERS_PER_LINE_MAX: usize = 4096;

/// Listeners of a process: their ids have 16 bits.
const LISTENERS_MAX: usize = u16::MAX as usize;

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
    parser.listeners_count += endpoints.len();
    if parser.listeners_count > LISTENERS_MAX {
        return Err(fault(format!("more than {LISTENERS_MAX} listeners")));
    }
    let section = parser.kind.name();
    let what = format!("'bind {}' in section '{section}'", addresses.text);
    let mut settings = BindSettings::default();
    let owner = parse_parameters::Owner {
        keyword: "bind",
        what: &what,
        missing: |name, _| format!("'{name}' : missing value"),
    };
    let words = &call.args[1..];
    parse_parameters::read(parser, call, &owner, BIND, words, &mut settings)?;
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

/// `mode`, `user`, `uid`, `group`, `gid` of a listener.
pub(super) fn set_owner(
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
