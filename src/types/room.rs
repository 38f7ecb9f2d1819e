//! Room on a disk, and the limit below which there is too little.

use rustix::fs::StatVfs;

const MIB: u64 = 1024 * 1024;

/// Room on a disk: used, or free. Free entries are `u64::MAX` if only the bytes limit them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskSpace {
    pub bytes: u64,
    /// Files and folders: inodes.
    pub entries: u64,
}

/// What an ordinary user may still use.
impl From<StatVfs> for DiskSpace {
    fn from(disk: StatVfs) -> Self {
        // A file system that makes inodes on demand has no number of them.
        let entries = if disk.f_files == 0 { u64::MAX } else { disk.f_favail };
        Self { bytes: disk.f_bavail.saturating_mul(disk.f_frsize), entries }
    }
}

impl DiskSpace {
    /// For a disk whose free room cannot be found out.
    pub const UNKNOWN: Self = Self { bytes: u64::MAX, entries: u64::MAX };

    /// If less than this is free, the disk counts as full. It is enough for the databases to write what has
    /// come already, and what agents are about to answer.
    pub const FLOOR: Self = Self { bytes: 64 * MIB, entries: 1_000 };

    /// A disk that was full has room again from here on. With a lower limit, the little that is freed would
    /// be used up at once.
    const ENOUGH: Self = Self { bytes: 96 * MIB, entries: 2_000 };

    /// Whether this is more than `most`, in bytes or in entries.
    pub fn is_beyond(self, most: Self) -> bool {
        self.bytes > most.bytes || self.entries > most.entries
    }

    /// Whether a disk with this much free counts as full.
    pub fn is_low(self) -> bool {
        Self::FLOOR.is_beyond(self)
    }

    /// Whether a disk that was full has room again.
    pub fn is_enough(self) -> bool {
        !Self::ENOUGH.is_beyond(self)
    }

    /// The smaller number of each kind.
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
