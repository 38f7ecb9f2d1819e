//! A practice model for tests. It does what the last message says, one directive on each line, so a test can
//! put any behaviour of a model into a chat message.
//!
//! | directive | |
//! |---|---|
//! | `SAY text` | says it |
//! | `THINK text` | streams it as thoughts |
//! | `CALL tool {json}` | calls the tool; after its answer says `tool said: …`. More lines: more calls |
//! | `SLEEP seconds` | says `tick0 tick1 …`, two a second, for that long |
//! | `LONG n` | says n words |
//! | `RECALL` | says every earlier message in the request, joined by ` \| ` |
//! | `EMPTY` | says nothing at all |
//! | `ERR status [n]` | answers with that HTTP status: always, or n times and then the other lines |
//! | `AFTER seconds` | with `ERR`: says when to ask again (`Retry-After`) |
//! | `DROP [n]` | says `partial ` and cuts the connection: always, or n times and then the other lines |
//! | `HANG` | answers with headers, then with nothing |
//!
//! A message without directives is answered by `echo: ` and its text.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use nanokimi::practice::{Conversation, ModelFailure, ModelReply, Practice, ReplyStep, start_practice_model};

/// Longest `SLEEP`: longer than any test or turn waits.
const SLEEP_MAX: Duration = Duration::from_secs(3600);
/// Most words of one `LONG`: about half a megabyte.
const WORDS_MAX: usize = 100_000;
/// How much of a tool's answer is repeated, in characters.
const TOOL_ANSWER_MAX: usize = 400;

/// Starts a model on a free port.
pub async fn start_scripted_model() -> Practice {
    start_practice_model(scripted_reply, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap()
}

pub fn scripted_reply(conversation: &Conversation) -> ModelReply {
    if !conversation.tool_answers.is_empty() {
        let said: String = conversation.tool_answers.join(" | ").chars().take(TOOL_ANSWER_MAX).collect();
        return ModelReply::Answer(vec![ReplyStep::Say(format!("tool said: {said}"))]);
    }
    let text = conversation.message_to_answer();
    let mut failing = None;
    let mut retry_after = None;
    let mut said = Vec::new();
    let mut steps = Vec::new();
    let mut known = false;
    for line in text.lines() {
        let (word, rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let rest = rest.trim();
        let step = match word {
            "SAY" => Some(ReplyStep::Say(rest.to_owned())),
            "THINK" => Some(ReplyStep::Think(rest.to_owned())),
            "CALL" => rest.split_once(' ').map(|(tool, json)| ReplyStep::Call {
                tool: tool.to_owned(),
                arguments: json.trim().to_owned(),
            }),
            "SLEEP" => rest
                .parse()
                .ok()
                .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
                .map(|time| ReplyStep::Dawdle(time.min(SLEEP_MAX))),
            "LONG" => {
                rest.parse().ok().map(|words: usize| ReplyStep::Say("word ".repeat(words.min(WORDS_MAX))))
            }
            "RECALL" => Some(ReplyStep::Say(conversation.earlier_messages().join(" | "))),
            "DROP" => match rest.parse() {
                Ok(times) => {
                    failing = failing.or(Some((ModelFailure::Drops, times)));
                    known = true;
                    None
                }
                Err(_) => Some(ReplyStep::Cut),
            },
            "HANG" => Some(ReplyStep::Hang),
            "EMPTY" => Some(ReplyStep::Say(String::new())),
            "ERR" => {
                failing = failing.or_else(|| parse_err_directive(rest));
                known |= failing.is_some();
                None
            }
            "AFTER" => {
                retry_after = retry_after.or_else(|| rest.parse().ok());
                None
            }
            _ => None,
        };
        known |= step.is_some();
        match step {
            // Each text that is said is on a line of its own.
            Some(ReplyStep::Say(more)) => said.push(more),
            Some(step) => {
                flush_spoken_lines(&mut said, &mut steps);
                steps.push(step);
            }
            None => {}
        }
    }
    flush_spoken_lines(&mut said, &mut steps);
    if let Some((ModelFailure::Refuses { retry_after_secs, .. }, _)) = &mut failing {
        *retry_after_secs = retry_after;
    }
    match failing {
        Some((how, times)) => {
            if steps.is_empty() {
                steps.push(ReplyStep::Say("recovered".to_owned()));
            }
            ModelReply::Fail { how, times, then: steps }
        }
        None if known => ModelReply::Answer(steps),
        None => ModelReply::Answer(vec![ReplyStep::Say(format!("echo: {text}"))]),
    }
}

fn flush_spoken_lines(said: &mut Vec<String>, steps: &mut Vec<ReplyStep>) {
    if !said.is_empty() {
        steps.push(ReplyStep::Say(said.join("\n")));
        said.clear();
    }
}

/// `status [times]`
fn parse_err_directive(rest: &str) -> Option<(ModelFailure, u32)> {
    let mut numbers = rest.split_whitespace();
    let status = numbers.next()?.parse().ok().filter(|status| (400..=599).contains(status))?;
    let times = match numbers.next() {
        Some(times) => times.parse().ok()?,
        None => u32::MAX,
    };
    Some((ModelFailure::Refuses { status, retry_after_secs: None }, times))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(said: &[&str], tool_answers: &[&str]) -> ModelReply {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        scripted_reply(&Conversation { said: owned(said), tool_answers: owned(tool_answers) })
    }

    fn say(text: &str) -> ReplyStep {
        ReplyStep::Say(text.to_owned())
    }

    #[test]
    fn directives_are_done_in_their_order() {
        let call =
            |tool: &str, arguments: &str| ReplyStep::Call { tool: tool.into(), arguments: arguments.into() };
        for (text, steps) in [
            ("hello\nthere", vec![say("echo: hello\nthere")]),
            ("SAYING nothing", vec![say("echo: SAYING nothing")]),
            ("ERR 200", vec![say("echo: ERR 200")]),
            ("SAY one\n SAY two ", vec![say("one\ntwo")]),
            ("THINK hm\nSAY so", vec![ReplyStep::Think("hm".into()), say("so")]),
            (
                "SAY wait\nCALL send_message {\"text\": \"hi there\"}\nCALL x {}",
                vec![say("wait"), call("send_message", "{\"text\": \"hi there\"}"), call("x", "{}")],
            ),
            ("SLEEP 0.5\nSAY done", vec![ReplyStep::Dawdle(Duration::from_millis(500)), say("done")]),
            ("SLEEP 1e300", vec![say("echo: SLEEP 1e300")]),
            ("LONG 3", vec![say("word word word ")]),
            ("EMPTY", vec![say("")]),
            ("DROP", vec![ReplyStep::Cut]),
            ("HANG", vec![ReplyStep::Hang]),
        ] {
            assert_eq!(to(&["before", text], &[]), ModelReply::Answer(steps), "{text}");
        }
        assert_eq!(to(&["a", "b\nc", "RECALL"], &[]), ModelReply::Answer(vec![say("a | b\nc")]));
        assert_eq!(
            to(&["CALL x {}"], &["one", "two"]),
            ModelReply::Answer(vec![say("tool said: one | two")])
        );
    }

    #[test]
    fn errors_come_before_everything_else() {
        let refuse = |status, times, retry_after_secs, then: &str| ModelReply::Fail {
            how: ModelFailure::Refuses { status, retry_after_secs },
            times,
            then: vec![say(then)],
        };
        for (text, reply) in [
            ("ERR 500", refuse(500, u32::MAX, None, "recovered")),
            ("ERR 429 2", refuse(429, 2, None, "recovered")),
            ("SAY hi\nERR 429 2", refuse(429, 2, None, "hi")),
            ("ERR 429 1\nAFTER 7\nSAY hi", refuse(429, 1, Some(7), "hi")),
            (
                "DROP 1\nSAY hi",
                ModelReply::Fail { how: ModelFailure::Drops, times: 1, then: vec![say("hi")] },
            ),
        ] {
            assert_eq!(to(&[text], &[]), reply, "{text}");
        }
    }
}
