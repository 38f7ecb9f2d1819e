//! As many agents as memory allows: agents that nobody needs end first, and never in the middle of a turn.

use std::collections::HashMap;
use std::time::Duration;

use nanokimi::container::{AgentMemory, MemoryPressure};
use nanokimi::types::Role;
use support::scripted_engine::Behaviour;
use support::test_service::name;

use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const MIB: u64 = 1024 * 1024;

/// How much memory these groups' agents use, in MB.
fn holding(groups: &[(&str, u64)]) -> AgentMemory {
    let held: HashMap<_, _> = groups.iter().map(|(group, mb)| (name(group), mb * MIB)).collect();
    AgentMemory { held, pressure: MemoryPressure::None }
}

/// A service with room for three ordinary agents, and these groups.
async fn with_groups(groups: &[&str]) -> World {
    let mut world = World::without_service(Behaviour::EchoAll).await;
    world.settings(|settings| settings.agents_memory_bytes = 400 * MIB);
    for group in groups {
        world.add_group(group, Role::Member).await;
    }
    world.start().await;
    world
}

async fn asks(world: &mut World, group: &str) {
    world.says(group, "Ana", "@Kai hello").await;
    assert_eq!(world.hears_in(group).await, "Kai: echo: @Kai hello");
}

#[tokio::test(start_paused = true)]
async fn the_agent_that_is_idle_for_the_longest_makes_room_for_another_one() {
    let mut world = with_groups(&["ana", "bob", "eva", "leo"]).await;
    for group in ["ana", "bob", "eva", "ana"] {
        asks(&mut world, group).await;
        world.silence(MINUTE).await;
    }
    assert_eq!(world.docker.running_groups(), ["ana", "bob", "eva"]);
    asks(&mut world, "leo").await;
    assert_eq!(world.docker.running_groups(), ["ana", "eva", "leo"]);
    assert_eq!(world.docker.most_at_once(), 3);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn agents_that_have_grown_too_large_together_end_when_they_are_idle() {
    let mut world = with_groups(&["ana", "bob"]).await;
    asks(&mut world, "ana").await;
    asks(&mut world, "bob").await;
    world.silence(MINUTE).await;
    assert_eq!(world.docker.running_groups(), ["ana", "bob"]);
    world.docker.holds(holding(&[("ana", 150), ("bob", 300)]));
    world.silence(MINUTE).await;
    assert_eq!(world.docker.running_groups(), ["bob"]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn if_the_machine_runs_short_all_that_are_idle_go_and_who_works_is_not_disturbed() {
    let mut world = with_groups(&["ana", "bob"]).await;
    asks(&mut world, "ana").await;
    asks(&mut world, "bob").await;
    world.docker.next(Behaviour::Held);
    world.says("family", "Ana", "@Kai a long story").await;
    let prompt = world.prompt().await;
    world.docker.holds(AgentMemory { pressure: MemoryPressure::Some, ..AgentMemory::default() });
    world.silence(MINUTE / 2).await;
    assert_eq!(world.docker.running_groups(), ["family"]);
    prompt.answer("Once upon a time.");
    assert_eq!(world.hears_in("family").await, "Kai: Once upon a time.");
    world.silence(MINUTE).await;
    assert_eq!(world.docker.running(), 0);
    // A person who asks is answered nevertheless.
    asks(&mut world, "ana").await;
    world.ends().await;
}
