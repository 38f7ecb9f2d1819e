//! The engine's history, made fit to go on with: read line by line, written anew only where something changes.
//!
//! `context.jsonl` is what the model is told of the past, one JSON object a line, only ever appended to. Mended:
//!
//! - the line with the system prompt goes, else the engine keeps the prompt of the first day (kimi-cli 1.51,
//!   `app.py`: the stored one wins);
//! - a last line that a kill has torn goes, and one that only lacks its end gets it, so that the next append
//!   does not join it;
//! - bytes that are not UTF-8 are replaced: the engine refuses to start on them (`context.py`,
//!   `write_system_prompt`);
//! - a tool call that a kill has left without its result gets one that says so: the API refuses a history with
//!   an unanswered call, for ever.
//!
//! Follows no symbolic link: the agent can write here.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::json;

/// Longest line that is looked into; a longer one is passed on as it is. A picture or film that the agent has
/// looked at is one line, and the engine needs several times its size in a container of 768 MiB.
const LINE_MAX: u64 = 64 * 1024 * 1024;

/// Largest `wire.jsonl` that is kept. It holds every event of the past for user interfaces that replay; a start
/// reads no more than its first turn, and nothing is lost to the model without it.
const WIRE_LOG_MAX: u64 = 16 * 1024 * 1024;

/// What the model reads where a result was lost.
const LOST_RESULT: &str = "<system>ERROR: This call was interrupted. Its result is lost, and it may have been \
                           carried out in part.</system>";

/// Mends the session of that name, wherever the engine keeps it below `sessions`. None is fine.
pub fn mend(sessions: &Path, session: &str) -> io::Result<()> {
    let folders = match fs::read_dir(sessions) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for folder in folders {
        let folder = folder?;
        let of_session = folder.path().join(session);
        // The folder of the work place, then the folder of the session: both real ones.
        if folder.file_type()?.is_dir() && fs::symlink_metadata(&of_session).is_ok_and(|meta| meta.is_dir()) {
            mend_context(&of_session)?;
            cut_wire_log(&of_session)?;
        }
    }
    Ok(())
}

fn mend_context(folder: &Path) -> io::Result<()> {
    let context = folder.join("context.jsonl");
    if !fs::symlink_metadata(&context).is_ok_and(|meta| meta.is_file()) {
        return Ok(());
    }
    let mended = folder.join("context.jsonl.mended");
    remove(&mended)?;
    let no_follow = OFlags::NOFOLLOW.bits() as i32;
    let old = OpenOptions::new().read(true).custom_flags(no_follow).open(&context)?;
    let new = OpenOptions::new().write(true).create_new(true).custom_flags(no_follow).open(&mended)?;
    let mut writer = BufWriter::new(new);
    if mend_lines(BufReader::new(old), &mut writer)? == Lines::AsTheyWere {
        return remove(&mended);
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&mended, &context)?;
    File::open(folder)?.sync_all()
}

fn cut_wire_log(folder: &Path) -> io::Result<()> {
    let log = folder.join("wire.jsonl");
    match fs::symlink_metadata(&log) {
        Ok(meta) if meta.is_file() && meta.len() > WIRE_LOG_MAX => remove(&log),
        _ => Ok(()),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether what was written differs from what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lines {
    AsTheyWere,
    Mended,
}

/// What matters of a line; the engine writes more into it.
#[derive(Default, Deserialize)]
struct Record {
    #[serde(default)]
    role: String,
    #[serde(default)]
    tool_calls: Option<Vec<ToolCall>>,
    #[serde(default)]
    tool_call_id: Option<String>,
}

#[derive(Deserialize)]
struct ToolCall {
    id: String,
}

/// Copies a history, mended. Holds one line at a time.
fn mend_lines(mut reader: impl BufRead, writer: &mut impl Write) -> io::Result<Lines> {
    let mut outcome = Lines::AsTheyWere;
    let mut line = Vec::new();
    let mut unanswered: Vec<String> = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        let ended = line.ends_with(b"\n");
        if !ended && line.len() as u64 == LINE_MAX {
            writer.write_all(&line)?;
            copy_line(&mut reader, writer)?;
            continue;
        }
        let record = match serde_json::from_slice::<Record>(&line) {
            Ok(record) => record,
            Err(_) if ended => Record::default(), // The engine skips what it cannot read.
            Err(_) => {
                outcome = Lines::Mended;
                continue;
            }
        };
        match record.role.as_str() {
            "_system_prompt" => {
                outcome = Lines::Mended;
                continue;
            }
            "tool" => unanswered.retain(|id| Some(id) != record.tool_call_id.as_ref()),
            "user" | "assistant" | "system" => {
                if answer(&mut unanswered, writer)? == Lines::Mended {
                    outcome = Lines::Mended;
                }
                unanswered.extend(record.tool_calls.into_iter().flatten().map(|call| call.id));
            }
            // Counters and checkpoints of the engine, which stand between a call and its result too.
            _ => {}
        }
        let text = String::from_utf8_lossy(&line);
        writer.write_all(text.as_bytes())?;
        if !ended {
            writer.write_all(b"\n")?;
        }
        if !ended || text.as_bytes() != line {
            outcome = Lines::Mended;
        }
    }
    if answer(&mut unanswered, writer)? == Lines::Mended {
        outcome = Lines::Mended;
    }
    Ok(outcome)
}

/// Gives every call that is still open a result.
fn answer(unanswered: &mut Vec<String>, writer: &mut impl Write) -> io::Result<Lines> {
    let outcome = if unanswered.is_empty() { Lines::AsTheyWere } else { Lines::Mended };
    for id in unanswered.drain(..) {
        writeln!(writer, "{}", json!({"role": "tool", "content": LOST_RESULT, "tool_call_id": id}))?;
    }
    Ok(outcome)
}

/// Passes on the rest of a line that is too long to be held.
fn copy_line(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<()> {
    loop {
        let buffer = reader.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n').map(|at| at + 1);
        let length = end.unwrap_or(buffer.len());
        writer.write_all(&buffer[..length])?;
        reader.consume(length);
        if end.is_some() || length == 0 {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMPT: &str = r#"{"role": "_system_prompt", "content": "You are"}"#;
    const USER: &str = r#"{"role":"user","content":"hi"}"#;
    const ANSWER: &str = r#"{"role":"assistant","content":"hello"}"#;
    const CALLS: &str = r#"{"role":"assistant","content":"","tool_calls":[{"type":"function","id":"Shell:1","function":{"name":"Shell","arguments":"{}"}},{"type":"function","id":"Shell:2","function":{"name":"Shell","arguments":"{}"}}]}"#;
    const USAGE: &str = r#"{"role": "_usage", "token_count": 7}"#;
    const RESULT_1: &str = r#"{"role":"tool","content":"1","tool_call_id":"Shell:1"}"#;
    const RESULT_2: &str = r#"{"role":"tool","content":"2","tool_call_id":"Shell:2"}"#;

    fn lost(id: &str) -> String {
        json!({"role": "tool", "content": LOST_RESULT, "tool_call_id": id}).to_string()
    }

    fn mended(before: &[u8]) -> (String, Lines) {
        let mut after = Vec::new();
        let lines = mend_lines(before, &mut after).unwrap();
        (String::from_utf8(after).unwrap(), lines)
    }

    #[test]
    fn a_history_is_mended_line_by_line() {
        let (lost_1, lost_2) = (lost("Shell:1"), lost("Shell:2"));
        for (story, before, after) in [
            ("nothing to do", vec![USER, ANSWER, CALLS, USAGE, RESULT_2, RESULT_1, USER, ""], None),
            ("an empty one", vec![""], None),
            ("the frozen prompt goes", vec![PROMPT, USER, ""], Some(vec![USER, ""])),
            (
                "wherever it stands, however it is spaced",
                vec![USER, r#"{ "content":"x", "role" : "_system_prompt" }"#, ANSWER, ""],
                Some(vec![USER, ANSWER, ""]),
            ),
            (
                "its mention stays",
                vec![r#"{"role":"user","content":"{\"role\":\"_system_prompt\"}"}"#, ""],
                None,
            ),
            ("a torn line goes", vec![USER, r#"{"role":"assistant","content":"hel"#], Some(vec![USER, ""])),
            ("a line without its end gets it", vec![USER, ANSWER], Some(vec![USER, ANSWER, ""])),
            ("lines that the engine skips stay", vec![r#"{"role":"us"#, "", "[1]", USER, ""], None),
            (
                "a call without result at the end",
                vec![USER, CALLS, USAGE, ""],
                Some(vec![USER, CALLS, USAGE, &lost_1, &lost_2, ""]),
            ),
            (
                "one result of two was torn",
                vec![CALLS, USAGE, RESULT_1, r#"{"role":"tool","content":"2","tool_"#],
                Some(vec![CALLS, USAGE, RESULT_1, &lost_2, ""]),
            ),
            (
                "a call without result before the next message",
                vec![CALLS, RESULT_2, USER, ANSWER, ""],
                Some(vec![CALLS, RESULT_2, &lost_1, USER, ANSWER, ""]),
            ),
        ] {
            let before = before.join("\n");
            let (text, lines) = mended(before.as_bytes());
            match after {
                None => assert_eq!((text, lines), (before, Lines::AsTheyWere), "{story}"),
                Some(after) => assert_eq!((text, lines), (after.join("\n"), Lines::Mended), "{story}"),
            }
        }
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_or_go_with_their_torn_line() {
        let (text, lines) = mended(b"{\"role\":\"user\",\"content\":\"caf\xe9\"}\n");
        assert_eq!(
            (text.as_str(), lines),
            ("{\"role\":\"user\",\"content\":\"caf\u{fffd}\"}\n", Lines::Mended)
        );
        let (text, _) = mended(b"{\"role\":\"user\",\"content\":\"caf\xc3");
        assert_eq!(text, "");
    }

    #[test]
    fn every_cut_of_a_history_mends_to_one_that_needs_no_mending() {
        let whole = [
            PROMPT,
            USER,
            CALLS,
            USAGE,
            RESULT_1,
            RESULT_2,
            "{\"role\":\"assistant\",\"content\":\"é\"}",
            "",
        ];
        let whole = whole.join("\n");
        for cut in 0..=whole.len() {
            let (once, _) = mended(&whole.as_bytes()[..cut]);
            assert_eq!(mended(once.as_bytes()), (once.clone(), Lines::AsTheyWere), "cut at {cut}");
            assert!(once.is_empty() || once.ends_with('\n'));
        }
    }

    #[test]
    fn a_line_that_is_too_long_to_look_into_passes() {
        let long =
            [&b"{\"role\":\"user\",\"content\":\""[..], &vec![b'x'; LINE_MAX as usize], b"\"}\n"].concat();
        let before = [PROMPT.as_bytes(), b"\n", &long, USER.as_bytes(), b"\n"].concat();
        let mut after = Vec::new();
        mend_lines(before.as_slice(), &mut after).unwrap();
        assert!(after == [&long, USER.as_bytes(), b"\n"].concat());
    }

    #[test]
    fn the_named_session_is_mended_on_disk_and_no_other() {
        let root = tempfile::tempdir().unwrap();
        for session in ["main", "other"] {
            fs::create_dir_all(root.path().join("4f2a").join(session)).unwrap();
            let context = root.path().join("4f2a").join(session).join("context.jsonl");
            fs::write(context, format!("{PROMPT}\n{USER}\n")).unwrap();
        }
        let main = root.path().join("4f2a/main");
        fs::write(main.join("context.jsonl.mended"), "left by a kill").unwrap();
        fs::write(root.path().join("a file"), "").unwrap();
        mend(root.path(), "main").unwrap();
        mend(root.path(), "new").unwrap();
        mend(&root.path().join("none"), "main").unwrap();
        assert_eq!(fs::read_to_string(main.join("context.jsonl")).unwrap(), format!("{USER}\n"));
        assert!(!main.join("context.jsonl.mended").exists());
        let other = fs::read_to_string(root.path().join("4f2a/other/context.jsonl")).unwrap();
        assert_eq!(other, format!("{PROMPT}\n{USER}\n"));
    }

    #[test]
    fn symbolic_links_are_left_alone() {
        let root = tempfile::tempdir().unwrap();
        let outside = root.path().join("outside");
        fs::create_dir_all(outside.join("main")).unwrap();
        let content = format!("{PROMPT}\n{USER}\n");
        fs::write(outside.join("main/context.jsonl"), &content).unwrap();
        let sessions = root.path().join("sessions");
        fs::create_dir_all(sessions.join("a")).unwrap();
        fs::create_dir_all(sessions.join("b/main")).unwrap();
        std::os::unix::fs::symlink(&outside, sessions.join("c")).unwrap();
        std::os::unix::fs::symlink(outside.join("main"), sessions.join("a/main")).unwrap();
        std::os::unix::fs::symlink(outside.join("main/context.jsonl"), sessions.join("b/main/context.jsonl"))
            .unwrap();
        mend(&sessions, "main").unwrap();
        assert_eq!(fs::read_to_string(outside.join("main/context.jsonl")).unwrap(), content);
    }

    #[test]
    fn only_a_wire_log_that_has_grown_too_large_goes() {
        let root = tempfile::tempdir().unwrap();
        let session = root.path().join("4f2a/main");
        fs::create_dir_all(&session).unwrap();
        let log = session.join("wire.jsonl");
        File::create(&log).unwrap().set_len(WIRE_LOG_MAX).unwrap();
        mend(root.path(), "main").unwrap();
        assert!(log.exists());
        File::create(&log).unwrap().set_len(WIRE_LOG_MAX + 1).unwrap();
        mend(root.path(), "main").unwrap();
        assert!(!log.exists());
    }
}
