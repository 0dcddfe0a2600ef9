//! `bind` lines: the addresses and the parameters of listeners.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::global::overflow;
use super::parameters;
use super::{Call, Complaint, Outcome, Parser};
use crate::base::address::Address;
use crate::config::draft::{BindDraft, BindSettings, Mode, Owner};
use crate::config::environment::Environment;
use crate::config::keywords::BIND;
use crate::config::plan::Endpoint;
use crate::config::raw::token::Word;
use crate::config::values::address::{Host, Port, Written};
use crate::config::values::units::{self, Unit, UnitFault};

/// Listeners that one `bind` line may make by a range of ports.
const LISTENERS_PER_LINE_MAX: usize = 4096;
/// Longest path of a listener: `sun_path` is 108 bytes, and a name with a process number and NUL
/// is bound before it gets its own.
const BOUND_PATH_MAX: usize = 108 - ".4194304.tmp".len() - 1;
/// Names of interfaces (IFNAMSIZ) and of congestion control algorithms (TCP_CA_NAME_MAX) are of 16
/// bytes with their final NUL.
const KERNEL_NAME_MAX: usize = 15;
/// Bound of `nice`, both ways.
const NICE_MAX: i16 = 1024;

/// Parameters that mean nothing to a socket of datagrams, with what may be meant, where that is
/// clear.
const STREAMS_ONLY: &[(&str, &str)] = &[
    ("backlog", "'tune.udp.rcvbuf' is how much may wait"),
    ("cc", ""),
    ("defer-accept", ""),
    ("gid", ""),
    ("group", ""),
    ("maxconn", "'maxconn' of the proxy bounds its flows"),
    ("mode", ""),
    ("mss", ""),
    ("nice", ""),
    ("tcp-ut", ""),
    ("tfo", ""),
    ("uid", ""),
    ("user", ""),
];

/// Listeners of a process: their ids have 16 bits.
const LISTENERS_MAX: usize = u16::MAX as usize;

pub(in crate::config) fn bind(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
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
    let mut settings = BindSettings {
        owner: parser.draft.unix_bind.owner,
        ..BindSettings::default()
    };
    let owner = parameters::Owner {
        keyword: "bind",
        what: &what,
        missing: |name, _| format!("'{name}' : missing value"),
    };
    let words = &call.args[1..];
    if parser.mode == Mode::Udp {
        of_datagrams(words, &what)?;
    }
    parameters::read(parser, call, &owner, BIND, words, &mut settings)?;
    if settings.socket_id.is_some() && endpoints.len() > 1 {
        let text = format!("{what} : 'id' can only be used with a single socket");
        return Err(Complaint::about(addresses, text));
    }
    let place = call.line.place.clone();
    parser.current.binds.push(BindDraft {
        place,
        addresses: addresses.text.clone(),
        endpoints,
        settings,
    });
    Ok(())
}

/// Refuses parameters that mean nothing in `mode udp`.
fn of_datagrams(words: &[Word], what: &str) -> Outcome {
    let of_streams = |word: &Word| {
        let only = STREAMS_ONLY.iter().find(|(only, _)| *only == word.text);
        only.map(|(_, instead)| *instead)
    };
    let mut names = parameters::names(BIND, words);
    names.try_for_each(|word| match of_streams(word) {
        None => Ok(()),
        Some(instead) => {
            let (name, colon) = (&word.text, if instead.is_empty() { "" } else { ": " });
            let text = format!("{what} : '{name}' means nothing in 'mode udp'{colon}{instead}.");
            Err(Complaint::about(word, text))
        }
    })
}

fn add_endpoints(
    parser: &Parser<'_>,
    text: &str,
    endpoints: &mut Vec<Endpoint>,
) -> Result<(), String> {
    let missing = || format!("missing port specification in '{text}'");
    let (host, low, high) = match Written::parse_for(text, parser.mode)? {
        Written::Unix(path) => {
            let path = unix_path(parser, &path)?;
            endpoints.push(Endpoint::Address(Address::Unix(path)));
            return Ok(());
        }
        Written::Abstract(name) => {
            endpoints.push(Endpoint::Address(Address::Abstract(name)));
            return Ok(());
        }
        Written::Descriptor(number) => {
            endpoints.push(Endpoint::Descriptor(number));
            return Ok(());
        }
        Written::Ip(_, Port::None) => return Err(missing()),
        Written::Ip(_, Port::Relative(_)) => {
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
    endpoints.extend(all.map(|port| match parser.mode {
        Mode::Udp => Endpoint::Datagram((ip, port).into()),
        Mode::Tcp | Mode::Http => Endpoint::Address(Address::Ip((ip, port).into())),
    }));
    Ok(())
}

/// The path with the prefix of `unix-bind`. It is bound under a longer name first.
fn unix_path(parser: &Parser<'_>, path: &Path) -> Result<PathBuf, String> {
    let mut whole = OsString::from(&parser.draft.unix_bind.prefix);
    whole.push(path);
    if whole.len() > BOUND_PATH_MAX {
        let path = whole.to_string_lossy();
        return Err(format!(
            "socket path '{path}' too long (max {BOUND_PATH_MAX})"
        ));
    }
    Ok(PathBuf::from(whole))
}

/// `unix-bind`: defaults of the Unix sockets on later `bind` lines.
pub(in crate::config) fn unix_bind(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let mut words = call.args.iter();
    while let Some(word) = words.next() {
        let name = word.text.as_str();
        if !matches!(name, "prefix" | "mode" | "user" | "uid" | "group" | "gid") {
            let text = "'unix-bind' only supports the 'prefix', 'mode', 'uid', 'gid', 'user' and \
                        'group' options.";
            return Err(Complaint::about(word, text));
        }
        let Some(value) = words.next() else {
            let text = format!("'unix-bind' : '{name}' : missing value");
            return Err(Complaint::about(word, text));
        };
        let unix_bind = &mut parser.draft.unix_bind;
        if name == "prefix" {
            unix_bind.prefix.clone_from(&value.text);
        } else {
            owner(parser.environment, &mut unix_bind.owner, name, &value.text)
                .map_err(|text| Complaint::about(value, format!("'unix-bind' : {text}")))?;
        }
    }
    Ok(())
}

/// `id`: the number of a socket in its frontend.
pub(in crate::config) fn set_id(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let number: Option<i64> = value.parse().ok();
    let Some(number) = number else {
        return Err(format!(
            "'{name}' : expects an integer argument, found '{value}'"
        ));
    };
    if number <= 0 {
        return Err(format!("'{name}' : custom id has to be > 0"));
    }
    let id = u32::try_from(number).ok();
    let id = id.filter(|id| *id <= i32::MAX.unsigned_abs());
    bind.socket_id = Some(id.ok_or_else(|| format!("'{name}' : custom id {value} is too large"))?);
    Ok(())
}

/// `mss`.
pub(in crate::config) fn set_mss(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let number: Option<i32> = value.parse().ok();
    match number {
        Some(mss @ 1..=65_535) => bind.mss = u16::try_from(mss).unwrap_or(u16::MAX),
        Some(-65_535..=-1) => {
            return Err(format!(
                "'{name}' : a negative value, which counts from each connection's own, is not \
                 implemented yet"
            ));
        }
        _ => {
            return Err(format!(
                "'{name}' : expects an MSS with an absolute value between 1 and 65535"
            ));
        }
    }
    Ok(())
}

/// `nice`.
pub(in crate::config) fn set_nice(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let nice: Option<i16> = value.parse().ok();
    let nice = nice.filter(|nice| (-NICE_MAX..=NICE_MAX).contains(nice));
    bind.nice = nice.ok_or_else(|| {
        format!("'{name}' : invalid value {value}, allowed range is -{NICE_MAX}..{NICE_MAX}")
    })?;
    Ok(())
}

/// `interface`.
pub(in crate::config) fn set_interface(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    bind.interface = Some(short_name(name, value)?);
    Ok(())
}

/// `cc`.
pub(in crate::config) fn set_congestion(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    bind.congestion = Some(short_name(name, value)?);
    Ok(())
}

/// A name that the kernel knows something by.
fn short_name(name: &str, value: &str) -> Result<String, String> {
    if value.is_empty() || value.len() > KERNEL_NAME_MAX {
        return Err(format!(
            "'{name}' : '{value}' is no name of 1 to {KERNEL_NAME_MAX} bytes"
        ));
    }
    Ok(value.to_owned())
}

/// `mode`, `user`, `uid`, `group`, `gid` of a listener.
pub(in crate::config) fn set_owner(
    environment: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    owner(environment, &mut bind.owner, name, value)
}

/// `mode`, `user`, `uid`, `group`, `gid` of a Unix socket.
pub(in crate::config) fn owner(
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
pub(in crate::config) fn number(name: &str, value: &str) -> Result<u32, String> {
    let number = units::integer(value, i32::MAX as u64).and_then(|n| u32::try_from(n).ok());
    number.ok_or_else(|| format!("'{name}' : invalid value '{value}', integer expected"))
}

/// The value of `tcp-ut`.
pub(in crate::config) fn positive_delay(name: &str, value: &str) -> Result<u32, String> {
    match units::time(value, Unit::Milliseconds) {
        Ok(delay) if delay > 0 => Ok(delay),
        Err(UnitFault::Overflow) => Err(overflow(name, value, Unit::Milliseconds)),
        _ => Err(format!(
            "'{name}' : expects a positive delay in milliseconds"
        )),
    }
}
