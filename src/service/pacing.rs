//! The rate limit of what is sent: WhatsApp mistrusts accounts that write faster than people do.
//!
//! Token buckets, two per chat and one for all. Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::rate::{RateLimit, TokenBucket};
use crate::types::ChatId;

/// In one chat: an answer of a few parts at once, then as fast as a person could read.
const PER_CHAT: RateLimit = RateLimit { burst: 4, pause: Duration::from_secs(1) };
/// In one chat, over a longer time: at most 240 in an hour. People ask for less, and read less. More comes of
/// a program that answers each answer, or of an agent that does not stop.
const PER_CHAT_LASTING: RateLimit = RateLimit { burst: 120, pause: Duration::from_secs(30) };
/// In all chats together.
const OVERALL: RateLimit = RateLimit { burst: 20, pause: Duration::from_millis(100) };

/// What was sent lately.
#[derive(Debug)]
pub struct SendRateLimiter {
    overall: TokenBucket,
    /// The chats of which a bucket is not full.
    chats: HashMap<ChatId, ChatBuckets>,
}

#[derive(Clone, Copy, Debug)]
struct ChatBuckets {
    brief: TokenBucket,
    lasting: TokenBucket,
    /// The owner was told that the chat has used up what it may say over a longer time.
    is_slowness_told: bool,
}

impl ChatBuckets {
    fn all_full(now: Instant) -> Self {
        let (brief, lasting) =
            (TokenBucket::new_full(PER_CHAT, now), TokenBucket::new_full(PER_CHAT_LASTING, now));
        Self { brief, lasting, is_slowness_told: false }
    }
}

/// Why a chat has to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitReason {
    /// For a moment, in which a person would have to type.
    Brief,
    /// So much was sent that the rest comes slowly.
    Lasting,
    /// The same, and the owner was not told of it yet.
    LastingUntold,
}

impl SendRateLimiter {
    pub fn new(now: Instant) -> Self {
        Self { overall: TokenBucket::new_full(OVERALL, now), chats: HashMap::new() }
    }

    /// When a message may leave for this chat: now or later.
    pub fn ready_at(&self, chat: &ChatId, now: Instant) -> Instant {
        let chat = self
            .chats
            .get(chat)
            .map_or(now, |chat| chat.brief.next_token_at(now).max(chat.lasting.next_token_at(now)));
        chat.max(self.overall.next_token_at(now))
    }

    /// Why a message for this chat has to wait. The caller tells the owner.
    pub fn take_wait_reason(&mut self, chat: &ChatId, now: Instant) -> WaitReason {
        match self.chats.get_mut(chat) {
            Some(chat) if chat.lasting.next_token_at(now) > now => {
                let was_told = std::mem::replace(&mut chat.is_slowness_told, true);
                if was_told { WaitReason::Lasting } else { WaitReason::LastingUntold }
            }
            Some(_) | None => WaitReason::Brief,
        }
    }

    /// A message leaves now.
    pub fn record_send(&mut self, chat: &ChatId, now: Instant) {
        self.chats.retain(|_, chat| !chat.lasting.is_full(now));
        self.overall.take_token(now);
        let chat = self.chats.entry(chat.clone()).or_insert(ChatBuckets::all_full(now));
        chat.brief.take_token(now);
        chat.lasting.take_token(now);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chat(number: usize) -> ChatId {
        ChatId::new(format!("{number}@g.us"))
    }

    /// When so many messages leave, each as early as it may, in seconds after the beginning.
    fn as_fast_as_possible(messages: usize, chat_of: impl Fn(usize) -> ChatId) -> Vec<f32> {
        let began = Instant::now();
        let (mut now, mut pacing, mut left) = (began, SendRateLimiter::new(began), Vec::new());
        for message in 0..messages {
            let chat = chat_of(message);
            now = pacing.ready_at(&chat, now);
            pacing.record_send(&chat, now);
            left.push((now - began).as_secs_f32());
        }
        left
    }

    #[test]
    fn a_chat_gets_four_at_once_and_then_one_a_second() {
        let left = as_fast_as_possible(7, |_| chat(0));
        assert_eq!(left, [0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0]);
    }

    #[test]
    fn all_chats_together_get_twenty_at_once_and_then_ten_a_second() {
        let left = as_fast_as_possible(22, chat);
        assert_eq!(left[..20], [0.0; 20]);
        assert_eq!(left[20..], [0.1, 0.2]);
    }

    #[test]
    fn who_was_quiet_may_say_four_again() {
        let began = Instant::now();
        let mut pacing = SendRateLimiter::new(began);
        (0..4).for_each(|_| pacing.record_send(&chat(0), began));
        assert!(pacing.ready_at(&chat(0), began) > began);
        let later = began + Duration::from_secs(4);
        for _ in 0..4 {
            assert_eq!(pacing.ready_at(&chat(0), later), later);
            pacing.record_send(&chat(0), later);
        }
        assert!(pacing.ready_at(&chat(0), later) > later);
    }

    #[test]
    fn a_chat_that_says_much_goes_on_with_two_a_minute_which_is_told_once() {
        let left = as_fast_as_possible(124, |_| chat(0));
        // While the first 120 leave, one a second, four more become due.
        assert_eq!(left[119..], [116.0, 117.0, 118.0, 119.0, 120.0]);
        let left = as_fast_as_possible(126, |_| chat(0));
        assert_eq!(left[123..], [120.0, 150.0, 180.0]);

        let began = Instant::now();
        let (mut now, mut pacing) = (began, SendRateLimiter::new(began));
        let mut reasons = Vec::new();
        for _ in 0..130 {
            let ready_at = pacing.ready_at(&chat(0), now);
            if ready_at > now {
                reasons.push(pacing.take_wait_reason(&chat(0), now));
            }
            now = ready_at;
            pacing.record_send(&chat(0), now);
        }
        reasons.dedup();
        assert_eq!(reasons, [WaitReason::Brief, WaitReason::LastingUntold, WaitReason::Lasting]);
        assert_eq!(pacing.take_wait_reason(&chat(1), now), WaitReason::Brief, "others are not slowed down");
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_sees_more_than_its_share(
            wishes in prop::collection::vec((0_usize..5, 0_u64..2_000), 1..200),
        ) {
            let began = Instant::now();
            let (mut now, mut pacing) = (began, SendRateLimiter::new(began));
            let mut left: Vec<(usize, Instant)> = Vec::new();
            for (number, pause_millis) in wishes {
                now += Duration::from_millis(pause_millis);
                now = pacing.ready_at(&chat(number), now);
                prop_assert_eq!(pacing.ready_at(&chat(number), now), now, "what is ready at a time is ready then");
                pacing.record_send(&chat(number), now);
                left.push((number, now));
            }
            prop_assert!(pacing.chats.len() <= 5);
            let within = |from: Instant, to: Instant, rate: RateLimit| {
                u128::from(rate.burst) + (to - from).as_millis() / rate.pause.as_millis()
            };
            for (first, &(number, from)) in left.iter().enumerate() {
                for last in first..left.len() {
                    let to = left[last].1;
                    let all = last - first + 1;
                    let own = left[first..=last].iter().filter(|(other, _)| *other == number).count();
                    prop_assert!(all as u128 <= within(from, to, OVERALL));
                    prop_assert!(own as u128 <= within(from, to, PER_CHAT));
                    prop_assert!(own as u128 <= within(from, to, PER_CHAT_LASTING));
                }
            }
        }
    }
}
