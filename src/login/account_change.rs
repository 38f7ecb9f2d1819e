//! What a person does with the accounts by hand: adds one with its login, and removes one.
//!
//! A login is on disk before its account is listed, and the account is unlisted before its login goes: a kill in
//! between leaves a login that nobody uses, never an account without one.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use jiff::Timestamp;

use super::accounts_file::{AccountRecord, AccountRecords, update_accounts};
use super::import::ImportedAccount;
use super::login_file::{FIRST_LOGIN, LoginLock, parse_login_file, token_fingerprint};
use super::manual::LOCK_PATIENCE;
use super::private_file;
use super::quota::parse_claimed_account;
use super::shared_login::{DEVICE_ID, LOGIN_FILE};
use crate::paths::Paths;
use crate::types::{AccountId, AccountName};

/// What came of an import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImportResult {
    Added(AccountName),
    /// It is here already, under this name.
    Known(AccountName),
}

/// The files of an account beside the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountFiles {
    pub login: PathBuf,
    pub device_id: PathBuf,
}

impl AccountFiles {
    pub fn of(paths: &Paths, id: &AccountId) -> Self {
        if *id == AccountId::first() {
            return Self { login: paths.login_file(), device_id: paths.device_id_file() };
        }
        let folder = paths.account_folder(id);
        Self { login: folder.join(LOGIN_FILE), device_id: folder.join(DEVICE_ID) }
    }
}

/// A new account that is not listed yet, with a folder for its login.
///
/// # Errors
/// The folder cannot be made.
pub fn prepare_account(paths: &Paths, name: AccountName, now: Timestamp) -> Result<AccountRecord> {
    let id = AccountId::parse(&hex::encode(rand::random::<[u8; 4]>())).context("Failed to make an id")?;
    let folder = paths.account_folder(&id);
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&folder)
        .with_context(|| format!("Failed to create {}", folder.display()))?;
    Ok(AccountRecord::new(id, name, now))
}

/// Lists an account whose login is on disk. The first further account makes several of one, which changes how
/// requests are answered.
///
/// # Errors
/// There are ten already, one has this name, or the list cannot be written; then the account's folder is gone.
pub async fn list_account(paths: &Paths, record: AccountRecord) -> Result<()> {
    let id = record.id.clone();
    let listed = update_accounts(&paths.accounts_file(), |records| records.add(record)).await;
    if listed.is_err() {
        remove_account_folder(paths, &id);
    }
    listed
}

/// A listed account has got a new login, which may be of another account at Kimi: what was known of the old one is
/// forgotten.
///
/// # Errors
/// The list cannot be written.
pub async fn note_new_login(paths: &Paths, id: &AccountId, claimed: Option<String>) -> Result<()> {
    if !paths.accounts_file().exists() {
        return Ok(());
    }
    update_accounts(&paths.accounts_file(), |records| {
        if let Some(record) = records.accounts.iter_mut().find(|record| record.id == *id) {
            (record.claimed, record.cooldown) = (claimed, None);
        }
        Ok(())
    })
    .await
}

/// Takes over an account of another program's file. `name` is its name here.
///
/// # Errors
/// As [`list_account`], or its login cannot be written.
pub async fn import_account(
    paths: &Paths,
    name: AccountName,
    imported: ImportedAccount,
    now: Timestamp,
) -> Result<ImportResult> {
    let record = AccountRecord {
        claimed: imported.claimed.clone(),
        added_at: imported.added_at.unwrap_or(now),
        last_used: imported.last_used,
        is_enabled: imported.is_enabled,
        imported: imported.mark(),
        ..prepare_account(paths, name.clone(), now)?
    };
    let id = record.id.clone();
    let done = match write_imported_login(&AccountFiles::of(paths, &id), &imported).await {
        Ok(()) => {
            let list = |records: &mut AccountRecords| match find_same_account(paths, records, &imported) {
                Some(known) => Ok(ImportResult::Known(known)),
                None => records.add(record).map(|()| ImportResult::Added(name)),
            };
            update_accounts(&paths.accounts_file(), list).await
        }
        Err(error) => Err(error),
    };
    if !matches!(done, Ok(ImportResult::Added(_))) {
        remove_account_folder(paths, &id);
    }
    done
}

/// The account that an imported one is: it claims the same name, was made for the same device, or has, or was imported
/// with, the same token. One token in two places would be renewed in one of them, and be lost in the other.
fn find_same_account(
    paths: &Paths,
    records: &AccountRecords,
    imported: &ImportedAccount,
) -> Option<AccountName> {
    let mark = imported.mark();
    let is_same = |known: &&AccountRecord| {
        let files = AccountFiles::of(paths, &known.id);
        let tokens = fs::read(&files.login).ok().and_then(|text| parse_login_file(&text).ok());
        let kept = tokens.as_ref().and_then(|tokens| tokens.refresh.as_ref()).map(token_fingerprint);
        let claimed = tokens.and_then(|tokens| parse_claimed_account(&tokens.access));
        let device = fs::read_to_string(&files.device_id).ok().map(|id| id.trim().to_owned());
        (imported.claimed.is_some() && [&known.claimed, &claimed].contains(&&imported.claimed))
            || (imported.device_id.is_some() && device == imported.device_id)
            || (mark.is_some() && [&known.imported, &kept].contains(&&mark))
    };
    records.accounts.iter().find(is_same).map(|known| known.name.clone())
}

async fn write_imported_login(files: &AccountFiles, imported: &ImportedAccount) -> Result<()> {
    if let Some(device_id) = &imported.device_id {
        private_file::write_private_file(&files.device_id, device_id)?;
    }
    let lock = LoginLock::acquire_within(&files.login, LOCK_PATIENCE).await?;
    lock.reserve_login_space(FIRST_LOGIN)?.write_tokens(&imported.tokens)
}

/// Removes an account and its login. The first account stays in the list, without a login.
///
/// # Errors
/// There is no such account, or it is still there.
pub async fn remove_account(paths: &Paths, name: &AccountName) -> Result<AccountRecord> {
    let id = AccountRecords::read(&paths.accounts_file())?.named_mut(name)?.id.clone();
    let (file, is_first) = (AccountFiles::of(paths, &id).login, id == AccountId::first());
    // Waits for a renewal that has begun: its answer would lie there for nobody.
    let has_folder = file.parent().is_some_and(Path::is_dir);
    let lock = if has_folder { Some(LoginLock::acquire_within(&file, LOCK_PATIENCE).await?) } else { None };
    let removed = update_accounts(&paths.accounts_file(), |records| {
        let removed = records.find(&id).with_context(|| format!("There is no account {name}"))?.clone();
        if removed.id != AccountId::first() {
            records.accounts.retain(|record| record.id != removed.id);
        }
        if records.active == removed.id {
            let next = records.accounts.iter().find(|record| record.id != removed.id);
            records.active = next.map_or(AccountId::first(), |record| record.id.clone());
        }
        Ok(removed)
    })
    .await?;
    if let Some(lock) = lock {
        lock.remove_login_file()?;
        if !is_first {
            remove_account_folder(paths, &id);
        }
    }
    Ok(removed)
}

/// Removes what was made for an account if it has not come into the list.
///
/// # Errors
/// The list cannot be read.
pub fn forget_unlisted_account(paths: &Paths, id: &AccountId) -> Result<()> {
    let is_listed = AccountRecords::read(&paths.accounts_file())?.find(id).is_some();
    if !is_listed && paths.account_folder(id).is_dir() {
        remove_account_folder(paths, id);
    }
    Ok(())
}

fn remove_account_folder(paths: &Paths, id: &AccountId) {
    let folder = paths.account_folder(id);
    if let Err(error) = fs::remove_dir_all(&folder) {
        tracing::warn!("Failed to remove {}: {error}", folder.display());
    }
}
