//! The keywords about shards and how connections reach them: `nbthread`, `cpu-map`, `thread` and
//! `shards` of listeners, `noreuseport`, `tune.maxaccept`, `tune.listener.multi-queue`.

use super::{Call, Complaint, Outcome, Parser};
use crate::config::draft::BindSettings;
use crate::config::environment::Environment;
use crate::config::plan::{MultiQueue, Sockets};
use crate::config::values::threads::{self, CpuMap, THREADS_MAX};
use crate::config::values::units;

pub(in crate::config) fn nbthread(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.global.nbthread = Some(thread_count(call)?);
    Ok(())
}

pub(in crate::config) fn thread_hard_limit(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.global.thread_hard_limit = Some(thread_count(call)?);
    Ok(())
}

fn thread_count(call: &Call<'_>) -> Result<u16, Complaint> {
    let (name, text) = (call.keyword.name, call.arg(0));
    let Some(number) = units::integer(text, u64::MAX) else {
        let text = format!("'{name}' passed a missing or unparsable integer value in '{text}'");
        return Err(call.complain(0, text));
    };
    let count = u16::try_from(number).ok();
    count
        .filter(|count| (1..=THREADS_MAX).contains(count))
        .ok_or_else(|| {
            let text = format!("'{name}' value must be between 1 and {THREADS_MAX} (was {number})");
            call.complain(0, text)
        })
}

pub(in crate::config) fn cpu_map(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let (Some(first), Some(_)) = (call.args.first(), call.args.get(1)) else {
        let text = "'cpu-map' expects the thread group 1 with or without threads ('1', '1/all', \
                    '1/1-4'), then CPU numbers or ranges ('0-3').";
        return Err(text.into());
    };
    let (auto, text) = match first.text.strip_prefix("auto:") {
        Some(text) => (true, text),
        None => (false, first.text.as_str()),
    };
    let fault = |text: String| Complaint::about(first, format!("cpu-map : {text}"));
    let mapped = threads::mapped(text).map_err(fault)?;
    let words = call.args[1..].iter().map(|word| word.text.as_str());
    let cpus = threads::cpus(words).map_err(fault)?;
    let sizes = (usize::from(mapped.threads.len()), cpus.len());
    if auto && mapped.counted && sizes.0 != sizes.1 {
        let text = format!(
            "'auto:' wants as many CPUs as threads, and there are {} of them for {}.",
            sizes.1, sizes.0
        );
        return Err(fault(text));
    }
    let place = &call.line.place;
    if mapped.threads.is_empty() {
        let text = format!(
            "cpu-map : '{text}' names no thread: there is one thread group, number 1. The line has \
             no effect."
        );
        parser.report.warning(place, Some(first), text);
        return Ok(());
    }
    if mapped.other_groups {
        let text = format!(
            "cpu-map : '{text}' names thread groups, and there is only group 1: all threads get \
             all these CPUs. Write '1/{text}' for the threads {text}."
        );
        parser.report.warning(place, Some(first), text);
    }
    parser.draft.global.cpu_maps.push(CpuMap {
        // A group as a whole is bound to the first CPU of its own: there is one group.
        auto: auto && text.contains('/'),
        threads: mapped.threads,
        cpus,
    });
    Ok(())
}

pub(in crate::config) fn noreuseport(parser: &mut Parser<'_>, _: &Call<'_>) -> Outcome {
    parser.draft.global.noreuseport = true;
    Ok(())
}

pub(in crate::config) fn maxaccept(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    let number: Option<i64> = call.arg(0).parse().ok();
    let Some(number) = number.filter(|_| !call.arg(0).starts_with('+')) else {
        return Err(call.complain(0, "'tune.maxaccept' expects an integer argument."));
    };
    // As HAProxy has it: 0 is the default, a negative number unlimited.
    parser.draft.global.maxaccept = match number {
        0 => None,
        1.. => Some(u32::try_from(number).unwrap_or(u32::MAX)),
        _ => Some(u32::MAX),
    };
    Ok(())
}

pub(in crate::config) fn default_shards(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.default_sockets = match call.arg(0) {
        "by-process" | "by-group" => Some(Sockets::Number(1)),
        "by-thread" => Some(Sockets::ByThread),
        other => {
            let text = format!(
                "'tune.listener.default-shards' expects either 'by-process', 'by-group', or \
                 'by-thread' but got '{other}'."
            );
            return Err(call.complain(0, text));
        }
    };
    Ok(())
}

pub(in crate::config) fn multi_queue(parser: &mut Parser<'_>, call: &Call<'_>) -> Outcome {
    parser.draft.global.multi_queue = match call.arg(0) {
        "on" => MultiQueue::On,
        "fair" => MultiQueue::Fair,
        "off" => MultiQueue::Off,
        other => {
            let text = format!(
                "'tune.listener.multi-queue' expects either 'on', 'fair', or 'off' but got \
                 '{other}'."
            );
            return Err(call.complain(0, text));
        }
    };
    Ok(())
}

/// `thread` of a `bind` line.
pub(in crate::config) fn set_threads(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let threads = threads::threads(value).map_err(|text| format!("'{name}' : {text}"))?;
    bind.threads = Some(threads);
    Ok(())
}

/// `shards` of a `bind` line.
pub(in crate::config) fn set_shards(
    _: &dyn Environment,
    bind: &mut BindSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let number = || {
        let number = units::integer(value, u64::from(THREADS_MAX)).filter(|n| *n > 0);
        let number = number.and_then(|n| u16::try_from(n).ok());
        number.ok_or_else(|| {
            format!(
                "'{name}' : invalid value {value}, allowed range is 1..{THREADS_MAX} or \
                 'by-thread' or 'by-group'"
            )
        })
    };
    bind.sockets = Some(match value {
        "by-thread" => Sockets::ByThread,
        "by-group" => Sockets::Number(1),
        _ => Sockets::Number(number()?),
    });
    Ok(())
}
