//! Numbers, texts and tables as people read them, for commands that print.

/// A table of cells: the first column to the left, of the others those that `left` names; two
/// blanks between columns, none at the end of a line.
pub fn table(indent: usize, left: &[usize], rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let fill = " ".repeat(width - cell.chars().count());
            if column == 0 || left.contains(&column) {
                line.push_str(cell);
                line.push_str(&fill);
            } else {
                line.push_str(&fill);
                line.push_str(cell);
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// `1 server`, `2 servers`
pub fn counted(count: usize, what: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {what}{end}")
}

/// Three digits and a magnitude of 1,000: `999`, `1.23k`, `12.3M`. At most five characters.
pub fn short(number: u64) -> String {
    let mut value = number as f64;
    if value < 1000.0 {
        return number.to_string();
    }
    for unit in ["k", "M", "G", "T", "P", "E"] {
        value /= 1000.0;
        // Rounded to three digits it must stay below 1,000.
        if value < 999.5 {
            let digits = match value {
                value if value < 9.995 => 2,
                value if value < 99.95 => 1,
                _ => 0,
            };
            return format!("{value:.digits$}{unit}");
        }
    }
    number.to_string()
}

/// `45s`, `3m12s`, `2h5m`, `4d3h`
pub fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A part in percent; nothing of nothing has none.
pub fn share(part: u64, all: u64) -> String {
    if all == 0 {
        return "-".to_owned();
    }
    format!("{:.1}%", percent(part, all))
}

/// A part in percent, 0 of nothing.
pub fn percent(part: u64, all: u64) -> f64 {
    if all == 0 {
        return 0.0;
    }
    100.0 * part as f64 / all as f64
}

/// A number that may not be known.
pub fn known(number: Option<u64>) -> String {
    number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// What would move the cursor or change colours stays out of a terminal.
pub fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [
            0, 999, 1000, 1234, 9_994, 9_995, 12_345, 99_950, 999_499, 999_500, 1_500_000,
        ]
        .map(short);
        assert_eq!(
            shown,
            [
                "0", "999", "1.00k", "1.23k", "9.99k", "10.0k", "12.3k", "100k", "999k", "1.00M",
                "1.50M"
            ]
        );
        assert_eq!(short(u64::MAX), "18.4E");
        assert_eq!(
            [59, 60, 3661, 90_000].map(span),
            ["59s", "1m0s", "1h1m", "1d1h"]
        );
        assert_eq!((share(1, 3), share(0, 0)), ("33.3%".into(), "-".into()));
    }

    #[test]
    fn control_characters_are_not_printed() {
        assert_eq!(clean("a\tb\x1b[2J"), "a?b?[2J");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = table(1, &[2], &[row(&["a", "10", "x"]), row(&["long", "5", ""])]);
        assert_eq!(text, " a     10  x\n long   5\n");
    }
}
