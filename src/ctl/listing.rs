//! `ctl sessions` and `ctl flows`: lines of `ID: name=value name=value ...`.
//!
//! The names differ between releases and between sessions and flows: those that are known to be
//! worth a column have one if they are there, and JSON has all of them.

use serde_json::{Map, Value, json};

use super::client::{Client, Trouble, is_refusal};
use super::options::{Listing, Verdict};
use super::values;
use crate::base::text::clean;
use crate::base::text::{counted, table};

/// Columns for people, in this order.
const COLUMNS: &[&str] = &[
    "proto", "src", "fe", "be", "srv", "age", "in", "out", "state", "exp",
];

/// One session or flow.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Entry {
    id: String,
    values: Vec<(String, String)>,
}

impl Entry {
    /// A line of `show sess` or `show flows`; `None` for one that isn't one.
    fn parse(line: &str) -> Option<Entry> {
        let (id, rest) = line.split_once(": ")?;
        if id.is_empty() || id.contains(char::is_whitespace) {
            return None;
        }
        let mut values = Vec::new();
        for word in words(rest) {
            // The insides of a stream, `rq[f=...]`, are one value.
            let place = word.find(['=', '['])?;
            let (name, value) = word.split_at(place);
            let value = value.strip_prefix('=').unwrap_or(value);
            values.push((clean(name), clean(value)));
        }
        (!values.is_empty()).then(|| Entry {
            id: clean(id),
            values,
        })
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut values = self.values.iter();
        let value = values.find(|(own, _)| own == name);
        value.map(|(_, value)| value.as_str())
    }

    fn is_wanted(&self, listing: &Listing) -> bool {
        let is = |name: &str, wanted: &str| self.value(name) == Some(wanted);
        let all = |wanted: &Option<String>, name: &str| {
            wanted.as_deref().is_none_or(|wanted| is(name, wanted))
        };
        let server = match listing
            .server
            .as_deref()
            .map(|server| server.split_once('/'))
        {
            None => true,
            Some(Some((backend, server))) => is("be", backend) && is("srv", server),
            Some(None) => all(&listing.server, "srv"),
        };
        server && all(&listing.frontend, "fe") && all(&listing.backend, "be")
    }
}

/// Words of a line; brackets keep theirs together.
fn words(text: &str) -> Vec<&str> {
    let (mut depth, mut start, mut words) = (0_i32, 0, Vec::new());
    for (at, letter) in text.char_indices() {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            ' ' if depth <= 0 => {
                words.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[start..]);
    words.retain(|word| !word.trim().is_empty());
    words
}

/// Asks by `command` and lists what is `wanted`.
pub(super) fn run(
    client: &Client,
    command: &str,
    what: &str,
    wanted: &Listing,
    as_json: bool,
) -> Result<(String, Verdict), Trouble> {
    let answer = client.ask(command)?;
    if is_refusal(&answer) {
        let line = answer.lines().next().unwrap_or("");
        return Err(Trouble::Refused(clean(line)));
    }
    let entries: Vec<Entry> = answer
        .lines()
        .filter_map(Entry::parse)
        .filter(|entry| entry.is_wanted(wanted))
        .collect();
    let shown = &entries[..entries.len().min(wanted.limit)];
    let text = if as_json {
        let value = json!({
            "verdict": Verdict::Ok.name(),
            "code": Verdict::Ok.code(),
            "count": entries.len(),
            what: shown.iter().map(as_value).collect::<Vec<_>>(),
        });
        values::line(&value)
    } else {
        as_text(what, shown, entries.len())
    };
    Ok((text, Verdict::Ok))
}

fn as_value(entry: &Entry) -> Value {
    let mut value = Map::new();
    value.insert("id".to_owned(), json!(entry.id));
    for (name, text) in &entry.values {
        value.insert(name.clone(), json!(text));
    }
    Value::Object(value)
}

fn as_text(what: &str, shown: &[Entry], all: usize) -> String {
    let columns: Vec<&str> = COLUMNS
        .iter()
        .copied()
        .filter(|name| shown.iter().any(|entry| entry.value(name).is_some()))
        .collect();
    let mut rows = Vec::new();
    if !shown.is_empty() {
        let head = std::iter::once("id").chain(columns.iter().copied());
        rows.push(head.map(str::to_owned).collect());
    }
    for entry in shown {
        let cells = columns.iter().map(|name| entry.value(name).unwrap_or("-"));
        let cells = std::iter::once(entry.id.as_str()).chain(cells);
        rows.push(cells.map(str::to_owned).collect::<Vec<_>>());
    }
    let left: Vec<usize> = (0..=columns.len()).collect();
    let mut text = table(0, &left, &rows);
    let singular = what.trim_end_matches('s');
    text.push_str(&counted(all, singular));
    if shown.len() < all {
        text.push_str(&format!(", the first {} of them shown", shown.len()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "0x5581: proto=tcpv4 src=127.0.0.1:5 fe=l be=l srv=s1 ts=02 age=3s calls=2 \
        rq[f=848202h,i=0,an=00h, rx=] scf=[8,0h,fd=9] exp=1m rc=0 c_exp=";

    fn wanted(server: Option<&str>) -> Listing {
        Listing {
            frontend: None,
            backend: None,
            server: server.map(str::to_owned),
            limit: 1,
        }
    }

    #[test]
    fn a_line_is_an_id_and_named_values() {
        let entry = Entry::parse(LINE).unwrap();
        assert_eq!(entry.id, "0x5581");
        assert_eq!(entry.value("src"), Some("127.0.0.1:5"));
        assert_eq!(entry.value("rq"), Some("[f=848202h,i=0,an=00h, rx=]"));
        assert_eq!(entry.value("c_exp"), Some(""));
        for other in ["", "No such session", "two words: a=b", "x: ", "a: b c"] {
            assert_eq!(Entry::parse(other), None, "{other}");
        }
    }

    #[test]
    fn entries_are_chosen_by_server_and_limited() {
        let entry = Entry::parse(LINE).unwrap();
        for (server, is_wanted) in [("s1", true), ("l/s1", true), ("b/s1", false), ("s2", false)] {
            assert_eq!(
                entry.is_wanted(&wanted(Some(server))),
                is_wanted,
                "{server}"
            );
        }
        let text = as_text("sessions", std::slice::from_ref(&entry), 3);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().take(4).collect::<Vec<_>>(),
            ["id", "proto", "src", "fe"]
        );
        assert_eq!(lines[2], "3 sessions, the first 1 of them shown");
        assert_eq!(as_text("flows", &[], 0), "0 flows\n");
    }
}
