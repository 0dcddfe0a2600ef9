//! What the runtime socket answers, parsed: the table of `show stat`, the numbers of `show
//! activity`.

use std::collections::HashMap;

/// The table of `show stat`.
#[derive(Debug)]
pub(crate) struct Stat {
    rows: Vec<HashMap<String, String>>,
}

impl Stat {
    /// Parses the CSV text.
    pub(crate) fn parse(text: &str) -> Self {
        let mut lines = text.lines().filter(|line| !line.is_empty());
        let header = lines
            .next()
            .and_then(|line| line.strip_prefix("# "))
            .unwrap_or_else(|| {
                panic!("show stat has no header: {text}");
            });
        let names: Vec<&str> = header.split(',').collect();
        let rows = lines
            .map(|line| {
                let cells = names.iter().zip(split(line));
                cells
                    .map(|(name, cell)| ((*name).to_owned(), cell))
                    .collect()
            })
            .collect();
        Stat { rows }
    }

    /// A cell of the row of a proxy and `FRONTEND`, `BACKEND` or a server.
    pub(crate) fn text(&self, proxy: &str, server: &str, column: &str) -> &str {
        let row = self
            .rows
            .iter()
            .find(|row| row["pxname"] == proxy && row["svname"] == server);
        let row = row.unwrap_or_else(|| panic!("no row {proxy}/{server} in {:?}", self.rows));
        row.get(column)
            .unwrap_or_else(|| panic!("no column {column}"))
    }

    /// The same as a number; 0 for an empty cell.
    pub(crate) fn number(&self, proxy: &str, server: &str, column: &str) -> u64 {
        let text = self.text(proxy, server, column);
        if text.is_empty() {
            0
        } else {
            text.parse().unwrap_or_else(|_| panic!("{column}: {text}"))
        }
    }

    /// Open and queued sessions over all rows.
    pub(crate) fn total_sessions_open(&self) -> u64 {
        let number = |row: &HashMap<String, String>, column: &str| {
            row.get(column)
                .and_then(|cell| cell.parse::<u64>().ok())
                .unwrap_or(0)
        };
        self.rows
            .iter()
            .map(|row| number(row, "scur") + number(row, "qcur"))
            .sum()
    }
}

/// Cells of a CSV line; a cell may be quoted.
fn split(line: &str) -> Vec<String> {
    let mut cells = vec![String::new()];
    let mut quoted = false;
    for letter in line.chars() {
        match letter {
            '"' => quoted = !quoted,
            ',' if !quoted => cells.push(String::new()),
            other => cells.last_mut().expect("never empty").push(other),
        }
    }
    cells
}

/// The numbers of `show activity`.
#[derive(Debug)]
pub(crate) struct Activity {
    text: Option<String>,
}

impl Activity {
    /// Of an answer.
    pub(crate) fn parse(text: String) -> Self {
        Activity { text: Some(text) }
    }

    /// Of a program that has none.
    pub(crate) fn none() -> Self {
        Activity { text: None }
    }

    /// The first number after `name`, summed over the lines that have it; `None` where nothing has
    /// it.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let mut sum = None;
        for line in self.text.as_deref()?.lines() {
            let mut words = line
                .split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_')
                .filter(|word| !word.is_empty());
            if words.any(|word| word == name) {
                let number = words.next().and_then(|word| word.parse::<u64>().ok());
                sum = number.map(|n| n + sum.unwrap_or(0)).or(sum);
            }
        }
        sum
    }

    /// Whether the answer has this line.
    pub(crate) fn has_line(&self, line: &str) -> bool {
        let text = self.text.as_deref().unwrap_or("");
        text.lines().any(|own| own == line)
    }

    /// The number of each shard: `name: SUM [ OF EACH ]`.
    pub(crate) fn of_each_shard(&self, name: &str) -> Vec<u64> {
        let text = self.text.as_deref().unwrap_or("");
        let each = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let each = each
            .and_then(|rest| rest.split_once('['))
            .map_or("", |(_, each)| each);
        each.split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect()
    }

    /// Whether every shard has a number other than zero.
    pub(crate) fn nonzero_on_all_shards(&self, name: &str) -> bool {
        let numbers = self.of_each_shard(name);
        !numbers.is_empty() && numbers.iter().all(|number| *number > 0)
    }

    /// What must be zero when nothing is open and is not, in words.
    pub(crate) fn leftovers(&self) -> Vec<String> {
        let Some(text) = &self.text else {
            return Vec::new();
        };
        let expect = |name: &str| {
            self.number(name)
                .unwrap_or_else(|| panic!("show activity lacks {name}:\n{text}"))
        };
        let zero = [
            "sessions",
            "private_bytes",
            "private_taken_bytes",
            "pipes_used",
            "parked",
            "load",
            "sources_held",
            "timers",
            "server_active_total",
            "limits_taken",
            "queued",
            "errors_unexpected",
            "flows",
        ];
        let mut left: Vec<String> = zero
            .iter()
            .filter(|name| expect(name) != 0)
            .map(|name| format!("{name} {}", expect(name)))
            .collect();
        let (free, total) = (expect("buffers_free"), expect("buffers_total"));
        if free != total {
            left.push(format!("{free} of {total} buffers free"));
        }
        let (handed, taken) = (expect("handed_over"), expect("taken_over"));
        if handed != taken {
            left.push(format!("{handed} handed over, {taken} taken over"));
        }
        left
    }
}
