//! Records the end of a turn: its rows, its replies and its tokens, in one transaction.

use std::time::Duration;

use anyhow::Result;
use tokio::time::sleep;

use super::context::SessionContext;
use crate::store::{PendingAfterTurn, TurnEnding};

/// How often it is tried, and the pause in between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(2);

/// Records the end of a turn. A full or busy disk may have room a little later: the answer is worth some
/// patience.
pub async fn finish_turn_with_retry<C>(
    context: &SessionContext<C>,
    ending: &TurnEnding,
) -> Result<PendingAfterTurn> {
    let mut tries = 1;
    loop {
        let result = context.store.finish_turn(ending.clone(), context.clock.now()).await;
        match result {
            Err(error) if tries < TRIES => {
                tracing::warn!("Failed to finish a turn, trying again: {error:#}")
            }
            Ok(_) | Err(_) => return result,
        }
        tries += 1;
        sleep(PAUSE).await;
    }
}
