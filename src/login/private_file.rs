//! Files for this user's eyes only, put in place whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// Writes `text` to `path` with mode 0600, over whatever is there: a temporary file, synced, then renamed. A
/// link in its place is replaced, not followed.
pub fn write_private_file(path: &Path, text: &str) -> Result<()> {
    let temporary = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|file| write_and_sync(file, text))
        .and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        fs::remove_file(&temporary).ok();
    }
    written.with_context(|| format!("Failed to write {}", path.display()))
}

fn write_and_sync(mut file: File, text: &str) -> std::io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
