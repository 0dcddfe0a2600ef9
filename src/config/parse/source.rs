//! `source` of proxies and of servers: where connections to servers come from.

use super::{Call, Complaint, Outcome, Parser};
use crate::base::source::{Foreign, ShortName, Source};
use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;
use crate::config::values::address::{Port, Written};

/// What `usesrc` takes.
const WHOSE: &str = "'usesrc' expects <addr>[:<port>], 'client', or 'clientip' as argument.";

/// `source` of a backend or of `defaults`.
pub(in crate::config) fn source(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let Some(address) = call.args.first() else {
        let text = "'source' expects <addr>[:<port>], and optionally 'usesrc' <addr>, and \
                    'interface' <name>.";
        return Err(text.into());
    };
    let mut rest = call.args[1..].iter();
    let fault = |text: String| Complaint::about(address, text);
    let mut source = parse_address(parser.environment, &address.text).map_err(fault)?;
    if source.ports.is_some_and(|(low, high)| low < high) {
        let text = address.text.as_str();
        return Err(fault(format!(
            "'source {text}' : port range not permitted here in '{text}'"
        )));
    }
    while let Some(word) = rest.next() {
        match word.text.as_str() {
            "interface" => {
                let Some(name) = rest.next() else {
                    let text = "'source' : missing interface name.";
                    return Err(Complaint::about(word, text));
                };
                let named = interface(&name.text).map_err(|text| Complaint::about(name, text))?;
                source.interface = Some(named);
            }
            "usesrc" => {
                let Some(whose) = rest.next() else {
                    return Err(Complaint::about(word, format!("'source' : {WHOSE}")));
                };
                let foreign = foreign(parser.environment, &whose.text)
                    .map_err(|text| Complaint::about(whose, text))?;
                source.foreign = Some(foreign);
            }
            _ => {
                let text = "'source' only supports optional keywords 'interface' and 'usesrc'.";
                return Err(Complaint::about(word, text));
            }
        }
    }
    parser.current.settings.source = Some(source);
    Ok(())
}

/// `source` of a server.
pub(in crate::config) fn server_source(
    environment: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.source = Some(parse_address(environment, value)?);
    Ok(())
}

/// `interface` after the `source` of a server.
pub(in crate::config) fn server_interface(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let Some(source) = &mut server.source else {
        return Err("'interface' belongs to a 'source', which has to stand before it.".to_owned());
    };
    source.interface = Some(interface(value)?);
    Ok(())
}

/// `usesrc` after the `source` of a server.
pub(in crate::config) fn server_usesrc(
    environment: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let Some(source) = &mut server.source else {
        return Err("'usesrc' only allowed after a 'source' statement.".to_owned());
    };
    source.foreign = Some(foreign(environment, value)?);
    Ok(())
}

/// Whose address connections have.
fn foreign(environment: &dyn Environment, text: &str) -> Result<Foreign, String> {
    match text {
        "client" => return Ok(Foreign::Client),
        "clientip" => return Ok(Foreign::ClientIp),
        _ => {}
    }
    if text.starts_with("hdr_ip(") {
        return Err(format!(
            "'usesrc {text}' : there are no headers in 'mode tcp'."
        ));
    }
    let fault = |reason: &str| format!("'usesrc {text}' : {reason}");
    let (host, port) = match Written::parse(text).map_err(|reason| fault(&reason))? {
        Written::Ip(host, port) if !host.is_any() => (host, port),
        _ => return Err(format!("'usesrc {text}' : {WHOSE}")),
    };
    let ip = host.resolve(environment).map_err(|reason| fault(&reason))?;
    let port = match port {
        Port::None => 0,
        Port::One(port) => port,
        Port::Range(..) => {
            return Err(fault(&format!("port range not permitted here in '{text}'")));
        }
        Port::Relative(_) => return Err(fault(&format!("invalid port in '{text}'"))),
    };
    Ok(Foreign::Fixed((ip, port).into()))
}

fn interface(name: &str) -> Result<ShortName, String> {
    ShortName::new(name).ok_or_else(|| format!("'source' : '{name}' is no interface name."))
}

/// The address and the ports. An address of none (`0.0.0.0`, `*`) leaves it to the system.
fn parse_address(environment: &dyn Environment, text: &str) -> Result<Source, String> {
    let fault = |reason: String| format!("'source {text}' : {reason}");
    let (host, port) = match Written::parse(text).map_err(fault)? {
        Written::Ip(host, port) => (host, port),
        Written::Unix(_) | Written::Abstract(_) | Written::Descriptor(_) => {
            return Err(fault(format!("'{text}' is not an IP address")));
        }
    };
    let ip = if host.is_any() {
        None
    } else {
        Some(host.resolve(environment).map_err(fault)?)
    };
    let ports = match port {
        Port::None | Port::One(0) => None,
        Port::One(port) => Some((port, port)),
        Port::Range(low, high) if low > 0 => Some((low, high)),
        Port::Range(..) | Port::Relative(_) => {
            return Err(fault(format!("invalid port in '{text}'")));
        }
    };
    Ok(Source {
        ip,
        ports,
        interface: None,
        foreign: None,
    })
}
