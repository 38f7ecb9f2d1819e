//! Watches what the agent of one group takes of the machine that all share, while its container runs: room on the disk,
//! and what the kernel bounds for all programs of a user together.
//!
//! Rootless Docker has no quota for either. So what can be filled is looked at each second, which costs a system call; the
//! agent's files are only counted when room has gone, or now and then.

use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use crate::container::processes::{self, Held};
use crate::container::spec::Limits;
use crate::home::{Taken, free_room, taken_by};
use crate::panics::blocking;
use crate::paths::Paths;
use crate::types::{Group, Room, Trouble};

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the files are counted although no room has gone.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// Room that goes, whoever takes it, before the files are counted ahead of time. A fast disk is filled by 1 to 2 GB in
/// a second, with some 50,000 files.
const GONE_MIN: Room = Room { bytes: 64 * MIB, entries: 5_000 };
/// An agent that had more than its share already, such as by what people have sent, may still work with that: it may
/// grow by so much in one container's life.
const GROWTH: Room = Room { bytes: 64 * MIB, entries: 2_000 };
/// With less room than this on the disk, whoever has written much in this container's life is stopped, however it is
/// hidden.
const FLOOR: Room = Room { bytes: 512 * MIB, entries: 20_000 };
const WRITTEN_MIN_BYTES: u64 = 256 * MIB;
/// So many counts in a row, a second apart, that came to no end because folders were moved meanwhile, count as too much. To
/// unpack or to install something moves a folder just now and then, hardly ever from one folder to another one, and the
/// count must be in it at that moment. Whoever moves folders for ever, to hide what it takes, is stopped after some 3 s;
/// what such a count has seen counts at once, and so does a disk that runs full.
const DISTURBED_COUNTS_MAX: u32 = 3;
/// An engine has a handful of sets of watches; to use up what all programs may have takes more than a hundred.
const WATCH_SETS_MAX: u64 = 64;
/// The container's own devices are 15; each file takes a kilobyte of the kernel's memory.
const FILES_IN_DEV_MAX: u64 = 10_000;

const MIB: u64 = 1024 * 1024;

/// What an agent has taken too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overuse {
    Disk {
        taken: Room,
        free: Room,
    },
    /// What the system's kernel has for all programs together.
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

/// What one look has found.
#[derive(Clone, Copy, Debug)]
struct Look {
    free: Room,
    /// With names or without.
    taken: Room,
    /// What it may take in this container's life.
    most: Room,
    /// Counts in a row that somebody has disturbed, this one included.
    disturbed_counts: u32,
    held: Held,
    kernel: Kernel,
}

/// Whether the kernel still gives this user what programs need.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kernel {
    Gives,
    GivesNoMore,
}

impl Look {
    fn overuse(&self) -> Option<Overuse> {
        let Held { written_bytes, watch_sets, files_in_dev, .. } = self.held;
        let used_up = self.kernel == Kernel::GivesNoMore && watch_sets > WATCH_SETS_MAX;
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

/// Watches until the agent has taken too much, or its session wants to know no more.
pub async fn watch(paths: Paths, group: Group, limits: Limits, mut over: oneshot::Sender<Overuse>) {
    let limit = Room { bytes: limits.disk_bytes, entries: limits.disk_entries };
    let uncounted = Room { entries: u64::MAX - 1, ..limit };
    let mut disturbed_counts = 0;
    let at_start = loop {
        let Some(Count { taken, is_whole, .. }) = count(&paths, &group, uncounted).await else { return };
        disturbed_counts = if is_whole { 0 } else { disturbed_counts + 1 };
        if is_whole || disturbed_counts >= DISTURBED_COUNTS_MAX {
            break taken;
        }
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = over.closed() => return,
        }
    };
    let most = beginning_with(at_start, limit);
    let (mut counted_at, mut free_then) = (Instant::now(), free(&paths).unwrap_or_default());
    loop {
        tokio::select! {
            () = sleep(LOOK_EVERY) => {}
            () = over.closed() => return,
        }
        let Some(free) = free(&paths) else { continue };
        let gone = Room {
            bytes: free_then.bytes.saturating_sub(free.bytes),
            entries: free_then.entries.saturating_sub(free.entries),
        };
        let kernel = kernel();
        let due = gone.is_beyond(GONE_MIN)
            || FLOOR.is_beyond(free)
            || kernel == Kernel::GivesNoMore
            || disturbed_counts > 0
            || counted_at.elapsed() >= COUNT_EVERY;
        if !due {
            continue;
        }
        let Some(Count { taken, is_whole, held }) = count(&paths, &group, most).await else { continue };
        (counted_at, free_then) = (Instant::now(), free);
        disturbed_counts = if is_whole { 0 } else { disturbed_counts + 1 };
        let look = Look { free, taken, most, disturbed_counts, held, kernel };
        if let Some(overuse) = look.overuse() {
            // A session that has ended its engine needs no word.
            over.send(overuse).ok();
            return;
        }
    }
}

/// What is free on the disk of the install; none where it cannot be told.
fn free(paths: &Paths) -> Option<Room> {
    free_room(paths.root()).ok()
}

/// What an agent may take in all that began with so much.
fn beginning_with(at_start: Room, limit: Room) -> Room {
    Room {
        bytes: limit.bytes.max(at_start.bytes.saturating_add(GROWTH.bytes)),
        entries: limit.entries.max(at_start.entries.saturating_add(GROWTH.entries)),
    }
}

/// What the agent takes.
struct Count {
    /// With names or without.
    taken: Room,
    /// Nobody has moved folders meanwhile.
    is_whole: bool,
    held: Held,
}

/// Counts what the agent takes, files without a name included.
async fn count(paths: &Paths, group: &Group, most: Room) -> Option<Count> {
    let (paths, group) = (paths.clone(), group.clone());
    let counted = blocking(move || {
        let held = processes::held_by_container_of(&paths.group(&group.name)).unwrap_or_default();
        let (named, is_whole) = match taken_by(&paths, &group, most.entries) {
            Taken::All(room) => (room, true),
            Taken::AtLeast(room) => (room, false),
        };
        let taken = Room {
            bytes: named.bytes.saturating_add(held.nameless_bytes),
            entries: named.entries.saturating_add(held.nameless_files),
        };
        Count { taken, is_whole, held }
    });
    counted.await.ok()
}

/// Asks the kernel for what it bounds by user: watches of epoll, which a new pair of sockets needs, and sets of inotify.
fn kernel() -> Kernel {
    if UnixStream::pair().is_ok() && crate::home::inotify_is_there() {
        Kernel::Gives
    } else {
        Kernel::GivesNoMore
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLENTY: Room = Room { bytes: 1 << 40, entries: 1 << 20 };
    const LIMIT: Room = Room { bytes: 4096 * MIB, entries: 200_000 };

    fn look() -> Look {
        Look {
            free: PLENTY,
            taken: Room::default(),
            most: LIMIT,
            disturbed_counts: 0,
            held: Held::default(),
            kernel: Kernel::Gives,
        }
    }

    #[test]
    fn whoever_takes_more_than_a_share_is_over_it() {
        let taken = |bytes, entries| {
            Look { taken: Room { bytes, entries }, ..look() }.overuse().map(Overuse::trouble)
        };
        assert_eq!(taken(LIMIT.bytes, LIMIT.entries), None);
        assert_eq!(taken(LIMIT.bytes + 1, 0), Some(Trouble::DiskShare));
        assert_eq!(taken(0, LIMIT.entries + 1), Some(Trouble::DiskShare));
        assert_eq!(taken(0, u64::MAX), Some(Trouble::DiskShare));
    }

    #[test]
    fn whoever_moves_folders_is_counted_again_but_not_for_ever() {
        let after = |disturbed_counts| Look { disturbed_counts, ..look() }.overuse().map(Overuse::trouble);
        assert_eq!((after(1), after(2)), (None, None), "to install something does that");
        assert_eq!(after(3), Some(Trouble::DiskShare));
        let seen = Look { disturbed_counts: 1, taken: Room { bytes: LIMIT.bytes + 1, entries: 1 }, ..look() };
        assert!(seen.overuse().is_some(), "what was seen counts at once");
    }

    #[test]
    fn on_a_disk_that_runs_full_whoever_has_written_much_is_stopped() {
        let low = [Room { bytes: 100 * MIB, ..PLENTY }, Room { entries: 19_999, ..PLENTY }];
        for free in low {
            let wrote =
                |written_bytes| Look { free, held: Held { written_bytes, ..Held::default() }, ..look() };
            assert_eq!(wrote(WRITTEN_MIN_BYTES).overuse(), None);
            assert!(wrote(WRITTEN_MIN_BYTES + 1).overuse().is_some());
        }
        let held = Held { written_bytes: 1 << 40, ..Held::default() };
        assert_eq!(Look { held, ..look() }.overuse(), None, "with room on the disk nobody asks");
    }

    #[test]
    fn whoever_uses_up_what_the_kernel_has_is_told_from_who_suffers_by_it() {
        let has =
            |watch_sets, kernel| Look { held: Held { watch_sets, ..Held::default() }, kernel, ..look() };
        assert_eq!(has(3, Kernel::GivesNoMore).overuse(), None);
        assert_eq!(has(2_000, Kernel::Gives).overuse(), None);
        let guilty = has(2_000, Kernel::GivesNoMore).overuse();
        assert_eq!(guilty.map(Overuse::trouble), Some(Trouble::SystemLimit));
        let held = Held { files_in_dev: 1_000_000, ..Held::default() };
        assert!(Look { held, ..look() }.overuse().is_some());
    }

    #[test]
    fn who_begins_with_more_than_a_share_may_still_work() {
        assert_eq!(beginning_with(Room::default(), LIMIT), LIMIT);
        let large = Room { bytes: 2 * LIMIT.bytes, entries: 7 };
        assert_eq!(beginning_with(large, LIMIT), Room { bytes: large.bytes + GROWTH.bytes, ..LIMIT });
        let endless = Room { entries: u64::MAX, ..large };
        assert_eq!(beginning_with(endless, LIMIT).entries, u64::MAX);
    }
}
