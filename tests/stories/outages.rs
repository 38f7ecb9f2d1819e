//! No chat can be answered until somebody repairs the Kimi account. Each chat is told once, and its questions
//! are answered afterwards.

use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use nanokimi::types::Outage;
use serde_json::json;
use support::scripted_engine::{Behaviour, HeldPrompt};
use support::test_service::chat;

use crate::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// The model's API refuses the account of the next prompt.
async fn refuses(world: &mut World) {
    let prompt = world.prompt().await;
    refuse(world, &prompt).await;
}

async fn refuse(world: &World, prompt: &HeldPrompt) {
    world.refuse(prompt, 403, "access_terminated_error").await;
}

/// The API refuses the login.
async fn refuses_the_login(world: &mut World) {
    let prompt = world.prompt().await;
    world.refuse(&prompt, 401, "invalid_authentication_error").await;
}

/// The API has had too many requests.
async fn is_asked_too_much(world: &mut World) {
    let prompt = world.prompt().await;
    world.refuse(&prompt, 429, "rate_limit_reached_error").await;
}

/// A service without a login; the owner has been told so.
async fn without_login(usual: Behaviour) -> World {
    let mut world = World::without_service(usual).await;
    world.forgets_the_key();
    world.start().await;
    world.hears_in("main").await;
    world
}

#[tokio::test(start_paused = true)]
async fn a_refused_account_is_told_once_to_each_and_what_was_asked_is_answered_when_it_is_over() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai when does the train leave?").await;
    refuses(&mut world).await;
    let told =
        [world.hears().await, world.hears().await].map(|heard| format!("{}: {}", heard.group, heard.text));
    insta::assert_snapshot!(told.join("\n"), @"
    family: Kai: I cannot answer now. Kimi refuses to answer me, and does not say why. Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
    main: Kai: I cannot answer in any chat now. Kimi refuses to answer me, and does not say why. Please look at your account's page at Kimi, then run `nanokimi doctor` on the server. What is asked meanwhile is kept and answered then.
    ");

    // More questions come, and all of them are tried again now and then, without a word in the chat.
    world.says("family", "Bob", "@Kai and when does it arrive?").await;
    world.says("main", "Owner", "what is wrong?").await;
    let began = world.seconds();
    let mut tries = 0;
    while world.seconds() - began < HOUR.as_secs() {
        refuses(&mut world).await;
        tries += 1;
    }
    assert!((10..=16).contains(&tries), "two chats in an hour: {tries} tries");
    // An engine remembers the questions that it did not answer.
    assert_eq!(world.docker.tries(), tries + 1, "each try is asked of an engine that was asked nothing yet");
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 0);

    let mut answered = Vec::new();
    for _ in 0..2 {
        let prompt = world.prompt().await;
        answered.push((prompt.group.clone(), prompt.text.matches("<message ").count()));
        prompt.answer("Here I am again.");
        world.hears().await;
    }
    answered.sort();
    assert_eq!(answered, [("family".to_owned(), 2), ("main".to_owned(), 1)]);
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn each_thing_that_kimi_refuses_an_account_for_is_told_in_its_own_words() {
    let mut told = Vec::new();
    for (status, says, outage) in [
        (
            403,
            "Kimi For Coding is currently only available for Coding Agents such as …",
            Outage::ClientRefused,
        ),
        (403, "Access terminated. Review our Community Guidelines …", Outage::AccountEnded),
        (402, "We're unable to verify your membership benefits at this time. …", Outage::NoMembership),
        (403, "You've reached your weekly (7-day) usage limit. …", Outage::QuotaUsedUp),
        (429, "You've reached kimi monthly usage limit", Outage::QuotaUsedUp),
        (403, "no", Outage::Refused),
    ] {
        let mut world = World::new(Behaviour::Held).await;
        world.says("family", "Ana", "@Kai hello").await;
        let prompt = world.prompt().await;
        world.refuse_saying(&prompt, status, says).await;
        told.extend([world.hears().await, world.hears().await].map(|heard| heard.text));
        let outages = world.store.open_outages().await.unwrap();
        assert_eq!(outages.into_iter().map(|(outage, _)| outage).collect::<Vec<_>>(), [outage], "{says}");
        world.prompt().await.answer("Here I am again.");
        assert_eq!(world.hears_in("family").await, "Kai: Here I am again.");
        assert_eq!(world.store.open_outages().await.unwrap(), []);
        world.ends().await;
    }
    insta::assert_snapshot!(told.join("\n"), @"
    Kai: I cannot answer now. Kimi does not serve the program that I think with, or not in this version any more. Please ask the owner to install the newest nanokimi. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. Kimi does not serve the program that I think with, or not in this version any more. Please install the newest nanokimi. Groups that still use kimi-cli, which has ended, change over with `nanokimi groups set --all --engine kimi-code`. What is asked meanwhile is kept and answered then.
    Kai: I cannot answer now. Kimi has ended the access of the account that I use. Please ask the owner to talk to Kimi. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. Kimi has ended the access of the account that I use. Please read what Kimi has written to you, and ask its support; another account takes over with `nanokimi login`. What is asked meanwhile is kept and answered then.
    Kai: I cannot answer now. Kimi finds no active membership for the account that I use. Please ask the owner to check the Kimi membership. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. Kimi finds no active membership for the account that I use. Please check on your account's page at Kimi that its membership is active and paid. What is asked meanwhile is kept and answered then.
    Kai: I cannot answer now. What the Kimi plan holds is used up for now. Please wait until the plan's next period; the owner sees at Kimi when that is. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. What the Kimi plan holds is used up for now. `nanokimi login --status` on the server says when it begins anew; on your account's page at Kimi you can buy more. What is asked meanwhile is kept and answered then.
    Kai: I cannot answer now. What the Kimi plan holds is used up for now. Please wait until the plan's next period; the owner sees at Kimi when that is. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. What the Kimi plan holds is used up for now. `nanokimi login --status` on the server says when it begins anew; on your account's page at Kimi you can buy more. What is asked meanwhile is kept and answered then.
    Kai: I cannot answer now. Kimi refuses to answer me, and does not say why. Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.
    Kai: I cannot answer in any chat now. Kimi refuses to answer me, and does not say why. Please look at your account's page at Kimi, then run `nanokimi doctor` on the server. What is asked meanwhile is kept and answered then.
    ");
}

#[tokio::test(start_paused = true)]
async fn a_missing_login_starts_no_container_and_a_new_one_is_taken_up_at_once() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.forgets_the_key();
    world.start().await;
    // Before the first question.
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: I cannot answer in any chat now. I am not logged in to Kimi, or the login has expired. Please run `nanokimi doctor` on the server; mostly `nanokimi login` is all it takes. What is asked meanwhile is kept and answered then.");
    world.says("family", "Ana", "@Kai hello").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: I cannot answer now. I am not logged in to Kimi, or the login has expired. Please ask the owner to run `nanokimi doctor`. Your message is kept; I answer it as soon as that is over.");
    world.says("main", "Owner", "hello").await;
    world.silence(HOUR).await;
    assert_eq!(world.docker.tries(), 0);
    let outages = world.store.open_outages().await.unwrap();
    assert_eq!(outages.into_iter().map(|(outage, _)| outage).collect::<Vec<_>>(), [Outage::NotLoggedIn]);

    let began = world.seconds();
    world.logs_in("one");
    let mut heard = [world.hears().await.text, world.hears().await.text];
    heard.sort();
    assert_eq!(heard, ["Kai: echo: @Kai hello", "Kai: echo: hello"]);
    assert!(world.seconds() - began < 5);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn another_account_is_tried_at_once_and_a_renewal_of_the_same_is_not() {
    let mut world = without_login(Behaviour::Held).await;
    world.logs_in(&token_of("anna@example.org", 1));
    world.says("main", "Owner", "hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("main").await, "Kai: Hello.");
    world.says("main", "Owner", "are you there?").await;
    refuses(&mut world).await;
    let refused = world.hears_in("main").await;
    assert!(refused.contains("Kimi refuses to answer me, and does not say why."), "{refused}");

    world.logs_in(&token_of("anna@example.org", 2));
    world.silence(Duration::from_secs(60)).await;
    let began = world.seconds();
    world.logs_in(&token_of("bob@example.org", 1));
    world.prompt().await.answer("I am.");
    assert!(world.seconds() - began < 5);
    assert_eq!(world.hears_in("main").await, "Kai: I am.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_renewal_that_came_too_late_for_who_was_refused_is_tried_at_once_but_not_again_and_again() {
    let mut world = without_login(Behaviour::Held).await;
    world.logs_in_with("first", "r1");
    world.says("main", "Owner", "hello").await;
    world.is_refused("first");
    refuses(&mut world).await;
    assert!(world.hears_in("main").await.contains("Kimi refuses to answer me"));
    world.passes(Duration::from_secs(60)).await;

    let began = world.seconds();
    world.logs_in_with("second", "r2");
    let prompt = world.prompt().await;
    assert!(world.seconds() - began < 5);
    world.is_refused("second");
    refuse(&world, &prompt).await;
    world.passes(Duration::from_secs(60)).await;
    world.logs_in_with("third", "r3");
    world.prompt().await.answer("Hello.");
    assert!(world.seconds() - began >= 600);
    assert_eq!(world.hears_in("main").await, "Kai: Hello.");
    world.ends().await;
}

/// An access token in the form that login servers use.
fn token_of(account: &str, issue: u32) -> String {
    let claims = json!({ "email": account, "jti": issue }).to_string();
    format!("e30.{}.signature", BASE64_URL_SAFE_NO_PAD.encode(claims))
}

#[tokio::test(start_paused = true)]
async fn what_fails_otherwise_during_an_outage_is_not_kept_by_it() {
    let mut world = World::new(Behaviour::Held).await;
    let began = world.now();
    world.says("main", "Owner", "hello").await;
    refuses(&mut world).await;
    world.hears_in("main").await;
    let store = world.store.clone();
    let keeps = async |group| store.is_kept_by_outage(&chat(group), began).await.unwrap();
    assert!(keeps("main").await);

    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.fails(-32003, "Error code: 500 - {'error': {'message': 'broken'}}");
    world.passes(Duration::from_secs(1)).await;
    assert!(!keeps("family").await, "it is tried again within seconds");
    refuses(&mut world).await;
    world.hears_in("family").await;
    assert!(keeps("family").await);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_was_told_is_not_told_again_after_a_restart_but_the_next_one_is() {
    let mut world = without_login(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    world.hears_in("family").await;
    // Until WhatsApp's answer is stored: without it the same message would be sent again.
    world.passes(Duration::from_secs(1)).await;
    world.kill().await;
    world.start().await;
    world.silence(HOUR).await;

    world.logs_in("one");
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.silence(HOUR).await;
    world.logs_out();
    assert!(world.hears_in("main").await.contains("I cannot answer in any chat now."));
    world.says("family", "Ana", "@Kai hello?").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I cannot answer now."));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_that_comes_and_goes_while_nobody_asks_is_told_each_time_it_ends() {
    let mut world = without_login(Behaviour::Echo).await;
    // Only for a moment, so it is no news.
    world.logs_in("one");
    world.passes(Duration::from_secs(60)).await;
    world.logs_out();
    world.silence(HOUR).await;
    world.logs_in("two");
    world.silence(HOUR).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.logs_out();
    assert!(world.hears_in("main").await.contains("`nanokimi login` is all it takes"));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_has_to_wait_for_kimi_is_answered_without_anybodys_help() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "hello").await;
    is_asked_too_much(&mut world).await;
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: I cannot answer in any chat now. I have asked Kimi as much as it allows for now. That ends by itself; if it happens often, look at your plan at Kimi. What is asked meanwhile is kept and answered then.");
    let began = world.seconds();
    world.prompt().await.answer("Now I can.");
    assert_eq!(world.seconds() - began, 600);
    assert_eq!(world.hears_in("main").await, "Kai: Now I can.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_refused_while_others_are_answered_is_given_up() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai <something that Kimi does not want to read>").await;
    refuses(&mut world).await;
    for _ in 0..2 {
        world.hears().await;
    }
    world.says("main", "Owner", "what is wrong?").await;
    world.prompt().await.answer("Nothing, it seems.");
    assert_eq!(world.hears_in("main").await, "Kai: Nothing, it seems.");
    for _ in 0..3 {
        refuses(&mut world).await;
    }
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: I tried 3 times and could not answer. Kimi refuses to answer me, and does not say why. Please ask the owner to check the Kimi account, and then to run `nanokimi doctor`. Your message is kept; to try again, send it again.");
    world.says("family", "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_kept_for_long_is_not_given_up_at_the_first_refusal_after_others_were_answered() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    for _ in 0..10 {
        refuses(&mut world).await;
    }
    for _ in 0..2 {
        world.hears().await;
    }
    world.says("main", "Owner", "are you there?").await;
    world.prompt().await.answer("I am.");
    assert_eq!(world.hears_in("main").await, "Kai: I am.");
    refuses(&mut world).await;
    assert!(world.hears_in("main").await.contains("I cannot answer in any chat now."), "it is news again");
    refuses(&mut world).await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_login_that_fails_again_and_again_gives_nothing_up() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai hello").await;
    refuses_the_login(&mut world).await;
    for _ in 0..2 {
        world.hears().await;
    }
    for round in 0..4 {
        world.says("main", "Owner", &format!("question {round}")).await;
        world.prompt().await.answer("An answer.");
        assert_eq!(world.hears_in("main").await, "Kai: An answer.");
        refuses_the_login(&mut world).await;
    }
    world.prompt().await.answer("Hello.");
    assert_eq!(world.store.queue_counts().await.unwrap().parked, 0);
    world.stop_hearing().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_that_follows_another_is_told_to_the_owner_who_has_met_both() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "hello").await;
    is_asked_too_much(&mut world).await;
    assert!(world.hears_in("main").await.contains("That ends by itself"));
    refuses(&mut world).await;
    let told = world.hears_in("main").await;
    assert!(told.contains("Kimi refuses to answer me, and does not say why."), "{told}");
    refuses(&mut world).await;
    world.silence(Duration::from_secs(60)).await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("main").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_under_way_already_ends_no_outage() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "a long one").await;
    let long = world.prompt().await;
    world.passes(Duration::from_secs(1)).await;
    world.says("family", "Ana", "@Kai hello").await;
    let refused = world.prompt().await;
    world.passes(Duration::from_secs(1)).await;
    refuse(&world, &refused).await;
    for _ in 0..2 {
        world.hears().await;
    }
    long.answer("Done.");
    assert_eq!(world.hears_in("main").await, "Kai: Done.");
    refuses(&mut world).await;
    world.silence(Duration::from_secs(30)).await;
    assert_eq!(world.store.open_outages().await.unwrap().len(), 1);
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in("family").await, "Kai: Hello.");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_an_engine_says_of_the_account_is_its_own_chats_trouble() {
    for (code, words) in [
        (-32004, "Authentication failed."),
        (-32003, "Error code: 401 - {'error': {}}"),
        (-32003, "Error code: 402 - {'error': {'message': 'quota'}}"),
        (-32003, "Error code: 403 - {'error': {'type': 'access_terminated_error'}}"),
        (-32003, "Error code: 429 - {'error': {'type': 'exceeded_current_quota_error'}}"),
        (-32000, "Authentication required: 403 "),
    ] {
        let mut world = World::new(Behaviour::Fails(code, words)).await;
        world.says("family", "Ana", "@Kai hello").await;
        let told = world.hears_in("family").await;
        assert!(told.starts_with("Kai: I tried 3 times and could not answer."), "{words}: {told}");
        world.silence(HOUR).await;
        assert_eq!(world.store.open_outages().await.unwrap(), [], "{words}");
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_speaks_acp_is_believed_no_more() {
    let mut world = World::without_service(Behaviour::Fails(-32000, "Authentication required: 403 ")).await;
    world.settings(|settings| settings.engine = nanokimi::agent::Engine::KimiCode);
    world.start().await;
    world.says("family", "Ana", "@Kai hello").await;
    assert!(world.hears_in("family").await.starts_with("Kai: I tried 3 times and could not answer."));
    world.silence(HOUR).await;
    assert_eq!(world.store.open_outages().await.unwrap(), []);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_model_that_an_agent_has_made_up_is_no_trouble_of_the_account() {
    let mut world = World::new(Behaviour::Held).await;
    for asks in [r#"{"model":"made-up"}"#, "{}", "nothing", r#"{"model":["kimi-for-coding"]}"#] {
        world.says("family", "Ana", "@Kai hello").await;
        let prompt = world.prompt().await;
        world.refuse_asked(&prompt, asks, 404, "resource_not_found_error").await;
        let told = world.hears_in("family").await;
        assert!(told.starts_with("Kai: I could not answer."), "{asks}: {told}");
        world.silence(Duration::from_secs(60)).await;
        assert_eq!(world.store.open_outages().await.unwrap(), [], "{asks}");
    }
    // For the model that the engine was told to use, it is an outage.
    world.says("family", "Ana", "@Kai hello").await;
    let prompt = world.prompt().await;
    world.refuse(&prompt, 404, "resource_not_found_error").await;
    let told = [world.hears().await.group, world.hears().await.group];
    assert_eq!(told, ["family", "main"]);
    world.stop_hearing().await;
}
