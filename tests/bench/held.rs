//! The service as the stories hold it, but with its database on a real disk and in real time: the bridge's end
//! in our hands, and in the container's place an engine that answers at once and says when it was asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use jiff::tz::TimeZone;
use nanokimi::agent::Engine;
use nanokimi::bridge::{self, Batch, BridgeEnd, Event, HandedOver, LinkState, Order};
use nanokimi::clock::Clock;
use nanokimi::container::spec::{ContainerLimits, DaemonUser};
use nanokimi::container::{AgentMemory, ContainerExit, ContainerSpec, Containers, RunningContainer};
use nanokimi::egress::KimiUpstream;
use nanokimi::folders;
use nanokimi::login::{Login, config_toml};
use nanokimi::paths::Paths;
use nanokimi::service::{self, BridgeReach, StopReason};
use nanokimi::session::{SessionContext, Settings, machine};
use nanokimi::store::{Rules, Store};
use nanokimi::types::{
    ChatId, Failure, Forwarded, Group, GroupName, IncomingMessage, InstallId, Lang, Mention, MessageId, Role,
    Secret, SenderId,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

/// What people say to each other, and nobody has to answer.
pub const CHATTER: &str = "The trip is on Friday, we meet at the station at nine.";
/// At a terminal: an install that has only such chats runs without a link to WhatsApp.
const CHAT: &str = "console:family";
/// `f_type` of a file system in memory (statfs(2)).
const TMPFS_MAGIC: i64 = 0x0102_1994;

/// A folder for the databases, beneath `target/`.
///
/// # Errors
/// A file system in memory: what it flushes says nothing.
pub fn real_disk() -> Result<TempDir> {
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let kind =
        rustix::fs::statfs(parent).with_context(|| format!("Failed to look at {}", parent.display()))?;
    if kind.f_type == TMPFS_MAGIC {
        bail!("{} is in memory; set CARGO_TARGET_DIR to a folder on a disk", parent.display());
    }
    tempfile::tempdir_in(parent).with_context(|| format!("Failed to make a folder in {}", parent.display()))
}

/// A running service.
pub struct Held {
    /// When the engine had each prompt in its hands.
    pub prompts: mpsc::UnboundedReceiver<Instant>,
    /// When the bridge had each reply in its hands.
    pub replies: mpsc::UnboundedReceiver<Instant>,
    batches: mpsc::Sender<Batch>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<StopReason>>,
    _folder: TempDir,
}

impl Held {
    /// A service with one group, in a new folder.
    pub async fn start(parent: &Path) -> Result<Self> {
        let folder = tempfile::tempdir_in(parent).context("Failed to make a folder")?;
        let paths = Paths::new(folder.path());
        folders::prepare_install_folders(&paths)?;
        config_toml::ensure_engine_config(&paths.engine_config_file())?;
        let clock = Clock::System;
        let store = Store::open(&paths.database_file())?;
        add_group(&store).await?;
        let (prompt_times, prompts) = mpsc::unbounded_channel();
        let (reply_times, replies) = mpsc::unbounded_channel();
        let (BridgeEnd { batches, orders, link }, end) = bridge::create_bridge_ends();
        link.send_replace(LinkState::Online);
        let login = Arc::new(Login::load_from_disk(
            &paths,
            Some(&Secret::new("sk-bench")),
            "http://127.0.0.1:9",
            clock.now(),
        ));
        let host = SessionContext {
            containers: PromptEngines { prompts: prompt_times },
            upstream: KimiUpstream::new(
                "http://127.0.0.1:9/coding/v1",
                login.watch_authorization(),
                login.refused_token_sender(),
            ),
            login,
            settings: Arc::new(settings(store.install_id().await?)),
            orders: end.orders.clone(),
            outbox_hint: Arc::new(Notify::new()),
            swept: Arc::default(),
            store,
            paths,
            clock,
        };
        tokio::spawn(take_replies(orders, reply_times));
        let (stop, stopped) = oneshot::channel::<()>();
        let (ready, is_ready) = oneshot::channel();
        let stopped = async {
            stopped.await.ok();
        };
        // As to a terminal: replies to WhatsApp leave no faster than people write.
        let reach = BridgeReach::Only(ChatId::new(CHAT));
        let task = tokio::spawn(service::run_service(host, end, reach, ready, stopped));
        is_ready.await.context("The service did not start")?;
        Ok(Self { prompts, replies, batches, stop, task, _folder: folder })
    }

    /// Hands a batch over; what comes back answers once it is on disk.
    pub async fn deliver(&self, events: Vec<Event>) -> Result<oneshot::Receiver<()>> {
        let (committed, stored) = oneshot::channel();
        self.batches.send(Batch { events, committed }).await.context("The service is gone")?;
        Ok(stored)
    }

    pub async fn stop(self) -> Result<()> {
        self.stop.send(()).ok();
        self.task.await.context("The service broke")??;
        Ok(())
    }
}

/// The group that every message is for.
pub async fn add_group(store: &Store) -> Result<()> {
    let name = GroupName::parse("family")?;
    let group = Group::new(name, ChatId::new(CHAT), Role::Member);
    store.add_group(&group, Clock::System.now()).await
}

/// One message of ten people in the group's chat.
pub fn message(number: usize, text: &str) -> IncomingMessage {
    IncomingMessage {
        chat: ChatId::new(CHAT),
        id: MessageId::new(format!("3EB0{number:018X}")),
        sender: SenderId::new(format!("3460000000{}@s.whatsapp.net", number % 10)),
        sender_name: format!("Person {}", number % 10),
        text: text.to_owned(),
        sent_at: Clock::System.now(),
        mention: Mention::NotMe,
        forwarded: Forwarded::No,
        quote: None,
        media: None,
        expires_secs: None,
    }
}

pub fn rules() -> Rules {
    Rules {
        assistant: "Kai".to_owned(),
        answer_within: Duration::from_secs(24 * 60 * 60),
        lang: Lang::En,
        reply_prefix: "Kai: ".to_owned(),
    }
}

fn settings(install: InstallId) -> Settings {
    Settings {
        install,
        assistant: "Kai".to_owned(),
        reply_prefix: "Kai: ".to_owned(),
        lang: Lang::En,
        zone: TimeZone::UTC,
        engine: Engine::KimiCli,
        container_limits: ContainerLimits::STANDARD,
        model: None,
        device_id: "0".repeat(32),
        time_limits: machine::TimeLimits {
            idle: Duration::from_secs(15 * 60),
            turn: Duration::from_secs(30 * 60),
        },
        answer_within: Duration::from_secs(24 * 60 * 60),
        media_limit_bytes: 32 * 1024 * 1024,
        max_agents: 1,
        agents_memory_bytes: u64::MAX,
    }
}

async fn take_replies(mut orders: mpsc::Receiver<Order>, times: mpsc::UnboundedSender<Instant>) {
    while let Some(order) = orders.recv().await {
        match order {
            Order::Send(send) => {
                times.send(Instant::now()).ok();
                send.outcome.send(Ok(HandedOver::Seen)).ok();
            }
            Order::Typing { .. }
            | Order::Read { .. }
            | Order::Fetch(_)
            | Order::Repair(_)
            | Order::AskAgain { .. } => {}
        }
    }
}

/// In Docker's place: every launch is an engine on two pipes.
#[derive(Clone)]
struct PromptEngines {
    prompts: mpsc::UnboundedSender<Instant>,
}

impl Containers for PromptEngines {
    async fn ping_docker(&self) -> Result<()> {
        Ok(())
    }

    async fn fetch_daemon_user(&self) -> Result<DaemonUser> {
        Ok(DaemonUser::Rootless)
    }

    async fn measure_group_memory(&self, _: Vec<(GroupName, PathBuf)>) -> AgentMemory {
        AgentMemory::default()
    }

    async fn launch_container(&self, spec: &ContainerSpec) -> Result<RunningContainer, Failure> {
        let (stdin, engine_stdin) = duplex(64 * 1024);
        let (engine_stdout, stdout) = duplex(64 * 1024);
        let (_, stderr) = duplex(64);
        let engine = tokio::spawn(engine(engine_stdin, engine_stdout, self.prompts.clone()));
        Ok(RunningContainer {
            name: spec.name.clone(),
            stdin: Box::new(stdin),
            stdout: Box::new(stdout),
            stderr: Box::new(stderr),
            exit: Box::pin(async {
                match engine.await {
                    Ok(()) => ContainerExit::Code(0),
                    Err(_) => ContainerExit::Unknown,
                }
            }),
        })
    }

    async fn remove_container(&self, _: &str) -> Result<()> {
        Ok(())
    }

    async fn remove_containers_of_group(&self, _: &InstallId, _: &GroupName) -> Result<()> {
        Ok(())
    }

    async fn remove_install_containers(&self, _: &InstallId) -> Result<usize> {
        Ok(0)
    }
}

/// Answers each prompt with one sentence, until its stdin is closed.
async fn engine(stdin: DuplexStream, mut stdout: DuplexStream, prompts: mpsc::UnboundedSender<Instant>) {
    let event = |kind: &str, payload: Value| json!({"jsonrpc": "2.0", "method": "event", "params": {"type": kind, "payload": payload}});
    let mut stdin = BufReader::new(stdin).lines();
    while let Ok(Some(line)) = stdin.next_line().await {
        let arrived = Instant::now();
        let request: HashMap<String, Value> = serde_json::from_str(&line).expect("the host speaks JSON");
        let result = |result: Value| json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
        let answer = match request["method"].as_str() {
            Some("initialize") => vec![result(json!({}))],
            Some("prompt") => {
                prompts.send(arrived).ok();
                vec![
                    event("TurnBegin", json!({})),
                    event("StepBegin", json!({"n": 1})),
                    event("ContentPart", json!({"type": "text", "text": "On Friday, at nine."})),
                    event("TurnEnd", json!({})),
                    result(json!({"status": "finished"})),
                ]
            }
            Some(_) | None => Vec::new(),
        };
        let lines: String = answer.iter().map(|line| format!("{line}\n")).collect();
        if stdout.write_all(lines.as_bytes()).await.is_err() {
            return;
        }
    }
}
