//! Codex, which speaks the Responses API only: its requests become chat completions.

use nanokimi::practice::{Conversation, ModelReply};

use crate::exchange::Exchange;
use crate::world::{PROMPT, World, installed, pinned_version, reply_with_tool};

const PROGRAM: &str = "node_modules/@openai/codex/vendor/x86_64-unknown-linux-musl/bin/codex";
const TOOL: &str = "exec_command";

fn model(conversation: &Conversation) -> ModelReply {
    reply_with_tool(conversation, TOOL, r#"{"cmd":"echo heliotrope | tee note.txt"}"#)
}

#[tokio::test]
async fn codex_writes_a_file() {
    let world = World::start(model).await;
    let config = world.client_config("codex").await;
    world.write_home_file(".codex/config.toml", &config);
    let mut codex = world.command(installed(PROGRAM));
    codex.args(["exec", "--skip-git-repo-check", "--dangerously-bypass-approvals-and-sandbox", PROMPT]);
    let said = world.hold_conversation(codex).await;
    assert!(!said.contains("unrecognized"), "a setting is unknown to Codex: {said}");

    // The package of one platform has its name behind the version.
    let version = pinned_version("package.json", "@openai/codex");
    let version = version.split(['@', '-']).nth(2).unwrap();
    Exchange::of(&world, "chat/completions", &format!("codex_exec/{version} "))
        .has_one_cache_key()
        .answers_chat_call(TOOL);
}
