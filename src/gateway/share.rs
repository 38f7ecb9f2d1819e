//! The gateway's share of what Kimi serves at once: chats come first, so the rest is kept for agents.

use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::error_format::GatewayError;

/// Requests to the model at a time, until their answers have ended: of the 30 that Kimi allows an account, ten are
/// left for the chats, which is as many as there are agents by default.
pub const SHARE: usize = 20;
/// Requests that wait for a place; further ones are refused at once.
pub const WAITING_MAX: usize = 40;
/// How long one waits: clients give up a request that does not begin within some minutes.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// When a client that was refused is to try again: an answer takes some seconds to end.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(10);

/// The places of all clients together.
#[derive(Debug)]
pub struct GatewayShare {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

/// One place; free again when it is dropped.
#[derive(Debug)]
pub struct ShareSlot {
    _permit: OwnedSemaphorePermit,
}

impl GatewayShare {
    pub fn new() -> Self {
        Self { running: Arc::new(Semaphore::new(SHARE)), waiting: Semaphore::new(WAITING_MAX) }
    }

    /// Waits for a place, behind those that asked before.
    ///
    /// # Errors
    /// Too many wait already, or none came free in time.
    pub async fn take_slot(&self) -> Result<ShareSlot, GatewayError> {
        if let Ok(permit) = Arc::clone(&self.running).try_acquire_owned() {
            return Ok(ShareSlot { _permit: permit });
        }
        let Ok(_waits) = self.waiting.try_acquire() else {
            let why = format!(
                "{SHARE} requests are being answered and {WAITING_MAX} wait, which is all that the gateway takes."
            );
            return Err(GatewayError::new(StatusCode::TOO_MANY_REQUESTS, why).retry_after(TRY_AGAIN_AFTER));
        };
        match timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(ShareSlot { _permit: permit }),
            Ok(Err(_)) | Err(_) => {
                let why = format!(
                    "{SHARE} other requests are being answered, and none ended within {} s.",
                    WAIT_MAX.as_secs()
                );
                Err(GatewayError::new(StatusCode::SERVICE_UNAVAILABLE, why).retry_after(TRY_AGAIN_AFTER))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_beyond_the_share_waits_and_what_is_beyond_the_queue_is_refused() {
        let share = Arc::new(GatewayShare::new());
        let mut running = Vec::new();
        for _ in 0..SHARE {
            running.push(share.take_slot().await.unwrap());
        }
        let waiting: Vec<_> = (0..WAITING_MAX)
            .map(|_| {
                let share = Arc::clone(&share);
                tokio::spawn(async move { share.take_slot().await })
            })
            .collect();
        tokio::task::yield_now().await;
        let began = Instant::now();
        let refused = share.take_slot().await.unwrap_err();
        assert_eq!(
            (refused.status.as_u16(), refused.retry_after, began.elapsed()),
            (429, Some(TRY_AGAIN_AFTER), Duration::ZERO)
        );
        // One answer ends: the first that waits goes on.
        running.pop();
        let mut served = 0;
        let mut given_up = 0;
        for waits in waiting {
            match waits.await.unwrap() {
                Ok(slot) => {
                    running.push(slot);
                    served += 1;
                }
                Err(error) => {
                    assert_eq!(error.status.as_u16(), 503);
                    given_up += 1;
                }
            }
        }
        assert_eq!((served, given_up, began.elapsed()), (1, WAITING_MAX - 1, WAIT_MAX));
    }
}
