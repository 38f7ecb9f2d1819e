//! The world of a story: the service with its database on disk. The story controls the bridge's end.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use nanokimi::agent::Engine;
use nanokimi::bridge::{Answer, Event, LinkState, SendOrder};
use nanokimi::clock::Clock;
use nanokimi::folders;
use nanokimi::login::{Accounts, config_toml};
use nanokimi::paths::Paths;
use nanokimi::relay::KimiUpstream;
use nanokimi::service::StopReason;
use nanokimi::session::{SessionContext, Settings};
use nanokimi::store::{Store, TurnEnding, TurnOutcome};
use nanokimi::types::{Group, IncomingMessage, KimiHosts, Media, MessageId, Quote, Role, Secret, TokenUsage};
use serde_json::json;
use support::scripted_engine::{Behaviour, HeldPrompt, ScriptedDocker};
use support::test_service::{self, Chats, Heard, TestService, message};
use tempfile::TempDir;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout};

use crate::api::Api;

/// Longer than anything that a story waits for, in paused time.
const FOREVER: Duration = Duration::from_secs(24 * 60 * 60);

/// No story asks for a login.
const NOWHERE: &str = "http://127.0.0.1:9/coding/v1";

pub struct World {
    pub docker: ScriptedDocker,
    pub store: Store,
    pub began: Instant,
    clock: Clock,
    folder: TempDir,
    settings: Settings,
    key: Option<Secret>,
    accounts: Option<Arc<Accounts>>,
    prompts: mpsc::UnboundedReceiver<HeldPrompt>,
    /// What the bridge is to do and has seen.
    pub chats: Chats,
    pub api: Api,
    service: Option<TestService>,
    messages: u64,
}

impl World {
    /// A service with the groups `main` (the owner's) and `family`, and engines that do what they are told.
    pub async fn new(usual: Behaviour) -> Self {
        let mut world = Self::without_service(usual).await;
        world.start().await;
        world
    }

    /// The same with an engine of the story's choice.
    pub async fn with(engine: Engine, usual: Behaviour) -> Self {
        let mut world = Self::without_service(usual).await;
        world.settings(|settings| settings.engine = engine);
        world.start().await;
        world
    }

    pub async fn without_service(usual: Behaviour) -> Self {
        Self::without_service_at(usual, "2026-11-21T12:00:00Z").await
    }

    /// The story begins at this time.
    pub async fn without_service_at(usual: Behaviour, began: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        folders::prepare_install_folders(&paths).unwrap();
        config_toml::ensure_engine_config(&paths.engine_config_file()).unwrap();
        let (wall, instant) = (began.parse().unwrap(), Instant::now());
        let clock = Clock::Anchored { wall, instant, set_millis: Box::leak(Box::default()) };
        let store = Store::open(&paths.database_file()).unwrap();
        let (docker, prompts) = ScriptedDocker::new(usual);
        let install = store.install_id().await.unwrap();
        let settings = test_service::settings(install);
        let mut world = Self {
            docker,
            store,
            began: Instant::now(),
            clock,
            folder,
            settings,
            key: Some(Secret::new("sk-story")),
            accounts: None,
            prompts,
            chats: Chats::default(),
            api: Api::new().await,
            service: None,
            messages: 0,
        };
        world.add_group("main", Role::Main).await;
        world.add_group("family", Role::Member).await;
        world
    }

    pub fn settings(&mut self, change: impl FnOnce(&mut Settings)) {
        change(&mut self.settings);
    }

    pub fn paths(&self) -> Paths {
        Paths::new(self.folder.path())
    }

    /// From the next start on there is no API key; then only a login helps.
    pub fn forgets_the_key(&mut self) {
        self.key = None;
    }

    /// Somebody logs in to Kimi, as `nanokimi login` does.
    pub fn logs_in(&self, token: &str) {
        self.logs_in_with(token, "");
    }

    /// The same with a refresh token. The login server cannot be reached.
    pub fn logs_in_with(&self, token: &str, refresh: &str) {
        let login = json!({
            "access_token": token, "refresh_token": refresh, "expires_at": 4_102_444_800.0,
            "scope": "kimi-code", "token_type": "Bearer", "expires_in": 900.0,
        });
        fs::write(self.paths().login_file(), login.to_string()).unwrap();
        self.accounts.as_ref().expect("the service runs").reload_if_changed(self.now());
    }

    /// The Kimi API has refused this token, as the egress proxies report it.
    pub fn is_refused(&self, token: &str) {
        let accounts = self.accounts.as_ref().expect("the service runs");
        let logins = accounts.watch_logins().borrow().clone();
        logins.accounts[0].refused_tokens.send_replace(Some(Secret::new(token)));
    }

    pub fn logs_out(&self) {
        fs::remove_file(self.paths().login_file()).unwrap();
        self.accounts.as_ref().expect("the service runs").reload_if_changed(self.now());
    }

    /// Lets time pass.
    pub async fn passes(&self, length: Duration) {
        tokio::time::sleep(length).await;
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Somebody, or the machine itself, sets its wall clock.
    pub fn sets_the_clock(&self, by: SignedDuration) {
        let Clock::Anchored { set_millis, .. } = self.clock else { panic!("a story has a clock of its own") };
        set_millis.fetch_add(by.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    pub async fn add_group(&mut self, name: &str, role: Role) {
        self.add(test_service::group(name, role)).await;
    }

    pub async fn add(&mut self, group: Group) {
        self.store.add_group(&group, self.clock.now()).await.unwrap();
        folders::prepare_group_folders(&self.paths(), &group).unwrap();
    }

    /// Starts the service with the files in its folder.
    pub async fn start(&mut self) {
        let hosts = KimiHosts { oauth_host: NOWHERE.to_owned(), api_base: self.api.base() };
        let key = self.key.as_ref();
        let accounts = Arc::new(Accounts::load_from_disk(&self.paths(), key, hosts, self.clock.now()));
        self.accounts = Some(Arc::clone(&accounts));
        let host = |orders| SessionContext {
            store: self.store.clone(),
            containers: self.docker.clone(),
            paths: self.paths(),
            clock: self.clock,
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
        let unheard = self.stop_hearing().await;
        assert_eq!(unheard, [], "nobody heard it");
    }

    /// Asks the service to stop. It goes on for as long as stopping takes.
    pub fn begin_stop(&mut self) {
        self.service.as_mut().expect("the service runs").begin_stop();
    }

    /// Stops the service. Returns the messages that the story did not expect.
    pub async fn stop_hearing(&mut self) -> Vec<Heard> {
        self.service.take().expect("the service runs").stop().await
    }

    /// A message that is stuck in the bridge; the story releases it.
    pub async fn stuck(&mut self) -> SendOrder {
        self.service.as_mut().expect("the service runs").stuck(FOREVER).await
    }

    /// Ends the service as SIGKILL does.
    pub async fn kill(&mut self) {
        self.service.take().expect("the service runs").kill().await;
    }

    /// Somebody writes in a group's chat; returns the message's id once it is stored.
    pub async fn says(&mut self, group: &str, sender: &str, text: &str) -> String {
        self.messages += 1;
        let id = format!("m{}", self.messages);
        self.writes(message(group, &id, sender, text, self.now())).await;
        id
    }

    /// Somebody sends a file with this caption. The bridge knows the file by `handle`.
    pub async fn sends(&mut self, group: &str, sender: &str, caption: &str, media: Media) -> String {
        self.messages += 1;
        let id = format!("m{}", self.messages);
        let message = message(group, &id, sender, caption, self.now());
        self.writes(IncomingMessage { media: Some(media), ..message }).await;
        id
    }

    /// An earlier turn of this group, which is idle, has used this many tokens.
    pub async fn has_used(&mut self, group: &str, input: u64, output: u64) {
        self.messages += 1;
        let earlier = message(group, &format!("m{}", self.messages), "Ana", "@Kai earlier", self.now());
        self.store
            .record_events(vec![Event::Message(earlier)], test_service::rules(), self.now())
            .await
            .unwrap();
        let group = self.store.group_by_name(&test_service::name(group)).await.unwrap().unwrap();
        let engine = self.settings.engine_for_group(&group);
        let claim = self.store.claim_pending_rows(&group, engine, self.now()).await.unwrap().unwrap();
        let ending = TurnEnding {
            turn: claim.turn,
            chat: group.chat,
            finish: TurnOutcome::Answered,
            never_read: Vec::new(),
            replies: Vec::new(),
            usage: TokenUsage { input, cached: input, output },
        };
        self.store.finish_turn(ending, self.now()).await.unwrap();
    }

    /// The owner limits a group's tokens per day.
    pub async fn limit(&self, group: &str, daily_tokens: Option<u64>) {
        let group = self.store.group_by_name(&test_service::name(group)).await.unwrap().unwrap();
        self.store.update_group(&Group { daily_tokens, ..group }).await.unwrap();
    }

    /// The owner chooses something for a group.
    pub async fn choose(&self, group: &str, change: impl FnOnce(&mut Group)) {
        let mut group = self.store.group_by_name(&test_service::name(group)).await.unwrap().unwrap();
        change(&mut group);
        self.store.update_group(&group).await.unwrap();
    }

    /// Lets time pass until this moment.
    pub async fn until(&self, moment: &str) {
        let moment: Timestamp = moment.parse().unwrap();
        self.passes(moment.duration_since(self.now()).try_into().expect("it is still to come")).await;
    }

    /// A path in the group's folder, where its agent writes.
    pub fn in_folder(&self, group: &str, path: &str) -> PathBuf {
        self.paths().group_folder(&test_service::name(group)).join(path)
    }

    pub async fn quotes(&mut self, group: &str, sender: &str, text: &str, quoted: &Heard) {
        self.messages += 1;
        let mut reply = message(group, &format!("m{}", self.messages), sender, text, self.now());
        let id = MessageId::new(&quoted.id);
        let text = quoted.text.clone();
        reply.quote = Some(Quote { id, sender: None, sender_name: "Kai".to_owned(), text, media: None });
        self.writes(reply).await;
    }

    /// The bridge delivers this message.
    pub async fn writes(&self, message: IncomingMessage) {
        self.service.as_ref().expect("the service runs").writes(message).await;
    }

    /// The bridge reports these events, in one batch.
    pub async fn tells(&self, events: Vec<Event>) {
        self.service.as_ref().expect("the service runs").tells(events).await;
    }

    /// WhatsApp answers a message of ours.
    pub async fn answers(&self, id: &str, answer: Answer) {
        self.service.as_ref().expect("the service runs").answers(id, answer).await;
    }

    pub fn link(&self, link: LinkState) {
        self.service.as_ref().expect("the service runs").link(link);
    }

    /// Waits until the service ends by itself.
    pub async fn ended(&mut self) -> StopReason {
        self.service.take().expect("the service runs").ended(FOREVER).await
    }

    /// The next prompt that an engine got.
    pub async fn prompt(&mut self) -> HeldPrompt {
        timeout(FOREVER, self.prompts.recv()).await.expect("a prompt comes").expect("the story goes on")
    }

    /// The next message that a chat sees.
    pub async fn hears(&mut self) -> Heard {
        self.service.as_mut().expect("the service runs").hears(FOREVER).await
    }

    /// The next message, which must be in this group.
    pub async fn hears_in(&mut self, group: &str) -> String {
        let heard = self.hears().await;
        assert_eq!(heard.group, group, "{heard:?}");
        heard.text
    }

    /// The next message with this text; messages before it are skipped.
    pub async fn hears_until(&mut self, says_so: impl Fn(&str) -> bool) -> String {
        loop {
            let Heard { text, .. } = self.hears().await;
            if says_so(&text) {
                return text;
            }
        }
    }

    /// The next message in any group.
    pub async fn hears_in_any(&mut self) -> String {
        self.hears().await.text
    }

    /// Nothing is said for this long.
    pub async fn silence(&mut self, length: Duration) {
        self.service.as_mut().expect("the service runs").silence(length).await;
    }

    /// Seconds since the story began.
    pub fn seconds(&self) -> u64 {
        self.began.elapsed().as_secs()
    }

    /// The story ends: the service stops, and every message was expected.
    pub async fn ends(mut self) {
        self.stop().await;
        assert_eq!(self.docker.running(), 0, "no container is left");
    }
}
