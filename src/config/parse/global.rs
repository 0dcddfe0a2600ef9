//! The keywords of the `global` section.

use std::path::PathBuf;

use super::bind;
use super::{Call, Complaint, Outcome, Parser};
use crate::base::address::Address;
use crate::base::rate::RATE_MAX;
use crate::base::receive::{Capability, ReceiveStep};
use crate::config::diagnostics::{Diagnostic, Form, Severity};
use crate::config::draft::Owner;
use crate::config::environment::Environment;
use crate::config::plan::{Endpoint, Level, LogHost, SeverityOutput, StatsSocket};
use crate::config::raw::Prefix;
use crate::config::raw::token::Word;
use crate::config::values::address::{Port, Written};
use crate::config::values::units::{self, Unit, UnitFault};

/// The largest `spread-checks`, HAProxy's: half an interval sooner or later.
const SPREAD_PERCENT_MAX: u64 = 50;

/// The longest `tune.spin-us`: a sleep of a millisecond is not made shorter by looking for its end.
const SPIN_MAX_US: u64 = 1_000;

/// The longest `tune.idletimer`, HAProxy's.
const IDLE_MAX_MS: u32 = 65_535;

/// The largest `tune.pipesize`: what fcntl(2) can be asked for, a power of two.
const PIPE_SIZE_MAX: u32 = 1 << 30;

/// The size of a pipe that nobody has changed, pipe(7): what `tune.pipesize 0` stands for.
const PIPE_SIZE_OF_KERNEL: u32 = 64 << 10;

/// The largest `maxpipes`: as many as there can be descriptors for, two each.
const PIPES_MAX: u32 = i32::MAX as u32 / 2;

/// The largest socket buffer the kernel's integer can hold.
const SOCKET_BUFFER_MAX: u64 = i32::MAX as u64;

pub(in crate::config) fn daemon(parser: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    parser.draft.global.daemon = true;
    Ok(())
}

/// It concerns files that are read while parsing, of which none is named in a configuration yet:
/// like HAProxy, `pidfile` and sockets don't follow it. So there is nothing to keep.
pub(in crate::config) fn default_path(_: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    match (call.arg(0), call.args.get(1)) {
        ("current" | "config" | "parent", None) | ("origin", Some(_)) => Ok(()),
        ("origin", None) => Err("'default-path origin' expects a directory as an argument.".into()),
        (mode @ ("current" | "config" | "parent"), Some(word)) => {
            let text = format!(
                "'default-path {mode}' cannot handle unexpected argument '{}'.",
                word.text
            );
            Err(call.complain(1, text))
        }
        (mode, _) => {
            let text = format!(
                "'default-path' only supports 'current', 'config', 'parent' and 'origin' (got \
                 '{mode}')"
            );
            Err(call.complain(0, text))
        }
    }
}

/// `setenv` and its like are carried out and taken away by the line reader, before a parser sees
/// them; here they only stand in the table.
pub(in crate::config) fn variables(_: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    Ok(())
}

pub(in crate::config) fn hard_stop_after(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'hard-stop-after' expects <time> as argument.".into());
    }
    parser.draft.global.hard_stop_after_ms = Some(time_argument(call, Unit::Milliseconds)?);
    Ok(())
}

pub(in crate::config) fn log_tag(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'log-tag' expects a tag for use in syslog.".into());
    }
    parser.draft.global.log_tag = call.arg(0).to_owned();
    Ok(())
}

pub(in crate::config) fn pidfile(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'pidfile' expects a file name as an argument.".into());
    }
    parser.draft.global.pidfile = Some(PathBuf::from(call.arg(0)));
    Ok(())
}

pub(in crate::config) fn log_send_hostname(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.global.log_host = match call.args.first() {
        None => LogHost::System,
        Some(name) => LogHost::Named(name.text.clone()),
    };
    Ok(())
}

pub(in crate::config) fn spread_checks(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let percent = units::integer(call.arg(0), SPREAD_PERCENT_MAX);
    let Some(percent) = percent.and_then(|percent| u8::try_from(percent).ok()) else {
        let text =
            format!("'spread-checks' needs a positive value in range 0..{SPREAD_PERCENT_MAX}.");
        return Err(call.complain(0, text));
    };
    parser.draft.global.spread_checks_percent = percent;
    Ok(())
}

pub(in crate::config) fn max_spread_checks(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'max-spread-checks' expects a time.".into());
    }
    let value = time_argument(call, Unit::Milliseconds)?;
    // 0 is no bound.
    parser.draft.global.max_spread_checks_ms = Some(value).filter(|ms| *ms > 0);
    Ok(())
}

pub(in crate::config) fn first_checks_wait(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'tune.first-checks-wait' expects a time.".into());
    }
    parser.draft.global.first_checks_wait_ms = time_argument(call, Unit::Milliseconds)?;
    Ok(())
}

pub(in crate::config) fn buffers(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let value = units::size(call.arg(0))
        .ok()
        .filter(|size| *size <= SOCKET_BUFFER_MAX);
    let Some(value) = value.and_then(|size| u32::try_from(size).ok()) else {
        return Err(call.complain(0, format!("'{name}' expects an integer argument.")));
    };
    let global = &mut parser.draft.global;
    let slot = match name {
        "tune.rcvbuf.client" => &mut global.rcvbuf_client,
        "tune.rcvbuf.server" => &mut global.rcvbuf_server,
        "tune.sndbuf.client" => &mut global.sndbuf_client,
        _ => &mut global.sndbuf_server,
    };
    // 0 leaves the size to the kernel, as the absence of the line does.
    *slot = Some(value).filter(|value| *value > 0);
    Ok(())
}

/// `memory-limit` and `tune.memory`.
pub(in crate::config) fn memory(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let size = units::size(call.arg(0)).ok().filter(|size| *size > 0);
    let Some(size) = size else {
        let (name, got) = (call.keyword.name, call.arg(0));
        let text = format!("'{name}' expects a size, like 64m (got '{got}').");
        return Err(call.complain(0, text));
    };
    let global = &mut parser.draft.global;
    let slot = match call.keyword.name {
        "memory-limit" => &mut global.memory_limit,
        _ => &mut global.memory_bytes,
    };
    *slot = Some(size);
    Ok(())
}

/// What the kernel makes of it is known when a pipe is made; the process looks at its bounds.
pub(in crate::config) fn pipe_size(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let size = units::size(call.arg(0)).ok();
    let size = size.filter(|size| *size <= u64::from(PIPE_SIZE_MAX));
    let Some(size) = size.and_then(|size| u32::try_from(size).ok()) else {
        let text = format!("'tune.pipesize' expects a size in bytes, at most {PIPE_SIZE_MAX}.");
        return Err(call.complain(0, text));
    };
    parser.draft.global.pipe_size = match size {
        0 => PIPE_SIZE_OF_KERNEL,
        size => size,
    };
    Ok(())
}

pub(in crate::config) fn maxpipes(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let number = units::integer(call.arg(0), u64::from(PIPES_MAX));
    let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
        let text = format!("'maxpipes' expects an integer argument, at most {PIPES_MAX}.");
        return Err(call.complain(0, text));
    };
    parser.draft.global.maxpipes = Some(number);
    Ok(())
}

pub(in crate::config) fn nosplice(parser: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    parser.draft.global.splice = false;
    Ok(())
}

/// `maxconnrate` and `maxsessrate`.
pub(in crate::config) fn rate(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let name = call.keyword.name;
    let rate = units::integer(call.arg(0), u64::from(RATE_MAX));
    let Some(rate) = rate.and_then(|rate| u32::try_from(rate).ok()) else {
        let text = format!("'{name}' expects an integer argument, at most {RATE_MAX}.");
        return Err(call.complain(0, text));
    };
    let global = &mut parser.draft.global;
    match name {
        "maxconnrate" => global.connection_rate = rate,
        _ => global.session_rate = rate,
    }
    Ok(())
}

pub(in crate::config) fn idle_timer(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let wanted = format!("'tune.idletimer' expects a timer value between 0 and {IDLE_MAX_MS} ms.");
    if call.args.is_empty() {
        return Err(wanted.into());
    }
    let value = time_argument(call, Unit::Milliseconds)?;
    if value > IDLE_MAX_MS {
        return Err(call.complain(0, wanted));
    }
    parser.draft.global.idle_timer_ms = value;
    Ok(())
}

pub(in crate::config) fn busy_polling(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.global.busy_polling = call.line.prefix != Prefix::No;
    Ok(())
}

pub(in crate::config) fn spin(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let word = call.arg(0);
    let number = units::integer(word, SPIN_MAX_US).and_then(|us| u16::try_from(us).ok());
    if number.is_none() && word != "auto" {
        let text = format!(
            "'tune.spin-us' expects 'auto' or a number of microseconds between 0 and {SPIN_MAX_US} \
             (got '{word}')."
        );
        return Err(call.complain(0, text));
    }
    parser.draft.global.spin_us = number;
    Ok(())
}

pub(in crate::config) fn ring_buffers(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let number = units::integer(call.arg(0), 256).and_then(|number| u16::try_from(number).ok());
    match number.filter(|number| *number >= 2 && number.is_power_of_two()) {
        Some(number) => parser.draft.global.ring_buffers = number,
        None => {
            let got = call.arg(0);
            let text = format!(
                "'tune.ring.buffers' expects a power of two between 2 and 256 (got '{got}')."
            );
            return Err(call.complain(0, text));
        }
    }
    Ok(())
}

pub(in crate::config) fn ring_receive(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let word = call.arg(0);
    let step = ReceiveStep::ALL
        .into_iter()
        .find(|step| step.name() == word);
    if step.is_none() && word != "auto" {
        let text = format!(
            "'tune.ring.receive' only supports 'auto', 'limit', 'incremental', 'bundle' and \
             'plain' (got '{word}')"
        );
        return Err(call.complain(0, text));
    }
    parser.draft.global.receive_step = step;
    Ok(())
}

pub(in crate::config) fn ring_without(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let mut without = Vec::new();
    for (index, word) in call.args.iter().enumerate() {
        let mut all = Capability::ALL.into_iter();
        let Some(capability) = all.find(|capability| capability.name() == word.text) else {
            let names = Capability::ALL.map(|capability| format!("'{}'", capability.name()));
            let text = format!(
                "'tune.ring.without' knows {} (got '{}')",
                names.join(", "),
                word.text
            );
            return Err(call.complain(index, text));
        };
        without.push(capability);
    }
    if without.is_empty() {
        return Err("'tune.ring.without' expects what to do without.".into());
    }
    parser.draft.global.ring_without.extend(without);
    Ok(())
}

pub(in crate::config) fn stats_timeout(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    if call.args.is_empty() {
        return Err("'stats timeout' expects a time.".into());
    }
    let value = match time_value("stats timeout", call.arg(0), Unit::Milliseconds) {
        Ok(value) => value,
        Err(text) => return Err(call.complain(0, text)),
    };
    if value == 0 {
        return Err(call.complain(0, "'stats timeout' expects a positive value"));
    }
    parser.draft.global.stats_timeout_ms = value;
    Ok(())
}

pub(in crate::config) fn stats_maxconn(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let number = units::integer(call.arg(0), u64::from(u32::MAX)).filter(|number| *number > 0);
    let Some(number) = number.and_then(|number| u32::try_from(number).ok()) else {
        return Err(call.complain(0, "'stats maxconn' expects a positive value"));
    };
    parser.draft.global.stats_maxconn = number;
    Ok(())
}

pub(in crate::config) fn stats_socket(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let socket = runtime_socket(parser.environment, call.args, Level::Operator)?;
    parser.draft.global.stats_sockets.push(socket);
    Ok(())
}

/// The socket that `-S` asks for in place of HAProxy's master's: an address and bind parameters,
/// divided by commas.
pub fn master_socket(text: &str, environment: &dyn Environment) -> Result<StatsSocket, Diagnostic> {
    let word = |text: &str| Word {
        text: text.to_owned(),
        column: 0,
        lines_below: 0,
    };
    let words: Vec<Word> = text.split(',').map(word).collect();
    let socket = runtime_socket(environment, &words, Level::Admin);
    match socket {
        Ok(socket) => Ok(StatsSocket {
            is_master: true,
            ..socket
        }),
        Err(complaint) => Err(Diagnostic {
            severity: Severity::Alert,
            place: None,
            word: None,
            form: Form::Bare,
            text: format!("-S '{text}' : {}", complaint.text),
        }),
    }
}

/// A runtime socket as it is written: an address and parameters.
fn runtime_socket(
    environment: &dyn Environment,
    args: &[Word],
    level: Level,
) -> Result<StatsSocket, Complaint> {
    let Some(address) = args.first().filter(|word| !word.text.is_empty()) else {
        let text = "'stats socket' in global section expects an address or a path to a UNIX socket";
        return Err(text.into());
    };
    let fault = |text: String| Complaint::about(address, format!("'stats socket' : {text}"));
    let endpoint = match Written::parse(&address.text).map_err(fault)? {
        Written::Unix(path) => Endpoint::Address(Address::Unix(path)),
        Written::Abstract(name) => Endpoint::Address(Address::Abstract(name)),
        Written::Descriptor(number) => Endpoint::Descriptor(number),
        Written::Ip(host, Port::One(port)) if port > 0 => {
            let ip = host.resolve(environment).map_err(fault)?;
            Endpoint::Address(Address::Ip((ip, port).into()))
        }
        Written::Ip(..) => {
            let text = format!(
                "'{}' is neither a path nor an address with one port",
                address.text
            );
            return Err(fault(text));
        }
    };
    let mut owner = Owner::default();
    let mut level = level;
    let mut exposes_listeners = false;
    let mut severity_output = SeverityOutput::None;
    let mut args = args[1..].iter();
    while let Some(word) = args.next() {
        let name = word.text.as_str();
        let wants = |text: String| Complaint::about(word, format!("'stats socket' : {text}"));
        let value = args.next();
        let value_text = value.map_or("", |word| word.text.as_str());
        match name {
            "mode" | "user" | "uid" | "group" | "gid" => {
                bind::owner(environment, &mut owner, name, value_text).map_err(wants)?;
            }
            "level" => {
                level = match value_text {
                    "user" => Level::User,
                    "operator" => Level::Operator,
                    "admin" => Level::Admin,
                    other => {
                        return Err(wants(format!(
                            "'level' only supports 'user', 'operator', and 'admin' (got '{other}')"
                        )));
                    }
                }
            }
            "expose-fd" if value_text == "listeners" => exposes_listeners = true,
            "expose-fd" => {
                return Err(wants(format!(
                    "'expose-fd' only supports 'listeners' (got '{value_text}')"
                )));
            }
            "severity-output" => {
                severity_output = match value_text {
                    "none" => SeverityOutput::None,
                    "number" => SeverityOutput::Number,
                    "string" => SeverityOutput::Name,
                    other => {
                        return Err(wants(format!(
                            "'severity-output' only supports 'none', 'number', and 'string' \
                             (got '{other}')"
                        )));
                    }
                }
            }
            _ => {
                let known = [
                    "mode",
                    "user",
                    "uid",
                    "group",
                    "gid",
                    "level",
                    "expose-fd",
                    "severity-output",
                ];
                let near = crate::config::keywords::closest(name, known.into_iter());
                let near = crate::config::keywords::did_you_mean(near);
                return Err(wants(format!("unknown keyword '{name}'{near}")));
            }
        }
    }
    let Owner { mode, uid, gid } = owner;
    Ok(StatsSocket {
        endpoint,
        mode,
        uid,
        gid,
        level,
        exposes_listeners,
        severity_output,
        is_master: false,
    })
}

/// The first argument as a time; for keywords whose messages have the usual form.
pub(in crate::config) fn time_argument(call: &Call<'_>, unit: Unit) -> Result<u32, Complaint> {
    let (name, text) = (call.keyword.name, call.arg(0));
    units::time(text, unit).map_err(|fault| {
        let text = match fault {
            UnitFault::Character(_) => format!("{fault} in argument to <{name}>."),
            UnitFault::Overflow => overflow(name, text, unit),
        };
        call.complain(0, text)
    })
}

/// A time of a family's keyword, whose messages begin with its name.
fn time_value(name: &str, text: &str, unit: Unit) -> Result<u32, String> {
    units::time(text, unit).map_err(|fault| match fault {
        UnitFault::Character(_) => format!("'{name}' : {fault}"),
        UnitFault::Overflow => overflow(name, text, unit),
    })
}

/// The message about a time that is too long.
pub(in crate::config) fn overflow(name: &str, text: &str, unit: Unit) -> String {
    let most = match unit {
        Unit::Milliseconds => "2147483647 ms (~24.8 days)",
        Unit::Seconds => "2147483647 s (~68 years)",
    };
    format!("timer overflow in argument <{text}> to <{name}>, maximum value is {most}.")
}
