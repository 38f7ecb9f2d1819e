//! How many agents run, and for how long.

use std::time::Duration;

use nanokimi::types::Role;
use support::scripted_engine::Behaviour;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn ten_groups_with_room_for_two_are_all_answered_in_the_order_in_which_they_asked() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 2);
    let groups: Vec<String> = (0..10).map(|n| format!("group{n}")).collect();
    for group in &groups {
        world.add_group(group, Role::Member).await;
    }
    world.start().await;
    for group in &groups {
        world.says(group, "Alice", "@Kai hello").await;
    }
    for _ in &groups {
        let turn = world.prompt().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        turn.answer("hi");
        world.hears().await;
    }
    assert_eq!(world.docker.most_at_once(), 2);
    let launches = world.docker.launches();
    for (asked, group) in groups.iter().enumerate() {
        let launched = launches.iter().position(|launch| launch == group).expect("every group is launched");
        assert!(
            launched.abs_diff(asked) < 2,
            "two at once may overtake each other, more may not: {launches:?}"
        );
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_busy_chat_does_not_keep_others_out() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 1);
    world.start().await;
    world.says("main", "Owner", "one").await;
    let turn = world.prompt().await;
    world.says("family", "Alice", "@Kai and me?").await;
    world.says("main", "Owner", "two").await;
    world.silence(Duration::from_secs(1)).await;
    turn.answer("1");
    assert_eq!(world.hears_in("main").await, "Kai: 1");
    let turn = world.prompt().await;
    assert_eq!(turn.group, "family");
    turn.answer("you too");
    assert_eq!(world.hears_in("family").await, "Kai: you too");
    let turn = world.prompt().await;
    assert_eq!(turn.group, "main");
    turn.answer("2");
    assert_eq!(world.hears_in("main").await, "Kai: 2");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_is_kept_for_a_quarter_of_an_hour() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("main", "Owner", "hello").await;
    world.hears_in("main").await;
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(world.docker.running(), 1);
    world.says("main", "Owner", "again").await;
    world.hears_in("main").await;
    tokio::time::sleep(Duration::from_secs(14 * 60)).await;
    assert_eq!(world.docker.running(), 1);
    tokio::time::sleep(Duration::from_secs(2 * 60)).await;
    assert_eq!(world.docker.running(), 0);
    assert_eq!(world.docker.launches().len(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_never_ends_is_ended_and_the_chat_is_told() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "count to infinity").await;
    let turn = world.prompt().await;
    turn.step();
    for _ in 0..3 {
        world.hears_in("main").await;
    }
    turn.request("cancel").await;
    turn.status(serde_json::json!({"status": "cancelled"}));
    let notice = world.hears_in("main").await;
    assert!(notice.contains("longer than I may work"), "{notice}");
    assert_eq!(world.seconds() / 60, 30);
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_prompt_takes_effect_at_the_next_turn() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("main", "Owner", "hello").await;
    world.hears_in("main").await;
    let prompt = world.paths().groups_folder().join("main/KIMI.md");
    std::fs::write(prompt, "You are a pirate.").unwrap();
    world.says("main", "Owner", "who are you?").await;
    world.hears_in("main").await;
    assert_eq!(world.docker.launches().len(), 2);
    world.says("main", "Owner", "again").await;
    world.hears_in("main").await;
    assert_eq!(world.docker.launches().len(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_skill_takes_effect_at_the_next_turn() {
    let mut world = World::new(Behaviour::Echo).await;
    let mut launches = 0;
    for (written, starts) in [
        ("", 1),
        ("family/skills/bread/SKILL.md", 1),
        ("", 0),
        ("family/skills/bread/scripts.log", 0),
        ("global/skills/boat/SKILL.md", 1),
    ] {
        if !written.is_empty() {
            let file = world.paths().groups_folder().join(written);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "---\ndescription: d\n---\n").unwrap();
        }
        world.says("family", "Alice", "@Kai hello").await;
        assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
        launches += starts;
        assert_eq!(world.docker.launches().len(), launches, "{written}");
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_agent_makes_room_even_while_a_busy_one_was_asked() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 2);
    world.add_group("third", Role::Member).await;
    world.start().await;
    world.says("main", "Owner", "a long one").await;
    let long = world.prompt().await;
    world.says("family", "Alice", "@Kai a short one").await;
    let short = world.prompt().await;
    world.says("third", "Bob", "@Kai me too").await;
    short.answer("done");
    drop(short);
    assert_eq!(world.hears_in("family").await, "Kai: done");
    let third = world.prompt().await;
    assert_eq!(third.group, "third");
    assert!(world.seconds() < 5, "after {} s", world.seconds());
    third.answer("you too");
    assert_eq!(world.hears_in("third").await, "Kai: you too");
    long.answer("done, too");
    assert_eq!(world.hears_in("main").await, "Kai: done, too");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_changes_its_prompt_without_end_still_lets_others_be_answered() {
    let mut world = World::new(Behaviour::Echo).await;
    let prompt = world.paths().groups_folder().join("global/KIMI.md");
    let restless = tokio::spawn(async move {
        for n in 0.. {
            std::fs::write(&prompt, format!("version {n}")).unwrap();
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    for _ in 0..3 {
        world.says("family", "Alice", "@Kai hello").await;
        assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
    }
    restless.abort();
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_removed_while_it_waits_is_forgotten() {
    let mut world = World::new(Behaviour::DiesInTurn).await;
    world.says("family", "Alice", "@Kai hello").await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let name = nanokimi::types::GroupName::parse("family").unwrap();
    world.store.remove_group(&name).await.unwrap();
    let launches = world.docker.launches().len();
    world.silence(Duration::from_secs(600)).await;
    assert_eq!(world.docker.launches().len(), launches, "nobody works for a group that is gone");
    assert_eq!(world.store.queue_counts().await.unwrap().waiting, 0);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_was_added_again_with_another_role_gets_another_container() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("family", "Alice", "@Kai hello").await;
    world.hears_in("family").await;
    for name in ["main", "family"] {
        let name = nanokimi::types::GroupName::parse(name).unwrap();
        world.store.remove_group(&name).await.unwrap();
    }
    world.add_group("family", Role::Main).await;
    world.says("family", "Alice", "hello again").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: hello again");
    assert_eq!(world.docker.launches(), ["family", "family"]);
    world.ends().await;
}
