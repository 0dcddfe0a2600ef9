//! `server` and `default-server` lines.

use std::borrow::Cow;

use super::parameters;
use super::{Call, Complaint, Outcome, Parser, name_fault};
use crate::base::source::ShortName;
use crate::config::diagnostics::Severity;
use crate::config::draft::{InitAddr, Mode, ServerDraft, ServerSettings};
use crate::config::environment::Environment;
use crate::config::keywords::SERVER;
use crate::config::plan::{ServerKey, ServerOrigin};
use crate::config::raw::SectionKind;
use crate::config::raw::token::Word;
use crate::config::values::address::Family;
use crate::config::values::guid;
use crate::config::values::server_address::{self, Form, Note, default_methods};
use crate::config::values::units;

/// The largest `weight`, HAProxy's.
const WEIGHT_MAX: u64 = 256;

/// Servers of one `server-template`: each costs its counters in every shard.
const TEMPLATE_SERVERS_MAX: u64 = 16_384;

pub(in crate::config) fn server(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let [name, address, parameters @ ..] = call.args else {
        return Err("'server' expects <name> and <addr>[:<port>] as arguments.".into());
    };
    if let Some(c) = name_fault(&name.text) {
        let text = format!(
            "character '{c}' is not permitted in server name '{}'.",
            name.text
        );
        return Err(Complaint::about(name, text));
    }
    let names = vec![name.text.clone()];
    add_servers(parser, call, names, address, parameters)
}

/// `server-template`: servers of one address and one set of parameters, named by a prefix and a
/// number.
pub(in crate::config) fn server_template(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let [prefix, range, address, parameters @ ..] = call.args else {
        let text = "'server-template' expects <prefix> <nb | range> <addr>[:<port>] as arguments.";
        return Err(text.into());
    };
    if let Some(c) = name_fault(&prefix.text) {
        let text = format!(
            "character '{c}' is not permitted in server-template prefix '{}'.",
            prefix.text
        );
        return Err(Complaint::about(prefix, text));
    }
    let Some((low, high)) = template_range(&range.text) else {
        let text = format!(
            "Wrong server-template number or range arg '{}'.",
            range.text
        );
        return Err(Complaint::about(range, text));
    };
    if high - low >= TEMPLATE_SERVERS_MAX {
        let text = format!(
            "'server-template' makes at most {TEMPLATE_SERVERS_MAX} servers (got '{}').",
            range.text
        );
        return Err(Complaint::about(range, text));
    }
    let names = (low..=high).map(|number| format!("{}{number}", prefix.text));
    add_servers(parser, call, names.collect(), address, parameters)
}

/// `<n>` is from 1 to n.
fn template_range(text: &str) -> Option<(u64, u64)> {
    let number = |text: &str| units::integer(text, i32::MAX as u64);
    let (low, high) = match text.split_once('-') {
        Some((low, high)) => (number(low)?, number(high)?),
        None => (1, number(text)?),
    };
    (low <= high).then_some((low, high))
}

/// Adds servers that differ in their names only.
fn add_servers(
    parser: &mut Parser<'_>,
    call: &Call<'_>,
    names: Vec<String>,
    address: &Word,
    parameters: &[Word],
) -> Outcome {
    let first = names.first().map_or("", String::as_str);
    let what = format!("'server {}/{first}'", parser.current.name);
    let fault = |text: String| Complaint::about(address, format!("{what} : {text}"));
    let form = Form::parse(&address.text, parser.mode).map_err(fault);
    let settings = parser.current.settings.server.clone();
    let settings = read_parameters(parser, call, parameters, settings, &what);
    let (form, settings) = match (form, settings) {
        (Ok(form), Ok(settings)) => (form, settings),
        (Err(complaint), Ok(_)) | (Ok(_), Err(complaint)) => return Err(complaint),
        (Err(first), Err(second)) => {
            parser
                .report
                .alert(&call.line.place, first.word.as_ref(), first.text);
            return Err(second);
        }
    };
    if settings.sid.is_some() && names.len() > 1 {
        let text = format!("{what} : 'id' : several servers can't have one id.");
        return Err(Complaint::from(text));
    }
    if settings.guid.is_some() && names.len() > 1 {
        let text = format!("{what} : 'guid' : several servers can't have one identity.");
        return Err(Complaint::from(text));
    }
    let methods = first_address(parser.environment, &settings);
    let (target, note) = form
        .resolve(parser.environment, &methods, settings.family_preferred)
        .map_err(fault)?;
    let (place, word) = (&call.line.place, Some(address));
    match note {
        None => {}
        Some(Note::Fallback(text)) => {
            parser
                .report
                .warning(place, word, format!("{what} : {text}"));
        }
        Some(Note::Disabled(text)) => {
            let text = format!("{what} : {text}");
            parser.report.about(Severity::Notice, place, word, text);
        }
    }
    for name in names {
        parser.current.servers.push(ServerDraft {
            place: call.line.place.clone(),
            name,
            address: target.clone(),
            address_text: address.text.clone(),
            origin: ServerOrigin::Files,
            moved_from: None,
            settings: settings.clone(),
        });
    }
    Ok(())
}

/// Where the first address comes from. A server that waits for its `resolvers` would wait for ever:
/// its name is looked up at the start.
fn first_address<'a>(
    environment: &dyn Environment,
    settings: &'a ServerSettings,
) -> Cow<'a, [InitAddr]> {
    let methods = match settings.init_addr.as_slice() {
        [] => return Cow::Borrowed(default_methods(environment)),
        methods => methods,
    };
    let ends = |method: &InitAddr| matches!(method, InitAddr::Libc | InitAddr::Ip(_));
    if !settings.has_resolvers || methods.iter().any(ends) {
        return Cow::Borrowed(methods);
    }
    Cow::Owned([&[InitAddr::Libc], methods].concat())
}

pub(in crate::config) fn default_server(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'default-server' expects a list of settings.".into());
    }
    let settings = parser.current.settings.server.clone();
    let settings = read_parameters(parser, call, call.args, settings, "'default-server'")?;
    if settings.sid.is_some() {
        return Err("'default-server' : 'id' can't be that of several servers.".into());
    }
    if settings.guid.is_some() {
        return Err("'default-server' : 'guid' can't be that of several servers.".into());
    }
    parser.current.settings.server = settings;
    Ok(())
}

fn read_parameters(
    parser: &mut Parser<'_>,
    call: &Call<'_>,
    words: &[Word],
    mut settings: ServerSettings,
    what: &str,
) -> Result<ServerSettings, Complaint> {
    let owner = parameters::Owner {
        keyword: "server",
        what,
        missing: |name, syntax| format!("'{name}' expects {syntax} as argument."),
    };
    parameters::read(parser, call, &owner, SERVER, words, &mut settings)?;
    for word in parameters::names(SERVER, words) {
        let only = match word.text.as_str() {
            "cc" | "maxqueue" | "tcp-ut" => Mode::Tcp,
            "quic-id" => Mode::Udp,
            _ => continue,
        };
        if parser.kind != SectionKind::Defaults && only != parser.mode {
            let (name, mode) = (&word.text, parser.mode.name());
            let text = format!("{what} : '{name}' has no effect in 'mode {mode}'.");
            parser.report.warning(&call.line.place, Some(word), text);
        }
    }
    settings.has_resolvers |= words.iter().any(|word| word.text == "resolvers");
    Ok(settings)
}

pub(in crate::config) fn weight(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let weight = units::integer(value, WEIGHT_MAX).and_then(|weight| u16::try_from(weight).ok());
    server.weight =
        weight.ok_or_else(|| format!("'weight' is not within 0 and {WEIGHT_MAX} ({value})."))?;
    Ok(())
}

pub(in crate::config) fn id(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let id = units::integer(value, i32::MAX as u64).filter(|id| *id > 0);
    let id = id.and_then(|id| u32::try_from(id).ok());
    server.sid = Some(id.ok_or("'id' : custom id has to be > 0.")?);
    Ok(())
}

pub(in crate::config) fn guid(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.guid = Some(guid::parse(value)?);
    Ok(())
}

pub(in crate::config) fn hash_key(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.hash_key = match value {
        // The same here: a number is hashed as a whole, not spread by what it is.
        "id" | "id32" => ServerKey::Id,
        "addr" => ServerKey::Address,
        "addr-port" => ServerKey::AddressPort,
        "guid" => ServerKey::Guid,
        _ => {
            return Err(format!(
                "'hash-key' only supports 'id', 'id32', 'addr', 'addr-port' and 'guid' (got \
                 '{value}')."
            ));
        }
    };
    Ok(())
}

pub(in crate::config) fn init_addr(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.init_addr = server_address::methods(value)?;
    Ok(())
}

pub(in crate::config) fn resolve_prefer(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.family_preferred = Some(match value {
        "ipv4" => Family::V4,
        "ipv6" => Family::V6,
        _ => return Err("'resolve-prefer' expects either ipv4 or ipv6 as argument.".to_owned()),
    });
    Ok(())
}

pub(in crate::config) fn congestion(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let name = ShortName::new(value);
    server.congestion = Some(name.ok_or_else(|| format!("'cc' : '{value}' is no algorithm."))?);
    Ok(())
}
