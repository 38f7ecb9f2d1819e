//! The service is killed at random moments, again and again, while people write: as it is, or beside a neighbour that
//! keeps the disk busy.

use std::io::{Seek, Write};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rand::Rng;
use tempfile::tempfile_in;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::chance::Chance;
use crate::chats::Chats;

/// Groups that people write in.
const GROUPS: usize = 4;
/// The service lives for a random time up to this: it is online after a third of a second, so that some kills
/// hit the start, and most the work.
const LIFE: Duration = Duration::from_millis(1_500);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// After the last kill: how long nothing may come before it counts as lost.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// What the neighbour writes before each flush, in bytes.
const NEIGHBOURS_WRITE: usize = 64 * 1024;
/// The neighbour's file begins anew when it has grown to so many writes.
const NEIGHBOURS_WRITES: usize = 256;

pub async fn run(kills: usize, chance: Chance) {
    kill_again_and_again("kills", kills, chance).await;
}

/// The same beside a process that flushes the same disk without end.
pub async fn run_beside_neighbour(kills: usize, chance: Chance) {
    let mut neighbour = start_neighbour();
    kill_again_and_again("neighbour", kills, chance).await;
    neighbour.kill().await.unwrap();
}

async fn kill_again_and_again(what: &str, kills: usize, mut chance: Chance) {
    let began = Instant::now();
    let chats = Chats::new(GROUPS).await;
    for _ in 0..kills {
        let mut service = chats.place.spawn();
        chats.ask_for(LIFE.mul_f64(chance.random.random()), PAUSE).await;
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

/// Writes into a file of this folder and flushes it, until the process is killed.
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
