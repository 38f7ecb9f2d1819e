//! Until when the replies of the outbox wait: for their next attempt, or for WhatsApp's answer.
//!
//! Pure, and by Tokio's clock, which nobody sets. The outbox keeps how long a wait is; when it is seen here first, its end is
//! fixed. So the wall clock matters only for a wait that an earlier run has begun, and even that is never longer than as a
//! whole.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::store::{PutOff, SentReply, Waiting};

/// The ends of all waits.
#[derive(Debug, Default)]
pub struct Deadlines {
    attempts: HashMap<i64, (PutOff, Instant)>,
    answers: HashMap<i64, (SentReply, Instant)>,
}

impl Deadlines {
    /// Takes in what waits now; what does not wait any more is forgotten.
    pub fn take(&mut self, waiting: &Waiting, wall: Timestamp, now: Instant) {
        let before = std::mem::take(&mut self.attempts);
        for &(row, put_off) in &waiting.put_off {
            let known = before.get(&row).copied().filter(|(known, _)| *known == put_off);
            self.attempts.insert(row, known.unwrap_or_else(|| (put_off, now + put_off.left(wall))));
        }
        let before = std::mem::take(&mut self.answers);
        for &sent in &waiting.unanswered {
            let known = before.get(&sent.row).copied().filter(|(known, _)| *known == sent);
            self.answers.insert(sent.row, known.unwrap_or_else(|| (sent, now + sent.answer_limit())));
        }
    }

    /// When the next attempt at a reply is due. One that was put off since the last look is seen first here.
    pub fn due_at(&self, row: i64, put_off: Option<PutOff>, wall: Timestamp, now: Instant) -> Instant {
        let Some(put_off) = put_off else { return now };
        match self.attempts.get(&row) {
            Some((known, due_at)) if *known == put_off => *due_at,
            Some(_) | None => now + put_off.left(wall),
        }
    }

    /// The replies whose answer takes too long, the oldest first.
    pub fn overdue(&self, now: Instant) -> Vec<i64> {
        let mut overdue: Vec<i64> =
            self.answers.iter().filter(|(_, (_, at))| *at <= now).map(|(row, _)| *row).collect();
        overdue.sort_unstable();
        overdue
    }

    /// When the next answer will take too long.
    pub fn next_overdue(&self, now: Instant) -> Option<Instant> {
        self.answers.values().map(|(_, at)| *at).filter(|at| *at > now).min()
    }
}
