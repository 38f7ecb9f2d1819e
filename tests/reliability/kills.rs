//! The service is killed at random moments, again and again, while people write.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::chats::Chats;
use crate::service;

/// Groups that people write in.
const GROUPS: usize = 4;
/// The service lives for a random time up to this: it is online after a third of a second, so that some kills
/// hit the start, and most the work.
const LIFE: Duration = Duration::from_millis(1_500);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(150);
/// After the last kill: how long nothing may come before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(90);

pub async fn run(kills: usize) {
    let began = Instant::now();
    let chats = Chats::new(GROUPS).await;
    let mut asked = 0;
    for _ in 0..kills {
        let mut service = service::spawn(chats.home.path(), &chats.server.url());
        let end = Instant::now() + LIFE.mul_f64(rand::random());
        while Instant::now() < end {
            chats.ask(asked).await;
            asked += 1;
            sleep(PAUSE.min(end.saturating_duration_since(Instant::now()))).await;
        }
        service.kill().await.unwrap();
    }
    let _service = service::spawn(chats.home.path(), &chats.server.url());
    let counts = chats.count(asked, PATIENCE).await;
    counts.report(&format!("kills: {kills} in {} s", began.elapsed().as_secs()));
    chats.check_log();
}
