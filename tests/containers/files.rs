//! The owner of the agents' files, and what happens with them.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use support::container_world::World;

use crate::program::Program;

#[tokio::test]
async fn what_an_agent_writes_belongs_to_the_person_who_can_change_and_delete_it() {
    let mut world = World::new().await;
    let write = "mkdir -p trips/2026 sealed; echo plan >trips/2026/plan.txt; \
                 printf '#!/bin/sh\\n' >trips/run; chmod 755 trips/run; \
                 echo secret >sealed/note; chmod 000 sealed/note; ln -s trips/run link; chmod 4755 trips/2026/plan.txt; \
                 mkdir locked; chmod 000 locked";
    assert_eq!(world.agent_runs("family", write).await, "");
    let folder = world.folder_of("family");
    let person = rustix::process::geteuid().as_raw();
    let files = everything_in(&folder);
    assert_eq!(files.len(), 8, "{files:?}");
    for file in everything_in(world.paths().root()) {
        let metadata = file.symlink_metadata().unwrap();
        assert_eq!(
            (metadata.uid(), metadata.gid()),
            (person, rustix::process::getegid().as_raw()),
            "{}",
            file.display()
        );
    }
    let mode = |file: &str| fs::metadata(folder.join(file)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("trips/run"), mode("sealed/note"), mode("locked")), (0o755, 0, 0));

    fs::write(folder.join("trips/2026/plan.txt"), "another plan").unwrap();
    fs::set_permissions(folder.join("locked"), fs::Permissions::from_mode(0o700)).unwrap();
    for name in ["trips", "sealed", "locked"] {
        fs::remove_dir_all(folder.join(name)).unwrap();
    }
    fs::remove_file(folder.join("link")).unwrap();
    assert_eq!(everything_in(&folder), Vec::<PathBuf>::new());
    world.ends().await;
}

/// Everything below a folder, as far as it can be read.
fn everything_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(everything_in(&path));
        }
        found.push(path);
    }
    found
}

#[tokio::test]
async fn a_group_that_is_removed_and_added_again_goes_on_where_it_was() {
    let program = Program::new().await;
    let says = async |text| program.does(&["chat", "--group", "family", "--say", text]).await;
    program.does(&["groups", "add", "family"]).await;
    assert_eq!(says("@Kai SAY the boat leaves at nine").await, "Kai: the boat leaves at nine\n");
    let list = program.paths().groups_folder().join("family/list.txt");
    fs::write(&list, "bread").unwrap();

    program.does(&["groups", "remove", "family"]).await;
    assert!(!program.does(&["groups", "list"]).await.contains("family"));
    assert!(list.exists());

    program.does(&["groups", "add", "family"]).await;
    assert_eq!(says("@Kai RECALL").await, "Kai: SAY the boat leaves at nine\n");
    assert_eq!(fs::read_to_string(&list).unwrap(), "bread");
    program.ends().await;
}
