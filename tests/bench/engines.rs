//! The figures of `docs/performance.md` that are the engines' own: how soon a message is before the model,
//! with a container that runs and with none, and what an agent holds that waits.
//!
//! The real service, rootless Docker, the agent images and the engines; only the model is the practice one.
//! Runs as the person whose Docker it is: `tests/run bench` does that. Fails if something is missing.

#![expect(clippy::unwrap_used, reason = "a figure that cannot be taken ends the run")]
#![expect(clippy::print_stdout, reason = "the table is what this program is for")]

use std::fs;
use std::time::{Duration, Instant};

use nanokimi::agent::Engine;
use nanokimi::clock::Clock;
use nanokimi::container::memory;
use nanokimi::types::Role;
use support::container_world::World;
use support::figures::{self, Figure, Spread};
use support::fixture::{PATIENCE, gone, running};
use tokio::time::sleep;

/// Starts of each engine; the half of them is what counts.
const STARTS: usize = 5;
/// Messages to each container that runs.
const MESSAGES: usize = 5;
/// How long an agent is left alone before its memory is looked at.
const REST: Duration = Duration::from_secs(5);
/// More than a machine with 4 GB has agents for.
const CHATS: usize = 30;
/// How long somebody types before the message comes.
const TYPED_FOR: Duration = Duration::from_secs(3);
/// How long its processor time is counted afterwards.
const IDLE: Duration = Duration::from_secs(60);
/// Between two looks at whether the model was asked.
const LOOK: Duration = Duration::from_millis(1);

/// Of all engines, or of those that are named. As many threads as the service has (`src/cli/install.rs`).
#[tokio::main(worker_threads = 2)]
async fn main() {
    let named: Vec<String> = std::env::args().skip(1).collect();
    let mut figures = Vec::new();
    for engine in Engine::ALL {
        if named.is_empty() || named.contains(&engine.name().to_string()) {
            figures.extend(figures_of(engine).await);
        }
    }
    println!("{}", figures::table(&figures));
}

async fn figures_of(engine: Engine) -> Vec<Figure> {
    let mut world = World::without_service().await;
    world.settings(|settings| settings.engine = engine);
    world.start().await;
    let (mut cold, mut containers, mut engines, mut warm) = (vec![], vec![], vec![], vec![]);
    let (mut resident, mut own) = (Vec::new(), Vec::new());
    let mut idle = Duration::ZERO;
    for start in 0..STARTS {
        let at = Clock::System.now();
        cold.push(asks(&mut world, &format!("start {start}")).await);
        let container = world.container("family").await;
        let started: jiff::Timestamp = container["State"]["StartedAt"].as_str().unwrap().parse().unwrap();
        let until_it_ran = Duration::try_from(started.duration_since(at)).unwrap();
        containers.push(until_it_ran);
        engines.push(cold[start] - until_it_ran);
        for message in 0..MESSAGES {
            warm.push(asks(&mut world, &format!("message {message} of {start}")).await);
        }
        sleep(REST).await;
        let processes = processes_of(container["State"]["Pid"].as_u64().unwrap());
        resident.push(kilobytes(&processes, "VmRSS"));
        own.push(kilobytes(&processes, "RssAnon"));
        if start == 0 {
            let before = processor_time(&processes);
            sleep(IDLE).await;
            idle = processor_time(&processes) - before;
        }
        let killed = world.kill_container("family").await;
        gone(&killed).await;
    }
    let mut felt = Vec::new();
    for start in 0..STARTS {
        world.types("main").await;
        sleep(TYPED_FOR).await;
        felt.push(asks_in(&mut world, "main", &format!("typed {start}")).await);
        let killed = world.kill_container("main").await;
        gone(&killed).await;
    }
    let asked = world.practice.received_requests();
    assert!(asked.iter().all(|request| request.line == "POST /coding/v1/chat/completions"), "{asked:?}");
    world.ends().await;
    resident.sort_unstable();
    own.sort_unstable();
    let mut fitting = Vec::new();
    for gigabytes in [1, 2, 4] {
        fitting.push(Figure::number(
            &format!("  agents that a machine with {gigabytes} GB keeps"),
            agents_on(engine, gigabytes * 1024 * 1024 * 1024).await,
        ));
    }
    let name = engine.name();
    let (cold, warm) = (Spread::of(cold), Spread::of(warm));
    let mut figures = vec![
        Figure::spread(&format!("{name}: message to the model, no container runs"), &cold),
        Figure::spread("  of which until the container runs", &Spread::of(containers)),
        Figure::spread("  of which the engine's start and its first request", &Spread::of(engines)),
        Figure::spread("  with 3 s of typing before the message", &Spread::of(felt)),
        Figure::spread(&format!("{name}: message to the model, the container runs"), &warm),
        Figure::memory(&format!("{name}: memory of a container that waits"), resident[STARTS / 2], None),
        Figure::memory("  of which is its own", own[STARTS / 2], None),
        Figure::time(&format!("  processor time in {} s of waiting", IDLE.as_secs()), idle, None),
    ];
    figures.extend(fitting);
    figures
}

/// How many agents run when more have answered than a machine with so many bytes has memory for.
async fn agents_on(engine: Engine, machine: u64) -> usize {
    let mut world = World::without_service().await;
    world.settings(|settings| {
        settings.engine = engine;
        settings.max_agents = 100;
        settings.agents_memory_bytes = memory::agent_memory_share(machine);
    });
    let chats: Vec<String> = (0..CHATS).map(|number| format!("chat{number:02}")).collect();
    for chat in &chats {
        world.add_group(chat, Role::Member).await;
    }
    world.start().await;
    for chat in &chats {
        asks_in(&mut world, chat, "hello").await;
    }
    let agents = running(world.install()).await.len();
    world.ends().await;
    agents
}

/// How long a message takes until the model has it; waits for the answer, too.
async fn asks(world: &mut World, text: &str) -> Duration {
    asks_in(world, "family", text).await
}

async fn asks_in(world: &mut World, group: &str, text: &str) -> Duration {
    let answers = world.practice.answer_count();
    let began = Instant::now();
    world.says(group, &format!("@Kai SAY {text}")).await;
    while world.practice.answer_count() == answers {
        assert!(began.elapsed() < PATIENCE, "the model was not asked");
        sleep(LOOK).await;
    }
    let took = began.elapsed();
    assert_eq!(world.hears_in(group).await, format!("Kai: {text}"));
    took
}

/// A process of this machine and all that came from it.
fn processes_of(first: u64) -> Vec<u64> {
    let mut processes = vec![first];
    let mut looked_at = 0;
    while let Some(process) = processes.get(looked_at) {
        let children = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap();
        processes.extend(children.split_whitespace().map(|child| child.parse::<u64>().unwrap()));
        looked_at += 1;
    }
    processes
}

/// What these processes have used of the processor, to the hundredth of a second.
fn processor_time(processes: &[u64]) -> Duration {
    let ticks = processes.iter().map(|process| {
        let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        // The 14th and 15th of proc(5), of which two stand before the bracket: in user mode and in the
        // kernel.
        fields[11..=12].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>()
    });
    Duration::from_millis(ticks.sum::<u64>() * 1_000 / rustix::param::clock_ticks_per_second())
}

/// What the kernel says of these processes' memory, such as `VmRSS`.
fn kilobytes(processes: &[u64], name: &str) -> u64 {
    let of_one = |process: &u64| {
        let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap()
    };
    processes.iter().map(of_one).sum()
}
