//! Rate limits as token buckets: how often something may happen, at once and over a longer time. Pure: the
//! caller says what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// So many at once, then one after each pause.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    pub burst: u32,
    pub pause: Duration,
}

impl RateLimit {
    /// How far `full_at` may lie ahead while the bucket still holds a token.
    fn burst_tolerance(self) -> Duration {
        self.pause * (self.burst - 1)
    }
}

/// A bucket, kept as the time at which it will be full.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: RateLimit,
    full_at: Instant,
}

impl TokenBucket {
    pub fn new_full(rate: RateLimit, now: Instant) -> Self {
        Self { rate, full_at: now }
    }

    /// When it next holds a token.
    pub fn next_token_at(&self, now: Instant) -> Instant {
        self.full_at.checked_sub(self.rate.burst_tolerance()).map_or(now, |ready| ready.max(now))
    }

    pub fn take_token(&mut self, now: Instant) {
        self.full_at = self.full_at.max(now) + self.rate.pause;
    }

    /// Takes a token if there is one now.
    pub fn try_take_token(&mut self, now: Instant) -> bool {
        let is_ready = self.next_token_at(now) <= now;
        if is_ready {
            self.take_token(now);
        }
        is_ready
    }

    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_ten_a_second() {
        let began = Instant::now();
        let mut bucket =
            TokenBucket::new_full(RateLimit { burst: 100, pause: Duration::from_millis(100) }, began);
        let mut admitted = |after_millis, asked: u32| {
            let now = began + Duration::from_millis(after_millis);
            (0..asked).filter(|_| bucket.try_take_token(now)).count()
        };
        assert_eq!(admitted(0, 1_000), 100);
        assert_eq!(admitted(99, 1_000), 0);
        assert_eq!(admitted(100, 1_000), 1);
        assert_eq!(admitted(1_100, 1_000), 10);
        assert_eq!(admitted(1_100, 1_000), 0);
        assert_eq!(admitted(6_100, 20), 20);
        assert_eq!(admitted(6_100, 1_000), 30);
        assert_eq!(admitted(3_600_000, 1_000), 100, "rest is not saved up");
        assert_eq!(admitted(3_600_001, 1), 0);
    }
}
