//! The process is stopped for a while and then goes on, as on a server that is paused. Its connection is
//! still there, or it was lost meanwhile.

use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;
use tokio::time::Instant;

use crate::chats::{Chats, KAI};
use crate::kills::PATIENCE;

const GROUPS: u32 = 4;
/// The shortest pause between two questions.
const PAUSE: Duration = Duration::from_millis(500);
/// The most questions during one stop. If a chat gets very many answers in an hour, the rest come slowly.
const QUESTIONS: u32 = 45 * GROUPS;
/// How long people write before each stop.
const STRETCH: Duration = Duration::from_secs(2);

/// Stops the process twice for this long: once it keeps its connection, and once it loses the connection.
pub async fn run(stop: Duration) {
    let began = Instant::now();
    let chats = Chats::new(GROUPS as usize).await;
    let service = chats.place.spawn();
    chats.server.wait_until_online(KAI).await;
    let pause = PAUSE.max(stop / QUESTIONS);
    let mut longest = Duration::ZERO;
    for loses_connection in [false, true] {
        chats.ask_for(STRETCH, PAUSE).await;
        signal(&service, Signal::STOP);
        chats.ask_for(stop / 2, pause).await;
        if loses_connection {
            chats.server.drop_connection(KAI);
        }
        chats.ask_for(stop / 2, pause).await;
        signal(&service, Signal::CONT);
        longest = longest.max(chats.wait_until_answered(PATIENCE).await);
    }
    // All questions have had their time by now, so this does not wait.
    let counts = chats.count(Duration::ZERO).await;
    let what = format!(
        "stopped: for {} s, with and without the connection, in {} s; all answered at most {} s after",
        stop.as_secs(),
        began.elapsed().as_secs(),
        longest.as_secs()
    );
    chats.report(&what, &counts);
    chats.check_log();
}

fn signal(service: &Child, signal: Signal) {
    let process = i32::try_from(service.id().unwrap()).unwrap();
    kill_process(Pid::from_raw(process).unwrap(), signal).unwrap();
}
