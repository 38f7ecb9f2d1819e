//! A message in, an answer out.

use std::time::Duration;

use nanokimi::bridge::{SendError, Typing};
use support::scripted_engine::Behaviour;
use support::test_service::message;

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn kai_answers_who_calls_him_and_knows_what_was_said_before() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Alice", "shall we go to the beach?").await;
    world.silence(Duration::from_secs(60)).await;
    world.says("family", "Bob", "@Kai what do you think?").await;

    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m1" sender="Alice" person="p1" time="Nov 21, 2026, 12:00 PM">shall we go to the beach?</message>
    <message id="m2" sender="Bob" person="p2" time="Nov 21, 2026, 12:01 PM">@Kai what do you think?</message>
    </messages>
    "#);
    turn.answer("**Yes!** <internal>they like it</internal>");
    assert_eq!(world.hears_in("family").await, "Kai: *Yes!*");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn marks_that_only_turn_the_direction_are_no_letters_of_a_name() {
    let mut world = World::new(Behaviour::Echo).await;
    for call in ["\u{200f}@Kai مرحبا", "@Kai\u{200f}", "@\u{2068}Kai\u{2069} hello", "❤\u{fe0f}@Kai"] {
        world.says("family", "Ana", call).await;
        assert_eq!(world.hears_in("family").await, format!("Kai: echo: {call}"));
    }
    world.says("family", "Ana", "@K\u{200f}ai hello").await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_in_an_address_or_in_code_calls_nobody() {
    let mut world = World::new(Behaviour::Echo).await;
    for text in
        ["https://medium.com/@kai/post-1", "t.me/@kai", "foo.@kai.example", "`@Kai`", "```\n@Kai\n```"]
    {
        world.says("family", "Ana", text).await;
        world.silence(Duration::from_secs(60)).await;
    }
    world.says("family", "Ana", "https://medium.com/@ana/post-1 @Kai summarize this").await;
    let said = world.hears_in("family").await;
    assert_eq!(said, "Kai: echo: https://medium.com/@ana/post-1 @Kai summarize this");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_main_channel_needs_no_trigger() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("main", "Owner", "are you there?").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: are you there?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn answering_one_of_kais_messages_calls_him_and_quoting_others_does_not() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("family", "Alice", "@Kai hello").await;
    let answer = world.hears().await;
    assert_eq!(answer.text, "Kai: echo: @Kai hello");

    world.quotes("family", "Bob", "and me?", &answer).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: and me?");

    let mut elsewhere = answer.clone();
    elsewhere.id = "somebody-elses".to_owned();
    world.quotes("family", "Bob", "not for Kai", &elsewhere).await;
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_that_comes_twice_is_answered_once() {
    let mut world = World::new(Behaviour::Echo).await;
    let twice = message("main", "same", "Owner", "once", world.now());
    world.writes(twice.clone()).await;
    world.writes(twice.clone()).await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: once");
    world.writes(twice).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn kai_does_not_answer_himself() {
    let mut world = World::new(Behaviour::Echo).await;
    world.says("main", "Owner", "hello").await;
    let own = world.hears().await;
    world.writes(message("main", &own.id, "Owner", &own.text, world.now())).await;
    world.silence(Duration::from_secs(600)).await;
    // A text that only looks like one of his own is a message like any other.
    world.says("main", "Owner", "Kai: hello").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: Kai: hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_are_neither_answered_nor_stored() {
    let mut world = World::new(Behaviour::Echo).await;
    world.writes(message("stranger", "m1", "Mallory", "@Kai hello", world.now())).await;
    world.silence(Duration::from_secs(60)).await;
    world.add_group("stranger", nanokimi::types::Role::Member).await;
    world.says("stranger", "Mallory", "@Kai now?").await;
    assert_eq!(world.hears_in("stranger").await, "Kai: echo: @Kai now?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_only_thoughts_is_not_sent() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "ok").await;
    world.prompt().await.answer("<internal>nothing to say");
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_comes_in_order() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "tell me a story").await;
    let story: String = (0..1_500).map(|n| format!("word{n} ")).collect();
    world.prompt().await.answer(&story);
    let mut heard = String::new();
    while heard.split_whitespace().count() < 1_500 {
        let part = world.hears_in("main").await;
        assert!(part.chars().count() <= 4_000, "{}", part.chars().count());
        heard.push_str(part.strip_prefix("Kai: ").expect("every part says who speaks"));
        heard.push(' ');
    }
    assert!(heard.split_whitespace().eq(story.split_whitespace()));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn typing_is_shown_until_the_answer_is_there() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "think").await;
    let turn = world.prompt().await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    turn.answer("done");
    world.hears_in("main").await;
    let typing = world.chats.typing();
    let on = typing.iter().filter(|(_, shown)| *shown == Typing::On).count();
    assert!((5..=6).contains(&on), "{typing:?}");
    assert_eq!(typing.last(), Some(&("main".to_owned(), Typing::Off)));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_turn_says_three_times_that_it_goes_on() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "work hard").await;
    let turn = world.prompt().await;
    let began = world.seconds();
    for after in [45, 180, 600] {
        let line = world.hears_in("main").await;
        assert!(line.starts_with("Kai: "), "{line}");
        assert_eq!(world.seconds() - began, after, "{line}");
    }
    world.silence(Duration::from_secs(15 * 60)).await;
    turn.answer("done");
    assert_eq!(world.hears_in("main").await, "Kai: done");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_cannot_be_sent_now_is_sent_later_with_the_same_id_and_in_order() {
    let mut world = World::new(Behaviour::Echo).await;
    for _ in 0..5 {
        world.chats.refuse_next(SendError::Later("not connected".to_owned()));
    }
    world.says("main", "Owner", "first").await;
    world.silence(Duration::from_secs(5)).await;
    world.says("main", "Owner", "second").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: first");
    assert_eq!(world.hears_in("main").await, "Kai: echo: second");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_can_never_be_sent_is_given_up_and_counted() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.refuse_next(SendError::Never("no such chat".to_owned()));
    world.says("main", "Owner", "lost").await;
    world.silence(Duration::from_secs(600)).await;
    world.says("main", "Owner", "found").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: found");
    assert_eq!(world.store.queue_counts().await.unwrap().dead, 1);
    world.ends().await;
}
