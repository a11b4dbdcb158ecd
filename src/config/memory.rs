//! How much memory the process may use: its control group's limit, or the machine's.

use std::path::{Path, PathBuf};

/// Bytes that the process may use: the smallest limit of its control group and the groups above it (version 2 or 1),
/// or the memory of the machine where that is less. `None` where the system does not say.
pub fn available() -> Option<u64> {
    available_under(Path::new("/"))
}

fn available_under(root: &Path) -> Option<u64> {
    let machine = machine_memory(&root.join("proc/meminfo"));
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let limits = groups.lines().flat_map(|line| group_limits(root, line));
    limits.chain(machine).min()
}

/// `MemTotal:       16384000 kB`.
fn machine_memory(meminfo: &Path) -> Option<u64> {
    let text = std::fs::read_to_string(meminfo).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The limits on the way from a group up to the root of its hierarchy. A line is `0::/path` in version 2 and
/// `9:memory:/path` in version 1. In a container the path may be that of the host, of which nothing is mounted: then the
/// root of the mount is the group.
fn group_limits(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':');
    let (Some(id), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mount, file) = if id == "0" && controllers.is_empty() {
        ("sys/fs/cgroup", "memory.max")
    } else if controllers.split(',').any(|name| name == "memory") {
        ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
    } else {
        return Vec::new();
    };
    let mount = root.join(mount);
    let group: PathBuf = mount.join(path.trim_start_matches('/'));
    let within = group.ancestors().take_while(|folder| folder.starts_with(&mount));
    // `max`, and the huge number that version 1 has in its place, are no limits: the machine's memory is less.
    within.filter_map(|folder| std::fs::read_to_string(folder.join(file)).ok()?.trim().parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        available_under(root.path())
    }

    const MACHINE: (&str, &str) = ("proc/meminfo", "MemTotal:        1000 kB\nMemFree:  1 kB\n");

    #[test]
    fn a_machine_without_control_groups() {
        assert_eq!(system(&[MACHINE]), Some(1_024_000));
        assert_eq!(system(&[]), None);
        assert_eq!(system(&[("proc/meminfo", "nonsense")]), None);
    }

    #[test]
    fn version_2_takes_the_smallest_limit_of_the_groups_above() {
        let own = ("proc/self/cgroup", "0::/a/b\n");
        let limit = |a: &'static str, b: &'static str| {
            system(&[MACHINE, own, ("sys/fs/cgroup/a/memory.max", a), ("sys/fs/cgroup/a/b/memory.max", b)])
        };
        assert_eq!(limit("max\n", "500000\n"), Some(500_000));
        assert_eq!(limit("400000\n", "500000\n"), Some(400_000));
        assert_eq!(limit("max\n", "max\n"), Some(1_024_000));
        assert_eq!(limit("9000000\n", "max\n"), Some(1_024_000), "no more than the machine has");
    }

    #[test]
    fn a_container_sees_its_group_at_the_root_of_the_mount() {
        let groups = ("proc/self/cgroup", "0::/system.slice/docker-abc.scope\n");
        assert_eq!(system(&[MACHINE, groups, ("sys/fs/cgroup/memory.max", "300000\n")]), Some(300_000));
    }

    #[test]
    fn version_1_has_a_hierarchy_for_memory() {
        let groups = ("proc/self/cgroup", "12:cpu,cpuacct:/c\n9:memory:/c\n0::/c\n");
        let file = "sys/fs/cgroup/memory/c/memory.limit_in_bytes";
        assert_eq!(system(&[MACHINE, groups, (file, "700000\n")]), Some(700_000));
        assert_eq!(system(&[MACHINE, groups, (file, "9223372036854771712\n")]), Some(1_024_000));
    }
}
