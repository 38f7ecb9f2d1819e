//! The owner's own kimi-cli uses the service's login. Both work and both renew it, and the login is never
//! lost.
//!
//! It is the real kimi-cli; it runs from the agent image only because Python is there. It has a container of
//! its own, whose `~/.kimi/credentials` is the same folder in which the service keeps the login. Its requests
//! go to the practice server with the real login, not through the egress proxies.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nanokimi::agent::Engine;
use nanokimi::container::spec::{
    self, ContainerLimits, ContainerSpec, DaemonUser, LaunchInputs, SearchServices,
};
use nanokimi::container::{ContainerExit, Containers, RunningContainer, image};
use nanokimi::types::{InstallId, Role, RunId};
use serde_json::{Value, json};
use support::container_world::World;
use support::fixture::{PATIENCE, gone, ready, until};
use support::login_server::LoginFault;
use support::test_service;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpStream, UnixListener};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// kimi-cli renews at every turn a token with less than five minutes left. The service renews at half of a
/// token's life. So both renew all the time.
const LIFETIME: Duration = Duration::from_secs(2);
const LIFETIMES: u32 = 20;
/// How long a renewal takes: long enough for the other program to look meanwhile.
const SLOW: Duration = Duration::from_millis(300);
const DEVICE: &str = "0123456789abcdef0123456789abcdef";

#[expect(clippy::print_stdout, reason = "figures for docs/reliability.md")]
#[tokio::test]
async fn a_kimi_cli_on_the_host_and_the_service_renew_one_login_and_both_stay_logged_in() {
    let mut world = World::without_service().await;
    let desk = world.log_in(LIFETIME);
    world.start().await;
    let mut kimi = HostsKimi::start(&world).await;
    let (mut turns, mut renewed_by) = (0_u32, BTreeSet::new());
    let began = Instant::now();
    while began.elapsed() < LIFETIME * LIFETIMES {
        desk.queue_faults([LoginFault::Slow(SLOW)]);
        // Different lengths, so that the two meet at every moment of a renewal.
        let ticks = turns % 4 + 1;
        let asked = format!("SLEEP {}\nSAY question {turns}", f64::from(ticks) / 2.0);
        let said: String = (0..ticks).map(|tick| format!("tick{tick} ")).collect();
        let answer = format!("{said}question {turns}");
        let called = format!("@Kai {asked}");
        let (own, ours) = tokio::join!(kimi.asks(&asked), world.asks("family", &called));
        assert_eq!(own, Ok(answer.clone()), "turn {turns}");
        assert_eq!(ours, format!("Kai: {answer}"));
        turns += 1;
        let requests = world.practice.received_requests();
        let renewals = requests.into_iter().filter(|request| request.line == "POST /api/oauth/token");
        renewed_by.extend(renewals.map(|request| request.headers["x-msh-device-id"].clone()));
    }
    let counts = desk.counts();
    assert_eq!((counts.refreshes_refused, counts.refreshes), (0, counts.refreshes_granted), "{counts:?}");
    let ours = fs::read_to_string(world.paths().device_id_file()).unwrap();
    assert_eq!(renewed_by, BTreeSet::from([DEVICE.to_owned(), ours]), "both have renewed it");
    assert!(counts.refreshes > u64::from(LIFETIMES), "{counts:?}");
    assert_eq!(world.outbox("main"), Vec::<String>::new(), "the owner was told of nothing");
    println!("{turns} turns of each in {LIFETIMES} lifetimes: {} renewals, none refused", counts.refreshes);

    kimi.ends().await;
    assert_eq!(world.asks("family", "@Kai SAY still here").await, "Kai: still here");
    let outcomes = world.asked("SELECT DISTINCT outcome FROM turns");
    assert_eq!(outcomes, ["answered"]);
    let login = world.paths().login_file();
    let is_good = async || desk.can_refresh_from(&fs::read_to_string(&login).unwrap());
    until("the login on disk is the good one", is_good).await;
    world.ends().await;
}

struct HostsKimi {
    running: RunningContainer,
    requests: usize,
    road: JoinHandle<()>,
    _folder: TempDir,
}

impl HostsKimi {
    async fn start(world: &World) -> Self {
        let docker = ready().await;
        let folder = tempfile::tempdir().unwrap();
        let server = world.practice.oauth_host().trim_start_matches("http://").to_owned();
        let road = UnixListener::bind(folder.path().join("door.sock")).unwrap();
        let road = tokio::spawn(carry(road, server));
        let spec = spec_of(world, folder.path());
        for mount in spec.mounts.iter().filter(|mount| !mount.host.exists()) {
            fs::create_dir_all(&mount.host).unwrap();
        }
        let running = docker.launch_container(&spec).await.unwrap();
        let mut kimi = Self { running, requests: 0, road, _folder: folder };
        let hello = kimi.requests("initialize", json!({ "protocol_version": "1.10" })).await;
        assert_eq!(hello.unwrap().1["server"]["version"], "1.51.0");
        kimi
    }

    /// One turn: its text, or its error.
    async fn asks(&mut self, text: &str) -> Result<String, Value> {
        self.requests("prompt", json!({ "user_input": text })).await.map(|(said, _)| said)
    }

    /// The text until a request is answered, and the answer.
    async fn requests(&mut self, method: &str, params: Value) -> Result<(String, Value), Value> {
        self.requests += 1;
        let id = format!("request-{}", self.requests);
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        self.running.stdin.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        loop {
            let message = self.hears().await;
            let event = &message["params"];
            if event["type"] == "ContentPart" && event["payload"]["type"] == "text" {
                said += event["payload"]["text"].as_str().unwrap();
            }
            if message["id"] == id.as_str() {
                return match message.get("error") {
                    Some(error) => Err(error.clone()),
                    None => Ok((said, message["result"].clone())),
                };
            }
        }
    }

    /// The next line, read byte by byte: no bytes stay in a buffer between two requests.
    async fn hears(&mut self) -> Value {
        let mut line = Vec::new();
        while !line.ends_with(b"\n") {
            let byte = timeout(PATIENCE, self.running.stdout.read_u8()).await.expect("it says something");
            line.push(byte.expect("it goes on"));
        }
        serde_json::from_slice(&line).unwrap()
    }

    async fn ends(self) {
        let RunningContainer { stdin, exit, name, .. } = self.running;
        drop(stdin);
        assert_eq!(timeout(PATIENCE, exit).await.unwrap(), ContainerExit::Code(0));
        gone(&name).await;
        self.road.abort();
    }
}

/// Like a group's container, but with the login itself, and without the egress proxy.
fn spec_of(world: &World, road: &Path) -> ContainerSpec {
    let paths = world.paths();
    let install = InstallId::new(format!("{}-owner", world.install()));
    let engine = Engine::KimiCli;
    let engine_in_it = spec::EngineSpec {
        name: engine.name(),
        home: engine.home_in_container(),
        config: engine.config_path_in_container(),
        sessions_apart: None,
    };
    let launch = LaunchInputs {
        paths: &paths,
        install: &install,
        run: &RunId::new(format!("{install}-1")),
        engine: engine_in_it,
        image: &image::agent_image_name(engine),
        daemon: DaemonUser::Rootless,
        limits: ContainerLimits::STANDARD,
        time_zone: "Europe/Madrid",
        assistant: "Kai",
        model: None,
        session: "main",
        device: DEVICE,
        services: SearchServices::None,
        lent: &[],
    };
    let mut spec = spec::build_container_spec(&launch, &test_service::group("owner", Role::Member)).unwrap();
    for mount in &mut spec.mounts {
        match mount.container.as_str() {
            "/home/node/.kimi/config.toml" => mount.host = paths.engine_config_file(),
            "/home/node/.kimi/credentials" => mount.host = paths.credentials_folder(),
            "/run/nanokimi" => mount.host = road.to_owned(),
            _ => {}
        }
    }
    spec
}

/// Carries all bytes to the practice server and back.
async fn carry(from: UnixListener, server: String) {
    while let Ok((mut inside, _)) = from.accept().await {
        let server = server.clone();
        tokio::spawn(async move {
            let mut outside = TcpStream::connect(server).await.unwrap();
            // The side that closes first needs no more data.
            copy_bidirectional(&mut inside, &mut outside).await.ok();
        });
    }
}
