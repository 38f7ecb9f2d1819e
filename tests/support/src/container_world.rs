//! The world of a test: the real service with its database on disk. The test controls the bridge's end.

use std::fs;
use std::io;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nanokimi::agent::Engine;
use nanokimi::clock::Clock;
use nanokimi::container::docker::Docker;
use nanokimi::folders;
use nanokimi::login::{Accounts, config_toml};
use nanokimi::paths::Paths;
use nanokimi::practice::Practice;
use nanokimi::relay::KimiUpstream;
use nanokimi::session::{SessionContext, Settings};
use nanokimi::store::Store;
use nanokimi::types::{Event, Group, IncomingMessage, KimiHosts, Media, Role, Secret, WebPolicy};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::Notify;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::fixture::{
    PATIENCE, asked, containers_of, inspected, nothing_is_left, plain_docker, ready, until, variable,
};
use crate::login_server::{LoginTerms, MockLoginServer};
use crate::scripted_model::start_scripted_model;
use crate::test_service::{self, Chats, Heard, TestService, chat, message};

pub struct World {
    pub practice: Arc<Practice>,
    pub store: Store,
    /// What the bridge's end holds and has seen.
    pub chats: Chats,
    docker: Docker,
    folder: TempDir,
    settings: Settings,
    login: Option<Secret>,
    service: Option<TestService>,
    messages: u64,
    ended: bool,
}

impl World {
    /// A service with the groups `main` (the owner's) and `family`.
    pub async fn new() -> Self {
        let mut world = Self::without_service().await;
        world.start().await;
        world
    }

    pub async fn without_service() -> Self {
        // Shown if a test fails.
        let heard =
            Targets::new().with_default(LevelFilter::WARN).with_target("nanokimi", LevelFilter::DEBUG);
        let log = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_test_writer();
        log.finish().with(heard).try_init().ok();
        let docker = ready().await;
        let practice = start_scripted_model().await;
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        folders::prepare_install_folders(&paths).unwrap();
        config_toml::ensure_engine_config(&paths.engine_config_file()).unwrap();
        let store = Store::open(&paths.database_file()).unwrap();
        let mut settings = test_service::settings(store.install_id().await.unwrap());
        settings.engine = usual_engine();
        let mut world = Self {
            practice: Arc::new(practice),
            store,
            chats: Chats::default(),
            docker,
            folder,
            settings,
            login: Some(Secret::new("sk-practice")),
            service: None,
            messages: 0,
            ended: false,
        };
        world.add_group("main", Role::Main).await;
        world.add_group("family", Role::Member).await;
        world
    }

    /// The same with an engine of the test's choice.
    pub async fn with(engine: Engine) -> Self {
        let mut world = Self::without_service_with(engine).await;
        world.start().await;
        world
    }

    pub async fn without_service_with(engine: Engine) -> Self {
        let mut world = Self::without_service().await;
        tracing::info!(target: "nanokimi", engine = %engine.name(), "a world begins");
        world.settings(|settings| settings.engine = engine);
        world
    }

    /// Another install with the same login: a file of the login that this install stores is the other's too.
    pub async fn on_the_same_login(&self) -> Self {
        let mut other = Self::without_service().await;
        other.practice = Arc::clone(&self.practice);
        other.login = self.login.clone();
        let own = other.paths().credentials_folder();
        fs::remove_dir_all(&own).unwrap();
        symlink(self.paths().credentials_folder(), own).unwrap();
        other
    }

    pub fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    /// There is no Kimi login.
    pub fn logged_out(&mut self) {
        self.login = None;
    }

    /// The owner has the login of a Kimi plan instead of a key; it never expires.
    pub fn logged_in(&mut self) {
        self.login = None;
        let login =
            json!({ "access_token": "practice", "refresh_token": "", "expires_at": 4_000_000_000_u64 });
        self.put_login(&login.to_string());
    }

    /// There is a login instead of the key, made just now; its access tokens live this long. The practice
    /// model accepts no other tokens.
    pub fn log_in(&mut self, lifetime: Duration) -> MockLoginServer {
        self.login = None;
        let server = MockLoginServer::start(&self.practice, LoginTerms { lifetime, ..LoginTerms::default() });
        self.put_login(&server.issue_login_file(Clock::System.now(), Duration::ZERO));
        server
    }

    /// Stores a login as `nanokimi login` does.
    pub fn put_login(&self, text: &str) {
        let new = self.paths().credentials_folder().join("put");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.paths().login_file()).unwrap();
    }

    pub fn paths(&self) -> Paths {
        Paths::new(self.folder.path())
    }

    /// A group's folder on the host.
    pub fn folder_of(&self, group: &str) -> PathBuf {
        self.paths().group_folder(&test_service::name(group))
    }

    pub fn install(&self) -> &nanokimi::types::InstallId {
        &self.settings.install
    }

    pub async fn add_group(&mut self, group: &str, role: Role) {
        self.add_group_with(group, role, WebPolicy::default()).await;
    }

    pub async fn add_group_with(&mut self, group: &str, role: Role, web: WebPolicy) {
        let group = Group { web, ..test_service::group(group, role) };
        self.store.add_group(&group, Clock::System.now()).await.unwrap();
        folders::prepare_group_folders(&self.paths(), &group).unwrap();
    }

    /// A group whose agent uses another engine than the install's.
    pub async fn set_engine(&self, group: &str, role: Role, engine: Engine) {
        let mut group = test_service::group(group, role);
        group.engine = Some(engine.into());
        self.store.update_group(&group).await.unwrap();
    }

    /// Starts the service with the files in its folder.
    pub async fn start(&mut self) {
        let hosts = KimiHosts { oauth_host: self.practice.oauth_host(), api_base: self.practice.base_url() };
        let key = self.login.as_ref();
        let accounts = Arc::new(Accounts::load_from_disk(&self.paths(), key, hosts, Clock::System.now()));
        let host = |orders| SessionContext {
            store: self.store.clone(),
            containers: self.docker.clone(),
            paths: self.paths(),
            clock: Clock::System,
            upstream: KimiUpstream::of_accounts(&accounts),
            accounts,
            settings: Arc::new(self.settings.clone()),
            orders,
            outbox_hint: Arc::new(Notify::new()),
            tasks_hint: Arc::new(Notify::new()),
            swept: Arc::default(),
        };
        self.service = Some(TestService::start(&self.chats, host).await);
    }

    /// Stops the service as SIGTERM does.
    pub async fn stop(&mut self) {
        let unheard = self.service.take().expect("the service runs").stop().await;
        assert_eq!(unheard, [], "nobody heard it");
    }

    /// Stops the service without any clean-up.
    pub async fn kill(&mut self) {
        self.service.take().expect("the service runs").kill().await;
    }

    /// Somebody writes in a group's chat; returns once it is stored.
    pub async fn says(&mut self, group: &str, text: &str) {
        self.writes(group, text, None).await;
    }

    /// Somebody types in this chat.
    pub async fn types(&self, group: &str) {
        let service = self.service.as_ref().expect("the service runs");
        service.tells(vec![Event::Typing { chat: chat(group) }]).await;
    }

    /// Somebody sends a file with this caption; returns once the message is stored.
    pub async fn sends(&mut self, group: &str, caption: &str, media: Media) {
        self.writes(group, caption, Some(media)).await;
    }

    async fn writes(&mut self, group: &str, text: &str, media: Option<Media>) {
        self.messages += 1;
        let message = message(group, &format!("m{}", self.messages), "Alice", text, Clock::System.now());
        self.service.as_ref().expect("the service runs").writes(IncomingMessage { media, ..message }).await;
    }

    /// The next message that a chat sees.
    pub async fn hears(&mut self) -> Heard {
        self.service.as_mut().expect("the service runs").hears(PATIENCE).await
    }

    /// The next message, if it is already there.
    pub fn hears_now(&mut self) -> Option<Heard> {
        self.service.as_mut().expect("the service runs").hears_now()
    }

    /// The next message, which must be in this group.
    pub async fn hears_in(&mut self, group: &str) -> String {
        let heard = self.hears().await;
        assert_eq!(heard.group, group, "{heard:?}");
        heard.text
    }

    /// One message and its answer.
    pub async fn asks(&mut self, group: &str, text: &str) -> String {
        self.says(group, text).await;
        self.hears_in(group).await
    }

    /// The agent runs a command with its tool. The output is read on the host.
    pub async fn agent_runs(&mut self, group: &str, command: &str) -> String {
        let answer = self.asks(group, &format!("@Kai {}", runs(self.settings.engine, command))).await;
        self.printed(group).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }

    /// The output of the latest command of a group's agent.
    pub fn printed(&self, group: &str) -> io::Result<String> {
        let printed = self.folder_of(group).join(PRINTED);
        let text = fs::read_to_string(&printed)?;
        fs::remove_file(&printed)?;
        Ok(text)
    }

    /// Waits until a request to the model has this text.
    pub async fn model_reads(&self, text: &str) {
        until(&format!("the model reads {text:?}"), async || self.model_requests(text) > 0).await;
    }

    /// How many of the model's requests had this text in their new messages.
    pub fn model_requests(&self, text: &str) -> usize {
        let requests = self.practice.received_requests();
        requests.iter().filter(|request| news(&request.body).contains(text)).count()
    }

    /// The system prompt of the latest request.
    pub fn system_prompt(&self) -> String {
        let requests = self.practice.received_requests();
        requests.last().unwrap().body["messages"][0]["content"].to_string()
    }

    /// Docker's description of a group's container.
    pub async fn container(&self, group: &str) -> Value {
        let containers = containers_of(self.install()).await;
        let own: Vec<&Value> =
            containers.iter().filter(|container| container["Labels"]["nanokimi.group"] == group).collect();
        assert_eq!(own.len(), 1, "{containers:#?}");
        inspected(own[0]["Id"].as_str().unwrap()).await.unwrap()
    }

    /// Kills a group's container as the kernel does if memory runs out. Returns its id.
    pub async fn kill_container(&self, group: &str) -> String {
        let id = self.container(group).await["Id"].as_str().unwrap().to_owned();
        plain_docker().await.kill_container(&id, None).await.unwrap();
        id
    }

    /// What a chat was sent or will be sent, in order.
    pub fn outbox(&self, group: &str) -> Vec<String> {
        self.asked(&format!("SELECT text FROM outbox WHERE chat = '{}' ORDER BY id", chat(group)))
    }

    pub fn asked(&self, sql: &str) -> Vec<String> {
        asked(&self.paths().database_file(), sql)
    }

    /// The test is over: the service stops, every message was expected, and no container is left.
    pub async fn ends(mut self) {
        self.stop().await;
        nothing_is_left(self.install()).await;
        self.ended = true;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        assert!(self.ended || std::thread::panicking(), "a test ends its world");
    }
}

/// The file in the group's folder where the agent writes the output of its commands.
const PRINTED: &str = "printed.txt";

/// The longest time that the engine allows for a command. Without it, the engine ends a command after a
/// minute.
const COMMAND_SECS: u64 = 300;

/// The tool that an engine uses to run commands.
pub fn tool(engine: Engine) -> &'static str {
    match engine {
        Engine::KimiCli => "Shell",
        Engine::KimiCode => "Bash",
    }
}

/// The engine for tests that apply to every engine: the one of a new install, or the one that `TEST_ENGINE`
/// names.
fn usual_engine() -> Engine {
    variable("TEST_ENGINE")
        .map_or(Engine::KimiCode, |name| Engine::parse(&name).expect("the name of an engine"))
}

/// A message that makes the practice model run a command.
pub fn runs(engine: Engine, command: &str) -> String {
    let command = format!("{{ {command}; }} >/workspace/group/{PRINTED} 2>&1");
    let arguments = json!({ "command": command, "timeout": COMMAND_SECS });
    format!("CALL {} {arguments}", tool(engine))
}

/// A command that prints, sorted, the places of a pattern: in files, and in the environments and arguments of
/// all processes. Write the pattern so that it does not match itself.
pub fn search(pattern: &str) -> String {
    format!(
        "(grep -rslE -D skip --exclude-dir=proc --exclude-dir=sys -e '{pattern}' /; \
         grep -aslE -e '{pattern}' /proc/[0-9]*/environ /proc/[0-9]*/cmdline) | sort; echo searched"
    )
}

/// What a request adds after the last answer of the model.
fn news(request: &Value) -> String {
    let messages = request["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let news = messages.rsplit(|message| message["role"] == "assistant").next().unwrap_or_default();
    json!(news).to_string()
}
