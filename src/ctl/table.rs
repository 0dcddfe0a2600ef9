//! Answers with columns, read by the columns' names: the CSV of `show stat`, the fields of `show
//! info`.
//!
//! Which columns there are differs between releases and programs: one that isn't there is empty,
//! and one that nobody here knows is left alone.

use std::collections::HashMap;

use super::client::Trouble;
use crate::base::text::clean;

/// A table with named columns.
#[derive(Debug)]
pub(super) struct Table {
    columns: HashMap<String, usize>,
    rows: Vec<csv::StringRecord>,
}

impl Table {
    /// Reads `show stat`: a header behind `# `, a row for each object.
    pub(super) fn parse(text: &str) -> Result<Table, Trouble> {
        let strange =
            |what: String| Trouble::Strange(format!("this is no table of counters: {what}"));
        let Some(text) = text.strip_prefix("# ") else {
            let line = text.lines().next().unwrap_or("an empty answer");
            return Err(strange(clean(line)));
        };
        let mut reader = csv::ReaderBuilder::new()
            .flexible(true)
            .from_reader(text.as_bytes());
        let header = reader
            .headers()
            .map_err(|error| strange(error.to_string()))?;
        let columns: HashMap<String, usize> = header
            .iter()
            .enumerate()
            .map(|(index, name)| (name.to_owned(), index))
            .collect();
        for needed in ["pxname", "svname", "type", "status"] {
            if !columns.contains_key(needed) {
                return Err(strange(format!("there is no column {needed}")));
            }
        }
        // Rows end with a comma, as the header does, or without it.
        let least = header.len() - 1;
        let mut rows = Vec::new();
        for (index, row) in reader.records().enumerate() {
            let row = row.map_err(|error| strange(error.to_string()))?;
            if row.len() < least {
                let (row, found) = (index + 1, row.len());
                return Err(strange(format!(
                    "row {row} has {found} cells where there are {least} columns"
                )));
            }
            rows.push(row);
        }
        Ok(Table { columns, rows })
    }

    /// The rows in their order.
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|cells| Row {
            columns: &self.columns,
            cells,
        })
    }
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    columns: &'a HashMap<String, usize>,
    cells: &'a csv::StringRecord,
}

impl Row<'_> {
    /// A cell as text; empty where there is no such column.
    pub(super) fn text(&self, column: &str) -> String {
        let cell = self.columns.get(column).and_then(|at| self.cells.get(*at));
        clean(cell.unwrap_or(""))
    }

    /// A cell as a number; `None` where it is empty, or is none.
    pub(super) fn number(&self, column: &str) -> Option<u64> {
        self.text(column).parse().ok()
    }

    /// The same where none is as good as 0.
    pub(super) fn count(&self, column: &str) -> u64 {
        self.number(column).unwrap_or(0)
    }
}

/// The fields of `show info`, in their order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Info(Vec<(String, String)>);

impl Info {
    /// Reads lines of `Name: value`.
    pub(super) fn parse(text: &str) -> Result<Info, Trouble> {
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((clean(name), clean(value.trim())))
        };
        let info = Info(text.lines().filter_map(field).collect());
        if info.text("Name").is_empty() {
            let line = clean(text.lines().next().unwrap_or("an empty answer"));
            return Err(Trouble::Strange(format!(
                "this is no description of a process: {line}"
            )));
        }
        Ok(info)
    }

    /// A field; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        let mut fields = self.0.iter();
        let field = fields.find(|(own, _)| own == name);
        field.map_or("", |(_, value)| value)
    }

    /// All of them.
    pub(super) fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "# pxname,svname,status,type,last_chk,new_column,-,\n";

    fn table(rows: &str) -> Result<Table, Trouble> {
        Table::parse(&format!("{HEAD}{rows}"))
    }

    #[test]
    fn cells_are_found_by_the_names_of_their_columns() {
        let table = table("web,s1,UP,2,\"a, \"\"b\"\"\",7,-,\nweb,BACKEND,UP,1,,,-,\n").unwrap();
        let rows: Vec<Row> = table.rows().collect();
        assert_eq!(rows.len(), 2);
        assert_eq!(rows[0].text("last_chk"), "a, \"b\"");
        assert_eq!(rows[0].number("new_column"), Some(7));
        assert_eq!(rows[0].number("status"), None);
        assert_eq!(
            (rows[1].number("new_column"), rows[1].count("new_column")),
            (None, 0)
        );
        // Of an older or a newer release, or of another program.
        assert_eq!(
            (rows[0].text("missing"), rows[0].count("missing")),
            (String::new(), 0)
        );
    }

    #[test]
    fn a_quoted_line_feed_is_part_of_its_cell_and_not_printed() {
        let table = table("web,s1,UP,2,\"a\nb\x1b[2J\",7,-,\n").unwrap();
        assert_eq!(table.rows().next().unwrap().text("last_chk"), "a?b?[2J");
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let text = |result: Result<Table, Trouble>| result.unwrap_err().to_string();
        let unknown = text(Table::parse("Unknown command: 'show stat'\n"));
        assert!(unknown.contains("Unknown command"), "{unknown}");
        assert!(text(Table::parse("")).contains("an empty answer"));
        assert!(text(Table::parse("# a,b\n")).contains("no column pxname"));
        let cut = text(table("web,s1,UP,2,,7,-,\nweb,s2,U\n"));
        assert!(cut.contains("row 2 has 3 cells where there are 7"), "{cut}");
    }

    #[test]
    fn fields_of_a_process_have_names() {
        let info = Info::parse("Name: HAProxy\nUptime: 0d 0h00m04s\nCurrConns: 3\n").unwrap();
        assert_eq!(info.text("Uptime"), "0d 0h00m04s");
        assert_eq!((info.text("CurrConns"), info.text("Missing")), ("3", ""));
        assert_eq!(info.fields().count(), 3);
        assert!(Info::parse("Permission denied\n").is_err());
    }
}
