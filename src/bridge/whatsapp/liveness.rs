//! How long the line to WhatsApp has been open or closed, and when that is too long. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::outbound::SendGate;

/// How long nothing may come in before the connection counts as dead. The library asks for a sign of life
/// every 30 s and reconnects by itself if none comes. It does not if that loop itself has ended, which was
/// seen.
const SILENCE_MAX: Duration = Duration::from_secs(3 * 60);
/// How long the line may stay closed while the library reports no failure of its own.
const AWAY_MAX: Duration = Duration::from_secs(5 * 60);
/// How long it may stay closed while the library retries after failures: its backoff grows to a quarter of an
/// hour, and to that at once if WhatsApp says that we ask too often. Beginning anew would forget that.
const BACK_OFF_MAX: Duration = Duration::from_secs(20 * 60);

/// The line of one run of the library.
#[derive(Debug)]
pub struct Liveness {
    gate: SendGate,
    since: Instant,
    /// How long it was open before, if it ever was.
    before: Option<Duration>,
}

impl Liveness {
    pub fn new_closed(now: Instant) -> Self {
        Self { gate: SendGate::Closed, since: now, before: None }
    }

    pub fn send_gate(&self) -> SendGate {
        self.gate
    }

    pub fn mark_open(&mut self, now: Instant) {
        if self.gate == SendGate::Closed {
            (self.gate, self.since) = (SendGate::Open, now);
        }
    }

    pub fn mark_closed(&mut self, now: Instant) {
        if self.gate == SendGate::Open {
            *self = Self { gate: SendGate::Closed, since: now, before: self.online_time(now) };
        }
    }

    /// It is about to open: the patience begins anew.
    pub fn restart_patience(&mut self, now: Instant) {
        if self.gate == SendGate::Closed {
            self.since = now;
        }
    }

    /// How long the line was open, if it ever was.
    pub fn online_time(&self, now: Instant) -> Option<Duration> {
        match self.gate {
            SendGate::Open => Some(self.before.unwrap_or_default() + now.duration_since(self.since)),
            SendGate::Closed => self.before,
        }
    }

    /// Whether the library has to be started anew. `failures` counts those in a row that it tries to get
    /// over.
    pub fn is_dead(&self, now: Instant, silence: Duration, failures: u32) -> bool {
        let away = now.duration_since(self.since);
        match (self.gate, failures) {
            (SendGate::Open, _) => silence > SILENCE_MAX,
            (SendGate::Closed, 0) => away > AWAY_MAX,
            (SendGate::Closed, _) => away > BACK_OFF_MAX,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);
    const NO_SILENCE: Duration = Duration::ZERO;

    #[test]
    fn only_the_time_online_counts_as_such() {
        let start = Instant::now();
        let mut liveness = Liveness::new_closed(start);
        liveness.mark_closed(start + MINUTE);
        assert_eq!(liveness.online_time(start + 5 * MINUTE), None);
        liveness.mark_open(start + 5 * MINUTE);
        liveness.mark_open(start + 6 * MINUTE);
        assert_eq!(liveness.online_time(start + 7 * MINUTE), Some(2 * MINUTE));
        liveness.mark_closed(start + 7 * MINUTE);
        assert_eq!(liveness.online_time(start + 60 * MINUTE), Some(2 * MINUTE));
        liveness.mark_open(start + 60 * MINUTE);
        assert_eq!(liveness.online_time(start + 61 * MINUTE), Some(3 * MINUTE));
    }

    #[test]
    fn a_closed_line_is_begun_anew_unless_the_library_waits_on_purpose() {
        let start = Instant::now();
        let mut liveness = Liveness::new_closed(start);
        for (minutes, failures, dead) in
            [(5, 0, false), (6, 0, true), (6, 1, false), (16, 9, false), (21, 9, true)]
        {
            assert_eq!(liveness.is_dead(start + minutes * MINUTE, NO_SILENCE, failures), dead, "{minutes}");
        }
        liveness.restart_patience(start + 10 * MINUTE);
        assert!(!liveness.is_dead(start + 15 * MINUTE, NO_SILENCE, 0));
        liveness.mark_open(start + 15 * MINUTE);
        liveness.restart_patience(start + 20 * MINUTE);
        assert_eq!(liveness.online_time(start + 20 * MINUTE), Some(5 * MINUTE));
        assert!(!liveness.is_dead(start + 60 * MINUTE, 3 * MINUTE, 0));
        assert!(liveness.is_dead(start + 60 * MINUTE, 4 * MINUTE, 0));
    }
}
