//! The wall clock, handed to whoever needs it. Stories anchor it to Tokio's clock, which they can pause.

use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep_until};

/// Where "now" comes from.
#[derive(Clone, Copy, Debug)]
pub enum Clock {
    System,
    /// `wall` was the time at `instant`; from there it goes as Tokio's clock goes.
    Anchored {
        wall: Timestamp,
        instant: Instant,
    },
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "the one place that reads the wall clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Timestamp::now(),
            Self::Anchored { wall, instant } => wall
                .saturating_add(SignedDuration::try_from(instant.elapsed()).unwrap_or(SignedDuration::MAX))
                .unwrap_or(Timestamp::MAX),
        }
    }
}

/// Waits for an instant that may never come.
pub async fn sleep_until_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
