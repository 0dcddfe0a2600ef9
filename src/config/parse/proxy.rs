//! The keywords of proxies, except `bind`, `server` and `log`.

use super::balance::needed;
use super::global::{overflow, time_argument};
use super::{Call, Complaint, Outcome, Parser};
use crate::base::rate::RATE_MAX;
use crate::config::diagnostics::Severity;
use crate::config::draft::Mode;
use crate::config::plan::KeepAlive;
use crate::config::raw::{Prefix, SectionKind};
use crate::config::values::guid;
use crate::config::values::units::{self, Unit, UnitFault};

pub(in crate::config) fn mode(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let word = call.arg(0);
    parser.current.settings.mode = match Mode::named(word) {
        Some(mode) => mode,
        None if matches!(word, "log" | "spop" | "health" | "haterm") => {
            return Err(call.complain(0, format!("'mode {word}' is not supported.")));
        }
        None => return Err(call.complain(0, format!("unknown proxy mode '{word}'."))),
    };
    Ok(())
}

pub(in crate::config) fn disabled(parser: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    parser.current.settings.disabled = true;
    Ok(())
}

pub(in crate::config) fn enabled(parser: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    parser.current.settings.disabled = false;
    Ok(())
}

pub(in crate::config) fn id(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let number = units::integer(call.arg(0), i32::MAX as u64).and_then(|n| u32::try_from(n).ok());
    let Some(number) = number.filter(|number| *number > 0) else {
        return Err(call.complain(0, "'id' expects a number greater than 0."));
    };
    parser.current.id = Some((number, call.line.place.clone()));
    Ok(())
}

pub(in crate::config) fn description(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'description' expects a text.".into());
    }
    let words: Vec<&str> = call.args.iter().map(|word| word.text.as_str()).collect();
    parser.current.description = words.join(" ");
    Ok(())
}

/// `guid` of a proxy.
pub(in crate::config) fn guid(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let fault = |text| call.complain(0, text);
    let identity = guid::parse(call.arg(0)).map_err(fault)?;
    parser.current.guid = Some((identity, call.line.place.clone()));
    Ok(())
}

pub(in crate::config) fn maxconn(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let value = count(call)?;
    match parser.kind {
        SectionKind::Global => parser.draft.global.maxconn = Some(value).filter(|n| *n > 0),
        SectionKind::Backend => {
            let text = format!(
                "'maxconn' ignored because backend '{}' has no frontend capability. Maybe you want \
                 'maxconn' on its servers instead ?",
                parser.current.name
            );
            parser
                .report
                .warning(&call.line.place, call.line.words.first(), text);
        }
        SectionKind::Defaults | SectionKind::Frontend | SectionKind::Listen => {
            parser.current.settings.maxconn = Some(value);
        }
    }
    Ok(())
}

pub(in crate::config) fn backlog(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.current.settings.backlog = Some(count(call)?);
    Ok(())
}

pub(in crate::config) fn fullconn(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.current.settings.fullconn = count(call)?;
    Ok(())
}

/// An argument that counts something, up to what the kernel's integers hold.
fn count(call: &Call<'_>) -> Result<u32, Complaint> {
    let value = units::integer(call.arg(0), i32::MAX as u64);
    value
        .and_then(|value| u32::try_from(value).ok())
        .ok_or_else(|| {
            call.complain(
                0,
                format!("'{}' expects an integer argument.", call.keyword.name),
            )
        })
}

/// `rate-limit sessions`.
pub(in crate::config) fn rate_limit(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.arg(0) != "sessions" {
        let text = format!(
            "'rate-limit' only supports 'sessions' (got '{}')",
            call.arg(0)
        );
        return Err(call.complain(0, text));
    }
    if call.args.len() < 2 {
        let text = "'rate-limit sessions' expects an integer value (in sessions/second)";
        return Err(text.into());
    }
    let rate = units::integer(call.arg(1), u64::from(RATE_MAX));
    let Some(rate) = rate.and_then(|rate| u32::try_from(rate).ok()) else {
        let got = call.arg(1);
        let text = format!("'rate-limit sessions' : '{got}' is not within 0 and {RATE_MAX}");
        return Err(call.complain(1, text));
    };
    parser.current.settings.session_rate = rate;
    Ok(())
}

pub(in crate::config) fn retries(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let value = units::integer(call.arg(0), u64::from(u16::MAX));
    let Some(value) = value.and_then(|value| u16::try_from(value).ok()) else {
        let text = "'retries' expects an integer argument (dispatch counts for one).";
        return Err(call.complain(0, text));
    };
    parser.current.settings.retries = Some(value);
    Ok(())
}

pub(in crate::config) fn default_backend(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'default_backend' expects a backend name.".into());
    }
    let place = call.line.place.clone();
    parser.current.settings.default_backend = Some((call.arg(0).to_owned(), place));
    Ok(())
}

/// Without a condition it takes every connection that no rule before it has taken.
pub(in crate::config) fn use_backend(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let needed = |what: &str| needed(&format!("'use_backend' with {what}"));
    match call.arg(0) {
        "" | "if" | "unless" => return Err("'use_backend' expects a backend name.".into()),
        name if name.contains("%[") => return Err(needed("a name that is made up").into()),
        _ => {}
    }
    match call.arg(1) {
        "" => {}
        "if" | "unless" => return Err(call.complain(1, needed("a condition"))),
        other => {
            let text =
                format!("'use_backend' expects 'if' or 'unless' after the name, not '{other}'.");
            return Err(call.complain(1, text));
        }
    }
    let place = call.line.place.clone();
    let rule = (call.arg(0).to_owned(), place);
    parser.current.settings.use_backend.get_or_insert(rule);
    Ok(())
}

pub(in crate::config) fn timeout(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    if call.args.is_empty() {
        return Err(format!("'{name}' expects an integer value (in milliseconds)").into());
    }
    let text = call.arg(0);
    let value = units::time(text, Unit::Milliseconds).map_err(|fault| {
        let text = match fault {
            UnitFault::Character(_) => format!("{fault} in '{name}'"),
            UnitFault::Overflow => overflow(name, text, Unit::Milliseconds),
        };
        call.complain(0, text)
    })?;
    if value == 0 && name.starts_with("timeout udp") {
        // Nothing but time ends a flow.
        return Err(call.complain(0, format!("'{name}' must be greater than 0.")));
    }
    let timeouts = &mut parser.current.settings.timeouts;
    let slot = match name {
        "timeout client" => &mut timeouts.client,
        "timeout client-fin" => &mut timeouts.client_fin,
        "timeout client-hs" => &mut timeouts.client_hs,
        "timeout connect" => &mut timeouts.connect,
        "timeout server" => &mut timeouts.server,
        "timeout server-fin" => &mut timeouts.server_fin,
        "timeout queue" => &mut timeouts.queue,
        "timeout tunnel" => &mut timeouts.tunnel,
        "timeout udp" => &mut timeouts.udp,
        "timeout udp-unconfirmed" => &mut timeouts.udp_unconfirmed,
        "timeout udp-mapping" => &mut timeouts.udp_mapping,
        "timeout http-request" => &mut timeouts.http_request,
        "timeout http-keep-alive" => &mut timeouts.http_keep_alive,
        _ => &mut timeouts.check,
    };
    *slot = Some(value);
    Ok(())
}

/// `option`, `no option` and `default option`: all options are off by default.
pub(in crate::config) fn option(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let on = call.line.prefix == Prefix::Set;
    let settings = &mut parser.current.settings;
    match call.keyword.name {
        "option tcplog" => {
            settings.tcplog = on;
            // The last one that says what a line looks like wins.
            if on {
                settings.lines.line = None;
            }
            if call.arg(0) == "clf" {
                let text = "'option tcplog clf' : the form 'clf' is not implemented in Tidegate \
                            yet: lines have the usual form.";
                parser
                    .report
                    .warning(&call.line.place, call.args.first(), text);
            } else if let Some(word) = call.args.first() {
                let text = format!(
                    "'option tcplog' cannot handle unexpected argument '{}'.",
                    word.text
                );
                return Err(Complaint::about(word, text));
            }
        }
        "option dontlognull" => settings.dontlognull = on,
        "option socket-stats" => settings.socket_stats = on,
        "option dontlog-normal" => settings.dontlog_normal = on,
        "option log-separate-errors" => settings.log_separate_errors = on,
        "option log-health-checks" => settings.log_health_checks = on,
        "option allbackups" => settings.allbackups = on,
        "option tcpka" => settings.keepalive_both = on,
        "option clitcpka" => settings.keepalive_client = on,
        "option tcp-smart-accept" => settings.smart_accept = on,
        "option srvtcpka" => settings.keepalive_server = on,
        "option abortonclose" => settings.abortonclose = on,
        "option independent-streams" => settings.independent_streams = on,
        "option nolinger" => settings.nolinger = on,
        "option tcp-smart-connect" => settings.smart_connect = on,
        "option splice-auto" => settings.splice.auto = on,
        "option splice-request" => settings.splice.request = on,
        "option splice-response" => settings.splice.response = on,
        _ => {
            let interval = redispatch_interval(call)?;
            // An interval of 0 is HAProxy's other way to switch it off.
            settings.redispatch = Some(interval).filter(|interval| on && *interval != 0);
        }
    }
    Ok(())
}

/// The lines of HTTP requests become those of sessions.
pub(in crate::config) fn http_log(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    if !matches!(call.arg(0), "" | "clf") {
        let text = format!("'{name}' only supports 'clf' (got '{}')", call.arg(0));
        return Err(call.complain(0, text));
    }
    let on = call.line.prefix == Prefix::Set;
    parser.current.settings.http_log = on;
    if on {
        parser.current.settings.lines.line = None;
        let text = format!("'{name}' needs 'mode http'; falling back to 'option tcplog'.");
        let word = call.line.words.first();
        parser
            .report
            .about(Severity::Notice, &call.line.place, word, text);
    }
    Ok(())
}

/// -1, the default, is the last retry; N every Nth one.
fn redispatch_interval(call: &Call<'_>) -> Result<i16, Complaint> {
    let Some(word) = call.args.first() else {
        return Ok(-1);
    };
    word.text.parse().map_err(|_| {
        let text = "'option redispatch' expects an integer as its interval.";
        Complaint::about(word, text)
    })
}

pub(in crate::config) fn keepalive_value(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let (side, what) = name.split_once('-').unwrap_or((name, ""));
    let value = if what == "cnt" {
        let value = units::integer(call.arg(0), i32::MAX as u64);
        let Some(value) = value.and_then(|value| u32::try_from(value).ok()) else {
            return Err(call.complain(0, format!("'{name}' expects an integer value")));
        };
        value
    } else {
        if call.args.is_empty() {
            return Err(format!("'{name}' expects an integer value (in seconds)").into());
        }
        time_argument(call, Unit::Seconds)?
    };
    let settings = &mut parser.current.settings;
    let values: &mut KeepAlive = match side {
        "clitcpka" => &mut settings.keepalive_client_values,
        _ => &mut settings.keepalive_server_values,
    };
    let slot = match what {
        "cnt" => &mut values.count,
        "idle" => &mut values.idle_s,
        _ => &mut values.interval_s,
    };
    // 0 leaves the kernel's own value.
    *slot = Some(value).filter(|value| *value > 0);
    Ok(())
}
