//! `kimi-accounts.json`: which Kimi accounts there are, in which order, and what is known of their limits. Their
//! tokens lie beside it, each account's in a login file of its own, so that renewing one touches nothing of
//! another:
//!
//! ```text
//! kimi-accounts.json         names, the active one, limits
//! kimi-code.json             the first account's login, which kimi-cli knows too
//! accounts/ID/kimi-code.json the login of each further account
//! accounts/ID/device_id      the device that it was made for
//! ```
//! Every change reads the file, changes it and writes it whole, under a lock: a kill leaves the old or the new
//! file. An install with one login has no such file.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};

use super::private_file;
use crate::types::{AccountId, AccountName, Cooldown, CooldownCause};

/// Most accounts of an install.
pub const ACCOUNTS_MAX: usize = 10;
/// Largest file in bytes; ten accounts take about four thousand.
const FILE_MAX: u64 = 64 * 1024;
/// The format that this program writes.
const VERSION: u64 = 1;
/// How long a change waits for another one to be over, and the pause between two tries.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// What is known of an account, but for its tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecord {
    pub id: AccountId,
    pub name: AccountName,
    /// The e-mail address or id that its login names. Nobody has checked it.
    pub claimed: Option<String>,
    pub added_at: Timestamp,
    pub last_used: Option<Timestamp>,
    pub is_enabled: bool,
    /// Kimi's region, as `KIMI_REGION` has it; the install's own if there is none.
    pub region: Option<String>,
    /// What is known of its limits.
    pub cooldown: Option<Cooldown>,
    /// The mark of the refresh token that it was imported with: the same file is not imported twice.
    pub imported: Option<String>,
    /// The mark of the login of which the owner was told that it has ended.
    pub told_ended: Option<String>,
}

impl AccountRecord {
    /// Of an account of which nothing more is known yet.
    pub fn new(id: AccountId, name: AccountName, added_at: Timestamp) -> Self {
        Self {
            id,
            name,
            claimed: None,
            added_at,
            last_used: None,
            is_enabled: true,
            region: None,
            cooldown: None,
            imported: None,
            told_ended: None,
        }
    }
}

/// All accounts, the first one included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountRecords {
    pub accounts: Vec<AccountRecord>,
    /// The one that answers first.
    pub active: AccountId,
}

impl AccountRecords {
    /// Of an install that has never heard of several accounts.
    pub fn first_only() -> Self {
        let first = AccountRecord::new(AccountId::first(), first_name(), Timestamp::UNIX_EPOCH);
        Self { accounts: vec![first], active: AccountId::first() }
    }

    /// The place of the active account.
    pub fn active_index(&self) -> usize {
        self.accounts.iter().position(|account| account.id == self.active).unwrap_or(0)
    }

    /// # Errors
    /// There is no account of that name.
    pub fn named_mut(&mut self, name: &AccountName) -> Result<&mut AccountRecord> {
        let names = self.accounts.iter().map(|account| account.name.as_str()).collect::<Vec<_>>().join(", ");
        self.accounts
            .iter_mut()
            .find(|account| account.name.is_same(name))
            .with_context(|| format!("There is no account {name}; there is {names}"))
    }

    pub fn find(&self, id: &AccountId) -> Option<&AccountRecord> {
        self.accounts.iter().find(|account| account.id == *id)
    }

    /// What is known of the limits of each.
    pub fn cooldowns(&self) -> BTreeMap<AccountId, Cooldown> {
        self.accounts.iter().filter_map(|record| Some((record.id.clone(), record.cooldown?))).collect()
    }

    /// # Errors
    /// There are ten already, or one has this name.
    pub fn add(&mut self, account: AccountRecord) -> Result<()> {
        ensure!(
            self.accounts.len() < ACCOUNTS_MAX,
            "There are {ACCOUNTS_MAX} accounts already; remove one first with `nanokimi accounts remove NAME`"
        );
        ensure!(
            !self.accounts.iter().any(|known| known.name.is_same(&account.name)),
            "There is an account {} already; choose another name",
            account.name
        );
        self.accounts.push(account);
        Ok(())
    }

    /// Reads the file; without one there is the first account only.
    ///
    /// # Errors
    /// It cannot be read, or is none of this program's.
    pub fn read(file: &Path) -> Result<Self> {
        let metadata = match fs::metadata(file) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Self::first_only()),
            Err(error) => return Err(error).with_context(|| format!("Failed to read {}", file.display())),
        };
        ensure!(
            metadata.is_file() && metadata.len() <= FILE_MAX,
            "{} is not a list of Kimi accounts: it is not a small text file",
            file.display()
        );
        let text = fs::read(file).with_context(|| format!("Failed to read {}", file.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a list of Kimi accounts", file.display()))
    }

    fn parse(text: &[u8]) -> Result<Self> {
        let stored: StoredAccounts = serde_json::from_slice(text)?;
        if stored.version != VERSION {
            bail!("its version is {}; this nanokimi knows version {VERSION}", stored.version);
        }
        let accounts =
            stored.accounts.into_iter().map(StoredAccount::into_record).collect::<Result<Vec<_>>>()?;
        for (place, account) in accounts.iter().enumerate() {
            let is_twice = accounts[..place]
                .iter()
                .any(|other| other.id == account.id || other.name.is_same(&account.name));
            ensure!(!is_twice, "it has the account {} twice", account.name);
        }
        let active = accounts.get(stored.active_index).or(accounts.first()).map(|account| account.id.clone());
        let mut records = Self { accounts, active: active.unwrap_or(AccountId::first()) };
        if records.find(&AccountId::first()).is_none() {
            records.accounts.splice(0..0, Self::first_only().accounts);
        }
        ensure!(
            records.accounts.len() <= ACCOUNTS_MAX,
            "it has more than {ACCOUNTS_MAX} accounts, the first one included"
        );
        Ok(records)
    }

    fn render(&self) -> Result<String> {
        let stored = StoredAccounts {
            version: VERSION,
            accounts: self.accounts.iter().map(StoredAccount::from).collect(),
            active_index: self.active_index(),
        };
        serde_json::to_string_pretty(&stored).context("Failed to write the accounts down")
    }
}

/// Changes the file, as the only one who does so at this time, and gives what `change` gives.
///
/// # Errors
/// `change` has failed, and nothing was written; the file cannot be read or written; or another program keeps it
/// locked.
pub async fn update_accounts<T>(
    file: &Path,
    change: impl FnOnce(&mut AccountRecords) -> Result<T>,
) -> Result<T> {
    let path = file.with_extension("lock");
    let lock = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let lock = lock.with_context(|| format!("Failed to lock {}", path.display()))?;
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => break,
            Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < give_up => {
                sleep(LOCK_RETRY).await;
            }
            Err(error) => return Err(error).with_context(|| format!("Failed to lock {}", path.display())),
        }
    }
    let before = AccountRecords::read(file)?;
    let mut records = before.clone();
    let done = change(&mut records)?;
    if records != before {
        private_file::write_private_file(file, &records.render()?)?;
    }
    Ok(done)
}

/// The first account's name until its owner chooses another.
fn first_name() -> AccountName {
    AccountName::parse("first").unwrap_or_else(|_| unreachable!("it is a name"))
}

#[derive(Serialize, Deserialize)]
struct StoredAccounts {
    version: u64,
    accounts: Vec<StoredAccount>,
    #[serde(default)]
    active_index: usize,
}

#[derive(Serialize, Deserialize)]
struct StoredAccount {
    id: String,
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    added_at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_used: Option<String>,
    enabled: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limited: Option<StoredCooldown>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    imported: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    told_ended: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredCooldown {
    cause: String,
    since: String,
    until: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resets_at: Option<String>,
    failures: u32,
}

impl StoredAccount {
    fn into_record(self) -> Result<AccountRecord> {
        let id = AccountId::parse(&self.id).with_context(|| format!("{:?} is no id", self.id))?;
        // A cause that is not known any more means nothing any more.
        let cooldown = self.limited.and_then(|limited| {
            Some(Cooldown {
                cause: CooldownCause::from_word(&limited.cause)?,
                since: limited.since.parse().ok()?,
                until: limited.until.parse().ok()?,
                resets_at: limited.resets_at.and_then(|at| at.parse().ok()),
                failures: limited.failures,
            })
        });
        Ok(AccountRecord {
            id,
            name: AccountName::parse(&self.name)?,
            claimed: self.account,
            added_at: self.added_at.parse().with_context(|| format!("{:?} is no time", self.added_at))?,
            last_used: self.last_used.and_then(|at| at.parse().ok()),
            is_enabled: self.enabled,
            region: self.region,
            cooldown,
            imported: self.imported,
            told_ended: self.told_ended,
        })
    }
}

impl From<&AccountRecord> for StoredAccount {
    fn from(record: &AccountRecord) -> Self {
        let limited = record.cooldown.map(|cooldown| StoredCooldown {
            cause: cooldown.cause.word().to_owned(),
            since: cooldown.since.to_string(),
            until: cooldown.until.to_string(),
            resets_at: cooldown.resets_at.map(|at| at.to_string()),
            failures: cooldown.failures,
        });
        Self {
            id: record.id.to_string(),
            name: record.name.to_string(),
            account: record.claimed.clone(),
            added_at: record.added_at.to_string(),
            last_used: record.last_used.map(|at| at.to_string()),
            enabled: record.is_enabled,
            region: record.region.clone(),
            limited,
            imported: record.imported.clone(),
            told_ended: record.told_ended.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn spare(id: &str, name: &str) -> AccountRecord {
        AccountRecord {
            id: AccountId::parse(id).unwrap(),
            name: AccountName::parse(name).unwrap(),
            claimed: Some("ana@example.com".to_owned()),
            added_at: at(0),
            last_used: Some(at(5)),
            is_enabled: true,
            region: Some("ai".to_owned()),
            cooldown: Some(Cooldown {
                cause: CooldownCause::QuotaUsedUp,
                since: at(1),
                until: at(61),
                resets_at: Some(at(9000)),
                failures: 2,
            }),
            imported: None,
            told_ended: None,
        }
    }

    #[tokio::test]
    async fn specification_store_is_whole_and_for_this_user_only() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("kimi-accounts.json");
        assert_eq!(AccountRecords::read(&file).unwrap(), AccountRecords::first_only());
        update_accounts(&file, |records| {
            records.add(spare("0a1b", "spare"))?;
            records.active = AccountId::parse("0a1b").unwrap();
            Ok(())
        })
        .await
        .unwrap();
        let read = AccountRecords::read(&file).unwrap();
        assert_eq!((read.accounts.len(), read.active_index()), (2, 1));
        assert_eq!(read.accounts[1], spare("0a1b", "spare"));
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let left: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }

    #[tokio::test]
    async fn specification_ten_accounts_at_most_and_each_has_a_name_of_its_own() {
        let mut records = AccountRecords::first_only();
        for number in 1..ACCOUNTS_MAX {
            records.add(spare(&format!("a{number}"), &format!("n{number}"))).unwrap();
        }
        let error = records.add(spare("b", "another")).unwrap_err().to_string();
        assert!(error.contains("10 accounts already"), "{error}");
        records.accounts.pop();
        let error = records.add(spare("b", "N1")).unwrap_err().to_string();
        assert!(error.contains("an account N1 already"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_cannot_be_read_is_never_written_over() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("kimi-accounts.json");
        let other = |number| {
            format!(
                r#"{{"id": "a{number}", "name": "n{number}", "added_at": "2026-11-30T00:00:00Z", "enabled": true}}"#
            )
        };
        let others: Vec<String> = (0..ACCOUNTS_MAX).map(other).collect();
        let ten_others = format!(r#"{{"version": 1, "accounts": [{}]}}"#, others.join(","));
        for (text, why) in [
            ("", "EOF"),
            ("{}", "missing field"),
            (r#"{"version": 2, "accounts": []}"#, "its version is 2"),
            (&ten_others, "more than 10 accounts, the first one included"),
            (
                r#"{"version": 1, "accounts": [{"id": "../x", "name": "a", "added_at": "2026-11-30T00:00:00Z", "enabled": true}]}"#,
                "no id",
            ),
        ] {
            fs::write(&file, text).unwrap();
            let error = format!(
                "{:#}",
                update_accounts(&file, |records| records.add(spare("a", "a"))).await.unwrap_err()
            );
            assert!(error.contains(why), "{error}");
            assert_eq!(fs::read_to_string(&file).unwrap(), text);
        }
    }

    #[tokio::test]
    async fn a_change_that_fails_changes_nothing() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("kimi-accounts.json");
        let failed: Result<()> = update_accounts(&file, |records| {
            records.accounts.clear();
            bail!("no")
        })
        .await;
        assert!(failed.is_err());
        assert!(!file.exists());
    }

    #[tokio::test]
    async fn changes_that_come_together_all_count() {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("kimi-accounts.json");
        let adding = (1..ACCOUNTS_MAX).map(|number| {
            let file = file.clone();
            tokio::spawn(async move {
                let account = spare(&format!("a{number}"), &format!("n{number}"));
                update_accounts(&file, |records| records.add(account)).await
            })
        });
        for added in adding.collect::<Vec<_>>() {
            added.await.unwrap().unwrap();
        }
        assert_eq!(AccountRecords::read(&file).unwrap().accounts.len(), ACCOUNTS_MAX);
    }
}
