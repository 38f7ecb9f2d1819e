//! Folders of the server that the owner lends to a group, as real mounts.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nanokimi::folders::AllowlistPlace;
use nanokimi::types::{ExtraFolder, MountAccess, Role};
use support::container_world::World;
use support::test_service;

#[tokio::test]
async fn a_lent_folder_is_read_only_unless_said_and_one_with_a_secret_is_not_mounted() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    for name in ["config", "shared/recipes", "shared/plans", "shared/web", "shared/keys/.ssh", "elsewhere"] {
        fs::create_dir_all(home.join(name)).unwrap();
    }
    fs::write(home.join("shared/recipes/soup.txt"), "leek and potato").unwrap();
    fs::write(home.join("shared/web/.env"), "KEY=secret").unwrap();
    let file = home.join("config/mount-allowlist.json");
    let roots =
        r#"{"allowedRoots": [{"path": "~/shared", "allowReadWrite": true}], "nonMainReadOnly": false}"#;
    fs::write(&file, roots).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();

    let mut world = World::without_service().await;
    let place = AllowlistPlace { file, home: home.clone() };
    world.settings(|settings| settings.allowlist = Some(place));
    let mut family = test_service::group("family", Role::Member);
    family.folders = [
        ("shared/recipes", MountAccess::ReadOnly),
        ("shared/plans", MountAccess::ReadWrite),
        ("shared/web", MountAccess::ReadOnly),
        ("shared/keys/.ssh", MountAccess::ReadOnly),
        ("elsewhere", MountAccess::ReadWrite),
    ]
    .map(|(path, access)| ExtraFolder { path: home.join(path), access })
    .into();
    world.store.update_group(&family).await.unwrap();
    world.start().await;

    let look = "cd /workspace/extra; ls; cat recipes/soup.txt; echo; touch recipes/new; rm recipes/soup.txt; \
                echo monday >plans/week.txt && cat plans/week.txt";
    let said = world.agent_runs("family", look).await;
    assert_eq!(
        said,
        "plans\nrecipes\nleek and potato\n\
         touch: cannot touch 'recipes/new': Read-only file system\n\
         rm: cannot remove 'recipes/soup.txt': Read-only file system\n\
         monday\n"
    );
    assert_eq!(fs::read_to_string(home.join("shared/plans/week.txt")).unwrap(), "monday\n");
    assert_eq!(fs::read_to_string(home.join("shared/recipes/soup.txt")).unwrap(), "leek and potato");
    assert_eq!(
        world.agent_runs("main", "ls /workspace/extra 2>&1 | wc -l; ls /workspace").await,
        "1\nglobal\ngroup\n"
    );

    // What is gone is left out at the next start, and the chat is answered.
    fs::rename(home.join("shared/recipes"), home.join("eaten")).unwrap();
    support::fixture::gone(&world.kill_container("family").await).await;
    assert_eq!(world.agent_runs("family", "ls /workspace/extra").await, "plans\n");
    world.ends().await;
}
