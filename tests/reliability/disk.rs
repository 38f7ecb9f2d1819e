//! The home is on a disk of its own. While people write, this disk is filled with bytes or with files, and is
//! freed again.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::{getegid, geteuid};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::chats::{Chats, KAI};
use crate::kills::PATIENCE;

const GROUPS: usize = 8;
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(600);
/// The size of the disk. It is well above the free space that the service asks for, and the machine has this
/// much memory.
const SIZE_MB: usize = 256;
/// The number of files that the disk can hold.
const FILES: usize = 4096;
/// The sizes of the writes that fill the disk. The last writes are one page of memory each.
const BLOCKS: [usize; 2] = [1 << 20, 4096];
/// How often space that the service has freed is filled again.
const TOP_UP: Duration = Duration::from_millis(200);

/// What the disk has no more of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    Bytes,
    Files,
}

/// How often the disk is full, for how long, and how long it has room in between.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    pub count: usize,
    pub full: Duration,
    pub free: Duration,
}

impl Scarce {
    pub fn parse(word: &str) -> Self {
        match word {
            "disk" => Self::Bytes,
            "inodes" => Self::Files,
            other => panic!("there is no disk that lacks {other:?}"),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Bytes => "disk",
            Self::Files => "inodes",
        }
    }
}

impl Rounds {
    /// The reverse of `words`.
    pub fn parse(words: &[&str]) -> Self {
        let numbers: Vec<u64> = words.iter().map(|word| word.parse().unwrap()).collect();
        let [count, full, free] = numbers[..] else { panic!("rounds are three numbers") };
        let (full, free) = (Duration::from_secs(full), Duration::from_secs(free));
        Self { count: usize::try_from(count).unwrap(), full, free }
    }

    fn words(self) -> [String; 3] {
        let Self { count, full, free } = self;
        [count.to_string(), full.as_secs().to_string(), free.as_secs().to_string()]
    }
}

/// Starts this program again in a namespace of its own. There it may mount a disk that no other program sees,
/// and that disappears when the program ends.
pub async fn run_in_own_namespace(scarce: Scarce, rounds: Rounds) {
    let mut command = tokio::process::Command::new("unshare");
    if !geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.arg("--mount").arg(std::env::current_exe().unwrap());
    command.args(["on-small-disk", scarce.name()]).args(rounds.words());
    let ended = command.stdin(Stdio::null()).kill_on_drop(true).status().await.unwrap();
    assert!(ended.success(), "the run on a full disk failed");
}

pub async fn run(scarce: Scarce, rounds: Rounds) {
    let began = Instant::now();
    let disk = TempDir::new().unwrap();
    mount(disk.path());
    let home = disk.path().join("home");
    std::fs::create_dir(&home).unwrap();
    let chats = Chats::at(home, GROUPS).await;
    let service = chats.place.keep_running();
    chats.server.wait_until_online(KAI).await;
    chats.ask_for(rounds.free, PAUSE).await;
    let mut settled = Duration::ZERO;
    for _ in 0..rounds.count {
        let filler = Filler::new(disk.path(), scarce);
        let filling = tokio::spawn(filler.fill_again_and_again());
        chats.ask_for(rounds.full, PAUSE).await;
        filling.abort();
        filling.await.ok();
        Filler::new(disk.path(), scarce).free();
        chats.ask_for(rounds.free, PAUSE).await;
        settled = settled.max(chats.wait_until_answered(PATIENCE).await);
    }
    // All questions have had their time by now, so this does not wait.
    let counts = chats.count(Duration::ZERO).await;
    let what = format!(
        "{}: full for {} s, {} times, in {} s; service ended by itself {} times; all answered at most {} s after there was \
         room for {} s",
        scarce.name(),
        rounds.full.as_secs(),
        rounds.count,
        began.elapsed().as_secs(),
        service.ends(),
        settled.as_secs(),
        rounds.free.as_secs(),
    );
    chats.report(&what, &counts);
    chats.check_log();
}

fn mount(folder: &Path) {
    let options = format!("size={SIZE_MB}m,nr_inodes={FILES},mode=0700,uid={},gid={}", geteuid(), getegid());
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &options, "nanokimi-test"]).arg(folder).stdin(Stdio::null());
    assert!(mount.status().unwrap().success(), "a small disk is mounted");
}

/// Another program that writes to the disk.
struct Filler {
    folder: PathBuf,
    scarce: Scarce,
}

impl Filler {
    fn new(disk: &Path, scarce: Scarce) -> Self {
        Self { folder: disk.join("ballast"), scarce }
    }

    async fn fill_again_and_again(self) {
        std::fs::create_dir(&self.folder).unwrap();
        let mut number = 0;
        loop {
            number = self.fill(number);
            sleep(TOP_UP).await;
        }
    }

    /// Writes until nothing more fits. Returns the number of the next file.
    fn fill(&self, first: usize) -> usize {
        let mut number = first;
        loop {
            let Ok(mut file) = File::create(self.folder.join(number.to_string())) else { return number };
            number += 1;
            if self.scarce == Scarce::Bytes {
                for block in BLOCKS {
                    while file.write_all(&vec![7; block]).is_ok() {}
                }
                return number;
            }
        }
    }

    fn free(&self) {
        std::fs::remove_dir_all(&self.folder).unwrap();
    }
}
