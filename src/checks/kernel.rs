//! What the kernel limits for all programs of a user together, and whether one agent could use it up for all
//! others, Docker among them. The limits are made for programs that trust each other.

use super::Finding;

/// The least memory that the kernel takes for an epoll watch (measured 291 bytes), and for an inotify watch
/// or set. If the limit is higher than the machine's memory has room for, memory runs out first, and every
/// container has its own limit of that.
const EPOLL_WATCH_BYTES: u64 = 128;
const INOTIFY_BYTES: u64 = 1024;
/// Every container takes a keyring. The kernel's default limit is 200, for all that a person runs.
const KEYRINGS: u64 = 2_000;
const KEYRING_BYTES: u64 = 200_000;
/// Where the settings are kept for the next boot; `container/rootless/prepare` writes the same file.
const FILE: &str = "/etc/sysctl.d/60-nanokimi-limits.conf";

/// The settings that a machine with so much memory needs. The same as in `container/rootless/prepare`.
fn required_sysctls(memory_bytes: u64) -> [(&'static str, u64); 5] {
    let most = i32::MAX.unsigned_abs().into();
    [
        ("fs.epoll.max_user_watches", memory_bytes / EPOLL_WATCH_BYTES),
        ("fs.inotify.max_user_instances", (memory_bytes / INOTIFY_BYTES).min(most)),
        ("fs.inotify.max_user_watches", (memory_bytes / INOTIFY_BYTES).min(most)),
        ("kernel.keys.maxkeys", KEYRINGS),
        ("kernel.keys.maxbytes", KEYRING_BYTES),
    ]
}

/// Looks at the kernel's limits. `read` returns the text of a file.
pub fn check_kernel_limits(read: impl Fn(&str) -> Option<String>) -> Vec<Finding> {
    let memory = read("/proc/meminfo").as_deref().and_then(parse_total_memory);
    // If it cannot be read, there is no such limit to use up.
    let Some(memory) = memory else { return Vec::new() };
    let value =
        |name: &str| read(&format!("/proc/sys/{}", name.replace('.', "/")))?.trim().parse::<u64>().ok();
    let low: Vec<(&str, u64)> = required_sysctls(memory)
        .into_iter()
        .filter(|(name, needed)| value(name).is_some_and(|is| is < *needed))
        .collect();
    if low.is_empty() {
        return vec![Finding::good("No agent can use up what the kernel has for all programs of yours")];
    }
    let names: Vec<&str> = low.iter().map(|(name, _)| *name).collect();
    let lines: Vec<String> =
        required_sysctls(memory).map(|(name, needed)| format!("{name}={needed}\\n")).into();
    vec![Finding::warning(
        format!("One agent could use up what the kernel has for all programs of yours: {}", names.join(", ")),
        format!("Run printf '{}' | sudo tee {FILE} && sudo sysctl --system", lines.concat()),
    )]
}

fn parse_total_memory(meminfo: &str) -> Option<u64> {
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(total.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::Severity;

    /// A machine with 2 GB, and these settings.
    fn on(settings: &'static [(&'static str, &'static str)]) -> Vec<Finding> {
        check_kernel_limits(move |path| {
            if path == "/proc/meminfo" {
                return Some("MemTotal:        2097152 kB\nMemFree: 1 kB\n".to_owned());
            }
            settings
                .iter()
                .find(|(name, _)| path == format!("/proc/sys/{name}"))
                .map(|(_, value)| format!("{value}\n"))
        })
    }

    #[test]
    fn bounds_that_one_agent_reaches_are_found_with_the_command() {
        let found = on(&[
            ("fs/epoll/max_user_watches", "464000"),
            ("fs/inotify/max_user_instances", "128"),
            ("kernel/keys/maxkeys", "2000"),
        ]);
        let [Finding { state, what, fix }] = &found[..] else { panic!("{found:?}") };
        assert_eq!(*state, Severity::Warning);
        insta::assert_snapshot!(format!("{what}\n{fix}"), @r"
        One agent could use up what the kernel has for all programs of yours: fs.epoll.max_user_watches, fs.inotify.max_user_instances
        Run printf 'fs.epoll.max_user_watches=16777216\nfs.inotify.max_user_instances=2097152\nfs.inotify.max_user_watches=2097152\nkernel.keys.maxkeys=2000\nkernel.keys.maxbytes=200000\n' | sudo tee /etc/sysctl.d/60-nanokimi-limits.conf && sudo sysctl --system
        ");
    }

    #[test]
    fn bounds_beyond_the_memory_are_good() {
        let found = on(&[
            ("fs/epoll/max_user_watches", "16777216"),
            ("fs/inotify/max_user_instances", "2097152"),
            ("fs/inotify/max_user_watches", "9999999"),
            ("kernel/keys/maxkeys", "2000"),
            ("kernel/keys/maxbytes", "200000"),
        ]);
        assert_eq!(found[0].state, Severity::Good);
        assert_eq!(check_kernel_limits(|_| None), []);
    }

    #[test]
    fn prepare_sets_what_doctor_looks_at() {
        let prepare = include_str!("../../container/rootless/prepare");
        let set: Vec<&str> = prepare
            .lines()
            .filter_map(|line| line.trim().strip_prefix("limit ")?.split(' ').next())
            .collect();
        assert_eq!(set, required_sysctls(1).map(|(name, _)| name));
        for number in [EPOLL_WATCH_BYTES, INOTIFY_BYTES, KEYRINGS, KEYRING_BYTES] {
            assert!(prepare.contains(&number.to_string()), "{number}");
        }
        assert!(prepare.contains(FILE));
    }
}
