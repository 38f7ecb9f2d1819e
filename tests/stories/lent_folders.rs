//! An owner lends a group's agent folders of the server.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use nanokimi::folders::AllowlistPlace;
use nanokimi::types::{ExtraFolder, MountAccess};
use support::scripted_engine::Behaviour;

use crate::world::World;

/// A server whose owner lends `shared/recipes` to the family; returns it with the owner's home.
async fn lends_recipes() -> (World, tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().canonicalize().unwrap();
    fs::create_dir_all(home.join("shared/recipes")).unwrap();
    fs::create_dir_all(home.join("config")).unwrap();
    let file = home.join("config/mount-allowlist.json");
    fs::write(&file, r#"{"allowedRoots": [{"path": "~/shared"}]}"#).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let mut world = World::without_service(Behaviour::EchoAll).await;
    let place = AllowlistPlace { file, home: home.clone() };
    world.settings(|settings| settings.allowlist = Some(place));
    let recipes = ExtraFolder { path: home.join("shared/recipes"), access: MountAccess::ReadOnly };
    world.choose("family", |group| group.folders = vec![recipes]).await;
    world.start().await;
    (world, folder, home)
}

#[tokio::test(start_paused = true)]
async fn an_agent_sees_the_folders_that_it_was_lent_and_no_other_agent_does() {
    let (mut world, _folder, home) = lends_recipes().await;
    world.says("family", "Ana", "@Kai hello").await;
    world.hears_in("family").await;
    let recipes = ("/workspace/extra/recipes".to_owned(), home.join("shared/recipes").display().to_string());
    assert_eq!(world.docker.lent_folders(), [recipes]);
    world.says("main", "Owner", "hello").await;
    world.hears_in("main").await;
    assert_eq!(world.docker.lent_folders(), []);

    // Taken back, it is gone with the next message.
    world.choose("family", |group| group.folders.clear()).await;
    world.says("family", "Ana", "@Kai and now?").await;
    world.hears_in("family").await;
    assert_eq!(world.docker.lent_folders(), []);
    assert_eq!(world.docker.launches(), ["family", "main", "family"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_has_become_a_link_to_elsewhere_is_not_mounted_and_the_chat_is_answered() {
    let (mut world, _folder, home) = lends_recipes().await;
    fs::remove_dir(home.join("shared/recipes")).unwrap();
    symlink("/etc", home.join("shared/recipes")).unwrap();
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    assert_eq!(world.docker.lent_folders(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_allowlist_nothing_is_lent() {
    let (mut world, _folder, home) = lends_recipes().await;
    fs::write(home.join("config/mount-allowlist.json"), "[]").unwrap();
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    assert_eq!(world.docker.lent_folders(), []);
    world.ends().await;
}
