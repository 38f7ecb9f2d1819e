//! The service on a home that is linked, with engines that echo in the containers' place: in this process, or as a
//! process of its own that can be killed.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;

use nanokimi::auth::Login;
use nanokimi::bridge;
use nanokimi::bridge::whatsapp::{Presence, Task, WhatsApp};
use nanokimi::cli::log_filter;
use nanokimi::clock::Clock;
use nanokimi::door::Upstream;
use nanokimi::home;
use nanokimi::paths::Paths;
use nanokimi::service::{self, Reach};
use nanokimi::session::Host;
use nanokimi::store::Store;
use nanokimi::types::{ChatId, Group, GroupName, Role, Secret};
use tokio::process::{Child, Command};
use tokio::sync::{Notify, oneshot};

use crate::engine::{Behaviour, ScriptedDocker};
use crate::held;

/// No engine asks a model.
const NOWHERE: &str = "http://127.0.0.1:9/coding/v1";

/// Makes a home whose groups serve these chats.
pub async fn make_home(home: &Path, chats: &[String]) {
    let paths = Paths::new(home);
    home::prepare(&paths).unwrap();
    let store = Store::open(&paths.database()).unwrap();
    for (number, chat) in chats.iter().enumerate() {
        let name = GroupName::parse(&format!("chat-{number}")).unwrap();
        let group = Group::new(name, ChatId::new(chat), Role::Member);
        store.add_group(&group, Clock::System.now()).await.unwrap();
        home::prepare_group(&paths, &group).unwrap();
    }
}

/// Starts the service as a process of its own, which adds to the log in its home.
pub fn spawn(home: &Path, url: &str) -> Child {
    let log = OpenOptions::new().create(true).append(true).open(log_file(home)).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.arg("serve").arg(home).arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
    command.kill_on_drop(true).spawn().unwrap()
}

pub fn log_file(home: &Path) -> PathBuf {
    home.join("log")
}

/// Serves until the process is killed or the link ends. Logs as `nanokimi run` does at INFO.
pub async fn serve(home: &Path, url: &str) {
    tracing_subscriber::fmt()
        .with_env_filter(log_filter("info"))
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let (_stop, stopped) = oneshot::channel();
    run(home, url, stopped).await;
}

/// Serves until told to stop.
pub async fn run(home: &Path, url: &str, stopped: oneshot::Receiver<()>) {
    let paths = Paths::new(home);
    let store = Store::open(&paths.database()).unwrap();
    let (docker, _prompts) = ScriptedDocker::new(Behaviour::EchoAll);
    let mut settings = held::settings(store.install_id().await.unwrap());
    settings.max_agents = 50;
    let login = Arc::new(Login::load(&paths, Some(&Secret::new("sk-echo")), NOWHERE, Clock::System.now()));
    let (bridge_end, end) = bridge::pair();
    let host = Host {
        store,
        containers: docker,
        upstream: Upstream::new(NOWHERE, login.authorization(), login.refusals()),
        login,
        settings: Arc::new(settings),
        orders: end.orders.clone(),
        outbox_hint: Arc::new(Notify::new()),
        clock: Clock::System,
        paths: paths.clone(),
    };
    let whatsapp = WhatsApp {
        folder: paths.whatsapp(),
        url: Some(url.to_owned()),
        presence: Presence::Hidden,
        clock: Clock::System,
    };
    let (ready, _is_ready) = oneshot::channel();
    let (stop_bridge, bridge_stopped) = oneshot::channel::<()>();
    let bridge = tokio::spawn(whatsapp.run(bridge_end, Task::Serve, async {
        bridge_stopped.await.ok();
    }));
    let asked = async {
        stopped.await.ok();
    };
    service::run(host, end, Reach::All, ready, asked).await.unwrap();
    stop_bridge.send(()).ok();
    bridge.await.unwrap().unwrap();
}

/// What the kernel says of a process's memory, such as `VmRSS`.
pub fn memory_mb(process: u32, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<f64>().unwrap() / 1024.0
}
