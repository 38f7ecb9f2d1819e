//! What each agent may do to which group, as one table: the main channel's agent, another group's, a third's.

use nanokimi::bridge::Event;
use nanokimi::types::{ChatId, PauseReason, Role, TaskState};
use serde_json::{Value, json};
use support::scripted_engine::{Behaviour, HeldPrompt};
use support::test_service::name;

use crate::world::World;

const HOLD: &str = "The owner is asked first";
const DENIED: &str = "do not work around it";

/// The groups main, family and third, each of which answers somebody; and the chat new@g.us, which is not served.
async fn three_agents() -> (World, Vec<HeldPrompt>) {
    let mut world = World::new(Behaviour::Held).await;
    world.add_group("third", Role::Member).await;
    let new = Event::Chat { id: ChatId::new("new@g.us"), name: "New Group".to_owned(), members: Some(5) };
    world.tells(vec![new]).await;
    let mut turns = Vec::new();
    for group in ["main", "family", "third"] {
        world.says(group, "Ana", "@Kai do something").await;
        turns.push(world.prompt().await);
    }
    (world, turns)
}

fn plan(group: Option<&str>, schedule: &str) -> Value {
    let mut arguments = json!({"text": "Say good night", "schedule": schedule});
    if let Some(group) = group {
        arguments["group"] = json!(group);
    }
    arguments
}

#[tokio::test(start_paused = true)]
async fn tasks_are_planned_and_changed_by_their_group_and_by_the_main_channel() {
    let (world, turns) = three_agents().await;
    for (caller, arguments, of_group) in [
        ("main", plan(Some("family"), "every 1d"), Some("family")),
        ("main", plan(Some("family@g.us"), "every 1d"), Some("family")),
        ("main", plan(None, "every 1d"), Some("main")),
        ("family", plan(None, "every 1d"), Some("family")),
        ("family", plan(Some("family@g.us"), "every 1d"), Some("family")),
        ("family", plan(Some("main"), "every 1d"), None),
        ("family", plan(Some("main@g.us"), "every 1d"), None),
        ("family", plan(Some("third"), "every 1d"), None),
        ("main", plan(Some("nobody"), "every 1d"), None),
        ("main", plan(Some("new@g.us"), "every 1d"), None),
        ("family", plan(None, "cron 0 9 * * *"), Some("family")),
        ("family", plan(None, "cron not a cron"), None),
        ("family", plan(None, "every 1h"), Some("family")),
        ("family", plan(None, "every abc"), None),
        ("family", plan(None, "every 0"), None),
        ("family", plan(None, "at not-a-date"), None),
        ("family", json!({"text": "x", "schedule": "every 1d", "zone": "NotATimezone"}), None),
        ("family", json!({"text": "x"}), None),
        ("family", json!({"text": "x", "schedule": "every 1d", "groupFolder": "main"}), None),
    ] {
        let before = world.store.tasks(None).await.unwrap();
        let said = world.calls(caller, "schedule_task", arguments.clone()).await;
        let after = world.store.tasks(None).await.unwrap();
        match of_group {
            Some(group) => {
                assert_eq!(after.len(), before.len() + 1, "{caller} {arguments}: {said}");
                let new = after.iter().max_by_key(|task| task.id).unwrap();
                assert_eq!(new.group.as_str(), group, "{caller} {arguments}");
                assert!(new.next_at.unwrap() > world.now(), "{caller} {arguments}");
            }
            None => assert_eq!(after, before, "{caller} {arguments}: {said}"),
        }
    }

    let task_of = async |group: &str| {
        world.store.tasks(Some(&name(group))).await.unwrap().first().expect("it has one").clone()
    };
    let (of_main, of_family) = (task_of("main").await.id, task_of("family").await.id);
    for (caller, tool, task, expected) in [
        ("main", "pause_task", of_family, Some(TaskState::Paused(PauseReason::Asked))),
        ("third", "resume_task", of_family, None),
        ("family", "resume_task", of_family, Some(TaskState::Active)),
        ("family", "pause_task", of_family, Some(TaskState::Paused(PauseReason::Asked))),
        ("main", "resume_task", of_family, Some(TaskState::Active)),
        ("family", "pause_task", of_main, None),
        ("third", "update_task", of_family, None),
        ("family", "cancel_task", of_main, None),
        ("third", "cancel_task", of_family, None),
    ] {
        let before = world.store.task(task).await.unwrap().unwrap();
        let arguments = match tool {
            "update_task" => json!({"task": task, "text": "Say nothing"}),
            _ => json!({"task": task}),
        };
        let said = world.calls(caller, tool, arguments).await;
        let after = world.store.task(task).await.unwrap().unwrap();
        assert_eq!(after.state, expected.unwrap_or(before.state), "{caller} {tool} {task}: {said}");
        assert_eq!(said.contains("There is no such task"), expected.is_none(), "{caller} {tool}: {said}");
    }
    for (caller, task) in [("family", of_family), ("main", of_main)] {
        world.calls(caller, "cancel_task", json!({"task": task})).await;
        assert_eq!(world.store.task(task).await.unwrap(), None, "{caller}");
    }
    for turn in turns {
        turn.answer("<internal>done</internal>");
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn groups_are_registered_by_the_main_channel_only_and_never_by_halves() {
    let (world, turns) = three_agents().await;
    let whole = json!({"name": "new-group", "chat": "new@g.us", "trigger": "@Andy"});
    for (caller, arguments, is_stored) in [
        ("family", whole.clone(), false),
        ("third", whole.clone(), false),
        ("main", json!({"chat": "new@g.us"}), false),
        ("main", json!({"name": "new-group"}), false),
        ("main", json!({"name": "../../etc", "chat": "new@g.us"}), false),
        ("main", json!({"name": "/tmp", "chat": "new@g.us"}), false),
        ("main", json!({"name": "global", "chat": "new@g.us"}), false),
        ("main", json!({"name": "", "chat": "new@g.us"}), false),
        ("main", json!({"name": "-rf", "chat": "new@g.us"}), false),
        ("main", json!({"name": "a b", "chat": "new@g.us"}), false),
        ("main", json!({"name": "new-group", "chat": "unheard-of@g.us"}), false),
        ("main", json!({"name": "new-group", "chat": "family@g.us"}), false),
        ("main", json!({"name": "family", "chat": "new@g.us"}), false),
        ("main", whole, true),
    ] {
        let said = world.calls(caller, "add_group", arguments.clone()).await;
        let stored = world.store.group_by_chat(&ChatId::new("new@g.us")).await.unwrap();
        assert_eq!(stored.is_some(), is_stored, "{caller} {arguments}: {said}");
    }
    let stored = world.store.group_by_name(&name("new-group")).await.unwrap().unwrap();
    assert_eq!((stored.trigger.as_deref(), stored.role), (Some("Andy"), Role::Member));

    for tool in ["list_groups", "list_chats", "refresh_groups", "register_group"] {
        let said = world.calls("family", tool, json!({})).await;
        assert!(!said.contains("main@g.us") && !said.contains("third"), "{tool}: {said}");
    }
    let listed = world.calls("main", "list_groups", json!({})).await;
    assert!(listed.contains("third@g.us") && listed.contains("new@g.us"), "{listed}");
    for turn in turns {
        turn.answer("<internal>done</internal>");
    }
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn messages_go_to_the_own_chat_from_main_to_any_and_to_strangers_if_the_owner_allows_it() {
    let (mut world, turns) = three_agents().await;
    for (caller, to, expected) in [
        ("main", Some("family"), "Sent."),
        ("main", Some("third@g.us"), "Sent."),
        ("main", None, "Sent."),
        ("family", None, "Sent."),
        ("family", Some("family@g.us"), "Sent."),
        ("family", Some("main"), DENIED),
        ("family", Some("third"), DENIED),
        ("family", Some("new@g.us"), DENIED),
        ("family", Some("unheard-of@g.us"), DENIED),
        ("main", Some("unheard-of@g.us"), "There is no such chat"),
        ("main", Some("new@g.us"), HOLD),
    ] {
        let mut arguments = json!({"text": format!("from {caller} to {to:?}")});
        if let Some(to) = to {
            arguments["to"] = json!(to);
        }
        let said = world.calls(caller, "send_message", arguments).await;
        assert!(said.contains(expected), "{caller} {to:?}: {said}");
        let chat = match (expected, to) {
            ("Sent.", to) => to.map_or(caller, |to| to.trim_end_matches("@g.us")),
            (HOLD, _) => "main",
            _ => continue,
        };
        let heard = world.hears().await;
        assert_eq!(heard.group, chat, "{caller} {to:?}");
        assert!(heard.text.contains(&format!("from {caller} to")), "{heard:?}");
    }
    for turn in turns {
        turn.answer("<internal>done</internal>");
    }
    world.ends().await;
}
