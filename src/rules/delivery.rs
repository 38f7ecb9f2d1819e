//! What happens with a reply after an attempt to send it, after WhatsApp's answer, and if no answer comes.
//!
//! An attempt is counted before it is made, so `attempts` includes the attempt that has just ended.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::Rules;
use crate::backoff::exponential_backoff;
use crate::notices::{self, FileRefused};
use crate::types::GroupName;

/// Attempts before a reply is given up; with the pauses below this is a day and a half.
pub const SEND_ATTEMPTS: u32 = 40;
/// The same for a file. Its chat waits for it, and after a short time a sentence is better.
const FILE_ATTEMPTS: u32 = 5;
/// The first pause after a failed attempt. Each pause is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause, before its jitter.
const LONGEST_PAUSE: Duration = Duration::from_secs(60 * 60);
/// A pause is multiplied by one of these, so that chats do not all try at the same time.
pub const JITTER: Range<f64> = 1.0..1.25;

/// Attempts to write to a person whose devices have no keys, before the owner is told: an hour with the
/// pauses above.
pub const KEYLESS_ATTEMPTS_UNTOLD: u32 = 13;

/// How long WhatsApp may take to answer the first attempt. The time doubles with each attempt, up to an hour.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// WhatsApp's code for a message to a person that never wrote first.
const NOT_FIRST_TO_WRITE: u32 = 463;
/// WhatsApp's code for too many messages.
const TOO_MANY: u32 = 429;
/// How long a chat pauses after [`TOO_MANY`].
pub const REST: Duration = Duration::from_secs(60 * 60);

/// The owner is told the same trouble of the same chat at most once in this time.
const TELL_AGAIN: SignedDuration = SignedDuration::from_hours(24);

/// How an attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendResult {
    /// Handed over, in this form; WhatsApp's answer comes later.
    Sent { message: Vec<u8> },
    /// It was seen; no answer will come.
    Seen,
    /// The link was lost meanwhile: the attempt does not count.
    LinkLost,
    /// It must be tried again after a pause.
    Later(String),
    /// The same, and no other message could be read either: WhatsApp has no keys of the person's devices.
    NoKeys,
    /// Given up.
    Never(String),
}

/// What is known of a reply after an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TriedReply {
    pub attempts: u32,
    pub is_file: bool,
    /// Kai still serves its chat.
    pub is_served: bool,
    pub written_at: Timestamp,
}

/// What happens with a reply, with its chat and for the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyDecision {
    pub reply: ReplyFate,
    pub chat: ChatFate,
    pub owner_hears: Option<OwnerNews>,
}

/// What happens with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReplyFate {
    /// It waits for WhatsApp's answer.
    Sent,
    /// It was seen, and is finished.
    Seen,
    /// It waits as if there had been no attempt.
    Untried,
    /// It waits until a pause ends.
    Later { pause: Duration, error: String },
    /// A sentence replaces its file, and has its own attempts.
    BecomesText { error: String },
    /// WhatsApp has refused it.
    Refused { error: String },
    /// It will never be sent.
    Dead { error: String },
}

/// What happens with the other replies that wait in the same chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChatFate {
    GoesOn,
    /// Nothing is sent for this long.
    Rests(Duration),
    /// All of it is given up.
    Lost {
        error: String,
    },
}

/// What the owner is told about another chat, in the main channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChatTrouble {
    WriteForbidden,
    RateLimited,
    SlowSending,
    ReplyLost,
    UnreadableReply,
}

/// A trouble to tell the owner, unless the owner was told after this time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OwnerNews {
    pub trouble: ChatTrouble,
    pub unless_told_since: Timestamp,
}

impl ChatTrouble {
    /// The text for the main channel.
    pub fn notice(self, rules: &Rules, group: &GroupName) -> String {
        let sentence = match self {
            Self::WriteForbidden => notices::write_forbidden_notice,
            Self::RateLimited => notices::rate_limited_notice,
            Self::SlowSending => notices::slow_sending_notice,
            Self::ReplyLost => notices::reply_lost_notice,
            Self::UnreadableReply => notices::unreadable_reply_notice,
        };
        rules.prefix_notice(&sentence(rules.lang, group))
    }

    /// Told once a day.
    pub fn as_daily_news(self, now: Timestamp) -> OwnerNews {
        OwnerNews { trouble: self, unless_told_since: notice_repeat_cutoff(now) }
    }
}

/// If the owner was told before this time, the owner is told again.
pub fn notice_repeat_cutoff(now: Timestamp) -> Timestamp {
    now.saturating_sub(TELL_AGAIN).unwrap_or(Timestamp::MIN)
}

impl ReplyDecision {
    /// Only the reply is concerned.
    fn only(reply: ReplyFate) -> Self {
        Self { reply, chat: ChatFate::GoesOn, owner_hears: None }
    }

    /// It will never be seen, and the owner is told so.
    fn lost(reply: ReplyFate, now: Timestamp) -> Self {
        let owner_hears = Some(ChatTrouble::ReplyLost.as_daily_news(now));
        Self { owner_hears, ..Self::only(reply) }
    }
}

/// Decides what follows from the end of an attempt. After too many [`SendResult::Later`] the reply is given
/// up; a file is replaced by a sentence. `jitter` is one of [`JITTER`].
pub fn after_attempt(result: SendResult, tried: &TriedReply, jitter: f64, now: Timestamp) -> ReplyDecision {
    let limit = if tried.is_file { FILE_ATTEMPTS } else { SEND_ATTEMPTS };
    match result {
        SendResult::Sent { .. } => ReplyDecision::only(ReplyFate::Sent),
        SendResult::Seen => ReplyDecision::only(ReplyFate::Seen),
        SendResult::LinkLost => ReplyDecision::only(ReplyFate::Untried),
        SendResult::NoKeys => after_missing_keys(tried, jitter, now),
        SendResult::Later(error) if tried.attempts < limit => {
            ReplyDecision::only(ReplyFate::Later { pause: retry_backoff(tried.attempts, jitter), error })
        }
        SendResult::Later(error) | SendResult::Never(error) if tried.is_file && tried.is_served => {
            ReplyDecision::only(ReplyFate::BecomesText { error })
        }
        SendResult::Later(error) | SendResult::Never(error) => {
            ReplyDecision::lost(ReplyFate::Dead { error }, now)
        }
    }
}

/// The person's devices have no keys, so a sentence in place of a file could not be read either. The owner is
/// told once, long before the reply is given up.
fn after_missing_keys(tried: &TriedReply, jitter: f64, now: Timestamp) -> ReplyDecision {
    let error = "WhatsApp has no keys of this person's devices".to_owned();
    let owner_hears = (tried.attempts >= KEYLESS_ATTEMPTS_UNTOLD).then(|| OwnerNews {
        trouble: ChatTrouble::UnreadableReply,
        unless_told_since: tried.written_at.min(notice_repeat_cutoff(now)),
    });
    let reply = if tried.attempts < SEND_ATTEMPTS {
        ReplyFate::Later { pause: retry_backoff(tried.attempts, jitter), error }
    } else {
        ReplyFate::Dead { error }
    };
    ReplyDecision { owner_hears, ..ReplyDecision::only(reply) }
}

/// What follows if WhatsApp refuses a reply with this code.
pub fn after_refusal(code: u32, attempts: u32, now: Timestamp) -> ReplyDecision {
    let error = format!("WhatsApp refused it ({code})");
    match code {
        NOT_FIRST_TO_WRITE => ReplyDecision {
            chat: ChatFate::Lost { error: error.clone() },
            reply: ReplyFate::Refused { error },
            owner_hears: Some(ChatTrouble::WriteForbidden.as_daily_news(now)),
        },
        TOO_MANY if attempts < SEND_ATTEMPTS => ReplyDecision {
            chat: ChatFate::Rests(REST),
            reply: ReplyFate::Later { pause: REST, error },
            owner_hears: Some(ChatTrouble::RateLimited.as_daily_news(now)),
        },
        _ => ReplyDecision::lost(ReplyFate::Refused { error }, now),
    }
}

/// What follows if WhatsApp has not answered in time, or if the link is new.
pub fn after_silence(attempts: u32, now: Timestamp) -> ReplyDecision {
    if attempts >= SEND_ATTEMPTS {
        let error = "WhatsApp does not answer".to_owned();
        return ReplyDecision::lost(ReplyFate::Dead { error }, now);
    }
    let error = "WhatsApp did not answer".to_owned();
    ReplyDecision::only(ReplyFate::Later { pause: Duration::ZERO, error })
}

/// How long WhatsApp may take to answer after this many attempts.
pub fn answer_timeout(attempts: u32) -> Duration {
    exponential_backoff(ANSWER_LIMIT, attempts.saturating_sub(1), LONGEST_PAUSE)
}

/// The pause after this many attempts.
fn retry_backoff(attempts: u32, jitter: f64) -> Duration {
    exponential_backoff(FIRST_PAUSE, attempts.saturating_sub(1), LONGEST_PAUSE).mul_f64(jitter)
}

/// The sentence that replaces a file that WhatsApp does not accept.
pub fn file_not_sent_text(rules: &Rules, caption: &str) -> String {
    notices::file_not_sent_notice(rules.lang, &rules.reply_prefix, caption, FileRefused::NotTaken)
}

/// Why a reply that was too old is given up.
pub fn expired_reply_error(rules: &Rules) -> String {
    format!("older than {} hours when it could have been sent", answer_hours(rules))
}

/// What the owner is told of replies that were too old to be sent: how many, and in which groups.
pub fn expired_replies_notice(rules: &Rules, by_group: &BTreeMap<String, u64>) -> String {
    rules.prefix_notice(&notices::expired_replies_notice(rules.lang, answer_hours(rules), by_group))
}

fn answer_hours(rules: &Rules) -> u64 {
    rules.answer_within.as_secs() / 3600
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn tried(attempts: u32) -> TriedReply {
        TriedReply { attempts, is_file: false, is_served: true, written_at: NOW }
    }

    fn later(attempts: u32, jitter: f64) -> ReplyDecision {
        after_attempt(SendResult::Later("offline".to_owned()), &tried(attempts), jitter, NOW)
    }

    fn pause_of(decision: &ReplyDecision) -> Option<Duration> {
        match &decision.reply {
            ReplyFate::Later { pause, .. } => Some(*pause),
            ReplyFate::Sent
            | ReplyFate::Seen
            | ReplyFate::Untried
            | ReplyFate::BecomesText { .. }
            | ReplyFate::Refused { .. }
            | ReplyFate::Dead { .. } => None,
        }
    }

    #[test]
    fn the_pauses_double_up_to_an_hour_and_end_within_a_day_and_a_half() {
        let millis =
            [1, 2, 3, 13, 14, 39].map(|attempts| pause_of(&later(attempts, 1.0)).unwrap().as_millis());
        assert_eq!(millis, [500, 1_000, 2_000, 2_048_000, 3_600_000, 3_600_000]);
        let longest: Duration =
            (1..SEND_ATTEMPTS).filter_map(|attempts| pause_of(&later(attempts, 1.25))).sum();
        assert!(longest < Duration::from_secs(36 * 60 * 60), "{longest:?}");
        let lost = later(SEND_ATTEMPTS, 1.0);
        assert_eq!(lost.reply, ReplyFate::Dead { error: "offline".to_owned() });
        assert_eq!(lost.owner_hears, Some(ChatTrouble::ReplyLost.as_daily_news(NOW)));
    }

    #[test]
    fn pauses_grow_and_end() {
        for jitter in [JITTER.start, 1.249] {
            assert!(retry_backoff(1, jitter) >= FIRST_PAUSE && retry_backoff(1, jitter) < FIRST_PAUSE * 2);
            assert!(retry_backoff(3, jitter) >= FIRST_PAUSE * 4);
            assert!(retry_backoff(1_000, jitter) <= LONGEST_PAUSE * 2);
        }
    }

    #[test]
    fn a_file_soon_becomes_a_sentence_where_somebody_reads_it() {
        let failed = |attempts, is_served, result| {
            after_attempt(result, &TriedReply { is_file: true, is_served, ..tried(attempts) }, 1.0, NOW).reply
        };
        let error = || "no".to_owned();
        let becomes = ReplyFate::BecomesText { error: error() };
        assert!(matches!(failed(4, true, SendResult::Later(error())), ReplyFate::Later { .. }));
        assert_eq!(failed(5, true, SendResult::Later(error())), becomes);
        assert_eq!(failed(1, true, SendResult::Never(error())), becomes);
        assert_eq!(failed(1, false, SendResult::Never(error())), ReplyFate::Dead { error: error() });
        // A person without keys cannot read a sentence either.
        assert!(matches!(failed(20, true, SendResult::NoKeys), ReplyFate::Later { .. }));
    }

    #[test]
    fn of_missing_keys_the_owner_hears_after_an_hour_and_not_again_at_the_end() {
        let written_at = NOW - SignedDuration::from_hours(48);
        let failed = |attempts| {
            after_attempt(SendResult::NoKeys, &TriedReply { written_at, ..tried(attempts) }, 1.0, NOW)
        };
        assert_eq!(failed(12).owner_hears, None);
        let news = OwnerNews { trouble: ChatTrouble::UnreadableReply, unless_told_since: written_at };
        for attempts in [13, 39, 40] {
            assert_eq!(failed(attempts).owner_hears, Some(news), "since it was written, once");
        }
        assert!(matches!(failed(39).reply, ReplyFate::Later { .. }));
        assert!(matches!(failed(40).reply, ReplyFate::Dead { .. }));
    }

    #[test]
    fn what_whatsapp_refuses_concerns_the_chat_only_when_it_says_so() {
        let lost = "WhatsApp refused it (463)".to_owned();
        let forbidden = after_refusal(463, 1, NOW);
        assert_eq!(forbidden.reply, ReplyFate::Refused { error: lost.clone() });
        assert_eq!(forbidden.chat, ChatFate::Lost { error: lost });
        let too_many = after_refusal(429, 39, NOW);
        assert_eq!((pause_of(&too_many), &too_many.chat), (Some(REST), &ChatFate::Rests(REST)));
        for (code, attempts) in [(429, 40), (420, 1), (0, 1)] {
            let refused = after_refusal(code, attempts, NOW);
            assert!(matches!(refused.reply, ReplyFate::Refused { .. }), "{code}");
            assert_eq!(refused.chat, ChatFate::GoesOn, "{code}");
            assert_eq!(refused.owner_hears, Some(ChatTrouble::ReplyLost.as_daily_news(NOW)), "{code}");
        }
    }

    #[test]
    fn without_an_answer_it_is_sent_again_at_once_until_there_were_enough_attempts() {
        assert_eq!(pause_of(&after_silence(39, NOW)), Some(Duration::ZERO));
        assert!(matches!(after_silence(40, NOW).reply, ReplyFate::Dead { .. }));
        let minutes = [1, 2, 6, 7, 40].map(|attempts| answer_timeout(attempts).as_secs() / 60);
        assert_eq!(minutes, [1, 2, 32, 60, 60]);
    }

    fn result() -> impl Strategy<Value = SendResult> {
        prop_oneof![
            Just(SendResult::Sent { message: Vec::new() }),
            Just(SendResult::Seen),
            Just(SendResult::LinkLost),
            ".*".prop_map(SendResult::Later),
            Just(SendResult::NoKeys),
            ".*".prop_map(SendResult::Never),
        ]
    }

    proptest! {
        #[test]
        fn no_reply_is_tried_for_ever_and_none_is_lost_in_silence(
            result in result(), attempts: u32, is_file: bool, is_served: bool, jitter in JITTER,
        ) {
            let decision = after_attempt(
                result.clone(), &TriedReply { attempts, is_file, is_served, written_at: NOW }, jitter, NOW,
            );
            prop_assert_eq!(&decision.chat, &ChatFate::GoesOn);
            match &decision.reply {
                ReplyFate::Later { pause, .. } => {
                    prop_assert!(attempts < SEND_ATTEMPTS);
                    prop_assert!(FIRST_PAUSE <= *pause && *pause <= LONGEST_PAUSE.mul_f64(JITTER.end));
                }
                ReplyFate::Dead { .. } => prop_assert!(decision.owner_hears.is_some()),
                ReplyFate::BecomesText { .. } => prop_assert!(is_file && is_served),
                ReplyFate::Sent | ReplyFate::Seen | ReplyFate::Untried | ReplyFate::Refused { .. } => {
                    prop_assert!(!matches!(result, SendResult::Later(_) | SendResult::NoKeys | SendResult::Never(_)));
                }
            }
        }

        #[test]
        fn the_owner_hears_of_every_refusal(code: u32, attempts: u32) {
            let decision = after_refusal(code, attempts, NOW);
            prop_assert!(decision.owner_hears.is_some());
            let waits = matches!(decision.reply, ReplyFate::Later { .. });
            prop_assert_eq!(waits, matches!(decision.chat, ChatFate::Rests(_)));
            prop_assert!(!waits || attempts < SEND_ATTEMPTS);
        }
    }
}
