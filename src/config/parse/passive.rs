//! The parameters of a server that say what its traffic may do to it.

use super::health::time_above_zero;
use crate::config::draft::{Observed, ServerSettings};
use crate::config::environment::Environment;
use crate::config::plan::OnError;
use crate::config::values::units;

/// The largest `max-fails`: the times of as many failures are kept, 32 KiB for each server then.
pub(in crate::config) const MAX_FAILS_MAX: u16 = 4096;

pub(in crate::config) fn observe(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.passive.observe = match value {
        "none" => Observed::Nothing,
        "layer4" => Observed::Layer4,
        "layer7" => Observed::Layer7,
        _ => {
            return Err(format!(
                "'observe' expects one of 'none', 'layer4', 'layer7' but got '{value}'."
            ));
        }
    };
    Ok(())
}

pub(in crate::config) fn error_limit(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let limit = units::integer(value, u64::from(u32::MAX)).filter(|limit| *limit > 0);
    let limit = limit.and_then(|limit| u32::try_from(limit).ok());
    server.passive.error_limit = limit.ok_or("'error-limit' has to be > 0.")?;
    Ok(())
}

pub(in crate::config) fn on_error(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    server.passive.on_error = match value {
        "fastinter" => OnError::FastInter,
        "fail-check" => OnError::FailCheck,
        "sudden-death" => OnError::SuddenDeath,
        "mark-down" => OnError::MarkDown,
        _ => {
            return Err(format!(
                "'on-error' expects one of 'fastinter', 'fail-check', 'sudden-death' or \
                 'mark-down' but got '{value}'."
            ));
        }
    };
    Ok(())
}

pub(in crate::config) fn max_fails(
    _: &dyn Environment,
    server: &mut ServerSettings,
    _: &str,
    value: &str,
) -> Result<(), String> {
    let number = units::integer(value, u64::from(MAX_FAILS_MAX));
    let number = number.and_then(|number| u16::try_from(number).ok());
    server.passive.max_fails = Some(number.ok_or_else(|| {
        format!("'max-fails' expects a number between 0 and {MAX_FAILS_MAX} (got '{value}').")
    })?);
    Ok(())
}

pub(in crate::config) fn fail_timeout(
    _: &dyn Environment,
    server: &mut ServerSettings,
    name: &str,
    value: &str,
) -> Result<(), String> {
    server.passive.fail_timeout_ms = Some(time_above_zero(name, value)?);
    Ok(())
}
