//! Until when the replies of the outbox wait, for their next attempt or for WhatsApp's answer, and how old
//! they are.
//!
//! Pure, and by Tokio's clock, which nobody sets. The outbox keeps how long a wait is. When this run first
//! sees the wait, its end is fixed. So the wall clock matters only for a wait that an earlier run has begun,
//! and cannot make it longer than the outbox says.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::store::{DelayedReplies, RetryPause, SentReply};

/// The ends of all waits.
#[derive(Debug, Default)]
pub struct ReplyDeadlines {
    attempts: HashMap<i64, (RetryPause, Instant)>,
    answers: HashMap<i64, (SentReply, Instant)>,
}

impl ReplyDeadlines {
    /// Takes in what waits now, and forgets what does not wait any more.
    pub fn track_waiting_replies(&mut self, waiting: &DelayedReplies, wall: Timestamp, now: Instant) {
        let before = std::mem::take(&mut self.attempts);
        for &(row, put_off) in &waiting.put_off {
            let known = before.get(&row).copied().filter(|(known, _)| *known == put_off);
            self.attempts.insert(row, known.unwrap_or_else(|| (put_off, now + put_off.remaining_at(wall))));
        }
        let before = std::mem::take(&mut self.answers);
        for &sent in &waiting.unanswered {
            let known = before.get(&sent.row).copied().filter(|(known, _)| *known == sent);
            self.answers.insert(sent.row, known.unwrap_or_else(|| (sent, now + sent.answer_timeout())));
        }
    }

    /// When the next attempt at a reply is due. A reply may have been put off since the last look.
    pub fn attempt_due_at(
        &self,
        row: i64,
        put_off: Option<RetryPause>,
        wall: Timestamp,
        now: Instant,
    ) -> Instant {
        let Some(put_off) = put_off else { return now };
        match self.attempts.get(&row) {
            Some((known, due_at)) if *known == put_off => *due_at,
            Some(_) | None => now + put_off.remaining_at(wall),
        }
    }

    /// The replies whose answer takes too long, the oldest first.
    pub fn overdue_replies(&self, now: Instant) -> Vec<i64> {
        let mut overdue: Vec<i64> =
            self.answers.iter().filter(|(_, (_, at))| *at <= now).map(|(row, _)| *row).collect();
        overdue.sort_unstable();
        overdue
    }

    /// When the next answer will take too long.
    pub fn next_overdue_at(&self, now: Instant) -> Option<Instant> {
        self.answers.values().map(|(_, at)| *at).filter(|at| *at > now).min()
    }
}

/// A reply's age is known to this fraction of the limit, so that few marks are kept, whatever the limit is.
const MARKS_PER_LIMIT: u32 = 100;

/// When this run first saw its replies, so that it knows which of them are older than a limit.
#[derive(Debug)]
pub struct ReplyAges {
    limit: Duration,
    /// By this instant all replies up to this row were there. The oldest mark comes first.
    marks: VecDeque<(Instant, i64)>,
}

impl ReplyAges {
    pub fn new(limit: Duration) -> Self {
        Self { limit, marks: VecDeque::new() }
    }

    /// Takes note of the newest reply that is there.
    pub fn record_newest_reply(&mut self, newest: i64, now: Instant) {
        match self.marks.back_mut() {
            Some((by, row)) if now <= *by => *row = newest,
            Some(_) | None => self.marks.push_back((now + self.limit / MARKS_PER_LIMIT, newest)),
        }
        // Of the marks that are over the limit, only the newest is needed.
        while self.marks.get(1).is_some_and(|(by, _)| self.is_over_limit(*by, now)) {
            self.marks.pop_front();
        }
    }

    /// All replies up to this row are older than the limit, as far as is known.
    pub fn last_row_over_limit(&self, now: Instant) -> Option<i64> {
        self.marks.iter().rev().find(|(by, _)| self.is_over_limit(*by, now)).map(|(_, row)| *row)
    }

    fn is_over_limit(&self, by: Instant, now: Instant) -> bool {
        now.saturating_duration_since(by) > self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_reply_is_known_to_a_hundredth_of_the_limit() {
        let (began, minute) = (Instant::now(), Duration::from_secs(60));
        let limit = minute * 60 * 24;
        let mut ages = ReplyAges::new(limit);
        // One reply is written each minute, for ten days.
        for written in 0..60 * 24 * 10_u32 {
            let now = began + minute * written;
            ages.record_newest_reply(written.into(), now);
            assert!(ages.marks.len() <= 102, "{}", ages.marks.len());
            let Some(old) = ages.last_row_over_limit(now) else {
                assert!(written <= 60 * 24 + 15, "{written}");
                continue;
            };
            let age = minute * (written - u32::try_from(old).unwrap());
            assert!(age > limit && age <= limit + limit / MARKS_PER_LIMIT * 2 + minute, "{age:?}");
        }
    }

    #[test]
    fn a_long_silence_hides_no_reply_and_makes_none_older() {
        let (began, hour) = (Instant::now(), Duration::from_secs(60 * 60));
        let mut ages = ReplyAges::new(hour * 24);
        ages.record_newest_reply(5, began);
        assert_eq!(ages.last_row_over_limit(began + hour * 24), None);
        ages.record_newest_reply(6, began + hour);
        ages.record_newest_reply(7, began + hour * 30);
        assert_eq!(ages.last_row_over_limit(began + hour * 30), Some(6));
        assert_eq!(ages.last_row_over_limit(began + hour * 54), Some(6));
        assert_eq!(ages.last_row_over_limit(began + hour * 55), Some(7));
    }
}
