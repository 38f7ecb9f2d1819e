//! Messages that come while the agent works.

use nanokimi::agent::Engine;
use support::container_world::World;

#[tokio::test]
async fn a_message_during_a_turn_and_what_was_asked_before_are_answered_once_each() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.says("family", "@Kai SLEEP 3").await;
        world.model_reads("SLEEP 3").await;
        world.says("family", "@Kai SAY and the boat?").await;
        assert_eq!(world.hears_in("family").await, "Kai: tick0 tick1 tick2 tick3 tick4 tick5");
        assert_eq!(world.hears_in("family").await, "Kai: and the boat?");
        assert_eq!(world.outbox("family").len(), 2);
        assert_eq!(
            world.asked("SELECT outcome FROM turns"),
            ["answered"],
            "it was told to the agent at once"
        );
        world.ends().await;
    }
}
