//! Room on a disk, and when there is too little of it.

use rustix::fs::StatVfs;

const MIB: u64 = 1024 * 1024;

/// Room on a disk: taken, or free. Of free entries `u64::MAX` where nothing but the bytes bounds them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    pub bytes: u64,
    /// Files and folders: inodes.
    pub entries: u64,
}

/// What an ordinary user may still use.
impl From<StatVfs> for DiskSpace {
    fn from(disk: StatVfs) -> Self {
        // A file system that makes them as they are needed has no number of them.
        let entries = if disk.f_files == 0 { u64::MAX } else { disk.f_favail };
        Self { bytes: disk.f_bavail.saturating_mul(disk.f_frsize), entries }
    }
}

impl DiskSpace {
    /// Where nobody can say how much there is.
    pub const UNKNOWN: Self = Self { bytes: u64::MAX, entries: u64::MAX };

    /// With less free than this a disk counts as full: enough for the databases to write down what has come already, and
    /// what agents are about to answer.
    pub const FLOOR: Self = Self { bytes: 64 * MIB, entries: 1_000 };

    /// From this on a disk that was full has room again: what is freed by little is used up at once.
    const ENOUGH: Self = Self { bytes: 96 * MIB, entries: 2_000 };

    /// Whether this is more than that, of either.
    pub fn is_beyond(self, most: Self) -> bool {
        self.bytes > most.bytes || self.entries > most.entries
    }

    /// Whether a disk with so much free counts as full.
    pub fn is_low(self) -> bool {
        Self::FLOOR.is_beyond(self)
    }

    /// Whether a disk that was full has room again.
    pub fn is_enough(self) -> bool {
        !Self::ENOUGH.is_beyond(self)
    }

    /// The lesser of both, each for itself.
    pub fn min(self, other: Self) -> Self {
        Self { bytes: self.bytes.min(other.bytes), entries: self.entries.min(other.entries) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_full_below_the_floor_and_has_room_again_well_above_it() {
        for (bytes, entries, low, enough) in [
            (500 * MIB, 100_000, false, true),
            (96 * MIB, 2_000, false, true),
            (95 * MIB, 2_000, false, false),
            (96 * MIB, 1_999, false, false),
            (64 * MIB, 1_000, false, false),
            (64 * MIB - 1, 100_000, true, false),
            (500 * MIB, 999, true, false),
            (0, 0, true, false),
        ] {
            let room = DiskSpace { bytes, entries };
            assert_eq!((room.is_low(), room.is_enough()), (low, enough), "{room:?}");
        }
        assert_eq!(
            DiskSpace { bytes: 1, entries: 9 }.min(DiskSpace { bytes: 2, entries: 3 }),
            DiskSpace { bytes: 1, entries: 3 }
        );
    }
}
