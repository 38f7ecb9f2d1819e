//! Hours of a service whose login lives for seconds: four chats and both engines, all at work all the time.
//!
//! Kimi's access tokens live for 15 minutes, so there are four in an hour. Each is renewed at half of its
//! life, so an hour has eight renewals. Here a token lives for 6 s, and 24 s stand for such an hour. An
//! answer of 4 s stands for ten minutes, and outlives the token that it began with. The test takes two hours,
//! or as long as `TEST_SOAK_HOURS` says (`tests/run soak HOURS`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nanokimi::agent::Engine;
use nanokimi::cli::log_subscriber;
use nanokimi::types::Role;
use support::container_world::{World, runs, search, tool};
use support::fixture::{inspected, running, variable};
use support::login_server::MockLoginServer;
use tokio::task::JoinHandle;
use tokio::time::sleep;

const LIFETIME: Duration = Duration::from_secs(6);
/// A token is renewed at half of its life.
const PERIOD: Duration = Duration::from_secs(3);
/// Four lifetimes, as in an hour.
const HOUR: Duration = Duration::from_secs(24);
const HOURS: u32 = 2;
/// How long the longer answers take: longer than the rest of any token's life.
const LONG_SECS: u32 = 4;

const CHATS: [(&str, Role, Engine); 4] = [
    ("main", Role::Main, Engine::KimiCli),
    ("family", Role::Member, Engine::KimiCli),
    ("team", Role::Member, Engine::KimiCode),
    ("club", Role::Member, Engine::KimiCode),
];

#[expect(clippy::print_stdout, reason = "figures for docs/reliability.md")]
#[tokio::test]
async fn hours_of_expiring_tokens_are_noticed_by_nobody() {
    let hours = variable("TEST_SOAK_HOURS").map_or(HOURS, |hours| hours.parse().expect("a number of hours"));
    let log = Log::default();
    let _logging = log.begin();
    let mut world = World::without_service().await;
    world.add_group("team", Role::Member).await;
    world.add_group("club", Role::Member).await;
    for (group, role, engine) in CHATS {
        world.set_engine(group, role, engine).await;
    }
    let desk = world.log_in(LIFETIME);
    let renewals = Renewals::watch(&desk);
    world.start().await;

    // Each chat asks again as soon as it has its answer.
    let mut waiting = BTreeMap::new();
    let mut asked = 0;
    for (group, _, engine) in CHATS {
        world.says(group, &question(asked, engine)).await;
        waiting.insert(group.to_owned(), (asked, engine));
        asked += 1;
    }
    let began = Instant::now();
    let mut ids = BTreeSet::new();
    while !waiting.is_empty() {
        let heard = world.hears().await;
        let (number, engine) = waiting.remove(&heard.group).expect("it is answered once");
        assert!(heard.text.contains(&format!("question {number}.")), "{number}: {heard:?}");
        assert!(ids.insert(heard.id), "an id is used once");
        if began.elapsed() < HOUR * hours {
            world.says(&heard.group, &question(asked, engine)).await;
            waiting.insert(heard.group, (asked, engine));
            asked += 1;
        }
    }

    // The login is searched for in the places that agents can read: all files, and what all processes were
    // told when they started.
    let server = world.practice.oauth_host();
    let port = server.rsplit(':').next().unwrap();
    let is_login =
        |text: &str| ["access", "refresh"].iter().any(|kind| text.contains(&format!("{kind}-{port}-")));
    for (group, _, engine) in CHATS {
        fs::write(world.folder_of(group).join("decoy.txt"), format!("refresh-{port}-decoy")).unwrap();
        let answer = world
            .asks(group, &format!("@Kai {}", runs(engine, &search(&format!("(access|refresh)[-]{port}[-]")))))
            .await;
        let found = world.printed(group).unwrap_or_else(|error| panic!("{error}: {answer}"));
        assert_eq!(found, "/workspace/group/decoy.txt\nsearched\n", "{group}");
        asked += 1;
    }
    let containers = running(world.install()).await;
    assert_eq!(containers.len(), CHATS.len(), "{containers:?}");
    for container in containers {
        let container = inspected(&container).await.unwrap().to_string();
        assert!(!is_login(&container), "{container}");
    }
    let log = log.text();
    assert!(log.contains("TRACE") && log.contains("The turn is over"), "{log}");
    assert!(!is_login(&log), "the log holds a token");

    // Each turn was answered once and at its first try, whatever happened to its token.
    let answered = world.asked("SELECT outcome FROM turns");
    assert!(answered.len() == asked && answered.iter().all(|outcome| outcome == "answered"), "{answered:?}");
    let messages: usize = CHATS.iter().map(|(group, ..)| world.outbox(group).len()).sum();
    assert_eq!(messages, asked);

    // One renewal in each period; no renewal was refused, and no request was refused because of its token.
    let counts = desk.counts();
    let renewals = renewals.end();
    assert_eq!(counts.refreshes, counts.refreshes_granted, "{counts:?}");
    assert_eq!((counts.refreshes_refused, counts.refused), (0, 0), "{counts:?}");
    let pauses: Vec<Duration> = renewals.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(pauses.iter().all(|pause| (PERIOD.mul_f64(0.9)..LIFETIME).contains(pause)), "{pauses:?}");
    let periods = pauses.len() + 1;
    assert_eq!(u64::try_from(periods).unwrap(), counts.refreshes);
    assert!(periods >= usize::try_from(hours).unwrap() * 7, "{periods}");
    let asked_with: BTreeSet<String> = world
        .practice
        .received_requests()
        .into_iter()
        .filter_map(|mut request| request.headers.remove("authorization"))
        .collect();
    assert!(asked_with.len() > 1 && asked_with.iter().all(|header| is_login(header)), "{asked_with:?}");
    println!(
        "{hours} hours, {} s: {asked} turns, each answered once; {periods} periods, each with one renewal; none refused",
        began.elapsed().as_secs()
    );
    world.ends().await;
}

/// The question: a short one, a long one, or one for which the engine asks the model twice with a command
/// between.
fn question(number: usize, engine: Engine) -> String {
    match number / CHATS.len() % 3 {
        0 => format!("@Kai SAY question {number}."),
        1 => format!("@Kai SLEEP {LONG_SECS}\nSAY question {number}."),
        _ => {
            let tool = tool(engine);
            format!("@Kai CALL {tool} {{\"command\": \"sleep {LONG_SECS}; echo question {number}.\"}}")
        }
    }
}

/// The times when the login server was asked for a renewal.
struct Renewals {
    seen: Arc<Mutex<Vec<Instant>>>,
    watch: JoinHandle<()>,
}

impl Renewals {
    fn watch(desk: &MockLoginServer) -> Self {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (desk, noted) = (desk.clone(), Arc::clone(&seen));
        let watch = tokio::spawn(async move {
            let mut counted = 0;
            loop {
                let refreshes = desk.counts().refreshes;
                for _ in counted..refreshes {
                    noted.lock().unwrap().push(Instant::now());
                }
                counted = refreshes;
                sleep(Duration::from_millis(5)).await;
            }
        });
        Self { seen, watch }
    }

    fn end(self) -> Vec<Instant> {
        self.watch.abort();
        self.seen.lock().unwrap().clone()
    }
}

/// Everything that the service logs, at the lowest level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn begin(&self) -> tracing::subscriber::DefaultGuard {
        let log = self.clone();
        tracing::subscriber::set_default(log_subscriber("trace", false, move || log.clone()))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
