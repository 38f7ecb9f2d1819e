//! The owner gives commands, which nanokimi answers itself: whatever the agent does, and without its
//! knowledge.

use std::time::Duration;

use jiff::SignedDuration;
use nanokimi::bridge::Event;
use nanokimi::session::machine::AHEAD_LIMIT;
use nanokimi::types::{ChatId, Group, IncomingMessage, Lang, LinkedAccount, Role};

use crate::world::World;
use support::scripted_engine::Behaviour;
use support::test_service::{edited, lid, message, name, phone, same_person};

const HELP: &str = "Kai: What you can write to me here:
- @Kai anywhere in a message, or a reply to something that I said: I answer.
- /help: I send this list.
- /status: I say what I am doing here and how I am.
- /usage: I say how many tokens I have used.
- /tasks: I say what I have planned.
- /stop: I stop at once, and drop what was asked before.
- /new NAME: I begin anew, or return to the conversation with that name; a name need not be given.
- /back: I return to the conversation before this one.
- /compact: I put what I remember of this conversation into a summary, which costs fewer tokens.
- /model NAME: I say which models there are, or think with this one from then on.
- /warm: I get ready, so that my next answer comes sooner.
Only my owner can use what begins with a slash.";
const HELP_IN_MAIN: &str = "Kai: What you can write to me here:
- Anything: every message in this chat is for me.
- /help: I send this list.
- /status: I say what I am doing here and how I am.
- /usage: I say how many tokens I have used.
- /tasks: I say what I have planned.
- /stop: I stop at once, and drop what was asked before.
- /new NAME: I begin anew, or return to the conversation with that name; a name need not be given.
- /back: I return to the conversation before this one.
- /compact: I put what I remember of this conversation into a summary, which costs fewer tokens.
- /model NAME: I say which models there are, or think with this one from then on.
- /warm: I get ready, so that my next answer comes sooner.
Only my owner can use what begins with a slash.";

/// Links the account of this person.
pub fn linked(owner: &str) -> Event {
    Event::Account(LinkedAccount { id: phone(owner), lid: Some(lid(owner)), name: owner.to_owned() })
}

pub async fn world_of(owner: &str) -> World {
    let world = World::new(Behaviour::Held).await;
    world.tells(vec![linked(owner)]).await;
    world
}

#[tokio::test(start_paused = true)]
async fn the_owner_is_answered_while_kai_works_and_no_agent_hears_of_it() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    turn.step();
    world.says("family", "Olga", "/help").await;
    assert_eq!(world.hears_in("family").await, HELP);
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");

    world.says("family", "Ana", "@Kai book it").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains("book it") && !turn.text.contains("/help"), "{}", turn.text);
    turn.answer("Booked.");
    assert_eq!(world.hears_in("family").await, "Kai: Booked.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn the_agent_that_was_made_ready_answers_at_once() {
    let mut world = world_of("Olga").await;
    world.says("family", "Olga", "/warm").await;
    assert_eq!(world.hears_in("family").await, "Kai: I am getting ready, if there is room for me.");
    world.silence(Duration::from_secs(3)).await;
    assert_eq!((world.docker.launches().len(), world.docker.running()), (1, 1));
    let wrote_at = world.seconds();
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    assert_eq!(world.seconds(), wrote_at, "nothing has to start");
    assert!(!turn.text.contains("/warm"), "{}", turn.text);
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    // A message of another person starts nothing.
    world.says("main", "Ana", "/warm").await;
    world.prompt().await.answer("What?");
    assert_eq!(world.hears_in("main").await, "Kai: What?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn in_the_main_channel_too_it_is_no_message_for_kai() {
    let mut world = world_of("Olga").await;
    world.says("main", "Olga", " /HELP ").await;
    assert_eq!(world.hears_in("main").await, HELP_IN_MAIN);
    world.silence(Duration::from_secs(3600)).await;
    assert_eq!(world.docker.tries(), 0, "nothing was started for it");
    world.says("main", "Olga", "/help me with this").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(">/help me with this<"), "{}", turn.text);
    assert!(!turn.text.contains("/HELP"), "{}", turn.text);
    turn.answer("Gladly.");
    assert_eq!(world.hears_in("main").await, "Kai: Gladly.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_writes_is_no_command() {
    let mut world = world_of("Olga").await;
    world.says("family", "Ana", "/help").await;
    world.silence(Duration::from_secs(600)).await;
    world.says("family", "Ana", "@Kai /help").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(">/help<") && turn.text.contains(">@Kai /help<"), "{}", turn.text);
    turn.answer("With what?");
    assert_eq!(world.hears_in("family").await, "Kai: With what?");
    // Also in the main channel, if it is a group.
    world.says("main", "Ana", "/help").await;
    let turn = world.prompt().await;
    assert!(turn.text.contains(">/help<"), "{}", turn.text);
    turn.answer("You too?");
    assert_eq!(world.hears_in("main").await, "Kai: You too?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_comes_again_is_answered_once() {
    let mut world = world_of("Olga").await;
    let asked = message("family", "3EB0", "Olga", "/help", world.now());
    let by_lid = IncomingMessage { sender: lid("Olga"), ..asked.clone() };
    world.chats.hang("family");
    world.writes(asked.clone()).await;
    // The service is killed once the message is stored, and its answer with it.
    world.kill().await;
    world.chats.hang_no_more("family");
    world.start().await;
    let heard = world.hears().await;
    assert_eq!((heard.group.as_str(), heard.text.as_str()), ("family", HELP));
    world.writes(asked).await;
    world.tells(vec![linked("Olga"), Event::Message(by_lid)]).await;
    world.silence(Duration::from_secs(3600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn in_spanish_its_word_and_its_answer_are_spanish() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.lang = Lang::Es);
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    world.says("family", "Olga", "/Ayuda").await;
    insta::assert_snapshot!(world.hears_in("family").await, @r"
    Kai: Lo que puedes escribirme aquí:
    - @Kai en cualquier parte de un mensaje, o una respuesta a algo que haya dicho yo: respondo.
    - /ayuda: envío esta lista.
    - /estado: digo qué estoy haciendo aquí y cómo estoy.
    - /uso: digo cuántos tokens he gastado.
    - /tareas: digo qué tengo planeado.
    - /parar: paro al momento y dejo lo que se haya pedido antes.
    - /nuevo NOMBRE: empiezo de nuevo, o vuelvo a la conversación de ese nombre; no hace falta dar un nombre.
    - /volver: vuelvo a la conversación anterior.
    - /compactar: resumo lo que recuerdo de esta conversación, que así gasta menos tokens.
    - /modelo NOMBRE: digo qué modelos hay, o pienso con este desde entonces.
    - /preparar: me preparo, para que mi próxima respuesta llegue antes.
    Lo que empieza por una barra solo lo puede usar mi propietario.
    ");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn with_an_account_of_kais_own_the_owner_is_known_by_the_direct_chat_that_is_the_main_channel() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.store.remove_group(&name("main")).await.unwrap();
    let olga = ChatId::new("Olga@s.whatsapp.net");
    world.add(Group::new(name("olga"), olga.clone(), Role::Main)).await;
    world.start().await;
    world.tells(vec![linked("Kai"), same_person("Olga")]).await;
    let asked = message("", "1", "Olga", "/help", world.now());
    world.writes(IncomingMessage { chat: olga, sender: lid("Olga"), ..asked }).await;
    assert_eq!(world.hears_in("Olga@s.whatsapp.net").await, HELP_IN_MAIN);
    // In other chats nothing proves who she is.
    world.says("family", "Olga", "/help").await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_command_that_is_days_old_is_not_carried_out_and_stays_from_the_agent_too() {
    let mut world = world_of("Olga").await;
    let days_ago = world.now() - SignedDuration::from_hours(48);
    world.writes(message("family", "1", "Olga", "/help", days_ago)).await;
    assert!(world.hears_in("family").await.starts_with("Kai: I was away for a while"));
    world.says("family", "Ana", "@Kai hello").await;
    let turn = world.prompt().await;
    assert!(!turn.text.contains("/help"), "{}", turn.text);
    turn.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_is_never_a_command() {
    let mut world = world_of("Olga").await;
    let typed = world.says("family", "Olga", "/halp").await;
    let corrected = message("family", "", "Olga", "/help", world.now());
    world.tells(vec![edited(&typed, "e1", corrected)]).await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_edit_that_comes_before_its_command_takes_its_place() {
    let mut world = world_of("Olga").await;
    let typed = message("family", "3EB0", "Olga", "/help", world.now());
    let corrected = message("family", "", "Olga", "@Kai what can you do?", world.now());
    world.tells(vec![edited("3EB0", "e1", corrected)]).await;
    let turn = world.prompt().await;
    world.writes(typed).await;
    turn.answer("This and that.");
    assert_eq!(world.hears_in("family").await, "Kai: This and that.");
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_was_made_ready_in_vain_is_made_ready_again() {
    let mut world = world_of("Olga").await;
    for times in 1..=3 {
        world.says("family", "Olga", "/warm").await;
        assert_eq!(world.hears_in("family").await, "Kai: I am getting ready, if there is room for me.");
        world.silence(AHEAD_LIMIT + Duration::from_secs(60)).await;
        assert_eq!((world.docker.launches().len(), world.docker.running()), (times, 0));
    }
    world.ends().await;
}
