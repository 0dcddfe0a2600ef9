//! What conditions may ask about: the version, what is built in and what is switched on.
//!
//! The answers are Tidegate's, so that a file with alternatives takes the one that works here.

/// The HAProxy version whose language is spoken. Conditions compare with it, because a file asks
/// in order to know which words it may use.
const LEVEL: (u32, u32, u32) = (3, 4, 0);

/// The level's branch as HAProxy writes it.
pub(in crate::config) fn branch() -> String {
    format!("{}.{}", LEVEL.0, LEVEL.1)
}

/// The level as HAProxy writes it.
pub(in crate::config) fn version() -> String {
    format!("{}.{}.{}", LEVEL.0, LEVEL.1, LEVEL.2)
}

/// HAProxy's names of what Tidegate has too. Absent are TLS (`OPENSSL` and its kin), `LUA`,
/// `PCRE*`, compression, `NS` and other engines than io_uring (`EPOLL`, `POLL`, ...).
const PRESENT: &[&str] = &[
    // New sockets are non-blocking and closed on exec from the start.
    "ACCEPT4",
    // Shards are pinned.
    "CPU_AFFINITY",
    // Names are resolved by the C library.
    "GETADDRINFO",
    // `option splice-auto` and its like.
    "LINUX_SPLICE",
    // Listeners take data that comes with the SYN.
    "TFO",
    // A shard is a thread.
    "THREAD",
    // `usesrc` and `bind ... transparent`.
    "TPROXY",
];

/// Whether something of HAProxy's feature list is there. A name nobody knows is not.
pub(in crate::config) fn has(name: &str) -> bool {
    PRESENT.contains(&name)
}

/// What `enabled(...)` may ask about, with the answer.
pub(in crate::config) const SWITCHES: &[(&str, bool)] = &[
    // There is one engine, io_uring, and none of these.
    ("EPOLL", false),
    ("EVPORTS", false),
    ("KQUEUE", false),
    ("POLL", false),
    // Bytes are passed on as they come, nothing looks at them on the way.
    ("FAST-FORWARD", true),
    ("GETADDRINFO", true),
    // Each shard has listening sockets of its own.
    ("REUSEPORT", true),
    // There is no TLS.
    ("SERVER-SSL-VERIFY-NONE", false),
    // Where a proxy asks for it.
    ("SPLICE", true),
];

/// A version as it sorts: branch, then whether it is a release (a `-dev` comes before), then the
/// number in the branch, then commits since.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::config) struct Version {
    branch: (u32, u32),
    is_release: bool,
    number: u32,
    commits: u32,
}

impl Version {
    /// The level whose language is spoken.
    pub(in crate::config) fn level() -> Version {
        Version {
            branch: (LEVEL.0, LEVEL.1),
            is_release: true,
            number: LEVEL.2,
            commits: 0,
        }
    }

    /// `3.4`, `3.4.1`, `3.4-dev5`, `3.4-dev5-123`; what a distribution adds is left out.
    pub(in crate::config) fn parse(text: &str) -> Option<Version> {
        let mut rest = text;
        let major = number(&mut rest)?;
        let minor = after(&mut rest, ".").unwrap_or(0);
        let dev = after(&mut rest, "-dev");
        let patch = if dev.is_none() {
            after(&mut rest, ".")
        } else {
            None
        };
        let commits = after(&mut rest, "-").unwrap_or(0);
        Some(Version {
            branch: (major, minor),
            is_release: dev.is_none(),
            number: dev.or(patch).unwrap_or(0),
            commits,
        })
    }
}

/// The number behind a mark; nothing is taken if it isn't there.
fn after(rest: &mut &str, mark: &str) -> Option<u32> {
    let mut tail = rest.strip_prefix(mark)?;
    let value = number(&mut tail)?;
    *rest = tail;
    Some(value)
}

fn number(rest: &mut &str) -> Option<u32> {
    let end = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, tail) = rest.split_at(end);
    let value = digits.parse().ok()?;
    *rest = tail;
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort() {
        let sorted = [
            "2",
            "2.6-dev1",
            "2.6-dev1-7",
            "2.6",
            "2.6.0-1",
            "2.6.12",
            "2.6.12-3",
            "2.10",
            "3",
        ];
        let versions: Vec<_> = sorted
            .iter()
            .map(|text| Version::parse(text).unwrap())
            .collect();
        assert!(versions.is_sorted() && versions.windows(2).all(|pair| pair[0] != pair[1]));
        assert_eq!(Version::parse("2.6.12+deb12"), Version::parse("2.6.12"));
        assert_eq!(Version::parse("3.0"), Version::parse("3.0.0"));
        for bad in ["", "x", ".1", "-1", "99999999999"] {
            assert_eq!(Version::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_level_is_a_release_of_its_branch() {
        let level = Some(Version::level());
        assert_eq!(Version::parse(&version()), level);
        assert!(version().starts_with(&branch()));
        assert!(Version::parse(&branch()) <= level);
    }
}
