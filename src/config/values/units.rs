//! Numbers with units, as HAProxy writes them: times, sizes, plain integers.
//!
//! All are whole numbers. A time without a unit has its keyword's unit, and one with a finer unit
//! is rounded up to it, so that a time that is not 0 never becomes 0 (which would mean "infinite"):
//! there is an overflow and no underflow.

use std::fmt;

/// The largest time: 2^31 - 1 of its unit, as HAProxy has it.
const TIME_MAX: u128 = 2_147_483_647;

/// The unit of a keyword's time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum Unit {
    /// Milliseconds, of nearly all.
    Milliseconds,
    /// Seconds, of the keep-alive settings.
    Seconds,
}

impl Unit {
    fn microseconds(self) -> u128 {
        match self {
            Unit::Milliseconds => 1_000,
            Unit::Seconds => 1_000_000,
        }
    }
}

/// Why a text is not a time or a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::config) enum UnitFault {
    /// A character that doesn't belong there; `None` = the text ends too early.
    Character(Option<char>),
    /// Beyond the largest value.
    Overflow,
}

impl fmt::Display for UnitFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            UnitFault::Character(Some(c)) => write!(f, "unexpected character '{c}'"),
            UnitFault::Character(None) => f.write_str("unexpected end"),
            UnitFault::Overflow => f.write_str("value out of range"),
        }
    }
}

/// The units of times, in microseconds. One that another begins with stands after it.
const TIME_UNITS: &[(&str, u128)] = &[
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("m", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// A time in `unit`: digits, then `us`, `ms`, `s`, `m`, `h`, `d` or nothing. What follows a unit
/// doesn't count, as HAProxy has it; see `surplus`.
pub(in crate::config) fn time(text: &str, unit: Unit) -> Result<u32, UnitFault> {
    let (value, suffix) = digits(text)?;
    let factor = match (time_unit(suffix), suffix.chars().next()) {
        (Some((_, factor)), _) => factor,
        (None, None) => unit.microseconds(),
        (None, stray) => return Err(UnitFault::Character(stray)),
    };
    let units = (u128::from(value) * factor).div_ceil(unit.microseconds());
    if units > TIME_MAX {
        return Err(UnitFault::Overflow);
    }
    u32::try_from(units).map_err(|_| UnitFault::Overflow)
}

/// The first character behind the unit of a time, which nothing reads.
pub(in crate::config) fn surplus(text: &str) -> Option<char> {
    let (_, suffix) = digits(text).ok()?;
    let (unit, _) = time_unit(suffix)?;
    suffix[unit.len()..].chars().next()
}

fn time_unit(suffix: &str) -> Option<(&'static str, u128)> {
    let mut units = TIME_UNITS.iter();
    units.find(|(unit, _)| suffix.starts_with(unit)).copied()
}

/// A size in bytes: digits, then `k`, `m`, `g` (of 1024, either case) or nothing.
pub(in crate::config) fn size(text: &str) -> Result<u64, UnitFault> {
    let (value, suffix) = digits(text)?;
    let shift = match suffix {
        "" => 0,
        "k" | "K" => 10,
        "m" | "M" => 20,
        "g" | "G" => 30,
        other => return Err(stray(other, &["k", "m", "g", "K", "M", "G"])),
    };
    value.checked_mul(1 << shift).ok_or(UnitFault::Overflow)
}

/// A whole number without sign or unit, at most `max`.
pub(in crate::config) fn integer(text: &str, max: u64) -> Option<u64> {
    let (value, suffix) = digits(text).ok()?;
    (suffix.is_empty() && value <= max).then_some(value)
}

/// The digits at the start and what follows them.
fn digits(text: &str) -> Result<(u64, &str), UnitFault> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if end == 0 {
        return Err(UnitFault::Character(text.chars().next()));
    }
    let value = text[..end].parse().map_err(|_| UnitFault::Overflow)?;
    Ok((value, &text[end..]))
}

/// The first character that belongs to no unit.
fn stray(suffix: &str, units: &[&str]) -> UnitFault {
    let known = units
        .iter()
        .filter(|unit| suffix.starts_with(**unit))
        .map(|unit| unit.len())
        .max();
    UnitFault::Character(suffix[known.unwrap_or(0)..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_round_up_and_are_bounded() {
        let ms = |text| time(text, Unit::Milliseconds);
        assert_eq!(ms("30s"), Ok(30_000));
        assert_eq!(ms("1us"), Ok(1));
        assert_eq!(ms("1001us"), Ok(2));
        assert_eq!(ms("0"), Ok(0));
        assert_eq!(ms("24d"), Ok(2_073_600_000));
        assert_eq!(ms("2147483647"), Ok(2_147_483_647));
        assert_eq!(ms("2147483648"), Err(UnitFault::Overflow));
        assert_eq!(ms("99999999999999999999999"), Err(UnitFault::Overflow));
        assert_eq!(ms("3x"), Err(UnitFault::Character(Some('x'))));
        assert_eq!(ms("3msx"), Ok(3));
        assert_eq!(ms("5sec"), Ok(5_000));
        assert_eq!(ms("1mn"), Ok(60_000));
        assert_eq!(ms(""), Err(UnitFault::Character(None)));
        assert_eq!(ms("-1"), Err(UnitFault::Character(Some('-'))));
        assert_eq!(time("1500ms", Unit::Seconds), Ok(2));
        assert_eq!(time("2m", Unit::Seconds), Ok(120));
    }

    #[test]
    fn what_follows_a_unit_is_surplus() {
        assert_eq!(surplus("5sec"), Some('e'));
        assert_eq!(surplus("3msx"), Some('x'));
        assert_eq!(surplus("3ms"), None);
        assert_eq!(surplus("3x"), None);
        assert_eq!(surplus("x"), None);
    }

    #[test]
    fn sizes_and_integers() {
        assert_eq!(size("64k"), Ok(65_536));
        assert_eq!(size("1G"), Ok(1 << 30));
        assert_eq!(size("18446744073709551615k"), Err(UnitFault::Overflow));
        assert_eq!(size("1.5m"), Err(UnitFault::Character(Some('.'))));
        assert_eq!(integer("12", 12), Some(12));
        assert_eq!(integer("13", 12), None);
        assert_eq!(integer("+1", 12), None);
    }
}
