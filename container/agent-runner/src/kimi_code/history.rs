//! kimi-code's history, repaired before the engine goes on with it: `wire.jsonl` of each of its sessions,
//! read line by line, and written anew only if something changes (measured with 2.1.0).
//!
//! - The engine keeps the system prompt of the first day, with the AGENTS.md and the skills of that day. The
//!   record of it loses the name of the engine's profile: so the engine makes the prompt anew when the host
//!   tells it its model, after it has resumed the session. In case that it does not, our part of the kept
//!   prompt is replaced by the present one. Each start adds such a record; only the first one stays.
//! - Prompts of the host without an answer are removed: the API may have refused them, and would refuse every
//!   later request with them. (The host prompts again for what still needs an answer.)
//!
//! kimi-code repairs the rest by itself: a torn line, a call without its result, too many pictures. Follows
//! no symbolic link: the agent can write here. A history that cannot be repaired is set aside, and the engine
//! begins a new one.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde_json::{Map, Value};

use super::system_prompt::ITS_OWN_PART;
use crate::json_lines::copy_rest_of_line;

/// Largest history that is kept: the engine holds all of it.
const HISTORY_MAX: u64 = 256 * 1024 * 1024;
/// Longest line that is looked into. A longer one, such as a film that the agent has looked at, is passed on.
const LINE_MAX: u64 = 16 * 1024 * 1024;
/// How the lines begin that matter here.
const PROMPT_BEGINNING: &[u8] = br#"{"type":"profile.bind","#;
const MESSAGE_BEGINNING: &[u8] = br#"{"type":"context.append_message","#;
const EVENT_BEGINNING: &[u8] = br#"{"type":"context.append_loop_event","#;
/// What of such an event is the model's own: a thought or a part of its answer.
const MODELS_OWN: &[u8] = br#""event":{"type":"content.part","#;
/// How every prompt of the host begins.
const TOLD_BEGINNING: &str = "<context ";

/// Repairs every session. There may be no session.
///
/// # Errors
/// One of them can be neither repaired nor set aside.
pub fn repair_kimi_code_history(sessions: &Path, prompt: &str) -> io::Result<()> {
    for work_folder in list_real_folders(sessions)? {
        for session in list_real_folders(&work_folder)? {
            if let Err(error) = repair_session_folder(&session, prompt) {
                eprintln!("agent-runner: A history cannot be mended and is set aside: {error}");
                let now_nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
                fs::rename(&session, sessions.join(format!(".aside-{now_nanos}")))?;
            }
        }
    }
    Ok(())
}

/// The real folders in a folder, of which the agent may have taken away our rights.
fn list_real_folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o700)).ok();
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
        if entry.file_type()?.is_dir() && !hidden {
            found.push(entry.path());
        }
    }
    Ok(found)
}

fn repair_session_folder(session: &Path, prompt: &str) -> io::Result<()> {
    for folder in [session.to_owned(), session.join("agents"), session.join("agents/main")] {
        match fs::symlink_metadata(&folder) {
            Ok(meta) if meta.is_dir() => {}
            Ok(_) => return Err(io::Error::other(format!("{} is no folder", folder.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).ok();
    }
    let records = session.join("agents/main/wire.jsonl");
    match fs::symlink_metadata(&records) {
        Ok(meta) if meta.is_file() && meta.len() <= HISTORY_MAX => {}
        Ok(meta) if meta.is_file() => return Err(io::Error::other("wire.jsonl is too large")),
        Ok(_) => return Err(io::Error::other("wire.jsonl is no plain file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let mended = session.join("agents/main/wire.jsonl.mended");
    match fs::remove_file(&mended) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let no_follow = OFlags::NOFOLLOW.bits() as i32;
    let read = || OpenOptions::new().read(true).custom_flags(no_follow).open(&records).map(BufReader::new);
    let answered_lines = count_answered_lines(read()?)?;
    let new = OpenOptions::new().write(true).create_new(true).custom_flags(no_follow).open(&mended)?;
    let mut writer = BufWriter::new(new);
    if repair_record_lines(read()?, &mut writer, prompt, answered_lines)? == 0 {
        return fs::remove_file(&mended);
    }
    writer.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
    fs::rename(&mended, &records)?;
    File::open(session.join("agents/main"))?.sync_all()
}

/// How many lines there are up to the last that is the model's own.
fn count_answered_lines(mut reader: impl BufRead) -> io::Result<u64> {
    let (mut lines, mut answered) = (0, 0);
    while let Some(line) = read_bounded_line(&mut reader, &mut io::sink())? {
        lines += 1;
        if line.starts_with(EVENT_BEGINNING) && line.windows(MODELS_OWN.len()).any(|part| part == MODELS_OWN)
        {
            answered = lines;
        }
    }
    Ok(answered)
}

/// Copies a history and repairs it. Returns how many lines have changed. Holds one line at a time.
fn repair_record_lines(
    mut reader: impl BufRead,
    writer: &mut impl Write,
    prompt: &str,
    answered_lines: u64,
) -> io::Result<u64> {
    let (mut number, mut changed, mut is_bound) = (0, 0, false);
    while let Some(line) = read_bounded_line(&mut reader, writer)? {
        number += 1;
        let bound = if line.starts_with(PROMPT_BEGINNING) { parse_bound_profile(&line) } else { None };
        if let Some(record) = bound {
            let renewed = unbind_profile(record, prompt);
            let stays = !std::mem::replace(&mut is_bound, true);
            changed += u64::from(!stays || renewed.as_bytes() != line);
            writer.write_all(if stays { renewed.as_bytes() } else { b"" })?;
        } else if number > answered_lines && line.starts_with(MESSAGE_BEGINNING) && is_host_record(&line) {
            changed += 1;
        } else {
            writer.write_all(&line)?;
        }
    }
    Ok(changed)
}

/// The next line with its end. A line that is too long is copied, and an empty one stands in its place.
fn read_bounded_line(reader: &mut impl BufRead, writer: &mut impl Write) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    reader.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if !line.ends_with(b"\n") && line.len() as u64 == LINE_MAX {
        writer.write_all(&line)?;
        copy_rest_of_line(reader, writer)?;
        line.clear();
    }
    Ok(Some(line))
}

/// A record of the engine's profile and its system prompt, if the line is one.
fn parse_bound_profile(line: &[u8]) -> Option<Map<String, Value>> {
    let record: Map<String, Value> = serde_json::from_slice(line).ok()?;
    record.get("systemPrompt")?.is_string().then_some(record)
}

/// The line without the profile's name, and with our part of the system prompt renewed.
fn unbind_profile(mut record: Map<String, Value>, prompt: &str) -> String {
    record.shift_remove("profileName");
    let kept = record.get("systemPrompt").and_then(Value::as_str).unwrap_or_default();
    let (_, its_own) = kept.split_once(ITS_OWN_PART).unwrap_or(("", ""));
    let renewed = format!("{prompt}{ITS_OWN_PART}{its_own}");
    record.insert("systemPrompt".to_owned(), renewed.into());
    format!("{}\n", Value::Object(record))
}

/// Whether a line is a prompt of the host.
fn is_host_record(line: &[u8]) -> bool {
    let Ok(record) = serde_json::from_slice::<Value>(line) else { return false };
    let message = &record["message"];
    let text = message["content"][0]["text"].as_str().unwrap_or_default();
    message["role"] == "user" && text.starts_with(TOLD_BEGINNING)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn bound(prompt: &str) -> String {
        format!(
            r#"{{"type":"profile.bind","agentId":"main","modelAlias":"k","systemPrompt":{},"time":1}}"#,
            Value::from(prompt)
        )
    }

    fn told(text: &str) -> String {
        let text = Value::from(format!("<context timezone=\"UTC\" />\n{text}"));
        format!(
            r#"{{"type":"context.append_message","agentId":"main","message":{{"role":"user","content":[{{"type":"text","text":{text}}}]}},"time":1}}"#
        )
    }

    const REMINDER: &str = r#"{"type":"context.append_message","agentId":"main","message":{"role":"user","content":[{"type":"text","text":"<system-reminder>"}]},"time":1}"#;
    const STEP: &str = r#"{"type":"context.append_loop_event","agentId":"main","event":{"type":"step.begin","uuid":"u"},"time":1}"#;
    const ANSWER: &str = r#"{"type":"context.append_loop_event","agentId":"main","event":{"type":"content.part","uuid":"u","part":{"type":"text","text":"hello"}},"time":1}"#;

    fn mended(lines: &[&str]) -> (Vec<String>, u64) {
        let before = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let mut after = Vec::new();
        let answered = count_answered_lines(before.as_bytes()).unwrap();
        let changed = repair_record_lines(before.as_bytes(), &mut after, "NEW ", answered).unwrap();
        (String::from_utf8(after).unwrap().lines().map(str::to_owned).collect(), changed)
    }

    #[test]
    fn a_history_is_mended_line_by_line() {
        let (old, new) =
            (bound(&format!("OLD {ITS_OWN_PART} skills")), bound(&format!("NEW {ITS_OWN_PART} skills")));
        let (hi, again) = (told("hi"), told("again"));
        let named = old.replace(r#""modelAlias":"k","#, r#""modelAlias":"k","profileName":"agent","#);
        assert_ne!(named, old);
        for (story, before, after) in [
            ("nothing to do", vec![&*new, &hi, STEP, ANSWER, REMINDER], None),
            ("our part of the prompt is renewed", vec![&old, &hi, ANSWER], Some(vec![&*new, &hi, ANSWER])),
            (
                "the profile is bound no more, and the first record of it stays",
                vec![&named, &hi, ANSWER, &named, &again, ANSWER, &new],
                Some(vec![&*new, &hi, ANSWER, &again, ANSWER]),
            ),
            (
                "what nobody answered goes, with what the engine added staying",
                vec![&new, &hi, ANSWER, &again, REMINDER, STEP],
                Some(vec![&new, &hi, ANSWER, REMINDER, STEP]),
            ),
            (
                "a torn or strange line stays",
                vec![&new, &hi, ANSWER, r#"{"type":"profile.bind","#, "[1]", ""],
                None,
            ),
        ] {
            let (lines, changed) = mended(&before);
            assert_eq!(lines, after.clone().unwrap_or_else(|| before.clone()), "{story}");
            assert_eq!(changed > 0, after.is_some(), "{story}");
        }
    }

    #[test]
    fn a_prompt_that_was_not_ours_is_replaced() {
        let (lines, _) = mended(&[&bound("You are Kimi Code CLI")]);
        assert_eq!(lines, [bound(&format!("NEW {ITS_OWN_PART}"))]);
    }

    #[test]
    fn sessions_are_found_and_links_are_not_followed() {
        let root = tempfile::tempdir().unwrap();
        let sessions = root.path().join("sessions");
        repair_kimi_code_history(&sessions, "NEW ").unwrap();

        let main = sessions.join("wd_group_1/session_1/agents/main");
        fs::create_dir_all(&main).unwrap();
        fs::write(main.join("wire.jsonl"), format!("{}\n", bound("OLD"))).unwrap();
        fs::create_dir_all(sessions.join(".index-cache/x")).unwrap();
        fs::create_dir_all(sessions.join("wd_group_1/session_2")).unwrap();
        repair_kimi_code_history(&sessions, "NEW ").unwrap();
        let text = fs::read_to_string(main.join("wire.jsonl")).unwrap();
        assert_eq!(text, format!("{}\n", bound(&format!("NEW {ITS_OWN_PART}"))));

        let precious = root.path().join("precious");
        fs::write(&precious, format!("{}\n", bound("OLD"))).unwrap();
        fs::remove_file(main.join("wire.jsonl")).unwrap();
        symlink(&precious, main.join("wire.jsonl")).unwrap();
        repair_kimi_code_history(&sessions, "NEW ").unwrap();
        assert!(fs::read_to_string(&precious).unwrap().contains("OLD"));
        assert!(!sessions.join("wd_group_1/session_1").exists(), "it was set aside");
    }
}
