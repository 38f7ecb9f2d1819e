//! Containers, the service and the program itself are killed, and go on from the point where they were.

use std::time::{Duration, Instant};

use nanokimi::agent::Engine;
use support::container_world::{World, runs};
use support::fixture::{containers_of, gone, running, until};
use tokio::time::sleep;

use crate::program::Program;

#[tokio::test]
async fn a_container_that_dies_between_two_turns_costs_no_memory() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        assert_eq!(
            world.asks("family", "@Kai SAY the boat leaves at nine").await,
            "Kai: the boat leaves at nine"
        );
        let killed = world.kill_container("family").await;
        gone(&killed).await;
        assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY the boat leaves at nine");
        assert_eq!(world.outbox("family").len(), 2);
        world.ends().await;
    }
}

#[tokio::test]
async fn a_container_that_dies_in_its_turn_is_followed_by_one_that_answers_once() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.says("family", "@Kai SLEEP 2").await;
        world.model_reads("SLEEP 2").await;
        let killed = world.kill_container("family").await;
        assert_eq!(world.hears_in("family").await, "Kai: tick0 tick1 tick2 tick3");
        assert_ne!(world.container("family").await["Id"], killed.as_str());
        assert_eq!(world.asked("SELECT outcome FROM turns ORDER BY id"), ["failed", "answered"]);
        world.ends().await;
    }
}

#[tokio::test]
async fn an_agent_that_kills_its_own_engine_is_given_up_after_three_tries_and_then_goes_on() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        let notice = world.asks("family", &format!("@Kai {}", runs(engine, "kill -9 -1"))).await;
        assert!(
            notice.starts_with("Kai: I tried 3 times and could not answer. I broke down in the middle"),
            "{notice}"
        );
        assert_eq!(world.asks("family", "@Kai SAY better now").await, "Kai: better now");
        assert_eq!(world.outbox("family").len(), 2);
        world.ends().await;
    }
}

#[tokio::test]
async fn an_agent_without_work_goes_away_and_remembers_when_it_is_called_again() {
    for engine in Engine::ALL {
        let mut world = World::without_service_with(engine).await;
        world.settings(|settings| settings.time_limits.idle = Duration::from_secs(1));
        world.start().await;
        assert_eq!(
            world.asks("family", "@Kai SAY the boat leaves at nine").await,
            "Kai: the boat leaves at nine"
        );
        until("the container has gone", async || containers_of(world.install()).await.is_empty()).await;
        assert_eq!(world.asks("family", "@Kai RECALL").await, "Kai: SAY the boat leaves at nine");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_service_that_stops_in_a_turn_ends_the_container_in_time_and_answers_after_its_next_start() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.says("family", "@Kai SLEEP 4").await;
        world.model_reads("SLEEP 4").await;
        let stopping = Instant::now();
        world.stop().await;
        // The engine ends about a second after its input is closed; it would be killed only after 10 s.
        assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
        assert_eq!(running(world.install()).await, Vec::<String>::new());
        assert_eq!(world.asked("SELECT state FROM inbox WHERE attempts = 0"), ["pending"]);

        world.start().await;
        assert_eq!(world.hears_in("family").await, "Kai: tick0 tick1 tick2 tick3 tick4 tick5 tick6 tick7");
        world.ends().await;
    }
}

#[tokio::test]
async fn a_program_that_is_asked_to_stop_in_a_turn_leaves_nothing_but_the_message() {
    let program = Program::new().await;
    program.receives("SLEEP 60").await;
    let service = program.starts(&["run"], &[]);
    until("the model is asked", async || !program.practice.received_requests().is_empty()).await;
    let stopping = Instant::now();
    service.stops().await;
    assert!(stopping.elapsed() < Duration::from_secs(10), "{:?}", stopping.elapsed());
    assert_eq!(program.asked("SELECT state FROM inbox WHERE attempts = 0"), ["pending"]);
    assert_eq!(program.asked("SELECT text FROM outbox"), [""; 0]);
    program.ends().await;
}

/// How far a message has come when the program is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Stored,
    ContainerMade,
    ModelAsked,
    HalfAnswered,
    Answered,
}

#[tokio::test]
async fn a_program_that_dies_at_any_moment_of_a_turn_answers_once() {
    use Moment::{Answered, ContainerMade, HalfAnswered, ModelAsked, Stored};
    tokio::join!(
        answers_once_when_killed(Stored),
        answers_once_when_killed(ContainerMade),
        answers_once_when_killed(ModelAsked),
        answers_once_when_killed(HalfAnswered),
        answers_once_when_killed(Answered),
    );
}

async fn answers_once_when_killed(moment: Moment) {
    const ANSWER: &str = "Kai: tick0 tick1 tick2 tick3";
    let program = Program::new().await;
    let install = program.install().await;
    let mut chat = program.starts(&["chat", "--group", "main"], &[]);
    chat.types("SLEEP 2").await;
    chat.prints("stored").await;
    let model_asked = async || !program.practice.received_requests().is_empty();
    match moment {
        Moment::Stored => {}
        Moment::ContainerMade => {
            until("a container is there", async || !containers_of(&install).await.is_empty()).await;
        }
        Moment::ModelAsked => until("the model is asked", model_asked).await,
        Moment::HalfAnswered => {
            until("the model is asked", model_asked).await;
            sleep(Duration::from_secs(1)).await;
        }
        Moment::Answered => chat.prints(ANSWER).await,
    }
    chat.dies().await;
    let lost: Vec<String> = names(&containers_of(&install).await);

    let mut chat = program.starts(&["chat", "--group", "main"], &[]);
    chat.prints("This is main").await;
    until("the answer is shown", async || {
        program.asked("SELECT state || ' ' || text FROM outbox") == [format!("acked {ANSWER}")]
    })
    .await;
    assert_eq!(program.asked("SELECT state FROM inbox"), ["done"], "{moment:?}");
    until("the old container is gone", async || {
        names(&containers_of(&install).await).iter().all(|name| !lost.contains(name))
    })
    .await;
    chat.ends().await;
    assert_eq!(program.asked("SELECT text FROM outbox"), [ANSWER], "{moment:?}");
    program.ends().await;
}

fn names(containers: &[serde_json::Value]) -> Vec<String> {
    containers.iter().map(|container| container["Names"][0].to_string()).collect()
}
