//! Whether the disk has room for a link: below a floor the bridge waits, before anything fails. What is sent meanwhile
//! WhatsApp keeps.

use std::path::Path;

use anyhow::{Context, Result};
use rustix::fs::statvfs;

/// Below this the bridge goes offline: enough for the databases to write down what has come already, and what agents
/// are about to answer.
const FLOOR: Room = Room { bytes: 64 * 1024 * 1024, inodes: 1_000 };
/// From this on it comes back: what is freed by little is used up at once.
const ENOUGH: Room = Room { bytes: 96 * 1024 * 1024, inodes: 2_000 };

/// What a file system has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    pub bytes: u64,
    pub inodes: u64,
}

impl Room {
    pub const UNKNOWN: Self = Self { bytes: u64::MAX, inodes: u64::MAX };

    /// What an ordinary user may still use where this folder lies.
    pub fn left_at(folder: &Path) -> Result<Self> {
        let left =
            statvfs(folder).with_context(|| format!("Failed to look at the disk of {}", folder.display()))?;
        // Some file systems count no inodes, as theirs do not run out.
        let inodes = if left.f_files == 0 { u64::MAX } else { left.f_favail };
        Ok(Self { bytes: left.f_bavail.saturating_mul(left.f_frsize), inodes })
    }

    /// Whether a link that is online goes offline.
    pub fn is_low(self) -> bool {
        self.bytes < FLOOR.bytes || self.inodes < FLOOR.inodes
    }

    /// Whether a link that waits for room comes back.
    pub fn is_enough(self) -> bool {
        self.bytes >= ENOUGH.bytes && self.inodes >= ENOUGH.inodes
    }

    /// The lesser of both, each for itself.
    pub fn min(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), inodes: self.inodes.min(other.inodes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_goes_below_the_floor_and_comes_back_well_above_it() {
        let mb = |bytes: u64| bytes * 1024 * 1024;
        for (bytes, inodes, low, enough) in [
            (mb(500), 100_000, false, true),
            (mb(96), 2_000, false, true),
            (mb(95), 2_000, false, false),
            (mb(96), 1_999, false, false),
            (mb(64), 1_000, false, false),
            (mb(64) - 1, 100_000, true, false),
            (mb(500), 999, true, false),
            (0, 0, true, false),
        ] {
            let room = Room { bytes, inodes };
            assert_eq!((room.is_low(), room.is_enough()), (low, enough), "{room:?}");
        }
        assert_eq!(
            Room { bytes: 1, inodes: 9 }.min(Room { bytes: 2, inodes: 3 }),
            Room { bytes: 1, inodes: 3 }
        );
    }

    #[test]
    fn what_is_left_is_that_of_the_folder_s_disk() {
        assert!(Room::left_at(Path::new("/")).unwrap().bytes > 0);
        assert!(Room::left_at(Path::new("/nowhere/at/all")).is_err());
    }
}
