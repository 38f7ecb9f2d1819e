//! The login as all who need it share it: what its file says, what the servers have said of it, and what
//! follows.
//!
//! [`Login`] reads the file when it has changed, and publishes what may be used. It never asks a server and
//! never writes the file: that is `refresher` and `manual`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use jiff::Timestamp;
use tokio::sync::{Notify, Semaphore, watch};

use super::login_file::{
    self, LoginFileStamp, Tokens, is_sendable_token, login_file_stamp, token_fingerprint,
    unreadable_login_message,
};
use super::oauth::LoginServer;
use super::quota::parse_claimed_account;
use crate::panics::lock_unpoisoned;
use crate::paths::Paths;
use crate::types::{AccountName, Authorization, Secret};

/// The files of an account in its folder.
pub const LOGIN_FILE: &str = "kimi-code.json";
pub const DEVICE_ID: &str = "device_id";
const NOBODY: &str = "Nobody is logged in to Kimi; run `nanokimi login`";
/// What makes a login, as it stands in what is said of it.
const LOG_IN: &str = "`nanokimi login`";

/// The owner's login as it stands on disk, and what the servers have said of it.
#[derive(Debug)]
pub struct Login {
    pub(super) api_key: Option<Secret>,
    pub(super) file: PathBuf,
    pub(super) server: LoginServer,
    known: Mutex<LoginState>,
    pub(super) authorization: watch::Sender<Authorization>,
    /// The token that the Kimi API has refused last, as the egress proxies report it.
    pub(super) refused_tokens: watch::Sender<Option<Secret>>,
    /// Wakes the refresher when there is another login.
    pub(super) changed: Notify,
    /// Held while this account's login is renewed: one account after the other.
    pub(super) renewals: Arc<Semaphore>,
    /// The command that makes this login anew.
    log_in: String,
}

/// What is known of the file.
#[derive(Debug, Default)]
pub(super) struct LoginState {
    /// What it said when it was last read, and which file that was.
    read: Option<(LoginFileStamp, Result<Tokens, String>)>,
    /// The fingerprint of the refresh token that the login server has refused.
    pub(super) refused: Option<String>,
    /// An access token that was refused right after it was given.
    pub(super) suspect: Option<Secret>,
}

impl Login {
    /// `api_key` is `MOONSHOT_API_KEY`. If it is set, the login file is never looked at. `oauth_host` is the
    /// server that refreshes a login, without a slash at the end.
    pub fn load_from_disk(paths: &Paths, api_key: Option<&Secret>, oauth_host: &str, now: Timestamp) -> Self {
        let api_key = api_key.filter(|key| !key.expose_secret().trim().is_empty()).cloned();
        let server = LoginServer::new(oauth_host, paths.device_id_file());
        Self::load_file(
            paths.login_file(),
            server,
            api_key,
            Arc::new(Semaphore::new(1)),
            LOG_IN.to_owned(),
            now,
        )
    }

    /// The login of a further account, in a folder of its own. Its renewals share `renewals` with the others'.
    pub(super) fn load_account(
        folder: &Path,
        name: &AccountName,
        oauth_host: &str,
        renewals: Arc<Semaphore>,
        now: Timestamp,
    ) -> Self {
        let server = LoginServer::new(oauth_host, folder.join(DEVICE_ID));
        let log_in = format!("`nanokimi login --account {name}`");
        Self::load_file(folder.join(LOGIN_FILE), server, None, renewals, log_in, now)
    }

    fn load_file(
        file: PathBuf,
        server: LoginServer,
        api_key: Option<Secret>,
        renewals: Arc<Semaphore>,
        log_in: String,
        now: Timestamp,
    ) -> Self {
        let refused = login_file::read_refused_fingerprint(&file);
        let login = Self {
            api_key,
            file,
            server,
            known: Mutex::new(LoginState { refused, ..LoginState::default() }),
            authorization: watch::Sender::new(Authorization::Missing(
                "The login was not read yet.".to_owned(),
            )),
            refused_tokens: watch::Sender::default(),
            changed: Notify::new(),
            renewals,
            log_in,
        };
        login.reload_if_changed(now);
        login
    }

    /// For the egress proxies: always what the latest [`Login::reload_if_changed`] found.
    pub fn watch_authorization(&self) -> watch::Receiver<Authorization> {
        self.authorization.subscribe()
    }

    /// For the egress proxies, which send the token that the Kimi API has just refused. The refresher then
    /// publishes another token, or why there is no token.
    pub fn refused_token_sender(&self) -> watch::Sender<Option<Secret>> {
        self.refused_tokens.clone()
    }

    /// Looks again, before a launch or turn, and reads the login file if it has changed. Costs one `stat` if
    /// it has not.
    pub fn reload_if_changed(&self, now: Timestamp) {
        // Held until it is published, so that a caller that has looked earlier does not publish later.
        let mut known = self.lock_login_state();
        let found = match &self.api_key {
            Some(key) if is_sendable_token(key) => Authorization::ApiKey(key.clone()),
            Some(_) => Authorization::Missing(
                "MOONSHOT_API_KEY in .env is not a key: it holds spaces or characters that no key has"
                    .to_owned(),
            ),
            None => known.reload_login_file(&self.file, now),
        };
        let found = match found {
            Authorization::Missing(why) => Authorization::Missing(why.replace(LOG_IN, &self.log_in)),
            usable @ (Authorization::ApiKey(_) | Authorization::Login(_)) => usable,
        };
        let changed = self.authorization.send_if_modified(|current| {
            let changed = *current != found;
            *current = found;
            changed
        });
        if changed {
            self.changed.notify_one();
        }
    }

    /// What the file says, if it is a login.
    pub fn login_facts(&self) -> Option<LoginFacts> {
        self.last_read_tokens().map(|tokens| LoginFacts {
            claimed_account: parse_claimed_account(&tokens.access),
            expires_at: tokens.expires_at,
            renewal: if tokens.refresh.is_some() { LoginRenewal::Possible } else { LoginRenewal::Impossible },
        })
    }

    /// The mark of a login that has ended for good: the server renews it no more, or it has run out and cannot be
    /// renewed. A login that is not there has not ended, and one that is in doubt may be good again.
    pub(super) fn ended_mark(&self, now: Timestamp) -> Option<String> {
        let tokens = self.last_read_tokens()?;
        match &tokens.refresh {
            Some(refresh) => {
                let mark = token_fingerprint(refresh);
                (login_file::read_refused_fingerprint(&self.file).as_ref() == Some(&mark)).then_some(mark)
            }
            None => (tokens.expires_at <= now).then(|| token_fingerprint(&tokens.access)),
        }
    }

    /// What the file says, as it was last read.
    pub(super) fn last_read_tokens(&self) -> Option<Tokens> {
        let known = self.lock_login_state();
        known.read.as_ref().and_then(|(_, reading)| reading.as_ref().ok()).cloned()
    }

    pub(super) fn lock_login_state(&self) -> MutexGuard<'_, LoginState> {
        lock_unpoisoned(&self.known)
    }
}

/// What a person may know of a login file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoginFacts {
    /// The account that the access token names.
    pub claimed_account: Option<String>,
    pub expires_at: Timestamp,
    pub renewal: LoginRenewal,
}

/// Whether a login can be renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginRenewal {
    Possible,
    /// It came without a refresh token.
    Impossible,
}

impl LoginState {
    /// Reads the file again if it is another one.
    fn reload_login_file(&mut self, file: &Path, now: Timestamp) -> Authorization {
        let metadata = match fs::metadata(file) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.read = None;
                let is_there = error.kind() != ErrorKind::NotFound;
                let why = if is_there {
                    unreadable_login_message(file, &error.to_string())
                } else {
                    NOBODY.to_owned()
                };
                return Authorization::Missing(why);
            }
        };
        let stamp = login_file_stamp(&metadata);
        if self.read.as_ref().is_none_or(|(seen, _)| *seen != stamp) {
            self.read = Some((stamp, login_file::read_login_file(file, &metadata)));
        }
        self.usable_authorization(now)
    }

    /// What may be used of the file as it was read. An expired access token stays in use as long as another
    /// one may come: a caller that is refused with it asks for another.
    fn usable_authorization(&self, now: Timestamp) -> Authorization {
        let tokens = match &self.read {
            Some((_, Ok(tokens))) => tokens,
            Some((_, Err(why))) => return Authorization::Missing(why.clone()),
            None => return Authorization::Missing(NOBODY.to_owned()),
        };
        match &tokens.refresh {
            None if tokens.expires_at <= now => Authorization::Missing(format!(
                "The Kimi login expired at {}, and cannot be renewed; run `nanokimi login`",
                tokens.expires_at
            )),
            Some(refresh) if self.refused.as_ref() == Some(&token_fingerprint(refresh)) => Authorization::Missing(
                "Kimi does not renew this login any more: it was ended at Kimi, or another program has renewed a copy \
                 of it; run `nanokimi login`"
                    .to_owned(),
            ),
            Some(_) | None if self.suspect.as_ref() == Some(&tokens.access) => Authorization::Missing(
                "Kimi refuses this login; look at your account there, or run `nanokimi login`"
                    .to_owned(),
            ),
            Some(_) | None => Authorization::Login(tokens.access.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const NOWHERE: &str = "http://127.0.0.1:9";
    const CANARY: &str = "canary-token";

    /// An install with an empty credentials folder.
    struct LoginTestInstall {
        _root: TempDir,
        paths: Paths,
    }

    fn install() -> LoginTestInstall {
        let root = TempDir::new().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.credentials_folder()).unwrap();
        LoginTestInstall { _root: root, paths }
    }

    impl LoginTestInstall {
        fn write(&self, text: &str) {
            fs::write(self.paths.login_file(), text).unwrap();
        }

        fn login(&self, now: &str) -> Login {
            Login::load_from_disk(&self.paths, None, NOWHERE, at(now))
        }
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    fn login_file(token: &str, expires_at: &str) -> String {
        format!(
            r#"{{"access_token":"{token}","refresh_token":"r","expires_at":{expires_at},"scope":"kimi-code","token_type":"Bearer","expires_in":900.0}}"#
        )
    }

    /// As `login_file`, but nobody can renew it.
    fn access_only(token: &str, expires_at: &str) -> String {
        login_file(token, expires_at).replace("\"refresh_token\":\"r\"", "\"refresh_token\":\"\"")
    }

    fn usable(token: &str) -> Authorization {
        Authorization::Login(Secret::new(token))
    }

    /// What the login says now, with the install's path written as `~`.
    fn said(login: &Login, install: &LoginTestInstall) -> String {
        match &*login.watch_authorization().borrow() {
            Authorization::ApiKey(token) | Authorization::Login(token) => {
                format!("Bearer {}", token.expose_secret())
            }
            Authorization::Missing(why) => {
                why.replace(&install.paths.credentials_folder().display().to_string(), "~")
            }
        }
    }

    const T: &str = "2026-11-21T20:00:00Z";
    /// `T` in Unix seconds.
    const T_SECONDS: i64 = 1_795_291_200;

    #[test]
    fn the_api_key_wins_over_the_file() {
        let install = install();
        install.write(&login_file("token", "4102444800"));
        let key = Secret::new("sk-1");
        let with = |key: &Secret| Login::load_from_disk(&install.paths, Some(key), NOWHERE, at(T));
        assert_eq!(*with(&key).watch_authorization().borrow(), Authorization::ApiKey(key.clone()));
        assert_eq!(*with(&Secret::new(" ")).watch_authorization().borrow(), usable("token"));
        let broken = with(&Secret::new("sk 1"));
        assert!(
            matches!(&*broken.watch_authorization().borrow(), Authorization::Missing(why) if !why.contains("sk 1"))
        );
    }

    #[test]
    fn every_missing_login_says_what_to_do() {
        let install = install();
        insta::assert_snapshot!(said(&install.login(T), &install), @"Nobody is logged in to Kimi; run `nanokimi login`");
        install.write(&login_file(CANARY, "\"soon\""));
        insta::assert_snapshot!(said(&install.login(T), &install), @"~/kimi-code.json is not a Kimi login (see line 1, column 70); run `nanokimi login`");
        install.write(&access_only(CANARY, &T_SECONDS.to_string()));
        insta::assert_snapshot!(said(&install.login(T), &install), @"The Kimi login expired at 2026-11-21T20:00:00Z, and cannot be renewed; run `nanokimi login`");
        install.write(&login_file(CANARY, "4102444800"));
        login_file::save_refused_fingerprint(
            &install.paths.login_file(),
            &token_fingerprint(&Secret::new("r")),
        )
        .unwrap();
        insta::assert_snapshot!(said(&install.login(T), &install), @"Kimi does not renew this login any more: it was ended at Kimi, or another program has renewed a copy of it; run `nanokimi login`");
        fs::remove_file(install.paths.login_file()).unwrap();
        fs::create_dir(install.paths.login_file()).unwrap();
        insta::assert_snapshot!(said(&install.login(T), &install), @"~/kimi-code.json is not a Kimi login (it is not a small text file); run `nanokimi login`");
    }

    #[test]
    fn an_access_token_that_has_expired_stays_as_long_as_another_may_come() {
        let install = install();
        install.write(&login_file("token", &T_SECONDS.to_string()));
        assert_eq!(*install.login("2027-11-21T20:00:00Z").watch_authorization().borrow(), usable("token"));
        // A refusal from before the login was made anew does not count any more.
        login_file::save_refused_fingerprint(
            &install.paths.login_file(),
            &token_fingerprint(&Secret::new("another")),
        )
        .unwrap();
        assert_eq!(*install.login(T).watch_authorization().borrow(), usable("token"));
    }

    #[test]
    fn a_malformed_login_never_shows_what_is_in_it() {
        let install = install();
        for text in [
            "".to_owned(),
            format!("\"{CANARY}\""),
            format!("{{\"access_token\":\"{CANARY}\"}}"),
            format!("{{\"access_token\":[\"{CANARY}\"]}}"),
            login_file(CANARY, &format!("\"{CANARY}\"")),
            login_file(CANARY, "1e300"),
            login_file(&format!("{CANARY} {CANARY}"), "4102444800"),
            login_file("", "4102444800"),
            format!("{}{}", login_file(CANARY, "4102444800"), " ".repeat(70_000)),
        ] {
            install.write(&text);
            let login = install.login(T);
            let said = said(&login, &install);
            assert!(said.starts_with("~/kimi-code.json is not a Kimi login ("), "{text}: {said}");
            assert!(!said.contains(CANARY) && !format!("{login:?}").contains(CANARY), "{text}: {said}");
        }
    }

    #[test]
    fn a_changed_file_is_taken_up_and_time_goes_on() {
        let install = install();
        let login = install.login(T);
        let mut seen = login.watch_authorization();
        assert!(matches!(&*seen.borrow(), Authorization::Missing(_)));

        install.write(&access_only("first", &format!("{T_SECONDS}.75")));
        login.reload_if_changed(at("2026-11-21T19:59:59Z"));
        assert!(seen.has_changed().unwrap());
        assert_eq!(*seen.borrow_and_update(), usable("first"));
        login.reload_if_changed(at("2026-11-21T19:59:59Z"));
        assert!(!seen.has_changed().unwrap(), "nothing is new");
        login.reload_if_changed(at("2026-11-21T20:00:01Z"));
        assert!(matches!(&*seen.borrow(), Authorization::Missing(why) if why.contains("expired")));

        // Put in place by rename, as kimi-cli does.
        let copy = install.paths.credentials_folder().join("copy");
        fs::write(&copy, login_file("secnd", &format!("{}.75", T_SECONDS + 9))).unwrap();
        fs::rename(&copy, install.paths.login_file()).unwrap();
        login.reload_if_changed(at(T));
        assert_eq!(*seen.borrow(), usable("secnd"));
        fs::remove_file(install.paths.login_file()).unwrap();
        login.reload_if_changed(at(T));
        assert!(
            matches!(&*seen.borrow(), Authorization::Missing(why) if why.starts_with("Nobody is logged in"))
        );
    }
}
