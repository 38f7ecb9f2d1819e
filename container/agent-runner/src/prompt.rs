//! The system prompt: one frame for all engines, the two KIMI.md in it, and how it is filled in for an engine
//! that has no template language.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// The frame: a template of kimi-cli (Jinja with `${ }`).
pub const SYSTEM: &str = include_str!("system.md");

/// Most bytes of one KIMI.md that reach the model. Every request carries them: 64 KiB are some 16,000 tokens.
const PROMPT_MAX: u64 = 64 * 1024;

/// Reads a KIMI.md: an empty text if there is no file, and its beginning if it is too long. A file that
/// cannot be read is reported and counts as empty: an agent must not be able to end its group for ever.
pub fn read_prompt_file(path: &Path) -> String {
    try_read_prompt_file(path).unwrap_or_else(|error| {
        eprintln!("agent-runner: Failed to read {}, which counts as empty: {error}", path.display());
        String::new()
    })
}

fn try_read_prompt_file(path: &Path) -> io::Result<String> {
    let file = match open_plain_file(path) {
        Ok(Some(file)) => file,
        Ok(None) => return Ok(String::new()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error),
    };
    let mut bytes = Vec::new();
    file.take(PROMPT_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 <= PROMPT_MAX {
        return Ok(String::from_utf8_lossy(&bytes).into_owned());
    }
    eprintln!("agent-runner: {} is longer than {PROMPT_MAX} bytes; the rest is left out", path.display());
    bytes.truncate(PROMPT_MAX as usize);
    // A character that the cut has gone through.
    let torn = bytes
        .utf8_chunks()
        .last()
        .filter(|chunk| std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none()));
    bytes.truncate(bytes.len() - torn.map_or(0, |chunk| chunk.invalid().len()));
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Opens a plain file. The agent can put anything there, and a pipe must not hold the start for ever.
pub fn open_plain_file(path: &Path) -> io::Result<Option<File>> {
    let file = OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    Ok(file.metadata()?.is_file().then_some(file))
}

/// Fills a template in: `${NAME}` is the value of that name, and `{% if NAME %}` … `{% endif %}` is left out
/// if it is empty. A name without a value counts as empty. A value is text, never a template.
pub fn fill_template(template: &str, values: &[(&str, &str)]) -> String {
    let value = |name: &str| values.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| *value);
    let mut filled = String::new();
    let mut rest = template;
    while let Some((before, condition)) = rest.split_once("{% if ") {
        filled.push_str(&fill_placeholders(before, &value));
        let Some((name, block)) = condition.split_once(" %}\n") else { break };
        let Some((block, after)) = block.split_once("{% endif %}\n") else { break };
        if !value(name).is_empty() {
            filled.push_str(&fill_placeholders(block, &value));
        }
        rest = after;
    }
    filled.push_str(&fill_placeholders(rest, &value));
    filled
}

fn fill_placeholders<'a>(text: &str, value: &impl Fn(&str) -> &'a str) -> String {
    let mut pieces = text.split("${");
    let mut filled = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (name, after) = piece.split_once('}').unwrap_or((piece, ""));
        filled.push_str(value(name));
        filled.push_str(after);
    }
    filled
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_kimi_md_that_is_too_long_is_cut_between_characters() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("KIMI.md");
        for (content, length) in [
            ("a".repeat(65536), 65536),
            ("a".repeat(65537), 65536),
            ("a".repeat(65535) + "é", 65535),
            ("a".repeat(65534) + "é" + "b", 65536),
        ] {
            fs::write(&path, &content).unwrap();
            let prompt = read_prompt_file(&path);
            assert_eq!(prompt.len(), length);
            assert!(content.starts_with(&prompt));
        }
    }

    #[test]
    fn what_is_not_utf_8_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("KIMI.md");
        fs::write(&path, b"caf\xe9 \xff ok").unwrap();
        assert_eq!(read_prompt_file(&path), "caf\u{fffd} \u{fffd} ok");
    }

    #[test]
    fn a_template_is_filled_in_once() {
        let template =
            "I am ${NAME}.\n{% if A %}\nA: ${A}\n{% endif %}\n{% if B %}\nB\n{% endif %}\nend ${C}!";
        assert_eq!(
            fill_template(template, &[("NAME", "Kai"), ("A", "${NAME} {% if B %}")]),
            "I am Kai.\nA: ${NAME} {% if B %}\nend !"
        );
        assert!(!fill_template(SYSTEM, &[("ASSISTANT", "Kai")]).contains("{%"));
    }
}
