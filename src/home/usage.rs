//! How much of the disk the agent of a group takes with its files.

use rustix::fs::FileType;

use super::tree::{Bounds, Next, Walked, walk};
use crate::paths::Paths;
use crate::types::{Group, Role, Room};

/// What a group's agent has filled of the disk, as far as names lead to it; looked at no further than `most` entries,
/// beyond which all counts as too much.
pub fn taken_by(paths: &Paths, group: &Group, most: u64) -> Room {
    let mut taken = Room::default();
    let name = &group.name;
    let mut places = vec![
        paths.group(name),
        paths.sessions(name),
        paths.sessions_apart(name, ""),
        paths.agent_credentials(name),
        paths.set_aside(name),
    ];
    if group.role == Role::Main {
        places.push(paths.global());
    }
    for place in places {
        let rest = most.saturating_sub(taken.entries).saturating_add(1);
        let walked = walk(&place, Bounds { entries: rest, depth: usize::MAX }, |entry| {
            taken.entries += 1;
            let blocks = u64::try_from(entry.stat.st_blocks).unwrap_or(0) * 512;
            // A file of several names counts once, if all of them are the agent's.
            let is_file = entry.file_type() == FileType::RegularFile;
            taken.bytes += if is_file { blocks / entry.stat.st_nlink.max(1) } else { blocks };
            Next::Enter
        });
        // A folder that is not there yet takes nothing.
        if matches!(walked, Ok(Walked::InPart)) {
            return Room { entries: u64::MAX, ..taken };
        }
    }
    taken
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::types::{ChatId, GroupName};

    #[test]
    fn all_that_an_agent_can_write_is_counted() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let family = Group::new(GroupName::parse("family").unwrap(), ChatId::new("c"), Role::Member);
        super::super::prepare(&paths).unwrap();
        super::super::prepare_group(&paths, &family).unwrap();
        let before = taken_by(&paths, &family, 1_000);
        let places = [
            paths.group(&family.name),
            paths.sessions(&family.name),
            paths.agent_credentials(&family.name),
            paths.sessions_apart(&family.name, "kimi-code/main"),
        ];
        for place in &places {
            fs::create_dir_all(place.join("deep/er")).unwrap();
            fs::write(place.join("deep/er/file"), vec![1; 1024 * 1024]).unwrap();
            fs::hard_link(place.join("deep/er/file"), place.join("again")).unwrap();
            // A file of 1 TB that holds nothing takes nothing.
            fs::File::create(place.join("sparse")).unwrap().set_len(1 << 40).unwrap();
        }
        fs::write(paths.global().join("large"), vec![1; 1024 * 1024]).unwrap();
        let after = taken_by(&paths, &family, 1_000);
        let grown_mb = (after.bytes - before.bytes) / 1024 / 1024;
        assert_eq!(grown_mb, 4);
        assert!(after.is_beyond(before) && !before.is_beyond(after));
        let main = Group { role: Role::Main, ..family.clone() };
        assert_eq!((taken_by(&paths, &main, 1_000).bytes - before.bytes) / 1024 / 1024, 5);

        assert_eq!(taken_by(&paths, &family, 10).entries, u64::MAX);
    }
}
