//! The tutor: what people meet in `nanokimi demo`. It shows that messages arrive, that answers come back and
//! that the history is sent along, and always says that no real model is answering. Pure.

use super::conversation::Conversation;
use super::{ModelReply, ReplyStep};

const NOTE: &str = "(This is the practice model; no real model is answering.)";

const ABILITIES: &str = "I can show you that messages reach me and answers come back. Try:\n\
    - say good morning\n\
    - remember the milk\n\
    - what did I ask you to remember?\n\
    - who are you?\n\
    Anything else I repeat.";

pub fn tutor_reply(conversation: &Conversation) -> ModelReply {
    ModelReply::Answer(vec![ReplyStep::Say(format!("{}\n\n{NOTE}", tutor_answer(conversation)))])
}

fn tutor_answer(conversation: &Conversation) -> String {
    let asked = conversation.message_to_answer();
    match normalize_question(asked).as_str() {
        "" => return "Hello! I am here.".to_owned(),
        "who are you" => {
            return "I am the practice model that comes with nanokimi. I follow a few simple rules, so that you can \
                    try everything before you log in to Kimi."
                .to_owned();
        }
        "what can you do" | "help" => return ABILITIES.to_owned(),
        "what did i ask you to remember" => return render_remembered(conversation.earlier_messages()),
        _ => {}
    }
    if let Some(words) = text_after_word(asked, "say") {
        words.to_owned()
    } else if let Some(thing) = text_after_word(asked, "remember") {
        format!("I will remember: {thing}")
    } else {
        format!("You said: {asked}")
    }
}

fn render_remembered(earlier: &[String]) -> String {
    let things: Vec<&str> = earlier.iter().filter_map(|text| text_after_word(text, "remember")).collect();
    match things.as_slice() {
        [] => "You have not asked me to remember anything yet. Try: remember the milk".to_owned(),
        [thing] => format!("You asked me to remember: {thing}"),
        things => format!("You asked me to remember:\n- {}", things.join("\n- ")),
    }
}

/// A question without case, needless space and its question mark.
fn normalize_question(text: &str) -> String {
    let words: Vec<&str> = text.split_whitespace().collect();
    words.join(" ").to_lowercase().trim_end_matches(['?', '!', '.', ' ']).to_owned()
}

/// What follows a word at the beginning, in any case.
fn text_after_word<'t>(text: &'t str, word: &str) -> Option<&'t str> {
    let (first, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim();
    (first.eq_ignore_ascii_case(word) && !rest.is_empty()).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(said: &[&str]) -> String {
        let said = said.iter().map(|text| (*text).to_owned()).collect();
        let ModelReply::Answer(steps) = tutor_reply(&Conversation { said, tool_answers: Vec::new() }) else {
            panic!()
        };
        let [ReplyStep::Say(text)] = steps.as_slice() else { panic!("{steps:?}") };
        text.clone()
    }

    #[test]
    fn the_tutor_answers_what_it_knows_and_repeats_the_rest() {
        for (said, begins) in [
            (&["say good morning"][..], "good morning\n"),
            (&["Say  ¡Hola!"], "¡Hola!\n"),
            (&["saying nothing"], "You said: saying nothing\n"),
            (&["say"], "You said: say\n"),
            (&["remember the milk"], "I will remember: the milk\n"),
            (&["what did I ask you to remember?"], "You have not asked me to remember anything yet."),
            (
                &["Remember the milk", "how are you", "What did I ask you  to remember ?"],
                "You asked me to remember: the milk\n",
            ),
            (
                &["remember a", "remember b", "what did i ask you to remember"],
                "You asked me to remember:\n- a\n- b\n",
            ),
            (&["Who are you?"], "I am the practice model that comes with nanokimi."),
            (&["what can you do"], "I can show you that messages reach me"),
            (&[], "Hello! I am here.\n"),
        ] {
            let answer = chat(said);
            assert!(answer.starts_with(begins), "{said:?}: {answer}");
        }
    }

    #[test]
    fn the_tutor_never_pretends_to_be_a_model() {
        insta::assert_snapshot!(chat(&["hello there"]), @r"
        You said: hello there

        (This is the practice model; no real model is answering.)
        ");
        for said in ["say x", "who are you", "help", "remember x", "what did i ask you to remember", ""] {
            assert!(chat(&[said]).ends_with(NOTE), "{said}");
        }
    }
}
