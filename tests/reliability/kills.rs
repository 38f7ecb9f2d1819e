//! The service is killed at random moments, again and again, while people write. It runs alone, or beside a
//! neighbour that keeps the disk busy.

use std::io::{Seek, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use tempfile::tempfile_in;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::chats::{Chats, KAI};

/// Groups that people write in.
const GROUPS: usize = 4;
/// The service lives for a random time up to this. For some processes this time begins at their start, so
/// that they are killed on their way to WhatsApp. For the others it begins when they are connected.
const LIFE: Duration = Duration::from_millis(1_500);
/// How many of a hundred processes are killed on their way.
pub const KILLED_AT_START: u32 = 25;
/// After this many kills the service may answer everything once. Replies leave at the pace of people, and
/// replies that wait longer test nothing new.
pub const KILLS_WITHOUT_REST: usize = 50;
/// The pause between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// If no answer comes for this long after the last kill, the open questions count as lost.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// The bytes that the neighbour writes before each flush.
const NEIGHBOURS_WRITE: usize = 64 * 1024;
/// After this many writes the neighbour starts again at the beginning of its file.
const NEIGHBOURS_WRITES: usize = 256;

pub async fn run(kills: usize, chance: Chance) {
    kill_again_and_again("kills", kills, chance).await;
}

/// The same, beside a process that flushes the same disk all the time.
pub async fn run_beside_neighbour(kills: usize, chance: Chance) {
    let mut neighbour = start_neighbour();
    kill_again_and_again("neighbour", kills, chance).await;
    neighbour.kill().await.unwrap();
}

async fn kill_again_and_again(what: &str, kills: usize, mut chance: Chance) {
    let began = Instant::now();
    let chats = Chats::new(GROUPS).await;
    for kill in 1..=kills {
        let mut service = chats.place.spawn();
        if !chance.random.random_ratio(KILLED_AT_START, 100) {
            chats.server.wait_until_online(KAI).await;
        }
        chats.ask_for(LIFE.mul_f64(chance.random.random()), PAUSE).await;
        if kill % KILLS_WITHOUT_REST == 0 {
            chats.wait_until_answered(PATIENCE).await;
        }
        service.kill().await.unwrap();
    }
    let _service = chats.place.spawn();
    let counts = chats.count(PATIENCE).await;
    let (seed, secs) = (chance.seed, began.elapsed().as_secs());
    chats.report(&format!("{what}: {kills} kills in {secs} s, seed {seed}"), &counts);
    chats.check_log();
}

fn start_neighbour() -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("write-and-flush").arg(std::env::temp_dir()).stdin(Stdio::null());
    command.kill_on_drop(true).spawn().unwrap()
}

/// Writes to a file in this folder and flushes it, until the process is killed.
pub fn write_and_flush(folder: &Path) {
    let (mut file, block) = (tempfile_in(folder).unwrap(), vec![7; NEIGHBOURS_WRITE]);
    loop {
        for _ in 0..NEIGHBOURS_WRITES {
            file.write_all(&block).unwrap();
            file.sync_all().unwrap();
        }
        file.rewind().unwrap();
    }
}
