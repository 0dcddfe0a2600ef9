//! What was expected, and whether it is so: the exit code of a test.

use super::options::Options;
use super::tally::Tally;

/// An expectation with what was found.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Expectation {
    pub(super) what: &'static str,
    pub(super) wanted: String,
    pub(super) found: String,
    pub(super) is_met: bool,
}

/// Those that the options have, held against a tally. `is_failover` has one more.
pub(super) fn expectations(
    options: &Options,
    tally: &Tally,
    is_failover: bool,
) -> Vec<Expectation> {
    let mut all = Vec::new();
    if let Some(wanted) = options.expect_success {
        let success = tally.success();
        all.push(Expectation {
            what: "success",
            wanted: format!("at least {wanted}%"),
            found: format!("{success:.3}%"),
            is_met: success >= wanted,
        });
    }
    if let Some(wanted) = options.expect_servers {
        let found = tally.servers.len();
        all.push(Expectation {
            what: "servers",
            wanted: wanted.to_string(),
            found: found.to_string(),
            is_met: found == wanted && tally.others == 0,
        });
    }
    if let Some(wanted) = options.expect_even {
        let found = tally.unevenness();
        all.push(Expectation {
            what: "even shares",
            wanted: format!("within {wanted}%"),
            found: found.map_or_else(
                || "no answers".to_owned(),
                |off| format!("off by {off:.1}%"),
            ),
            is_met: found.is_some_and(|off| off <= wanted),
        });
    }
    if let (Some(wanted), true) = (options.expect_gap, is_failover) {
        let found = tally.gap().length();
        all.push(Expectation {
            what: "longest gap",
            wanted: format!("at most {} ms", wanted.as_millis()),
            found: format!("{} ms", found.as_millis()),
            is_met: found <= wanted,
        });
    }
    all
}

/// 0 what was expected, 1 not so, 2 nothing succeeded.
pub(super) fn code(tally: &Tally, expectations: &[Expectation]) -> u8 {
    if tally.succeeded == 0 {
        return 2;
    }
    u8::from(expectations.iter().any(|expectation| !expectation.is_met))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::time::Moment;
    use crate::probe_tool::attempt::{Answer, Failure};
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn options(words: &str) -> Options {
        let words = format!("probe load --target h:1 {words}");
        Line::try_parse_from(words.split_whitespace())
            .unwrap()
            .options
    }

    fn met(words: &str, tally: &Tally) -> Vec<bool> {
        let all = expectations(&options(words), tally, true);
        all.iter().map(|expectation| expectation.is_met).collect()
    }

    #[test]
    fn what_was_expected_is_held_against_what_was_found() {
        let mut tally = Tally::new(Moment(0));
        assert_eq!(code(&tally, &[]), 2);
        for (ms, name) in [(1, "a"), (2, "a"), (3, "b"), (900, "b")] {
            tally.record(
                Moment(0).after_ms(ms),
                Ok(Answer {
                    name: Some(name.to_owned()),
                    connect_us: None,
                    answer_us: 1,
                }),
            );
        }
        tally.record(Moment(0).after_ms(901), Err(Failure::Closed));
        assert_eq!(
            met("--expect-success 80 --expect-even 0", &tally),
            [true, true]
        );
        assert_eq!(
            met("--expect-success 80.1 --expect-servers 2", &tally),
            [false, true]
        );
        assert_eq!(
            met("--expect-servers 3 --expect-gap 896ms", &tally),
            [false, false]
        );
        assert_eq!(met("--expect-gap 897ms", &tally), [true]);
        assert!(expectations(&options("--expect-gap 1ms"), &tally, false).is_empty());
        let unmet = expectations(&options("--expect-success 100"), &tally, false);
        assert_eq!((code(&tally, &unmet), code(&tally, &[])), (1, 0));
    }
}
