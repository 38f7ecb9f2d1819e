//! How fast one door may open connections to the web. Pure: told what time it is.

use std::time::Duration;

use tokio::time::Instant;

/// Connections at once: a page with all that belongs to it, or a package manager's start.
pub const BURST: u32 = 100;
/// The time that each one costs, so ten a second after that. A port stays taken for a minute after its connection has ended;
/// so one door takes 700 of the 28,000 that a machine has for all.
pub const EACH: Duration = Duration::from_millis(100);

/// A token bucket.
#[derive(Debug, Default)]
pub struct Rate {
    /// The connections so far are paid for by then.
    paid: Option<Instant>,
}

impl Rate {
    /// Whether another connection may be opened now; if so, it is counted.
    pub fn admits(&mut self, now: Instant) -> bool {
        let paid = self.paid.map_or(now, |paid| paid.max(now)) + EACH;
        let is_admitted = paid <= now + EACH * BURST;
        if is_admitted {
            self.paid = Some(paid);
        }
        is_admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_ten_a_second() {
        let (mut rate, began) = (Rate::default(), Instant::now());
        let mut admitted = |after_millis, asked: u32| {
            let now = began + Duration::from_millis(after_millis);
            (0..asked).filter(|_| rate.admits(now)).count()
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
