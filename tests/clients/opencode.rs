//! OpenCode, in OpenAI's form, with the settings that nanokimi writes into its own file.

use nanokimi::practice::{Conversation, ModelReply};

use crate::exchange::Exchange;
use crate::world::{ASKED_MODEL, PROMPT, World, installed, pinned_version, reply_with_tool};

const PACKAGE: &str = "opencode-linux-x64";
const TOOL: &str = "bash";

fn model(conversation: &Conversation) -> ModelReply {
    let arguments = r#"{"command":"echo heliotrope | tee note.txt","description":"Writes the word down"}"#;
    reply_with_tool(conversation, TOOL, arguments)
}

#[tokio::test]
async fn opencode_writes_a_file() {
    let world = World::start(model).await;
    world.run_nanokimi(&["gateway", "config", "opencode", "--write"]).await;
    let mut opencode = world.command(installed("node_modules").join(PACKAGE).join("bin/opencode"));
    opencode.args(["run", "--model", &format!("nanokimi/{ASKED_MODEL}"), PROMPT]);
    opencode.env("OPENCODE_DISABLE_AUTOUPDATE", "1").env("OPENCODE_DISABLE_MODELS_FETCH", "1");
    world.hold_conversation(opencode).await;

    let version = pinned_version("package.json", PACKAGE);
    Exchange::of(&world, "chat/completions", &format!("opencode/{version}"))
        .has_one_cache_key()
        .answers_chat_call(TOOL);
}
