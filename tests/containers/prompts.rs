//! The owner's instructions to the agents.

use std::fs;

use nanokimi::agent::Engine;
use support::container_world::World;

#[tokio::test]
async fn changed_instructions_count_from_the_next_turn_on_and_the_history_is_kept() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        fs::write(world.folder_of("family").join("KIMI.md"), "You are the family's butler.").unwrap();
        assert_eq!(world.asks("family", "@Kai SAY one").await, "Kai: one");
        assert!(world.system_prompt().contains("the family's butler"), "{}", world.system_prompt());

        fs::write(world.folder_of("family").join("KIMI.md"), "You are the family's gardener.").unwrap();
        assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY one");
        let prompt = world.system_prompt();
        assert!(prompt.contains("the family's gardener") && !prompt.contains("butler"), "{prompt}");

        fs::write(world.paths().global_folder().join("KIMI.md"), "Everybody lives in Vigo.").unwrap();
        assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY one | RECALL");
        let prompt = world.system_prompt();
        assert!(prompt.contains("gardener") && prompt.contains("Everybody lives in Vigo."), "{prompt}");
        world.ends().await;
    }
}

#[tokio::test]
async fn instructions_that_an_agent_changes_itself_count_too() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.agent_runs("main", "echo 'The boat is called Nube.' >>/workspace/global/KIMI.md").await;
        assert_eq!(world.asks("family", "@Kai SAY ahoy").await, "Kai: ahoy");
        assert!(world.system_prompt().contains("The boat is called Nube."), "{}", world.system_prompt());
        world.ends().await;
    }
}
