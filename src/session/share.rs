//! Watches what one group's agent takes of the shared machine while its container runs: room on the disk, and
//! what the kernel limits for all programs of a user together.
//!
//! Rootless Docker has no quota for either. So free room is looked at each second, which costs a system call.
//! The agent's files are counted only if room has gone, and now and then.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::container::processes::{self, HeldResources};
use crate::container::spec::ContainerLimits;
use crate::folders::{DiskUsage, free_space_of_folder, measure_disk_usage};
use crate::panics::run_blocking;
use crate::paths::Paths;
use crate::types::{DiskSpace, Group, Trouble};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the files are counted even if no room has gone.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// If this much room has gone, whoever has taken it, the files are counted ahead of time. On a fast disk 1 to
/// 2 GB, or some 50,000 files, can be written in a second.
const GONE_MIN: DiskSpace = DiskSpace { bytes: 64 * MIB, entries: 5_000 };
/// An agent may have more than its share already, for example through files that people have sent. It may
/// still work, and grow by this much in one container's life.
const GROWTH: DiskSpace = DiskSpace { bytes: 64 * MIB, entries: 2_000 };
/// If the disk has less room than this, an agent that has written much in this container's life is stopped,
/// even if what it wrote is hidden.
const FLOOR: DiskSpace = DiskSpace { bytes: 512 * MIB, entries: 20_000 };
const WRITTEN_MIN_BYTES: u64 = 256 * MIB;
/// A count is disturbed if folders are moved meanwhile. So many disturbed counts in a row, a second apart,
/// are too much. Unpacking or installing moves a folder only now and then, hardly ever into another folder,
/// and the count must be in it at that moment. An agent that keeps moving folders, to hide what it takes, is
/// stopped after some 3 s. What a disturbed count has seen counts at once, and so does a disk that runs full.
const DISTURBED_COUNTS_MAX: u32 = 3;
/// An engine has a handful of watch sets. To use up what all programs may have takes more than a hundred.
const WATCH_SETS_MAX: u64 = 64;
/// The container itself has 15 devices. Each file takes a kilobyte of the kernel's memory.
const FILES_IN_DEV_MAX: u64 = 10_000;

const MIB: u64 = 1024 * 1024;

/// What an agent has taken too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overuse {
    Disk {
        taken: DiskSpace,
        free: DiskSpace,
    },
    /// What the kernel has for all programs together.
    Kernel {
        watch_sets: u64,
        files_in_dev: u64,
    },
}

impl Overuse {
    pub fn trouble(self) -> Trouble {
        match self {
            Self::Disk { .. } => Trouble::DiskShare,
            Self::Kernel { .. } => Trouble::SystemLimit,
        }
    }
}

/// What one look at the machine has found.
#[derive(Clone, Copy, Debug)]
struct ShareSample {
    free: DiskSpace,
    /// Files without a name included.
    taken: DiskSpace,
    /// What the agent may take in this container's life.
    most: DiskSpace,
    /// Disturbed counts in a row, this one included.
    disturbed_counts: u32,
    held: HeldResources,
    is_kernel_exhausted: bool,
}

impl ShareSample {
    fn detect_overuse(&self) -> Option<Overuse> {
        let HeldResources { written_bytes, watch_sets, files_in_dev, .. } = self.held;
        let used_up = self.is_kernel_exhausted && watch_sets > WATCH_SETS_MAX;
        if used_up || files_in_dev > FILES_IN_DEV_MAX {
            return Some(Overuse::Kernel { watch_sets, files_in_dev });
        }
        let is_low = FLOOR.is_beyond(self.free);
        let filled = is_low && written_bytes > WRITTEN_MIN_BYTES;
        let hides = self.disturbed_counts >= DISTURBED_COUNTS_MAX;
        (self.taken.is_beyond(self.most) || filled || hides)
            .then_some(Overuse::Disk { taken: self.taken, free: self.free })
    }
}

/// Watches until the agent has taken too much, or its session no longer listens.
pub async fn watch_for_overuse(
    paths: Paths,
    group: Group,
    limits: ContainerLimits,
    mut over: oneshot::Sender<Overuse>,
) {
    let limit = DiskSpace { bytes: limits.disk_bytes, entries: limits.disk_entries };
    let uncounted = DiskSpace { entries: u64::MAX - 1, ..limit };
    let mut disturbed_counts = 0;
    let at_start = loop {
        let Some(AgentUsage { taken, is_whole, .. }) = count_agent_usage(&paths, &group, uncounted).await
        else {
            return;
        };
        disturbed_counts = if is_whole { 0 } else { disturbed_counts + 1 };
        if is_whole || disturbed_counts >= DISTURBED_COUNTS_MAX {
            break taken;
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = over.closed() => return,
        }
    };
    let most = growth_limit(at_start, limit);
    let (mut counted_at, mut free_then) = (Instant::now(), read_free_space(&paths).unwrap_or_default());
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = over.closed() => return,
        }
        let Some(free) = read_free_space(&paths) else { continue };
        let gone = DiskSpace {
            bytes: free_then.bytes.saturating_sub(free.bytes),
            entries: free_then.entries.saturating_sub(free.entries),
        };
        let is_kernel_exhausted = is_kernel_exhausted();
        let due = gone.is_beyond(GONE_MIN)
            || FLOOR.is_beyond(free)
            || is_kernel_exhausted
            || disturbed_counts > 0
            || counted_at.elapsed() >= COUNT_EVERY;
        if !due {
            continue;
        }
        let Some(AgentUsage { taken, is_whole, held }) = count_agent_usage(&paths, &group, most).await else {
            continue;
        };
        (counted_at, free_then) = (Instant::now(), free);
        disturbed_counts = if is_whole { 0 } else { disturbed_counts + 1 };
        let sample = ShareSample { free, taken, most, disturbed_counts, held, is_kernel_exhausted };
        if let Some(overuse) = sample.detect_overuse() {
            // If the session has ended its engine meanwhile, it need not know.
            over.send(overuse).ok();
            return;
        }
    }
}

/// What is free on the disk of the install, if that can be read.
fn read_free_space(paths: &Paths) -> Option<DiskSpace> {
    free_space_of_folder(paths.root()).ok()
}

/// What an agent may take in all, if it began with `at_start`.
fn growth_limit(at_start: DiskSpace, limit: DiskSpace) -> DiskSpace {
    DiskSpace {
        bytes: limit.bytes.max(at_start.bytes.saturating_add(GROWTH.bytes)),
        entries: limit.entries.max(at_start.entries.saturating_add(GROWTH.entries)),
    }
}

/// What the agent takes.
struct AgentUsage {
    /// Files without a name included.
    taken: DiskSpace,
    /// No folder was moved meanwhile.
    is_whole: bool,
    held: HeldResources,
}

/// Counts what the agent takes, files without a name included.
async fn count_agent_usage(paths: &Paths, group: &Group, most: DiskSpace) -> Option<AgentUsage> {
    let (paths, group) = (paths.clone(), group.clone());
    let counted = run_blocking(move || {
        let held = processes::measure_held_resources(&paths.group_folder(&group.name)).unwrap_or_default();
        let (named, is_whole) = match measure_disk_usage(&paths, &group, most.entries) {
            DiskUsage::All(room) => (room, true),
            DiskUsage::AtLeast(room) => (room, false),
        };
        let taken = DiskSpace {
            bytes: named.bytes.saturating_add(held.nameless_bytes),
            entries: named.entries.saturating_add(held.nameless_files),
        };
        AgentUsage { taken, is_whole, held }
    });
    counted.await.ok()
}

/// Whether the kernel gives this user no more of what it bounds by user: watches of epoll, which a new pair
/// of sockets needs, and sets of inotify.
fn is_kernel_exhausted() -> bool {
    UnixStream::pair().is_err() || !crate::folders::is_inotify_available()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: DiskSpace = DiskSpace { bytes: 1 << 40, entries: 1 << 20 };
    const LIMIT: DiskSpace = DiskSpace { bytes: 4096 * MIB, entries: 200_000 };

    fn look() -> ShareSample {
        ShareSample {
            free: PLENTY,
            taken: DiskSpace::default(),
            most: LIMIT,
            disturbed_counts: 0,
            held: HeldResources::default(),
            is_kernel_exhausted: false,
        }
    }

    #[test]
    fn whoever_takes_more_than_a_share_is_over_it() {
        let taken = |bytes, entries| {
            ShareSample { taken: DiskSpace { bytes, entries }, ..look() }
                .detect_overuse()
                .map(Overuse::trouble)
        };
        assert_eq!(taken(LIMIT.bytes, LIMIT.entries), None);
        assert_eq!(taken(LIMIT.bytes + 1, 0), Some(Trouble::DiskShare));
        assert_eq!(taken(0, LIMIT.entries + 1), Some(Trouble::DiskShare));
        assert_eq!(taken(0, u64::MAX), Some(Trouble::DiskShare));
    }

    #[test]
    fn whoever_moves_folders_is_counted_again_but_not_for_ever() {
        let after = |disturbed_counts| {
            ShareSample { disturbed_counts, ..look() }.detect_overuse().map(Overuse::trouble)
        };
        assert_eq!((after(1), after(2)), (None, None), "to install something does that");
        assert_eq!(after(3), Some(Trouble::DiskShare));
        let seen = ShareSample {
            disturbed_counts: 1,
            taken: DiskSpace { bytes: LIMIT.bytes + 1, entries: 1 },
            ..look()
        };
        assert!(seen.detect_overuse().is_some(), "what was seen counts at once");
    }

    #[test]
    fn on_a_disk_that_runs_full_whoever_has_written_much_is_stopped() {
        let low = [DiskSpace { bytes: 100 * MIB, ..PLENTY }, DiskSpace { entries: 19_999, ..PLENTY }];
        for free in low {
            let wrote = |written_bytes| ShareSample {
                free,
                held: HeldResources { written_bytes, ..HeldResources::default() },
                ..look()
            };
            assert_eq!(wrote(WRITTEN_MIN_BYTES).detect_overuse(), None);
            assert!(wrote(WRITTEN_MIN_BYTES + 1).detect_overuse().is_some());
        }
        let held = HeldResources { written_bytes: 1 << 40, ..HeldResources::default() };
        assert_eq!(
            ShareSample { held, ..look() }.detect_overuse(),
            None,
            "with room on the disk nobody asks"
        );
    }

    #[test]
    fn whoever_uses_up_what_the_kernel_has_is_told_from_who_suffers_by_it() {
        let has = |watch_sets, is_kernel_exhausted| ShareSample {
            held: HeldResources { watch_sets, ..HeldResources::default() },
            is_kernel_exhausted,
            ..look()
        };
        assert_eq!(has(3, true).detect_overuse(), None);
        assert_eq!(has(2_000, false).detect_overuse(), None);
        let guilty = has(2_000, true).detect_overuse();
        assert_eq!(guilty.map(Overuse::trouble), Some(Trouble::SystemLimit));
        let held = HeldResources { files_in_dev: 1_000_000, ..HeldResources::default() };
        assert!(ShareSample { held, ..look() }.detect_overuse().is_some());
    }

    #[test]
    fn who_begins_with_more_than_a_share_may_still_work() {
        assert_eq!(growth_limit(DiskSpace::default(), LIMIT), LIMIT);
        let large = DiskSpace { bytes: 2 * LIMIT.bytes, entries: 7 };
        assert_eq!(growth_limit(large, LIMIT), DiskSpace { bytes: large.bytes + GROWTH.bytes, ..LIMIT });
        let endless = DiskSpace { entries: u64::MAX, ..large };
        assert_eq!(growth_limit(endless, LIMIT).entries, u64::MAX);
    }
}
