//! What agents hold of the machine's memory, and how much of it there is for them, according to /proc and
//! /sys.
//!
//! Whether the limits of containers hold does not matter here: without delegated cgroups they do not.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::processes::{file_identity, group_folder_id, list_process_folders, path_in_process_root};
use crate::types::GroupName;

/// The agents' memory, as it was when somebody looked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentMemory {
    /// In bytes, by group; a group without a container is not there.
    pub held: HashMap<GroupName, u64>,
    pub pressure: MemoryPressure,
}

/// Whether the machine runs short of memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemoryPressure {
    #[default]
    None,
    Some,
}

/// If some program waited for memory in this share of the last ten seconds, the kernel is busy with making
/// room.
const WAITED_PERCENT: f64 = 10.0;
/// With less than this share of all memory available, there may be no time for the kernel to make room.
const AVAILABLE_MIN: u64 = 20;
/// Folders of a container that are in memory.
const IN_MEMORY: [&str; 3] = ["/tmp", "/home/node", "/dev/shm"];
const TMPFS_MAGIC: i64 = 0x0102_1994;
/// What the machine needs for itself: a quarter of its memory, and at least so much.
const RESERVE_MIN_BYTES: u64 = 384 * MIB;
const MIB: u64 = 1024 * 1024;

/// What the containers of these groups hold. `groups` are their names and their folders on the host.
pub fn measure_agent_memory(groups: &[(GroupName, PathBuf)]) -> AgentMemory {
    AgentMemory {
        held: memory_held_by_group(groups).unwrap_or_default(),
        pressure: read_memory_pressure(|path| fs::read_to_string(path).ok()),
    }
}

/// How much of the machine's memory agents may hold together, in bytes.
pub fn agent_memory_budget() -> u64 {
    compute_memory_budget(|path| fs::read_to_string(path).ok())
}

fn memory_held_by_group(groups: &[(GroupName, PathBuf)]) -> io::Result<HashMap<GroupName, u64>> {
    let known =
        groups.iter().filter_map(|(name, folder)| Some((file_identity(&fs::metadata(folder).ok()?), name)));
    let known: HashMap<(u64, u64), &GroupName> = known.collect();
    let mut held = HashMap::new();
    for process in list_process_folders()? {
        let Some(name) = group_folder_id(&process).and_then(|folder| known.get(&folder)) else { continue };
        let bytes = held.entry((*name).clone()).or_insert_with(|| tmpfs_bytes_used(&process));
        // Memory that is shared with files does not count: the kernel can read it again.
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        *bytes += parse_kilobytes(&status, "RssAnon:").unwrap_or(0) * 1024;
    }
    Ok(held)
}

/// What lies in the folders of a process's container that are in memory.
fn tmpfs_bytes_used(process: &Path) -> u64 {
    let used = IN_MEMORY.iter().filter_map(|folder| {
        let disk = rustix::fs::statfs(path_in_process_root(process, folder)).ok()?;
        let used = disk.f_blocks.saturating_sub(disk.f_bfree);
        let block = u64::try_from(disk.f_bsize).ok()?;
        (disk.f_type == TMPFS_MAGIC).then_some(used * block)
    });
    used.sum()
}

fn read_memory_pressure(read: impl Fn(&str) -> Option<String>) -> MemoryPressure {
    // Not every kernel has it.
    let waited = read("/proc/pressure/memory").and_then(|pressure| {
        let some = pressure.lines().find(|line| line.starts_with("some "))?;
        some.split(' ').find_map(|word| word.strip_prefix("avg10="))?.parse::<f64>().ok()
    });
    let memory = read("/proc/meminfo").unwrap_or_default();
    let short = match (parse_kilobytes(&memory, "MemTotal:"), parse_kilobytes(&memory, "MemAvailable:")) {
        (Some(total), Some(available)) => available < total / AVAILABLE_MIN,
        _ => false,
    };
    if short || waited.is_some_and(|percent| percent >= WAITED_PERCENT) {
        MemoryPressure::Some
    } else {
        MemoryPressure::None
    }
}

fn compute_memory_budget(read: impl Fn(&str) -> Option<String>) -> u64 {
    let memory = read("/proc/meminfo").unwrap_or_default();
    let machine = parse_kilobytes(&memory, "MemTotal:").unwrap_or(0) * 1024;
    // A limit on us is one on our containers: they are children of the same user's daemon.
    let cgroups = read("/proc/self/cgroup").unwrap_or_default();
    let cgroups = cgroups.lines().filter_map(|line| {
        let (controllers, cgroup) = line.split_once(':')?.1.split_once(':')?;
        match controllers {
            "" => Some(("", "memory.max", cgroup)),
            "memory" => Some(("/memory", "memory.limit_in_bytes", cgroup)),
            _ => None,
        }
    });
    let files = cgroups.flat_map(|(mount, file, cgroup)| {
        let places = Path::new(cgroup).ancestors();
        places.map(move |cgroup| format!("/sys/fs/cgroup{mount}{}/{file}", cgroup.display()))
    });
    let bounds = files.filter_map(|path| read(&path)?.trim().parse::<u64>().ok());
    agent_memory_share(bounds.chain([machine]).min().unwrap_or(machine))
}

/// What agents may hold of a machine's memory, in bytes.
pub fn agent_memory_share(machine: u64) -> u64 {
    machine.saturating_sub((machine / 4).max(RESERVE_MIN_BYTES))
}

fn parse_kilobytes(memory: &str, name: &str) -> Option<u64> {
    let line = memory.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read if there are only these files.
    fn of<'a>(files: &'a [(&str, &str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |path| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
    }

    #[test]
    fn a_quarter_of_what_there_is_stays_with_the_machine() {
        let meminfo = |mb: u64| format!("MemTotal:  {} kB\nMemFree: 1 kB\n", mb * 1024);
        for (machine, bounds, expected) in [
            (1024, vec![], 640),
            (2048, vec![], 1536),
            (4096, vec![], 3072),
            (256, vec![], 0),
            (24 * 1024, vec![("/sys/fs/cgroup/user.slice/memory.max", "2147483648\n")], 1536),
            (24 * 1024, vec![("/sys/fs/cgroup/user.slice/a.scope/memory.max", "max\n")], 18 * 1024),
            (1024, vec![("/sys/fs/cgroup/memory.max", "2147483648\n")], 640),
            (
                24 * 1024,
                vec![("/sys/fs/cgroup/memory/user.slice/memory.limit_in_bytes", "2147483648\n")],
                1536,
            ),
        ] {
            let meminfo = meminfo(machine);
            let cgroups = "9:name=systemd:/x\n4:memory:/user.slice/b\n0::/user.slice/a.scope\n";
            let mut files = vec![("/proc/meminfo", meminfo.as_str()), ("/proc/self/cgroup", cgroups)];
            files.extend(bounds.clone());
            assert_eq!(compute_memory_budget(of(&files)) / MIB, expected, "{machine} {bounds:?}");
        }
        assert_eq!(compute_memory_budget(of(&[])), 0);
    }

    #[test]
    fn a_machine_is_short_when_programs_wait_or_little_is_left() {
        let waits = |avg10: &str| {
            format!("some avg10={avg10} avg60=0.00 avg300=0.00 total=7\nfull avg10=99.00 avg60=0\n")
        };
        let memory = |available: u64| format!("MemTotal: 1000 kB\nMemAvailable: {available} kB\n");
        for (waited, available, expected) in [
            ("0.00", 500, MemoryPressure::None),
            ("9.99", 500, MemoryPressure::None),
            ("10.00", 500, MemoryPressure::Some),
            ("0.00", 49, MemoryPressure::Some),
            ("x", 50, MemoryPressure::None),
        ] {
            let (waits, memory) = (waits(waited), memory(available));
            let files = [("/proc/pressure/memory", waits.as_str()), ("/proc/meminfo", memory.as_str())];
            assert_eq!(read_memory_pressure(of(&files)), expected, "{waited} {available}");
        }
        assert_eq!(read_memory_pressure(of(&[])), MemoryPressure::None);
    }

    #[test]
    fn no_process_of_this_machine_is_in_a_container_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let group = GroupName::parse("family").unwrap();
        assert_eq!(memory_held_by_group(&[(group, folder.path().to_owned())]).unwrap(), HashMap::new());
    }
}
