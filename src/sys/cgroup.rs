//! CPU and memory limits of the cgroups this process is in, version 1 and 2.
//!
//! A limit of any ancestor binds, so every level up to the mount point is read. Which directory is
//! ours comes from `/proc/self/cgroup` and `/proc/self/mountinfo`: in a container the first may
//! name the host's path while the second shows only its tail.

use std::path::{Path, PathBuf};

/// The tightest limits found.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CgroupLimits {
    /// CPUs by quota, rounded up.
    pub cpus: Option<u32>,
    /// Memory in bytes.
    pub memory_bytes: Option<u64>,
}

/// Limits of this process.
pub fn limits() -> CgroupLimits {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let membership = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let mounts = read(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    limits_from(&membership, &mounts, &read)
}

/// A file's text, if it can be read.
type Read<'a> = &'a dyn Fn(&Path) -> Option<String>;

fn limits_from(membership: &str, mounts: &str, read: Read) -> CgroupLimits {
    let mut found = CgroupLimits::default();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        if controllers.is_empty() {
            for level in levels(mounts, path, |kind, _| kind == "cgroup2") {
                found.cpus = least(found.cpus, cpus_v2(&level, read));
                found.memory_bytes = least(found.memory_bytes, memory_v2(&level, read));
            }
            continue;
        }
        let is_mounted = |name: &'static str| {
            move |kind: &str, options: &str| {
                kind == "cgroup" && options.split(',').any(|option| option == name)
            }
        };
        for name in controllers.split(',') {
            if name == "cpu" {
                for level in levels(mounts, path, is_mounted("cpu")) {
                    found.cpus = least(found.cpus, cpus_v1(&level, read));
                }
            } else if name == "memory" {
                for level in levels(mounts, path, is_mounted("memory")) {
                    found.memory_bytes = least(found.memory_bytes, memory_v1(&level, read));
                }
            }
        }
    }
    found
}

fn least<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Our directory in the first mount that `wanted` accepts by type and options, and its parents up
/// to the mount point.
fn levels(mounts: &str, path: &str, wanted: impl Fn(&str, &str) -> bool) -> Vec<PathBuf> {
    for line in mounts.lines() {
        // `id parent major:minor root mount-point options [tags] - type source super-options`
        let Some((left, right)) = line.split_once(" - ") else {
            continue;
        };
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let (Some(root), Some(point)) = (left.get(3), left.get(4)) else {
            continue;
        };
        let (Some(kind), Some(options)) = (right.first(), right.get(2)) else {
            continue;
        };
        if !wanted(kind, options) {
            continue;
        }
        let tail = Path::new(path).strip_prefix(root).unwrap_or(Path::new(""));
        let mount = Path::new(point);
        let leaf = mount.join(tail);
        return leaf
            .ancestors()
            .take_while(|level| level.starts_with(mount))
            .map(Path::to_path_buf)
            .collect();
    }
    Vec::new()
}

fn cpus_of(quota: u64, period: u64) -> Option<u32> {
    if period == 0 {
        return None;
    }
    u32::try_from(quota.div_ceil(period))
        .ok()
        .map(|cpus| cpus.max(1))
}

fn cpus_v2(level: &Path, read: Read) -> Option<u32> {
    let text = read(&level.join("cpu.max"))?;
    let (quota, period) = text.trim().split_once(' ')?;
    cpus_of(quota.parse().ok()?, period.parse().ok()?)
}

fn cpus_v1(level: &Path, read: Read) -> Option<u32> {
    let quota = read(&level.join("cpu.cfs_quota_us"))?;
    let period = read(&level.join("cpu.cfs_period_us"))?;
    // Without a quota the file says -1, which is no u64.
    cpus_of(quota.trim().parse().ok()?, period.trim().parse().ok()?)
}

fn memory_v2(level: &Path, read: Read) -> Option<u64> {
    read(&level.join("memory.max"))?.trim().parse().ok()
}

fn memory_v1(level: &Path, read: Read) -> Option<u64> {
    let bytes: u64 = read(&level.join("memory.limit_in_bytes"))?
        .trim()
        .parse()
        .ok()?;
    // Without a limit the file says the largest multiple of the page size.
    (bytes < 1 << 60).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    fn run(membership: &str, mounts: &str, files: &[(&str, &str)]) -> CgroupLimits {
        let files: HashMap<PathBuf, String> = files
            .iter()
            .map(|(path, text)| (PathBuf::from(path), (*text).to_owned()))
            .collect();
        limits_from(membership, mounts, &|path| files.get(path).cloned())
    }

    #[test]
    fn the_tightest_ancestor_binds_in_version_2() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw";
        let found = run(
            "0::/a.slice/b.service\n",
            mounts,
            &[
                ("/sys/fs/cgroup/a.slice/b.service/cpu.max", "max 100000\n"),
                ("/sys/fs/cgroup/a.slice/cpu.max", "150000 100000\n"),
                (
                    "/sys/fs/cgroup/a.slice/b.service/memory.max",
                    "1073741824\n",
                ),
                ("/sys/fs/cgroup/a.slice/memory.max", "max\n"),
            ],
        );
        assert_eq!(
            found,
            CgroupLimits {
                cpus: Some(2),
                memory_bytes: Some(1 << 30)
            }
        );
    }

    #[test]
    fn a_container_sees_its_tail_in_version_1() {
        let mounts = "31 23 0:27 /docker/x /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
                      32 23 0:28 /docker/x /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let found = run(
            "4:cpu,cpuacct:/docker/x\n3:memory:/docker/x\n0::/\n",
            mounts,
            &[
                ("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "250000\n"),
                ("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n"),
                (
                    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                    "9223372036854771712\n",
                ),
            ],
        );
        assert_eq!(
            found,
            CgroupLimits {
                cpus: Some(3),
                memory_bytes: None
            }
        );
        assert_eq!(run("", "", &[]), CgroupLimits::default());
        assert_eq!(run("garbage\n0::/x", "a - b", &[]), CgroupLimits::default());
    }
}
