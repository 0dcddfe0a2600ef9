//! `tune.source-ports`: who chooses the ports of connections to servers, and which.

use super::{Call, Outcome, Parser};
use crate::config::plan::{PortChoice, SourcePorts};
use crate::config::values::units;

/// The lowest port that connections may be given: those below are meant for servers.
const PORT_MIN: u16 = 1024;

pub(in crate::config) fn source_ports(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let choice = match call.arg(0) {
        "auto" => PortChoice::Auto,
        "always" => PortChoice::Always,
        "off" => PortChoice::Off,
        other => {
            let text = format!(
                "'tune.source-ports' only supports 'auto', 'always' and 'off' (got '{other}')"
            );
            return Err(call.complain(0, text));
        }
    };
    let written = call.args.get(1);
    let range = written.and_then(|word| range(&word.text));
    if range.is_none() && written.is_some() {
        let text = format!(
            "'tune.source-ports' expects ports as <low>-<high>, from {PORT_MIN} on (got '{}').",
            call.arg(1)
        );
        return Err(call.complain(1, text));
    }
    let ports = SourcePorts {
        choice,
        range,
        system: parser.environment.local_ports(),
    };
    let place = &call.line.place;
    if choice == PortChoice::Always && ports.is_empty() {
        let text = "'tune.source-ports' : all of these ports are reserved by the system.";
        return Err(call.complain(1, text));
    }
    if choice != PortChoice::Off && ports.takes_all() {
        let text = "'tune.source-ports' leaves no port that the system could choose for other \
                    programs.";
        parser.report.warning(place, written, text);
    }
    parser.draft.global.source_ports = ports;
    Ok(())
}

/// Ports as `<low>-<high>`.
fn range(text: &str) -> Option<(u16, u16)> {
    let (low, high) = text.split_once('-')?;
    let port = |text| u16::try_from(units::integer(text, u64::from(u16::MAX))?).ok();
    let (low, high) = (port(low)?, port(high)?);
    (PORT_MIN <= low && low <= high).then_some((low, high))
}
