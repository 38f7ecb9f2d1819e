//! Kai does something besides answering: the engine calls the host's tools through its group's real socket.

use std::sync::mpsc;
use std::time::Duration;

use nanokimi::types::Role;
use serde_json::{Value, json};
use support::scripted_engine::Behaviour;
use support::test_service;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::world::World;

/// How long a call may take in real time, since sockets work in real time.
const REAL_LIMIT: Duration = Duration::from_secs(20);

impl World {
    /// The agent of a group calls a tool. Returns what the model reads.
    pub async fn calls(&self, group: &str, tool: &str, arguments: Value) -> String {
        let (done, is_done) = mpsc::channel();
        // Paused time stands still while a thread works.
        let time_stands = tokio::task::spawn_blocking(move || is_done.recv_timeout(REAL_LIMIT));
        let socket = self.paths().egress_folder(&test_service::name(group)).join("door.sock");
        let mut engine = UnixStream::connect(socket).await.unwrap();
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": tool, "arguments": arguments}})
        .to_string();
        let request = format!(
            "POST /mcp HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{call}",
            call.len()
        );
        engine.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        engine.read_to_string(&mut answer).await.unwrap();
        done.send(()).unwrap();
        time_stands.await.unwrap().unwrap();
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let said: Value = serde_json::from_str(body).unwrap();
        said["result"]["content"][0]["text"].as_str().unwrap_or(body).to_owned()
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_sent_while_kai_works_comes_before_the_answer() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai find us a hotel").await;
    let turn = world.prompt().await;
    assert_eq!(
        world.calls("family", "send_message", json!({"text": "Give me *two* minutes."})).await,
        "Sent."
    );
    assert_eq!(world.hears_in("family").await, "Kai: Give me _two_ minutes.");
    assert_eq!(world.calls("family", "react", json!({"emoji": "👍"})).await, "Sent.");
    assert_eq!(world.hears_in("family").await, "👍");
    turn.answer("The Ritz has a room.");
    assert_eq!(world.hears_in("family").await, "Kai: The Ritz has a room.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_turn_that_is_tried_again_does_not_say_the_same_twice() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai find us a hotel").await;
    let turn = world.prompt().await;
    world.calls("family", "send_message", json!({"text": "Looking"})).await;
    assert_eq!(world.hears_in("family").await, "Kai: Looking");
    turn.fails(-32603, "the line broke");
    let turn = world.prompt().await;
    let said = world.calls("family", "send_message", json!({"text": "Looking"})).await;
    assert_eq!(said, "Sent before; it was not sent once more.");
    turn.answer("Found");
    assert_eq!(world.hears_in("family").await, "Kai: Found");

    // The next question may have the same words for an answer.
    world.says("family", "Ana", "@Kai and another?").await;
    let turn = world.prompt().await;
    world.calls("family", "send_message", json!({"text": "Found"})).await;
    assert_eq!(world.hears_in("family").await, "Kai: Found");
    turn.answer("<internal>said already</internal>");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_main_channels_agent_writes_to_other_chats_and_no_other_agent_does() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "tell the family that dinner is at nine").await;
    let turn = world.prompt().await;
    let dinner = json!({"text": "Dinner is at nine.", "to": "family"});
    assert_eq!(world.calls("main", "send_message", dinner).await, "Sent.");
    assert_eq!(world.hears_in("family").await, "Kai: Dinner is at nine.");
    turn.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");

    world.says("family", "Ana", "@Kai tell Olga's channel a joke").await;
    let turn = world.prompt().await;
    for to in ["main", "main@g.us", "third", "unknown@g.us", "34600@s.whatsapp.net", "../main"] {
        let said = world.calls("family", "send_message", json!({"text": "hi", "to": to})).await;
        assert!(said.contains("do not work around it"), "{to}: {said}");
    }
    let said = world.calls("family", "send_message", json!({"text": "A joke", "to": "family"})).await;
    assert_eq!(said, "Sent.");
    assert_eq!(world.hears_in("family").await, "Kai: A joke");
    turn.answer("<internal>no</internal>");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_of_the_main_channel_goes_to_another_chat() {
    let mut world = World::new(Behaviour::Held).await;
    std::fs::write(world.in_folder("main", "plan.pdf"), b"of main").unwrap();
    std::fs::write(world.in_folder("family", "plan.pdf"), b"of the family").unwrap();
    world.says("main", "Owner", "send the family my plan").await;
    let turn = world.prompt().await;
    let plan = json!({"path": "plan.pdf", "to": "family"});
    assert_eq!(world.calls("main", "send_file", plan.clone()).await, "Sent.");
    let heard = world.hears().await;
    assert_eq!(heard.group, "family");
    assert!(
        matches!(&heard.what, support::test_service::What::File { bytes, .. } if bytes == b"of main"),
        "{heard:?}"
    );
    let friends = nanokimi::bridge::Event::Chat {
        id: nanokimi::types::ChatId::new("friends@g.us"),
        name: "Friends".to_owned(),
        members: Some(5),
    };
    world.tells(vec![friends]).await;
    for (to, why) in
        [("friends@g.us", "files go only to chats that are"), ("nobody", "There is no such chat")]
    {
        let said = world.calls("main", "send_file", json!({"path": "plan.pdf", "to": to})).await;
        assert!(said.contains(why), "{said}");
    }
    turn.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");
    world.says("family", "Ana", "@Kai send that to Olga").await;
    let turn = world.prompt().await;
    let said = world.calls("family", "send_file", json!({"path": "plan.pdf", "to": "main"})).await;
    assert!(said.contains("do not work around it"), "{said}");
    turn.answer("No.");
    assert_eq!(world.hears_in("family").await, "Kai: No.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_nobody_has_asked_says_nothing() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    let said = world.calls("family", "send_message", json!({"text": "Buy now!"})).await;
    assert!(said.contains("only while you answer"), "{said}");
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_cannot_bury_its_chat() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai count").await;
    let turn = world.prompt().await;
    let mut refused = None;
    for number in 1..=25 {
        let said = world.calls("family", "send_message", json!({"text": number.to_string()})).await;
        if said != "Sent." {
            refused.get_or_insert((number, said));
            continue;
        }
        assert_eq!(world.hears_in("family").await, format!("Kai: {number}"));
    }
    let (number, said) = refused.unwrap();
    assert!(number == 21 && said.contains("too many messages"), "{number}: {said}");
    turn.answer("done");
    assert_eq!(world.hears_in("family").await, "Kai: done");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_has_kai_serve_another_chat() {
    let mut world = World::new(Behaviour::Held).await;
    world
        .tells(vec![nanokimi::bridge::Event::Chat {
            id: nanokimi::types::ChatId::new("friends@g.us"),
            name: "Friends".to_owned(),
            members: Some(5),
        }])
        .await;
    world.says("main", "Owner", "listen in Friends too").await;
    let turn = world.prompt().await;
    let chats = world.calls("main", "list_chats", json!({})).await;
    assert!(chats.contains(r#""id":"friends@g.us""#) && chats.contains(r#""name":"Friends""#), "{chats}");
    let friends = json!({"name": "friends", "chat": "friends@g.us", "trigger": "@Andy"});
    let said = world.calls("main", "add_group", friends.clone()).await;
    assert_eq!(said, "The group friends is served from now on.");
    assert!(world.calls("main", "add_group", friends).await.contains("There is a group friends already"));
    let groups = world.calls("main", "list_groups", json!({})).await;
    assert!(groups.contains(r#""trigger":"Andy""#), "{groups}");
    let limited = json!({"name": "friends", "daily_tokens": 5000});
    assert_eq!(world.calls("main", "set_group", limited).await, "The group friends was changed.");
    let friends = world.store.group_by_name(&test_service::name("friends")).await.unwrap().unwrap();
    assert_eq!((friends.role, friends.daily_tokens), (Role::Member, Some(5000)));
    let said = world.calls("main", "remove_group", json!({"name": "friends"})).await;
    assert!(said.starts_with("The owner is asked first"), "{said}");
    assert!(world.hears_in("main").await.starts_with("Kai: May I stop serving the group friends?"));
    assert!(world.calls("main", "remove_group", json!({"name": "main"})).await.contains("cannot be removed"));
    turn.answer("I do.");
    assert_eq!(world.hears_in("main").await, "Kai: I do.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reminder_is_planned_in_the_chat_and_comes_on_time() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai remind us of the cake in half an hour").await;
    let turn = world.prompt().await;
    let cake = json!({"text": "Say that the cake is done", "schedule": "in 30m"});
    let said = world.calls("family", "schedule_task", cake).await;
    assert_eq!(said, "Task 1 is planned; next: Sat 21 Nov 12:30 UTC, in 30 min.");
    turn.answer("I will, at 12:30.");
    assert_eq!(world.hears_in("family").await, "Kai: I will, at 12:30.");
    world.silence(Duration::from_secs(29 * 60)).await;

    let turn = world.prompt().await;
    assert!(turn.text.contains("Say that the cake is done</task>"), "{}", turn.text);
    // A task makes no tasks.
    let again = json!({"text": "Say it again", "schedule": "in 30m"});
    let said = world.calls("family", "schedule_task", again).await;
    assert!(said.contains("A task plans no tasks"), "{said}");
    turn.answer("The cake is done!");
    assert_eq!(world.hears_in("family").await, "Kai: The cake is done!");
    world.silence(Duration::from_secs(60 * 60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_sees_and_changes_its_own_tasks_and_the_main_channel_all() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "water my plants every day, and tell the family good night").await;
    let turn = world.prompt().await;
    let plants = json!({"text": "Water the plants", "schedule": "every 1d"});
    assert!(world.calls("main", "schedule_task", plants).await.starts_with("Task 1 is planned"));
    let night = json!({"text": "Say good night", "schedule": "cron 0 22 * * *", "group": "family"});
    assert!(world.calls("main", "schedule_task", night).await.starts_with("Task 2 is planned"));
    assert!(world.calls("main", "pause_task", json!({"task": 2})).await.contains("paused"));
    turn.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");

    world.says("family", "Ana", "@Kai what is planned?").await;
    let turn = world.prompt().await;
    let own = world.calls("family", "list_tasks", json!({})).await;
    assert!(own.contains("Say good night") && !own.contains("plants"), "{own}");
    let unknown = world.calls("family", "cancel_task", json!({"task": 9})).await;
    for tool in ["cancel_task", "pause_task", "resume_task"] {
        assert_eq!(world.calls("family", tool, json!({"task": 1})).await, unknown, "{tool}");
    }
    let elsewhere = json!({"text": "x", "schedule": "in 5m", "group": "main"});
    assert!(world.calls("family", "schedule_task", elsewhere).await.contains("your own group only"));
    for wrong in
        ["not a cron", "every 0", "every abc", "at not-a-date", "cron 0 0 30 2 *", "at 2020-01-01 09:00"]
    {
        let said = world.calls("family", "schedule_task", json!({"text": "x", "schedule": wrong})).await;
        assert!(said.ends_with("Nothing was changed."), "{wrong}: {said}");
    }
    assert!(
        world
            .calls("family", "resume_task", json!({"task": 2}))
            .await
            .contains("resumed; next: Sat 21 Nov 22:00")
    );
    let later = json!({"task": 2, "schedule": "cron 30 22 * * *"});
    assert!(world.calls("family", "update_task", later).await.contains("changed; next: Sat 21 Nov 22:30"));
    assert_eq!(world.calls("family", "cancel_task", json!({"task": 2})).await, "Task 2 is cancelled.");
    turn.answer("Nothing any more.");
    assert_eq!(world.hears_in("family").await, "Kai: Nothing any more.");
    assert_eq!(world.store.tasks(None).await.unwrap().len(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_has_changed_is_sent_again_and_what_is_asked_anew_is_said_anew() {
    let mut world = crate::commands::world_of("Olga").await;
    std::fs::write(world.in_folder("family", "chart.png"), b"red").unwrap();
    world.says("family", "Ana", "@Kai draw the year").await;
    let turn = world.prompt().await;
    for _ in 0..2 {
        assert_eq!(world.calls("family", "send_file", json!({"path": "chart.png"})).await, "Sent.");
        world.hears().await;
    }
    assert_eq!(world.calls("family", "send_message", json!({"text": "There it is"})).await, "Sent.");
    assert_eq!(world.hears_in("family").await, "Kai: There it is");
    turn.step();
    world.says("family", "Olga", "/stop").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I have stopped"));
    // What the agent still wants is not done any more.
    let said = world.calls("family", "schedule_task", json!({"text": "x", "schedule": "in 5m"})).await;
    assert!(said.contains("only while you answer") || said.is_empty(), "{said}");

    world.passes(Duration::from_secs(30)).await;
    world.says("family", "Ana", "@Kai draw it once more").await;
    let turn = world.prompt().await;
    assert_eq!(world.calls("family", "send_message", json!({"text": "There it is"})).await, "Sent.");
    assert_eq!(world.hears_in("family").await, "Kai: There it is");
    turn.answer("<internal>sent</internal>");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_group_does_not_get_what_another_one_has_left() {
    let mut world = World::new(Behaviour::Held).await;
    let friends = nanokimi::bridge::Event::Chat {
        id: nanokimi::types::ChatId::new("friends@g.us"),
        name: "Friends".to_owned(),
        members: Some(5),
    };
    world.tells(vec![friends]).await;
    std::fs::create_dir_all(world.in_folder("work", "notes")).unwrap();
    world.says("main", "Owner", "serve my friends").await;
    let turn = world.prompt().await;
    let said = world.calls("main", "add_group", json!({"name": "work", "chat": "friends@g.us"})).await;
    assert!(said.contains("choose a name that was never used"), "{said}");
    let said = world
        .calls("main", "add_group", json!({"name": "friends", "chat": "friends@g.us", "trigger": ""}))
        .await;
    assert!(said.contains("is served from now on"), "{said}");
    turn.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");
    world.ends().await;
}
