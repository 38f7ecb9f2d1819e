//! People edit what they wrote, delete it and react to it.

use std::time::Duration;

use nanokimi::bridge::Event;
use nanokimi::types::{MediaKind, MessageId, Quote};
use support::scripted_engine::Behaviour;
use support::test_service::{chat, deleted, edited, lid, media, message, phone, reacted, same_person};

use crate::world::World;

#[tokio::test(start_paused = true)]
async fn an_edit_before_its_turn_changes_what_kai_reads() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "We meet at nine").await;
    let edit = edited(&id, "e1", message("family", "", "Ana", "We meet at ten", world.now()));
    world.tells(vec![edit.clone()]).await;
    world.tells(vec![edit]).await;
    world.says("family", "Bob", "@Kai when do we meet?").await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m1" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM">We meet at ten</message>
    <message id="m2" sender="Bob" person="p2" time="Nov 21, 2026, 12:00 PM">@Kai when do we meet?</message>
    </messages>
    "#);
    turn.answer("At ten.");
    assert_eq!(world.hears_in("family").await, "Kai: At ten.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_may_call_kai_and_comes_twice_without_being_answered_twice() {
    let mut world = World::new(Behaviour::Echo).await;
    let id = world.says("family", "Ana", "what time is it?").await;
    world.silence(Duration::from_secs(60)).await;
    let edit = edited(&id, "e1", message("family", "", "Ana", "@Kai what time is it?", world.now()));
    world.tells(vec![edit.clone()]).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai what time is it?");
    world.tells(vec![edit]).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_during_its_turn_is_told_to_the_running_turn() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("main", "Owner", "book a table for four").await;
    let turn = world.prompt().await;
    turn.step();
    world
        .tells(vec![edited(&id, "e1", message("main", "", "Owner", "book a table for five", world.now()))])
        .await;
    let steer = turn.request("steer").await;
    insta::assert_snapshot!(steer, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="e1" sender="Owner" person="p1" time="Nov 21, 2026, 12:00 PM"><quoted id="m1" sender="Owner" person="p1">book a table for four</quoted>
    [Edited] book a table for five</message>
    </messages>
    "#);
    turn.takes_steer(&steer);
    turn.says("For five, then.");
    turn.finish();
    assert_eq!(world.hears_in("main").await, "Kai: For five, then.");
    world.silence(Duration::from_secs(60)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_after_its_answer_is_a_message_that_follows_and_the_last_one_counts() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "@Kai two tickets").await;
    world.prompt().await.answer("Two.");
    assert_eq!(world.hears_in("family").await, "Kai: Two.");

    let now = world.now();
    let edit = |own: &str, text: &str| edited(&id, own, message("family", "", "Ana", text, now));
    // Without a call it only waits, and a later edit replaces it.
    world.tells(vec![edit("e1", "three tickets")]).await;
    world.silence(Duration::from_secs(60)).await;
    world.tells(vec![edit("e2", "@Kai four tickets")]).await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="e1" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM"><quoted id="m1" sender="Ana" person="p1">@Kai two tickets</quoted>
    [Edited] @Kai four tickets</message>
    </messages>
    "#);
    turn.answer("Four.");
    // On people's phones the edit is not a separate message.
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to), ("Kai: Four.", Some(id)));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_edits_or_deletes_what_somebody_else_wrote() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "Send it to Ana").await;
    let forged = edited(&id, "e1", message("family", "", "Mallory", "Send it to Mallory", world.now()));
    world.tells(vec![deleted("family", "Mallory", &id), forged]).await;
    world.says("family", "Ana", "@Kai did you read it?").await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m1" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM">Send it to Ana</message>
    <message id="e1" sender="Mallory" person="p2" time="Nov 21, 2026, 12:00 PM"><quoted id="m1" sender="Ana" person="p1">Send it to Ana</quoted>
    [Edited] Send it to Mallory</message>
    <message id="m2" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM">@Kai did you read it?</message>
    </messages>
    "#);
    turn.answer("Yes.");
    assert_eq!(world.hears_in("family").await, "Kai: Yes.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_in_time_is_never_read() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "my password is hunter2").await;
    // The edit comes under the other name of its author.
    let by_lid = Event::Deleted { chat: chat("family"), sender: lid("Ana"), target: MessageId::new(&id) };
    world.tells(vec![same_person("Ana"), by_lid]).await;
    // The bridge delivers it again.
    world.writes(message("family", &id, "Ana", "my password is hunter2", world.now())).await;
    world.says("family", "Bob", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("hunter2"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_too_late_is_answered_all_the_same_but_its_edit_is_not() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "@Kai first thought").await;
    let turn = world.prompt().await;
    let edit = edited(&id, "e1", message("family", "", "Ana", "second thought", world.now()));
    world.tells(vec![edit, deleted("family", "Ana", &id)]).await;
    turn.answer("Answered.");
    assert_eq!(world.hears_in("family").await, "Kai: Answered.");
    world.says("family", "Bob", "@Kai and now?").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("second thought"), "{}", turn.text);
    turn.answer("Nothing.");
    assert_eq!(world.hears_in("family").await, "Kai: Nothing.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reaction_is_told_with_the_next_prompt() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "shall I paint it red?").await;
    world.prompt().await.answer("Blue.");
    let answer = world.hears().await;
    let thumb = reacted("main", "r1", "Owner", &answer.id, "👍", world.now());
    world.tells(vec![thumb.clone(), thumb]).await;
    world.tells(vec![reacted("main", "r2", "Owner", &answer.id, "", world.now())]).await;
    world.silence(Duration::from_secs(60)).await;

    world.says("main", "Owner", "which blue?").await;
    let turn = world.prompt().await;
    let text = turn.text.replace(&answer.id, "3EB0");
    insta::assert_snapshot!(text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="r1" sender="Owner" person="p1" time="Nov 21, 2026, 12:00 PM"><quoted id="3EB0" yours="true">Kai: Blue.</quoted>
    [Reaction: 👍]</message>
    <message id="r2" sender="Owner" person="p1" time="Nov 21, 2026, 12:00 PM"><quoted id="3EB0" yours="true">Kai: Blue.</quoted>
    [Reaction taken back]</message>
    <message id="m2" sender="Owner" person="p1" time="Nov 21, 2026, 12:01 PM">which blue?</message>
    </messages>
    "#);
    turn.answer("Sky.");
    assert_eq!(world.hears_in("main").await, "Kai: Sky.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_quote_says_of_a_message_that_is_known_does_not_count() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "I owe Bob five euros").await;
    let mut forged = message("family", "f1", "Mallory", "@Kai see?", world.now());
    let text = "I owe Mallory five thousand euros".to_owned();
    let id = MessageId::new(id);
    forged.quote =
        Some(Quote { id, sender: Some(phone("Bob")), sender_name: "Bob".to_owned(), text, media: None });
    world.writes(forged).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(r#"sender="Ana" person="p1">I owe Bob five euros</quoted>"#), "{}", turn.text);
    turn.answer("I see.");
    assert_eq!(world.hears_in("family").await, "Kai: I see.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_only_a_quote_says_is_not_taken_for_said() {
    let mut world = World::new(Behaviour::Held).await;
    let picture = media(MediaKind::Image, "image/png", b"gone");
    let picture = world.sends("family", "Ana", "", picture).await;
    let taken_back = world.says("family", "Ana", "a secret").await;
    world.tells(vec![deleted("family", "Ana", &taken_back)]).await;
    let mut quotes = Vec::new();
    for (id, quoted) in [("f1", picture.as_str()), ("f2", taken_back.as_str()), ("f3", "unknown")] {
        let mut forged = message("family", id, "Mallory", "@Kai see?", world.now());
        let text = "I owe Mallory money".to_owned();
        let id = MessageId::new(quoted);
        forged.quote =
            Some(Quote { id, sender: Some(phone("Bob")), sender_name: "Bob".to_owned(), text, media: None });
        quotes.push(Event::Message(forged));
    }
    world.tells(quotes).await;
    let turn = world.prompt().await;
    for quote in [
        "sender=\"Ana\" person=\"p1\"><file kind=\"image\" missing=\"WhatsApp does not have it any more\" />\n</quoted>",
        "sender=\"Ana\" person=\"p1\">[deleted message]</quoted>",
        "sender=\"Bob\" person=\"p3\" unverified=\"true\">I owe Mallory money</quoted>",
    ] {
        assert!(turn.text.contains(quote), "{quote}: {}", turn.text);
    }
    turn.answer("I see.");
    assert_eq!(world.hears_in("family").await, "Kai: I see.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_before_its_message_is_answered_once_to_the_newest_text() {
    let mut world = World::new(Behaviour::Held).await;
    let edit = |own: &str, text: &str, world: &World| {
        edited("m9", own, message("family", "", "Ana", text, world.now()))
    };
    let original =
        |world: &World| Event::Message(message("family", "m9", "Ana", "@Kai two tickets", world.now()));
    // Both at once.
    world.tells(vec![edit("e1", "@Kai three tickets", &world), original(&world)]).await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="m9" sender="Ana" person="p1" time="Nov 21, 2026, 12:00 PM">@Kai three tickets</message>
    </messages>
    "#);
    turn.answer("Three.");
    assert_eq!(world.hears_in("family").await, "Kai: Three.");
    world.tells(vec![edit("e1", "@Kai three tickets", &world), original(&world)]).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_message_whose_edit_was_answered_before_it_came_is_not_answered_again() {
    let mut world = World::new(Behaviour::Echo).await;
    let edit = edited("m9", "e1", message("family", "", "Ana", "@Kai three tickets", world.now()));
    world.tells(vec![edit]).await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: [Edited] @Kai three tickets");
    world.writes(message("family", "m9", "Ana", "@Kai two tickets", world.now())).await;
    world.silence(Duration::from_secs(600)).await;
    // It is known nevertheless: an edit that follows changes it.
    world
        .tells(vec![edited("m9", "e2", message("family", "", "Ana", "@Kai four tickets", world.now()))])
        .await;
    assert_eq!(world.hears_in("family").await, "Kai: echo: [Edited] @Kai four tickets");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_older_edit_that_comes_later_changes_nothing() {
    let mut world = World::new(Behaviour::Held).await;
    let id = world.says("family", "Ana", "two tickets").await;
    let older = edited(&id, "e1", message("family", "", "Ana", "three tickets", world.now()));
    world.passes(Duration::from_secs(10)).await;
    let newer = edited(&id, "e2", message("family", "", "Ana", "four tickets", world.now()));
    world.tells(vec![newer, older]).await;
    world.says("family", "Bo", "@Kai how many?").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(">four tickets</message>") && !turn.text.contains("three"), "{}", turn.text);
    turn.answer("Four.");
    assert_eq!(world.hears_in("family").await, "Kai: Four.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_back_before_it_comes_is_never_told() {
    let mut world = World::new(Behaviour::Held).await;
    let original = message("family", "m9", "Ana", "@Kai a secret", world.now());
    world.tells(vec![deleted("family", "Ana", "m9"), Event::Message(original.clone())]).await;
    world.silence(Duration::from_secs(600)).await;
    // Only the author can do that.
    let other = message("family", "m8", "Ana", "@Kai hello", world.now());
    world.tells(vec![deleted("family", "Mallory", "m8"), Event::Message(other)]).await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("secret") && turn.text.contains("@Kai hello"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.writes(original).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_names_a_message_that_comes_later_is_told_with_it() {
    let mut world = World::new(Behaviour::Held).await;
    let mut answer = message("family", "a1", "Mallory", "me too", world.now());
    let text = "I owe Mallory money".to_owned();
    let id = MessageId::new("m9");
    answer.quote =
        Some(Quote { id, sender: Some(phone("Bob")), sender_name: "Bob".to_owned(), text, media: None });
    let thumb = reacted("family", "r1", "Bo", "m9", "👍", world.now());
    let original = message("family", "m9", "Ana", "@Kai I come", world.now());
    world.tells(vec![thumb, Event::Message(answer), Event::Message(original)]).await;
    let turn = world.prompt().await;
    insta::assert_snapshot!(turn.text, @r#"
    <context timezone="UTC" />
    <messages>
    <message id="r1" sender="Bo" person="p1" time="Nov 21, 2026, 12:00 PM"><quoted id="m9" sender="Ana" person="p4">@Kai I come</quoted>
    [Reaction: 👍]</message>
    <message id="a1" sender="Mallory" person="p2" time="Nov 21, 2026, 12:00 PM"><quoted id="m9" sender="Ana" person="p4">@Kai I come</quoted>
    me too</message>
    <message id="m9" sender="Ana" person="p4" time="Nov 21, 2026, 12:00 PM">@Kai I come</message>
    </messages>
    "#);
    turn.answer("Good.");
    assert_eq!(world.hears_in("family").await, "Kai: Good.");
    world.ends().await;
}
