//! The host's tools, called by the real engines in their own ways.

use jiff::tz::TimeZone;
use nanokimi::agent::Engine;
use nanokimi::clock::Clock;
use nanokimi::service::signal_changed_tasks;
use nanokimi::store::TaskDraft;
use nanokimi::types::{Event, LinkedAccount};
use support::container_world::World;
use support::test_service::{self, name, phone};

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

/// A task of the family that is due in a few seconds.
async fn plan(world: &World, text: &str, context: &str, only_if: &str) {
    let draft = TaskDraft {
        text: text.to_owned(),
        schedule: "in 3s".to_owned(),
        context: context.to_owned(),
        only_if: only_if.to_owned(),
        ..TaskDraft::default()
    };
    world.store.add_task(&name("family"), draft, TimeZone::UTC, Clock::System.now()).await.unwrap();
    signal_changed_tasks(&world.paths().task_signal_socket()).unwrap();
}

/// Writes down as whom it runs and within which limits, and agrees.
const LOOKS_AROUND: &str = "{ id -u; pwd; cat /proc/self/oom_score_adj; echo $HTTP_PROXY; \
    grep -E '^Max (open files|processes|file size)' /proc/self/limits | tr -s ' ' | sed 's/ $//'; \
    grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '[:space:]' ' '; } >seen; echo '<rain>'";

/// As whom that is, where, and how the kernel holds it: as the container's first process.
const SEEN: &str = "0
/workspace/group
800
http://127.0.0.1:8787
Max file size 1073741824 1073741824 bytes
Max processes 1024 1024 processes
Max open files 4096 4096 files
CapEff: 0000000000000000 NoNewPrivs: 1 Seccomp: 2 ";

#[tokio::test]
async fn a_tasks_command_runs_as_the_agent_does_and_says_whether_the_task_runs() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        plan(&world, "SAY it rains", "group", LOOKS_AROUND).await;
        assert_eq!(world.hears_in("family").await, "Kai: it rains", "{engine}");
        assert_eq!(world.model_requests("<output>&lt;rain&gt;</output>"), 1, "{engine}");
        let seen = std::fs::read_to_string(world.folder_of("family").join("seen")).unwrap();
        assert_eq!(seen, SEEN, "{engine}");

        plan(&world, "SAY it rains", "group", "echo no; exit 1").await;
        plan(&world, "SAY it rains", "isolated", "no-such-program").await;
        let said = world.hears_in("family").await;
        assert!(said.contains("the command that says whether there is something to do could not"), "{said}");
        let runs = world.asked("SELECT state || ', ' || coalesce(why, '') FROM task_runs ORDER BY id");
        let expected = ["answered, ", "skipped, only-if said no", "failed, only-if did not run"];
        assert_eq!(runs, expected, "{engine}");
        assert_eq!(world.model_requests("SAY it rains"), 1, "{engine}: the others cost nothing");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_task_that_runs_by_itself_begins_afresh_and_the_chat_knows_what_it_said() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        assert_eq!(world.asks("family", "@Kai SAY the code is 1234").await, "Kai: the code is 1234");
        plan(&world, "SAY seven sheep", "isolated", "").await;
        assert_eq!(world.hears_in("family").await, "Kai: seven sheep", "{engine}");
        let asked = world.practice.received_requests().last().unwrap().body.to_string();
        assert!(!asked.contains("1234") && asked.contains("seven sheep"), "{engine}: {asked}");
        assert_eq!(world.asks("family", "@Kai SAY yes").await, "Kai: yes", "{engine}");
        let asked = world.practice.received_requests().last().unwrap().body.to_string();
        assert!(asked.contains("1234"), "{engine}: its own session goes on");
        assert!(asked.contains("Kai: seven sheep</yours>"), "{engine}: {asked}");
        assert!(!world.paths().isolated_sessions_folder(&name("family")).exists(), "{engine}");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_conversation_is_put_into_a_summary_and_goes_on() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let owner = LinkedAccount { id: phone("Alice"), lid: None, name: "Alice".to_owned() };
        let rules = test_service::rules();
        world.store.record_events(vec![Event::Account(owner)], rules, Clock::System.now()).await.unwrap();
        assert_eq!(world.asks("family", "@Kai SAY the code is 1234").await, "Kai: the code is 1234");
        world.says("family", "/compact").await;
        assert!(world.hears_in("family").await.starts_with("Kai: I put what I remember"), "{engine}");
        assert!(world.hears_in("family").await.starts_with("Kai: Done"), "{engine}");
        assert_eq!(world.asks("family", "@Kai SAY yes").await, "Kai: yes", "{engine}");
        world.ends().await;
    }
}
