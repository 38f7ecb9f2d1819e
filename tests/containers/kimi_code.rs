//! The second engine, kimi-code, in its own image: only what is special about it. The other files test what
//! is the same for both.

use std::fs;

use insta::assert_snapshot;
use nanokimi::agent::Engine;
use nanokimi::tools::HostTool;
use nanokimi::types::Role;
use support::container_world::{World, search};
use support::test_service;

#[tokio::test]
async fn it_answers_works_and_says_to_the_model_what_it_is() {
    let mut world = World::with(Engine::KimiCode).await;
    assert_eq!(world.asks("family", "@Kai SAY hello").await, "Kai: hello");
    assert_eq!(
        world.agent_runs("family", "pwd; id -u; node --version").await,
        "/workspace/group\n0\nv24.19.0\n"
    );
    let requests = world.practice.received_requests();
    for request in &requests {
        assert!(request.headers["user-agent"].starts_with("kimi-code-cli/2.1.0"), "{:?}", request.headers);
        assert_eq!(request.headers["x-msh-device-id"], "0".repeat(32));
        assert_eq!(request.headers["authorization"], "Bearer sk-practice");
        assert_eq!(request.line, "POST /coding/v1/chat/completions");
    }
    let tools = requests[0].body["tools"].as_array().unwrap();
    let mut tools: Vec<&str> = tools.iter().map(|tool| tool["function"]["name"].as_str().unwrap()).collect();
    tools.sort_unstable();
    let of_a_turn = [
        "Agent",
        "AgentSwarm",
        "Bash",
        "Edit",
        "FetchURL",
        "Glob",
        "Grep",
        "Read",
        "ReadMediaFile",
        "Skill",
        "TodoList",
        "Write",
    ];
    let of_host = HostTool::offered_to(Role::Member).map(|tool| format!("mcp__host__{}", tool.tool_name()));
    let mut expected: Vec<String> = of_a_turn.map(str::to_owned).into_iter().chain(of_host).collect();
    expected.sort_unstable();
    assert_eq!(tools, expected, "and none that asks somebody, or goes on after it");
    let prompt = world.system_prompt();
    assert!(prompt.contains("You are Kai, and you live in a chat."), "{prompt}");
    world.ends().await;
}

#[tokio::test]
async fn it_is_the_light_one_and_whatever_else_is_called_is_the_whole() {
    let mut world = World::with(Engine::KimiCode).await;
    let dist = "/opt/kimi-code/node_modules/@moonshot-ai/kimi-code/dist";
    let command =
        format!("cd {dist}; ls; tail -n 1 main.mjs; node main.mjs --version; du -m acp.cjs | cut -f 1");
    assert_snapshot!(world.agent_runs("family", &command).await, @r#"
    acp.cjs
    acp.compiled
    light.mjs
    main.mjs
    models-dev.json
    search-worker.mjs
    whole.mjs
    await import(process.argv.length === 3 && process.argv[2] === "acp" ? "./light.mjs" : "./whole.mjs");
    2.1.0
    8
    "#);
    // With the options of a real start, V8 takes the code that the image has kept.
    let start = format!(
        "process.argv = ['node', 'main.mjs', 'acp']; const {{ script }} = await import('{dist}/light.mjs');"
    );
    let command = format!(
        "export HOME=/tmp/other KIMI_CODE_HOME=/tmp/other; mkdir -p $HOME; \
         node --max-old-space-size=256 --max-semi-space-size=2 --input-type=module \
         -e \"{start} console.log('refused:', script.cachedDataRejected)\" </dev/null"
    );
    assert_eq!(world.agent_runs("family", &command).await, "refused: false\n");
    world.ends().await;
}

#[tokio::test]
async fn kimi_searches_for_it_where_the_owner_has_a_login() {
    let mut world = World::without_service_with(Engine::KimiCode).await;
    world.logged_in();
    world.start().await;
    let searched = world.asks("family", "@Kai CALL WebSearch {\"query\":\"town hall\"}").await;
    assert!(searched.contains("A practice result for \"town hall\""), "{searched}");
    world.ends().await;
}

#[tokio::test]
async fn the_owners_key_is_in_no_container() {
    let mut world = World::with(Engine::KimiCode).await;
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
    let mut group = test_service::group("family", Role::Member);
    group.engine = Some(Engine::KimiCode.into());
    world.store.update_group(&group).await.unwrap();
    let recalled = world.asks("family", "@Kai RECALL").await;
    assert!(recalled.contains("SAY the boat leaves at nine"), "{recalled}");

    group.engine = None;
    world.store.update_group(&group).await.unwrap();
    let recalled = world.asks("family", "@Kai RECALL").await;
    assert!(recalled.starts_with("Kai: SAY the boat leaves at nine"), "{recalled}");
    world.ends().await;
}
