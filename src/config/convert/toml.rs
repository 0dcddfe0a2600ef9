//! Statements written as TOML, so that reading it gives the same statements in an order that means
//! the same.
//!
//! A keyword that repeats becomes one array, which moves its later lines up to the first. Where the
//! order between different keywords matters, and for the few statements that have no other form
//! (`default option`), the lines are kept whole, in one array named `lines`.

use std::collections::{BTreeMap, BTreeSet};

use super::{Notes, text, texts};
use crate::config::diagnostics::{Report, Severity};
use crate::config::raw::Statement;
use crate::config::raw::sections;
use crate::config::raw::toml::NAMELESS;

/// First words of keywords that consist of two, written as a dotted key.
const FAMILIES: &[&str] = &["option", "stats", "timeout"];

/// Keys that have a meaning of their own in a section's table.
const RESERVED: &[&str] = &["from", "lines", "name"];

/// Keywords whose lines depend on each other's order.
const ORDERED: &[&[&str]] = &[
    &["default-bind", "bind"],
    &["default-server", "peer", "server", "server-template"],
    &[
        "acl",
        "filter",
        "http-after-response",
        "http-request",
        "http-response",
        "stick",
        "tcp-request",
        "tcp-response",
        "use-server",
        "use_backend",
    ],
    &["presetenv", "resetenv", "setenv", "unsetenv"],
    &["group", "user"],
];

/// Says that comments are lost, if there are any.
pub(super) fn note_comments(bytes: &[u8], notes: &mut Notes) {
    let is_comment = |line: &&[u8]| line.trim_ascii_start().starts_with(b"#");
    let count = bytes
        .split(|byte| *byte == b'\n')
        .filter(is_comment)
        .count();
    if count > 0 {
        let text = format!("comments are not carried over; lines that have one: {count}.");
        notes.add(Severity::Notice, None, text);
    }
}

/// A section's header in its parts.
struct Header<'a> {
    kind: &'a str,
    name: Option<&'a str>,
    from: Option<&'a str>,
    /// Whether it is an item of an array of tables.
    item: bool,
}

/// The statements as TOML.
pub(super) fn write(statements: &[Statement], report: &mut Report) -> String {
    let mut sections = Vec::new();
    for section in statements.chunk_by(|_, next| !next.header) {
        let Some((header, lines)) = section.split_first() else {
            continue;
        };
        match read_header(header) {
            Some(header) => sections.push((header, lines)),
            None => {
                let text = format!("'{}' can't be written in TOML.", text::line(&texts(header)));
                report.alert(&header.place, header.words.first(), text);
            }
        }
    }
    // A name stands once, so kinds with a name twice or without one are arrays.
    let mut seen = BTreeSet::new();
    let mut arrays = BTreeSet::from(["defaults"]);
    for (header, _) in &sections {
        let alone = NAMELESS.contains(&header.kind);
        let again = !seen.insert((header.kind, header.name.filter(|_| !alone)));
        if again || alone == header.name.is_some() {
            arrays.insert(header.kind);
        }
    }
    let mut text = String::new();
    for (mut header, lines) in sections {
        header.item = arrays.contains(header.kind);
        if !text.is_empty() {
            text.push('\n');
        }
        write_header(&header, &mut text);
        write_lines(lines, &mut text);
    }
    text
}

fn read_header(header: &Statement) -> Option<Header<'_>> {
    let words = texts(header);
    let (kind, rest) = words.split_first()?;
    let (name, rest) = match rest {
        [] => (None, rest),
        ["from", ..] if *kind == "defaults" => (None, rest),
        [name, rest @ ..] => (Some(*name), rest),
    };
    let from = match rest {
        [] => None,
        ["from", origin] => Some(*origin),
        _ => return None,
    };
    Some(Header {
        kind,
        name,
        from,
        item: false,
    })
}

fn write_header(header: &Header<'_>, text: &mut String) {
    let kind = key(header.kind);
    match header.name {
        Some(name) if !header.item => text.push_str(&format!("[{kind}.{}]\n", key(name))),
        None if !header.item => text.push_str(&format!("[{kind}]\n")),
        _ => text.push_str(&format!("[[{kind}]]\n")),
    }
    if let Some(name) = header.name.filter(|_| header.item) {
        text.push_str(&format!("name = {}\n", string(name)));
    }
    if let Some(from) = header.from {
        text.push_str(&format!("from = {}\n", string(from)));
    }
}

/// A line as the value of a key.
struct Entry<'a> {
    /// What the lines of one key have in common: the keyword without its prefix.
    key: Vec<&'a str>,
    /// `None` = it can only be written whole.
    value: Option<String>,
    whole: String,
}

fn entry(statement: &Statement) -> Entry<'_> {
    let all = texts(statement);
    let whole = string(&text::line(&all));
    let (prefix, words) = match all.as_slice() {
        [prefix @ ("no" | "default"), rest @ ..] if !rest.is_empty() => (*prefix, rest),
        _ => ("", all.as_slice()),
    };
    let length = match words {
        [family, _, ..] if FAMILIES.contains(family) => 2,
        _ => 1,
    };
    let (keyword, arguments) = words.split_at(length.min(words.len()));
    let lonely = length == 1 && keyword.iter().any(|word| FAMILIES.contains(word));
    // Behind a prefix may stand what can't be a key: `no listen` is no section.
    let no_key = |word: &&str| {
        RESERVED.contains(word) || word.starts_with('.') || sections::standing(word).is_some()
    };
    let reserved = lonely || keyword.first().is_some_and(no_key);
    let value = match (prefix, arguments) {
        _ if reserved => None,
        ("", []) => Some("true".to_owned()),
        ("", [number]) if is_integer(number) => Some((*number).to_owned()),
        ("", _) => Some(string(&text::line(arguments))),
        ("no", []) => Some("false".to_owned()),
        _ => None,
    };
    Entry {
        key: keyword.to_vec(),
        value,
        whole,
    }
}

fn write_lines(lines: &[Statement], text: &mut String) {
    let entries: Vec<Entry<'_>> = lines.iter().map(entry).collect();
    let whole = written_whole(&entries);
    let is_whole = |entry: &Entry<'_>| whole.contains(entry.key.as_slice());
    let mut groups: BTreeMap<&[&str], Vec<&str>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| !is_whole(entry)) {
        groups
            .entry(&entry.key)
            .or_default()
            .extend(entry.value.as_deref());
    }
    let mut lines_written = false;
    for entry in &entries {
        if is_whole(entry) {
            if !std::mem::replace(&mut lines_written, true) {
                let all = entries.iter().filter(|entry| is_whole(entry));
                let values: Vec<&str> = all.map(|entry| entry.whole.as_str()).collect();
                // An array even of one, as the key says.
                text.push_str(&format!("lines = {}\n", array(&values)));
            }
        } else if let Some(values) = groups.remove(entry.key.as_slice()) {
            let path: Vec<String> = entry.key.iter().map(|part| key(part)).collect();
            let value = match values.as_slice() {
                [value] => (*value).to_owned(),
                values => array(values),
            };
            text.push_str(&format!("{} = {value}\n", path.join(".")));
        }
    }
}

/// The keys whose lines are written whole.
fn written_whole<'a>(entries: &'a [Entry<'a>]) -> BTreeSet<&'a [&'a str]> {
    let forced = entries.iter().filter(|entry| entry.value.is_none());
    let mut whole: BTreeSet<&[&str]> = forced.map(|entry| entry.key.as_slice()).collect();
    for class in ORDERED {
        let in_class = |entry: &&Entry<'_>| entry.key.first().is_some_and(|k| class.contains(k));
        let keys: Vec<&[&str]> = entries
            .iter()
            .filter(in_class)
            .map(|entry| entry.key.as_slice())
            .collect();
        // Grouping changes nothing as long as each keyword's lines stand together.
        let runs = keys.chunk_by(|one, next| one == next).count();
        let different: BTreeSet<&[&str]> = keys.iter().copied().collect();
        if runs > different.len() || different.iter().any(|key| whole.contains(key)) {
            whole.extend(different);
        }
    }
    whole
}

fn array(values: &[&str]) -> String {
    let items: Vec<String> = values
        .iter()
        .map(|value| format!("    {value},\n"))
        .collect();
    format!("[\n{}]", items.concat())
}

/// Whether TOML writes the number as the word is.
fn is_integer(word: &str) -> bool {
    word.parse::<i64>()
        .is_ok_and(|number| number.to_string() == word)
}

fn key(text: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !text.is_empty() && text.bytes().all(bare) {
        return text.to_owned();
    }
    string(text)
}

/// A string, in the quotes that need fewer escapes.
fn string(text: &str) -> String {
    let control = |c: char| c.is_control();
    if text.contains(['"', '\\']) && !text.contains('\'') && !text.contains(control) {
        return format!("'{text}'");
    }
    let mut written = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => written.extend(['\\', c]),
            c if c.is_control() => written.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => written.push(c),
        }
    }
    written.push('"');
    written
}
