//! nanokimi has a fault. The chat that causes it is tried again, then told; other chats notice nothing.

use std::time::Duration;

use nanokimi::bridge::Event;
use rusqlite::Connection;
use support::scripted_engine::Behaviour;
use support::test_service::message;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn a_session_that_panics_is_made_anew_and_no_other_chat_waits() {
    let mut world = World::without_service(Behaviour::Echo).await;
    // The agent that has the only slot must give it back.
    world.settings(|settings| settings.max_agents = 1);
    world.docker.next(Behaviour::PanicsAtLaunch);
    world.start().await;
    world.says("family", "Ana", "@Kai hello").await;
    world.passes(Duration::from_secs(1)).await;
    assert_eq!(world.docker.running(), 0, "what it had launched is removed");
    world.says("main", "Owner", "are you there?").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: are you there?");
    assert!(world.seconds() <= 2);
    world.says("family", "Bob", "@Kai hello?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello?");
    assert!((5..=7).contains(&world.seconds()), "{}", world.seconds());
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_panics_each_time_is_given_up_and_the_next_message_is_answered() {
    let mut world = World::without_service(Behaviour::Echo).await;
    for _ in 0..3 {
        world.docker.next(Behaviour::PanicsAtLaunch);
    }
    world.start().await;
    world.says("family", "Ana", "@Kai unlucky").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: I tried 3 times and could not answer. Something went wrong inside me. Please ask the owner to run `nanokimi doctor`, which says what to repair. Your message is kept; to try again, send it again.");
    assert!((15..=18).contains(&world.seconds()), "{}", world.seconds());
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 1);
    assert_eq!((world.docker.tries(), world.docker.running()), (3, 0));
    world.says("family", "Ana", "@Kai lucky").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai lucky");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_a_container_is_removed_leaves_none() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.next(Behaviour::DiesInTurn);
    world.docker.panic_at_removal();
    world.start().await;
    world.says("main", "Owner", "hello").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    assert_eq!(world.docker.running(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_stops_while_it_recovers_loses_nothing() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.docker.next(Behaviour::PanicsAtLaunch);
    world.start().await;
    world.says("main", "Owner", "hello").await;
    world.passes(Duration::from_secs(1)).await;
    world.stop().await;
    assert_eq!(world.docker.running(), 0);
    world.start().await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_can_never_be_stored_keeps_nothing_else_and_its_chat_is_told() {
    let mut world = World::new(Behaviour::EchoAll).await;
    Connection::open(world.paths().database_file())
        .unwrap()
        .execute_batch(
            "CREATE TRIGGER poison BEFORE INSERT ON inbox WHEN NEW.text LIKE '%poison%'
             BEGIN SELECT RAISE(ABORT, 'the story wants it so'); END",
        )
        .unwrap();
    let said = ["one", "poison", "three"].into_iter().enumerate();
    let events = said.map(|(number, text)| {
        Event::Message(message("main", &format!("p{number}"), "Owner", text, world.now()))
    });
    // Its bridge gets an answer; without one it would deliver the same message again and again.
    world.tells(events.collect()).await;
    let mut heard = world.hears_in("main").await;
    while !heard.contains("three") {
        heard = world.hears_in("main").await;
    }
    assert!(heard.contains("[A message that could not be stored]"), "{heard}");
    world.ends().await;
}
