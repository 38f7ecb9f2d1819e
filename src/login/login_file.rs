//! The login on disk, `kimi-code.json` in kimi-cli's format (1.51.0, `auth/oauth.py`): read, and replaced
//! whole under the lock that kimi-cli takes too.
//!
//! A refresh spends its token at the server, so that the answer must not be lost. Its place on disk is made
//! before the request is sent, and named after the token that is spent:
//!
//! ```text
//! kimi-code.json                   the login, until the new one is renamed over it
//! kimi-code.json.after-<mark>      the place of the answer: empty, then whole
//! kimi-code.lock                   flock: one refresh at a time, of whichever program
//! kimi-code.refused                the mark of a refresh token that the server has refused
//! ```
//! A process that takes the lock finishes what a killed one has begun: a whole file that is named after the
//! token that the login still holds, or after a person's own agreement, becomes the login.

use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::{SignedDuration, Timestamp};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::private_file;
use crate::types::Secret;

/// Largest login file in bytes; a real one has about two thousand.
const LOGIN_FILE_MAX: u64 = 64 * 1024;
/// The pause between two tries for a lock that another process has.
const LOCK_RETRY: Duration = Duration::from_millis(100);
/// What is left at half-life if nobody knows how long a token lives, as kimi-cli assumes.
const HALF_OF_UNKNOWN: SignedDuration = SignedDuration::from_secs(300);
/// Hex digits of a token's mark: enough to tell tokens apart, and nothing to guess one from.
const MARK_DIGITS: usize = 16;
/// In place of a spent token's mark: a login that a person has agreed to is given for no token.
pub const FIRST_LOGIN: &str = "login";
/// Between the login's name and the mark of what a coming one is given for.
const AFTER: &str = ".after-";
/// The room for a login that is about to come: twice what a real one takes.
const ROOM_BYTES: usize = 4096;

/// What the server gave, as it stands in the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Tokens {
    pub access: Secret,
    /// `None` if the file's is empty: such a login cannot be renewed.
    pub refresh: Option<Secret>,
    pub expires_at: Timestamp,
    /// `None` if nobody knows it.
    pub lifetime: Option<Duration>,
    pub scope: String,
    pub token_type: String,
}

impl Tokens {
    /// When half of the life is over, and it is time for another.
    pub fn half_life(&self) -> Timestamp {
        let half = self.lifetime.and_then(|lifetime| SignedDuration::try_from(lifetime / 2).ok());
        self.expires_at.saturating_sub(half.unwrap_or(HALF_OF_UNKNOWN)).unwrap_or(Timestamp::MIN)
    }
}

/// A file as it was at one moment: another one, or another content, has another stamp.
pub type LoginFileStamp = (i64, i64, u64, u64);

pub fn login_file_stamp(metadata: &Metadata) -> LoginFileStamp {
    (metadata.mtime(), metadata.mtime_nsec(), metadata.size(), metadata.ino())
}

/// The file's own words.
#[derive(Serialize, Deserialize)]
struct StoredLogin {
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    /// Unix seconds.
    expires_at: f64,
    #[serde(default)]
    scope: String,
    #[serde(default)]
    token_type: String,
    /// Seconds.
    #[serde(default)]
    expires_in: f64,
}

/// Reads a login of which this is the metadata.
///
/// # Errors
/// Says what is wrong with it and what to do, and nothing of what is in it.
pub fn read_login_file(file: &Path, metadata: &Metadata) -> Result<Tokens, String> {
    if !metadata.is_file() || metadata.size() > LOGIN_FILE_MAX {
        return Err(malformed_login_message(file, "it is not a small text file"));
    }
    if let Some(warning) = restrict_file_mode(file, metadata) {
        tracing::warn!("{warning}");
    }
    let text = fs::read(file).map_err(|error| unreadable_login_message(file, &error.to_string()))?;
    parse_login_file(&text).map_err(|why| malformed_login_message(file, &why))
}

/// # Errors
/// Says the line and column of the mistake, and nothing of what is there.
pub fn parse_login_file(text: &[u8]) -> Result<Tokens, String> {
    let written: StoredLogin = serde_json::from_slice(text)
        // The error's own words may hold a piece of the file.
        .map_err(|error| format!("see line {}, column {}", error.line(), error.column()))?;
    let access = Secret::new(written.access_token);
    if !is_sendable_token(&access) {
        return Err("access_token is no token".to_owned());
    }
    let refresh = Some(Secret::new(written.refresh_token)).filter(|token| !token.expose_secret().is_empty());
    if refresh.as_ref().is_some_and(|token| !is_sendable_token(token)) {
        return Err("refresh_token is no token".to_owned());
    }
    #[expect(clippy::cast_possible_truncation, reason = "what does not fit is no time either")]
    let expires_at = Timestamp::from_millisecond((written.expires_at * 1000.0) as i64)
        .map_err(|_| "expires_at is no time in Unix seconds")?;
    let lifetime =
        Duration::try_from_secs_f64(written.expires_in).ok().filter(|lifetime| !lifetime.is_zero());
    Ok(Tokens { access, refresh, expires_at, lifetime, scope: written.scope, token_type: written.token_type })
}

/// The text of a login file: the six fields that kimi-cli reads, in its order.
fn render_login_file(tokens: &Tokens) -> Result<String> {
    #[expect(clippy::cast_precision_loss, reason = "Unix milliseconds have room in a float")]
    let written = StoredLogin {
        access_token: tokens.access.expose_secret().to_owned(),
        refresh_token: tokens
            .refresh
            .as_ref()
            .map_or_else(String::new, |token| token.expose_secret().to_owned()),
        expires_at: tokens.expires_at.as_millisecond() as f64 / 1000.0,
        scope: tokens.scope.clone(),
        token_type: tokens.token_type.clone(),
        expires_in: tokens.lifetime.unwrap_or_default().as_secs_f64(),
    };
    serde_json::to_string(&written).context("Failed to write a login down")
}

/// Whether it can stand in an Authorization header or a form.
pub fn is_sendable_token(token: &Secret) -> bool {
    !token.expose_secret().is_empty() && token.expose_secret().chars().all(|c| c.is_ascii_graphic())
}

/// A login is for this user's eyes only; a copied one often has the modes of any other file. Returns what the
/// owner should know about it.
fn restrict_file_mode(file: &Path, metadata: &Metadata) -> Option<String> {
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

pub fn unreadable_login_message(file: &Path, why: &str) -> String {
    format!(
        "The login in {} cannot be read: {why}; it must be a file of the user who runs nanokimi",
        file.display()
    )
}

fn malformed_login_message(file: &Path, why: &str) -> String {
    format!("{} is not a Kimi login ({why}); run `nanokimi login`", file.display())
}

/// The mark by which a token is known in places that must not hold the token itself.
pub fn token_fingerprint(token: &Secret) -> String {
    let mut digits = hex::encode(Sha256::digest(token.expose_secret().as_bytes()));
    digits.truncate(MARK_DIGITS);
    digits
}

/// The mark of the refresh token that the server has refused last.
pub fn read_refused_fingerprint(file: &Path) -> Option<String> {
    let noted = fs::read_to_string(refused_file_path(file)).ok()?;
    Some(noted.trim().to_owned()).filter(|mark| !mark.is_empty())
}

/// Notes that the server has refused a token, so that no later start asks for it again.
pub fn save_refused_fingerprint(file: &Path, mark: &str) -> Result<()> {
    private_file::write_private_file(&refused_file_path(file), mark)
}

fn refused_file_path(file: &Path) -> PathBuf {
    file.with_extension("refused")
}

/// The right to replace the login, which one program has at a time. Dropping it gives it back.
#[derive(Debug)]
pub struct LoginLock {
    file: PathBuf,
    _flock: File,
}

impl LoginLock {
    /// Takes the lock of this login file, if its holder gives it back within `patience`. Then finishes what a
    /// killed process has begun.
    ///
    /// # Errors
    /// Another process keeps it, or nothing can be written beside the login.
    pub async fn acquire_within(file: &Path, patience: Duration) -> Result<Self> {
        let path = file.with_extension("lock");
        let explain = || format!("Failed to lock {}", path.display());
        let lock =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let flock_file = lock.with_context(explain)?;
        let give_up = Instant::now() + patience;
        loop {
            match flock(&flock_file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < give_up => sleep(LOCK_RETRY).await,
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    bail!("Another program has kept {} locked for {} s", path.display(), patience.as_secs())
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).with_context(explain),
            }
        }
        let lock = Self { file: file.to_owned(), _flock: flock_file };
        lock.finish_interrupted_save()?;
        Ok(lock)
    }

    /// Removes the login. `false` if there was none.
    ///
    /// # Errors
    /// It is still there.
    pub fn remove_login_file(&self) -> Result<bool> {
        match fs::remove_file(&self.file) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error).with_context(|| format!("Failed to remove {}", self.file.display())),
        }
    }

    /// Puts in place the login that an earlier holder of the lock got and did not put there. Removes what is
    /// of no use.
    fn finish_interrupted_save(&self) -> Result<()> {
        let explain = || format!("Failed to look for what was left beside {}", self.file.display());
        let spent = match fs::metadata(&self.file) {
            Ok(metadata) => match read_login_file(&self.file, &metadata) {
                Ok(tokens) => tokens.refresh.map(|token| token_fingerprint(&token)),
                // Nobody knows what it holds, so nobody knows what is of use beside it.
                Err(_) => return Ok(()),
            },
            Err(_) => None,
        };
        let folder = self.file.parent().with_context(explain)?;
        let own_name = self.file.file_name().with_context(explain)?;
        let beginning = format!("{}{AFTER}", own_name.to_string_lossy());
        for entry in fs::read_dir(folder).with_context(explain)? {
            let path = entry.with_context(explain)?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let Some(after) = name.strip_prefix(&beginning) else { continue };
            // A file that cannot be read may be the only copy: only one that was read and is no login is of
            // no use.
            let is_whole = parse_login_file(&fs::read(&path).with_context(explain)?).is_ok();
            if is_whole && (after == FIRST_LOGIN || spent.as_deref() == Some(after)) {
                tracing::info!("Finishing a change of the Kimi login that was broken off");
                let file = OpenOptions::new().write(true).open(&path).with_context(explain)?;
                rename_into_place(&file, &path, &self.file)?;
            } else {
                fs::remove_file(&path).with_context(explain)?;
            }
        }
        Ok(())
    }

    /// Makes room on disk for what a server is about to give in exchange for what has this mark.
    ///
    /// # Errors
    /// There is no room: then nothing should be asked for.
    pub fn reserve_login_space(self, mark: &str) -> Result<PendingLogin> {
        let mut name = self.file.clone().into_os_string();
        name.push(format!("{AFTER}{mark}"));
        let place = PathBuf::from(name);
        let explain = || format!("Failed to make room for a new login in {}", place.display());
        match fs::remove_file(&place) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error).with_context(explain),
            Ok(()) | Err(_) => {}
        }
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&place).with_context(explain)?;
        let room = PendingLogin { lock: self, place: place.clone(), file, holds: PendingContent::Nothing };
        (&room.file).write_all(&[b' '; ROOM_BYTES]).with_context(explain)?;
        room.file.sync_all().with_context(explain)?;
        Ok(room)
    }
}

/// A place on disk for a login that is about to come, with the lock. Dropped while it holds nothing, it goes
/// away.
#[derive(Debug)]
pub struct PendingLogin {
    lock: LoginLock,
    place: PathBuf,
    file: File,
    holds: PendingContent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingContent {
    Nothing,
    /// The new login, which must not be lost: the server has forgotten the one before.
    Login,
}

impl PendingLogin {
    /// Makes these tokens the login. May be tried again if it has failed.
    ///
    /// # Errors
    /// They are not on disk, or may not be.
    pub fn write_tokens(&mut self, tokens: &Tokens) -> Result<()> {
        self.holds = PendingContent::Login;
        let explain = || format!("Failed to write the new login to {}", self.place.display());
        let text = render_login_file(tokens)?;
        // The blanks behind it are cut off last: it is a whole login with them too.
        self.file.write_all_at(text.as_bytes(), 0).with_context(explain)?;
        self.file.set_len(text.len() as u64).with_context(explain)?;
        rename_into_place(&self.file, &self.place, &self.lock.file)
    }
}

impl Drop for PendingLogin {
    fn drop(&mut self) {
        if self.holds == PendingContent::Nothing
            && let Err(error) = fs::remove_file(&self.place)
        {
            tracing::warn!("Failed to remove {}: {error}", self.place.display());
        }
    }
}

/// Makes what is in `place` the login, in a way that outlasts a power cut.
fn rename_into_place(written: &File, place: &Path, login: &Path) -> Result<()> {
    let explain = || format!("Failed to put {} in place", login.display());
    written.sync_all().with_context(explain)?;
    let folder = login.parent().with_context(explain)?;
    fs::rename(place, login).with_context(explain)?;
    // It is the login now, even if this fails: not all file systems can do it.
    if let Err(error) = File::open(folder).and_then(|folder| folder.sync_all()) {
        tracing::warn!("A power cut now could lose the new Kimi login: {}: {error}", folder.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    const CANARY: &str = "canary-token";

    fn tokens(number: u32) -> Tokens {
        Tokens {
            access: Secret::new(format!("access-{number}")),
            refresh: Some(Secret::new(format!("refresh-{number}"))),
            expires_at: Timestamp::from_millisecond(1_795_291_200_750).unwrap(),
            lifetime: Some(Duration::from_secs(900)),
            scope: "kimi-code".to_owned(),
            token_type: "Bearer".to_owned(),
        }
    }

    /// A folder with a login in it.
    struct LoginTestFolder {
        root: TempDir,
    }

    impl LoginTestFolder {
        fn new() -> Self {
            let folder = Self { root: TempDir::new().unwrap() };
            fs::write(folder.file(), render_login_file(&tokens(1)).unwrap()).unwrap();
            fs::set_permissions(folder.file(), Permissions::from_mode(0o600)).unwrap();
            folder
        }

        fn file(&self) -> PathBuf {
            self.root.path().join("kimi-code.json")
        }

        fn login(&self) -> Tokens {
            read_login_file(&self.file(), &fs::metadata(self.file()).unwrap()).unwrap()
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(self.root.path()).unwrap();
            let mut names: Vec<String> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        async fn lock(&self) -> LoginLock {
            LoginLock::acquire_within(&self.file(), Duration::from_secs(5)).await.unwrap()
        }

        /// What a process leaves that is killed after it has written this in the place of an answer.
        async fn killed_with(&self, mark: &str, written: &str) {
            let room = self.lock().await.reserve_login_space(mark).unwrap();
            room.file.set_len(0).unwrap();
            room.file.write_all_at(written.as_bytes(), 0).unwrap();
            // The kernel gives the lock back, and nobody tidies up.
            let PendingLogin { lock, .. } = &room;
            flock(&lock._flock, FlockOperation::Unlock).unwrap();
            std::mem::forget(room);
        }
    }

    const LOGIN_AND_LOCK: [&str; 2] = ["kimi-code.json", "kimi-code.lock"];

    #[test]
    fn a_login_is_written_as_kimi_cli_writes_it() {
        insta::assert_snapshot!(render_login_file(&tokens(1)).unwrap(), @r#"{"access_token":"access-1","refresh_token":"refresh-1","expires_at":1795291200.75,"scope":"kimi-code","token_type":"Bearer","expires_in":900.0}"#);
        let login = Tokens { refresh: None, lifetime: None, ..tokens(1) };
        assert_eq!(parse_login_file(render_login_file(&login).unwrap().as_bytes()), Ok(login));
    }

    #[test]
    fn specification_refresh_threshold_a_login_is_renewed_before_its_last_300_seconds() {
        // Real ones live for 900 s; of others the life may not be known.
        for lifetime in [Some(900), Some(3600), None] {
            let tokens = Tokens { lifetime: lifetime.map(Duration::from_secs), ..tokens(1) };
            assert!(tokens.expires_at.duration_since(tokens.half_life()).as_secs() >= 300, "{lifetime:?}");
        }
    }

    #[test]
    fn half_of_a_life_is_over_when_half_of_it_is_left() {
        let left = |lifetime: Option<f64>| {
            let tokens = Tokens { lifetime: lifetime.map(Duration::from_secs_f64), ..tokens(1) };
            tokens.expires_at.duration_since(tokens.half_life()).as_secs_f64()
        };
        for (lifetime, expected) in
            [(Some(900.0), 450.0), (Some(60.0), 30.0), (Some(3.0), 1.5), (None, 300.0)]
        {
            assert!((left(lifetime) - expected).abs() < 1e-9, "{lifetime:?}");
        }
    }

    #[tokio::test]
    async fn a_new_login_is_put_in_place_whole_and_only_for_its_owner() {
        let folder = LoginTestFolder::new();
        let mut room =
            folder.lock().await.reserve_login_space(&token_fingerprint(&Secret::new("refresh-1"))).unwrap();
        assert_eq!(folder.login(), tokens(1), "the old one stays until the new one is there");
        room.write_tokens(&tokens(2)).unwrap();
        drop(room);
        assert_eq!(folder.login(), tokens(2));
        assert_eq!(fs::metadata(folder.file()).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(folder.file().with_extension("lock")).unwrap().mode() & 0o777, 0o600);
        assert_eq!(folder.names(), LOGIN_AND_LOCK);

        drop(folder.lock().await.reserve_login_space("unused").unwrap());
        assert_eq!(folder.names(), LOGIN_AND_LOCK, "a place that nothing came for goes away");
    }

    #[tokio::test]
    async fn a_process_that_was_killed_at_any_moment_leaves_a_login_that_works() {
        let spent = token_fingerprint(&Secret::new("refresh-1"));
        let new = render_login_file(&tokens(2)).unwrap();
        // Before the answer, in the middle of writing it, and before the blanks behind it were cut off.
        for (written, expected) in [
            (String::new(), 1),
            (" ".repeat(ROOM_BYTES), 1),
            (new[..new.len() / 2].to_owned(), 1),
            (format!("{}{}", &new[..new.len() - 1], " ".repeat(ROOM_BYTES)), 1),
            (format!("{new}{}", " ".repeat(ROOM_BYTES - new.len())), 2),
            (new.clone(), 2),
        ] {
            let folder = LoginTestFolder::new();
            folder.killed_with(&spent, &written).await;
            assert_eq!(folder.login(), tokens(1));
            drop(folder.lock().await);
            assert_eq!(folder.login(), tokens(expected), "{written:?}");
            assert_eq!(folder.names(), LOGIN_AND_LOCK, "{written:?}");
        }
    }

    #[tokio::test]
    async fn what_was_left_behind_never_replaces_another_login() {
        let folder = LoginTestFolder::new();
        folder
            .killed_with(
                &token_fingerprint(&Secret::new("refresh-1")),
                &render_login_file(&tokens(2)).unwrap(),
            )
            .await;
        // Meanwhile the owner has logged in anew, or copied a login.
        fs::write(folder.file(), render_login_file(&tokens(7)).unwrap()).unwrap();
        drop(folder.lock().await);
        assert_eq!(folder.login(), tokens(7));
        assert_eq!(folder.names(), LOGIN_AND_LOCK);
    }

    #[tokio::test]
    async fn a_login_that_a_person_has_made_is_finished_too() {
        for login in [None, Some(render_login_file(&tokens(1)).unwrap())] {
            let folder = LoginTestFolder::new();
            fs::remove_file(folder.file()).unwrap();
            if let Some(login) = login {
                fs::write(folder.file(), login).unwrap();
            }
            folder.killed_with(FIRST_LOGIN, &render_login_file(&tokens(2)).unwrap()).await;
            drop(folder.lock().await);
            assert_eq!(
                (folder.login(), folder.names()),
                (tokens(2), LOGIN_AND_LOCK.map(str::to_owned).to_vec())
            );
        }
    }

    #[tokio::test]
    async fn beside_a_login_that_cannot_be_read_nothing_is_thrown_away() {
        let folder = LoginTestFolder::new();
        folder
            .killed_with(
                &token_fingerprint(&Secret::new("refresh-1")),
                &render_login_file(&tokens(2)).unwrap(),
            )
            .await;
        fs::write(folder.file(), "{").unwrap();
        drop(folder.lock().await);
        assert_eq!(folder.names().len(), 3);
        // If the login is what it was, so is the other.
        fs::write(folder.file(), render_login_file(&tokens(1)).unwrap()).unwrap();
        drop(folder.lock().await);
        assert_eq!(folder.login(), tokens(2));
    }

    #[tokio::test]
    async fn one_program_has_the_lock_at_a_time() {
        let folder = LoginTestFolder::new();
        let held = folder.lock().await;
        let error = LoginLock::acquire_within(&folder.file(), Duration::from_millis(250))
            .await
            .unwrap_err()
            .to_string();
        assert!(error.ends_with("kimi-code.lock locked for 0 s"), "{error}");
        drop(held);
        // As kimi-cli takes it (Python's fcntl.flock).
        let other = File::open(folder.file().with_extension("lock")).unwrap();
        flock(&other, FlockOperation::NonBlockingLockExclusive).unwrap();
        let waiting = folder.file();
        let waiting =
            tokio::spawn(async move { LoginLock::acquire_within(&waiting, Duration::from_secs(20)).await });
        drop(other);
        waiting.await.unwrap().unwrap();
    }

    #[test]
    fn a_login_that_is_open_to_others_is_closed_with_a_warning() {
        let folder = LoginTestFolder::new();
        let file = folder.file();
        for (mode, warned) in [(0o600, false), (0o400, false), (0o644, true), (0o640, true)] {
            fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
            let warning = restrict_file_mode(&file, &fs::metadata(&file).unwrap());
            let expected = format!(
                "{} was open to others (mode {mode:03o}); it is yours alone now (600)",
                file.display()
            );
            assert_eq!(warning, warned.then_some(expected));
        }
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(folder.login(), tokens(1));
        assert_eq!(fs::metadata(&file).unwrap().mode() & 0o777, 0o600);
    }

    proptest! {
        #[test]
        fn no_file_is_too_strange_and_none_is_shown(
            noise in "\\PC{0,40}", cut in 0usize..200, number in "[-0-9.eE]{1,12}",
        ) {
            let login = render_login_file(&tokens(1)).unwrap().replace("access-1", CANARY).replace("refresh-1", CANARY);
            let cut = cut.min(login.len());
            for text in [
                noise.clone(),
                format!("{}{noise}{}", &login[..cut], &login[cut..]),
                login[..cut].to_owned(),
                login.replace("900.0", &number),
                login.replace("1795291200.75", &number),
            ] {
                if let Err(why) = parse_login_file(text.as_bytes()) {
                    prop_assert!(!why.contains(CANARY) && !why.contains("canary"), "{why}");
                }
            }
        }
    }
}
