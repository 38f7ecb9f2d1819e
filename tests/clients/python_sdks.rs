//! The official SDKs of OpenAI and Anthropic for Python, each with a function of the script as its tool.

use nanokimi::practice::{Conversation, ModelReply};
use tokio::process::Command;

use crate::exchange::Exchange;
use crate::world::{ASKED_MODEL, PROMPT, World, installed, pinned_version, reply_with_tool, test_file};

const TOOL: &str = "write_note";

fn model(conversation: &Conversation) -> ModelReply {
    reply_with_tool(conversation, TOOL, r#"{"word":"heliotrope"}"#)
}

/// A script of ours that talks by an SDK.
fn script(world: &World, name: &str, arguments: &[&str]) -> Command {
    let mut python = world.command(installed("sdks/bin/python"));
    python
        .arg("-B")
        .arg(test_file("scripts").join(name))
        .args([&world.base_url(), ASKED_MODEL, PROMPT])
        .args(arguments);
    python
}

#[tokio::test]
async fn openais_sdk_calls_a_function() {
    let user_agent = format!("OpenAI/Python {}", pinned_version("sdks.txt", "openai"));
    for api in ["chat", "responses"] {
        let world = World::start(model).await;
        world.hold_conversation(script(&world, "openai_sdk.py", &[api])).await;
        Exchange::of(&world, "chat/completions", &user_agent).has_one_cache_key().answers_chat_call(TOOL);
    }
}

#[tokio::test]
async fn anthropics_sdk_calls_a_function() {
    let world = World::start(model).await;
    world.hold_conversation(script(&world, "anthropic_sdk.py", &[])).await;
    let user_agent = format!("Anthropic/Python {}", pinned_version("sdks.txt", "anthropic"));
    Exchange::of(&world, "messages", &user_agent).answers_messages_call(TOOL);
}
