//! The folders of an install on disk: made if they are missing, never changed if they are there. `beneath`
//! reaches into those that belong to agents, `tree` walks and removes what agents have made, `usage` counts
//! it, `state` tells whether it has changed, `extra` looks at folders that the owner lends, `set_aside` moves
//! away what keeps an engine from starting, and `shared` copies for each group what all of them read. `found`
//! tells an install from what agents may have made.

mod beneath;
mod extra;
mod found;
mod set_aside;
mod shared;
mod state;
mod tree;
mod usage;

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

pub use beneath::{
    OpenError, PartialFile, create_beneath, free_space_of_folder, open_beneath, remove_beneath,
};
pub use extra::{AllowlistPlace, FolderDecision, decide_extra_folders, is_folder_in_place};
pub use found::is_install_folder;
pub use set_aside::SetAsideTrial;
pub use shared::{
    copy_shared_files, discard_isolated_sessions, empty_trash, global_folder_state, replace_with_empty_folder,
};
pub use state::{FolderState, skills_folder_state};
pub use usage::{DiskUsage, measure_disk_usage};

use crate::paths::Paths;
use crate::types::{Group, Role};

/// The prompts that come with nanokimi; the owner's own are never touched.
const GLOBAL_PROMPT: &str = include_str!("../groups/global/KIMI.md");
const MAIN_PROMPT: &str = include_str!("../groups/main/KIMI.md");

/// A larger file is no `.env`: all settings fit into a hundredth of it.
const ENV_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// The name of a group's prompt file.
const PROMPT_FILE: &str = "KIMI.md";
/// The name of the folder of a group's skills.
pub const SKILLS_FOLDER: &str = "skills";

/// A file that stands nowhere on the disk, with this content, to be read from its beginning.
pub fn file_in_memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("nanokimi", rustix::fs::MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// Makes the folders and files that every install has.
///
/// # Errors
/// A folder or file that cannot be made; what is there already is never changed.
pub fn prepare_install_folders(paths: &Paths) -> Result<()> {
    create_private_folder(&paths.store_folder())?;
    create_private_folder(&paths.root().join("data"))?;
    create_private_folder(&paths.credentials_folder())?;
    create_private_folder(&paths.global_folder())?;
    write_if_missing(&paths.global_folder().join(PROMPT_FILE), GLOBAL_PROMPT)
}

/// Makes a group's folders: its world, its histories, its stand-in credentials.
pub fn prepare_group_folders(paths: &Paths, group: &Group) -> Result<()> {
    let name = &group.name;
    for folder in
        [paths.group_folder(name), paths.sessions_folder(name), paths.agent_credentials_folder(name)]
    {
        create_private_folder(&folder)?;
    }
    if group.role == Role::Main {
        write_if_missing(&paths.group_folder(name).join(PROMPT_FILE), MAIN_PROMPT)?;
    }
    Ok(())
}

/// Makes the folder for the histories of an engine that keeps them apart.
pub fn prepare_separate_sessions(paths: &Paths, group: &Group, folder: &str) -> Result<()> {
    create_private_folder(&paths.separate_sessions_folder(&group.name, folder))
}

/// Makes a folder that only its owner can look into. A link in its place is refused: an agent could have put
/// it there.
fn create_private_folder(path: &Path) -> Result<()> {
    let explain = || format!("Failed to make the folder {}", path.display());
    DirBuilder::new().recursive(true).mode(0o700).create(path).with_context(explain)?;
    let metadata = path.symlink_metadata().with_context(explain)?;
    if !metadata.is_dir() {
        bail!("{} is a link; nanokimi needs a real folder there", path.display());
    }
    // A checkout's folders are open for all, and an agent can close its own to us.
    if metadata.permissions().mode() & 0o7777 != 0o700 {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).with_context(explain)?;
    }
    Ok(())
}

/// Writes a file that is not there yet, whole or not at all: half a prompt would stay for ever.
fn write_if_missing(path: &Path, text: &str) -> Result<()> {
    let explain = || format!("Failed to write {}", path.display());
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(error).with_context(explain),
    };
    let written = file.write_all(text.as_bytes());
    if written.is_err() {
        fs::remove_file(path).with_context(explain)?;
    }
    written.with_context(explain)
}

/// Whether the kernel gives this user another set of inotify watches, a number that all programs of the user
/// share.
pub fn is_inotify_available() -> bool {
    rustix::fs::inotify::init(rustix::fs::inotify::CreateFlags::CLOEXEC).is_ok()
}

/// Writes `.env`, whole or not at all; a new one is for this user's eyes only.
pub fn write_env_file(paths: &Paths, text: &str) -> Result<()> {
    let root = paths.root();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(root);
    made.with_context(|| format!("Failed to make the folder {}", root.display()))?;
    replace_text_file(&paths.env_file(), text)
}

/// Puts another text into a file in one step, with the mode that it has; a new one is for this user only. A link stays,
/// and leads to the new text.
pub fn replace_text_file(path: &Path, text: &str) -> Result<()> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mode = fs::metadata(path).map_or(0o600, |metadata| metadata.permissions().mode() & 0o7777);
    let mut name = path.as_os_str().to_owned();
    name.push(".nanokimi-new");
    let temporary = Path::new(&name);
    let write = || {
        // What a killed try has left.
        match fs::remove_file(temporary) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(temporary, path)
    };
    let written = write();
    if written.is_err() {
        fs::remove_file(temporary).ok();
    }
    written.with_context(|| format!("Failed to write {}", path.display()))
}

/// The text of `.env`, or nothing if there is no such file. If others can read it, it is made private: it
/// holds a key.
pub fn read_env_file(paths: &Paths) -> Result<String> {
    let path = paths.env_file();
    let explain = || format!("Failed to read {}", path.display());
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(explain),
    };
    // A pipe would be read for ever, a device may be endless.
    if !metadata.is_file() && !metadata.is_dir() {
        bail!("{} is no plain file; move it away", path.display());
    }
    if metadata.len() > ENV_FILE_MAX_BYTES {
        bail!("{} is far too large for settings; move it away", path.display());
    }
    let text = String::from_utf8(fs::read(&path).with_context(explain)?)
        .map_err(|_| anyhow!("{} is not plain text; save it as UTF-8", path.display()))?;
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .with_context(|| format!("Failed to make {} private", path.display()))?;
    }
    Ok(text)
}
