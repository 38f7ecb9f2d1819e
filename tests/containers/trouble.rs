//! What the chat reads when the real engine gets no answer from the model.

use std::collections::BTreeMap;
use std::time::Duration;

use nanokimi::types::Role;
use tokio::time::sleep;

use crate::held::Heard;
use crate::world::World;

#[tokio::test]
async fn every_trouble_of_the_model_is_told_once_and_the_next_message_is_answered() {
    let mut world = World::without_service().await;
    world.settings(|settings| settings.max_agents = 6);
    let troubles = [
        ("refused", "ERR 403", "I could not answer. Kimi does not accept the account that I use."),
        ("unknown", "ERR 401", "I could not answer. I am not logged in to Kimi, or the login has expired."),
        (
            "limited",
            "ERR 429",
            "I tried 3 times and could not answer. I have asked Kimi as much as it allows for now.",
        ),
        (
            "broken",
            "ERR 500",
            "I tried 3 times and could not answer. Kimi is overloaded or out of order at the moment.",
        ),
        ("empty", "EMPTY", "I tried 3 times and could not answer. Kimi gave me an empty answer."),
        ("dropped", "DROP", "I tried 3 times and could not answer. I cannot reach Kimi over the internet."),
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
    assert_eq!(world.asked("SELECT state FROM inbox WHERE state <> 'done'"), ["parked"; 6]);
    world.ends().await;
}

#[tokio::test]
async fn a_passing_trouble_of_the_model_is_not_noticed() {
    let mut world = World::new().await;
    assert_eq!(world.asks("family", "@Kai ERR 500 1\nSAY there").await, "Kai: there");
    assert_eq!(world.asks("family", "@Kai ERR 429 4\nSAY and there").await, "Kai: and there");
    assert_eq!(world.asked("SELECT outcome FROM turns"), ["answered"; 2]);
    world.ends().await;
}

#[tokio::test]
async fn a_missing_login_is_explained_once() {
    let mut world = World::without_service().await;
    world.logged_out();
    world.start().await;
    let notice = world.asks("family", "@Kai hello").await;
    assert!(notice.starts_with("Kai: I could not answer. I am not logged in to Kimi"), "{notice}");
    sleep(Duration::from_secs(2)).await;
    assert_eq!(world.outbox("family").len(), 1);
    assert_eq!(world.practice.requests(), []);
    world.ends().await;
}

#[tokio::test]
async fn a_model_that_says_nothing_is_given_up_in_time_and_the_next_message_is_answered() {
    let mut world = World::without_service().await;
    world.settings(|settings| settings.time_limits.turn = Duration::from_secs(3));
    world.start().await;
    let notice = world.asks("family", "@Kai HANG").await;
    assert!(notice.starts_with("Kai: I could not answer. It took longer than I may work on"), "{notice}");
    assert_eq!(world.asks("family", "@Kai SAY better now").await, "Kai: better now");
    assert_eq!(world.outbox("family").len(), 2);
    world.ends().await;
}
