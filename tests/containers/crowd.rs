//! Twenty chats on a machine with 2 GB, each with an agent of its own. All ask at once, then again and again
//! at random. Every question is answered, and the kernel ends no process for lack of memory.
//!
//! `tests/run crowd SECONDS` runs it in a cgroup of that size, with Docker and all containers. It takes a
//! minute, or as long as `TEST_CROWD_SECS` says.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nanokimi::container::memory;
use nanokimi::types::Role;
use support::container_world::World;
use support::fixture::{running, variable};
use tokio::time::sleep;

const CHATS: usize = 20;
const SECONDS: u64 = 60;
/// The time between two questions at random.
const PAUSE: Duration = Duration::from_millis(700);

#[expect(clippy::print_stdout, reason = "figures for docs/performance.md")]
#[tokio::test]
async fn twenty_chats_on_two_gigabytes_are_all_answered() {
    let seconds =
        variable("TEST_CROWD_SECS").map_or(SECONDS, |secs| secs.parse().expect("a number of seconds"));
    let cgroup = variable("TEST_CROWD_CGROUP");
    let mut world = World::without_service().await;
    let budget = memory::agent_memory_budget();
    world.settings(|settings| {
        settings.max_agents = 100;
        settings.agents_memory_bytes = budget;
    });
    let chats: Vec<String> = (0..CHATS).map(|number| format!("chat{number:02}")).collect();
    for chat in &chats {
        world.add_group(chat, Role::Member).await;
    }
    world.start().await;

    let mut crowd = Crowd { asked: 0, waiting: BTreeMap::new(), waited: Vec::new(), most_agents: 0 };
    for chat in &chats {
        crowd.ask(&mut world, chat).await;
    }
    crowd.hear_all(&mut world).await;
    let at_once = crowd.waited.iter().max().copied().unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut dice = 7_u64;
    while Instant::now() < end {
        // Knuth's generator: the order of the chats is the same in each run.
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let chat = &chats[usize::try_from(dice >> 33).expect("a small number") % CHATS];
        if !crowd.waiting.contains_key(chat) {
            crowd.ask(&mut world, chat).await;
        }
        sleep(PAUSE).await;
        crowd.most_agents = crowd.most_agents.max(running(world.install()).await.len());
        while let Some(heard) = world.hears_now() {
            crowd.hear(&heard.group, &heard.text);
        }
    }
    crowd.hear_all(&mut world).await;
    crowd.waited.sort_unstable();
    let half = crowd.waited[crowd.waited.len() / 2];
    let longest = crowd.waited.last().copied().unwrap_or_default();
    println!(
        "{} questions, all answered; agents at once: {}, with {} MB for them; waited: half of them {:.1} s, at once {:.1} s, \
         longest {:.1} s",
        crowd.asked,
        crowd.most_agents,
        budget / 1024 / 1024,
        half.as_secs_f32(),
        at_once.as_secs_f32(),
        longest.as_secs_f32()
    );
    if let Some(cgroup) = cgroup {
        let killed = killed_for_memory(Path::new(&cgroup));
        println!("ended by the kernel for want of memory: {killed}");
        assert_eq!(killed, 0);
    }
    world.ends().await;
}

struct Crowd {
    asked: usize,
    /// The answers that have not come yet, by chat, and when they were asked for.
    waiting: BTreeMap<String, (String, Instant)>,
    waited: Vec<Duration>,
    most_agents: usize,
}

impl Crowd {
    async fn ask(&mut self, world: &mut World, chat: &str) {
        self.asked += 1;
        let word = format!("answer {}", self.asked);
        world.says(chat, &format!("@Kai SAY {word}")).await;
        self.waiting.insert(chat.to_owned(), (format!("Kai: {word}"), Instant::now()));
    }

    async fn hear_all(&mut self, world: &mut World) {
        while !self.waiting.is_empty() {
            let heard = world.hears().await;
            self.hear(&heard.group, &heard.text);
        }
    }

    fn hear(&mut self, chat: &str, text: &str) {
        if text.contains("working on it") {
            return;
        }
        let (expected, asked_at) = self.waiting.remove(chat).expect("somebody has asked there");
        assert_eq!(text, expected, "{chat}");
        self.waited.push(asked_at.elapsed());
    }
}

/// How many processes of a cgroup were ended for lack of memory: in `memory.events`, or in version 1.
fn killed_for_memory(cgroup: &Path) -> u64 {
    let told = ["memory.events", "memory.oom_control"].iter().find_map(|file| {
        let text = fs::read_to_string(cgroup.join(file)).ok()?;
        text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
    });
    told.expect("the cgroup tells it")
}
