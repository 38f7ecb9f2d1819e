//! What the engine finds in its home: where everything lies, and the files that it needs before it starts.
//!
//! Never opens a login: `credentials/` holds a stand-in that the host has written.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use toml::Table;

use crate::{RunnerError, RunnerExitCode};

/// The folders and files of one container.
#[derive(Clone, Debug)]
pub struct ContainerHome {
    /// The engine's `HOME`.
    pub user: PathBuf,
    /// What only this start needs, in memory: the agent file, and copies of the configuration and the skills.
    pub prepared: PathBuf,
    /// The group's folder, where the engine works.
    pub workspace: PathBuf,
    /// What all groups share.
    pub global: PathBuf,
    /// The host's socket.
    pub egress_socket: PathBuf,
    /// The port on 127.0.0.1 that leads to the egress proxy; 0 is any free one.
    pub port: u16,
}

impl ContainerHome {
    /// The paths as `nanokimi` mounts them.
    pub fn for_container() -> Self {
        Self { port: 8787, ..Self::under_root(Path::new("/")) }
    }

    /// The same beneath another root, for tests: 8787 may be taken there.
    pub fn under_root(root: &Path) -> Self {
        Self {
            user: root.join("home/node"),
            prepared: root.join("home/node/.nanokimi"),
            workspace: root.join("workspace/group"),
            global: root.join("workspace/global"),
            egress_socket: root.join("run/nanokimi/door.sock"),
            port: 0,
        }
    }
}

/// The owner's `config.toml`.
pub fn read_owner_config(path: &Path) -> Result<Table, RunnerError> {
    let fault = |why: String| {
        RunnerError::new(RunnerExitCode::Settings, format!("Failed to read {}: {why}", path.display()))
    };
    let text = fs::read_to_string(path).map_err(|error| fault(error.to_string()))?;
    text.parse().map_err(|error: toml::de::Error| fault(error.message().to_owned()))
}

/// Writes a file of the home, with its folder.
pub fn write_home_file(path: &Path, content: &[u8]) -> Result<(), RunnerError> {
    let folder = path.parent().map_or(Ok(()), fs::create_dir_all);
    folder.and_then(|()| fs::write(path, content)).map_err(|error| write_failure(path, &error))
}

fn write_failure(path: &Path, error: &io::Error) -> RunnerError {
    RunnerError::new(RunnerExitCode::Home, format!("Failed to write {}: {error}", path.display()))
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A container's folders beneath a temporary one.
    pub fn home_in(root: &Path) -> ContainerHome {
        let home = ContainerHome::under_root(root);
        for folder in [&home.workspace, &home.global] {
            fs::create_dir_all(folder).unwrap();
        }
        home
    }

    #[test]
    fn a_home_that_cannot_be_written_is_told() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("file"), "").unwrap();
        let fault = write_home_file(&root.path().join("file/below"), b"x").unwrap_err();
        assert_eq!(fault.code, RunnerExitCode::Home);
    }
}
