//! An engine's own words, cut short for a log or an error.

/// Most characters of an engine's own words that go into a log or an error: a screenful of them.
pub const SAID_MAX: usize = 300;

/// The beginning of an engine's words.
pub fn take_excerpt(words: &str) -> String {
    words.chars().take(SAID_MAX).collect()
}

/// Adds a line to what has been said, up to [`SAID_MAX`] characters in all.
pub fn append_excerpt(said: &mut String, line: &[u8]) {
    // A character has at most 4 bytes: no need to look at a long line's rest.
    let line = String::from_utf8_lossy(&line[..line.len().min(4 * SAID_MAX)]);
    let line = line.trim();
    if !said.is_empty() && !line.is_empty() {
        said.push('\n');
    }
    let room = SAID_MAX.saturating_sub(said.chars().count());
    said.extend(line.chars().take(room));
}
