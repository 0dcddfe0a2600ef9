//! `server` and `default-server` lines.

use super::address::{Port, Written};
use super::draft::{ServerDraft, ServerSettings};
use super::environment::Environment;
use super::keywords::SERVER;
use super::parse_parameters;
use super::parser::{Call, Complaint, Outcome, Parser, name_fault};
use super::token::Word;
use super::units::{self, Unit, UnitFault};
use crate::base::address::Address;

/// The largest `weight`, HAProxy's.
const WEIGHT_MAX: u64 = 256;

pub(super) fn server(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
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
    let what = format!("'server {}/{}'", parser.current.name, name.text);
    let resolved = connect_address(parser.environment, &address.text)
        .map_err(|text| Complaint::about(address, format!("{what} : {text}")));
    let settings = parser.current.settings.server.clone();
    let settings = read_parameters(parser, call, parameters, settings, &what);
    let (resolved, settings) = match (resolved, settings) {
        (Ok(resolved), Ok(settings)) => (resolved, settings),
        (Err(complaint), Ok(_)) | (Ok(_), Err(complaint)) => return Err(complaint),
        (Err(first), Err(second)) => {
            parser
                .report
                .alert(&call.line.place, first.word.as_ref(), first.text);
            return Err(second);
        }
    };
    parser.current.servers.push(ServerDraft {
        place: call.line.place.clone(),
        name: name.text.clone(),
        address: resolved,
        address_text: address.text.clone(),
        settings,
    });
    Ok(())
}

pub(super) fn default_server(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'default-server' expects a list of settings.".into());
    }
    let settings = parser.current.settings.server.clone();
    let settings = read_parameters(parser, call, call.args, settings, "'default-server'")?;
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
    let owner = parse_parameters::Owner {
        keyword: "server",
        what,
        missing: |name, syntax| format!("'{name}' expects {syntax} as argument."),
    };
    parse_parameters::read(parser, call, &owner, SERVER, words, &mut settings)?;
    Ok(settings)
}

/// Where to connect to.
fn connect_address(environment: &dyn Environment, text: &str) -> Result<Address, String> {
    let (host, port) = match Written::parse(text)? {
        Written::Unix(path) => return Ok(Address::Unix(path)),
        Written::Abstract(name) => return Ok(Address::Abstract(name)),
        Written::Descriptor(_) => {
            return Err(format!("a server can't be a descriptor ('{text}')."));
        }
        Written::Ip(host, port) => (host, port),
    };
    let port = match port {
        Port::One(port) if port > 0 => port,
        Port::None | Port::One(_) => {
            return Err(format!(
                "'{text}' has no port; taking the client's port is not implemented yet."
            ));
        }
        Port::Relative => {
            return Err(format!(
                "'{text}': ports relative to the client's are not implemented yet."
            ));
        }
        Port::Range(..) => return Err(format!("port range is not permitted in '{text}'.")),
    };
    if host.is_any() {
        return Err(format!(
            "'{text}': connecting to the client's destination is not implemented yet."
        ));
    }
    let ip = host
        .resolve(environment)
        .map_err(|text| format!("{text}."))?;
    Ok(Address::Ip((ip, port).into()))
}

pub(super) fn check_address(
    environment: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let (host, port) = match Written::parse(value)? {
        Written::Ip(host, port) if !host.is_any() => (host, port),
        _ => {
            return Err(format!(
                "'addr' expects an IP address or a name (got '{value}')."
            ));
        }
    };
    match port {
        Port::None => {}
        Port::One(port) if port > 0 => server.check_port = Some(port),
        Port::One(_) | Port::Range(..) | Port::Relative => {
            return Err(format!("'addr' : invalid port in '{value}'."));
        }
    }
    server.check_address = Some(
        host.resolve(environment)
            .map_err(|t| format!("'addr' : {t}."))?,
    );
    Ok(())
}

pub(super) fn check_port(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let port = units::integer(value, 65_535).filter(|port| *port > 0);
    let port = port.and_then(|port| u16::try_from(port).ok());
    server.check_port = Some(port.ok_or("'port' expects a port number as argument.")?);
    Ok(())
}

pub(super) fn weight(
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

pub(super) fn interval(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let time = units::time(value, Unit::Milliseconds).map_err(|fault| match fault {
        UnitFault::Character(_) => format!("{fault} in '{name}' argument."),
        UnitFault::Overflow => super::parse_global::overflow(name, value, Unit::Milliseconds),
    })?;
    if time == 0 {
        return Err(format!("invalid value 0 for argument '{name}'."));
    }
    match name {
        "fastinter" => server.fast_inter_ms = Some(time),
        "downinter" => server.down_inter_ms = Some(time),
        _ => server.inter_ms = time,
    }
    Ok(())
}

/// `rise` and `fall`.
pub(super) fn positive(name: &str, value: &str) -> Result<u16, String> {
    let value = units::integer(value, u64::from(u16::MAX)).filter(|value| *value > 0);
    let value = value.and_then(|value| u16::try_from(value).ok());
    value.ok_or_else(|| format!("'{name}' has to be > 0."))
}
