//! The owner's key stays on the host.

use nanokimi::agent::Engine;
use support::container_world::{World, runs, search};
use support::fixture::{gone, inspected, running, until};

use crate::program::{KEY, Program};

#[tokio::test]
async fn the_owners_key_reaches_the_model_but_no_container_and_no_log() {
    let program = Program::new().await;
    let group = program.paths().groups_folder().join("main");
    std::fs::write(group.join("decoy.txt"), "sk-decoy-7f3a91").unwrap();
    program.receives(&runs(Engine::KimiCode, &search("sk[-](canary|decoy)[-]7f3a91"))).await;
    let mut service = program.starts(&["run"], &[("LOG_LEVEL", "trace")]);
    service.prints("The turn is over").await;
    until("the answer is written", async || program.asked("SELECT text FROM outbox").len() == 1).await;
    let containers = running(&program.install().await).await;
    let container = inspected(&containers[0]).await.unwrap().to_string();
    let log = service.stops().await.join("\n");

    assert_eq!(
        std::fs::read_to_string(group.join("printed.txt")).unwrap(),
        "/workspace/group/decoy.txt\nsearched\n"
    );
    assert!(!container.contains(KEY), "{container}");
    assert!(log.contains("TRACE") && !log.contains(KEY), "{log}");
    let requests = program.practice.received_requests();
    assert!(requests.iter().all(|request| request.headers["authorization"] == format!("Bearer {KEY}")));
    assert!(requests.len() >= 2, "{}", requests.len());
    program.ends().await;
}

#[tokio::test]
async fn links_that_an_agent_leaves_lead_the_host_nowhere() {
    for engine in Engine::ALL {
        lead_nowhere(engine).await;
    }
}

async fn lead_nowhere(engine: Engine) {
    let mut world = World::with(engine).await;
    let home = engine.home_in_container();
    let secret = world.paths().env_file();
    std::fs::write(&secret, "canary-of-the-owner").unwrap();
    let link = secret.display();
    world
        .agent_runs(
            "family",
            &format!(
                "cd {home}/credentials; rm -f *; ln -s {link} kimi-code.json; \
                 ln -sf {link} /workspace/group/KIMI.md; ln -sf {link} /workspace/group/AGENTS.md"
            ),
        )
        .await;
    let killed = world.kill_container("family").await;
    gone(&killed).await;
    assert_eq!(world.asks("family", "@Kai SAY still here").await, "Kai: still here");
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "canary-of-the-owner");
    let asked = world.practice.received_requests();
    assert!(asked.iter().all(|request| !request.body.to_string().contains("canary-of-the-owner")));
    assert!(world.agent_runs("family", "cat KIMI.md").await.contains("No such file"));
    world.ends().await;
}
