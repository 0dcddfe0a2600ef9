//! `slowstart` of servers and what belongs to it.

use crate::config::draft::ServerSettings;
use crate::config::environment::Environment;
use crate::config::values::units::{self, Unit, UnitFault};

/// The last part of a slow start, in percent.
const WHOLE: u8 = 100;

pub(in crate::config) fn slow_start(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    server.slow_start_ms = units::time(value, Unit::Milliseconds).map_err(|fault| match fault {
        UnitFault::Character(_) => format!("{fault} in '{name}' argument."),
        UnitFault::Overflow => super::global::overflow(name, value, Unit::Milliseconds),
    })?;
    Ok(())
}

/// `slowstart-steps`: rising parts in percent up to the whole; `0` undoes inherited ones.
pub(in crate::config) fn steps(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    if value == "0" {
        server.slow_start_steps.clear();
        return Ok(());
    }
    let step = |word: &str| {
        let percent = units::integer(word, u64::from(WHOLE)).filter(|percent| *percent > 0);
        percent.and_then(|percent| u8::try_from(percent).ok())
    };
    let steps: Option<Vec<u8>> = value.split(',').map(step).collect();
    // Rising whole percents are a hundred at most.
    let steps = steps.filter(|steps| {
        steps.is_sorted_by(|before, after| before < after) && steps.last() == Some(&WHOLE)
    });
    server.slow_start_steps = steps.ok_or_else(|| {
        format!("'{name}' expects rising percentages up to {WHOLE}, such as 10,50,100 ({value}).")
    })?;
    Ok(())
}

/// `slowstart-connrate`: connections per second; 0 undoes an inherited one.
pub(in crate::config) fn rate(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    let rate = units::integer(value, u64::from(RATE_MAX)).and_then(|rate| u32::try_from(rate).ok());
    server.slow_start_rate = rate.ok_or_else(|| {
        format!("'{name}' expects a number of connections per second up to {RATE_MAX} ({value}).")
    })?;
    Ok(())
}

/// More than a process can make.
const RATE_MAX: u32 = 10_000_000;
