//! Claude Code, in Anthropic's form, on Kimi's own Anthropic surface.

use nanokimi::practice::{Conversation, ModelReply};

use crate::exchange::Exchange;
use crate::world::{PROMPT, World, installed, pinned_version, reply_with_tool};

const PACKAGE: &str = "@anthropic-ai/claude-code-linux-x64";
const TOOL: &str = "Bash";

fn model(conversation: &Conversation) -> ModelReply {
    let arguments = r#"{"command":"echo heliotrope | tee note.txt","description":"Writes the word down"}"#;
    reply_with_tool(conversation, TOOL, arguments)
}

#[tokio::test]
async fn claude_code_writes_a_file() {
    let world = World::start(model).await;
    let settings = world.client_config("claude").await;
    let program = installed("node_modules").join(PACKAGE).join("claude");
    let typed = format!("exec {} -p --allowedTools Bash -- '{PROMPT}'", program.display());
    let mut claude = world.shell(&settings, &typed);
    claude.env("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1");
    let said = world.hold_conversation(claude).await;
    assert!(!said.contains("context window"), "Claude Code does not know how much the model reads: {said}");

    let version = pinned_version("package.json", PACKAGE);
    Exchange::of(&world, "messages", &format!("claude-cli/{version}")).answers_messages_call(TOOL);
}
