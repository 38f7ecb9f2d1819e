//! nanokimi was away for days, and WhatsApp delivers everything at once.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::Event;

use crate::engine::Behaviour;
use crate::held::message;
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
    <message id="1" sender="Ana" time="Nov 22, 2026, 12:00 PM">@Kai shall we take an umbrella?</message>
    <message id="2" sender="Ana" time="Nov 22, 2026, 12:00 PM">we took one</message>
    <message id="3" sender="Ana" time="Nov 23, 2026, 11:59 AM">@Kai shall we eat out tonight?</message>
    <message id="4" sender="Ana" time="Nov 23, 2026, 12:00 PM">@Kai what is for lunch?</message>
    <message id="5" sender="Ana" time="Dec 29, 2027, 12:00 PM">@Kai and for dinner?</message>
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
