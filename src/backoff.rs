//! Exponential backoff: the pause before the next try, which doubles with each failure. Pure; the caller adds
//! jitter if many could try at once.

use std::time::Duration;

/// `first` after no doubling, twice as long with each, never longer than `longest`.
pub fn exponential_backoff(first: Duration, doublings: u32, longest: Duration) -> Duration {
    first.saturating_mul(2_u32.saturating_pow(doublings)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_doubles_up_to_the_longest() {
        let pause = |doublings| {
            exponential_backoff(Duration::from_millis(500), doublings, Duration::from_secs(3600)).as_millis()
        };
        assert_eq!([0, 1, 2, 3].map(pause), [500, 1_000, 2_000, 4_000]);
        assert_eq!(
            [12, 13, 31, 32, u32::MAX].map(pause),
            [2_048_000, 3_600_000, 3_600_000, 3_600_000, 3_600_000]
        );
        let short = exponential_backoff(Duration::from_secs(5), 0, Duration::from_secs(2));
        assert_eq!(short, Duration::from_secs(2));
        assert_eq!(exponential_backoff(Duration::MAX, 9, Duration::MAX), Duration::MAX);
    }
}
