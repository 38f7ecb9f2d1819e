//! The owner's Kimi login, which only the host holds, and the files that stand in for it inside containers.
//!
//! [`Login`] publishes what the door may use: the platform API key where `.env` has one, else kimi-cli's
//! login file. It never refreshes that file and never writes to it. `stand_in` makes what containers get
//! instead; `config_toml` looks at the engine's settings, which containers read and which must hold no
//! secret.

pub mod config_toml;
mod private_file;
mod stand_in;

use std::fs::{self, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::watch;

pub use stand_in::{device_id, stand_in, write_stand_in};

use crate::paths::Paths;
use crate::types::{Authorization, Secret};

/// Largest login file in bytes; a real one has about two thousand.
const LOGIN_FILE_MAX: u64 = 64 * 1024;

/// The owner's login as it stands on disk.
#[derive(Debug)]
pub struct Login {
    api_key: Option<Secret>,
    file: PathBuf,
    /// What the file said when it was last read, and which file that was.
    known: Mutex<Option<(Stamp, Reading)>>,
    authorization: watch::Sender<Authorization>,
    refusals: watch::Sender<Option<Secret>>,
}

/// A file as it was at one moment: another one, or another content, has another stamp.
type Stamp = (i64, i64, u64, u64);

/// A token and when it expires, or why there is none.
type Reading = Result<(Secret, Timestamp), String>;

/// kimi-cli's `credentials/kimi-code.json` (1.51.0, `auth/oauth.py`), as far as it is used.
#[derive(Deserialize)]
struct LoginFile {
    access_token: String,
    /// Unix seconds.
    expires_at: f64,
}

impl Login {
    /// `api_key` is `MOONSHOT_API_KEY`; where it is set the login file is never looked at.
    pub fn load(paths: &Paths, api_key: Option<&Secret>, now: Timestamp) -> Self {
        let login = Self {
            api_key: api_key.filter(|key| !key.reveal().trim().is_empty()).cloned(),
            file: paths.login_file(),
            known: Mutex::default(),
            authorization: watch::Sender::new(Authorization::Missing(
                "The login was not read yet.".to_owned(),
            )),
            refusals: watch::Sender::new(None),
        };
        login.refresh(now);
        login
    }

    /// For the doors: always what the latest [`Login::refresh`] found.
    pub fn authorization(&self) -> watch::Receiver<Authorization> {
        self.authorization.subscribe()
    }

    /// Where the doors put a login that the Kimi API has refused.
    pub fn refusals(&self) -> watch::Sender<Option<Secret>> {
        self.refusals.clone()
    }

    /// Looks again, before a launch or turn: takes up a login file that has changed and notices one that has
    /// expired. Costs one `stat` where nothing has changed.
    pub fn refresh(&self, now: Timestamp) {
        let found = match &self.api_key {
            Some(key) if is_sendable(key) => Authorization::ApiKey(key.clone()),
            Some(_) => Authorization::Missing(
                "MOONSHOT_API_KEY in .env is not a key: it holds spaces or characters that no key has"
                    .to_owned(),
            ),
            None => self.file_login(now),
        };
        self.authorization.send_if_modified(|current| {
            let changed = *current != found;
            *current = found;
            changed
        });
    }

    fn file_login(&self, now: Timestamp) -> Authorization {
        let file = self.file.display();
        let metadata = match fs::metadata(&self.file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Authorization::Missing(format!(
                    "Nobody is logged in to Kimi; log in with kimi-cli on your computer and copy its \
                     ~/.kimi/credentials/kimi-code.json to {file}"
                ));
            }
            Err(error) => return Authorization::Missing(unreadable(&self.file, &error.to_string())),
        };
        let stamp = (metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let reading = match &*known {
            Some((seen, reading)) if *seen == stamp => reading.clone(),
            Some(_) | None => {
                let reading = read(&self.file, &metadata);
                *known = Some((stamp, reading.clone()));
                reading
            }
        };
        match reading {
            Ok((token, expires_at)) if expires_at > now => Authorization::Login(token),
            Ok((_, expires_at)) => Authorization::Missing(format!(
                "The login in {file} expired at {expires_at}; log in again with kimi-cli on your computer and copy \
                 the file"
            )),
            Err(why) => Authorization::Missing(why),
        }
    }
}

fn read(file: &Path, metadata: &Metadata) -> Reading {
    if !metadata.is_file() || metadata.size() > LOGIN_FILE_MAX {
        return Err(malformed(file, "it is not a small text file"));
    }
    if let Some(warning) = tighten(file, metadata) {
        tracing::warn!("{warning}");
    }
    let text = fs::read_to_string(file).map_err(|error| unreadable(file, &error.to_string()))?;
    let login: LoginFile = serde_json::from_str(&text).map_err(|error| {
        // The error's own words may hold a piece of the file.
        malformed(file, &format!("see line {}, column {}", error.line(), error.column()))
    })?;
    let token = Secret::new(login.access_token);
    if !is_sendable(&token) {
        return Err(malformed(file, "access_token is no token"));
    }
    #[expect(clippy::cast_possible_truncation, reason = "a fraction of a second does not matter")]
    let expires_at = Timestamp::from_second(login.expires_at as i64)
        .map_err(|_| malformed(file, "expires_at is no time in Unix seconds"))?;
    Ok((token, expires_at))
}

/// A login is for this user's eyes only; a copied one often has the modes of any other file. Returns what the
/// owner should know about it.
fn tighten(file: &Path, metadata: &Metadata) -> Option<String> {
    let mode = metadata.mode() & 0o777;
    if mode & 0o077 == 0 {
        return None;
    }
    let file_name = file.display();
    Some(match fs::set_permissions(file, Permissions::from_mode(0o600)) {
        Ok(()) => format!("{file_name} was open to others (mode {mode:03o}); it is yours alone now (600)"),
        Err(error) => {
            format!("{file_name} is open to others (mode {mode:03o}): failed to change it: {error}")
        }
    })
}

/// Whether it can stand in an Authorization header.
fn is_sendable(login: &Secret) -> bool {
    !login.reveal().is_empty() && login.reveal().chars().all(|c| c.is_ascii_graphic())
}

fn unreadable(file: &Path, why: &str) -> String {
    format!(
        "The login in {} cannot be read: {why}; it must be a file of the user who runs nanokimi",
        file.display()
    )
}

fn malformed(file: &Path, why: &str) -> String {
    format!(
        "{} is not a Kimi login ({why}); copy ~/.kimi/credentials/kimi-code.json from your computer again",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const CANARY: &str = "canary-token";

    /// An install with an empty credentials folder.
    struct Install {
        _root: TempDir,
        paths: Paths,
    }

    fn install() -> Install {
        let root = TempDir::new().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.credentials()).unwrap();
        Install { _root: root, paths }
    }

    impl Install {
        fn write(&self, text: &str) {
            fs::write(self.paths.login_file(), text).unwrap();
        }

        fn login(&self, now: &str) -> Login {
            Login::load(&self.paths, None, at(now))
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

    fn bearer(token: &str) -> Authorization {
        Authorization::Login(Secret::new(token))
    }

    /// What the login says now, with the install's path written as `~`.
    fn said(login: &Login, install: &Install) -> String {
        match &*login.authorization().borrow() {
            Authorization::ApiKey(token) | Authorization::Login(token) => {
                format!("Bearer {}", token.reveal())
            }
            Authorization::Missing(why) => {
                why.replace(&install.paths.credentials().display().to_string(), "~")
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
        let login = Login::load(&install.paths, Some(&key), at(T));
        assert_eq!(*login.authorization().borrow(), Authorization::ApiKey(key));
        let blank = Login::load(&install.paths, Some(&Secret::new(" ")), at(T));
        assert_eq!(*blank.authorization().borrow(), bearer("token"));
        let broken = Login::load(&install.paths, Some(&Secret::new("sk 1")), at(T));
        assert!(
            matches!(&*broken.authorization().borrow(), Authorization::Missing(why) if !why.contains("sk 1"))
        );
    }

    #[test]
    fn every_missing_login_says_what_to_do() {
        let install = install();
        insta::assert_snapshot!(said(&install.login(T), &install), @"Nobody is logged in to Kimi; log in with kimi-cli on your computer and copy its ~/.kimi/credentials/kimi-code.json to ~/kimi-code.json");
        install.write(&login_file(CANARY, &T_SECONDS.to_string()));
        insta::assert_snapshot!(said(&install.login(T), &install), @"The login in ~/kimi-code.json expired at 2026-11-21T20:00:00Z; log in again with kimi-cli on your computer and copy the file");
        install.write(&login_file(CANARY, "\"soon\""));
        insta::assert_snapshot!(said(&install.login(T), &install), @"~/kimi-code.json is not a Kimi login (see line 1, column 70); copy ~/.kimi/credentials/kimi-code.json from your computer again");
        fs::remove_file(install.paths.login_file()).unwrap();
        fs::create_dir(install.paths.login_file()).unwrap();
        insta::assert_snapshot!(said(&install.login(T), &install), @"~/kimi-code.json is not a Kimi login (it is not a small text file); copy ~/.kimi/credentials/kimi-code.json from your computer again");
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
        let mut seen = login.authorization();
        assert!(matches!(&*seen.borrow(), Authorization::Missing(_)));

        install.write(&login_file("first", &format!("{T_SECONDS}.75")));
        login.refresh(at("2026-11-21T19:59:59Z"));
        assert!(seen.has_changed().unwrap());
        assert_eq!(*seen.borrow_and_update(), bearer("first"));
        login.refresh(at("2026-11-21T19:59:59Z"));
        assert!(!seen.has_changed().unwrap(), "nothing is new");
        login.refresh(at(T));
        assert!(matches!(&*seen.borrow(), Authorization::Missing(why) if why.contains("expired")));

        // Put in place by rename, as kimi-cli does.
        let copy = install.paths.credentials().join("copy");
        fs::write(&copy, login_file("secnd", &format!("{}.75", T_SECONDS + 9))).unwrap();
        fs::rename(&copy, install.paths.login_file()).unwrap();
        login.refresh(at(T));
        assert_eq!(*seen.borrow(), bearer("secnd"));
        fs::remove_file(install.paths.login_file()).unwrap();
        login.refresh(at(T));
        assert!(
            matches!(&*seen.borrow(), Authorization::Missing(why) if why.starts_with("Nobody is logged in"))
        );
    }

    #[test]
    fn a_login_that_is_open_to_others_is_closed_with_a_warning() {
        let install = install();
        install.write(&login_file(CANARY, "4102444800"));
        let file = install.paths.login_file();
        for (mode, warned) in [(0o600, false), (0o400, false), (0o644, true), (0o640, true)] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let warning = tighten(&file, &fs::metadata(&file).unwrap());
            let expected = format!(
                "{} was open to others (mode {mode:03o}); it is yours alone now (600)",
                file.display()
            );
            assert_eq!(warning, warned.then_some(expected));
        }
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(*install.login(T).authorization().borrow(), bearer(CANARY));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }
}
