//! What must never happen to a message, tried the hard way: the service with its real database and the real
//! WhatsApp library, against the loopback server, killed and cut off again and again. Only the containers are
//! replaced, by engines that answer at once.
//!
//! ```text
//! cargo test --test reliability                      a short run of the three that follow
//! cargo test --test reliability -- kills 200         kill -9 at random moments
//! cargo test --test reliability -- burst             1,000 messages in 50 groups, three lost connections
//! cargo test --test reliability -- hostile           what nobody who means well would send
//! cargo test --test reliability -- idle PROGRAM      the memory of a linked service that rests for a minute
//! ```
//! Prints what was counted, and fails where a message was lost, doubled or renamed, or the log tells what is nobody's
//! business.

#![expect(clippy::unwrap_used, reason = "a run that cannot go on has failed")]
#![expect(clippy::print_stdout, reason = "the counts are what this program is for")]

mod burst;
mod chats;
#[path = "../whatsapp/client.rs"]
mod client;
#[path = "../stories/engine.rs"]
mod engine;
#[path = "../held/mod.rs"]
mod held;
mod hostile;
mod idle;
mod kills;
#[path = "../whatsapp/server/mod.rs"]
mod server;
mod service;

use std::path::PathBuf;

/// Kills of the short run.
const FEW_KILLS: usize = 20;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        [] => {
            kills::run(FEW_KILLS).await;
            burst::run().await;
            hostile::run().await;
        }
        ["kills", count] => kills::run(count.parse().expect("kills takes a number")).await,
        ["burst"] => burst::run().await,
        ["hostile"] => hostile::run().await,
        ["idle", program] => idle::run(&PathBuf::from(program)).await,
        ["serve", home, url] => service::serve(&PathBuf::from(home), url).await,
        other => panic!("there is no run called {other:?}"),
    }
}
