//! What an agent does to its folders so that the host cannot read or move them. Rights stop only an ordinary
//! user, so most of these tests prove more if an ordinary user runs them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use support::scripted_engine::Behaviour;

use crate::world::World;

fn close(folder: &Path, mode: u32) {
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_hides_in_closed_folders_counts_all_the_same() {
    for mode in [0o300, 0o400, 0o000] {
        let mut world = World::without_service(Behaviour::Held).await;
        world.settings(|settings| settings.container_limits.disk_entries = 100);
        world.start().await;
        world.says("main", "Owner", "fill").await;
        let _prompt = world.prompt().await;
        let hidden = world.in_folder("main", "hidden");
        fs::create_dir(&hidden).unwrap();
        for number in 0..3_000 {
            fs::write(hidden.join(number.to_string()), "").unwrap();
        }
        close(&hidden, mode);
        close(&world.in_folder("main", ""), mode);
        world.hears_until(|text| text.contains("more of the server's disk than one chat may")).await;
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_broken_skill_in_a_folder_that_is_closed_is_put_away_too() {
    let mut world = World::new(Behaviour::Echo).await;
    let skill = world.in_folder("main", ".kimi/skills/broken");
    fs::create_dir_all(&skill).unwrap();
    fs::write(skill.join("SKILL.md"), [0xff]).unwrap();
    close(&world.in_folder("main", ".kimi"), 0o500);
    world.docker.next(Behaviour::Says("UnicodeDecodeError: SKILL.md"));
    world.docker.next(Behaviour::Says("UnicodeDecodeError: SKILL.md"));
    world.says("main", "Owner", "hello").await;
    let notice = world.hears_in("main").await;
    assert!(notice.ends_with("From my folder .kimi went there too."), "{notice}");
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    let kept = world.paths().root().join("data/agents/main/set-aside/1/.kimi/skills/broken/SKILL.md");
    assert!(kept.exists() && !world.in_folder("main", ".kimi").exists());
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn whatever_main_makes_of_the_global_folder_the_other_chats_are_answered() {
    let mut world = World::new(Behaviour::Echo).await;
    let global = world.paths().global_folder();
    fs::create_dir_all(global.join("closed/inner")).unwrap();
    close(&global.join("closed/inner"), 0o400);
    close(&global.join("closed"), 0o300);
    // Longer than a path may be once it is copied: there are two halves, and one is moved into the other.
    let half = vec!["x".repeat(255); 8].join("/");
    let other = world.paths().root().join("other");
    fs::create_dir_all(global.join(&half)).unwrap();
    fs::create_dir_all(other.join(&half)).unwrap();
    fs::rename(other, global.join(half).join("z".repeat(255))).unwrap();
    close(&global, 0o300);
    world.says("family", "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    assert!(world.paths().root().join("data/agents/family/global/KIMI.md").exists());
    world.ends().await;
}
