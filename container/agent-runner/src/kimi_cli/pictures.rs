//! The pictures in an engine's history: all of them go with every request, so that some are removed at a
//! start.
//!
//! Otherwise a chat might never get an answer again. The oldest are removed, since a chat that shares many
//! would one day send more than the egress proxy lets through. Those without an answer are removed, since the
//! model's API may have refused one of them. (The host prompts again for what still needs an answer, with its
//! pictures.)

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::{Value, json};

/// Most bytes of pictures, in Base64, that a start leaves in a history. What the host shows and what the
/// agent looks at until the next start must fit into the egress proxy's 32 MB as well.
const KEPT_MAX: u64 = 8 * 1024 * 1024;

/// How the URL of a picture in a history begins, wherever it stands.
const URL_BEGINNING: &[u8] = b"\"data:";

/// What the model reads in a picture's place.
const LET_GO: &str = "<system>There was a picture here, which is not shown any more. Look at its file again if you \
                      need it.</system>";

/// Which pictures are to be removed.
#[derive(Debug, PartialEq, Eq)]
pub struct ImageTrimmer {
    /// How many bytes are still to be removed, the oldest first.
    bytes: u64,
    /// The number of the first line that no answer follows.
    unanswered_from: usize,
    /// The number of the next line.
    line: usize,
}

#[derive(Deserialize)]
struct HistoryLineRole {
    role: String,
}

impl ImageTrimmer {
    /// Reads through a history; lines longer than `line_max` are not looked into, nor counted.
    pub fn from_history(mut history: impl BufRead, line_max: u64) -> io::Result<Self> {
        let (mut trimmer, mut line) = (Self { bytes: 0, unanswered_from: 0, line: 0 }, Vec::new());
        let (mut number, mut skipping) = (0, false);
        loop {
            line.clear();
            if history.by_ref().take(line_max).read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let too_long = !line.ends_with(b"\n") && line.len() as u64 == line_max;
            let was_skipping = std::mem::replace(&mut skipping, too_long);
            if too_long || was_skipping {
                continue;
            }
            number += 1;
            if has_inline_image(&line) {
                trimmer.bytes += line.len() as u64;
            }
            if serde_json::from_slice::<HistoryLineRole>(&line).is_ok_and(|line| line.role == "assistant") {
                trimmer.unanswered_from = number;
            }
        }
        trimmer.bytes = trimmer.bytes.saturating_sub(KEPT_MAX);
        Ok(trimmer)
    }

    /// The next line, which is not too long, without its pictures if they have to go.
    pub fn strip_images(&mut self, line: &[u8]) -> Option<Vec<u8>> {
        let is_unanswered = self.line >= self.unanswered_from;
        self.line += 1;
        if (self.bytes == 0 && !is_unanswered) || !has_inline_image(line) {
            return None;
        }
        let mut message: Value = serde_json::from_slice(line).ok()?;
        for part in message.get_mut("content")?.as_array_mut()? {
            if ["image_url", "video_url", "audio_url"].iter().any(|kind| part["type"] == *kind) {
                *part = json!({"type": "text", "text": LET_GO});
            }
        }
        self.bytes = self.bytes.saturating_sub(line.len() as u64);
        Some(format!("{message}\n").into_bytes())
    }

    /// Whether no answer follows the line that [`ImageTrimmer::strip_images`] was last given.
    pub fn is_unanswered(&self) -> bool {
        self.line > self.unanswered_from
    }
}

fn has_inline_image(line: &[u8]) -> bool {
    line.windows(URL_BEGINNING.len()).any(|window| window == URL_BEGINNING)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE_MAX: u64 = 64 * 1024 * 1024;

    /// A line of a history with a picture of so many bytes.
    fn shown(role: &str, bytes: usize) -> String {
        let url = format!("data:image/png;base64,{}", "A".repeat(bytes));
        let parts =
            json!([{"type": "text", "text": "look"}, {"type": "image_url", "image_url": {"url": url}}]);
        format!("{}\n", json!({"role": role, "content": parts, "tool_call_id": "Shell:1"}))
    }

    const ANSWER: &str = "{\"role\":\"assistant\",\"content\":\"I see\"}\n";
    const WORDS: &str = "{\"role\":\"user\",\"content\":\"hi\"}\n";

    /// Of each line, whether its picture goes.
    fn gone(lines: &[&str]) -> Vec<bool> {
        let mut trimmer = ImageTrimmer::from_history(lines.concat().as_bytes(), LINE_MAX).unwrap();
        lines.iter().map(|line| trimmer.strip_images(line.as_bytes()).is_some()).collect()
    }

    #[test]
    fn the_oldest_pictures_go_once_there_are_too_many() {
        const MB: usize = 1024 * 1024;
        let [small, large] = [3, 4].map(|size| shown("user", size * MB));
        assert_eq!(gone(&[&small, WORDS, &large, ANSWER]), [false; 4]);
        assert_eq!(gone(&[&large, WORDS, &small, &large, ANSWER]), [true, false, false, false, false]);
        assert_eq!(gone(&[&shown("user", 9 * MB), ANSWER]), [true, false]);
    }

    #[test]
    fn pictures_without_an_answer_go() {
        let (picture, result) = (shown("user", 10), shown("tool", 10));
        assert_eq!(gone(&[&picture, ANSWER, WORDS]), [false; 3]);
        assert_eq!(gone(&[&picture, ANSWER, &picture, WORDS]), [false, false, true, false]);
        assert_eq!(gone(&[&picture, ANSWER, &result]), [false, false, true]);
        assert_eq!(gone(&[&picture]), [true]);
        assert_eq!(gone(&[&picture, WORDS, ANSWER]), [false; 3]);
    }

    #[test]
    fn what_is_said_beside_a_picture_stays() {
        let history = shown("tool", 10);
        let mut trimmer = ImageTrimmer::from_history(history.as_bytes(), LINE_MAX).unwrap();
        let line = String::from_utf8(trimmer.strip_images(history.as_bytes()).unwrap()).unwrap();
        assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
        let message: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["content"][0], json!({"type": "text", "text": "look"}));
        assert_eq!(message["content"][1], json!({"type": "text", "text": LET_GO}));
        assert_eq!((&message["role"], &message["tool_call_id"]), (&json!("tool"), &json!("Shell:1")));
    }

    #[test]
    fn a_line_that_only_speaks_of_pictures_stays() {
        for line in [
            "{\"role\":\"user\",\"content\":\"a \\\"data:image/png\\\" URL\"}",
            "{\"role\":\"user\",\"content\":\"data:\"}",
            "{\"role\":\"user\",\"conte\"data:",
            "",
        ] {
            assert_eq!(gone(&[line]), [false], "{line}");
        }
    }
}
