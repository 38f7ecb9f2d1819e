//! Tests that no message is lost, doubled or renamed under hard conditions. The service runs with its real
//! database and the real WhatsApp library against the loopback server, and is killed and cut off again and
//! again. Only the containers are replaced, by engines that answer at once.
//!
//! ```text
//! cargo test --test reliability                  a short run of each one below except the last
//! cargo test --test reliability -- kills 200     kill -9 at random moments
//! cargo test --test reliability -- neighbour 200 the same beside a process that flushes the disk
//! cargo test --test reliability -- sniper 200    kill -9 within 90 ms of a delivery, slow disk
//! cargo test --test reliability -- tasks 200     kill -9 while 50 tasks come due in each minute
//! cargo test --test reliability -- mix 100       kills with files, edits, groups, lost connections
//! cargo test --test reliability -- burst 1000    that many messages in 50 groups, three lost connections
//! cargo test --test reliability -- hostile       messages that no honest person would send
//! cargo test --test reliability -- disk 10       a disk that is full for 30 s, that many times
//! cargo test --test reliability -- inodes 10     a disk that holds no more files
//! cargo test --test reliability -- clocks 8      a wall clock that jumps by 2 h and 10 min
//! cargo test --test reliability -- stopped 180   a process that is stopped for that many seconds
//! cargo test --test reliability -- accounts 60   four accounts that run out in turn, and the gateway's clients
//! cargo test --test reliability -- idle PROGRAM  the memory of a linked service after a minute of rest
//! ```
//! `--seed S` at the end sets the seed of the random choices. Several runs may work side by side: each has
//! its own home and server. The program prints the counts. It fails if a message was lost, doubled or
//! renamed, or if the log contains something that it must not.

#![expect(clippy::unwrap_used, reason = "a run that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the counts are what this program is for")]

mod accounts;
mod burst;
mod chance;
mod chats;
mod clocks;
mod disk;
mod hostile;
mod idle;
mod kills;
mod limited_kimi;
mod mix;
mod preload;
mod rows;
mod service;
mod sniper;
mod stopped;
mod task_runs;
mod tasks;

use std::path::Path;
use std::time::Duration;

use chance::Chance;
use disk::{Rounds, Scarce};

/// Kills in the short run, for each way to kill.
const FEW_KILLS: usize = 20;
const FEW_SHOTS: usize = 15;
/// Messages of the short burst. Ten replies leave per second.
const FEW_MESSAGES: usize = 200;
/// How long the process is stopped in the short run.
const SHORT_STOP: Duration = Duration::from_secs(4);
/// Jumps of the clock in the short run: behind the right time, back, ahead of it, back.
const FEW_JUMPS: usize = 4;
/// How long four accounts run out in turn: once each, and once all of them together.
const SHORT_ACCOUNTS: Duration = Duration::from_secs(20);
/// How long a disk is full, and how long it has room.
const SHORT_ROUND: Rounds = Rounds { count: 1, full: Duration::from_secs(5), free: Duration::from_secs(3) };
const LONG_ROUND: Rounds = Rounds { count: 0, full: Duration::from_secs(30), free: Duration::from_secs(15) };

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let (words, seed) = match words.as_slice() {
        [words @ .., "--seed", seed] => (words, seed.parse().expect("--seed takes a number")),
        words => (words, rand::random::<u16>().into()),
    };
    let chance = || Chance::new(seed);
    match words {
        [] => {
            kills::run(FEW_KILLS, chance()).await;
            kills::run_beside_neighbour(FEW_KILLS / 2, chance()).await;
            sniper::run(FEW_SHOTS, chance()).await;
            tasks::run(FEW_SHOTS, chance()).await;
            mix::run(FEW_KILLS / 2, chance()).await;
            burst::run(FEW_MESSAGES).await;
            hostile::run().await;
            disk::run_in_own_namespace(Scarce::Bytes, SHORT_ROUND).await;
            disk::run_in_own_namespace(Scarce::Files, SHORT_ROUND).await;
            clocks::run(FEW_JUMPS, chance()).await;
            stopped::run(SHORT_STOP).await;
            accounts::run_in_own_process(SHORT_ACCOUNTS).await;
        }
        ["kills", kills] => kills::run(number(kills), chance()).await,
        ["neighbour", kills] => kills::run_beside_neighbour(number(kills), chance()).await,
        ["sniper", kills] => sniper::run(number(kills), chance()).await,
        ["tasks", kills] => tasks::run(number(kills), chance()).await,
        ["mix", kills] => mix::run(number(kills), chance()).await,
        ["burst", messages] => burst::run(number(messages)).await,
        ["hostile"] => hostile::run().await,
        [scarce @ ("disk" | "inodes"), rounds] => {
            let rounds = Rounds { count: number(rounds), ..LONG_ROUND };
            disk::run_in_own_namespace(Scarce::parse(scarce), rounds).await;
        }
        ["clocks", rounds] => clocks::run(number(rounds), chance()).await,
        ["stopped", secs] => {
            stopped::run(secs.parse().map(Duration::from_secs).expect("stopped takes seconds")).await
        }
        ["accounts", secs] => {
            accounts::run(secs.parse().map(Duration::from_secs).expect("accounts takes seconds")).await
        }
        ["idle", program] => idle::run(Path::new(program)).await,
        // The runs start these as processes of their own.
        ["serve", home, url] => service::serve(Path::new(home), url).await,
        ["write-and-flush", folder] => kills::write_and_flush(Path::new(folder)),
        ["on-small-disk", scarce, rounds @ ..] => {
            disk::run(Scarce::parse(scarce), Rounds::parse(rounds)).await;
        }
        other => panic!("there is no run called {other:?}"),
    }
}

fn number(word: &str) -> usize {
    word.parse().expect("a run takes how often")
}
