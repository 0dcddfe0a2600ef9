//! How values are written into lines: as text, in hexadecimal, as JSON.
//!
//! A line is one line whatever is in it: control characters are shown by their number. What peers
//! have sent can't end a quoted text either.

use std::io::Write;
use std::net::IpAddr;

use crate::config::plan::Cast;

/// What a value is. Text lies beside it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Missing,
    Number(i64),
    Boolean(bool),
    Address(IpAddr),
    /// Text of ours or of the configuration.
    Text,
    /// Bytes that a peer has sent.
    Foreign,
}

/// Writes a number, with so many digits at least where it is one in hexadecimal.
pub(super) fn number(out: &mut Vec<u8>, number: i64, digits: Option<usize>) {
    let _ = match digits {
        None => write!(out, "{number}"),
        Some(digits) => write!(out, "{number:0digits$X}"),
    };
}

/// Writes an address.
pub(super) fn address(out: &mut Vec<u8>, address: IpAddr, hexadecimal: bool) {
    let _ = match address {
        _ if !hexadecimal => write!(out, "{address}"),
        IpAddr::V4(address) => write!(out, "{:08X}", address.to_bits()),
        IpAddr::V6(address) => write!(out, "{:032X}", address.to_bits()),
    };
}

/// Writes text. `escape` puts a backslash before what ends a value of structured data. Of foreign
/// text everything but plain ASCII is shown as HAProxy does, `#` and two digits.
pub(super) fn text(out: &mut Vec<u8>, text: &[u8], escape: bool, foreign: bool) {
    for &byte in text {
        let is_plain = byte >= b' ' && byte != 0x7f;
        let is_safe = byte < 0x7f && byte != b'#' && (escape || byte != b'"');
        if !is_plain || (foreign && !is_safe) {
            let _ = write!(out, "#{byte:02X}");
            continue;
        }
        if escape && matches!(byte, b'"' | b'\\' | b']') {
            out.push(b'\\');
        }
        out.push(byte);
    }
}

/// Writes a value as JSON, of the type that it is cast to.
pub(super) fn json(out: &mut Vec<u8>, kind: Kind, text: &[u8], cast: Option<Cast>) {
    let mut shown = Vec::new();
    let text = match kind {
        Kind::Missing => return out.extend_from_slice(b"null"),
        Kind::Text | Kind::Foreign => text,
        Kind::Number(value) => {
            number(&mut shown, value, None);
            &shown
        }
        Kind::Boolean(value) => {
            shown.extend_from_slice(if value { b"true" } else { b"false" });
            &shown
        }
        Kind::Address(value) => {
            address(&mut shown, value, false);
            &shown
        }
    };
    let is_text = matches!(kind, Kind::Text | Kind::Foreign | Kind::Address(_));
    match cast {
        None if !is_text => out.extend_from_slice(text),
        None | Some(Cast::Text) => json_text(out, text),
        Some(Cast::Number) => {
            let value = match kind {
                Kind::Boolean(value) => i64::from(value),
                _ => integer(text),
            };
            number(out, value, None);
        }
        Some(Cast::Boolean) => {
            let value = match kind {
                Kind::Boolean(value) => value,
                _ => text == b"true" || integer(text) != 0,
            };
            out.extend_from_slice(if value { b"true" } else { b"false" });
        }
    }
}

/// The number that a text is, 0 = none.
fn integer(text: &[u8]) -> i64 {
    let text = std::str::from_utf8(text).unwrap_or_default();
    text.trim().parse().unwrap_or(0)
}

/// Writes a JSON string. A byte that is no part of UTF-8 becomes the character of its number.
pub(super) fn json_text(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for chunk in text.utf8_chunks() {
        for character in chunk.valid().chars() {
            let _ = match character {
                '"' | '\\' => write!(out, "\\{character}"),
                '\n' => write!(out, "\\n"),
                '\r' => write!(out, "\\r"),
                '\t' => write!(out, "\\t"),
                '\0'..' ' | '\x7f' => write!(out, "\\u{:04x}", u32::from(character)),
                // They end lines in scripts.
                '\u{2028}' | '\u{2029}' => write!(out, "\\u{:04x}", u32::from(character)),
                character => write!(out, "{character}"),
            };
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\u{byte:04x}");
        }
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_stays_one_line() {
        let all: Vec<u8> = (0..=255).collect();
        for (escape, foreign) in [(false, true), (true, true)] {
            let shown = written(|out| text(out, &all, escape, foreign));
            assert!(
                shown.bytes().all(|byte| (b' '..0x7f).contains(&byte)),
                "{shown}"
            );
            assert!(
                shown.starts_with("#00#01") && shown.ends_with("#FE#FF"),
                "{shown}"
            );
        }
        assert_eq!(
            written(|out| text(out, b"a\n\x7f\"]\\#", false, false)),
            "a#0A#7F\"]\\#"
        );
        assert_eq!(written(|out| text(out, "é".as_bytes(), false, false)), "é");
        assert_eq!(
            written(|out| text(out, b"a\"]\\c", true, false)),
            "a\\\"\\]\\\\c"
        );
        assert_eq!(written(|out| text(out, b"a\"#b", false, true)), "a#22#23b");
        assert_eq!(written(|out| text(out, b"a\"b", true, true)), "a\\\"b");
    }

    /// Pairs and triples of awkward bytes, and all bytes alone.
    #[test]
    fn any_bytes_are_valid_json() {
        let awkward = [
            0, 9, 10, 31, b'"', b'\\', 0x7f, 0x80, 0xc3, 0xa9, 0xe2, 0xed, 0xf0, 0xff,
        ];
        let mut inputs: Vec<Vec<u8>> = (0..=255).map(|byte| vec![byte]).collect();
        for a in awkward {
            for b in awkward {
                inputs.extend(awkward.iter().map(|c| vec![a, b, *c]));
            }
        }
        for input in inputs {
            let shown = written(|out| json(out, Kind::Foreign, &input, None));
            let parsed: Value = serde_json::from_str(&shown).expect(&shown);
            let expected: String = match std::str::from_utf8(&input) {
                Ok(text) => text.to_owned(),
                Err(_) => continue,
            };
            assert_eq!(parsed, Value::String(expected));
        }
    }

    #[test]
    fn json_has_types() {
        let shown = |kind, text: &[u8], cast| written(|out| json(out, kind, text, cast));
        for (kind, text, cast, expected) in [
            (Kind::Missing, &b""[..], None, "null"),
            (Kind::Missing, b"", Some(Cast::Number), "null"),
            (Kind::Number(-1), b"", None, "-1"),
            (Kind::Number(i64::MIN), b"", None, "-9223372036854775808"),
            (Kind::Number(7), b"", Some(Cast::Text), "\"7\""),
            (Kind::Number(7), b"", Some(Cast::Boolean), "true"),
            (Kind::Boolean(true), b"", None, "true"),
            (Kind::Boolean(true), b"", Some(Cast::Number), "1"),
            (Kind::Text, b"42", None, "\"42\""),
            (Kind::Text, b"42", Some(Cast::Number), "42"),
            (Kind::Text, b"4x", Some(Cast::Number), "0"),
            (Kind::Text, b"true", Some(Cast::Boolean), "true"),
            (Kind::Foreign, b"\xff", None, "\"\\u00ff\""),
        ] {
            assert_eq!(
                shown(kind, text, cast),
                expected,
                "{kind:?} {text:?} {cast:?}"
            );
        }
        let address = Kind::Address("::1".parse().unwrap());
        assert_eq!(shown(address, b"", None), "\"::1\"");
    }

    #[test]
    fn hexadecimal_as_haproxy_has_it() {
        let v4 = "127.0.0.1".parse().unwrap();
        assert_eq!(written(|out| address(out, v4, true)), "7F000001");
        let v6 = "2001:db8::1".parse().unwrap();
        let shown = written(|out| address(out, v6, true));
        assert_eq!(shown, "20010DB8000000000000000000000001");
        assert_eq!(written(|out| number(out, 80, Some(4))), "0050");
        assert_eq!(written(|out| number(out, 80, None)), "80");
    }
}
