//! nginx's times, as HAProxy writes them.

/// Units of nginx, the longer name first where one begins with another, in milliseconds.
const UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
    ("w", 604_800_000),
    ("M", 2_592_000_000),
    ("y", 31_536_000_000),
];

/// The units of HAProxy, the largest first.
const WRITTEN: &[(&str, u64)] = &[
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// HAProxy's largest time.
const MILLISECONDS_MAX: u64 = 2_147_483_647;

/// A time such as `90`, `1m30s`, `1h 30m`, in milliseconds; without a unit it is in seconds.
pub(super) fn time(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0u64, text.trim());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let number: u64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let unit = UNITS.iter().find(|(name, _)| rest.starts_with(name));
        let factor = match unit {
            Some((name, factor)) => {
                rest = rest[name.len()..].trim_start();
                *factor
            }
            None if rest.is_empty() => 1_000,
            None => return None,
        };
        total = total.checked_add(number.checked_mul(factor)?)?;
    }
    Some(total)
}

/// The same as HAProxy writes it; what is beyond its largest time becomes that.
pub(super) fn written(milliseconds: u64) -> String {
    let value = milliseconds.min(MILLISECONDS_MAX);
    let unit = WRITTEN
        .iter()
        .find(|(_, factor)| value.is_multiple_of(*factor) && value >= *factor);
    match unit {
        Some((name, factor)) => format!("{}{name}", value / factor),
        None => value.to_string(),
    }
}

/// A time of nginx in HAProxy's form.
pub(super) fn converted(text: &str) -> Option<String> {
    time(text).map(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let table = [
            ("30", Some("30s")),
            ("30s", Some("30s")),
            ("90s", Some("90s")),
            ("500ms", Some("500ms")),
            ("1m30s", Some("90s")),
            ("1h 30m", Some("90m")),
            ("10m", Some("10m")),
            ("1w", Some("7d")),
            ("0", Some("0")),
            ("1y", Some("2147483647ms")),
            ("", None),
            ("x", None),
            ("1.5s", None),
            ("99999999999999999999s", None),
            ("18446744073709551615s", None),
        ];
        for (text, expected) in table {
            assert_eq!(converted(text).as_deref(), expected, "{text}");
        }
    }
}
