//! kimi-cli's history, repaired before the engine goes on with it: read line by line, and written anew only
//! if something changes.
//!
//! `context.jsonl` is what the model reads of the past, one JSON object a line, only ever appended to. The
//! repairs:
//!
//! - the line with the system prompt is removed, or the engine would keep the prompt of the first day
//!   (kimi-cli 1.51, `app.py`: the stored one wins);
//! - a last line that a kill has torn is removed, and one that only lacks its line end gets it, so that the
//!   next append does not join it;
//! - bytes that are not UTF-8 are replaced: the engine refuses to start on them (`context.py`,
//!   `write_system_prompt`);
//! - pictures are removed if they could keep every request from being answered (`pictures`);
//! - prompts of the host without an answer are removed: the API may have refused them, and would refuse every
//!   later request with them. (The host prompts again for what still needs an answer.)
//! - a tool call that a kill has left without its result gets one that says so: the API refuses a history
//!   with an unanswered call, for ever.
//!
//! Follows no symbolic link: the agent can write here. A history that cannot be repaired, whatever the agent
//! has made of it, is set aside, and the engine begins a new one: its group must be answered in any case. A
//! history on which the engine would hang or crash is set aside too: one with a pipe or a folder in a file's
//! place, or one larger than the engine ever writes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde::Deserialize;
use serde_json::{Value, json};

use super::pictures::ImageTrimmer;
use crate::json_lines::copy_rest_of_line;

/// Longest line that is looked into. A longer one is passed on as it is. A picture or film that the agent has
/// looked at is one line, and the engine needs several times its size in a container of 768 MiB.
const LINE_MAX: u64 = 64 * 1024 * 1024;

/// Largest `wire.jsonl` that is kept. It holds every event of the past for user interfaces that replay; a
/// start reads no more than its first turn, and nothing is lost to the model without it.
const WIRE_LOG_MAX: u64 = 16 * 1024 * 1024;

/// Largest `context.jsonl` that is kept: the engine holds all of it, several times. It compacts its own long
/// before, at some megabytes.
const CONTEXT_MAX: u64 = 64 * 1024 * 1024;

/// How every prompt of the host begins. What the engine adds as a user (the summary of a history that grew
/// too long, reminders) begins otherwise.
const TOLD_BEGINNING: &str = "<context ";

/// What the model reads in place of a lost result.
const LOST_RESULT: &str = "<system>ERROR: This call was interrupted. Its result is lost, and it may have been \
                           carried out in part.</system>";

/// Repairs the session of that name, wherever the engine keeps it below `sessions`. There may be no such
/// session.
///
/// # Errors
/// It can be neither repaired nor set aside.
pub fn repair_kimi_cli_history(sessions: &Path, session: &str) -> io::Result<()> {
    restore_folder_rights(sessions);
    let folders = match fs::read_dir(sessions) {
        Ok(folders) => folders,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for folder in folders {
        let folder = folder?;
        // The folder of the work place, then the folder of the session: both must be real ones.
        if !folder.file_type()?.is_dir() {
            if !folder.file_name().as_encoded_bytes().starts_with(b".") {
                set_aside(sessions, &folder.path(), "there is no folder in its place")?;
            }
            continue;
        }
        restore_folder_rights(&folder.path());
        let of_session = folder.path().join(session);
        match fs::symlink_metadata(&of_session) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => {
                set_aside(&folder.path(), &of_session, "there is no folder in its place")?;
                continue;
            }
            Err(_) => continue,
        }
        restore_folder_rights(&of_session);
        let mended = check_plain_files(&of_session).and_then(|()| repair_context_file(&of_session));
        if let Err(error) = mended.and_then(|()| remove_large_wire_log(&of_session)) {
            set_aside(&folder.path(), &of_session, &error.to_string())?;
        }
    }
    Ok(())
}

/// Moves something to where the engine does not look.
fn set_aside(folder: &Path, what: &Path, why: &str) -> io::Result<()> {
    eprintln!("agent-runner: The history cannot be mended and is set aside: {why}");
    let now_nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let name = what.file_name().unwrap_or_default().to_string_lossy();
    fs::rename(what, folder.join(format!(".{name}.aside-{now_nanos}")))
}

/// The engine opens these without a look: a pipe would hold it for ever.
fn check_plain_files(folder: &Path) -> io::Result<()> {
    for name in ["wire.jsonl", "state.json"] {
        if fs::symlink_metadata(folder.join(name)).is_ok_and(|meta| !meta.is_file()) {
            return Err(io::Error::other(format!("{name} is no plain file")));
        }
    }
    Ok(())
}

/// Restores our rights on a folder, in case the agent has taken them away.
fn restore_folder_rights(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).ok();
}

fn repair_context_file(folder: &Path) -> io::Result<()> {
    let context = folder.join("context.jsonl");
    match fs::symlink_metadata(&context) {
        Ok(meta) if meta.is_file() && meta.len() <= CONTEXT_MAX => {}
        Ok(meta) if meta.is_file() => return Err(io::Error::other("context.jsonl is too large")),
        Ok(_) => return Err(io::Error::other("context.jsonl is no plain file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mended = folder.join("context.jsonl.mended");
    remove_file_if_present(&mended)?;
    let no_follow = OFlags::NOFOLLOW.bits() as i32;
    let read = || OpenOptions::new().read(true).custom_flags(no_follow).open(&context).map(BufReader::new);
    let trimmer = ImageTrimmer::from_history(read()?, LINE_MAX)?;
    let new = OpenOptions::new().write(true).create_new(true).custom_flags(no_follow).open(&mended)?;
    let mut writer = BufWriter::new(new);
    if repair_context_lines(read()?, &mut writer, trimmer)? == RepairOutcome::Unchanged {
        return remove_file_if_present(&mended);
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&mended, &context)?;
    File::open(folder)?.sync_all()
}

fn remove_large_wire_log(folder: &Path) -> io::Result<()> {
    let log = folder.join("wire.jsonl");
    match fs::symlink_metadata(&log) {
        Ok(meta) if meta.is_file() && meta.len() > WIRE_LOG_MAX => remove_file_if_present(&log),
        _ => Ok(()),
    }
}

fn remove_file_if_present(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether what was written differs from what was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RepairOutcome {
    Unchanged,
    Repaired,
}

/// The fields of a line that matter here. The engine writes more.
#[derive(Default, Deserialize)]
struct ContextRecord {
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

/// Copies a history and repairs it. Holds one line at a time.
fn repair_context_lines(
    mut reader: impl BufRead,
    writer: &mut impl Write,
    mut pictures: ImageTrimmer,
) -> io::Result<RepairOutcome> {
    let mut outcome = RepairOutcome::Unchanged;
    let mut line = Vec::new();
    let mut unanswered: Vec<String> = Vec::new();
    loop {
        line.clear();
        reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
        if line.is_empty() {
            break;
        }
        if !line.ends_with(b"\n") && line.len() as u64 == LINE_MAX {
            writer.write_all(&line)?;
            copy_rest_of_line(&mut reader, writer)?;
            continue;
        }
        if let Some(lighter) = pictures.strip_images(&line) {
            line = lighter;
            outcome = RepairOutcome::Repaired;
        }
        let ended = line.ends_with(b"\n");
        let record = match serde_json::from_slice::<ContextRecord>(&line) {
            Ok(record) => record,
            Err(_) if ended => ContextRecord::default(), // The engine skips what it cannot read.
            Err(_) => {
                outcome = RepairOutcome::Repaired;
                continue;
            }
        };
        match record.role.as_str() {
            "_system_prompt" => {
                outcome = RepairOutcome::Repaired;
                continue;
            }
            "user" if pictures.is_unanswered() && is_host_message(&line) => {
                outcome = RepairOutcome::Repaired;
                continue;
            }
            "tool" => unanswered.retain(|id| Some(id) != record.tool_call_id.as_ref()),
            "user" | "assistant" | "system" => {
                if answer_open_calls(&mut unanswered, writer)? == RepairOutcome::Repaired {
                    outcome = RepairOutcome::Repaired;
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
            outcome = RepairOutcome::Repaired;
        }
    }
    if answer_open_calls(&mut unanswered, writer)? == RepairOutcome::Repaired {
        outcome = RepairOutcome::Repaired;
    }
    Ok(outcome)
}

/// Whether a line is a prompt of the host: a text, or parts of which the first is a text.
fn is_host_message(line: &[u8]) -> bool {
    let Ok(Value::Object(message)) = serde_json::from_slice(line) else { return false };
    let content = message.get("content").unwrap_or(&Value::Null);
    let text = content.as_str().or_else(|| content.get(0)?.get("text")?.as_str());
    text.is_some_and(|text| text.starts_with(TOLD_BEGINNING))
}

/// Gives every call that is still open a result.
fn answer_open_calls(unanswered: &mut Vec<String>, writer: &mut impl Write) -> io::Result<RepairOutcome> {
    let outcome = if unanswered.is_empty() { RepairOutcome::Unchanged } else { RepairOutcome::Repaired };
    for id in unanswered.drain(..) {
        writeln!(writer, "{}", json!({"role": "tool", "content": LOST_RESULT, "tool_call_id": id}))?;
    }
    Ok(outcome)
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

    fn mended(before: &[u8]) -> (String, RepairOutcome) {
        let mut after = Vec::new();
        let lines =
            repair_context_lines(before, &mut after, ImageTrimmer::from_history(before, LINE_MAX).unwrap())
                .unwrap();
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
                None => assert_eq!((text, lines), (before, RepairOutcome::Unchanged), "{story}"),
                Some(after) => {
                    assert_eq!((text, lines), (after.join("\n"), RepairOutcome::Repaired), "{story}")
                }
            }
        }
    }

    #[test]
    fn what_was_told_and_has_no_answer_goes() {
        const TOLD: &str = r#"{"role":"user","content":"<context timezone=\"UTC\" />\n<messages>…"}"#;
        const WITH_PICTURE: &str = r#"{"role":"user","content":[{"type":"text","text":"<context />"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}}]}"#;
        const SUMMARY: &str = r#"{"role":"user","content":[{"type":"text","text":"<system>Previous context has been compacted."}]}"#;
        for (story, before, after) in [
            ("answered", vec![TOLD, ANSWER], vec![TOLD, ANSWER]),
            ("being worked on", vec![TOLD, CALLS, RESULT_1, RESULT_2], vec![TOLD, CALLS, RESULT_1, RESULT_2]),
            (
                "refused, again and again",
                vec![TOLD, ANSWER, TOLD, USAGE, TOLD, TOLD],
                vec![TOLD, ANSWER, USAGE],
            ),
            ("with its pictures", vec![WITH_PICTURE, USAGE], vec![USAGE]),
            ("a steer", vec![TOLD, CALLS, RESULT_1, RESULT_2, TOLD], vec![TOLD, CALLS, RESULT_1, RESULT_2]),
            ("the engine's own summary stays", vec![SUMMARY, TOLD], vec![SUMMARY]),
        ] {
            let lines = |lines: Vec<&str>| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
            assert_eq!(mended(lines(before).as_bytes()).0, lines(after), "{story}");
        }
    }

    #[test]
    fn a_history_that_cannot_be_mended_is_set_aside() {
        type Spoil = fn(&Path);
        let spoils: [(&str, Spoil); 8] = [
            ("a folder in the way", |main| fs::create_dir(main.join("context.jsonl.mended")).unwrap()),
            ("a folder in its place", |main| {
                fs::remove_file(main.join("context.jsonl")).unwrap();
                fs::create_dir(main.join("context.jsonl")).unwrap();
            }),
            ("a link to itself", |main| {
                fs::remove_file(main.join("context.jsonl")).unwrap();
                std::os::unix::fs::symlink("context.jsonl", main.join("context.jsonl")).unwrap();
            }),
            ("larger than any", |main| {
                File::create(main.join("context.jsonl")).unwrap().set_len(CONTEXT_MAX + 1).unwrap();
            }),
            ("a folder for a log", |main| fs::create_dir(main.join("wire.jsonl")).unwrap()),
            ("a pipe for a log", |main| pipe(&main.join("wire.jsonl"))),
            ("a pipe for the state", |main| pipe(&main.join("state.json"))),
            ("a file for the session", |main| {
                fs::remove_dir_all(main).unwrap();
                fs::write(main, "").unwrap();
            }),
        ];
        for (story, spoil) in spoils {
            let root = tempfile::tempdir().unwrap();
            let place = root.path().join("4f2a");
            fs::create_dir_all(place.join("main")).unwrap();
            fs::write(place.join("main/context.jsonl"), format!("{USER}\n")).unwrap();
            spoil(&place.join("main"));
            repair_kimi_cli_history(root.path(), "main").unwrap();
            let left: Vec<_> =
                fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(left.len(), 1, "{story}");
            assert!(left[0].to_str().unwrap().starts_with(".main.aside-"), "{story}: {left:?}");
            repair_kimi_cli_history(root.path(), "main").unwrap();
        }
    }

    fn pipe(path: &Path) {
        rustix::fs::mkfifoat(rustix::fs::CWD, path, rustix::fs::Mode::RWXU).unwrap();
    }

    #[test]
    fn a_file_in_the_place_of_all_sessions_is_set_aside_once() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("4f2a"), "").unwrap();
        repair_kimi_cli_history(root.path(), "main").unwrap();
        repair_kimi_cli_history(root.path(), "main").unwrap();
        let left: Vec<_> =
            fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 1);
        assert!(left[0].to_str().unwrap().starts_with(".4f2a.aside-"), "{left:?}");
    }

    #[test]
    fn rights_that_the_agent_took_away_are_given_back() {
        let root = tempfile::tempdir().unwrap();
        let sessions = root.path().join("sessions");
        let main = sessions.join("4f2a/main");
        fs::create_dir_all(&main).unwrap();
        fs::write(main.join("context.jsonl"), format!("{PROMPT}\n{USER}\n")).unwrap();
        for folder in [&main, &sessions.join("4f2a"), &sessions] {
            fs::set_permissions(folder, fs::Permissions::from_mode(0o000)).unwrap();
        }
        repair_kimi_cli_history(&sessions, "main").unwrap();
        assert_eq!(fs::read_to_string(main.join("context.jsonl")).unwrap(), format!("{USER}\n"));
    }

    #[test]
    fn pictures_beyond_the_bound_go() {
        let url = format!("data:image/png;base64,{}", "A".repeat(9 * 1024 * 1024));
        let shown = json!({"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]});
        let (text, lines) = mended(format!("{USER}\n{shown}\n{ANSWER}\n").as_bytes());
        assert_eq!(lines, RepairOutcome::Repaired);
        assert!(text.len() < 1_000 && text.contains("not shown any more"), "{text}");
        assert!(text.starts_with(USER) && text.ends_with(&format!("{ANSWER}\n")), "{text}");
        assert_eq!(mended(text.as_bytes()).1, RepairOutcome::Unchanged);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_or_go_with_their_torn_line() {
        let (text, lines) = mended(b"{\"role\":\"user\",\"content\":\"caf\xe9\"}\n");
        assert_eq!(
            (text.as_str(), lines),
            ("{\"role\":\"user\",\"content\":\"caf\u{fffd}\"}\n", RepairOutcome::Repaired)
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
            assert_eq!(mended(once.as_bytes()), (once.clone(), RepairOutcome::Unchanged), "cut at {cut}");
            assert!(once.is_empty() || once.ends_with('\n'));
        }
    }

    #[test]
    fn a_line_that_is_too_long_to_look_into_passes() {
        let long =
            [&b"{\"role\":\"user\",\"content\":\""[..], &vec![b'x'; LINE_MAX as usize], b"\"}\n"].concat();
        let before = [PROMPT.as_bytes(), b"\n", &long, USER.as_bytes(), b"\n"].concat();
        let mut after = Vec::new();
        let trimmer = ImageTrimmer::from_history(before.as_slice(), LINE_MAX).unwrap();
        repair_context_lines(before.as_slice(), &mut after, trimmer).unwrap();
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
        repair_kimi_cli_history(root.path(), "main").unwrap();
        repair_kimi_cli_history(root.path(), "new").unwrap();
        repair_kimi_cli_history(&root.path().join("none"), "main").unwrap();
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
        repair_kimi_cli_history(&sessions, "main").unwrap();
        assert_eq!(fs::read_to_string(outside.join("main/context.jsonl")).unwrap(), content);
    }

    #[test]
    fn only_a_wire_log_that_has_grown_too_large_goes() {
        let root = tempfile::tempdir().unwrap();
        let session = root.path().join("4f2a/main");
        fs::create_dir_all(&session).unwrap();
        let log = session.join("wire.jsonl");
        File::create(&log).unwrap().set_len(WIRE_LOG_MAX).unwrap();
        repair_kimi_cli_history(root.path(), "main").unwrap();
        assert!(log.exists());
        File::create(&log).unwrap().set_len(WIRE_LOG_MAX + 1).unwrap();
        repair_kimi_cli_history(root.path(), "main").unwrap();
        assert!(!log.exists());
    }
}
