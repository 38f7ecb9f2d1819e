//! A Kimi login with real engines. If it is refused or lost, the chats do not notice, or are told once.

use std::time::Duration;

use nanokimi::agent::Engine;
use nanokimi::clock::Clock;
use nanokimi::types::Role;
use support::container_world::{World, runs};
use support::fixture::until;
use support::login_server::{LoginCounts, LoginFault};
use tokio::time::sleep;

const QUARTER_HOUR: Duration = Duration::from_secs(900);

#[tokio::test]
async fn a_token_that_ends_in_mid_turn_is_renewed_and_the_turn_is_answered_once() {
    for engine in Engine::ALL {
        let mut world = World::without_service_with(engine).await;
        let desk = world.log_in(QUARTER_HOUR);
        world.start().await;
        world.says("family", &format!("@Kai {}", runs(engine, "sleep 3"))).await;
        world.model_reads("sleep 3").await;
        desk.expire_access_tokens();
        // The output of the tool went to a file.
        assert!(world.hears_in("family").await.starts_with("Kai: tool said: "));
        let LoginCounts { refreshes, refreshes_refused, refused, .. } = desk.counts();
        assert_eq!((refreshes, refreshes_refused, refused), (1, 0, 1));
        assert_eq!(world.asked("SELECT outcome FROM turns"), ["answered"]);
        assert!(desk.can_refresh_from(&std::fs::read_to_string(world.paths().login_file()).unwrap()));
        world.ends().await;
    }
}

#[tokio::test]
async fn eight_chats_of_two_installs_whose_token_is_refused_at_once_are_answered_after_one_refresh() {
    const GROUPS: [&str; 4] = ["main", "family", "team", "club"];
    let mut ours = World::without_service_with(Engine::KimiCli).await;
    let desk = ours.log_in(QUARTER_HOUR);
    let mut theirs = ours.on_the_same_login().await;
    theirs.settings(|settings| settings.engine = Engine::KimiCode);
    for world in [&mut ours, &mut theirs] {
        world.add_group("team", Role::Member).await;
        world.add_group("club", Role::Member).await;
        world.start().await;
        for group in GROUPS {
            world.says(group, "@Kai SAY good morning").await;
        }
    }
    for world in [&mut ours, &mut theirs] {
        for _ in GROUPS {
            assert_eq!(world.hears().await.text, "Kai: good morning");
        }
    }
    assert_eq!(desk.counts(), LoginCounts::default());

    desk.expire_access_tokens();
    // So slow that all of them are refused before there is another token.
    desk.queue_faults([LoginFault::Slow(Duration::from_secs(4))]);
    for world in [&mut ours, &mut theirs] {
        for group in GROUPS {
            world.says(group, &format!("@Kai SAY and {group}")).await;
        }
    }
    for world in [&mut ours, &mut theirs] {
        let mut answers = Vec::new();
        for _ in GROUPS {
            answers.push(world.hears().await.text);
        }
        answers.sort();
        assert_eq!(answers, ["Kai: and club", "Kai: and family", "Kai: and main", "Kai: and team"]);
    }
    let LoginCounts { refreshes, refreshes_granted, refused, .. } = desk.counts();
    assert_eq!((refreshes, refreshes_granted, refused), (1, 1, 8));
    for world in [ours, theirs] {
        assert_eq!(world.asked("SELECT outcome FROM turns"), ["answered"; 8]);
        world.ends().await;
    }
}

#[tokio::test]
async fn a_login_that_is_not_renewed_is_told_once_to_each_and_a_new_one_answers_what_was_asked() {
    for engine in Engine::ALL {
        let mut world = World::without_service_with(engine).await;
        let desk = world.log_in(QUARTER_HOUR);
        world.start().await;
        desk.revoke_all_tokens();
        world.says("family", "@Kai SAY the boat leaves at nine").await;
        let mut told = [world.hears().await, world.hears().await];
        told.sort_by(|one, other| one.group.cmp(&other.group));
        let [to_chat, to_owner] = told;
        assert_eq!((to_chat.group.as_str(), to_owner.group.as_str()), ("family", "main"));
        assert!(
            to_chat.text.starts_with("Kai: I cannot answer now. I am not logged in to Kimi"),
            "{to_chat:?}"
        );
        let owner_reads = "Kai: I cannot answer in any chat now. I am not logged in to Kimi";
        assert!(to_owner.text.starts_with(owner_reads), "{to_owner:?}");
        sleep(Duration::from_secs(2)).await;
        assert_eq!((world.outbox("family").len(), world.outbox("main").len()), (1, 1));
        assert_eq!((desk.counts().refreshes, desk.counts().refreshes_refused), (1, 1));

        world.put_login(&desk.issue_login_file(Clock::System.now(), Duration::ZERO));
        assert_eq!(world.hears_in("family").await, "Kai: the boat leaves at nine");
        until("nothing waits any more", async || {
            world.asked("SELECT state FROM inbox WHERE state <> 'done'").is_empty()
        })
        .await;
        assert_eq!(desk.counts().refreshes, 1);
        world.ends().await;
    }
}
