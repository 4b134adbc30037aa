//! How much memory the system allows this process.

use std::path::{Path, PathBuf};

/// Returns the least of the memory available in the system, in this process's control groups, and in its own address
/// space (`ulimit -v`), in bytes. A value that cannot be read sets no limit.
pub(super) fn available_bytes() -> u64 {
    let read = |path: &Path| std::fs::read_to_string(path).ok();
    let system = read(Path::new("/proc/meminfo")).and_then(|text| kib_of(&text, "MemAvailable:"));
    let used = read(Path::new("/proc/self/status")).and_then(|text| kib_of(&text, "VmSize:"));
    let space = rlimit::getrlimit(rlimit::Resource::AS).ok().map(|(soft, _)| soft);
    let space = space.filter(|soft| *soft != rlimit::INFINITY).zip(used);
    let groups = read(Path::new("/proc/self/cgroup")).unwrap_or_default();
    let number = |path: PathBuf| read(&path)?.trim().parse::<u64>().ok();
    let group = folders(&groups).into_iter().filter_map(|(folder, [limit, used])| {
        Some(number(folder.join(limit))?.saturating_sub(number(folder.join(used))?))
    });
    let space = space.map(|(soft, used)| soft.saturating_sub(used));
    group.chain(system).chain(space).min().unwrap_or(u64::MAX)
}

/// Reads a line of `/proc`, which counts KiB; returns bytes.
fn kib_of(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1_024)
}

/// The folders of the control groups that count this process's memory, with the names of their limit and usage files,
/// for version 2 and version 1 (cgroups(7)). The groups above a group limit it as well.
fn folders(groups: &str) -> Vec<(PathBuf, [&'static str; 2])> {
    let mut folders = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(kinds), Some(group)) = (fields.next(), fields.next(), fields.next()) else {
            continue;
        };
        let (root, files) = match kinds {
            "" => ("/sys/fs/cgroup", ["memory.max", "memory.current"]),
            _ if kinds.split(',').any(|kind| kind == "memory") => {
                ("/sys/fs/cgroup/memory", ["memory.limit_in_bytes", "memory.usage_in_bytes"])
            }
            _ => continue,
        };
        let group = Path::new(group.trim_start_matches('/'));
        folders.extend(group.ancestors().map(|group| (Path::new(root).join(group), files)));
    }
    folders
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_is_understood() {
        let status = "Name:\tbullhorn\nVmPeak:\t  300000 kB\nVmSize:\t  200000 kB\n";
        assert_eq!(kib_of(status, "VmSize:"), Some(204_800_000));
        assert_eq!(kib_of(status, "MemAvailable:"), None);
        assert!(available_bytes() > 0);
    }

    #[test]
    fn every_group_above_counts() {
        let found = folders("5:cpu,memory:/a\n1:name=systemd:/b\n0::/system.slice/bullhorn.service\n");
        let found: Vec<_> = found.iter().map(|(folder, [limit, _])| folder.join(limit)).collect();
        let expected = [
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/system.slice/bullhorn.service/memory.max",
            "/sys/fs/cgroup/system.slice/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(found, expected.map(PathBuf::from));
    }
}
