//! The service on a linked home, with engines that echo in place of the containers. It runs in this process,
//! or as a process of its own that can be killed.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use nanokimi::bridge;
use nanokimi::bridge::whatsapp::{BridgeTask, Presence, WhatsAppBridge};
use nanokimi::cli::log_subscriber;
use nanokimi::clock::Clock;
use nanokimi::folders;
use nanokimi::login::{Accounts, config_toml};
use nanokimi::paths::Paths;
use nanokimi::relay::KimiUpstream;
use nanokimi::service::{self, BridgeReach};
use nanokimi::session::SessionContext;
use nanokimi::store::Store;
use nanokimi::types::{ChatId, Group, GroupName, KimiHosts, Role, Secret};
use support::scripted_engine::{Behaviour, REPORT, ScriptedDocker};
use support::test_service;
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// An address without a server, since no engine asks a model.
const NOWHERE: &str = "http://127.0.0.1:9/coding/v1";
/// The pause before the service is started again, as in the unit that `nanokimi service install` writes.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Makes a home whose groups serve these chats.
pub async fn make_home(home: &Path, chats: &[String]) {
    let paths = Paths::new(home);
    folders::prepare_install_folders(&paths).unwrap();
    config_toml::ensure_engine_config(&paths.engine_config_file()).unwrap();
    let store = Store::open(&paths.database_file()).unwrap();
    for (number, chat) in chats.iter().enumerate() {
        let name = GroupName::parse(&group_name(number)).unwrap();
        let group = Group::new(name, ChatId::new(chat), Role::Member);
        store.add_group(&group, Clock::System.now()).await.unwrap();
        folders::prepare_group_folders(&paths, &group).unwrap();
        std::fs::write(paths.group_folder(&group.name).join(REPORT), "All is well.").unwrap();
    }
}

/// The name of the group that serves the chat with this number.
pub fn group_name(chat: usize) -> String {
    format!("chat-{chat}")
}

/// The place where the service is started, and the settings of its process.
#[derive(Clone)]
pub struct Place {
    pub home: PathBuf,
    /// The log is outside the home, since the home's disk may be full.
    pub log: PathBuf,
    pub url: String,
    pub environment: Vec<(String, PathBuf)>,
}

impl Place {
    pub fn new(home: PathBuf, log: PathBuf, url: String) -> Self {
        Self { home, log, url, environment: Vec::new() }
    }

    /// Starts the service as a process of its own that appends to the log.
    pub fn spawn(&self) -> Child {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("serve").arg(&self.home).arg(&self.url);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.kill_on_drop(true).spawn().unwrap()
    }

    /// Keeps the service running, as systemd does, until the returned value is dropped.
    pub fn keep_running(&self) -> Kept {
        let place = self.clone();
        let (ends, count) = watch::channel(0);
        let running = tokio::spawn(async move {
            loop {
                place.spawn().wait().await.unwrap();
                ends.send_modify(|ends| *ends += 1);
                sleep(RESTART_PAUSE).await;
            }
        });
        Kept { running, ends: count }
    }
}

/// A service that is started again each time it ends.
pub struct Kept {
    running: JoinHandle<()>,
    ends: watch::Receiver<usize>,
}

impl Kept {
    /// How often the service has ended by itself.
    pub fn ends(&self) -> usize {
        *self.ends.borrow()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Serves until the process is killed or the link ends. Logs as `nanokimi run` does at INFO.
pub async fn serve(home: &Path, url: &str) {
    tracing_subscriber::util::SubscriberInitExt::init(log_subscriber("info", false, std::io::stderr));
    let (_stop, stopped) = oneshot::channel();
    run(home, url, stopped).await;
}

/// Serves until told to stop.
pub async fn run(home: &Path, url: &str, stopped: oneshot::Receiver<()>) {
    let paths = Paths::new(home);
    let store = Store::open(&paths.database_file()).unwrap();
    let (docker, _prompts) = ScriptedDocker::new(Behaviour::EchoAllWithFiles);
    let mut settings = test_service::settings(store.install_id().await.unwrap());
    settings.max_agents = 50;
    let hosts = KimiHosts { oauth_host: NOWHERE.to_owned(), api_base: NOWHERE.to_owned() };
    let key = Secret::new("sk-echo");
    let accounts = Arc::new(Accounts::load_from_disk(&paths, Some(&key), hosts, Clock::System.now()));
    let (bridge_end, end) = bridge::create_bridge_ends();
    let host = SessionContext {
        store,
        containers: docker,
        upstream: KimiUpstream::of_accounts(&accounts),
        accounts,
        settings: Arc::new(settings),
        orders: end.orders.clone(),
        outbox_hint: Arc::new(Notify::new()),
        tasks_hint: Arc::new(Notify::new()),
        swept: Arc::default(),
        clock: Clock::System,
        paths: paths.clone(),
    };
    let whatsapp = WhatsAppBridge {
        folder: paths.whatsapp_keys_folder(),
        url: Some(url.to_owned()),
        presence: Presence::Hidden,
        clock: Clock::System,
    };
    let (ready, _is_ready) = oneshot::channel();
    let (stop_bridge, bridge_stopped) = oneshot::channel::<()>();
    let (broke, broken) = oneshot::channel();
    let bridge = tokio::spawn(async move {
        let carried =
            whatsapp.run_bridge(bridge_end, BridgeTask::Serve, async { drop(bridge_stopped.await) }).await;
        broke.send(carried.is_err()).ok();
        carried
    });
    // The same as in `nanokimi run`: if the bridge breaks, the service ends, and systemd starts it again.
    let asked = async {
        tokio::select! {
            _ = stopped => {}
            Ok(true) = broken => {}
        }
    };
    service::run_service(host, end, BridgeReach::All, ready, asked).await.unwrap();
    stop_bridge.send(()).ok();
    bridge.await.unwrap().unwrap();
}

/// A figure of the kernel about a process's memory, such as `VmRSS`, in MB.
pub fn memory_mb(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
