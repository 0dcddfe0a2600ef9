//! Sets of threads and of CPUs, as `thread` of a `bind` line and `cpu-map` write them.
//!
//! HAProxy's threads are Tidegate's shards: thread 1 is shard 0. There is one thread group, number
//! 1. Ranges may be open at their end (`2-`) and the wrong way round (`4-1`), as HAProxy has them.

use crate::base::ids::ShardId;

/// Most threads: `nbthread` goes up to it, and sets have a bit for each.
pub const THREADS_MAX: u16 = 256;
/// The highest number a CPU may have: the kernel's static CPU sets hold 1024.
const CPU_MAX: u16 = 1023;

const WORDS: usize = THREADS_MAX as usize / 64;

/// A set of threads.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ThreadSet([u64; WORDS]);

impl ThreadSet {
    /// No thread.
    pub const NONE: ThreadSet = ThreadSet([0; WORDS]);
    /// Every thread that there may be.
    pub const ALL: ThreadSet = ThreadSet([u64::MAX; WORDS]);

    /// The shards from 0 to `count` - 1.
    pub fn first(count: u16) -> ThreadSet {
        (0..count.min(THREADS_MAX)).map(ShardId).collect()
    }

    /// Whether a shard is in the set.
    pub fn has(self, shard: ShardId) -> bool {
        let index = usize::from(shard.0);
        let word = self.0.get(index / 64).copied().unwrap_or(0);
        word >> (index % 64) & 1 == 1
    }

    /// What is in both.
    pub fn and(self, other: ThreadSet) -> ThreadSet {
        ThreadSet(std::array::from_fn(|index| self.0[index] & other.0[index]))
    }

    /// How many.
    pub fn len(self) -> u16 {
        let ones: u32 = self.0.iter().map(|word| word.count_ones()).sum();
        u16::try_from(ones).unwrap_or(THREADS_MAX)
    }

    /// Whether no thread is in it.
    pub fn is_empty(self) -> bool {
        self == ThreadSet::NONE
    }

    /// Its shards in rising order.
    pub fn iter(self) -> impl Iterator<Item = ShardId> {
        (0..THREADS_MAX).map(ShardId).filter(move |s| self.has(*s))
    }

    /// How many of its shards are before this one.
    pub fn position(self, shard: ShardId) -> u16 {
        self.and(ThreadSet::first(shard.0)).len()
    }
}

impl FromIterator<ShardId> for ThreadSet {
    fn from_iter<I: IntoIterator<Item = ShardId>>(shards: I) -> Self {
        let mut set = ThreadSet::NONE;
        set.extend(shards);
        set
    }
}

impl Extend<ShardId> for ThreadSet {
    fn extend<I: IntoIterator<Item = ShardId>>(&mut self, shards: I) {
        for shard in shards {
            if let Some(word) = self.0.get_mut(usize::from(shard.0) / 64) {
                *word |= 1 << (usize::from(shard.0) % 64);
            }
        }
    }
}

/// A `cpu-map` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CpuMap {
    /// One CPU for each thread, in order; otherwise each thread may use all of them.
    pub auto: bool,
    /// The threads.
    pub threads: ThreadSet,
    /// The CPUs in rising order.
    pub cpus: Vec<u16>,
}

/// A part of a set: `all`, `odd`, `even`, a number or a range. Gives the first, the last and the
/// step.
fn range(text: &str, lowest: u16, highest: u16) -> Result<(u16, u16, usize), Fault> {
    match text {
        "all" => return Ok((lowest, highest, 1)),
        "odd" => return Ok((lowest | 1, highest, 2)),
        "even" => return Ok((lowest + (lowest & 1), highest, 2)),
        _ => {}
    }
    let (low, high) = match text.split_once('-') {
        None => (text, Some(text)),
        Some((low, "")) => (low, None),
        Some((low, high)) => (low, Some(high)),
    };
    let number = |digits: &str| {
        if digits.is_empty() {
            return Err(Fault::Bounds);
        }
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fault::Form);
        }
        let number = digits.parse().map_err(|_| Fault::Bounds)?;
        if (lowest..=highest).contains(&number) {
            Ok(number)
        } else {
            Err(Fault::Bounds)
        }
    };
    let low = number(low)?;
    let high = high.map_or(Ok(highest), number)?;
    Ok((low.min(high), low.max(high), 1))
}

enum Fault {
    Form,
    Bounds,
}

fn numbers(text: &str, highest: u16) -> Result<(u16, u16, usize), String> {
    range(text, 1, highest).map_err(|fault| match fault {
        Fault::Form => format!("'{text}' is not a valid number/range."),
        Fault::Bounds => format!(
            "'{text}' is not a valid number/range. It supports numbers from 1 to {highest}."
        ),
    })
}

/// A set of threads of the only group: `1-4,odd`.
fn group_threads(text: &str) -> Result<ThreadSet, String> {
    let mut set = ThreadSet::NONE;
    for part in text.split(',') {
        let (low, high, step) = numbers(part, THREADS_MAX)?;
        set.extend((low..=high).step_by(step).map(|thread| ShardId(thread - 1)));
    }
    Ok(set)
}

/// The value of `thread` on a `bind` line: `[<group>/]<set>[,...]`.
pub(in crate::config) fn threads(text: &str) -> Result<ThreadSet, String> {
    let mut all = ThreadSet::NONE;
    for part in text.split(',') {
        let set = match part.split_once('/') {
            None => part,
            Some(("1", set)) => set,
            Some((group, _)) => {
                return Err(format!(
                    "'{text}' thread-group number must be between 1 and 1 (was {group})"
                ));
            }
        };
        all.extend(group_threads(set)?.iter());
    }
    Ok(all)
}

/// The first word of `cpu-map`, without `auto:`.
pub(in crate::config) struct Mapped {
    /// The threads of group 1 that it names.
    pub(in crate::config) threads: ThreadSet,
    /// It names other groups too, by their numbers.
    pub(in crate::config) other_groups: bool,
    /// The number of threads stands there, rather than `all`, `odd`, `even` or nothing.
    pub(in crate::config) counted: bool,
}

/// Reads the first word of `cpu-map`: `<groups>[/<threads>]`.
pub(in crate::config) fn mapped(text: &str) -> Result<Mapped, String> {
    let (groups, threads) = match text.split_once('/') {
        None => (text, None),
        Some((groups, threads)) => (groups, Some(threads)),
    };
    let named = |word: &str| matches!(word, "all" | "odd" | "even");
    let (first, last, _) = numbers(groups, THREADS_MAX)?;
    let set = group_threads(threads.unwrap_or("all"))?;
    Ok(Mapped {
        threads: if first == 1 { set } else { ThreadSet::NONE },
        other_groups: !named(groups) && last > 1,
        counted: threads.is_some_and(|threads| !threads.split(',').any(named)),
    })
}

/// The CPUs of `cpu-map`: `0-3`, `0,2`, each word alike.
pub(in crate::config) fn cpus<'a>(
    words: impl Iterator<Item = &'a str>,
) -> Result<Vec<u16>, String> {
    let mut named = [false; CPU_MAX as usize + 1];
    for part in words.flat_map(|word| word.split(',')) {
        if part.is_empty() || part.starts_with(|c: char| !c.is_ascii_digit()) {
            return Err(format!("'{part}' is not a CPU range."));
        }
        let (low, high, _) = range(part, 0, CPU_MAX).map_err(|fault| match fault {
            Fault::Form => format!("'{part}' is not a CPU range."),
            Fault::Bounds => format!("supports CPU numbers from 0 to {CPU_MAX}."),
        })?;
        named[usize::from(low)..=usize::from(high)].fill(true);
    }
    let all = (0..=CPU_MAX).zip(named);
    Ok(all
        .filter(|(_, named)| *named)
        .map(|(cpu, _)| cpu)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(set: ThreadSet) -> Vec<u16> {
        set.iter().map(|shard| shard.0 + 1).collect()
    }

    #[test]
    fn sets_of_threads() {
        assert_eq!(listed(threads("1").unwrap()), [1]);
        assert_eq!(listed(threads("4-2,7").unwrap()), [2, 3, 4, 7]);
        assert_eq!(listed(threads("1/1-2,1/9").unwrap()), [1, 2, 9]);
        assert_eq!(threads("all").unwrap(), ThreadSet::ALL);
        assert_eq!(threads("odd,even").unwrap(), ThreadSet::ALL);
        let even = threads("even").unwrap().and(ThreadSet::first(6));
        assert_eq!(listed(even), [2, 4, 6]);
        assert_eq!(even.len(), 3);
        assert_eq!(even.position(ShardId(5)), 2);
        assert_eq!(listed(threads("255-").unwrap()), [255, 256]);
        for text in [
            "", "0", "257", "x", "-3", "2/1", "1/", "1/x", "1,,2", "1-2-3", "+1",
        ] {
            assert!(threads(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_last_thread_has_a_bit() {
        assert!(ThreadSet::ALL.has(ShardId(THREADS_MAX - 1)));
        assert!(!ThreadSet::ALL.has(ShardId(THREADS_MAX)));
        assert_eq!(ThreadSet::ALL.len(), THREADS_MAX);
        assert_eq!(ThreadSet::first(u16::MAX), ThreadSet::ALL);
    }

    #[test]
    fn what_cpu_map_maps() {
        let one = mapped("1").unwrap();
        assert_eq!(one.threads, ThreadSet::ALL);
        assert!(!one.other_groups && !one.counted);
        let some = mapped("1/1-4").unwrap();
        assert_eq!(listed(some.threads), [1, 2, 3, 4]);
        assert!(!some.other_groups && some.counted);
        let many = mapped("1-4").unwrap();
        assert!(many.other_groups && many.threads == ThreadSet::ALL);
        assert!(mapped("2").unwrap().threads.is_empty());
        assert!(mapped("even").unwrap().threads.is_empty());
        assert!(!mapped("odd/odd").unwrap().counted);
        assert!(mapped("x").is_err() && mapped("1/x").is_err() && mapped("").is_err());
    }

    #[test]
    fn sets_of_cpus() {
        let read = |text: &str| cpus(text.split(' '));
        assert_eq!(read("0-1 3,2").unwrap(), [0, 1, 2, 3]);
        assert_eq!(read("3-1").unwrap(), [1, 2, 3]);
        assert_eq!(read("1020-").unwrap(), [1020, 1021, 1022, 1023]);
        for text in ["", "x", "all", "1,", "1024", "99999", "-1", "1-x"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
