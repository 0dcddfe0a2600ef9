//! The keywords of proxies in `mode udp`, except those of checks.

use super::{Call, Complaint, Outcome, Parser};
use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;
use crate::config::plan::{QuicLb, UdpHeader, UdpSockets};
use crate::config::raw::Prefix;
use crate::config::values::units;

/// Longest connection ID of QUIC versions 1 and 2 (RFC 9000, section 17.2).
const CID_LENGTH_MAX: u64 = 20;

/// The least `tune.udp.rcvbuf`: a datagram of full length with the kernel's accounting of it.
const RECEIVE_BUFFER_MIN: u64 = 128 << 10;

/// The largest: the kernel doubles what it is asked for, in an integer of 31 bits.
const RECEIVE_BUFFER_MAX: u64 = (i32::MAX / 2) as u64;

/// `udp-requests`, `udp-responses`, `udp-source-flows`.
pub(in crate::config) fn count(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let value = units::integer(call.arg(0), i32::MAX as u64);
    let value = value.and_then(|value| u32::try_from(value).ok());
    let Some(value) = value else {
        let (most, got) = (i32::MAX, call.arg(0));
        let text = format!("'{name}' expects a number from 0 to {most} (got '{got}').");
        return Err(call.complain(0, text));
    };
    let udp = &mut parser.current.settings.udp;
    match name {
        "udp-requests" => udp.requests_max = Some(value),
        "udp-responses" => udp.responses_max = Some(value),
        _ => udp.source_flows_max = value,
    }
    Ok(())
}

/// `option udplog` and `option udp-bidirectional`.
pub(in crate::config) fn option(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let on = call.line.prefix == Prefix::Set;
    let udp = &mut parser.current.settings.udp;
    match call.keyword.name {
        "option udplog" => udp.log = on,
        _ => udp.bidirectional = on,
    }
    Ok(())
}

pub(in crate::config) fn fragment(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let on = one_of(call, [("on", true), ("off", false)])?;
    parser.current.settings.udp.fragment = Some(on);
    Ok(())
}

pub(in crate::config) fn header(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let words = [("first", UdpHeader::First), ("every", UdpHeader::Every)];
    parser.current.settings.udp.header = one_of(call, words)?;
    Ok(())
}

pub(in crate::config) fn sockets(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let words = [
        ("pool", UdpSockets::Pool),
        ("dedicated", UdpSockets::Dedicated),
    ];
    parser.current.settings.udp.sockets = one_of(call, words)?;
    Ok(())
}

/// An argument that is one of two words.
fn one_of<T: Copy>(call: &Call<'_>, words: [(&str, T); 2]) -> Result<T, Complaint> {
    let got = call.arg(0);
    let found = words.iter().find(|(word, _)| *word == got);
    found.map(|(_, value)| *value).ok_or_else(|| {
        let (name, [(first, _), (second, _)]) = (call.keyword.name, words);
        let text = format!("'{name}' only supports '{first}' and '{second}' (got '{got}').");
        call.complain(0, text)
    })
}

/// `quic-lb <offset>,<length>`
pub(in crate::config) fn quic_lb(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let place = call.arg(0).split_once(',').and_then(|(offset, length)| {
        let number = |text: &str| u8::try_from(units::integer(text, CID_LENGTH_MAX)?).ok();
        let (offset, length) = (number(offset)?, number(length)?);
        let fits = usize::from(offset) + usize::from(length) <= QuicLb::END_MAX;
        (length > 0 && fits).then_some(QuicLb { offset, length })
    });
    let Some(place) = place else {
        let (most, got) = (QuicLb::END_MAX, call.arg(0));
        let text = format!(
            "'quic-lb' expects <offset>,<length> of at least one byte within the first {most} (got \
             '{got}')."
        );
        return Err(call.complain(0, text));
    };
    parser.current.settings.udp.quic_lb = Some(place);
    Ok(())
}

/// `quic-cid-length`
pub(in crate::config) fn cid_length(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let length = units::integer(call.arg(0), CID_LENGTH_MAX);
    let Some(length) = length.and_then(|length| u8::try_from(length).ok()) else {
        let got = call.arg(0);
        let text =
            format!("'quic-cid-length' expects a number from 0 to {CID_LENGTH_MAX} (got '{got}').");
        return Err(call.complain(0, text));
    };
    parser.current.settings.udp.cid_length = Some(length);
    Ok(())
}

/// `tune.udp.maxflows` and `tune.udp.sockets`.
pub(in crate::config) fn most(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let number = units::integer(call.arg(0), i32::MAX as u64).filter(|number| *number > 0);
    let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
        let text = format!("'{name}' expects a number greater than 0.");
        return Err(call.complain(0, text));
    };
    let global = &mut parser.draft.global;
    match name {
        "tune.udp.maxflows" => global.udp_flows_max = Some(number),
        _ => global.udp_sockets_max = Some(number),
    }
    Ok(())
}

/// `tune.udp.rcvbuf`
pub(in crate::config) fn receive_buffer(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let size = units::size(call.arg(0)).ok();
    let within = |size: &u64| (RECEIVE_BUFFER_MIN..=RECEIVE_BUFFER_MAX).contains(size);
    let Some(size) = size
        .filter(within)
        .and_then(|size| u32::try_from(size).ok())
    else {
        let text = format!(
            "'tune.udp.rcvbuf' expects a size in bytes from {RECEIVE_BUFFER_MIN} to \
             {RECEIVE_BUFFER_MAX} (got '{}').",
            call.arg(0)
        );
        return Err(call.complain(0, text));
    };
    parser.draft.global.udp_rcvbuf = size;
    Ok(())
}

/// `quic-id` of a server.
pub(in crate::config) fn quic_id(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let bytes = super::tcp_check::binary(value).map_err(|fault| format!("'quic-id' : {fault}"))?;
    if bytes.is_empty() || bytes.len() > QuicLb::END_MAX {
        let most = QuicLb::END_MAX;
        return Err(format!(
            "'quic-id' expects 1 to {most} bytes in hexadecimal digits."
        ));
    }
    server.quic_id = bytes;
    Ok(())
}
