//! The bodies of the container's requests: held whole until they are answered, so that they can be sent
//! again.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use hyper::body::{Body as _, Incoming};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// Largest request body in bytes: a long history with some photos in it stays below.
pub const BODY_MAX: usize = 32 * 1024 * 1024;
/// Most bytes of bodies that are held for one group at a time; further bodies wait. Engines send a few at
/// once, each far below [`BODY_MAX`].
const HELD_MAX: usize = 2 * BODY_MAX;
/// How much is read of the body of a refused request: twice what is let through.
const DISCARD_MAX: usize = 2 * BODY_MAX;
/// How long a body may be silent, and how long it may wait for its part of the budget: so nothing holds the
/// budget without sending.
const QUIET_TIMEOUT: Duration = Duration::from_secs(60);
/// The budget is shared out in pieces of this many bytes, as a semaphore counts in 32 bits.
const PIECE: usize = 1024;

/// The budget for the bodies of one group.
#[derive(Clone, Debug)]
pub struct BodyBudget(Arc<Semaphore>);

/// A whole body, and its part of the budget.
#[derive(Debug)]
pub struct BufferedBody {
    pub bytes: Bytes,
    _permit: OwnedSemaphorePermit,
}

/// Why a body was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyRejection {
    /// Longer than [`BODY_MAX`].
    TooLong,
    /// The engine hung up, fell silent, or does not speak HTTP.
    Broken,
    /// Others held the whole budget for long.
    NoRoom,
}

impl Default for BodyBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(HELD_MAX / PIECE)))
    }
}

impl BodyBudget {
    /// Reads a body to its end; waits for its part of the budget first.
    pub async fn buffer_body(&self, body: Incoming) -> Result<BufferedBody, BodyRejection> {
        let declared = body.size_hint().upper().and_then(|length| usize::try_from(length).ok());
        if declared.is_some_and(|length| length > BODY_MAX) {
            discard_body(body).await;
            return Err(BodyRejection::TooLong);
        }
        let needed = declared.unwrap_or(BODY_MAX).div_ceil(PIECE);
        let pieces = u32::try_from(needed).unwrap_or(u32::MAX);
        let permit = timeout(QUIET_TIMEOUT, Arc::clone(&self.0).acquire_many_owned(pieces)).await;
        let Ok(Ok(mut permit)) = permit else {
            discard_body(body).await;
            return Err(BodyRejection::NoRoom);
        };
        let mut bytes = BytesMut::with_capacity(declared.unwrap_or_default());
        let mut stream = Body::new(body).into_data_stream();
        while let Some(piece) =
            timeout(QUIET_TIMEOUT, stream.next()).await.map_err(|_| BodyRejection::Broken)?
        {
            let piece = piece.map_err(|_| BodyRejection::Broken)?;
            if bytes.len() + piece.len() > BODY_MAX {
                discard_body_stream(stream).await;
                return Err(BodyRejection::TooLong);
            }
            bytes.extend_from_slice(&piece);
        }
        // Of a body that had not said its length, the rest of its part is free again.
        let spare = permit.num_permits().saturating_sub(bytes.len().div_ceil(PIECE));
        drop(permit.split(spare));
        Ok(BufferedBody { bytes: bytes.freeze(), _permit: permit })
    }
}

/// Reads a body to its end, within bounds: an engine that is still writing would not see the answer before
/// its connection breaks (measured with kimi-cli 1.51.0).
pub async fn discard_body(body: Incoming) {
    discard_body_stream(Body::new(body).into_data_stream()).await;
}

async fn discard_body_stream(mut pieces: BodyDataStream) {
    let mut discarded: usize = 0;
    while let Ok(Some(Ok(piece))) = timeout(QUIET_TIMEOUT, pieces.next()).await {
        discarded = discarded.saturating_add(piece.len());
        if discarded > DISCARD_MAX {
            return;
        }
    }
}
