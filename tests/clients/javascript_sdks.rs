//! The official SDKs of OpenAI and Anthropic for JavaScript, each with a function of the script as its tool.

use std::fs;
use std::os::unix::fs::symlink;

use nanokimi::practice::{Conversation, ModelReply};
use support::fixture::variable;
use tokio::process::Command;

use crate::exchange::Exchange;
use crate::world::{ASKED_MODEL, PROMPT, World, installed, pinned_version, reply_with_tool, test_file};

const TOOL: &str = "write_note";

fn model(conversation: &Conversation) -> ModelReply {
    reply_with_tool(conversation, TOOL, r#"{"word":"heliotrope"}"#)
}

/// A script of ours that talks by an SDK. It is put where Node finds the SDK beside it.
fn script(world: &World, name: &str, arguments: &[&str]) -> Command {
    let modules = world.home_file("node_modules");
    if !modules.exists() {
        symlink(installed("node_modules"), modules).unwrap();
    }
    fs::copy(test_file("scripts").join(name), world.home_file(name)).unwrap();
    let node = variable("TEST_NODE").expect("TEST_NODE is set; `tests/run clients` does it");
    let mut command = world.command(node);
    command.arg(world.home_file(name)).args([&world.base_url(), ASKED_MODEL, PROMPT]).args(arguments);
    command
}

#[tokio::test]
async fn openais_sdk_calls_a_function() {
    let user_agent = format!("OpenAI/JS {}", pinned_version("package.json", "openai"));
    for api in ["chat", "responses"] {
        let world = World::start(model).await;
        world.hold_conversation(script(&world, "openai_sdk.mjs", &[api])).await;
        Exchange::of(&world, "chat/completions", &user_agent).has_one_cache_key().answers_chat_call(TOOL);
    }
}

#[tokio::test]
async fn anthropics_sdk_calls_a_function() {
    let world = World::start(model).await;
    world.hold_conversation(script(&world, "anthropic_sdk.mjs", &[])).await;
    let user_agent = format!("Anthropic/JS {}", pinned_version("package.json", "@anthropic-ai/sdk"));
    Exchange::of(&world, "messages", &user_agent).answers_messages_call(TOOL);
}
