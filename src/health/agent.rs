//! What an agent says of its server: one line of words.
//!
//! Words are divided by blanks, tabs and commas and stand in any order; capitals don't matter. A
//! `#` at the beginning of a word makes the rest of the line a description. Words that nobody knows
//! are told to the operator and change nothing.

use crate::config::change::AdminState;

/// The longest text that is kept of what an agent says.
const TEXT_MAX: usize = 120;

/// A weight that an agent gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AgentWeight {
    /// Percent of the configured one.
    Percent(u32),
    /// This one.
    Number(u32),
}

impl AgentWeight {
    /// The weight of a server for which `configured` stands in the file; at most 256.
    pub fn of(self, configured: u16) -> u32 {
        const MAX: u64 = 256;
        let weight = match self {
            // A share that isn't 0 is not taken for nothing, which would be a drain.
            AgentWeight::Percent(percent) => {
                let product = u64::from(configured) * u64::from(percent);
                (product / 100).max(product.min(1))
            }
            AgentWeight::Number(number) => u64::from(number),
        };
        u32::try_from(weight.min(MAX)).unwrap_or(u32::MAX)
    }
}

/// What an agent said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Answer {
    /// `<n>%`, `weight:<n>` or `weight:<n>%`.
    pub weight: Option<AgentWeight>,
    /// `maxconn:<n>`, 0 = unlimited.
    pub maxconn: Option<u32>,
    /// `ready`, `drain` or `maint`: the last one.
    pub admin: Option<AdminState>,
    /// `up`, or one of `down`, `stopped` and `fail`: the last one.
    pub says_up: Option<bool>,
    /// The answer for people; empty if there is nothing that the state doesn't show.
    pub text: String,
}

impl Answer {
    /// Reads a line, which has no line feed any more.
    pub fn parse(line: &[u8]) -> Answer {
        let line = printable(line);
        let mut answer = Answer::default();
        let mut health = "";
        let mut remark = "";
        let mut rest = line.as_str();
        loop {
            rest = rest.trim_start_matches(is_blank);
            if let Some(description) = rest.strip_prefix('#') {
                remark = description.trim_matches(is_blank);
                break;
            }
            let (word, after) = rest.split_at(rest.find(is_blank).unwrap_or(rest.len()));
            if word.is_empty() {
                break;
            }
            rest = after;
            match word.to_ascii_lowercase().as_str() {
                "up" => (answer.says_up, health) = (Some(true), word),
                "down" | "stopped" | "fail" => (answer.says_up, health) = (Some(false), word),
                "ready" => answer.admin = Some(AdminState::Ready),
                "drain" => answer.admin = Some(AdminState::Drain),
                "maint" => answer.admin = Some(AdminState::Maintenance),
                other => {
                    if !answer.value(other) && remark.is_empty() {
                        remark = word;
                    }
                }
            }
        }
        answer.text = match (health, remark) {
            ("", "") => String::new(),
            ("", remark) => format!("agent reports an error : {remark}"),
            (health, "") => format!("via agent : {health}"),
            (health, remark) => format!("via agent : {health} ({remark})"),
        };
        answer
    }

    /// Takes a word that is a number; false if it isn't one that means something.
    fn value(&mut self, word: &str) -> bool {
        if let Some(number) = word.strip_prefix("maxconn:").and_then(number) {
            self.maxconn = Some(number);
            return true;
        }
        let (text, named) = match word.strip_prefix("weight:") {
            Some(text) => (text, true),
            None => (word, false),
        };
        let weight = match text.strip_suffix('%') {
            Some(percent) => number(percent).map(AgentWeight::Percent),
            None if named => number(text).map(AgentWeight::Number),
            None => None,
        };
        self.weight = weight.or(self.weight);
        weight.is_some()
    }
}

fn is_blank(letter: char) -> bool {
    matches!(letter, ' ' | '\t' | ',' | '\r')
}

fn number(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// The line without what would harm a terminal or a log line.
fn printable(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let harmless = |letter: char| {
        let kept = matches!(letter, '\t' | '\r') || !letter.is_control();
        if kept { letter } else { '?' }
    };
    text.chars().map(harmless).take(TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::hash;

    fn text(line: &str) -> String {
        Answer::parse(line.as_bytes()).text
    }

    #[test]
    fn words_stand_in_any_order() {
        let answer = Answer::parse(b"Ready, 50%\tUP maxconn:30\r");
        assert_eq!(answer.admin, Some(AdminState::Ready));
        assert_eq!(answer.weight, Some(AgentWeight::Percent(50)));
        assert_eq!((answer.maxconn, answer.says_up), (Some(30), Some(true)));
        assert_eq!(answer.text, "via agent : UP");
        let weight = |line: &str| Answer::parse(line.as_bytes()).weight;
        assert_eq!(weight("weight:7"), Some(AgentWeight::Number(7)));
        assert_eq!(weight("weight:7%"), Some(AgentWeight::Percent(7)));
        for wrong in [
            "7",
            "-5%",
            "%",
            "weight:",
            "weight:x",
            "99999999999%",
            "+5%",
        ] {
            assert_eq!(weight(wrong), None, "{wrong}");
            assert_eq!(text(wrong), format!("agent reports an error : {wrong}"));
        }
        assert_eq!(Answer::parse(b""), Answer::default());
        assert_eq!(Answer::parse(b"up down").says_up, Some(false));
        let last = Answer::parse(b"maint drain").admin;
        assert_eq!(last, Some(AdminState::Drain));
    }

    #[test]
    fn a_description_and_unknown_words_are_for_people() {
        assert_eq!(
            text("down #because of me"),
            "via agent : down (because of me)"
        );
        assert_eq!(text("stopped # x, y "), "via agent : stopped (x, y)");
        assert_eq!(text("up garbage more"), "via agent : up (garbage)");
        assert_eq!(text("fail#abc"), "agent reports an error : fail#abc");
        assert_eq!(text("drain 10%"), "");
        assert_eq!(text("up \u{1b}[2J"), "via agent : up (?[2J)");
        let long = "x".repeat(5_000);
        assert!(text(&long).len() < 200);
    }

    #[test]
    fn a_share_is_rounded_down_to_one_at_least_and_bounded() {
        let of = |percent, configured| AgentWeight::Percent(percent).of(configured);
        assert_eq!([of(50, 10), of(75, 10), of(1, 10), of(0, 10)], [5, 7, 1, 0]);
        assert_eq!([of(300, 10), of(u32::MAX, 256)], [30, 256]);
        assert_eq!(AgentWeight::Number(1_000).of(1), 256);
    }

    #[test]
    fn any_bytes_are_read() {
        for seed in 0..2_000 {
            let length = hash::sequence(seed, 0) % 64;
            let byte = |n| (hash::sequence(seed, n + 1) % 256) as u8;
            let line: Vec<u8> = (0..length).map(byte).collect();
            assert!(Answer::parse(&line).text.len() <= 5 * TEXT_MAX);
        }
    }
}
