//! The extra folders of `nanokimi groups set --folder`: how they are named on the command line, and what
//! becomes of them.

use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail, ensure};

use super::super::install::Install;
use super::super::ui;
use super::quote_for_shell;
use crate::folders::{self, FolderDecision};
use crate::store::Store;
use crate::types::{ExtraFolder, Group, MountAccess};

/// Most extra folders of one group: each is a mount of its container.
const FOLDERS_MAX: usize = 16;

/// The folders of a group after `--folder` and `--no-folder`.
pub fn change_folders(
    mut folders: Vec<ExtraFolder>,
    add: &[String],
    remove: &[String],
    home: Option<&Path>,
) -> Result<Vec<ExtraFolder>> {
    for typed in remove {
        let path = parse_folder_path(typed, home)?;
        ensure!(
            folders.iter().any(|folder| folder.path == path),
            "It has no folder {}; `nanokimi groups list` shows those it has",
            path.display()
        );
        folders.retain(|folder| folder.path != path);
    }
    for typed in add {
        let folder = parse_folder(typed, home)?;
        folders.retain(|other| other.path != folder.path);
        let name = folder.name_in_container();
        if let Some(other) = folders.iter().find(|other| other.name_in_container() == name) {
            bail!("{} and {} would both be called {name} there", other.path.display(), folder.path.display());
        }
        folders.push(folder);
    }
    ensure!(folders.len() <= FOLDERS_MAX, "A group has at most {FOLDERS_MAX} extra folders");
    Ok(folders)
}

/// `PATH`, `PATH:ro` or `PATH:rw`.
fn parse_folder(typed: &str, home: Option<&Path>) -> Result<ExtraFolder> {
    let (path, access) = match typed.rsplit_once(':') {
        Some((path, "rw")) => (path, MountAccess::ReadWrite),
        Some((path, "ro")) => (path, MountAccess::ReadOnly),
        Some(_) | None => (typed, MountAccess::ReadOnly),
    };
    Ok(ExtraFolder { path: parse_folder_path(path, home)?, access })
}

fn parse_folder_path(typed: &str, home: Option<&Path>) -> Result<PathBuf> {
    let path = match (typed.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) => home.join(rest),
        (Some(_), None) | (None, _) => PathBuf::from(typed),
    };
    let is_plain = path.is_absolute()
        && path.file_name().is_some()
        && path.components().all(|part| part != Component::ParentDir)
        && !typed.chars().any(char::is_control);
    if !is_plain {
        bail!("{typed:?} is not the whole path of a folder, such as /srv/recipes or ~/recipes:rw");
    }
    Ok(path.components().collect())
}

/// What becomes of a group's folders, as they are now.
pub async fn decide_folders(install: &Install, store: &Store, group: &Group) -> Result<Vec<FolderDecision>> {
    let groups = store.all_groups().await?;
    Ok(folders::decide_extra_folders(&install.paths, install.allowlist_place().as_ref(), group, &groups))
}

/// Says what becomes of the folders that were added.
///
/// # Errors
/// One of them would not be mounted.
pub fn require_folders(group: &Group, before: &[ExtraFolder], decisions: &[FolderDecision]) -> Result<()> {
    for FolderDecision { asked, outcome } in
        decisions.iter().filter(|decision| !before.contains(&decision.asked))
    {
        match outcome {
            Ok(granted) => ui::print_info(format!(
                "{} will be {} there, {}.",
                asked.path.display(),
                granted.container,
                describe_access(granted.access)
            )),
            Err(why) => bail!("{} may not have {}: {why}", group.name, asked.path.display()),
        }
    }
    Ok(())
}

/// A line of `groups list` for each extra folder.
pub fn render_decision(group: &Group, decision: &FolderDecision) -> String {
    let (name, path) = (&group.name, decision.asked.path.display());
    match &decision.outcome {
        Ok(granted) => {
            format!("{name} sees {path} as {}, {}.", granted.container, describe_access(granted.access))
        }
        Err(why) => format!("{name} does not see {path}: {why}."),
    }
}

fn describe_access(access: MountAccess) -> &'static str {
    match access {
        MountAccess::ReadOnly => "read-only",
        MountAccess::ReadWrite => "to be written too",
    }
}

/// The options of `groups set` that choose these folders, each with a space before it.
pub fn render_folder_options(folders: &[ExtraFolder]) -> String {
    let options = folders.iter().map(|folder| {
        let ending = match folder.access {
            MountAccess::ReadOnly => "",
            MountAccess::ReadWrite => ":rw",
        };
        format!(" --folder {}", quote_for_shell(&format!("{}{ending}", folder.path.display())))
    });
    options.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_whole_paths_and_read_only_unless_said() {
        let home = Path::new("/home/olga");
        let read = |typed: &str| match parse_folder(typed, Some(home)) {
            Ok(folder) => folder.to_stored_line(),
            Err(error) => error.to_string(),
        };
        for (typed, expected) in [
            ("/srv/recipes", "ro:/srv/recipes"),
            ("/srv/recipes/:rw", "rw:/srv/recipes"),
            ("~/recipes:ro", "ro:/home/olga/recipes"),
            ("/srv/a:b", "ro:/srv/a:b"),
            ("/srv//x/./y", "ro:/srv/x/y"),
        ] {
            assert_eq!(read(typed), expected);
            let line = read(typed);
            assert_eq!(ExtraFolder::from_stored_line(&line).unwrap().to_stored_line(), line);
        }
        for typed in ["", "recipes", "../x", "/srv/../etc", "/", "/srv/a\nrw:/etc", "~root/x", ":rw"] {
            assert!(read(typed).contains("is not the whole path of a folder"), "{typed:?}");
        }
    }

    #[test]
    fn a_folder_is_added_changed_and_taken_back() {
        let lines = |folders: &[ExtraFolder]| -> Vec<String> {
            folders.iter().map(ExtraFolder::to_stored_line).collect()
        };
        let add =
            |folders: Vec<ExtraFolder>, typed: &str| change_folders(folders, &[typed.to_owned()], &[], None);
        let folders = add(add(Vec::new(), "/srv/a").unwrap(), "/srv/b").unwrap();
        let folders = add(folders, "/srv/a:rw").unwrap();
        assert_eq!(lines(&folders), ["ro:/srv/b", "rw:/srv/a"]);
        assert!(add(folders.clone(), "/home/a").unwrap_err().to_string().contains("both be called a there"));
        let fewer = change_folders(folders.clone(), &[], &["/srv/a/".to_owned()], None).unwrap();
        assert_eq!(lines(&fewer), ["ro:/srv/b"]);
        assert!(change_folders(fewer, &[], &["/srv/a".to_owned()], None).is_err());
        let many: Vec<String> = (0..17).map(|number| format!("/srv/{number}")).collect();
        assert!(change_folders(Vec::new(), &many, &[], None).is_err());
    }
}
