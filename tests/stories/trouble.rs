//! What goes wrong, and what the chat reads then.

use std::fs;
use std::time::Duration;

use nanokimi::types::Trouble;
use support::scripted_engine::Behaviour;
use support::test_service;

use crate::world::World;

/// The notice that the owner reads if every try does this, and the seconds until it comes.
async fn notice_when(behaviour: Behaviour) -> (String, u64) {
    let mut world = World::new(behaviour).await;
    world.says("main", "Owner", "hello").await;
    let mut notice = world.hears_in("main").await;
    while !notice.contains("could not answer") {
        notice = world.hears_in("main").await;
    }
    let seconds = world.seconds();
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 1);
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
    (notice, seconds)
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_dies_in_its_turn_is_tried_three_times() {
    let (notice, seconds) = notice_when(Behaviour::DiesInTurn).await;
    // Pauses of 5 and 10 s, and half a second for each end.
    assert!((15..=18).contains(&seconds), "after {seconds} s: {notice}");
    insta::assert_snapshot!(notice, @"Kai: I tried 3 times and could not answer. I broke down in the middle of the work. If it happens again, please ask the owner to run `nanokimi doctor`. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_exits_at_once_is_explained() {
    let (notice, _) = notice_when(Behaviour::Says("kimi-cli is no longer maintained.")).await;
    insta::assert_snapshot!(notice, @"Kai: I tried 3 times and could not answer. I was started on the server, but never got ready. Please ask the owner to run `nanokimi doctor`, which says what to repair. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_never_gets_ready_is_explained() {
    let (notice, _) = notice_when(Behaviour::Mute).await;
    insta::assert_snapshot!(notice, @"Kai: I tried 3 times and could not answer. I was started on the server, but never got ready. Please ask the owner to run `nanokimi doctor`, which says what to repair. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_prints_garbage_is_explained() {
    let (notice, _) = notice_when(Behaviour::Garbage).await;
    insta::assert_snapshot!(notice, @"Kai: I tried 3 times and could not answer. The program that thinks for me said something that I do not understand. Please ask the owner to run `nanokimi build`, which installs the right one. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_is_killed_and_explained() {
    let (notice, seconds) = notice_when(Behaviour::Hangs).await;
    assert!((1800..=1830).contains(&seconds), "after {seconds} s: {notice}");
    insta::assert_snapshot!(notice, @"Kai: I could not answer. It took longer than I may work on one message. Please ask me for less at once. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn a_missing_image_is_explained_at_once() {
    let (notice, seconds) = notice_when(Behaviour::NoLaunch(Trouble::NoImage)).await;
    assert_eq!(seconds, 0);
    insta::assert_snapshot!(notice, @"Kai: I could not answer. I am not completely installed on the server. Please ask the owner to run `nanokimi build`. Your message is kept; to try again, send it again.");
}

#[tokio::test(start_paused = true)]
async fn every_refusal_of_the_model_has_its_sentence() {
    let mut notices = Vec::new();
    for (code, message) in [
        (-32001, "LLM is not set"),
        (-32002, "LLM model 'x' does not support required capability: image_in."),
        (-32003, "Error code: 529 - {}"),
        (-32003, "Error code: 400 - {}"),
        (-32003, "Connection error."),
        (-32003, "The API returned an empty response."),
        (-32603, "MCPRuntimeError: Failed to connect MCP servers"),
    ] {
        notices.push(notice_when(Behaviour::Fails(code, message)).await.0);
    }
    assert!(notices.iter().all(|notice| notice.starts_with("Kai: ")), "{notices:#?}");
    let different: std::collections::HashSet<&String> = notices.iter().collect();
    assert_eq!(different.len(), notices.len(), "{notices:#?}");
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_floods_its_output_is_cut_and_the_chat_is_told() {
    let mut world = World::new(Behaviour::Floods).await;
    world.says("main", "Owner", "go").await;
    let mut words = 0;
    let mut part = world.hears_in("main").await;
    while part.contains("word word") {
        words += part.split_whitespace().filter(|word| *word == "word").count();
        part = world.hears_in("main").await;
    }
    // 64 KiB of it, five bytes each.
    assert_eq!(words, 13_107);
    insta::assert_snapshot!(part, @"Kai: My answer was too long for a chat, so I stopped here. Ask me for a shorter one, or for a file.");
    world.says("main", "Owner", "again").await;
    assert!(world.hears_in("main").await.contains("word"), "the engine goes on");
    while world.hears_in("main").await.contains("word word") {}
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn one_bad_try_is_not_noticed() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.next(Behaviour::DiesInTurn);
    world.start().await;
    world.says("main", "Owner", "hello").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    assert!((5..=7).contains(&world.seconds()), "{}", world.seconds());
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn after_trouble_the_next_message_is_answered() {
    let mut world = World::without_service(Behaviour::Echo).await;
    for _ in 0..3 {
        world.docker.next(Behaviour::DiesInTurn);
    }
    world.start().await;
    world.says("main", "Owner", "unlucky").await;
    assert!(world.hears_in("main").await.contains("3"));
    world.says("main", "Owner", "lucky").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: lucky");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_model_refuses_does_not_stay_in_the_engines_memory() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.next(Behaviour::Fails(-32003, "Error code: 400 - {}"));
    world.start().await;
    world.says("main", "Owner", "look at that broken picture").await;
    assert!(world.hears_in("main").await.contains("could not answer"));
    world.says("main", "Owner", "and now?").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: and now?");
    assert_eq!(world.docker.launches().len(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_given_up_is_not_launched_for_again() {
    let mut world = World::without_service(Behaviour::NoLaunch(Trouble::NoImage)).await;
    world.start().await;
    world.says("main", "Owner", "hello").await;
    world.says("main", "Owner", "are you there?").await;
    world.hears_in("main").await;
    world.silence(Duration::from_secs(60)).await;
    assert_eq!(world.docker.tries(), 1);
    world.ends().await;
}

/// Files that an agent has left in its folders: a history, and instructions of its own.
fn leaves_behind(world: &World) {
    fs::write(
        world.paths().sessions_folder(&test_service::name("main")).join("history"),
        "we speak of boats",
    )
    .unwrap();
    fs::write(world.in_folder("main", "AGENTS.md"), [0xff]).unwrap();
    fs::write(world.in_folder("main", "list.txt"), "milk").unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_no_engine_starts_on_any_more_begins_anew_at_the_third_try() {
    let mut world = World::new(Behaviour::Echo).await;
    leaves_behind(&world);
    world.docker.next(Behaviour::Says("UnicodeDecodeError: AGENTS.md"));
    world.docker.next(Behaviour::Says("UnicodeDecodeError: AGENTS.md"));
    world.says("main", "Owner", "hello").await;
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: Twice I could not start with what I remembered of this chat, so I have begun anew: please tell me again what I should know. What I had is kept on the server, in data/agents/main/set-aside/1. From my folder AGENTS.md went there too.");
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    let kept = world.paths().root().join("data/agents/main/set-aside/1");
    assert_eq!(fs::read_to_string(kept.join("sessions/history")).unwrap(), "we speak of boats");
    assert_eq!(fs::read(kept.join("AGENTS.md")).unwrap(), [0xff]);
    assert!(!world.in_folder("main", "AGENTS.md").exists() && world.in_folder("main", "list.txt").exists());
    // From here on all is as before.
    world.says("main", "Owner", "and now").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: and now");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_hangs_before_it_asks_the_model_counts_too() {
    let mut world = World::new(Behaviour::Echo).await;
    leaves_behind(&world);
    world.docker.next(Behaviour::Mute);
    world.docker.next(Behaviour::Garbage);
    world.says("main", "Owner", "hello").await;
    let notice = world.hears_in("main").await;
    assert!(notice.starts_with("Kai: Twice I could not start with what I remembered"), "{notice}");
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_agent_remembers_stays_when_it_was_not_to_blame() {
    let mut world = World::new(Behaviour::Echo).await;
    leaves_behind(&world);
    for _ in 0..3 {
        world.docker.next(Behaviour::Says("npm ERR! code ENOENT"));
    }
    world.says("main", "Owner", "hello").await;
    let notice = world.hears_in("main").await;
    assert!(notice.contains("never got ready"), "{notice}");
    let history = world.paths().sessions_folder(&test_service::name("main")).join("history");
    assert_eq!(fs::read_to_string(&history).unwrap(), "we speak of boats");
    assert_eq!(fs::read(world.in_folder("main", "AGENTS.md")).unwrap(), [0xff]);
    // An engine that fails during its work is another case, however often it happens.
    for _ in 0..2 {
        world.docker.next(Behaviour::DiesInTurn);
    }
    world.says("main", "Owner", "again").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: again");
    assert_eq!(fs::read_to_string(history).unwrap(), "we speak of boats");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_fills_the_disk_is_stopped_and_the_others_go_on() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.container_limits.disk_entries = 100);
    world.start().await;
    world.says("main", "Owner", "fill").await;
    let _prompt = world.prompt().await;
    for number in 0..3_000 {
        fs::write(world.in_folder("main", &format!("f{number}")), "").unwrap();
    }
    insta::assert_snapshot!(world.hears_until(|text| text.contains("disk")).await, @"Kai: I could not answer. My files in this chat take more of the server's disk than one chat may. Please ask me to delete what is not needed any more. Your message is kept; to try again, send it again.");
    let stops = world.store.recent_agent_stops(world.now()).await.unwrap();
    assert_eq!(stops.iter().map(|stop| stop.group.as_str()).collect::<Vec<_>>(), ["main"]);

    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("hi");
    assert_eq!(world.hears_in("family").await, "Kai: hi");
    // The agent may still work with the files that are there, for example to delete them.
    world.says("main", "Owner", "delete it").await;
    world.prompt().await.answer("done");
    assert_eq!(world.hears_in("main").await, "Kai: done");

    // Work in the background is stopped too.
    for number in 3_000..9_000 {
        fs::write(world.in_folder("main", &format!("f{number}")), "").unwrap();
    }
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: I had to stop what I was doing in the background. My files in this chat take more of the server's disk than one chat may. Please ask me to delete what is not needed any more.");
    world.ends().await;
}
