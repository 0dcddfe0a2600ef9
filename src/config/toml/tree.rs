//! The shape of a TOML configuration: which tables are sections, which keywords have tables of
//! parameters.

use ::toml::Spanned;
use ::toml::de::{DeString, DeTable, DeValue};

use super::super::keywords::{closest, did_you_mean};
use super::super::sections;

pub(super) type Key<'a> = Spanned<DeString<'a>>;
pub(super) type Value<'a> = Spanned<DeValue<'a>>;

/// Sections without a name of their own, which a plain table may be.
pub(in super::super) const NAMELESS: &[&str] = &["global", "defaults", "traces"];

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
pub(super) struct Table<'a> {
    pub(super) offset: usize,
    pub(super) kind: &'a Key<'a>,
    pub(super) name: Option<&'a Key<'a>>,
    pub(super) table: &'a DeTable<'a>,
}

/// The sections that a top-level key stands for.
pub(super) fn sections_of<'a>(
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
pub(super) fn items<'a>(value: &'a Value<'a>) -> &'a [Value<'a>] {
    match value.get_ref() {
        DeValue::Array(items) => items,
        _ => std::slice::from_ref(value),
    }
}

pub(super) fn positional(keyword: &str) -> Option<&'static [&'static str]> {
    let mut tables = PARAMETER_TABLES.iter();
    tables
        .find(|(name, _)| *name == keyword)
        .map(|(_, keys)| *keys)
}
