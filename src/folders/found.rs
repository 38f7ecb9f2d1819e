//! Whether the folder that somebody stands in is an install that they have made. Agents make whatever they
//! like in the folders that are theirs, as the same user: an install never begins in a folder that an agent
//! could have made.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::paths::Paths;

/// Whether an install begins in this folder, by its whole path without links. A folder within another
/// install, or within what is left or copied of one, is no install: an agent may have made it.
pub fn is_install_folder(folder: &Path) -> bool {
    let paths = Paths::new(folder);
    // A checkout of nanokimi has groups, with nothing of anybody's in them.
    let is_whole = [folder, &paths.groups_folder(), &paths.global_folder(), &paths.store_folder()]
        .into_iter()
        .all(is_own_folder)
        && (is_own_file(&paths.database_file()) || is_own_folder(&paths.whatsapp_keys_folder()));
    is_whole && !folder.ancestors().skip(1).any(has_install_traces)
}

/// Whether this folder is an install, or what is left of one: something in it may be an agent's.
fn has_install_traces(folder: &Path) -> bool {
    let paths = Paths::new(folder);
    [
        paths.database_file(),
        paths.whatsapp_keys_folder(),
        paths.global_folder(),
        paths.all_sessions_folder(),
        paths.all_agents_folder(),
    ]
    .into_iter()
    .any(|trace| trace.symlink_metadata().is_ok())
}

fn is_own_folder(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir() && is_owned_and_protected(&metadata))
}

fn is_own_file(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && is_owned_and_protected(&metadata))
}

/// Whether it belongs to the user who asks, and nobody else may write there.
fn is_owned_and_protected(metadata: &Metadata) -> bool {
    const WRITABLE_FOR_ALL: u32 = 0o002;
    metadata.uid() == rustix::process::geteuid().as_raw() && metadata.mode() & WRITABLE_FOR_ALL == 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn make(root: &Path, paths: &[&str]) {
        for path in paths {
            let path = root.join(path);
            if path.extension().is_some() {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, "").unwrap();
            } else {
                fs::create_dir_all(path).unwrap();
            }
        }
    }

    /// What an agent makes of a folder so that it looks like an install.
    const PLANTED: [&str; 4] = ["groups/global", "store/nanokimi.db", "store/auth", "data/credentials"];

    #[test]
    fn an_install_begins_where_its_owner_has_made_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        assert!(!is_install_folder(&root), "nothing is none");
        make(&root, &["groups/global"]);
        assert!(!is_install_folder(&root), "a checkout is none");
        make(&root, &["store/nanokimi.db"]);
        assert!(is_install_folder(&root));
        fs::remove_file(root.join("store/nanokimi.db")).unwrap();
        assert!(!is_install_folder(&root));
        make(&root, &["store/auth"]);
        assert!(is_install_folder(&root), "one that is linked and has no messages yet");
    }

    #[test]
    fn where_an_agent_may_have_made_it_there_is_no_install() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        make(&root, &PLANTED);
        for planted in [
            "groups/family",
            "groups/family/inbox/2026-11-29",
            "groups/global",
            "data/sessions/family",
            "data/agents/family/sessions/kimi-code/x",
            "store/backup",
            "elsewhere",
        ] {
            let place = root.join(planted);
            make(&place, &PLANTED);
            assert!(!is_install_folder(&place), "{planted}");
            // Within what was planted, too.
            let deeper = place.join("groups/inner");
            make(&deeper, &PLANTED);
            assert!(!is_install_folder(&deeper), "{planted}");
        }
        assert!(is_install_folder(&root));
    }

    #[test]
    fn what_is_left_or_copied_of_an_install_is_none_either() {
        for left in ["groups/global", "data/sessions", "data/agents", "store/auth", "store/nanokimi.db"] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            make(&root, &[left]);
            let place = root.join("groups/family");
            make(&place, &PLANTED);
            assert!(!is_install_folder(&place), "{left}");
        }
    }

    #[test]
    fn links_and_what_others_may_write_make_no_install() {
        type Change = fn(&Path);
        let changes: [(&str, Change); 6] = [
            ("a link to the store", |root| {
                fs::rename(root.join("store"), root.join("moved")).unwrap();
                symlink("moved", root.join("store")).unwrap();
            }),
            ("a link to the database", |root| {
                fs::rename(root.join("store/nanokimi.db"), root.join("moved")).unwrap();
                symlink("../moved", root.join("store/nanokimi.db")).unwrap();
            }),
            ("a link to the groups", |root| {
                fs::rename(root.join("groups"), root.join("moved")).unwrap();
                symlink("moved", root.join("groups")).unwrap();
            }),
            ("a folder in the place of the database", |root| {
                fs::remove_file(root.join("store/nanokimi.db")).unwrap();
                fs::create_dir(root.join("store/nanokimi.db")).unwrap();
            }),
            ("a store that all may write", |root| {
                fs::set_permissions(root.join("store"), Permissions::from_mode(0o777)).unwrap();
            }),
            ("a root that all may write", |root| {
                fs::set_permissions(root, Permissions::from_mode(0o1777)).unwrap();
            }),
        ];
        for (what, change) in changes {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().canonicalize().unwrap();
            make(&root, &["groups/global", "store/nanokimi.db"]);
            assert!(is_install_folder(&root));
            change(&root);
            assert!(!is_install_folder(&root), "{what}");
        }
    }
}
