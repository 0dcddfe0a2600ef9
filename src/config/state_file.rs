//! The lines of a state file, as `show servers state` prints them: version 1 of HAProxy's format.
//!
//! A line is words with one space between them, in a fixed order. What can't be read is a fault of
//! that line alone: the servers of the other lines begin as they were.

use std::fmt::Display;
use std::str::FromStr;

/// The version that is understood, alone on the first line.
const VERSION: &str = "1";
/// The last word of a line that every HAProxy of this format writes is `srvrecord`.
const WORDS_MIN: usize = 20;
/// HAProxy's largest weight.
const WEIGHT_MAX: u16 = 256;
/// The largest value of `srv_check_status` in HAProxy and of `srv_check_result`.
const STATUS_MAX: u8 = 63;
const RESULT_MAX: u8 = 4;
/// All bits of states of checks and of administrative states.
const BITS_MAX: u8 = 127;

/// Bits of `srv_admin_state`.
pub(super) const FORCED_MAINTENANCE: u8 = 0x01;
pub(super) const INHERITED_MAINTENANCE: u8 = 0x02;
pub(super) const CONFIGURED_MAINTENANCE: u8 = 0x04;
pub(super) const FORCED_DRAIN: u8 = 0x08;
pub(super) const UNRESOLVED: u8 = 0x20;
pub(super) const HOST_MAINTENANCE: u8 = 0x40;

/// Bits of `srv_check_state` and `srv_agent_state`.
pub(super) const CONFIGURED: u8 = 0x02;
pub(super) const ENABLED: u8 = 0x04;

/// What a file says of a server.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Row {
    pub(super) line: u32,
    pub(super) backend: String,
    pub(super) server: String,
    /// 0 stopped, 1 in its slow start, 2 running, 3 stopping.
    pub(super) op_state: u8,
    pub(super) admin_state: u8,
    pub(super) weight: u16,
    /// What the configuration said.
    pub(super) initial_weight: u16,
    pub(super) changed_ago_s: u64,
    pub(super) check_status: u8,
    pub(super) check_position: u16,
    pub(super) check_state: u8,
    pub(super) agent_state: u8,
}

/// A line that can't be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct LineFault {
    pub(super) line: u32,
    pub(super) text: String,
}

/// The lines of a file; `None` if it is not of the version that is understood. An empty file is one
/// without lines.
pub(super) fn read(text: &str) -> Option<(Vec<Row>, Vec<LineFault>)> {
    let (mut rows, mut faults) = (Vec::new(), Vec::new());
    if text.is_empty() {
        return Some((rows, faults));
    }
    let mut lines = (1u32..).zip(text.lines());
    if lines.next().map(|(_, first)| first.trim_end()) != Some(VERSION) {
        return None;
    }
    for (line, text) in lines {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        if words.first().is_none_or(|word| word.starts_with('#')) {
            continue;
        }
        match row(line, &words) {
            Ok(row) => rows.push(row),
            Err(text) => faults.push(LineFault { line, text }),
        }
    }
    Some((rows, faults))
}

fn row(line: u32, words: &[&str]) -> Result<Row, String> {
    let word = |index: usize| words.get(index).copied().unwrap_or_default();
    if words.len() < WORDS_MIN {
        return Err(format!(
            "corrupted: it has {} of at least {WORDS_MIN} words",
            words.len()
        ));
    }
    let mut wrong = String::new();
    let row = Row {
        line,
        backend: word(1).to_owned(),
        server: word(3).to_owned(),
        op_state: number(word(5), "srv_op_state", 3, &mut wrong),
        admin_state: number(word(6), "srv_admin_state", BITS_MAX, &mut wrong),
        weight: number(word(7), "srv_uweight", WEIGHT_MAX, &mut wrong),
        initial_weight: number(word(8), "srv_iweight", WEIGHT_MAX, &mut wrong),
        changed_ago_s: number(word(9), "srv_time_since_last_change", u64::MAX, &mut wrong),
        check_status: number(word(10), "srv_check_status", STATUS_MAX, &mut wrong),
        check_position: number(word(12), "srv_check_health", u16::MAX, &mut wrong),
        check_state: number(word(13), "srv_check_state", BITS_MAX, &mut wrong),
        agent_state: number(word(14), "srv_agent_state", BITS_MAX, &mut wrong),
    };
    let _: u8 = number(word(11), "srv_check_result", RESULT_MAX, &mut wrong);
    if wrong.is_empty() {
        return Ok(row);
    }
    let (backend, server) = (&row.backend, &row.server);
    Err(format!(
        "server-state application failed for server '{backend}/{server}'{wrong}"
    ))
}

/// A number of at most `most`; what is none is added to `wrong` and 0.
fn number<N>(word: &str, name: &str, most: N, wrong: &mut String) -> N
where
    N: FromStr + PartialOrd + Default + Display,
{
    let number = word.parse().ok().filter(|number| *number <= most);
    number.unwrap_or_else(|| {
        wrong.push_str(&format!(", invalid {name} value '{}'", word.escape_debug()));
        N::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "2 be 1 s1 127.0.0.1 3 8 5 10 7 8 2 1 6 18 0 0 - 9001 -";

    #[test]
    fn a_line_is_read() {
        let text = format!("1\n# be_id be_name\n\n{GOOD} 0 0 - - 0\n");
        let (rows, faults) = read(&text).unwrap();
        let row = Row {
            line: 4,
            backend: "be".to_owned(),
            server: "s1".to_owned(),
            op_state: 3,
            admin_state: FORCED_DRAIN,
            weight: 5,
            initial_weight: 10,
            changed_ago_s: 7,
            check_status: 8,
            check_position: 1,
            check_state: CONFIGURED | ENABLED,
            agent_state: 18,
        };
        assert_eq!((rows, faults), (vec![row], Vec::new()));
    }

    #[test]
    fn a_bad_line_costs_no_other_its_place() {
        let bad = GOOD.replace(" 3 8 5 ", " 4 8 x\u{7} ");
        let (rows, faults) = read(&format!("1\nbad line\n{bad}\n{GOOD}")).unwrap();
        let lines: Vec<u32> = rows.iter().map(|row| row.line).collect();
        assert_eq!(lines, [4]);
        let texts: Vec<(u32, &str)> = faults.iter().map(|f| (f.line, f.text.as_str())).collect();
        let failed = "server-state application failed for server 'be/s1', invalid srv_op_state \
                      value '4', invalid srv_uweight value 'x\\u{7}'";
        let short = "corrupted: it has 2 of at least 20 words";
        assert_eq!(texts, [(2, short), (3, failed)]);
    }

    #[test]
    fn every_number_has_its_bounds() {
        for index in 5..15 {
            for bad in ["-1", "1x", "", "99999999999999999999999"] {
                let mut words: Vec<&str> = GOOD.split(' ').collect();
                words[index] = if bad.is_empty() { "-" } else { bad };
                let (rows, faults) = read(&format!("1\n{}", words.join(" "))).unwrap();
                assert!(rows.is_empty() && faults.len() == 1, "{index} {bad}");
            }
        }
    }

    #[test]
    fn only_the_known_version_is_read() {
        for text in ["2\n", "\n1\n", "# x\n1\n", "11\n", "show"] {
            assert_eq!(read(text), None, "{text:?}");
        }
        let none = Some((Vec::new(), Vec::new()));
        for text in ["", "1", "1\n", "1\r\n# x\n"] {
            assert_eq!(read(text), none, "{text:?}");
        }
    }
}
