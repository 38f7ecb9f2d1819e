//! Several people write at once in several chats, and the service is killed within the first moments of a
//! delivery. The disk is slow, so that other messages are decrypted then, but do not have their rows yet.

use std::time::Duration;

use futures_util::future::join_all;
use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::chats::{Answer, Chats, Form, KAI};
use crate::kills::PATIENCE;
use crate::preload::Preload;

/// Groups that people write in.
const GROUPS: usize = 8;
/// Messages of one volley, and the time over which they are spread. The library writes its keys to the disk
/// 25 ms after it has decrypted a message, together with the keys of messages that it is working on then.
const MESSAGES: usize = 24;
const VOLLEY: Duration = Duration::from_millis(40);
/// The service lives at most this long after the first delivery.
const LIFE: Duration = Duration::from_millis(90);
/// The longest time that a flush to the disk takes during a volley. Up to 20 ms are usual on a rented server.
const FLUSH_MAX: Duration = Duration::from_millis(60);
/// How long the service may work on the rest of the last volley before the next one. Replies leave at the
/// pace of people, so they would pile up otherwise.
const REST: Duration = Duration::from_secs(10);

pub async fn run(kills: usize, mut chance: Chance) {
    let began = Instant::now();
    let preload = Preload::new();
    let mut chats = Chats::new(GROUPS).await;
    chats.place.environment.extend(preload.environment());
    chats.asks_at_once = true;
    for _ in 0..kills {
        let mut service = chats.place.spawn();
        chats.server.wait_until_online(KAI).await;
        chats.server.wait_until_settled(KAI).await;
        chats.wait_until_answered(REST).await;
        let before = chats.server.live_deliveries();
        let delays: Vec<Duration> = (0..MESSAGES).map(|_| VOLLEY.mul_f64(chance.random.random())).collect();
        let life = LIFE.mul_f64(chance.random.random());
        preload.set_longest_flush(FLUSH_MAX);
        let volley = delays.into_iter().map(async |delay| {
            sleep(delay).await;
            chats.ask_in(Form::Text, &chats.groups, Answer::Due).await;
        });
        let shot = async {
            chats.server.wait_for_live_delivery(before).await;
            sleep(life).await;
            service.kill().await.unwrap();
        };
        tokio::join!(join_all(volley), shot);
        preload.set_longest_flush(Duration::ZERO);
    }
    let _service = chats.place.spawn();
    let counts = chats.count(PATIENCE).await;
    let (seed, secs) = (chance.seed, began.elapsed().as_secs());
    chats.report(&format!("sniper: {kills} kills in {secs} s, seed {seed}"), &counts);
    chats.check_log();
}
