//! The shape of a TOML configuration: which tables are sections, which keywords have tables of
//! parameters.

use ::toml::Spanned;
use ::toml::de::{DeString, DeTable, DeValue};

use crate::config::keywords::{closest, did_you_mean};
use crate::config::raw::sections;

pub(in crate::config) type Key<'a> = Spanned<DeString<'a>>;
pub(in crate::config) type Value<'a> = Spanned<DeValue<'a>>;

/// Sections without a name of their own, which a plain table may be.
pub(in crate::config) const NAMELESS: &[&str] = &["global", "defaults", "traces"];

/// Keywords whose arguments may be a table, with the keys of those arguments that have no name in
/// HAProxy's language, in their order.
const PARAMETER_TABLES: &[(&str, &[&str])] = &[
    ("bind", &["address"]),
    ("default-bind", &[]),
    ("default-server", &[]),
    ("dgram-bind", &["address"]),
    ("peer", &["name", "address"]),
    ("server", &["name", "address"]),
    ("server-template", &["prefix", "range", "address"]),
];

/// A section as the tree has it.
pub(in crate::config) struct Table<'a> {
    pub(in crate::config) offset: usize,
    pub(in crate::config) kind: &'a Key<'a>,
    pub(in crate::config) name: Option<&'a Key<'a>>,
    pub(in crate::config) table: &'a DeTable<'a>,
}

/// The sections that a top-level key stands for.
pub(in crate::config) fn sections_of<'a>(
    kind: &'a Key<'a>,
    value: &'a Value<'a>,
    sections: &mut Vec<Table<'a>>,
) -> Result<(), String> {
    let word = kind.get_ref().as_ref();
    let needs_table = || format!("section '{word}' is written as [{word}.NAME].");
    if sections::standing(word).is_none() {
        let near = did_you_mean(closest(word, sections::all_names()));
        return Err(format!("unknown section '{word}'{near}"));
    }
    let mut add = |value: &'a Value<'a>, name| match value.get_ref() {
        DeValue::Table(table) => {
            let offset = value.span().start;
            sections.push(Table {
                offset,
                kind,
                name,
                table,
            });
            Ok(())
        }
        _ => Err(needs_table()),
    };
    match value.get_ref() {
        DeValue::Table(_) if NAMELESS.contains(&word) => add(value, None),
        DeValue::Table(tables) => tables
            .iter()
            .try_for_each(|(name, table)| add(table, Some(name))),
        DeValue::Array(tables) => tables.iter().try_for_each(|table| add(table, None)),
        _ => Err(needs_table()),
    }
}

/// The items of an array, or the value itself.
pub(in crate::config) fn items<'a>(value: &'a Value<'a>) -> &'a [Value<'a>] {
    match value.get_ref() {
        DeValue::Array(items) => items,
        _ => std::slice::from_ref(value),
    }
}

pub(in crate::config) fn positional(keyword: &str) -> Option<&'static [&'static str]> {
    let mut tables = PARAMETER_TABLES.iter();
    tables
        .find(|(name, _)| *name == keyword)
        .map(|(_, keys)| *keys)
}
