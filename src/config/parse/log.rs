//! `log` lines, of the `global` section and of proxies.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{Call, Complaint, Outcome, Parser, log_sample};
use crate::config::draft::LogEntry;
use crate::config::plan::{LogFormat, LogSink, LogTarget};
use crate::config::raw::token::Word;
use crate::config::raw::{Prefix, SectionKind};
use crate::config::values::address::{Port, Written};
use crate::config::values::units;

/// The port of syslog over UDP.
const SYSLOG_PORT: u16 = 514;

/// Targets of a section. Each is a socket of the log thread, and each proxy inherits them.
const TARGETS_MAX: usize = 64;

/// Facilities by their number.
const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "auth2",
    "ftp", "ntp", "audit", "alert", "cron2", "local0", "local1", "local2", "local3", "local4",
    "local5", "local6", "local7",
];

/// Levels by their number.
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warning", "notice", "info", "debug",
];

pub(in crate::config) fn log(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let is_global = parser.kind == SectionKind::Global;
    if call.line.prefix != Prefix::Set {
        if !call.args.is_empty() {
            return Err(call.complain(0, "log : 'no log' does not expect arguments"));
        }
        if is_global {
            parser.draft.global.logs.clear();
        } else {
            parser.current.settings.logs.clear();
        }
        return Ok(());
    }
    let count = if is_global {
        parser.draft.global.logs.len()
    } else {
        parser.current.settings.logs.len()
    };
    if count == TARGETS_MAX {
        return Err(format!("log : more than {TARGETS_MAX} targets").into());
    }
    if let [only] = call.args
        && only.text == "global"
        && !is_global
    {
        parser.current.settings.logs.push(LogEntry::Global);
        return Ok(());
    }
    let target = Arc::new(target(parser, call, is_global)?);
    if is_global {
        parser.draft.global.logs.push(target);
    } else {
        parser.current.settings.logs.push(LogEntry::Target(target));
    }
    Ok(())
}

fn target(parser: &Parser<'_>, call: &Call<'_>, is_global: bool) -> Result<LogTarget, Complaint> {
    let or_global = if is_global { "" } else { " or global" };
    let incomplete = || {
        Complaint::from(format!(
            "log : expects <address> and <facility>{or_global} as arguments"
        ))
    };
    let (Some(address), Some(_)) = (call.args.first(), call.args.get(1)) else {
        return Err(incomplete());
    };
    let mut args = call.args[1..].iter().peekable();
    let mut length_max = 1024;
    let mut format = LogFormat::Rfc3164;
    if args.next_if(|word| word.text == "len").is_some() {
        let word = args.next().ok_or_else(incomplete)?;
        let length = units::integer(&word.text, u64::from(u16::MAX)).filter(|n| *n >= 80);
        let Some(length) = length.and_then(|n| u16::try_from(n).ok()) else {
            let text = format!(
                "log : invalid log length '{}', must be between 80 and 65535",
                word.text
            );
            return Err(Complaint::about(word, text));
        };
        length_max = length;
    }
    if args.next_if(|word| word.text == "format").is_some() {
        format = log_format(args.next().ok_or_else(incomplete)?)?;
    }
    if let Some(word) = args.next_if(|word| word.text == "profile") {
        let text = format!("log : '{}' is not implemented yet", word.text);
        return Err(Complaint::about(word, text));
    }
    let mut sample = None;
    if args.next_if(|word| word.text == "sample").is_some() {
        let word = args
            .next()
            .ok_or_else(|| Complaint::from("log : Missing sample size"))?;
        let fault = |text: String| Complaint::about(word, format!("log : {text}"));
        sample = Some(log_sample::parse(&word.text).map_err(fault)?);
    }
    let word = args.next().ok_or_else(incomplete)?;
    let Some(facility) = position(&FACILITIES, word) else {
        return Err(Complaint::about(
            word,
            format!("log : unknown log facility '{}'", word.text),
        ));
    };
    let mut level = |what: &str, absent: u8| match args.next() {
        None => Ok(absent),
        Some(word) => position(&LEVELS, word).ok_or_else(|| {
            Complaint::about(
                word,
                format!("log : unknown optional {what} '{}'", word.text),
            )
        }),
    };
    let level_max = level("log level", 7)?;
    let level_min = level("minimum log level", 0)?;
    if let Some(word) = args.next() {
        let text = format!("log : cannot handle unexpected argument '{}'", word.text);
        return Err(Complaint::about(word, text));
    }
    let sink = sink(parser, address)?;
    Ok(LogTarget {
        sink,
        length_max,
        format,
        facility,
        level_max,
        level_min,
        sample,
    })
}

fn position(names: &[&str], word: &Word) -> Option<u8> {
    let index = names.iter().position(|name| *name == word.text)?;
    u8::try_from(index).ok()
}

fn log_format(word: &Word) -> Result<LogFormat, Complaint> {
    match word.text.as_str() {
        "rfc3164" => Ok(LogFormat::Rfc3164),
        "local" => Ok(LogFormat::Local),
        "rfc5424" => Ok(LogFormat::Rfc5424),
        "iso" => Ok(LogFormat::Iso),
        "timed" => Ok(LogFormat::Timed),
        "priority" => Ok(LogFormat::Priority),
        "short" => Ok(LogFormat::Short),
        "raw" => Ok(LogFormat::Raw),
        other => Err(Complaint::about(
            word,
            format!("log : unknown log format '{other}'"),
        )),
    }
}

fn sink(parser: &Parser<'_>, word: &Word) -> Result<LogSink, Complaint> {
    let fault = |text: String| Complaint::about(word, format!("log : {text}"));
    let text = match word.text.as_str() {
        "stdout" => return Ok(LogSink::Stdout),
        "stderr" => return Ok(LogSink::Stderr),
        // Datagrams are what logs use anyway, so their prefix changes nothing.
        text => ["udp@", "uxdg@"]
            .iter()
            .find_map(|p| text.strip_prefix(p))
            .unwrap_or(text),
    };
    if text.starts_with("ring@") || text.starts_with("backend@") {
        return Err(fault(format!("target '{text}' is not implemented yet")));
    }
    if text.starts_with("tcp") && text.contains('@') {
        return Err(fault(format!(
            "target '{text}' is not implemented yet, logs go over UDP"
        )));
    }
    match Written::parse(text).map_err(fault)? {
        Written::Unix(path) => Ok(LogSink::UnixDatagram(path)),
        Written::Abstract(_) => Err(fault(format!("'{text}' can't be a log target"))),
        Written::Descriptor(number) => Ok(LogSink::Descriptor(number)),
        Written::Ip(host, Port::None | Port::One(0)) => {
            let ip = host.resolve(parser.environment).map_err(fault)?;
            Ok(LogSink::Udp(SocketAddr::new(ip, SYSLOG_PORT)))
        }
        Written::Ip(host, Port::One(port)) => {
            let ip = host.resolve(parser.environment).map_err(fault)?;
            Ok(LogSink::Udp(SocketAddr::new(ip, port)))
        }
        Written::Ip(_, Port::Range(..) | Port::Relative(_)) => {
            Err(fault(format!("'{text}' needs one port")))
        }
    }
}
