//! The second engine, kimi-code, in its own image.

use std::collections::BTreeMap;
use std::fs;

use nanokimi::agent::Engine;
use nanokimi::types::Role;

use crate::ground::gone;
use crate::held::{self, Heard};
use crate::world::{World, search};

#[tokio::test]
async fn it_answers_works_and_says_to_the_model_what_it_is() {
    let mut world = World::with_kimi_code().await;
    assert_eq!(world.asks("family", "@Kai SAY hello").await, "Kai: hello");
    assert_eq!(
        world.agent_runs("family", "pwd; id -u; node --version").await,
        "/workspace/group\n0\nv24.19.0\n"
    );
    let requests = world.practice.requests();
    for request in &requests {
        assert!(request.headers["user-agent"].starts_with("kimi-code-cli/2.1.0"), "{:?}", request.headers);
        assert_eq!(request.headers["x-msh-device-id"], "0".repeat(32));
        assert_eq!(request.headers["authorization"], "Bearer sk-practice");
        assert_eq!(request.line, "POST /coding/v1/chat/completions");
    }
    let tools = requests[0].body["tools"].to_string();
    assert!(tools.contains("\"Bash\"") && !tools.contains("\"name\":\"AskUserQuestion\""), "{tools}");
    let prompt = world.system_prompt();
    assert!(prompt.contains("You are Kai, and you live in a chat."), "{prompt}");
    world.ends().await;
}

#[tokio::test]
async fn what_looks_like_a_command_is_only_text() {
    let mut world = World::with_kimi_code().await;
    for text in ["/compact", "/status", "$(touch /tmp/x)"] {
        assert_eq!(world.asks("main", text).await, format!("Kai: echo: {text}"));
    }
    world.ends().await;
}

#[tokio::test]
async fn a_container_that_dies_costs_no_memory() {
    let mut world = World::with_kimi_code().await;
    assert_eq!(
        world.asks("family", "@Kai SAY the boat leaves at nine").await,
        "Kai: the boat leaves at nine"
    );
    let killed = world.kill_container("family").await;
    gone(&killed).await;
    assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY the boat leaves at nine");

    world.says("family", "@Kai SLEEP 2").await;
    world.model_reads("SLEEP 2").await;
    world.kill_container("family").await;
    assert_eq!(world.hears_in("family").await, "Kai: tick0 tick1 tick2 tick3");
    world.ends().await;
}

#[tokio::test]
async fn changed_instructions_count_from_the_next_turn_on_and_the_history_is_kept() {
    let mut world = World::with_kimi_code().await;
    fs::write(world.folder_of("family").join("KIMI.md"), "You are the family's butler.").unwrap();
    assert_eq!(world.asks("family", "@Kai SAY one").await, "Kai: one");
    assert!(world.system_prompt().contains("the family's butler"), "{}", world.system_prompt());

    fs::write(world.folder_of("family").join("KIMI.md"), "You are the family's gardener.").unwrap();
    assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY one");
    let prompt = world.system_prompt();
    assert!(prompt.contains("the family's gardener") && !prompt.contains("butler"), "{prompt}");

    fs::write(world.paths().global().join("KIMI.md"), "Everybody lives in Vigo.").unwrap();
    assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY one | RECALL");
    let prompt = world.system_prompt();
    assert!(prompt.contains("gardener") && prompt.contains("Everybody lives in Vigo."), "{prompt}");
    world.ends().await;
}

#[tokio::test]
async fn troubles_that_it_hides_are_told_and_the_next_message_is_answered() {
    let mut world = World::without_service().await;
    world.settings(|settings| settings.engine = Engine::KimiCode);
    let troubles = [
        ("broken", "ERR 500", "Kimi is overloaded or out of order at the moment."),
        ("empty", "EMPTY", "Kimi gave me an empty answer."),
        ("dropped", "DROP", "I cannot reach Kimi over the internet."),
    ];
    for (group, _, _) in troubles {
        world.add_group(group, Role::Member).await;
    }
    world.start().await;
    for (group, directive, _) in troubles {
        world.says(group, &format!("@Kai {directive}")).await;
    }
    let mut notices = BTreeMap::new();
    for _ in troubles {
        let Heard { group, text, .. } = world.hears().await;
        assert_eq!(notices.insert(group, text), None, "{notices:#?}");
    }
    for (group, _, notice) in troubles {
        let told = format!("Kai: I tried 3 times and could not answer. {notice}");
        assert!(notices[group].starts_with(&told), "{notices:#?}");
        assert_eq!(world.asks(group, "@Kai SAY better now").await, "Kai: better now");
    }
    world.ends().await;
}

#[tokio::test]
async fn the_owners_key_is_in_no_container() {
    let mut world = World::with_kimi_code().await;
    fs::write(world.folder_of("family").join("decoy.txt"), "sk-practice").unwrap();
    let found = world.agent_runs("family", &search("sk[-]practice")).await;
    assert_eq!(found, "/workspace/group/decoy.txt\nsearched\n");
    world.ends().await;
}

#[tokio::test]
async fn a_group_that_changes_its_engine_goes_on_with_its_conversation() {
    let mut world = World::new().await;
    assert_eq!(
        world.asks("family", "@Kai SAY the boat leaves at nine").await,
        "Kai: the boat leaves at nine"
    );
    let mut group = held::group("family", Role::Member);
    group.engine = Some(Engine::KimiCode.name());
    world.store.set_group(&group).await.unwrap();
    let recalled = world.asks("family", "@Kai RECALL").await;
    assert!(recalled.contains("SAY the boat leaves at nine"), "{recalled}");

    group.engine = None;
    world.store.set_group(&group).await.unwrap();
    let recalled = world.asks("family", "@Kai RECALL").await;
    assert!(recalled.starts_with("Kai: SAY the boat leaves at nine"), "{recalled}");
    world.ends().await;
}
