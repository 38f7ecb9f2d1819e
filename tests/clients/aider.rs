//! aider, which has no tools: the model writes the whole file in its answer, and aider puts it on disk.

use nanokimi::practice::{Conversation, ModelReply, ReplyStep};

use crate::exchange::Exchange;
use crate::world::{LAST_WORDS, PROMPT, WORD, World, installed};

fn model(_: &Conversation) -> ModelReply {
    let edit = format!("{LAST_WORDS}\n\nnote.txt\n```\n{WORD}\n```\n");
    ModelReply::Answer(vec![ReplyStep::Say(edit)])
}

#[tokio::test]
async fn aider_writes_a_file() {
    let world = World::start(model).await;
    let pasted = world.client_config("aider").await;
    let (model_settings, typed) = pasted.split_once("\n\n").unwrap();
    world.write_home_file(".aider.model.settings.yml", model_settings);
    // The last line that is typed starts aider.
    let python = installed("aider/bin/python");
    let options =
        "--no-git --yes-always --no-check-update --analytics-disable --no-show-model-warnings --no-pretty";
    let program = format!(
        "aider() {{ {} -m aider {options} --message '{PROMPT}' \"$@\" note.txt; }}",
        python.display()
    );
    let mut aider = world.shell(&program, typed);
    aider.env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    world.hold_conversation(aider).await;

    Exchange::of(&world, "chat/completions", "OpenAI/Python ").has_one_cache_key();
}
