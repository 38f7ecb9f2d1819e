//! What only the owner can allow or answer: they are asked in the main channel, and answer that message.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::Event;
use nanokimi::types::{
    ChatId, DirectChatPolicy, Forwarded, IncomingMessage, MediaKind, MessageId, Quote, SenderId,
};
use serde_json::json;
use support::scripted_engine::{Behaviour, HeldPrompt};
use support::test_service::{self, Heard, message, reacted};

use crate::commands::linked;
use crate::world::World;

const MINUTE: Duration = Duration::from_secs(60);
const QUESTION: &str = "Kai: May I send this to “Friends (friends@g.us)”, a chat that I do not serve?
> Kai: The party is on Friday.
Reply to this message with yes or no, or put 👍 or 👎 on it, within 10 minutes.";
const OVER: &str =
    "Kai: That question is over, and your answer does nothing any more. If you still want it, ask me again.";
const SENT: &str = "Kai: I am sending the message to “Friends (friends@g.us)”.";

/// Olga's service, which knows the chat Friends and does not serve it.
async fn olgas_world() -> World {
    let world = World::new(Behaviour::Held).await;
    let friends =
        Event::Chat { id: ChatId::new("friends@g.us"), name: "Friends".to_owned(), members: Some(5) };
    world.tells(vec![linked("Olga"), friends]).await;
    world
}

/// In Olga's channel Kai is asked for something and wants to write to Friends; returns the question to Olga.
async fn asks_to_tell_friends(world: &mut World, text: &str) -> Heard {
    world.says("main", "Olga", "tell my friends about the party").await;
    let turn = world.prompt().await;
    let said = world.calls("main", "send_message", json!({"text": text, "to": "friends@g.us"})).await;
    assert!(said.starts_with("The owner is asked first"), "{said}");
    let question = world.hears().await;
    assert_eq!(question.group, "main");
    turn.answer("I have asked you above.");
    assert_eq!(world.hears_in("main").await, "Kai: I have asked you above.");
    question
}

/// What the agent of the main channel is told of the end, with its next prompt.
async fn is_told(world: &mut World) -> String {
    world.says("main", "Olga", "thank you").await;
    let turn: HeldPrompt = world.prompt().await;
    let text = turn.text.clone();
    turn.answer("You are welcome.");
    assert_eq!(world.hears_in("main").await, "Kai: You are welcome.");
    text
}

/// A message that quotes the question.
fn reply(world: &World, id: &str, sender: &str, text: &str, question: &Heard) -> IncomingMessage {
    let quote = Quote {
        id: MessageId::new(&question.id),
        sender: None,
        sender_name: "Kai".to_owned(),
        text: question.text.clone(),
        media: None,
    };
    IncomingMessage { quote: Some(quote), ..message("main", id, sender, text, world.now()) }
}

#[tokio::test(start_paused = true)]
async fn what_the_owner_allows_is_done_once_and_everybody_hears_of_it() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    assert_eq!(question.text, QUESTION);
    world.silence(9 * MINUTE).await;
    world.quotes("main", "Olga", "Yes", &question).await;
    assert_eq!(world.hears_in("friends").await, "Kai: The party is on Friday.");
    assert_eq!(world.hears_in("main").await, SENT);
    let told = is_told(&mut world).await;
    let notice = "You wanted to send a message to Friends (friends@g.us). The owner has allowed it, and it was done.</notice>";
    assert!(told.contains(notice) && !told.contains(">Yes<"), "{told}");

    // Once.
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("main").await, OVER);
    let again = reacted("main", "r1", "Olga", &question.id, "👍", world.now());
    world.tells(vec![again.clone()]).await;
    assert_eq!(world.hears_in("main").await, OVER);
    world.tells(vec![again]).await;
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_thumb_on_the_question_is_an_answer() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    world.tells(vec![reacted("main", "r1", "Olga", &question.id, "❤️", world.now())]).await;
    world.silence(MINUTE).await;
    world.tells(vec![reacted("main", "r2", "Olga", &question.id, "👎🏽", world.now())]).await;
    assert_eq!(world.hears_in("main").await, "Kai: I do not send it to “Friends (friends@g.us)”.");
    let told = is_told(&mut world).await;
    assert!(told.contains("The owner does not allow it. It was not done; do not work around it."), "{told}");

    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    world.tells(vec![reacted("main", "r3", "Olga", &question.id, "👍🏽", world.now())]).await;
    assert_eq!(world.hears_in("friends").await, "Kai: The party is on Friday.");
    assert_eq!(world.hears_in("main").await, SENT);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_is_open_for_ten_minutes() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    world.silence(10 * MINUTE - Duration::from_secs(2)).await;
    let expired = world.hears().await;
    assert!(expired.text.starts_with("Kai: Nobody answered within 10 minutes"), "{expired:?}");
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("main").await, OVER);
    let told = is_told(&mut world).await;
    assert!(told.contains("The owner has not allowed it in time."), "{told}");
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn nobody_else_and_nothing_else_allows_anything() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    // Somebody else of the main channel's group.
    world.tells(vec![reacted("main", "r1", "Mallory", &question.id, "👍", world.now())]).await;
    world.quotes("main", "Mallory", "yes", &question).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("yes</message>"), "{}", turn.text);
    turn.answer("You are not my owner.");
    assert_eq!(world.hears_in("main").await, "Kai: You are not my owner.");
    // The owner's word that answers nothing, or another message; passed on; in another chat; with a change of mind.
    let other = Heard { id: "m1".to_owned(), ..question.clone() };
    let passed_on =
        IncomingMessage { forwarded: Forwarded::Once, ..reply(&world, "f", "Olga", "yes", &question) };
    let elsewhere =
        IncomingMessage { chat: ChatId::new("family@g.us"), ..reply(&world, "e", "Olga", "yes", &question) };
    for message in [
        message("main", "b", "Olga", "yes", world.now()),
        reply(&world, "o", "Olga", "yes", &other),
        passed_on,
        reply(&world, "w", "Olga", "yes, but on Saturday", &question),
    ] {
        world.writes(message).await;
        world.prompt().await.answer("Hm.");
        assert_eq!(world.hears_in("main").await, "Kai: Hm.");
    }
    world.writes(elsewhere).await;
    world.tells(vec![reacted("family", "r2", "Olga", &question.id, "👍", world.now())]).await;
    // An edit is no answer, whichever comes first.
    world.tells(vec![test_service::edited("w", "w2", reply(&world, "w2", "Olga", "yes", &question))]).await;
    world.prompt().await.answer("Hm.");
    assert_eq!(world.hears_in("main").await, "Kai: Hm.");
    let expired = world.hears().await;
    assert!(expired.text.starts_with("Kai: Nobody answered within 10 minutes"), "{expired:?}");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn of_two_answers_at_once_the_first_counts() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    let both = ["no", "yes"].map(|text| Event::Message(reply(&world, text, "Olga", text, &question)));
    let thumb = reacted("main", "r1", "Olga", &question.id, "👍", world.now());
    world.tells([&both[..], &[thumb]].concat()).await;
    assert_eq!(world.hears_in("main").await, "Kai: I do not send it to “Friends (friends@g.us)”.");
    assert_eq!(world.hears_in("main").await, OVER);
    assert_eq!(world.hears_in("main").await, OVER);
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn two_questions_never_mix() {
    let mut world = olgas_world().await;
    let friday = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    let sunday = asks_to_tell_friends(&mut world, "The party is on Sunday.").await;
    world.quotes("main", "Olga", "yes", &sunday).await;
    assert_eq!(world.hears_in("friends").await, "Kai: The party is on Sunday.");
    assert_eq!(world.hears_in("main").await, SENT);
    world.quotes("main", "Olga", "no", &friday).await;
    assert_eq!(world.hears_in("main").await, "Kai: I do not send it to “Friends (friends@g.us)”.");
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_over_a_kill_and_not_after_a_long_stop() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    world.passes(MINUTE).await;
    world.kill().await;
    world.start().await;
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("friends").await, "Kai: The party is on Friday.");
    assert_eq!(world.hears_in("main").await, SENT);
    world.passes(MINUTE).await;
    world.kill().await;
    world.start().await;
    // WhatsApp delivers it again, as it was not told that we have it.
    world.writes(reply(&world, "m2", "Olga", "yes", &question)).await;
    world.silence(MINUTE).await;

    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    world.stop().await;
    world.passes(60 * MINUTE).await;
    world.start().await;
    let expired = world.hears().await;
    assert!(expired.text.starts_with("Kai: Nobody answered within 10 minutes"), "{expired:?}");
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("main").await, OVER);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_makes_no_question_last() {
    let mut world = olgas_world().await;
    let question = asks_to_tell_friends(&mut world, "The party is on Friday.").await;
    // The end of the turn has the questions looked at.
    world.passes(Duration::from_secs(1)).await;
    world.sets_the_clock(SignedDuration::from_hours(-3));
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("main").await, OVER);
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_cannot_be_buried_in_questions() {
    let mut world = olgas_world().await;
    world.says("family", "Ana", "@Kai ask Olga everything").await;
    let turn = world.prompt().await;
    for number in 1..=3 {
        let question = format!("Question {number}?");
        let said = world.calls("family", "ask_owner", json!({"question": question})).await;
        assert!(said.starts_with("The owner is asked."), "{said}");
        assert!(world.hears_in("main").await.contains(&question));
    }
    let said = world.calls("family", "ask_owner", json!({"question": "Question 3?"})).await;
    assert!(said.starts_with("The owner is being asked just this"), "{said}");
    let said = world.calls("family", "ask_owner", json!({"question": "Question 4?"})).await;
    assert!(said.contains("has not yet answered"), "{said}");
    turn.answer("I have.");
    assert_eq!(world.hears_in("family").await, "Kai: I have.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_asks_the_owner_and_goes_on_with_the_answer() {
    let mut world = olgas_world().await;
    world.says("family", "Ana", "@Kai may we have pizza on Friday? remind us then").await;
    let turn = world.prompt().await;
    let asked = json!({"question": "May the family have pizza on Friday?"});
    world.calls("family", "ask_owner", asked).await;
    let question = world.hears().await;
    assert_eq!(
        question.text,
        "Kai: The agent of the group family asks you:\n> May the family have pizza on Friday?\n\
         Reply to this message within a day, and I pass your words on."
    );
    turn.answer("I have asked Olga.");
    assert_eq!(world.hears_in("family").await, "Kai: I have asked Olga.");
    world.silence(60 * MINUTE).await;

    world.quotes("main", "Olga", "Yes, with mushrooms", &question).await;
    assert_eq!(world.hears_in("main").await, "Kai: I have passed your answer on to the group family.");
    let turn = world.prompt().await;
    let notice = "The owner answers your question “May the family have pizza on Friday?”: Yes, with mushrooms</notice>";
    assert!(turn.text.contains(notice), "{}", turn.text);
    // It is no task's turn: somebody has asked for it.
    let reminder = json!({"text": "Say that it is time for pizza", "schedule": "in 30m"});
    assert!(world.calls("family", "schedule_task", reminder).await.starts_with("Task 1 is planned"));
    assert_eq!(
        world.calls("family", "react", json!({"emoji": "🍕"})).await,
        "There is no message to react to."
    );
    turn.answer("Olga says yes, with mushrooms.");
    let heard = world.hears().await;
    assert_eq!((heard.text.as_str(), heard.to), ("Kai: Olga says yes, with mushrooms.", None));
    world.calls("family", "cancel_task", json!({"task": 1})).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_owners_words_reach_an_agent_that_works() {
    let mut world = olgas_world().await;
    world.says("family", "Ana", "@Kai may we?").await;
    let turn = world.prompt().await;
    turn.step();
    world.calls("family", "ask_owner", json!({"question": "May they?"})).await;
    let question = world.hears().await;
    world.quotes("main", "Olga", "no", &question).await;
    assert_eq!(world.hears_in("main").await, "Kai: I have passed your answer on to the group family.");
    turn.answer("I have asked Olga.");
    assert_eq!(world.hears_in("family").await, "Kai: I have asked Olga.");
    let turn = world.prompt().await;
    assert!(turn.text.contains("“May they?”: no</notice>"), "{}", turn.text);
    turn.answer("Olga says no.");
    assert_eq!(world.hears_in("family").await, "Kai: Olga says no.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_owner_hears_that_they_do_not_answer() {
    let mut world = olgas_world().await;
    world.says("family", "Ana", "@Kai may we?").await;
    let turn = world.prompt().await;
    world.calls("family", "ask_owner", json!({"question": "May they?"})).await;
    world.hears().await;
    turn.answer("I have asked Olga.");
    assert_eq!(world.hears_in("family").await, "Kai: I have asked Olga.");
    world.silence(23 * 60 * MINUTE).await;
    let told = world.hears_in("main").await;
    assert!(told.contains("Nobody answered the question of the group family within a day"), "{told}");
    let turn = world.prompt().await;
    assert!(turn.text.contains("has not answered your question “May they?” within a day"), "{}", turn.text);
    turn.answer("Olga has not answered.");
    assert_eq!(world.hears_in("family").await, "Kai: Olga has not answered.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_is_removed_only_if_the_owner_says_so_and_it_is_still_that_group() {
    let mut world = olgas_world().await;
    let removed = async |world: &mut World| {
        world.says("main", "Olga", "the family may go").await;
        let turn = world.prompt().await;
        let said = world.calls("main", "remove_group", json!({"name": "family"})).await;
        assert!(said.starts_with("The owner is asked first"), "{said}");
        let question = world.hears().await;
        assert!(question.text.starts_with("Kai: May I stop serving the group family?"), "{question:?}");
        turn.answer("<internal>asked</internal>");
        question
    };
    let question = removed(&mut world).await;
    assert!(world.store.group_by_name(&test_service::name("family")).await.unwrap().is_some());
    // Meanwhile the name is given to another chat.
    world.store.remove_group(&test_service::name("family")).await.unwrap();
    let other = nanokimi::types::Group {
        chat: ChatId::new("others@g.us"),
        ..test_service::group("family", nanokimi::types::Role::Member)
    };
    world.store.add_group(&other, world.now()).await.unwrap();
    world.quotes("main", "Olga", "yes", &question).await;
    assert!(world.hears_in("main").await.contains("things have changed since I asked"));
    assert!(world.store.group_by_name(&test_service::name("family")).await.unwrap().is_some());

    let question = removed(&mut world).await;
    world.quotes("main", "Olga", "sí", &question).await;
    assert_eq!(world.hears_in("main").await, "Kai: I do not serve the group family any more.");
    assert!(world.store.group_by_name(&test_service::name("family")).await.unwrap().is_none());
    world.ends().await;
}

/// Ana writes to the account directly.
fn direct(world: &World, id: &str, text: &str) -> IncomingMessage {
    let chat = ChatId::new("Ana@lid");
    IncomingMessage { chat, sender: SenderId::new("Ana@lid"), ..message("x", id, "Ana", text, world.now()) }
}

#[tokio::test(start_paused = true)]
async fn the_owner_is_asked_once_whether_a_new_direct_chat_is_served() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Ask);
    world.start().await;
    world.tells(vec![linked("Olga"), test_service::same_person("Ana")]).await;
    world.writes(direct(&world, "d1", "hello?")).await;
    let question = world.hears().await;
    assert!(
        question
            .text
            .starts_with("Kai: “Ana” (+Ana) has written to me in a direct chat, which I do not serve."),
        "{question:?}"
    );
    world.writes(direct(&world, "d2", "is anybody there?")).await;
    world.silence(60 * MINUTE).await;
    world.tells(vec![reacted("main", "r1", "Olga", &question.id, "👍", world.now())]).await;
    let greeting = world.hears().await;
    assert_eq!(greeting.group, "Ana@lid");
    assert!(greeting.text.contains("please write it again"), "{greeting:?}");
    let told = world.hears_in("main").await;
    assert!(told.contains("as the group ana-1"), "{told}");
    world.writes(direct(&world, "d3", "@Kai what is the time?")).await;
    world.prompt().await.answer("Noon.");
    assert_eq!(world.hears().await.text, "Kai: Noon.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_direct_chat_that_the_owner_refuses_is_never_asked_about_again() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Ask);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.writes(direct(&world, "d1", "hello?")).await;
    let question = world.hears().await;
    world.quotes("main", "Olga", "no", &question).await;
    assert_eq!(
        world.hears_in("main").await,
        "Kai: I do not answer “Ana” (number unknown), and do not ask again."
    );
    // Known by their number later, they are the same person.
    world.tells(vec![test_service::same_person("Ana")]).await;
    let by_number =
        IncomingMessage { chat: ChatId::new("Ana@s.whatsapp.net"), ..direct(&world, "d2", "hello") };
    world.writes(by_number).await;
    world.writes(direct(&world, "d3", "hello")).await;
    // Groups, channels, and the account itself are no direct chats.
    for chat in ["g@g.us", "status@broadcast", "news@newsletter", "Olga@s.whatsapp.net"] {
        world.writes(IncomingMessage { chat: ChatId::new(chat), ..direct(&world, chat, "hello") }).await;
    }
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn strangers_cannot_bury_the_owner_in_questions() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Ask);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    for stranger in 0..40 {
        let id = format!("3460000{stranger}@s.whatsapp.net");
        let message = direct(&world, &format!("s{stranger}"), "win a car");
        let sender = SenderId::new(&id);
        world.writes(IncomingMessage { chat: ChatId::new(&id), sender, ..message }).await;
    }
    for _ in 0..5 {
        assert!(world.hears_in("main").await.contains("has written to me in a direct chat"));
    }
    world.silence(60 * MINUTE).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn all_direct_chats_are_served_if_the_owner_wants_that() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Anyone);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.writes(direct(&world, "d1", "hello?")).await;
    let greeting = world.hears().await;
    assert_eq!(greeting.group, "Ana@lid");
    let told = world.hears_in("main").await;
    assert!(
        told.starts_with("Kai: “Ana” (number unknown) has written to me in a direct chat. I answer there"),
        "{told}"
    );
    world.writes(direct(&world, "d2", "@Kai what is the time?")).await;
    world.prompt().await.answer("Noon.");
    assert_eq!(world.hears().await.text, "Kai: Noon.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_question_that_nobody_answered_keeps_nobody_out_once_all_are_served_and_the_first_file_is_kept() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Ask);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.writes(direct(&world, "d1", "hello?")).await;
    assert!(world.hears_in("main").await.contains("has written to me in a direct chat"));
    world.passes(60 * MINUTE * 25).await;
    assert!(world.hears_in("main").await.contains("Nobody answered within a day"));
    world.stop().await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Anyone);
    world.start().await;
    world.writes(direct(&world, "d2", "hello?")).await;
    world.hears_until(|text| text.contains("please write it again")).await;
    // Nobody has started its agent yet.
    world.chats.hold_file(b"photo", b"\x89PNG\r\n\x1a\na picture");
    let media = test_service::media(MediaKind::Image, "image/png", b"photo");
    let photo = IncomingMessage { media: Some(media), ..direct(&world, "d3", "@Kai what is this?") };
    world.writes(photo).await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("could not be saved"), "{}", turn.text);
    turn.answer("A picture.");
    world.hears_until(|text| text == "Kai: A picture.").await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn words_on_a_question_that_is_over_are_said_to_kai_and_a_command_on_an_open_one_is_a_command() {
    let mut world = olgas_world().await;
    world.says("family", "Ana", "@Kai which hotel?").await;
    let turn = world.prompt().await;
    world.calls("family", "ask_owner", json!({"question": "Which hotel?"})).await;
    let question = world.hears().await;
    turn.answer("I have asked Olga.");
    assert_eq!(world.hears_in("family").await, "Kai: I have asked Olga.");
    world.quotes("main", "Olga", "/status", &question).await;
    let status = world.hears_in("main").await;
    assert!(status.contains("Nothing keeps me from answering"), "{status}");
    world.quotes("main", "Olga", "The Ritz", &question).await;
    assert_eq!(world.hears_in("main").await, "Kai: I have passed your answer on to the group family.");
    world.prompt().await.answer("The Ritz.");
    assert_eq!(world.hears_in("family").await, "Kai: The Ritz.");

    world.quotes("main", "Olga", "And what does it cost?", &question).await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("And what does it cost?"), "{}", turn.text);
    turn.answer("Too much.");
    assert_eq!(world.hears_in("main").await, "Kai: Too much.");
    world.quotes("main", "Olga", "yes", &question).await;
    assert_eq!(world.hears_in("main").await, OVER);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_looks_like_a_number_is_no_number() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.direct_chats = DirectChatPolicy::Ask);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    let stranger =
        IncomingMessage { sender_name: "Ana” (+34600111222)".to_owned(), ..direct(&world, "d1", "hi") };
    world.writes(stranger).await;
    let question = world.hears_in("main").await;
    assert!(question.starts_with("Kai: “Ana (+34600111222)” (number unknown) has written"), "{question}");
    world.ends().await;
}
