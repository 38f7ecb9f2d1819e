//! Somebody sets the server's clock, or it is set after a boot. It makes no chat wait longer, and no text is
//! said twice.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::{Answer, HandedOver, LinkState, SendError};
use nanokimi::types::{
    Author, DeviceKind, Event, MessageId, Outage, Receipt, ReceiptKind, UnreadableMessage,
};
use support::scripted_engine::Behaviour;
use support::test_service::{chat, phone};

use crate::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// By how many minutes the clock is changed.
const SET_BY_MINUTES: [i64; 6] = [120, -120, 10, -10, 60 * 24 * 400, -60 * 24 * 400];

/// Each story is told once for each way to set the clock.
async fn each_way(story: impl AsyncFn(World, SignedDuration)) {
    for minutes in SET_BY_MINUTES {
        story(World::new(Behaviour::Echo).await, SignedDuration::from_mins(minutes)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_for_the_link_is_sent_as_soon_as_there_is_one() {
    each_way(async |mut world, by| {
        world.link(LinkState::Connecting);
        world.says("main", "Owner", "hello").await;
        world.silence(Duration::from_secs(60)).await;
        world.sets_the_clock(by);
        let back = world.seconds();
        world.link(LinkState::Online);
        assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
        assert!(world.seconds() - back < 10, "{by}: {}", world.seconds() - back);
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn also_a_service_that_has_run_for_days_takes_no_young_reply_for_an_old_one() {
    each_way(async |mut world, by| {
        world.silence(HOUR * 30).await;
        world.link(LinkState::Connecting);
        world.says("main", "Owner", "hello").await;
        world.silence(Duration::from_secs(60)).await;
        world.sets_the_clock(by);
        world.link(LinkState::Online);
        assert_eq!(world.hears_in("main").await, "Kai: echo: hello", "{by}");
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_gets_too_old_to_be_sent_whatever_the_clock_says() {
    each_way(async |mut world, by| {
        world.silence(HOUR * 30).await;
        world.link(LinkState::Connecting);
        world.says("family", "Ana", "@Kai hello").await;
        world.silence(HOUR * 20).await;
        world.sets_the_clock(by);
        world.silence(HOUR * 5).await;
        world.link(LinkState::Online);
        let told = world.hears_in("main").await;
        assert!(told.contains("for more than 24 hours") && told.contains("family (1)"), "{by}: {told}");
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_written_before_and_after_comes_in_order_and_at_once() {
    each_way(async |mut world, by| {
        for text in ["one", "two", "three"] {
            let asked = world.seconds();
            world.says("main", "Owner", text).await;
            world.sets_the_clock(by);
            assert_eq!(world.hears_in("main").await, format!("Kai: echo: {text}"));
            assert!(world.seconds() - asked < 10, "{by}: {}", world.seconds() - asked);
        }
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_as_long_as_it_was_meant() {
    each_way(async |mut world, by| {
        let refusals = 9;
        for _ in 0..refusals {
            world.chats.refuse_next(SendError::Later("WhatsApp is busy".to_owned()));
        }
        let asked = world.seconds();
        world.says("main", "Owner", "hello").await;
        // The first pause is half a second, and each pause is twice as long as the one before: the eighth has
        // begun.
        world.silence(Duration::from_secs(100)).await;
        world.sets_the_clock(by);
        assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
        let took = world.seconds() - asked;
        assert!((255..=330).contains(&took), "{by}: {took}");
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_message_at_the_bridge_is_taken_as_sent_and_not_sent_again() {
    each_way(async |mut world, by| {
        world.chats.hang("main");
        world.says("main", "Owner", "hello").await;
        let stuck = world.stuck().await;
        world.sets_the_clock(by);
        let id = stuck.id.to_string();
        stuck.outcome.send(Ok(HandedOver::Sent)).unwrap();
        world.passes(Duration::from_secs(5)).await;
        let counts = world.store.queue_counts().await.unwrap();
        assert_eq!((counts.unsent, counts.unanswered), (0, 1), "{by}");
        world.answers(&id, Answer::Acked).await;
        world.silence(HOUR * 3).await;
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn whatsapps_answer_is_waited_for_as_long_as_ever() {
    each_way(async |mut world, by| {
        world.chats.leave_unacknowledged();
        world.says("main", "Owner", "hello").await;
        let heard = world.hears().await;
        for seconds in [60, 120] {
            let before = world.seconds();
            world.passes(Duration::from_secs(30)).await;
            world.sets_the_clock(by);
            assert_eq!(world.hears().await, heard);
            assert_eq!(world.seconds() - before, seconds, "{by}");
        }
        world.answers(&heard.id, Answer::Acked).await;
        world.silence(HOUR * 3).await;
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_rests_for_an_hour_whatever_the_clock_says() {
    each_way(async |mut world, by| {
        world.chats.leave_unacknowledged();
        world.says("family", "Ana", "@Kai hello").await;
        let refused = world.hears().await;
        world.says("family", "Ana", "@Kai and more").await;
        let more = world.hears().await;
        world.answers(&refused.id, Answer::Nacked { code: 429 }).await;
        let rests = world.seconds();
        let told = world.hears().await;
        assert!(told.text.contains("waits for an hour"), "{}", told.text);
        for id in [&told.id, &more.id] {
            world.answers(id, Answer::Acked).await;
        }
        world.silence(HOUR / 2).await;
        world.sets_the_clock(by);
        let heard = world.hears().await;
        assert_eq!(heard, refused);
        assert!((3_600..3_610).contains(&(world.seconds() - rests)), "{by}: {}", world.seconds() - rests);
        world.answers(&heard.id, Answer::Acked).await;
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_start_at_another_time_sends_at_once_what_was_never_put_off() {
    for minutes in [120, -120, 10, -10, -60 * 24 * 400] {
        let mut world = World::new(Behaviour::Echo).await;
        world.link(LinkState::Connecting);
        world.says("main", "Owner", "hello").await;
        world.silence(Duration::from_secs(60)).await;
        world.kill().await;
        world.sets_the_clock(SignedDuration::from_mins(minutes));
        let started = world.seconds();
        world.start().await;
        assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
        assert!(world.seconds() - started < 10, "{minutes}: {}", world.seconds() - started);
        // The clock is set right a little later, and again no chat waits.
        world.sets_the_clock(SignedDuration::from_mins(-minutes));
        let asked = world.seconds();
        world.says("main", "Owner", "and now?").await;
        assert_eq!(world.hears_in("main").await, "Kai: echo: and now?");
        assert!(world.seconds() - asked < 10, "{minutes}: {}", world.seconds() - asked);
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_start_at_another_time_never_waits_longer_than_the_pause_that_was_left() {
    for minutes in [120, -120, 10, -10] {
        let mut world = World::new(Behaviour::Echo).await;
        for _ in 0..8 {
            world.chats.refuse_next(SendError::Later("WhatsApp is busy".to_owned()));
        }
        world.says("main", "Owner", "hello").await;
        // A pause of 64 s to 80 s has begun.
        world.silence(Duration::from_secs(90)).await;
        world.kill().await;
        world.sets_the_clock(SignedDuration::from_mins(minutes));
        let started = world.seconds();
        world.start().await;
        assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
        assert!(world.seconds() - started < 80, "{minutes}: {}", world.seconds() - started);
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_with_the_first_answer_and_the_next_is_told_again() {
    each_way(async |mut world, by| {
        for round in 0..2 {
            world.store.begin_outage(Outage::Refused, "Kai: an outage", world.now()).await.unwrap();
            world.says("family", "Ana", &format!("@Kai {round}")).await;
            world.sets_the_clock(by);
            let mut heard = [world.hears().await, world.hears().await];
            heard.sort_by(|one, other| one.group.cmp(&other.group));
            assert_eq!(heard[0].text, format!("Kai: echo: @Kai {round}"), "{by}: {heard:?}");
            assert_eq!(heard[1].text, "Kai: an outage");
            assert_eq!(world.store.open_outages().await.unwrap(), [], "{by}");
            // The owner is told of the same trouble at most once an hour.
            world.passes(HOUR * 4).await;
        }
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_is_asked_for_and_told_in_time() {
    each_way(async |mut world, by| {
        let noticed = world.seconds();
        world
            .tells(vec![Event::Unread(UnreadableMessage {
                chat: chat("family"),
                id: MessageId::new("1"),
                sender: phone("Ana"),
                sender_name: "Ana".to_owned(),
                sent_at: world.now(),
                author: Author::Somebody,
                handle: b"1".to_vec(),
            })])
            .await;
        world.passes(Duration::from_secs(5)).await;
        world.sets_the_clock(by);
        world.passes(Duration::from_secs(40)).await;
        assert_eq!(world.chats.asked_again().len(), 1, "{by}");
        let told = world.hears_in("family").await;
        assert_eq!(told, "Kai: I could not read a message of Ana. Please send it again.");
        assert!(world.seconds() - noticed <= 11 * 60, "{by}: {}", world.seconds() - noticed);
        world.silence(HOUR * 24).await;
        world.ends().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_a_phone_cannot_read_is_sealed_anew_in_time_and_the_owner_is_told_once() {
    each_way(async |mut world, by| {
        world.chats.leave_unacknowledged();
        world.says("family", "Ana", "@Kai hello").await;
        let heard = world.hears().await;
        world.answers(&heard.id, Answer::Acked).await;
        world.chats.loses_keys(&phone("Ana"));
        let receipt = Receipt {
            id: MessageId::new(&heard.id),
            person: phone("Ana"),
            device: DeviceKind::Phone,
            kind: ReceiptKind::Retry,
        };
        let suspected = world.seconds();
        world.tells(vec![Event::Receipt(receipt)]).await;
        // The library has two minutes to answer by itself.
        world.passes(Duration::from_secs(60)).await;
        world.sets_the_clock(by);
        for (minute, repairs) in [(3, 1), (13, 2), (63, 3)] {
            world.passes(Duration::from_secs(suspected + minute * 60 - world.seconds())).await;
            assert_eq!(world.chats.repaired().len(), repairs, "{by} {minute}");
        }
        let told = world.hears().await;
        assert_eq!(told.group, "main");
        assert!(world.seconds() - suspected <= 74 * 60, "{by}: {}", world.seconds() - suspected);
        world.answers(&told.id, Answer::Acked).await;
        world.silence(HOUR * 20).await;
        world.ends().await;
    })
    .await;
}
