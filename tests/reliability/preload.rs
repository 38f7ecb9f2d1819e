//! A wall clock that a run can set, and a slow disk. Both come from a small library that is loaded before the
//! C library of the service.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

const SOURCE: &str = include_str!("preload.c");
const LIBRARY: &str = "preload.so";
const SETTINGS: &str = "settings";

pub struct Preload {
    folder: TempDir,
    /// The file with the two numbers that the library reads.
    settings: File,
}

impl Preload {
    /// Compiles the library, with the compiler that SQLite needs too. At first the clock is right, and the
    /// disk has its normal speed.
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let source = folder.path().join("preload.c");
        std::fs::write(&source, SOURCE).unwrap();
        let library = folder.path().join(LIBRARY);
        let compiled =
            Command::new("cc").args(["-O2", "-shared", "-fPIC", "-o"]).args([&library, &source]).status();
        assert!(compiled.unwrap().success(), "the library is compiled");
        let settings = File::create(folder.path().join(SETTINGS)).unwrap();
        let preload = Self { folder, settings };
        preload.set_clock_ahead(0);
        preload.set_longest_flush(Duration::ZERO);
        preload
    }

    /// The environment that loads the library into a process.
    pub fn environment(&self) -> [(String, PathBuf); 2] {
        let path = |name| self.folder.path().join(name);
        [("LD_PRELOAD".to_owned(), path(LIBRARY)), ("TEST_PRELOAD_FILE".to_owned(), path(SETTINGS))]
    }

    /// From now on the clock is this many seconds ahead.
    pub fn set_clock_ahead(&self, secs: i64) {
        self.set(0, secs);
    }

    /// From now on each flush of a file to the disk takes a random time up to this.
    pub fn set_longest_flush(&self, longest: Duration) {
        self.set(1, i64::try_from(longest.as_millis()).unwrap());
    }

    fn set(&self, place: u64, number: i64) {
        self.settings.write_all_at(&number.to_ne_bytes(), place * 8).unwrap();
    }
}
