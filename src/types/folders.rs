//! Folders of the host that an owner lends to a group's agent.

use std::path::PathBuf;

/// What a container may do with a folder or file of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MountAccess {
    ReadOnly,
    ReadWrite,
}

/// A folder as the owner named it. Whether it is mounted is decided at each launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraFolder {
    /// Absolute.
    pub path: PathBuf,
    /// What the owner asked for.
    pub access: MountAccess,
}

impl ExtraFolder {
    /// What the folder is called in the container: its name, of plain characters.
    pub fn name_in_container(&self) -> String {
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        if name.is_empty() {
            return "folder".to_owned();
        }
        name.chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-') { c } else { '-' })
            .collect()
    }

    /// A line of the database: `ro:/path`, `rw:/path`.
    pub fn to_stored_line(&self) -> String {
        let access = match self.access {
            MountAccess::ReadOnly => "ro",
            MountAccess::ReadWrite => "rw",
        };
        format!("{access}:{}", self.path.display())
    }

    /// The inverse of [`Self::to_stored_line`]. What cannot be read is no folder.
    pub fn from_stored_line(line: &str) -> Option<Self> {
        let (access, path) = line.split_once(':')?;
        let access = match access {
            "ro" => MountAccess::ReadOnly,
            "rw" => MountAccess::ReadWrite,
            _ => return None,
        };
        Some(Self { path: PathBuf::from(path), access })
    }
}
