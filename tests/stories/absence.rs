//! nanokimi was away for days, and then WhatsApp delivers everything at once.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::{Answer, Event, LinkState};
use nanokimi::types::ChatId;
use support::scripted_engine::Behaviour;
use support::test_service::message;

use crate::world::World;

const AWAY: &str = "Kai: I was away for a while and saw only now that you had called me. I have read it, but I do \
                    not answer anything this old; if it still matters, ask me again.";
const DAY: SignedDuration = SignedDuration::from_hours(24);

#[tokio::test(start_paused = true)]
async fn what_is_days_old_is_not_answered_the_chat_is_told_once_and_the_young_are_answered() {
    let mut world = World::new(Behaviour::Held).await;
    world.stop().await;
    world.passes(Duration::from_secs(3 * 24 * 60 * 60)).await;
    world.start().await;
    let now = world.now();
    let came = |id: &str, text: &str, sent_at| Event::Message(message("family", id, "Ana", text, sent_at));
    world
        .tells(vec![
            came("1", "@Kai shall we take an umbrella?", now - DAY * 2),
            came("2", "we took one", now - DAY * 2),
            came("3", "@Kai shall we eat out tonight?", now - DAY - SignedDuration::from_secs(1)),
            came("4", "@Kai what is for lunch?", now - DAY),
            // The sender's clock is ahead.
            came("5", "@Kai and for dinner?", now + DAY * 400),
        ])
        .await;
    assert_eq!(world.hears_in("family").await, AWAY);
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="1" sender="Ana" person="p1" time="Nov 22, 2026, 12:00 PM">@Kai shall we take an umbrella?</message>
    <message id="2" sender="Ana" person="p1" time="Nov 22, 2026, 12:00 PM">we took one</message>
    <message id="3" sender="Ana" person="p1" time="Nov 23, 2026, 11:59 AM">@Kai shall we eat out tonight?</message>
    <message id="4" sender="Ana" person="p1" time="Nov 23, 2026, 12:00 PM">@Kai what is for lunch?</message>
    <message id="5" sender="Ana" person="p1" time="Dec 29, 2027, 12:00 PM">@Kai and for dinner?</message>
    </messages>
    "#);
    turn.answer("Soup.");
    assert_eq!(world.hears_in("family").await, "Kai: Soup.");

    world.writes(message("family", "6", "Bob", "@Kai late", world.now() - DAY * 3)).await;
    world.silence(Duration::from_secs(24 * 60 * 60)).await;
    world.writes(message("family", "7", "Bob", "@Kai later still", world.now() - DAY * 3)).await;
    assert_eq!(world.hears_in("family").await, AWAY);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn old_talk_that_called_nobody_is_not_apologized_for() {
    let mut world = World::new(Behaviour::Held).await;
    world.writes(message("family", "1", "Ana", "good morning", world.now() - DAY * 5)).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_stored_before_days_without_the_host_is_not_answered_either() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "are you there?").await;
    world.says("main", "Owner", "hello?").await;
    world.prompt().await.step();
    world.kill().await;
    world.passes(Duration::from_secs(2 * 24 * 60 * 60)).await;
    world.start().await;
    assert_eq!(world.hears_in("main").await, AWAY);
    world.silence(Duration::from_secs(600)).await;
    world.says("main", "Owner", "and now?").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("are you there?") && turn.text.contains("and now?"), "{}", turn.text);
    turn.answer("Yes.");
    assert_eq!(world.hears_in("main").await, "Kai: Yes.");
    world.ends().await;
}

const TOO_OLD: &str = "Kai: I could not send some messages for more than 24 hours and have given them up, as they may \
                       make no sense any more: ";

#[tokio::test(start_paused = true)]
async fn a_reply_that_could_not_be_sent_for_days_is_not_sent_any_more_and_the_owner_is_told_once() {
    let mut world = World::new(Behaviour::Echo).await;
    world.link(LinkState::Connecting);
    for text in ["@Kai shall we take an umbrella?", "@Kai and boots?"] {
        world.says("family", "Ana", text).await;
        world.passes(Duration::from_secs(5)).await;
    }
    world.says("main", "Owner", "hello?").await;
    world.silence(Duration::from_secs(60)).await;
    world.kill().await;
    world.passes(Duration::from_secs(3 * 24 * 60 * 60)).await;
    world.start().await;
    let told = world.hears_in("main").await;
    assert_eq!(told, format!("{TOO_OLD}family (2), main (1). If they still matter, ask me again there."));
    let given_up = world.store.given_up_replies().await.unwrap();
    assert_eq!(given_up.len(), 3);
    assert_eq!(given_up[0].why, "older than 24 hours when it could have been sent");

    // The recent replies are said, and the old ones are not mentioned again.
    world.says("family", "Ana", "@Kai and now?").await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai and now?");
    world.stop().await;
    world.start().await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_same_goes_for_a_link_that_is_away_for_days_and_for_notices() {
    let mut world = World::new(Behaviour::Echo).await;
    world.link(LinkState::Connecting);
    // Delivery's first look may have begun with the link of before.
    world.passes(Duration::from_secs(1)).await;
    world.says("family", "Ana", "@Kai are you there?").await;
    let notice = world.now();
    world.store.notify_chat(&ChatId::new("main@g.us"), "Kai: a notice", notice).await.unwrap();
    world.passes(Duration::from_secs(25 * 60 * 60)).await;
    world.says("family", "Ana", "@Kai and now?").await;
    world.silence(Duration::from_secs(60)).await;
    world.link(LinkState::Online);
    let mut heard = [world.hears().await, world.hears().await];
    heard.sort_by(|one, other| one.group.cmp(&other.group));
    assert_eq!(heard[0].text, "Kai: echo: @Kai and now?");
    assert_eq!(
        heard[1].text,
        format!("{TOO_OLD}family (1), main (1). If they still matter, ask me again there.")
    );
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_a_chat_where_nothing_can_be_sent_the_owner_hears_once_a_day() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.hang("family");
    for hour in 0..72 {
        world.says("family", "Ana", &format!("@Kai {hour}")).await;
        world.passes(Duration::from_secs(60 * 60)).await;
    }
    let heard = world.stop_hearing().await;
    assert!(heard.iter().all(|heard| heard.group == "main"), "{heard:?}");
    let told: Vec<&str> = heard.iter().filter_map(|heard| heard.text.strip_prefix(TOO_OLD)).collect();
    let ask = "If they still matter, ask me again there.";
    // A reply that becomes too old at this very moment is counted the next time.
    let a_day_later = [24, 25].map(|replies| format!("family ({replies}). {ask}"));
    assert_eq!((told.len(), told[0]), (2, format!("family (1). {ask}").as_str()), "{told:?}");
    assert!(a_day_later.iter().any(|expected| told[1] == expected), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_came_back_with_a_restored_database_after_weeks_is_not_sent() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    world.says("family", "Ana", "@Kai hello").await;
    let heard = world.hears().await;
    assert_eq!(heard.text, "Kai: echo: @Kai hello");
    // WhatsApp has not yet confirmed it when the database is copied.
    world.kill().await;
    world.passes(Duration::from_secs(40 * 24 * 60 * 60)).await;
    world.start().await;
    let told = world.hears().await;
    assert_eq!((told.group.as_str(), told.text.starts_with(TOO_OLD)), ("main", true), "{told:?}");
    world.answers(&told.id, Answer::Acked).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_by_months_makes_nothing_old_that_was_just_written() {
    for days in [90, -90] {
        let mut world = World::new(Behaviour::Echo).await;
        world.link(LinkState::Connecting);
        world.says("family", "Ana", "@Kai hello").await;
        world.silence(Duration::from_secs(60)).await;
        world.sets_the_clock(DAY * days);
        world.link(LinkState::Online);
        assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai hello");
        world.ends().await;
    }
}
