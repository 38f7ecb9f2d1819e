//! `nanokimi accounts`: the Kimi accounts of this install, which of them answers first, and what is left of each.
//!
//! Works beside a running service, which takes up a change within a minute. No token is ever shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand as ClapSubcommand;
use futures_util::future::join_all;
use jiff::Timestamp;

use super::install::Install;
use super::{log, ui};
use crate::checks;
use crate::folders;
use crate::login::{
    self, AccountLogin, AccountRecord, AccountRecords, ImportResult, Quota, QuotaLimit, update_accounts,
};
use crate::relay::describe_cooldown;
use crate::types::{AccountId, AccountName, Authorization};

/// How wide the bar of what is left is, in characters.
const BAR_WIDTH: usize = 10;
/// The windows of a plan that have a column of their own.
const WINDOWS: [&str; 2] = ["5 h", "7 d"];

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Show the accounts, which answers first, and what is left of each
    List,
    /// Let an account answer first
    Use {
        /// The account's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
    /// Let an account answer again
    Enable {
        /// The account's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
    /// Keep an account and its login, but let it answer nothing
    Disable {
        /// The account's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
    /// Give an account another name
    Rename {
        /// The account's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
        /// Its new name: letters, digits, "-" and "_"
        #[arg(value_parser = ui::parse_typed_text)]
        new_name: String,
    },
    /// Remove an account and its login from this machine
    Remove {
        /// The account's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
    /// Take over the accounts of kimicode-accounts.json, or a kimi-code.json of another machine
    Import {
        /// The file
        file: PathBuf,
        /// What the account is called here; several get a number [default: from its e-mail address]
        #[arg(long, value_name = "NAME", value_parser = ui::parse_typed_text)]
        name: Option<String>,
    },
}

pub async fn run_accounts_command(install: &Install, verb: Verb) -> Result<ExitCode> {
    log::start_log("error");
    match verb {
        Verb::List => print_accounts(install).await?,
        Verb::Use { name } => prefer_account(install, &AccountName::parse(&name)?).await?,
        Verb::Enable { name } => switch_account(install, &AccountName::parse(&name)?, true).await?,
        Verb::Disable { name } => switch_account(install, &AccountName::parse(&name)?, false).await?,
        Verb::Rename { name, new_name } => {
            rename_account(install, &AccountName::parse(&name)?, AccountName::parse(&new_name)?).await?;
        }
        Verb::Remove { name } => remove_account(install, &AccountName::parse(&name)?).await?,
        Verb::Import { file, name } => import_accounts(install, &file, name.as_deref()).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn print_accounts(install: &Install) -> Result<()> {
    // Says what is wrong with the file; the accounts below would hide it.
    AccountRecords::read(&install.paths.accounts_file())?;
    let accounts = install.load_accounts();
    let logins = accounts.watch_logins().borrow().clone();
    let records = accounts.records();
    let quotas = join_all(logins.accounts.iter().map(ask_for_quota)).await;
    let mut rows = vec![header_row()];
    for (place, (account, quota)) in logins.accounts.iter().zip(quotas).enumerate() {
        let Some(record) = records.find(&account.id) else { continue };
        let is_active = logins.accounts.len() > 1 && place == logins.active;
        rows.push(account_row(account, record, is_active, quota.as_ref(), install));
    }
    ui::print_table(&rows)
}

fn header_row() -> Vec<String> {
    ["account", "is", "5 h left", "7 d left", "state"].map(str::to_owned).into()
}

async fn ask_for_quota(account: &AccountLogin) -> Option<Quota> {
    let token = match &*account.authorization.borrow() {
        Authorization::Login(token) => token.clone(),
        Authorization::ApiKey(_) | Authorization::Missing(_) => return None,
    };
    login::fetch_quota(&account.api_base, &token).await.ok()
}

fn account_row(
    account: &AccountLogin,
    record: &AccountRecord,
    is_active: bool,
    quota: Option<&Quota>,
    install: &Install,
) -> Vec<String> {
    let told = quota.and_then(|quota| quota.account.clone());
    let claimed = record.claimed.clone().or(told).unwrap_or_else(|| "not told".to_owned());
    let left = WINDOWS.map(|window| {
        let limit = quota.and_then(|quota| quota.limits.iter().find(|limit| is_window(limit, window)));
        limit.map_or_else(|| "not told".to_owned(), |limit| render_left(limit, install))
    });
    let name = if is_active { format!("{} (first)", account.name) } else { account.name.clone() };
    let state = account_state(account, record, install.clock.now());
    let [hours, days] = left;
    vec![name, ui::sanitize_name(&claimed), hours, days, state]
}

/// The plan's own window is the one of seven days.
fn is_window(limit: &QuotaLimit, window: &str) -> bool {
    limit.name.as_deref().unwrap_or("7 d") == window
}

fn render_left(limit: &QuotaLimit, install: &Install) -> String {
    let bar = ui::render_bar(limit.left_percent, 100, BAR_WIDTH);
    let until = limit.resets_at.filter(|_| limit.left_percent < 100);
    let until = until
        .map(|at| format!(", anew {}", checks::render_time(at, &install.config.zone)))
        .unwrap_or_default();
    format!("{bar:BAR_WIDTH$} {:>3} %{until}", limit.left_percent)
}

fn account_state(account: &AccountLogin, record: &AccountRecord, now: Timestamp) -> String {
    if !account.is_enabled {
        return "disabled".to_owned();
    }
    match &*account.authorization.borrow() {
        Authorization::Missing(why) => why.clone(),
        Authorization::ApiKey(_) => "a key of the Moonshot platform".to_owned(),
        Authorization::Login(_) => match record.cooldown.filter(|cooldown| cooldown.is_on(now)) {
            Some(cooldown) => describe_cooldown(&cooldown, now),
            None => "ready".to_owned(),
        },
    }
}

async fn prefer_account(install: &Install, name: &AccountName) -> Result<()> {
    let preferred = change_accounts(install, |records| {
        let account = records.named_mut(name)?.clone();
        records.active = account.id.clone();
        Ok(account)
    })
    .await?;
    ui::print_info(format!(
        "{} answers first. A conversation that has begun stays with its account.",
        preferred.name
    ));
    if !preferred.is_enabled {
        ui::print_info(format!("It is disabled: `nanokimi accounts enable {}`", preferred.name));
    }
    Ok(())
}

async fn switch_account(install: &Install, name: &AccountName, is_enabled: bool) -> Result<()> {
    let (name, others) = change_accounts(install, |records| {
        let account = records.named_mut(name)?;
        account.is_enabled = is_enabled;
        // A person who enables it means now.
        account.cooldown = account.cooldown.filter(|_| !is_enabled);
        let name = account.name.clone();
        Ok((name, records.accounts.iter().filter(|account| account.is_enabled).count()))
    })
    .await?;
    if is_enabled {
        ui::print_info(format!("{name} answers again."));
    } else {
        ui::print_info(format!(
            "{name} answers nothing any more; its login is kept and renewed. `nanokimi accounts enable {name}` undoes that."
        ));
        if others == 0 {
            ui::print_info("No account is enabled now: nobody is answered.");
        }
    }
    Ok(())
}

async fn rename_account(install: &Install, name: &AccountName, new_name: AccountName) -> Result<()> {
    change_accounts(install, |records| {
        let id = records.named_mut(name)?.id.clone();
        let is_taken = records.accounts.iter().any(|other| other.id != id && other.name.is_same(&new_name));
        if is_taken {
            bail!("There is an account {new_name} already");
        }
        records.named_mut(name)?.name = new_name.clone();
        Ok(())
    })
    .await?;
    ui::print_info(format!("{name} is {new_name} now."));
    Ok(())
}

async fn remove_account(install: &Install, name: &AccountName) -> Result<()> {
    install.refuse_root()?;
    let removed = login::remove_account(&install.paths, name).await?;
    ui::print_info(format!("Removed the account {} and its login from this machine.", removed.name));
    ui::print_info("Kimi does not know: your account on https://www.kimi.com is where a login is ended.");
    if removed.id == AccountId::first() {
        ui::print_info("`nanokimi login` makes another one in its place.");
    }
    Ok(())
}

async fn import_accounts(install: &Install, file: &Path, name: Option<&str>) -> Result<()> {
    install.refuse_root()?;
    folders::prepare_install_folders(&install.paths)?;
    let text = fs::read(file).with_context(|| format!("Failed to read {}", file.display()))?;
    let imported = login::read_imported_accounts(&text).with_context(|| file.display().to_string())?;
    let (mut added, now) = (0, install.clock.now());
    for account in imported {
        let records = AccountRecords::read(&install.paths.accounts_file())?;
        let name = free_name(&records, name.or(account.claimed.as_deref()).unwrap_or("account"))?;
        match login::import_account(&install.paths, name, account, now).await? {
            ImportResult::Added(name) => {
                added += 1;
                ui::print_info(format!("Added the account {name}."));
            }
            ImportResult::Known(name) => ui::print_info(format!("It is here already, as {name}.")),
        }
    }
    if added > 0 {
        ui::print_info(
            "nanokimi renews these logins from now on, and each renewal ends the copy: log the other program out, or \
             it and nanokimi take each other's login away.",
        );
        print_several_accounts_hint();
    }
    Ok(())
}

/// What using several accounts means.
pub fn print_several_accounts_hint() {
    ui::print_info(
        "Another account answers only when the first one is used up, limited or refused. Kimi's plans are for one \
         person's own use: docs/security.md says what its rules say about several.",
    );
}

/// A name for a new account that nobody has yet, from what it claims to be.
fn free_name(records: &AccountRecords, wanted: &str) -> Result<AccountName> {
    let local = wanted.split('@').next().unwrap_or_default();
    let plain: String =
        local.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(24).collect();
    let plain = plain.trim_matches('-');
    let plain = if plain.is_empty() { "account" } else { plain };
    let names = std::iter::once(plain.to_owned()).chain((2..=99).map(|number| format!("{plain}-{number}")));
    for name in names {
        let name = AccountName::parse(&name)?;
        if !records.accounts.iter().any(|known| known.name.is_same(&name)) {
            return Ok(name);
        }
    }
    bail!("All names like {plain} are taken; choose one with --name")
}

async fn change_accounts<T>(
    install: &Install,
    change: impl FnOnce(&mut AccountRecords) -> Result<T>,
) -> Result<T> {
    install.refuse_root()?;
    folders::prepare_install_folders(&install.paths)?;
    update_accounts(&install.paths.accounts_file(), change).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_account_gets_a_name_that_is_free() {
        let records = AccountRecords::first_only();
        for (wanted, name) in [
            ("ana@example.com", "ana"),
            ("ana.b+c@example.com", "ana-b-c"),
            ("First@example.com", "First-2"),
            ("first", "first-2"),
            ("@", "account"),
            ("日本@example.com", "account"),
            (&"x".repeat(99), &"x".repeat(24)),
        ] {
            assert_eq!(free_name(&records, wanted).unwrap().as_str(), name, "{wanted}");
        }
    }
}
