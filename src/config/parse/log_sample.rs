//! `sample` of `log` lines: `1:10`, `2-3,8-11:11`.

use crate::config::plan::LogSample;

/// Ranges of a sample: enough for any share, and looked through for each line.
const RANGES_MAX: usize = 64;

/// Reads `<ranges>:<size>`; the error has no `log : ` before it.
pub(super) fn parse(text: &str) -> Result<LogSample, String> {
    let (list, size) = text.split_once(':').ok_or("Missing sample size")?;
    if list.is_empty() {
        return Err("no sampling ranges given".to_owned());
    }
    let number = |text: &str| text.parse::<u32>().ok().filter(|number| *number > 0);
    let mut ranges = Vec::new();
    for range in list.split(',') {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let bounds = number(low)
            .zip(number(high))
            .filter(|(low, high)| low <= high);
        ranges.push(bounds.ok_or_else(|| format!("wrong sample range '{range}'"))?);
        if ranges.len() > RANGES_MAX {
            return Err(format!("more than {RANGES_MAX} ranges"));
        }
    }
    ranges.sort_unstable();
    if ranges.windows(2).any(|pair| pair[1].0 <= pair[0].1) {
        return Err("ranges are overlapping".to_owned());
    }
    let size = number(size)
        .ok_or_else(|| format!("wrong sample size '{size}' for sample range '{list}'"))?;
    let most = ranges.last().map_or(0, |range| range.1);
    if size < most {
        return Err(format!(
            "sample size {size} should be greater or equal to {most} the maximum of the high \
             ranges limits"
        ));
    }
    Ok(LogSample { ranges, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_their_size() {
        let read = |text| parse(text).unwrap();
        assert_eq!(read("1:10").ranges, [(1, 1)]);
        let sample = read("8-11,2-3:11");
        assert_eq!((sample.ranges, sample.size), (vec![(2, 3), (8, 11)], 11));
    }

    #[test]
    fn what_is_wrong_is_named_as_haproxy_does() {
        for (text, expected) in [
            ("1", "Missing sample size"),
            (":5", "no sampling ranges given"),
            ("0:5", "wrong sample range '0'"),
            ("5-3:5", "wrong sample range '5-3'"),
            ("1-2-3:5", "wrong sample range '1-2-3'"),
            ("1,,2:5", "wrong sample range ''"),
            ("4294967296:5", "wrong sample range '4294967296'"),
            ("1-3,2-4:5", "ranges are overlapping"),
            ("2,2:5", "ranges are overlapping"),
            ("1:", "wrong sample size '' for sample range '1'"),
            ("1:0", "wrong sample size '0' for sample range '1'"),
            (
                "7:5",
                "sample size 5 should be greater or equal to 7 the maximum of the high ranges limits",
            ),
        ] {
            assert_eq!(parse(text).unwrap_err(), expected, "{text}");
        }
        let many: Vec<String> = (1..=65).map(|n| n.to_string()).collect();
        assert!(parse(&format!("{}:65", many.join(","))).is_err());
    }
}
