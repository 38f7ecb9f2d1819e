//! An install with a login in it, a login server that does as told, and a refresher between them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use nanokimi::clock::Clock;
use nanokimi::folders;
use nanokimi::login::{self, Login};
use nanokimi::paths::Paths;
use nanokimi::practice::Practice;
use nanokimi::types::{Authorization, Secret};
use serde_json::Value;
use support::login_server::{LoginTerms, MockLoginServer};
use support::scripted_model::start_scripted_model;
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than anything takes that these tests wait for.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    pub practice: Practice,
    pub login_server: MockLoginServer,
    pub paths: Paths,
    _folder: TempDir,
}

impl World {
    /// Logins live this long.
    pub async fn new(lifetime: Duration) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let paths = Paths::new(folder.path());
        folders::prepare_install_folders(&paths).unwrap();
        let practice = start_scripted_model().await;
        let login_server =
            MockLoginServer::start(&practice, LoginTerms { lifetime, ..LoginTerms::default() });
        Self { practice, login_server, paths, _folder: folder }
    }

    pub fn file(&self) -> PathBuf {
        self.paths.login_file()
    }

    /// Puts a login in place that was made this long ago.
    pub fn log_in(&self, age: Duration) {
        self.put(&self.login_server.issue_login_file(Clock::System.now(), age));
    }

    /// Puts a login in place as `nanokimi login` and kimi-cli do.
    pub fn put(&self, text: &str) {
        let new = self.paths.credentials_folder().join("put");
        fs::write(&new, text).unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o600)).unwrap();
        fs::rename(new, self.file()).unwrap();
    }

    pub fn text(&self) -> String {
        fs::read_to_string(self.file()).unwrap()
    }

    /// The access token on disk.
    pub fn on_disk(&self) -> String {
        let login: Value = serde_json::from_str(&self.text()).unwrap();
        login["access_token"].as_str().unwrap().to_owned()
    }

    /// What lies beside the engine's configuration.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.paths.credentials_folder()).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    pub fn refresher(&self) -> TestRefresher {
        let host = self.practice.oauth_host();
        let login = Arc::new(Login::load_from_disk(&self.paths, None, &host, Clock::System.now()));
        let seen = login.watch_authorization();
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(login::run_refresher(Arc::clone(&login), Clock::System, stopped));
        TestRefresher { login, seen, stop: Some(stop), task }
    }

    /// Waits until so many refreshes were asked for.
    pub async fn refreshes(&self, count: u64) {
        let asked = async {
            while self.login_server.counts().refreshes < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, asked).await.expect("nobody refreshes");
    }
}

/// A running refresher, as a service has one.
pub struct TestRefresher {
    pub login: Arc<Login>,
    seen: watch::Receiver<Authorization>,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl TestRefresher {
    pub fn now(&self) -> Authorization {
        self.seen.borrow().clone()
    }

    /// The token that the egress proxies have now.
    pub fn token(&self) -> String {
        match self.now() {
            Authorization::Login(token) => token.expose_secret().to_owned(),
            other @ (Authorization::ApiKey(_) | Authorization::Missing(_)) => {
                panic!("there is no login: {other:?}")
            }
        }
    }

    /// Why there is none.
    pub fn missing(&self) -> String {
        match self.now() {
            Authorization::Missing(why) => why,
            other @ (Authorization::ApiKey(_) | Authorization::Login(_)) => {
                panic!("there is a login: {other:?}")
            }
        }
    }

    /// What the egress proxies are given next.
    pub async fn next(&mut self) -> Authorization {
        timeout(PATIENCE, self.seen.changed()).await.expect("nothing changes").unwrap();
        self.seen.borrow_and_update().clone()
    }

    pub async fn next_token(&mut self) -> String {
        self.next().await;
        self.token()
    }

    /// The Kimi API refuses a token at one of the egress proxies.
    pub fn refuse(&self, token: &str) {
        self.login.refused_token_sender().send_replace(Some(Secret::new(token)));
    }

    /// Nothing changes for this long.
    pub async fn silence(&mut self, length: Duration) {
        assert!(timeout(length, self.seen.changed()).await.is_err(), "{:?}", self.seen.borrow());
    }

    /// Ends it in order.
    pub async fn ends(mut self) {
        self.stop.take().unwrap().send(()).unwrap();
        timeout(PATIENCE, self.task).await.expect("the refresher does not end").unwrap();
    }
}
