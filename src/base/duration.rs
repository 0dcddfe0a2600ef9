//! Times as they are typed on the command line: `500ms`, `5s`, `2m`, `1h`.

use std::time::Duration;

/// A number with its unit; a number alone is seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_| format!("'{text}' is not a time"))?;
    match &text[digits.len()..] {
        "ms" => Ok(Duration::from_millis(number)),
        "" | "s" => Ok(Duration::from_secs(number)),
        "m" => Ok(Duration::from_secs(number.saturating_mul(60))),
        "h" => Ok(Duration::from_secs(number.saturating_mul(3600))),
        unit => Err(format!("'{unit}' is not a unit of time")),
    }
}

/// The longest that is let by `bounded`: more is a mistake, and sums with it would not overflow.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

/// The same above zero and up to 30 days.
pub fn bounded(text: &str) -> Result<Duration, String> {
    match parse(text)? {
        Duration::ZERO => Err("a time of 0 is too short".to_owned()),
        time if time > LONGEST => Err("30 days are the most".to_owned()),
        time => Ok(time),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units_and_bounds() {
        assert_eq!(bounded("5"), Ok(Duration::from_secs(5)));
        assert_eq!(bounded("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(bounded("2h"), Ok(Duration::from_secs(7200)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        for wrong in [
            "",
            "s",
            "5x",
            "-1s",
            "0",
            "0ms",
            "800h",
            "99999999999999999h",
        ] {
            assert!(bounded(wrong).is_err(), "{wrong}");
        }
    }
}
