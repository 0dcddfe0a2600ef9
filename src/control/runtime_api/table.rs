//! A row of `show stat`, filled by column names and written in one of three shapes.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::LazyLock;

use super::columns::{COLUMNS, SEPARATOR};
use super::typed::{self, Format, Shape, Value};
use crate::config::plan::Proxy;

/// The places of the columns.
static PLACES: LazyLock<HashMap<&str, usize>> = LazyLock::new(|| {
    COLUMNS
        .iter()
        .enumerate()
        .map(|(at, column)| (column.name, at))
        .collect()
});

/// What a row is of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Object {
    Frontend = 0,
    Backend = 1,
    Server = 2,
    Listener = 3,
}

/// The first line of the plain table.
pub(in crate::control) fn header() -> String {
    let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
    format!("# {},\n", names.join(","))
}

/// Where a column stands.
pub(in crate::control) fn place(column: &str) -> Option<usize> {
    PLACES.get(column).copied()
}

/// One line of the table.
pub(in crate::control) struct Row {
    object: Object,
    iid: u32,
    sid: u32,
    values: Vec<Value>,
    /// The values as texts, once somebody asks for one.
    texts: OnceCell<Vec<String>>,
}

impl Row {
    pub(super) fn new(proxy: &Proxy, name: &str, object: Object, sid: u32) -> Row {
        let mut row = Row {
            object,
            iid: proxy.iid,
            sid,
            values: vec![Value::Empty; COLUMNS.len()],
            texts: OnceCell::new(),
        };
        row.set("pxname", &*proxy.name);
        row.set("svname", name);
        row.set("type", object as u8);
        row.set("pid", 1u8);
        row.set("iid", proxy.iid);
        row.set("sid", sid);
        row.set("mode", proxy.mode());
        row
    }

    /// Sets a column by its name; the tests make sure that every name used here exists.
    pub(super) fn set(&mut self, column: &str, value: impl Into<Value>) {
        let place = place(column);
        debug_assert!(place.is_some(), "no column {column}");
        if let Some(cell) = place.and_then(|place| self.values.get_mut(place)) {
            *cell = value.into();
        }
    }

    /// What a column has; empty = nothing.
    pub(in crate::control) fn value(&self, column: &str) -> &str {
        self.at(place(column))
    }

    /// The same of the column at a [`place`].
    pub(in crate::control) fn at(&self, place: Option<usize>) -> &str {
        let texts = || self.values.iter().map(Value::to_string).collect();
        let texts = self.texts.get_or_init(texts);
        place
            .and_then(|index| texts.get(index))
            .map_or("", |value| value)
    }

    /// Writes it. `first` = there is none before it: rows in JSON are divided by commas.
    pub(super) fn write(&self, out: &mut String, format: Format, first: bool) {
        match format.shape {
            Shape::Plain => self.write_plain(out),
            Shape::Typed => self.write_typed(out, format.with_words),
            Shape::Json => {
                if !first {
                    out.push(',');
                }
                self.write_json(out);
            }
        }
    }

    pub(in crate::control) fn write_plain(&self, out: &mut String) {
        for (at, value) in self.values.iter().enumerate() {
            match value {
                Value::Text(text) if text.contains(['"', ',', '\r', '\n']) => {
                    let _ = write!(out, "\"{}\"", text.replace('"', "\"\""));
                }
                _ if at == SEPARATOR => out.push('-'),
                value => {
                    let _ = write!(out, "{value}");
                }
            }
            out.push(',');
        }
        out.push('\n');
    }

    /// The columns that have a value.
    fn filled(&self) -> impl Iterator<Item = (usize, &'static typed::Field, &Value)> {
        let columns = COLUMNS.iter().zip(&self.values).enumerate();
        let filled = columns.filter(|(_, (_, value))| **value != Value::Empty);
        filled.map(|(at, (column, value))| (at, column, value))
    }

    /// What is counted of a backend is a state of a server.
    fn tags(&self, column: &typed::Field) -> &'static str {
        match column.name {
            "act" | "bck" if self.object == Object::Server => "SGP",
            _ => column.tags,
        }
    }

    fn write_typed(&self, out: &mut String, with_words: bool) {
        let letter = match self.object {
            Object::Frontend => 'F',
            Object::Backend => 'B',
            Object::Server => 'S',
            Object::Listener => 'L',
        };
        for (at, column, value) in self.filled() {
            let _ = write!(
                out,
                "{letter}.{}.{}.{at}.{}.1",
                self.iid, self.sid, column.name
            );
            typed::typed_tail(out, column, self.tags(column), value, with_words);
        }
    }

    fn write_json(&self, out: &mut String) {
        let name = match self.object {
            Object::Frontend => "Frontend",
            Object::Backend => "Backend",
            Object::Server => "Server",
            Object::Listener => "Listener",
        };
        out.push('[');
        for (count, (at, column, value)) in self.filled().enumerate() {
            out.push_str(if count == 0 { "{" } else { ",{" });
            let (iid, sid) = (self.iid, self.sid);
            let _ = write!(
                out,
                "\"objType\":\"{name}\",\"proxyId\":{iid},\"id\":{sid},"
            );
            typed::json_members(out, at, column, self.tags(column), value);
            out.push('}');
        }
        out.push(']');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(first: &str) -> Row {
        let mut values = vec![Value::Empty; COLUMNS.len()];
        values[0] = first.into();
        values[4] = 3u32.into();
        Row {
            object: Object::Server,
            iid: 2,
            sid: 7,
            values,
            texts: OnceCell::new(),
        }
    }

    #[test]
    fn the_header_has_its_columns_at_their_places() {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        assert_eq!(names.len(), 119 + 3);
        assert_eq!(header(), format!("# {},\n", names.join(",")));
        for (index, name) in [
            (0, "pxname"),
            (17, "status"),
            (32, "type"),
            (36, "check_status"),
            (73, "addr"),
            (89, "src_ilim"),
            (100, "agg_server_status"),
            (105, "h1sess"),
            (118, "cache_hint_hits"),
            (119, "-"),
            (120, "udp_datagrams_in"),
        ] {
            assert_eq!(names[index], name);
        }
    }

    #[test]
    fn a_value_with_a_comma_is_quoted() {
        let mut out = String::new();
        row("a,\"b").write(&mut out, Format::PLAIN, true);
        assert!(out.starts_with("\"a,\"\"b\",,,,3,,"), "{out}");
        assert_eq!(out.matches(',').count(), COLUMNS.len() + 1);
    }

    #[test]
    fn typed_and_json_have_what_has_a_value() {
        let mut out = String::new();
        row("a").write_typed(&mut out, false);
        assert_eq!(
            out,
            "S.2.7.0.pxname.1:KNSV:str:a\nS.2.7.4.scur.1:MGPV:u32:3\n"
        );
        out.clear();
        row("a").write_json(&mut out);
        let values: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(values[1]["field"]["name"], "scur");
        assert_eq!(values[1]["value"]["value"], 3);
        assert_eq!(values[1]["objType"], "Server");
        assert!(values.get(2).is_none());
    }
}
