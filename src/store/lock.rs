//! The single-instance lock: one nanokimi at a time works on an install.
//!
//! The kernel drops the lock with the process, however that ends; the file only says who holds it.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Longest holder line that is read back.
const HOLDER_MAX_BYTES: u64 = 200;

/// Held for as long as this value lives.
#[derive(Debug)]
pub struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock; `verb` is what this process does, for the one that comes second.
    ///
    /// # Errors
    /// Says which process holds it.
    pub fn acquire_lock(path: &Path, verb: &str) -> Result<Self> {
        let explain = || format!("Failed to lock {}", path.display());
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(explain)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .with_context(explain)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = read_holder(&mut file);
                // The service is not stopped by its process: systemd would start it again.
                let how = if holder.starts_with("`nanokimi run`") {
                    ": systemctl --user stop nanokimi, or Ctrl-C where it runs"
                } else {
                    ""
                };
                bail!("nanokimi already works on this install ({holder}); stop that one first{how}")
            }
            Err(TryLockError::Error(error)) => return Err(error).with_context(explain),
        }
        file.set_len(0).with_context(explain)?;
        file.rewind().with_context(explain)?;
        write!(file, "`nanokimi {verb}`, process {}", std::process::id()).with_context(explain)?;
        Ok(Self { _file: file })
    }

    /// Who holds the lock, if somebody does. Makes and changes nothing; holds a shared lock for a moment,
    /// since the kernel offers no other way to ask.
    pub fn current_holder(path: &Path) -> Result<Option<String>> {
        let explain = || format!("Failed to look at {}", path.display());
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(explain),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => Ok(Some(read_holder(&mut file))),
            Err(TryLockError::Error(error)) => Err(error).with_context(explain),
        }
    }
}

fn read_holder(file: &mut File) -> String {
    let mut holder = String::new();
    file.take(HOLDER_MAX_BYTES).read_to_string(&mut holder).ok();
    if holder.is_empty() { "another process".to_owned() } else { holder.trim().to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_who_holds_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store/nanokimi.lock");
        assert_eq!(InstanceLock::current_holder(&path).unwrap(), None);
        assert!(!path.exists(), "asking makes nothing");
        let first = InstanceLock::acquire_lock(&path, "run").unwrap();
        let error = InstanceLock::acquire_lock(&path, "chat").unwrap_err().to_string();
        assert!(error.contains("`nanokimi run`, process"), "{error}");
        let holder = format!("`nanokimi run`, process {}", std::process::id());
        assert_eq!(InstanceLock::current_holder(&path).unwrap(), Some(holder));
        drop(first);
        assert_eq!(InstanceLock::current_holder(&path).unwrap(), None);
        InstanceLock::acquire_lock(&path, "chat").unwrap();
    }
}
