//! An agent starts before anything is asked: somebody who types, or who speaks soon after Kai was called,
//! waits less.

use std::time::Duration;

use nanokimi::bridge::Event;
use nanokimi::session::machine::AHEAD_LIMIT;
use nanokimi::types::{Role, Trouble};
use support::scripted_engine::Behaviour;
use support::test_service::{chat, message};

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);

impl World {
    /// Somebody types in this chat.
    async fn types(&mut self, group: &str) {
        self.tells(vec![Event::Typing { chat: chat(group) }]).await;
        self.silence(Duration::from_secs(3)).await;
    }

    /// How many agents this group has started, and how many run in all.
    fn agents(&self) -> (usize, usize) {
        (self.docker.launches().len(), self.docker.running())
    }
}

#[tokio::test(start_paused = true)]
async fn who_types_in_the_main_channel_finds_the_agent_ready() {
    let mut world = World::new(Behaviour::Held).await;
    world.types("main").await;
    assert_eq!(world.agents(), (1, 1));
    world.types("main").await;
    let wrote_at = world.seconds();
    world.says("main", "Owner", "hello").await;
    let prompt = world.prompt().await;
    assert_eq!(world.seconds(), wrote_at, "nothing has to start");
    prompt.answer("Hello.");
    assert_eq!(world.hears_in("main").await, "Kai: Hello.");
    assert_eq!(world.agents(), (1, 1));
    // It was needed, so it is kept like any other.
    world.silence(AHEAD_LIMIT + MINUTE).await;
    assert_eq!(world.agents(), (1, 1));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn in_a_group_people_type_to_each_other() {
    let mut world = World::new(Behaviour::Echo).await;
    world.types("family").await;
    world.types("nowhere").await;
    assert_eq!(world.agents(), (0, 0));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_first_words_where_kai_was_called_within_the_hour_start_the_agent() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("family", "Ana", "good morning").await;
    world.silence(MINUTE).await;
    assert_eq!(world.agents(), (0, 0), "nobody has ever called");
    world.says("family", "Ana", "@Kai hello").await;
    world.hears_in("family").await;
    world.silence(MINUTE * 40).await;
    assert_eq!(world.agents(), (1, 0), "it has slept in");
    world.says("family", "Ana", "look at this").await;
    world.silence(MINUTE).await;
    assert_eq!(world.agents(), (2, 1));
    world.says("family", "Ana", "@Kai what is it?").await;
    world.hears_in("family").await;
    assert_eq!(world.agents(), (2, 1));
    world.silence(MINUTE * 70).await;
    world.says("family", "Ana", "good night").await;
    world.silence(MINUTE).await;
    assert_eq!(world.agents(), (2, 0), "that was long ago");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_started_in_vain_ends_soon_and_is_started_less_often() {
    let mut world = World::new(Behaviour::Echo).await;
    world.types("main").await;
    assert_eq!(world.agents(), (1, 1));
    world.silence(AHEAD_LIMIT + MINUTE).await;
    assert_eq!(world.agents(), (1, 0));
    // For a day somebody types every two minutes, and sends nothing.
    for _ in 0..12 * 60 {
        world.silence(MINUTE * 2).await;
        world.types("main").await;
    }
    let (started, _) = world.agents();
    assert!((8..=14).contains(&started), "{started} in a day");
    world.says("main", "Owner", "hello").await;
    world.hears_in("main").await;
    // After a question, all is as before.
    world.silence(MINUTE * 20).await;
    assert_eq!(world.docker.running(), 0);
    world.types("main").await;
    assert_eq!(world.docker.running(), 1);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_comes_before_whoever_may_ask() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.max_agents = 2);
    for name in ["ana", "bob", "eva"] {
        world.add_group(name, Role::Member).await;
    }
    world.start().await;
    world.types("main").await;
    assert_eq!(world.agents(), (1, 1));
    // Agents started ahead may take half of the slots. The other half is for people who ask.
    world.says("ana", "Ana", "@Kai hello").await;
    let ana = world.prompt().await;
    world.says("bob", "Bob", "@Kai hello").await;
    let bob = world.prompt().await;
    assert_eq!((ana.group.as_str(), bob.group.as_str()), ("ana", "bob"));
    assert_eq!(world.docker.most_at_once(), 2);
    for prompt in [ana, bob] {
        prompt.answer("Hello.");
        world.hears_in_any().await;
    }
    // And an agent that works, or a person who waits, is not disturbed for a person who only may ask.
    world.types("main").await;
    assert_eq!(world.docker.running(), 2);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn one_that_cannot_be_started_is_nobodys_trouble() {
    let mut world = World::new(Behaviour::Echo).await;
    for trouble in [Trouble::NoDocker, Trouble::NoImage, Trouble::NoSpace, Trouble::LaunchFailed] {
        world.docker.next(Behaviour::NoLaunch(trouble));
        world.types("main").await;
        world.silence(MINUTE * 60 * 5).await;
    }
    world.docker.next(Behaviour::Mute);
    world.types("main").await;
    world.silence(MINUTE * 60 * 5).await;
    assert_eq!(world.docker.running(), 0);
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 0);
    // A message that comes while the agent starts is answered like any other.
    world.tells(vec![Event::Typing { chat: chat("main") }]).await;
    world.writes(message("main", "1", "Owner", "hello", world.now())).await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    world.ends().await;
}
