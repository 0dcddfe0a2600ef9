//! `source` of proxies and of servers: where connections to servers come from.

use super::{Call, Complaint, Outcome, Parser};
use crate::base::source::{ShortName, Source};
use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;
use crate::config::values::address::{Port, Written};

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
                let text = "'source' : 'usesrc' is not implemented in Tidegate yet, and without it servers \
                            would see other addresses than the file says.";
                return Err(Complaint::about(word, text));
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
    })
}
