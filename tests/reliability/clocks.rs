//! The wall clock jumps while people write: forwards and backwards, while replies are on their way, and
//! between a kill and the next start. Replies must still come in time, measured by a clock that is never set.

use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::chance::Chance;
use crate::chats::{Chats, KAI};
use crate::kills::PATIENCE;
use crate::preload::Preload;

const GROUPS: usize = 4;
/// How long people write slowly before and after a jump, and the pause between two questions then.
const STRETCH: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(500);
/// Questions in each group at once, right before the jump. They cause more answers than may leave at once, so
/// some answers wait.
const VOLLEY: usize = 6;
/// The clock jumps at most this long after the volley.
const JUMP_WITHIN: Duration = Duration::from_millis(500);
/// How far ahead the clock is in seconds, after each jump.
const AHEAD_SECS: [i64; 8] = [-2 * 60 * 60, 0, 2 * 60 * 60, 0, 10 * 60, 0, -10 * 60, 0];
/// How late a reply may be.
const LATE_MAX: Duration = Duration::from_secs(10);

/// What happens to the service when the clock jumps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    Works,
    LosesItsConnection,
    IsKilled,
}

pub async fn run(jumps: usize, mut chance: Chance) {
    let began = Instant::now();
    let preload = Preload::new();
    let mut chats = Chats::new(GROUPS).await;
    chats.place.environment.extend(preload.environment());
    let mut service = chats.place.spawn();
    chats.server.wait_until_online(KAI).await;
    let mut back_at = Vec::new();
    for ahead in AHEAD_SECS.iter().cycle().take(jumps) {
        let meanwhile = [Meanwhile::Works, Meanwhile::LosesItsConnection, Meanwhile::IsKilled];
        let meanwhile = meanwhile[chance.random.random_range(..meanwhile.len())];
        chats.ask_for(STRETCH, PAUSE).await;
        for _ in 0..VOLLEY * GROUPS {
            chats.ask().await;
        }
        sleep(JUMP_WITHIN.mul_f64(chance.random.random())).await;
        match meanwhile {
            Meanwhile::Works => preload.set_clock_ahead(*ahead),
            Meanwhile::LosesItsConnection => {
                chats.server.drop_connection(KAI);
                chats.server.wait_until_offline(KAI).await;
                preload.set_clock_ahead(*ahead);
                chats.server.wait_until_online(KAI).await;
                back_at.push(Instant::now());
            }
            Meanwhile::IsKilled => {
                service.kill().await.unwrap();
                chats.server.wait_until_offline(KAI).await;
                preload.set_clock_ahead(*ahead);
                service = chats.place.spawn();
                chats.server.wait_until_online(KAI).await;
                back_at.push(Instant::now());
            }
        }
        chats.ask_for(STRETCH, PAUSE).await;
        // A chat is answered at the pace of people. An answer that is late only for this reason is not late
        // because of the clock, so wait for it here.
        chats.wait_until_answered(PATIENCE).await;
    }
    let counts = chats.count(PATIENCE).await;
    let mut late: Vec<(Duration, usize)> = chats
        .answered_at()
        .into_iter()
        .map(|(number, asked, answered)| (late(asked, answered, &back_at), number))
        .collect();
    late.sort();
    let latest = late.last().map_or(Duration::ZERO, |(late, _)| *late);
    let (seed, secs) = (chance.seed, began.elapsed().as_secs());
    let what = format!(
        "clocks: {jumps} jumps in {secs} s, seed {seed}, latest answer after {:.1} s",
        latest.as_secs_f64()
    );
    chats.report(&what, &counts);
    for (_, number) in late.iter().filter(|(late, _)| *late > LATE_MAX) {
        println!("{}", chats.trace(*number));
    }
    assert!(latest <= LATE_MAX, "an answer came too late");
    chats.check_log();
}

/// How long an answer took: from its question, or from the return of the service if it was away in between.
fn late(asked: Instant, heard: Instant, back_at: &[Instant]) -> Duration {
    let back = back_at.iter().find(|back| **back > asked && **back < heard);
    heard - *back.unwrap_or(&asked)
}
