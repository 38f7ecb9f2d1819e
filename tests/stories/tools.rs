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
    async fn calls(&self, group: &str, tool: &str, arguments: Value) -> String {
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
    assert_eq!(
        world.calls("main", "remove_group", json!({"name": "friends"})).await,
        "The group friends is not served any more."
    );
    assert!(world.calls("main", "remove_group", json!({"name": "main"})).await.contains("cannot be removed"));
    turn.answer("I do.");
    assert_eq!(world.hears_in("main").await, "Kai: I do.");
    world.ends().await;
}
