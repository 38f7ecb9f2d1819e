//! The service of the stories, but with its database on a real disk and in real time: in the container's
//! place is an engine that answers at once and says when it was asked.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nanokimi::bridge::Event;
use nanokimi::clock::Clock;
use nanokimi::container::spec::DaemonUser;
use nanokimi::container::{
    AgentMemory, CommandResult, ContainerExit, ContainerSpec, Containers, RunningContainer, ShellCommand,
};
use nanokimi::folders;
use nanokimi::login::{Accounts, config_toml};
use nanokimi::paths::Paths;
use nanokimi::relay::KimiUpstream;
use nanokimi::service::BridgeReach;
use nanokimi::session::{SessionContext, Settings};
use nanokimi::store::Store;
use nanokimi::types::{
    ChatId, Failure, Forwarded, Group, GroupName, IncomingMessage, InstallId, KimiHosts, Mention, MessageId,
    Role, Secret, SenderId,
};
use serde_json::{Value, json};
use support::test_service::{self, Chats, TestService};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, duplex};
use tokio::sync::{Notify, mpsc, oneshot};

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

/// A service whose prompts and replies are timed.
pub struct TimedService {
    /// When the engine had each prompt in its hands.
    pub prompts: mpsc::UnboundedReceiver<Instant>,
    service: TestService,
    _folder: TempDir,
}

impl TimedService {
    /// A service with one group, in a new folder.
    pub async fn start(parent: &Path) -> Result<Self> {
        Self::start_in(prepare_home(parent).await?).await
    }

    /// A service in a home that was prepared.
    pub async fn start_in(folder: TempDir) -> Result<Self> {
        let paths = Paths::new(folder.path());
        let clock = Clock::System;
        let store = Store::open(&paths.database_file())?;
        let (prompt_times, prompts) = mpsc::unbounded_channel();
        let nowhere = "http://127.0.0.1:9".to_owned();
        let hosts = KimiHosts { oauth_host: nowhere.clone(), api_base: nowhere };
        let key = Secret::new("sk-bench");
        let accounts = Arc::new(Accounts::load_from_disk(&paths, Some(&key), hosts, clock.now()));
        let settings = Settings { max_agents: 1, ..test_service::settings(store.install_id().await?) };
        let context = |orders| SessionContext {
            containers: PromptEngines { prompts: prompt_times },
            upstream: KimiUpstream::of_accounts(&accounts),
            accounts,
            settings: Arc::new(settings),
            orders,
            outbox_hint: Arc::new(Notify::new()),
            tasks_hint: Arc::new(Notify::new()),
            swept: Arc::default(),
            store,
            paths,
            clock,
        };
        // As to a terminal: replies to WhatsApp leave no faster than people write.
        let reach = BridgeReach::Only(ChatId::new(CHAT));
        let service = TestService::start_reaching(reach, &Chats::default(), context).await;
        Ok(Self { prompts, service, _folder: folder })
    }

    /// Hands a batch over; what comes back answers once it is on disk.
    pub async fn deliver(&self, events: Vec<Event>) -> oneshot::Receiver<()> {
        self.service.hands_over(events).await
    }

    /// Waits for the next reply; gives when the bridge had it in its hands.
    pub async fn reply(&mut self, patience: Duration) -> Instant {
        self.service.hears(patience).await;
        Instant::now()
    }

    pub async fn stop(self) {
        self.service.stop().await;
    }
}

/// A new folder in `parent` with a home that has one group.
pub async fn prepare_home(parent: &Path) -> Result<TempDir> {
    let folder = tempfile::tempdir_in(parent).context("Failed to make a folder")?;
    let paths = Paths::new(folder.path());
    folders::prepare_install_folders(&paths)?;
    config_toml::ensure_engine_config(&paths.engine_config_file())?;
    add_group(&Store::open(&paths.database_file())?).await?;
    Ok(folder)
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

    async fn run_command(&self, _: &str, _: &ShellCommand) -> Result<CommandResult> {
        bail!("No task of this benchmark has a command")
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
