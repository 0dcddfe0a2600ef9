//! The parameters of `server` lines that say how a server's state is found out, and what follows
//! from a change of it.

use crate::base::address::Address;
use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;
use crate::config::plan::InitState;
use crate::config::values::address::{Port, Written};
use crate::config::values::units::{self, Unit, UnitFault};

/// The longest `agent-send`: it has to fit into the first segment of a connection.
const QUESTION_MAX: usize = 1024;

/// `addr`: a host with or without a port, a port alone, or a Unix socket. HAProxy 2.6 reads a port
/// alone and leaves it.
pub(in crate::config) fn check_address(
    environment: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let (host, port) = match Written::parse(value).map_err(|text| format!("'addr' : {text}."))? {
        Written::Ip(host, port) => (host, port),
        Written::Unix(path) => {
            server.check_address = Some(Address::Unix(path));
            return Ok(());
        }
        Written::Abstract(name) => {
            server.check_address = Some(Address::Abstract(name));
            return Ok(());
        }
        Written::Descriptor(_) => {
            return Err(format!("'addr' expects an address (got '{value}')."));
        }
    };
    let port = match port {
        Port::None => None,
        Port::One(port) if port > 0 => Some(port),
        Port::Range(..) => {
            return Err(format!(
                "'addr' : port range not permitted here in '{value}'."
            ));
        }
        Port::One(_) | Port::Relative(_) => {
            return Err(format!("'addr' : invalid port in '{value}'."));
        }
    };
    server.check_address_port = port;
    // Without a host it is the server's own address.
    server.check_address = None;
    if !host.is_any() {
        let ip = host.resolve(environment);
        let ip = ip.map_err(|text| format!("'addr' : {text}."))?;
        server.check_address = Some(Address::Ip((ip, 0).into()));
    }
    Ok(())
}

/// `port` and `agent-port`.
pub(in crate::config) fn port(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let port = units::integer(value, 65_535).filter(|port| *port > 0);
    let port = port.and_then(|port| u16::try_from(port).ok());
    let port = port.ok_or_else(|| format!("'{name}' expects a port number as argument."))?;
    match name {
        "agent-port" => server.agent.port = Some(port),
        _ => server.check_port = Some(port),
    }
    Ok(())
}

/// A server's time in milliseconds that can't be none.
pub(super) fn time_above_zero(name: &str, value: &str) -> Result<u32, String> {
    let time = units::time(value, Unit::Milliseconds).map_err(|fault| match fault {
        UnitFault::Character(_) => format!("{fault} in '{name}' argument."),
        UnitFault::Overflow => super::global::overflow(name, value, Unit::Milliseconds),
    })?;
    match time {
        0 => Err(format!("invalid value 0 for argument '{name}'.")),
        time => Ok(time),
    }
}

/// `inter`, `fastinter`, `downinter` and `agent-inter`.
pub(in crate::config) fn interval(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let time = time_above_zero(name, value)?;
    match name {
        "fastinter" => server.fast_inter_ms = Some(time),
        "downinter" => server.down_inter_ms = Some(time),
        "agent-inter" => server.agent.inter_ms = Some(time),
        _ => server.inter_ms = time,
    }
    Ok(())
}

/// `rise` and `fall`.
pub(in crate::config) fn positive(name: &str, value: &str) -> Result<u16, String> {
    let value = units::integer(value, u64::from(u16::MAX)).filter(|value| *value > 0);
    let value = value.and_then(|value| u16::try_from(value).ok());
    value.ok_or_else(|| format!("'{name}' has to be > 0."))
}

pub(in crate::config) fn init_state(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.init_state = match value {
        "fully-up" => InitState::FullyUp,
        // `none` undoes an inherited one.
        "up" | "none" => InitState::Up,
        "down" => InitState::Down,
        "fully-down" => InitState::FullyDown,
        _ => {
            return Err(format!(
                "'init-state' expects one of 'none', 'fully-up', 'up', 'down', 'fully-down' but \
                 got '{value}'."
            ));
        }
    };
    Ok(())
}

/// `track [<backend>/]<server>`; whether it exists is seen when all are read.
pub(in crate::config) fn track(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let (backend, name) = match value.split_once('/') {
        Some((backend, name)) => (Some(backend), name),
        None => (None, value),
    };
    if name.is_empty() || backend.is_some_and(str::is_empty) {
        return Err(format!(
            "'track' expects [<proxy>/]<server> as argument (got '{value}')."
        ));
    }
    server.tracks = Some((backend.map(str::to_owned), name.to_owned()));
    Ok(())
}

/// `on-marked-down` and `on-marked-up`.
pub(in crate::config) fn on_marked(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    match (name, value) {
        ("on-marked-down", "shutdown-sessions") => server.ends_sessions = true,
        ("on-marked-up", "shutdown-backup-sessions") => server.ends_backup_sessions = true,
        ("on-marked-down", _) => {
            return Err(format!(
                "'{name}' expects 'shutdown-sessions' but got '{value}'."
            ));
        }
        _ => {
            return Err(format!(
                "'{name}' expects 'shutdown-backup-sessions' but got '{value}'."
            ));
        }
    }
    Ok(())
}

/// `agent-addr`: an address or a name without a port.
pub(in crate::config) fn agent_address(
    environment: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let fault = || format!("parsing agent-addr failed. Check if '{value}' is correct address.");
    let Ok(Written::Ip(host, Port::None)) = Written::parse(value) else {
        return Err(fault());
    };
    if host.is_any() {
        return Err(fault());
    }
    let ip = host.resolve(environment).map_err(|_| fault())?;
    server.agent.address = Some(ip);
    Ok(())
}

pub(in crate::config) fn agent_send(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    if value.len() > QUESTION_MAX {
        return Err(format!("'agent-send' is longer than {QUESTION_MAX} bytes."));
    }
    value.clone_into(&mut server.agent.question);
    Ok(())
}
