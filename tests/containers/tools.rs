//! The host's tools, called by the real engines in their own ways.

use nanokimi::agent::Engine;
use support::container_world::World;

/// The name under which the engine's model knows a tool of the host.
fn tool_of(engine: Engine, tool: &str) -> String {
    match engine {
        Engine::KimiCode => format!("mcp__host__{tool}"),
        Engine::KimiCli => tool.to_owned(),
    }
}

#[tokio::test]
async fn a_message_sent_while_the_agent_works_arrives_before_its_answer() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let call = tool_of(engine, "send_message");
        world.says("family", &format!("@Kai CALL {call} {{\"text\":\"Give me a minute\"}}")).await;
        assert_eq!(world.hears_in("family").await, "Kai: Give me a minute", "{engine}");
        // kimi-code says first how long the call took.
        let said = world.hears_in("family").await;
        assert!(said.starts_with("Kai: tool said: ") && said.ends_with("Sent."), "{engine}: {said}");
        world.ends().await;
    }
}

#[tokio::test]
async fn no_agent_but_the_main_channels_writes_to_another_chat() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let call = tool_of(engine, "send_message");
        world.says("family", &format!("@Kai CALL {call} {{\"text\":\"psst\",\"to\":\"main\"}}")).await;
        let said = world.hears_in("family").await;
        assert!(said.contains("do not work around it"), "{engine}: {said}");
        assert_eq!(world.outbox("main").len(), 0, "{engine}");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_task_that_the_model_plans_comes_due_and_is_answered_once_in_its_chat() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let call = tool_of(engine, "schedule_task");
        let planned = r#"{"text":"SAY the cake is done","schedule":"in 15s"}"#;
        let said = world.asks("family", &format!("@Kai CALL {call} {planned}")).await;
        assert!(said.contains("Task 1 is planned; next: "), "{engine}: {said}");
        assert_eq!(world.hears_in("family").await, "Kai: the cake is done", "{engine}");
        assert_eq!(world.asked("SELECT state FROM task_runs"), ["answered"], "{engine}");
        assert_eq!((world.outbox("family").len(), world.outbox("main").len()), (2, 0), "{engine}");
        world.ends().await;
    }
}
