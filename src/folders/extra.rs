//! Extra folders on disk: reads the allowlist, follows links, and has `rules` decide. Nothing is kept: links
//! may change, so every launch looks anew.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use crate::paths::Paths;
use crate::rules::extra_folders::{
    FolderAllowlist, FolderRules, GrantedFolder, ResolvedFolder, decide_extra_folder,
};
use crate::types::{ExtraFolder, Group, MountAccess};

/// A larger file is no allowlist.
const ALLOWLIST_MAX_BYTES: u64 = 256 * 1024;
/// A folder with more entries is not looked through, and so not mounted.
const ENTRIES_MAX: usize = 10_000;

/// Where the owner's allowlist is, and what `~` in it means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllowlistPlace {
    pub file: PathBuf,
    pub home: PathBuf,
}

/// What becomes of an extra folder; in words, why it is not mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FolderDecision {
    pub asked: ExtraFolder,
    pub outcome: Result<GrantedFolder, String>,
}

/// Decides about a group's extra folders as they are now. `groups` are all groups: in what an agent may write,
/// nothing is mounted for another.
pub fn decide_extra_folders(
    paths: &Paths,
    place: Option<&AllowlistPlace>,
    group: &Group,
    groups: &[Group],
) -> Vec<FolderDecision> {
    if group.folders.is_empty() {
        return Vec::new();
    }
    let allowlist = match place {
        Some(place) => read_allowlist(place),
        None => Err(anyhow!("There is no home folder to look for it")),
    };
    let own_places: Vec<PathBuf> = [Some(paths.root()), place.and_then(|place| place.file.parent())]
        .into_iter()
        .flatten()
        .map(|own| own.canonicalize().unwrap_or_else(|_| own.to_owned()))
        .collect();
    let writable_by_agents: Vec<PathBuf> = groups
        .iter()
        .flat_map(|group| &group.folders)
        .filter(|folder| folder.access == MountAccess::ReadWrite)
        .filter_map(|folder| folder.path.canonicalize().ok())
        .collect();
    let rules = FolderRules {
        allowlist: allowlist.as_ref().ok(),
        role: group.role,
        own_places: &own_places,
        writable_by_agents: &writable_by_agents,
    };
    group
        .folders
        .iter()
        .map(|asked| {
            let outcome = match &allowlist {
                Err(error) => Err(format!("{error:#}")),
                Ok(_) => resolve_folder(asked)
                    .map_err(|error| format!("{error:#}"))
                    .and_then(|folder| decide_extra_folder(&folder, rules).map_err(|why| why.to_string())),
            };
            FolderDecision { asked: asked.clone(), outcome }
        })
        .collect()
}

/// Whether a folder is still where it was when it was decided about: no link has come into its path since.
pub fn is_folder_in_place(folder: &GrantedFolder) -> bool {
    folder.place.canonicalize().is_ok_and(|place| place == folder.place)
}

fn read_allowlist(place: &AllowlistPlace) -> Result<FolderAllowlist> {
    let file = &place.file;
    let metadata = fs::metadata(file)
        .map_err(|_| anyhow!("There is no allowlist {} that can be read", file.display()))?;
    ensure!(metadata.is_file(), "The allowlist {} is no plain file", file.display());
    ensure!(metadata.len() <= ALLOWLIST_MAX_BYTES, "The allowlist {} is far too large", file.display());
    let is_ours = metadata.uid() == rustix::process::geteuid().as_raw();
    if !is_ours || metadata.permissions().mode() & 0o022 != 0 {
        bail!("Others can change the allowlist {}; `chmod 600` it, as its owner", file.display());
    }
    let text =
        fs::read_to_string(file).map_err(|_| anyhow!("The allowlist {} cannot be read", file.display()))?;
    let mut allowlist = FolderAllowlist::from_json(&text)
        .with_context(|| format!("The allowlist {} is not understood", file.display()))?;
    for root in &mut allowlist.roots {
        if let Ok(rest) = root.path.strip_prefix("~") {
            root.path = place.home.join(rest);
        }
    }
    // A root that is not there holds nothing.
    allowlist.roots.retain_mut(|root| match root.path.canonicalize() {
        Ok(resolved) => {
            root.path = resolved;
            true
        }
        Err(_) => false,
    });
    Ok(allowlist)
}

fn resolve_folder(asked: &ExtraFolder) -> Result<ResolvedFolder> {
    let place = asked.path.canonicalize().map_err(|_| anyhow!("it is not there, or cannot be reached"))?;
    ensure!(place.is_dir(), "it is no folder");
    Ok(ResolvedFolder { asked: asked.clone(), entries: list_entries(&place)?, place })
}

fn list_entries(place: &Path) -> Result<Vec<String>> {
    let unreadable = || anyhow!("it cannot be looked into");
    let mut names = Vec::new();
    for entry in fs::read_dir(place).map_err(|_| unreadable())? {
        ensure!(names.len() < ENTRIES_MAX, "it holds more than {ENTRIES_MAX} entries");
        names.push(entry.map_err(|_| unreadable())?.file_name().to_string_lossy().into_owned());
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::types::{ChatId, GroupName, Role};

    struct Machine {
        folder: tempfile::TempDir,
        place: AllowlistPlace,
    }

    impl Machine {
        /// A home with an install, an allowlist and some folders.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let home = folder.path().canonicalize().unwrap();
            for name in ["nanokimi/store", ".config/nanokimi", "shared/recipes", "private"] {
                fs::create_dir_all(home.join(name)).unwrap();
            }
            let file = home.join(".config/nanokimi/mount-allowlist.json");
            let machine = Self { folder, place: AllowlistPlace { file, home } };
            machine.allows(
                r#"{"allowedRoots": [{"path": "~/shared", "allowReadWrite": true}, {"path": "/nowhere"}],
                    "nonMainReadOnly": false}"#,
            );
            machine
        }

        fn allows(&self, text: &str) {
            fs::write(&self.place.file, text).unwrap();
            fs::set_permissions(&self.place.file, fs::Permissions::from_mode(0o600)).unwrap();
        }

        fn home(&self) -> &Path {
            &self.place.home
        }

        fn outcome(&self, path: &str) -> Result<PathBuf, String> {
            let asked = ExtraFolder { path: self.home().join(path), access: MountAccess::ReadOnly };
            let name = GroupName::parse("family").unwrap();
            let group = Group::new(name, ChatId::new("family@g.us"), Role::Member);
            let group = Group { folders: vec![asked], ..group };
            let paths = Paths::new(self.home().join("nanokimi"));
            let decisions = decide_extra_folders(&paths, Some(&self.place), &group, &[]);
            decisions.into_iter().next().unwrap().outcome.map(|granted| granted.place)
        }
    }

    #[test]
    fn links_are_followed_at_every_look() {
        let machine = Machine::new();
        let home = machine.home();
        assert_eq!(machine.outcome("shared/recipes"), Ok(home.join("shared/recipes")));
        let link = home.join("shared/link");
        symlink(home.join("shared/recipes"), &link).unwrap();
        assert_eq!(machine.outcome("shared/link"), Ok(home.join("shared/recipes")));
        fs::remove_file(&link).unwrap();
        symlink("/etc", &link).unwrap();
        assert_eq!(machine.outcome("shared/link").unwrap_err(), "it is beneath no root of the allowlist");
        for (path, why) in [
            ("private", "it is beneath no root of the allowlist"),
            ("shared/../private", "it is beneath no root of the allowlist"),
            ("shared/nothing", "it is not there, or cannot be reached"),
            ("nanokimi/store", "it would show what belongs to nanokimi"),
            (".config/nanokimi", "it would show what belongs to nanokimi"),
            ("", "it would show what belongs to nanokimi"),
        ] {
            let refused = machine.outcome(path).unwrap_err();
            assert!(refused.starts_with(why), "{path}: {refused}");
        }
        fs::write(home.join("shared/file"), "x").unwrap();
        assert_eq!(machine.outcome("shared/file").unwrap_err(), "it is no folder");
        fs::write(home.join("shared/recipes/.env"), "x").unwrap();
        assert_eq!(machine.outcome("shared/recipes").unwrap_err(), "\".env\" in it may hold secrets");
    }

    #[test]
    fn a_folder_whose_path_was_replaced_by_a_link_is_not_in_its_place() {
        let machine = Machine::new();
        let place = machine.outcome("shared/recipes").unwrap();
        let granted =
            GrantedFolder { place: place.clone(), container: String::new(), access: MountAccess::ReadOnly };
        assert!(is_folder_in_place(&granted));
        fs::remove_dir(&place).unwrap();
        symlink("/etc", &place).unwrap();
        assert!(!is_folder_in_place(&granted));
    }

    #[test]
    fn an_allowlist_that_is_missing_broken_or_open_to_others_blocks_everything() {
        let machine = Machine::new();
        fs::set_permissions(&machine.place.file, fs::Permissions::from_mode(0o622)).unwrap();
        assert!(
            machine.outcome("shared/recipes").unwrap_err().starts_with("Others can change the allowlist")
        );
        for broken in ["", "[]", r#"{"allowedRoots": [], "nonMainReadOnly": "no"}"#] {
            machine.allows(broken);
            assert!(machine.outcome("shared/recipes").unwrap_err().contains("is not understood"), "{broken}");
        }
        fs::remove_file(&machine.place.file).unwrap();
        assert!(machine.outcome("shared/recipes").unwrap_err().starts_with("There is no allowlist"));
        fs::create_dir(&machine.place.file).unwrap();
        assert!(machine.outcome("shared/recipes").unwrap_err().contains("is no plain file"));
        assert!(machine.folder.path().exists());
    }
}
