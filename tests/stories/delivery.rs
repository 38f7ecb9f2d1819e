//! From the outbox to WhatsApp's answer: the link is lost and returns, WhatsApp refuses, and the owner is
//! told.

use std::fs;
use std::time::Duration;

use nanokimi::bridge::{Answer, LinkState, SendError};
use nanokimi::service::StopReason;
use nanokimi::types::{ChatId, Role};
use support::scripted_engine::Behaviour;
use support::test_service::{Heard, message};

use crate::world::World;

const HOUR: Duration = Duration::from_secs(60 * 60);

/// An answer of seven parts.
fn long() -> String {
    (1..=7).map(|part| format!("{part} {}", "word ".repeat(700))).collect::<Vec<_>>().join("\n\n")
}

/// The number of a part of [`long`].
fn part(heard: &Heard) -> char {
    heard.text.chars().nth("Kai: ".len()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn what_whatsapp_has_not_answered_when_the_link_is_lost_is_sent_again_in_order() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    let mut heard = Vec::new();
    for text in ["one", "two", "three"] {
        world.says("main", "Owner", text).await;
        heard.push(world.hears().await);
    }
    world.answers(&heard[0].id, Answer::Acked).await;
    world.link(LinkState::Connecting);
    world.says("main", "Owner", "four").await;
    world.silence(Duration::from_secs(30)).await;

    let back = world.seconds();
    world.link(LinkState::Online);
    assert_eq!(world.hears().await, heard[1]);
    assert_eq!(world.hears().await, heard[2]);
    let fourth = world.hears().await;
    assert_eq!(fourth.text, "Kai: echo: four");
    assert!(world.seconds() - back < 5, "nothing waits until its answer is overdue");
    for answered in [&heard[1], &heard[2], &fourth] {
        world.answers(&answered.id, Answer::Acked).await;
    }
    world.link(LinkState::Connecting);
    world.silence(HOUR).await;
    world.link(LinkState::Online);
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_start_sends_again_what_was_not_answered_before_the_end() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    world.says("main", "Owner", "hello").await;
    let heard = world.hears().await;
    world.kill().await;
    world.start().await;
    let back = world.seconds();
    assert_eq!(world.hears().await, heard);
    assert_eq!(world.seconds(), back);
    world.answers(&heard.id, Answer::Acked).await;
    world.stop().await;
    world.start().await;
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_does_not_come_is_waited_for_longer_each_time() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.leave_unacknowledged();
    world.says("main", "Owner", "hello").await;
    let heard = world.hears().await;
    for seconds in [60, 120, 240, 480] {
        let before = world.seconds();
        assert_eq!(world.hears().await, heard);
        assert_eq!(world.seconds() - before, seconds);
    }
    world.answers(&heard.id, Answer::Acked).await;
    world.silence(HOUR * 24).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_come_before_the_bridge_says_that_it_has_sent() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.hang("main");
    world.says("main", "Owner", "hello").await;
    let stuck = world.stuck().await;
    world.answers(stuck.id.as_str(), Answer::Acked).await;
    stuck.outcome.send(Ok(nanokimi::bridge::HandedOver::Sent)).unwrap();
    world.silence(HOUR).await;
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.unsent, counts.unanswered), (0, 0));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn while_the_link_is_away_no_attempt_is_used_up() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.hang("main");
    world.says("main", "Owner", "hello").await;
    for _ in 0..50 {
        let stuck = world.stuck().await;
        world.link(LinkState::Connecting);
        stuck.outcome.send(Err(SendError::Later("not connected".to_owned()))).unwrap();
        world.silence(Duration::from_secs(60)).await;
        world.link(LinkState::Online);
    }
    world.chats.hang_no_more("main");
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn where_kai_may_not_write_first_everything_is_given_up_and_the_owner_is_told() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.leave_unacknowledged();
    world.says("family", "Ana", "@Kai tell a story").await;
    world.prompt().await.answer(&long());
    let first = world.hears().await;
    for _rest in 0..3 {
        world.hears().await;
    }
    world.answers(&first.id, Answer::Nacked { code: 463 }).await;
    let told = world.hears().await;
    insta::assert_snapshot!(told.text, @"Kai: WhatsApp does not let me write in the chat of the group family, as nobody there wrote to me first. I gave up what I had to say there. Please have them write to me, then ask me again there.");
    assert_eq!(told.group, "main");
    world.answers(&told.id, Answer::Acked).await;
    let given_up = world.store.given_up_replies().await.unwrap();
    assert_eq!(given_up.len(), 4, "{given_up:?}");
    assert_eq!(given_up[0].why, "WhatsApp refused it (463)");
    assert_eq!(given_up[0].group.as_ref().unwrap().as_str(), "family");

    // The owner is not told again on the same day, and the chat that works loses nothing.
    world.says("family", "Ana", "@Kai again").await;
    world.prompt().await.answer("Again.");
    // The parts that WhatsApp did not answer come again in between.
    let again = loop {
        let heard = world.hears().await;
        if heard.text == "Kai: Again." {
            break heard;
        }
        world.answers(&heard.id, Answer::Acked).await;
    };
    world.answers(&again.id, Answer::Nacked { code: 463 }).await;
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.nacked, counts.dead), (2, 3));
    world.link(LinkState::Connecting);
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn where_kai_writes_too_much_he_rests_for_an_hour_and_goes_on_in_order() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai tell a story").await;
    world.chats.leave_unacknowledged();
    world.prompt().await.answer(&long());
    let mut parts = Vec::new();
    for _ in 0..4 {
        parts.push(world.hears().await);
    }
    for heard in &parts[..3] {
        world.answers(&heard.id, Answer::Acked).await;
    }
    world.answers(&parts[3].id, Answer::Nacked { code: 429 }).await;
    let told = world.hears().await;
    insta::assert_snapshot!(told.text, @"Kai: WhatsApp says that I write too much in the chat of the group family. What I have to say there waits for an hour. Please ask me for less there for a while.");
    assert_eq!(told.group, "main");
    world.answers(&told.id, Answer::Acked).await;

    let before = world.seconds();
    for number in '4'..='7' {
        let heard = world.hears().await;
        assert_eq!(part(&heard), number);
        assert!((3_600..3_610).contains(&(world.seconds() - before)), "{}", world.seconds() - before);
        world.answers(&heard.id, Answer::Acked).await;
    }
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_given_up_is_told_to_the_owner_once_a_day() {
    let mut world = World::new(Behaviour::Echo).await;
    for _ in 0..2 {
        world.chats.refuse_next(SendError::Never("no such chat".to_owned()));
        world.says("family", "Ana", "@Kai hello").await;
        world.passes(Duration::from_secs(600)).await;
    }
    insta::assert_snapshot!(world.hears_in("main").await, @"Kai: I could not send what I had to say in the group family, and gave it up. `nanokimi status` says why; please ask me again there.");
    world.silence(HOUR * 24).await;
    world.chats.refuse_next(SendError::Never("no such chat".to_owned()));
    world.says("family", "Ana", "@Kai hello").await;
    assert!(world.hears_in("main").await.starts_with("Kai: I could not send"));
    // For the main channel itself there is no other chat to tell.
    world.chats.refuse_next(SendError::Never("no such chat".to_owned()));
    world.says("main", "Owner", "hello").await;
    world.silence(HOUR).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_hangs_does_not_hold_up_the_others() {
    let mut world = World::new(Behaviour::Echo).await;
    world.chats.hang("family");
    world.says("family", "Ana", "@Kai first").await;
    let stuck = world.stuck().await;
    world.says("family", "Ana", "@Kai second").await;
    let began = world.seconds();
    world.says("main", "Owner", "hello").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    assert!(world.seconds() - began < 5);
    world.chats.hang_no_more("family");
    stuck.outcome.send(Err(SendError::Later("it took too long".to_owned()))).unwrap();
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai first");
    assert_eq!(world.hears_in("family").await, "Kai: echo: @Kai second");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_leaves_as_fast_as_people_read_and_others_do_not_wait_for_it() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("family", "Ana", "@Kai tell a story").await;
    world.says("main", "Owner", "hello").await;
    let mut prompts = [world.prompt().await, world.prompt().await];
    prompts.sort_by(|one, other| one.group.cmp(&other.group));
    let [family, main] = prompts;
    family.answer(&long());
    let began = world.seconds();
    for (number, second) in ('1'..='7').zip([0, 0, 0, 0, 1, 2, 3]) {
        let heard = world.hears().await;
        assert_eq!((heard.group.as_str(), part(&heard)), ("family", number));
        assert_eq!(world.seconds() - began, second);
    }
    main.answer("hello");
    assert_eq!(world.hears_in("main").await, "Kai: hello");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_chat_that_says_hundreds_of_things_is_slowed_down_the_owner_is_told_once_and_nothing_is_lost() {
    let mut world = World::new(Behaviour::Echo).await;
    let family = ChatId::new("family@g.us");
    for number in 0..150 {
        world.store.notify_chat(&family, &format!("Kai: {number}"), world.now()).await.unwrap();
    }
    let began = world.seconds();
    world.says("main", "Owner", "hello").await;
    let (mut numbers, mut told) = (Vec::new(), Vec::new());
    while numbers.len() < 150 {
        let heard = world.hears().await;
        match heard.group.as_str() {
            "family" => numbers.push(heard.text),
            _ => told.push((heard.text, world.seconds() - began)),
        }
    }
    assert_eq!(numbers, (0..150).map(|number| format!("Kai: {number}")).collect::<Vec<_>>());
    let took = world.seconds() - began;
    assert!((880..930).contains(&took), "{took}");
    let [(hello, hello_at), (slow, slow_at)] = &told[..] else { panic!("{told:?}") };
    assert_eq!(hello, "Kai: echo: hello");
    assert!(*hello_at < 10, "others do not wait: {hello_at}");
    assert!(slow.contains("comes slowly, two messages a minute") && *slow_at < 125, "{slow} {slow_at}");
    // A service that stops meanwhile does not wait for the slow messages.
    for number in 0..3 {
        world.store.notify_chat(&family, &format!("Kai: {number}"), world.now()).await.unwrap();
    }
    let before = world.seconds();
    world.stop_hearing().await;
    assert!(world.seconds() - before < 5);
    assert!(world.store.queue_counts().await.unwrap().unsent >= 2, "they are kept");
}

#[tokio::test(start_paused = true)]
async fn the_owner_reads_in_the_main_channel_that_it_is_slow_itself() {
    let mut world = World::new(Behaviour::Echo).await;
    let main = ChatId::new("main@g.us");
    for number in 0..126 {
        world.store.notify_chat(&main, &format!("Kai: {number}"), world.now()).await.unwrap();
    }
    world.says("main", "Owner", "hello").await;
    let mut heard = Vec::new();
    while heard.len() < 128 {
        heard.push(world.hears_in("main").await);
    }
    assert_eq!(heard[126], "Kai: echo: hello");
    assert!(heard[127].contains("comes slowly"), "{}", heard[127]);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_stop_sends_what_is_due_first_and_keeps_the_pace() {
    let mut world = World::new(Behaviour::Held).await;
    world.says("main", "Owner", "tell a story").await;
    world.prompt().await.answer(&long());
    assert_eq!(part(&world.hears().await), '1');
    let mut left = world.stop_hearing().await.into_iter();
    for number in '2'..='7' {
        assert_eq!(part(&left.next().unwrap()), number);
    }
    assert_eq!(left.next(), None);
    assert_eq!(world.store.queue_counts().await.unwrap().unsent, 0);
}

#[tokio::test(start_paused = true)]
async fn a_link_that_only_a_person_can_bring_back_ends_the_service_and_says_which() {
    for link in [LinkState::Unlinked, LinkState::Replaced, LinkState::LoggedOut, LinkState::Outdated] {
        let mut world = World::new(Behaviour::Held).await;
        world.says("main", "Owner", "patience").await;
        world.prompt().await.step();
        world.link(link.clone());
        assert_eq!(world.ended().await, StopReason::Link(link.clone()));
        assert_eq!(world.docker.running(), 0);
        assert_eq!(world.store.last_link_state().await.unwrap().unwrap().link, link);

        world.start().await;
        world.prompt().await.answer("rewarded");
        assert_eq!(world.hears_in("main").await, "Kai: rewarded");
        world.ends().await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_locked_for_a_time_is_waited_for() {
    let mut world = World::new(Behaviour::Echo).await;
    let until = world.now() + jiff::SignedDuration::from_hours(1);
    world.link(LinkState::Banned { until });
    world.says("main", "Owner", "are you there?").await;
    world.silence(HOUR).await;
    assert_eq!(world.store.last_link_state().await.unwrap().unwrap().link, LinkState::Banned { until });
    world.link(LinkState::Online);
    assert_eq!(world.hears_in("main").await, "Kai: echo: are you there?");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn where_messages_disappear_kais_do_too() {
    let mut world = World::new(Behaviour::Echo).await;
    for (id, expires_secs) in [("1", Some(86_400)), ("2", None)] {
        let mut written = message("family", id, "Ana", "@Kai hello", world.now());
        written.expires_secs = expires_secs;
        world.writes(written).await;
        assert_eq!(world.hears().await.expires_secs, expires_secs);
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn many_chats_at_once_are_all_answered() {
    let mut world = World::without_service(Behaviour::Echo).await;
    world.settings(|settings| settings.max_agents = 30);
    for number in 0..30 {
        world.add_group(&format!("g{number}"), Role::Member).await;
    }
    world.start().await;
    for number in 0..30 {
        world.says(&format!("g{number}"), "Ana", "@Kai hello").await;
    }
    let mut groups = Vec::new();
    for _ in 0..30 {
        groups.push(world.hears().await.group);
    }
    groups.sort();
    groups.dedup();
    assert_eq!(groups.len(), 30);
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_asked_at_a_terminal_is_never_given_to_whatsapp() {
    let mut world = World::new(Behaviour::Echo).await;
    let at_terminal = ChatId::new("console:desk");
    world.store.notify_chat(&at_terminal, "Kai: this is for the terminal", world.now()).await.unwrap();
    world.says("main", "Owner", "hello").await;
    assert_eq!(world.hears_in("main").await, "Kai: echo: hello");
    world.silence(HOUR).await;
    assert_eq!(
        world.store.count_unfinished_work(&at_terminal).await.unwrap(),
        1,
        "it waits for the next `chat`"
    );
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_that_whatsapp_does_not_take_becomes_a_sentence_and_the_chat_goes_on() {
    let mut world = World::new(Behaviour::Held).await;
    fs::write(world.in_folder("family", "chart.png"), "a chart").unwrap();
    let later = || SendError::Later("the file could not be uploaded".to_owned());
    for (refusals, caption) in
        [(vec![later(); 5], "The year"), (vec![SendError::Never("too large".to_owned())], "")]
    {
        world.says("family", "Ana", "@Kai the chart?").await;
        let began = world.seconds();
        refusals.into_iter().for_each(|refusal| world.chats.refuse_next(refusal));
        world.prompt().await.answer(&format!("<file path=\"chart.png\">{caption}</file>\nMore?"));
        let instead = world.hears_in("family").await;
        assert!(instead.ends_with("⚠️ I could not send a file: WhatsApp did not take it."), "{instead}");
        assert!(instead.starts_with(&format!("Kai: {caption}")), "{instead}");
        assert_eq!(world.hears_in("family").await, "Kai: More?");
        assert!(world.seconds() - began < 30);
    }
    let counts = world.store.queue_counts().await.unwrap();
    assert_eq!((counts.unsent, counts.dead), (0, 0));
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn what_whatsapp_answers_while_the_service_stops_is_not_sent_again() {
    let mut world = World::new(Behaviour::Held).await;
    world.chats.leave_unacknowledged();
    world.says("main", "Owner", "hello").await;
    world.prompt().await.answer("Hello.");
    let last = world.hears().await;
    world.begin_stop();
    world.passes(Duration::from_millis(500)).await;
    let late = message("main", "late", "Owner", "one more", world.now());
    world.writes(late).await;
    world.answers(&last.id, Answer::Acked).await;
    world.stop().await;
    world.start().await;
    // The message that came meanwhile is answered now, and nothing else is said before it.
    let turn = world.prompt().await;
    assert!(turn.text.contains("one more"), "{}", turn.text);
    turn.answer("Yes?");
    let heard = world.hears().await;
    assert_eq!(heard.text, "Kai: Yes?");
    world.answers(&heard.id, Answer::Acked).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn a_file_larger_than_the_bridge_takes_is_said_so_whatever_may_come_in() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.media_limit_bytes = 100 * 1024 * 1024);
    world.start().await;
    let film = fs::File::create(world.in_folder("main", "film.mp4")).unwrap();
    film.set_len(64 * 1024 * 1024 + 1).unwrap();
    world.says("main", "Owner", "the film?").await;
    world.prompt().await.answer("<file path=\"film.mp4\"></file>");
    assert_eq!(world.hears_in("main").await, "Kai: ⚠️ I could not send a file: it is larger than 64 MB.");
    world.ends().await;
}
