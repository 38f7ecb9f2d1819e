//! What the chat reads if the real engine gets no answer from the model.

use std::collections::BTreeMap;
use std::time::Duration;

use nanokimi::agent::Engine;
use nanokimi::types::Role;
use support::container_world::World;
use support::test_service::Heard;
use tokio::time::sleep;

#[tokio::test]
async fn every_trouble_of_the_model_is_told_once_and_the_next_message_is_answered() {
    for engine in Engine::ALL {
        let mut world = World::without_service_with(engine).await;
        world.settings(|settings| settings.max_agents = 5);
        let troubles = [
            (
                "broken",
                "ERR 500",
                "I tried 3 times and could not answer. Kimi is overloaded or out of order at the moment.",
            ),
            (
                "overloaded",
                "ERR 529\nAFTER 3600",
                "I tried 3 times and could not answer. Kimi is overloaded or out of order at the moment.",
            ),
            (
                "large",
                "ERR 413",
                "I could not answer. What I would have to show Kimi at once is too large for it.",
            ),
            ("empty", "EMPTY", "I tried 3 times and could not answer. Kimi gave me an empty answer."),
            (
                "dropped",
                "DROP",
                "I tried 3 times and could not answer. I cannot reach Kimi over the internet.",
            ),
        ];
        for (group, _, _) in troubles {
            world.add_group(group, Role::Member).await;
        }
        world.start().await;
        for (group, directive, _) in troubles {
            world.says(group, &format!("@Kai {directive}")).await;
        }
        let mut notices = BTreeMap::new();
        for _ in troubles {
            let Heard { group, text, .. } = world.hears().await;
            assert_eq!(notices.insert(group, text), None, "{notices:#?}");
        }
        for (group, _, notice) in troubles {
            assert!(notices[group].starts_with(&format!("Kai: {notice}")), "{notices:#?}");
            assert_eq!(world.asks(group, "@Kai SAY better now").await, "Kai: better now");
            assert_eq!(world.outbox(group).len(), 2);
        }
        assert_eq!(world.asked("SELECT state FROM inbox WHERE state <> 'done'"), ["parked"; 5]);
        world.ends().await;
    }
}

#[tokio::test]
async fn every_trouble_of_the_account_is_told_once_and_what_was_asked_is_answered_afterwards() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        for (directive, happened) in [
            ("ERR 403", "Kimi refuses to answer me, and does not say why."),
            ("ERR 401", "I am not logged in to Kimi, or the login has expired."),
            ("ERR 429\nAFTER 3600", "I have asked Kimi as much as it allows for now."),
            ("ERR 402", "Kimi finds no active membership for the account that I use."),
            ("ERR 404", "Kimi does not give me the model that I am set to use."),
        ] {
            let asked_before = world.model_requests(directive.lines().next().unwrap());
            world.says("family", &format!("@Kai {directive}")).await;
            let mut told = [world.hears().await, world.hears().await];
            told.sort_by(|one, other| one.group.cmp(&other.group));
            let [to_chat, to_owner] = told.map(|heard| (heard.group, heard.text));
            let start = |beginning| format!("Kai: {beginning} {happened}");
            assert!(
                to_chat.0 == "family" && to_chat.1.starts_with(&start("I cannot answer now.")),
                "{to_chat:?}"
            );
            let to_owner_says = start("I cannot answer in any chat now.");
            assert!(to_owner.0 == "main" && to_owner.1.starts_with(&to_owner_says), "{to_owner:?}");
            // The engine does not ask again: the egress proxy has given it an answer that it takes as final.
            let asked = world.model_requests(directive.lines().next().unwrap()) - asked_before;
            assert_eq!(asked, 1, "{directive}");
            assert_eq!(world.asks("family", "@Kai SAY better now").await, "Kai: better now");
        }
        assert_eq!(world.asked("SELECT DISTINCT state FROM inbox"), ["done"]);
        world.ends().await;
    }
}

#[tokio::test]
async fn a_passing_trouble_of_the_model_is_not_noticed() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        assert_eq!(world.asks("family", "@Kai ERR 500 1\nSAY there").await, "Kai: there");
        assert_eq!(world.asks("family", "@Kai ERR 429 2\nAFTER 1\nSAY and there").await, "Kai: and there");
        assert_eq!(world.asks("family", "@Kai ERR 503 1\nAFTER 1\nSAY and here").await, "Kai: and here");
        assert_eq!(world.asked("SELECT outcome FROM turns"), ["answered"; 3]);
        // The text of an answer that broke off is not said.
        assert_eq!(world.asks("family", "@Kai DROP 1\nSAY the whole of it").await, "Kai: the whole of it");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_missing_login_is_told_once_to_each_and_starts_nothing() {
    let mut world = World::without_service().await;
    world.logged_out();
    world.start().await;
    let to_owner = world.hears_in("main").await;
    assert!(to_owner.starts_with("Kai: I cannot answer in any chat now. I am not logged in"), "{to_owner}");
    let notice = world.asks("family", "@Kai hello").await;
    assert!(notice.starts_with("Kai: I cannot answer now. I am not logged in to Kimi"), "{notice}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!((world.outbox("family").len(), world.outbox("main").len()), (1, 1));
    assert_eq!(world.practice.received_requests(), []);
    world.ends().await;
}

#[tokio::test]
async fn a_model_that_says_nothing_is_given_up_in_time_and_the_next_message_is_answered() {
    for engine in Engine::ALL {
        let mut world = World::without_service_with(engine).await;
        world.settings(|settings| settings.time_limits.turn = Duration::from_secs(3));
        world.start().await;
        let notice = world.asks("family", "@Kai HANG").await;
        assert!(notice.starts_with("Kai: I could not answer. It took longer than I may work on"), "{notice}");
        assert_eq!(world.asks("family", "@Kai SAY better now").await, "Kai: better now");
        assert_eq!(world.outbox("family").len(), 2);
        world.ends().await;
    }
}
