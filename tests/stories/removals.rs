//! The owner removes a chat with `nanokimi groups remove`, at any moment. After that nothing more is said
//! there.

use std::time::Duration;

use nanokimi::bridge::{HandedOver, LinkState};
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);

#[tokio::test(start_paused = true)]
async fn a_turn_that_runs_is_ended_and_nothing_more_is_said() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai think long").await;
    let turn = world.prompt().await;
    turn.step();
    turn.says("This is half of it.");
    world.passes(Duration::from_secs(30)).await;
    world.store.remove_group(&name("family")).await.unwrap();
    world.passes(Duration::from_secs(30)).await;
    assert_eq!(world.docker.running(), 0, "the agent works for nobody");
    world.silence(HOUR).await;
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.waiting, counts.claimed, counts.unsent), (0, 0, 0));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_comes_just_then_is_not_said() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    world.store.remove_group(&name("family")).await.unwrap();
    turn.answer("Hello.");
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_its_turn_is_not_told_there_either() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    world.store.remove_group(&name("family")).await.unwrap();
    turn.fails(-32003, "Error code: 400 - {'error': {'message': 'broken'}}");
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_is_not_sent() {
    let mut world = World::new(Behaviour::Echo).await;
    world.link(LinkState::Connecting);
    world.says("family", "Ana", "@Kai one").await;
    world.says("main", "Owner", "two").await;
    world.silence(Duration::from_secs(60)).await;
    world.store.remove_group(&name("family")).await.unwrap();
    world.link(LinkState::Online);
    assert_eq!(world.hears_in("main").await, "Kai: echo: two");
    world.silence(HOUR).await;
    assert_eq!(world.store.given_up_replies().await.unwrap()[0].why, "the group was removed");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_with_whatsapp_is_not_sent_again() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    world.says("family", "Ana", "@Kai one").await;
    world.hears().await;
    world.chats.hang("family");
    world.says("family", "Ana", "@Kai two").await;
    let stuck = world.stuck().await;
    world.store.remove_group(&name("family")).await.unwrap();
    stuck.outcome.send(Ok(HandedOver::Sent)).unwrap();
    world.link(LinkState::Connecting);
    world.passes(Duration::from_secs(60)).await;
    world.link(LinkState::Online);
    world.silence(HOUR).await;
    world.ends().await;
}
