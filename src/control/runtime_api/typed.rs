//! Values with their meaning, as `show info` and `show stat` print them: `typed` lines and JSON.
//!
//! HAProxy gives every value a type, and tags: where it comes from, what it is, of what it is, and
//! whether a restart keeps it. A reload keeps everything here; `P` stands, as there, where readers
//! may take a value for one that goes on counting.

use std::fmt::Write;

/// What a column or line is, whatever its value.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    /// HAProxy's letters for origin, nature and scope.
    pub(super) tags: &'static str,
    pub(super) kind: Kind,
    /// What it is, in words.
    pub(super) words: &'static str,
}

/// A row of a table of them.
pub(super) const fn field(
    name: &'static str,
    tags: &'static str,
    kind: Kind,
    words: &'static str,
) -> Field {
    Field {
        name,
        tags,
        kind,
        words,
    }
}

/// The type of a value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    S32,
    U32,
    U64,
    Text,
}

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// There is none.
    Empty,
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Unsigned(number)
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Unsigned(number.into())
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Value {
        Value::Unsigned(number.into())
    }
}

impl From<u8> for Value {
    fn from(number: u8) -> Value {
        Value::Unsigned(number.into())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Value {
        Value::Unsigned(number as u64)
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Value {
        Value::Signed(number.into())
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Signed(number)
    }
}

impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Value::Float(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.to_owned())
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Value {
        Value::Text(text.clone())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Empty => Ok(()),
            Value::Unsigned(number) => number.fmt(f),
            Value::Signed(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Text(text) => text.fmt(f),
        }
    }
}

impl Value {
    fn type_name(&self, kind: Kind) -> &'static str {
        match (self, kind) {
            (Value::Float(_), _) => "flt",
            (_, Kind::S32) => "s32",
            (_, Kind::U32) => "u32",
            (_, Kind::U64) => "u64",
            (_, Kind::Text) => "str",
        }
    }
}

/// How an answer is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Format {
    pub(super) shape: Shape,
    /// `desc`: with what it is in words.
    pub(super) with_words: bool,
}

/// See [`Format`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Shape {
    Plain,
    Typed,
    Json,
}

impl Format {
    pub(super) const PLAIN: Format = Format {
        shape: Shape::Plain,
        with_words: false,
    };

    /// Takes a word of a command; false if it says nothing about the format.
    pub(super) fn take(&mut self, word: &str) -> bool {
        match word {
            "typed" => self.shape = Shape::Typed,
            "json" => self.shape = Shape::Json,
            "desc" => self.with_words = true,
            _ => return false,
        }
        true
    }
}

/// `:MGPV:u32:5`, with the words if they are wanted. A counter counts on after a reload.
pub(super) fn typed_tail(out: &mut String, field: &Field, tags: &str, value: &Value, words: bool) {
    let lasting = if tags.as_bytes().get(1) == Some(&b'C') {
        'P'
    } else {
        'V'
    };
    let _ = write!(
        out,
        ":{tags}{lasting}:{}:{value}",
        value.type_name(field.kind)
    );
    words_of(out, field, words);
    out.push('\n');
}

/// `:"What it is"`
pub(super) fn words_of(out: &mut String, field: &Field, wanted: bool) {
    if wanted {
        let _ = write!(out, ":\"{}\"", field.words);
    }
}

/// The members that JSON has of every value, without braces.
pub(super) fn json_members(
    out: &mut String,
    position: usize,
    field: &Field,
    tags: &str,
    value: &Value,
) {
    let name = field.name;
    let letter = |index: usize| tags.as_bytes().get(index).copied().unwrap_or(b'?');
    let (origin, nature) = (word(ORIGINS, letter(0)), word(NATURES, letter(1)));
    let scope = word(SCOPES, letter(2));
    let _ = write!(
        out,
        "\"field\":{{\"pos\":{position},\"name\":\"{name}\"}},\"processNum\":1,\
         \"tags\":{{\"origin\":\"{origin}\",\"nature\":\"{nature}\",\"scope\":\"{scope}\"}},\
         \"value\":{{\"type\":\"{}\",\"value\":",
        value.type_name(field.kind)
    );
    match value {
        Value::Text(text) => json_text(out, text),
        Value::Empty => out.push_str("\"\""),
        Value::Unsigned(_) | Value::Signed(_) | Value::Float(_) => {
            let _ = write!(out, "{value}");
        }
    }
    out.push('}');
}

/// A text in quotes.
fn json_text(out: &mut String, text: &str) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control < ' ' => {
                let _ = write!(out, "\\u{:04x}", u32::from(control));
            }
            other => out.push(other),
        }
    }
    out.push('"');
}

/// What the letters of tags stand for.
pub(super) const ORIGINS: &[(u8, &str)] = &[
    (b'M', "Metric"),
    (b'S', "Status"),
    (b'K', "Key"),
    (b'C', "Config"),
    (b'P', "Product"),
];
/// See [`ORIGINS`].
pub(super) const NATURES: &[(u8, &str)] = &[
    (b'G', "Gauge"),
    (b'L', "Limit"),
    (b'm', "Min"),
    (b'M', "Max"),
    (b'R', "Rate"),
    (b'C', "Counter"),
    (b'D', "Duration"),
    (b'A', "Age"),
    (b'T', "Time"),
    (b'N', "Name"),
    (b'O', "Output"),
    (b'a', "Avg"),
];
/// See [`ORIGINS`].
pub(super) const SCOPES: &[(u8, &str)] = &[
    (b'C', "Cluster"),
    (b'P', "Process"),
    (b'S', "Service"),
    (b's', "System"),
];

fn word(table: &[(u8, &'static str)], letter: u8) -> &'static str {
    let found = table.iter().find(|(known, _)| *known == letter);
    found.map_or("Unknown", |(_, word)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Field = Field {
        name: "rate",
        tags: "MRP",
        kind: Kind::U32,
        words: "New sessions per second",
    };

    #[test]
    fn a_value_is_written_with_its_type_and_tags() {
        let mut out = String::new();
        typed_tail(&mut out, &RATE, RATE.tags, &7u32.into(), false);
        typed_tail(&mut out, &RATE, "MCP", &0.5.into(), true);
        let expected = ":MRPV:u32:7\n:MCPP:flt:0.5:\"New sessions per second\"\n";
        assert_eq!(out, expected);
    }

    #[test]
    fn json_has_the_tags_in_words_and_texts_in_quotes() {
        let mut out = String::new();
        let value = Value::from("a\"b\\\n");
        json_members(&mut out, 3, &RATE, "KNS", &value);
        let members: serde_json::Value = serde_json::from_str(&format!("{{{out}}}")).unwrap();
        assert_eq!(members["field"]["pos"], 3);
        assert_eq!(members["tags"]["origin"], "Key");
        assert_eq!(members["tags"]["nature"], "Name");
        assert_eq!(members["tags"]["scope"], "Service");
        assert_eq!(members["value"]["value"], "a\"b\\\n");
    }
}
