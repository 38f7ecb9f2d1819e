//! What a person does with the login by hand: makes one, and removes it.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use jiff::Timestamp;

use super::login_file::{FIRST_LOGIN, LoginLock};
use super::oauth::TokenGrant;

/// How long somebody who has just logged in waits for a refresh of the old login to be over.
pub const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// Whether a login could be saved.
///
/// # Errors
/// There is no room for it, or nothing can be written there.
pub async fn check_space_for_login(file: &Path) -> Result<()> {
    LoginLock::acquire_within(file, LOCK_PATIENCE).await?.reserve_login_space(FIRST_LOGIN).map(drop)
}

/// Makes the tokens that the server has just given the login, in place of whatever is there.
///
/// # Errors
/// It is not on disk.
pub async fn save_login(file: &Path, grant: TokenGrant, now: Timestamp) -> Result<()> {
    let lock = LoginLock::acquire_within(file, LOCK_PATIENCE).await?;
    lock.reserve_login_space(FIRST_LOGIN)?.write_tokens(&grant.into_tokens(None, now))
}

/// Removes the login, if there is one. Says whether there was.
///
/// # Errors
/// It is still there.
pub async fn remove_login(file: &Path) -> Result<LogoutResult> {
    let was_there = LoginLock::acquire_within(file, LOCK_PATIENCE).await?.remove_login_file()?;
    Ok(if was_there { LogoutResult::Login } else { LogoutResult::Nothing })
}

/// What was there to remove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogoutResult {
    Login,
    Nothing,
}
