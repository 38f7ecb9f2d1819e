//! What the rows of `outbox` hold, as delivery and its callers see it.

use std::time::Duration;

use jiff::Timestamp;

use super::super::{RowId, from_unix_millis};
use crate::rules::delivery::answer_timeout;
use crate::types::{ChatId, GroupName, MessageId, SenderId, UsageChart};

/// Between the ids of a row's mentions.
pub(super) const MENTIONS_BETWEEN: &str = " ";

/// The first reply that waits in its chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueReply {
    pub row: i64,
    pub chat: ChatId,
    /// The group of the chat, unless it was removed since.
    pub group: Option<GroupName>,
    /// The group whose agent wrote it, if one did: a file is in its folder.
    pub author: Option<GroupName>,
    pub id: MessageId,
    pub content: ReplyContent,
    pub quote: Option<QuotedMessage>,
    /// After how many seconds messages of this chat disappear, if they do.
    pub expires_secs: Option<u32>,
    pub put_off: Option<RetryPause>,
    pub written_at: Timestamp,
    /// How often it was tried before.
    pub attempts: u32,
    /// Of a file that was handed over before: the message, so that it need not be uploaded again.
    pub message: Option<Vec<u8>>,
}

/// A pause before the next attempt: how long, and what the wall clock showed when it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPause {
    pub(super) at: Timestamp,
    pub(super) pause: Duration,
}

impl RetryPause {
    /// What is left of the pause for a caller that sees it first at `now`: never more than the whole of it,
    /// and nothing if the clock was set back since, as nobody knows how much has passed.
    pub fn remaining_at(&self, now: Timestamp) -> Duration {
        let passed = Duration::try_from(now.duration_since(self.at));
        passed.map_or(Duration::ZERO, |passed| self.pause.saturating_sub(passed))
    }

    pub(super) fn from_columns(at: Option<i64>, pause_millis: Option<i64>) -> Option<Self> {
        let pause = Duration::from_millis(pause_millis?.try_into().unwrap_or_default());
        Some(Self { at: from_unix_millis(at?), pause })
    }
}

/// What waits for a time to come, as far as the outbox knows. How long that still is, the waiting task has to
/// keep: a wall clock that is set would shorten or lengthen it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DelayedReplies {
    /// Replies that wait for their next attempt, by row.
    pub put_off: Vec<(i64, RetryPause)>,
    /// Replies that wait for WhatsApp's answer, the oldest first.
    pub unanswered: Vec<SentReply>,
}

/// A reply that was handed over and that WhatsApp has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentReply {
    pub row: i64,
    pub attempts: u32,
}

impl SentReply {
    /// How long its answer may take after the latest attempt.
    pub fn answer_timeout(self) -> Duration {
        answer_timeout(self.attempts)
    }
}

/// What a reply consists of, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyContent {
    Text {
        text: String,
        mentions: Vec<SenderId>,
    },
    /// `path` is relative to the group's folder, as the agent wrote it: it must not be trusted when it is
    /// opened.
    File {
        path: String,
        caption: String,
    },
    /// The picture is drawn when it is sent.
    UsageChart {
        chart: UsageChart,
        caption: String,
    },
    /// On the message in [`DueReply::quote`].
    Reaction {
        emoji: String,
    },
}

/// The message that a reply answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotedMessage {
    pub id: MessageId,
    pub sender: SenderId,
    pub text: String,
}

/// Something to be said in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub content: ReplyContent,
    /// The row of the message that it answers and quotes; a reaction needs one.
    pub to: Option<RowId>,
}

impl Reply {
    pub fn from_text(text: impl Into<String>) -> Self {
        Self { content: ReplyContent::Text { text: text.into(), mentions: Vec::new() }, to: None }
    }
}

/// Whether an attempt may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendAttempt {
    /// It is counted.
    Begins,
    /// The reply does not wait any more, or not yet.
    Overtaken,
}

/// Which replies are older than an answer may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleCutoff {
    /// All up to this row.
    pub newest_stale: i64,
    /// And of those up to this row, which an earlier run has left, the ones that were written before this
    /// time.
    pub newest_left_over: i64,
    pub written_before: Timestamp,
}

impl StaleCutoff {
    pub fn is_stale_reply(&self, reply: &DueReply) -> bool {
        let is_left_over = reply.row <= self.newest_left_over && reply.written_at < self.written_before;
        (reply.row <= self.newest_stale || is_left_over) && !reply.chat.is_console_chat()
    }
}

/// A reply that nobody will see. Never its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenUp {
    /// Nothing if the group was removed since.
    pub group: Option<GroupName>,
    pub written_at: Timestamp,
    pub why: String,
}
