//! What a chat sees while a turn runs: typing, and after a while a short line, three at most.

use std::time::Duration;

use tokio::time::Instant;

/// WhatsApp hides "typing…" by itself after 10 to 25 s.
const TYPING_EVERY: Duration = Duration::from_secs(8);
/// When the progress lines are due, counted from the turn's beginning.
const PROGRESS_AFTER: [Duration; 3] =
    [Duration::from_secs(45), Duration::from_secs(3 * 60), Duration::from_secs(10 * 60)];

/// Something to show now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressUpdate {
    Typing,
    /// The progress line of this number, counted from 1.
    Progress(u32),
}

/// What one turn shows, and when.
#[derive(Debug)]
pub struct ProgressSchedule {
    began: Instant,
    typing_at: Instant,
    progress_shown: usize,
}

impl ProgressSchedule {
    pub fn new(now: Instant) -> Self {
        Self { began: now, typing_at: now, progress_shown: 0 }
    }

    /// When there is something to show next.
    pub fn next_update_at(&self) -> Instant {
        match PROGRESS_AFTER.get(self.progress_shown) {
            Some(after) => self.typing_at.min(self.began + *after),
            None => self.typing_at,
        }
    }

    /// What to show now, if anything. Counts it as shown.
    pub fn take_due_update(&mut self, now: Instant) -> Option<ProgressUpdate> {
        if let Some(after) = PROGRESS_AFTER.get(self.progress_shown)
            && self.began + *after <= now
        {
            self.progress_shown += 1;
            return u32::try_from(self.progress_shown).ok().map(ProgressUpdate::Progress);
        }
        if self.typing_at <= now {
            self.typing_at = now + TYPING_EVERY;
            return Some(ProgressUpdate::Typing);
        }
        None
    }

    pub fn minutes_since_start(&self, now: Instant) -> u64 {
        now.duration_since(self.began).as_secs() / 60
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_hour_long_turn_shows_three_lines_and_keeps_typing() {
        let mut progress = ProgressSchedule::new(Instant::now());
        let (mut lines, mut typing) = (Vec::new(), 0);
        while Instant::now() < progress.began + Duration::from_secs(3600) {
            tokio::time::sleep_until(progress.next_update_at()).await;
            match progress.take_due_update(Instant::now()) {
                Some(ProgressUpdate::Progress(nth)) => lines.push((nth, progress.began.elapsed().as_secs())),
                Some(ProgressUpdate::Typing) => typing += 1,
                None => panic!("woken for nothing"),
            }
        }
        assert_eq!(lines, [(1, 45), (2, 180), (3, 600)]);
        assert!(typing >= 360, "typing must be refreshed at least every 10 s, was {typing} times");
    }
}
