//! When a server is probed: the interval of its state, spread over time.
//!
//! Pure arithmetic: the probe thread brings clock and random numbers.

use std::time::Duration;

use super::rules::Rules;
use crate::config::plan::Check;

/// Time to the next probe: `inter` while the server is up and settled, `downinter` while it is down
/// and settled, `fastinter` otherwise, so that a change is seen sooner.
pub fn interval_ms(rules: Rules, check: &Check) -> u32 {
    match (rules.is_settled(), rules.is_up()) {
        (true, true) => check.inter_ms,
        (true, false) => check.down_inter_ms,
        (false, _) => check.fast_inter_ms,
    }
}

/// An interval made longer or shorter by a random part of at most `percent` of it
/// (`spread-checks`): probes of many servers then don't stay in step.
pub fn spread_ms(interval_ms: u32, percent: u8, random: u64) -> u32 {
    let most = u64::from(interval_ms) * u64::from(percent) / 100;
    let spread = u64::from(interval_ms) - most + random % (2 * most + 1);
    u32::try_from(spread).unwrap_or(u32::MAX)
}

/// When the first probe of one of `count` servers comes: all are spread over the smallest of their
/// intervals, and over no more than `max-spread-checks`, so that they don't come in one burst.
pub fn first_after(position: u64, count: u64, smallest_ms: u32, most_ms: Option<u32>) -> Duration {
    let over_ms = smallest_ms.min(most_ms.unwrap_or(u32::MAX));
    Duration::from_micros(u64::from(over_ms) * 1000 * position / count.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::rules::Outcome::{Failed, Passed};
    use super::*;
    use crate::base::address::Address;
    use crate::base::hash;

    #[test]
    fn a_state_that_may_change_is_probed_sooner() {
        let check = Check {
            fast_inter_ms: 300,
            down_inter_ms: 5000,
            fall: 2,
            ..Check::of(Address::Ip("127.0.0.1:1".parse().unwrap()))
        };
        let mut rules = Rules::of(&check);
        assert_eq!(interval_ms(rules, &check), 300, "not checked yet");
        let intervals = [Passed, Failed, Failed, Failed, Passed, Passed].map(|outcome| {
            rules.observe(outcome);
            interval_ms(rules, &check)
        });
        assert_eq!(intervals, [2000, 300, 5000, 5000, 300, 2000]);
    }

    #[test]
    fn a_spread_interval_stays_near_and_is_even() {
        let spread: Vec<_> = (0..10_000)
            .map(|n| spread_ms(1000, 20, hash::sequence(7, n)))
            .collect();
        assert_eq!(spread.iter().min(), Some(&800));
        assert_eq!(spread.iter().max(), Some(&1200));
        let mean = spread.iter().sum::<u32>() / 10_000;
        assert!((990..=1010).contains(&mean), "{mean}");
        assert_eq!(spread_ms(1000, 0, u64::MAX), 1000);
        assert_eq!(spread_ms(0, 50, 5), 0);
        assert!(spread_ms(i32::MAX as u32, 50, u64::MAX - 1) > 1 << 30);
    }

    #[test]
    fn first_probes_share_the_smallest_interval() {
        let offsets = |most_ms| {
            (0..4)
                .map(|n| first_after(n, 4, 2000, most_ms).as_millis())
                .collect::<Vec<_>>()
        };
        assert_eq!(offsets(None), [0, 500, 1000, 1500]);
        assert_eq!(offsets(Some(100)), [0, 25, 50, 75]);
        assert_eq!(offsets(Some(9000)), [0, 500, 1000, 1500]);
        assert_eq!(first_after(0, 0, 2000, None), Duration::ZERO);
    }
}
