//! Reads the form of a log line: `%ci:%cp [%t] %{+Q}b %[dst_port] %(bytes:sint)B`.
//!
//! An item is a `%` with flags in braces and a name in parentheses, in any order, and then an alias
//! or an expression in brackets. `%o` is none: its flags hold for the items that follow. Blanks in
//! turn are one. What needs HTTP is an error, as it is for HAProxy in a proxy of `mode tcp`.

use super::sample;
use crate::config::plan::{Cast, Item, LineFormat, Piece, Value};
use crate::config::raw::arguments;

/// Pieces of a form: a line is 64 KiB at the most, and an item can be written in two bytes.
const PIECES_MAX: usize = 1024;

/// Aliases that mean something for connections, by their name.
#[rustfmt::skip]
const ALIASES: &[(&str, Value)] = &[
    ("B", Value::BytesOut),
    ("H", Value::Hostname),
    ("ID", Value::UniqueId),
    ("ST", Value::Status),
    ("T", Value::DateUtc),
    ("Tc", Value::ConnectTime),
    ("Td", Value::DataTime),
    ("Th", Value::HandshakeTime),
    ("Tl", Value::DateLocal),
    ("Ts", Value::UnixTime),
    ("Tt", Value::TotalTime),
    ("Tu", Value::TotalTime),
    ("Tw", Value::QueueTime),
    ("U", Value::BytesIn),
    ("ac", Value::ProcessSessions),
    ("b", Value::BackendShown),
    ("bc", Value::BackendSessions),
    ("bi", Value::SourceAddress),
    ("bp", Value::SourcePort),
    ("bq", Value::BackendQueue),
    ("ci", Value::ClientAddress),
    ("cp", Value::ClientPort),
    ("f", Value::FrontendName),
    ("fc", Value::FrontendSessions),
    ("fi", Value::LocalAddress),
    ("fp", Value::LocalPort),
    ("ft", Value::FrontendName),
    ("hr", Value::Captures),
    ("hrl", Value::Captures),
    ("hs", Value::Captures),
    ("hsl", Value::Captures),
    ("lc", Value::LineNumber),
    ("ms", Value::Milliseconds),
    ("pid", Value::ProcessId),
    ("rc", Value::Retries),
    ("rt", Value::Number),
    ("s", Value::ServerShown),
    ("sc", Value::ServerSessions),
    ("si", Value::ServerAddress),
    ("sp", Value::ServerPort),
    ("sq", Value::ServerQueue),
    ("sslc", Value::Absent),
    ("sslv", Value::Absent),
    ("t", Value::Date),
    ("ts", Value::Termination),
    ("tsc", Value::TerminationCookie),
];

/// Those that mean something for HTTP requests only.
const OF_HTTP: &[&str] = &[
    "CC", "CS", "HM", "HP", "HPO", "HQ", "HU", "HV", "TR", "Ta", "Ti", "Tq", "Tr", "r", "tr",
    "trg", "trl",
];

/// Those that aren't there yet.
const LATER: &[&str] = &["OG"];

/// What is added to the message about an alias that there is none of.
const VERBATIM: &str = "If you wanted to emit the '%' character verbatim, you need to use '%%'";

/// Flags in force.
#[derive(Clone, Copy, Default)]
struct Flags {
    quote: bool,
    hexadecimal: bool,
    escape: bool,
    json: bool,
}

/// Reads a form; the error is a sentence without its place.
pub(in crate::config) fn parse(text: &str) -> Result<LineFormat, String> {
    let mut reader = Reader {
        rest: text,
        flags: Flags::default(),
        format: LineFormat::default(),
    };
    while !reader.rest.is_empty() {
        if reader.format.pieces.len() >= PIECES_MAX {
            return Err(format!("more than {PIECES_MAX} items"));
        }
        reader.piece()?;
    }
    Ok(reader.format)
}

struct Reader<'a> {
    rest: &'a str,
    flags: Flags,
    format: LineFormat,
}

impl<'a> Reader<'a> {
    /// Reads the next piece.
    fn piece(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix("%%") {
            self.rest = rest;
            self.text("%");
        } else if let Some(rest) = self.rest.strip_prefix('%') {
            self.rest = rest;
            self.item()?;
        } else if let Some(rest) = self.rest.strip_prefix(' ') {
            self.rest = rest;
            let pieces = &mut self.format.pieces;
            if !matches!(pieces.last(), None | Some(Piece::Space)) {
                pieces.push(Piece::Space);
            }
        } else {
            let end = self.rest.find([' ', '%']).unwrap_or(self.rest.len());
            let text = self.split(end);
            self.text(text);
        }
        Ok(())
    }

    fn split(&mut self, end: usize) -> &'a str {
        let (begin, rest) = self.rest.split_at(end);
        self.rest = rest;
        begin
    }

    /// Adds text to the text before it.
    fn text(&mut self, text: &str) {
        match self.format.pieces.last_mut() {
            Some(Piece::Text(before)) => before.push_str(text),
            _ => self.format.pieces.push(Piece::Text(text.to_owned())),
        }
    }

    /// Reads what follows a `%`.
    fn item(&mut self) -> Result<(), String> {
        let begin = self.rest;
        let mut flags = self.flags;
        let mut changes = "";
        let (mut name, mut cast) = (String::new(), None);
        loop {
            if let Some(rest) = self.rest.strip_prefix('{') {
                let end = rest
                    .find('}')
                    .ok_or_else(|| format!("truncated line after '{rest}'"))?;
                changes = &rest[..end];
                flags = changed(flags, changes)?;
                self.rest = &rest[end + 1..];
            } else if let Some(rest) = self.rest.strip_prefix('(') {
                let end = rest
                    .find(')')
                    .ok_or_else(|| format!("missing ')' after '{rest}'"))?;
                (name, cast) = named(&rest[..end])?;
                self.rest = &rest[end + 1..];
            } else {
                break;
            }
        }
        let (value, is_sample) = if let Some(rest) = self.rest.strip_prefix('[') {
            let end = end_of_expression(rest)?;
            self.rest = &rest[end + 1..];
            (sample::parse(&rest[..end])?, true)
        } else {
            let is_letter = |c: char| c.is_ascii_alphanumeric();
            let end = self.rest.find(|c| !is_letter(c));
            let alias = self.split(end.unwrap_or(self.rest.len()));
            if alias == "o" {
                return self.defaults(flags, changes);
            }
            (value_of(alias, begin)?, false)
        };
        // Of an alias only what is text can be quoted, as HAProxy has it.
        let quote = flags.quote && (is_sample || is_text(&value));
        self.format.pieces.push(Piece::Item(Item {
            name,
            cast,
            quote,
            hexadecimal: flags.hexadecimal && !is_sample,
            escape: flags.escape,
            json: flags.json,
            value,
        }));
        Ok(())
    }

    /// `%o` with flags.
    fn defaults(&mut self, flags: Flags, changes: &str) -> Result<(), String> {
        if flags.json && !self.flags.json {
            if !self.format.pieces.is_empty() {
                return Err(format!("'%{{{changes}}}o' has to come first"));
            }
            self.format.json = true;
        }
        self.flags = flags;
        Ok(())
    }
}

/// The flags after those in braces, such as `+Q,-X`.
fn changed(mut flags: Flags, changes: &str) -> Result<Flags, String> {
    for change in changes.split(',').map(str::trim) {
        if change.is_empty() {
            continue;
        }
        let (on, name) = match change.split_at_checked(1) {
            Some(("+", name)) => (true, name),
            Some(("-", name)) => (false, name),
            _ => {
                return Err(format!("flag '{change}' needs a '+' or a '-' before it"));
            }
        };
        match name {
            "Q" => flags.quote = on,
            "X" => flags.hexadecimal = on,
            "E" => flags.escape = on,
            "json" => flags.json = on,
            "cbor" | "bin" => {
                return Err(format!(
                    "flag '{name}' is not implemented in Tidegate yet; 'json' is"
                ));
            }
            _ => return Err(format!("unknown flag '{name}'")),
        }
    }
    Ok(flags)
}

/// `name:type`, either of which may be left out.
fn named(text: &str) -> Result<(String, Option<Cast>), String> {
    let (name, cast) = match text.split_once(':') {
        None => (text, None),
        Some((name, "str")) => (name, Some(Cast::Text)),
        Some((name, "sint")) => (name, Some(Cast::Number)),
        Some((name, "bool")) => (name, Some(Cast::Boolean)),
        Some((_, cast)) => {
            return Err(format!(
                "unknown type '{cast}' in '({text})', there are 'str', 'sint' and 'bool'"
            ));
        }
    };
    Ok((name.to_owned(), cast))
}

/// What an alias stands for; `begin` is what followed its `%`.
fn value_of(alias: &str, begin: &str) -> Result<Value, String> {
    if let Some((_, value)) = ALIASES.iter().find(|(name, _)| *name == alias) {
        return Ok(value.clone());
    }
    Err(if alias.is_empty() {
        match begin {
            "" => "truncated line after '%'".to_owned(),
            begin => format!(
                "expected the name of a format variable after '%' in '%{begin}'. {VERBATIM}"
            ),
        }
    } else if OF_HTTP.contains(&alias) {
        format!("format variable '{alias}' is reserved for HTTP mode")
    } else if LATER.contains(&alias) {
        format!("format variable '{alias}' is not implemented in Tidegate yet")
    } else {
        format!("no such format variable '{alias}'. {VERBATIM}")
    })
}

/// Whether an alias shows text.
fn is_text(value: &Value) -> bool {
    matches!(
        value,
        Value::FrontendName
            | Value::BackendShown
            | Value::ServerShown
            | Value::ClientAddress
            | Value::LocalAddress
            | Value::SourceAddress
            | Value::ServerAddress
            | Value::Hostname
            | Value::UniqueId
            | Value::Absent
    )
}

/// Where the `]` is that ends an expression; one in parentheses doesn't.
fn end_of_expression(text: &str) -> Result<usize, String> {
    let missing = || format!("missing ']' after '{text}'");
    let mut at = 0;
    loop {
        let found = text[at..].find([']', '(']).ok_or_else(missing)?;
        at += found + 1;
        if text[..at].ends_with(']') {
            return Ok(at - 1);
        }
        let (_, length) = arguments::list(&text[at..]).map_err(|_| missing())?;
        at += length;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn items(text: &str) -> Vec<Item> {
        parse(text).unwrap().items().cloned().collect()
    }

    #[test]
    fn text_blanks_and_items() {
        let format = parse("  a  b%%c %ci%cp.%f ").unwrap();
        let text = |text: &str| Piece::Text(text.to_owned());
        let all = &format.pieces;
        assert_eq!(all[..3], [text("a"), Piece::Space, text("b%c")]);
        assert_eq!(all[3], Piece::Space);
        assert_eq!(all[6], text("."));
        assert_eq!(all.last(), Some(&Piece::Space));
        let values: Vec<Value> = items("  a  b%%c %ci%cp.%f ")
            .into_iter()
            .map(|i| i.value)
            .collect();
        let expected = [Value::ClientAddress, Value::ClientPort, Value::FrontendName];
        assert_eq!(values, expected);
    }

    #[test]
    fn flags_hold_for_an_item_or_for_those_that_follow() {
        let all = items("%{+Q}f %f %{+Q,+X}o %f %cp %{-Q,-X}ci %{ +E }ci %[src]");
        let flags: Vec<[bool; 3]> = all
            .iter()
            .map(|i| [i.quote, i.hexadecimal, i.escape])
            .collect();
        let expected = [
            [true, false, false],
            [false, false, false],
            [true, true, false],
            [false, true, false],
            [false, false, false],
            [true, true, true],
            [true, false, false],
        ];
        assert_eq!(flags, expected);
    }

    #[test]
    fn names_and_types() {
        let all = items("%(a)ci %(b:str){+X}cp %{+X}(c:sint)cp %(:bool)B %(d)[src]");
        let named: Vec<_> = all
            .iter()
            .map(|i| (i.name.as_str(), i.cast, i.hexadecimal))
            .collect();
        let expected = [
            ("a", None, false),
            ("b", Some(Cast::Text), true),
            ("c", Some(Cast::Number), true),
            ("", Some(Cast::Boolean), false),
            ("d", None, false),
        ];
        assert_eq!(named, expected);
        assert!(parse("%{+json}o %(a)ci").unwrap().json);
        assert!(!parse("%{+json}ci").unwrap().json);
    }

    #[test]
    fn brackets_end_where_expressions_do() {
        let text = |text: &str| Value::Text(text.to_owned());
        assert_eq!(items("%[str('a]b')]x")[0].value, text("a]b"));
        assert_eq!(items("%[str(\"a)]\")]")[0].value, text("a)]"));
        assert_eq!(items("%[str(a)]%[str(b)]")[1].value, text("b"));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, expected) in [
            ("%", "truncated line after '%'"),
            ("%{+Q", "truncated line after '+Q'"),
            ("%(a", "missing ')' after 'a'"),
            ("%[src", "missing ']' after 'src'"),
            ("%[src(", "missing ']' after 'src('"),
            ("%{+Z}f", "unknown flag 'Z'"),
            ("%{Q}f", "flag 'Q' needs a '+' or a '-' before it"),
            ("%r", "format variable 'r' is reserved for HTTP mode"),
            (
                "%(a:int)f",
                "unknown type 'int' in '(a:int)', there are 'str', 'sint' and 'bool'",
            ),
            ("a%{+json}o", "'%{+json}o' has to come first"),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected);
        }
        for (text, part) in [
            ("%zz", "no such format variable 'zz'"),
            ("%cix", "no such format variable 'cix'"),
            ("%-ci", "expected the name of a format variable"),
            ("%{+Q}", "expected the name of a format variable"),
            ("%{+cbor}o", "'cbor' is not implemented"),
            ("%OG", "'OG' is not implemented"),
        ] {
            let fault = parse(text).unwrap_err();
            assert!(fault.contains(part), "{text}: {fault}");
        }
        let long = "%f ".repeat(PIECES_MAX);
        assert!(parse(&long).unwrap_err().contains("more than"));
    }
}
