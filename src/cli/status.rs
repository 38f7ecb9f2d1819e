//! `nanokimi status`: what this install serves, what waits, what was used.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::install::Install;
use super::{ui, whatsapp_once};
use crate::checks;
use crate::container::memory;
use crate::login::AccountLogins;
use crate::store::{
    AgentStop, GivenUp, InstanceLock, LinkRecord, QueueCounts, Store, UndeliveredReplies, UnreadCount,
};
use crate::types::{Authorization, Group, GroupName, Outage, Trouble};

/// How long Docker may take to answer a verb that only looks.
const DOCKER_LIMIT: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

pub async fn run_status_command(install: &Install) -> Result<ExitCode> {
    let root = install.paths.root().display().to_string();
    let Some(store) = install.open_store_to_read()? else {
        ui::print_info(format!(
            "There is no install in {root} yet. `nanokimi auth` begins one; `nanokimi demo` is a first look."
        ));
        return Ok(ExitCode::SUCCESS);
    };
    let QueueCounts { waiting, claimed, parked, unsent, unanswered, nacked, dead, usage } =
        store.queue_counts().await?;
    let groups = store.all_groups().await?;
    let holder = InstanceLock::current_holder(&install.paths.lock_file())?;
    let whatsapp = whatsapp_status(install, &store, holder.as_deref()).await?;
    let service = holder.unwrap_or_else(|| {
        "not running; `nanokimi service install` (or `nanokimi run`) starts it".to_owned()
    });
    let rows = [
        ("install", root),
        ("service", service),
        ("whatsapp", whatsapp),
        ("docker", docker_status(install).await),
        ("kimi", kimi_status(install, &store).await?),
        ("gateway", gateway_status(install, &store).await?),
        ("groups", groups.len().to_string()),
        ("agents", agents_status(install, &groups)),
        ("messages waiting", waiting.to_string()),
        ("being answered", claimed.to_string()),
        ("messages unread", unread_status(install, &store).await?),
        ("given up", parked.to_string()),
        ("replies to send", unsent.to_string()),
        ("replies unconfirmed", unanswered.to_string()),
        ("replies given up", (nacked + dead).to_string()),
        ("tokens", format!("{} in ({} cached), {} out", usage.input, usage.cached, usage.output)),
    ];
    ui::print_table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    if let Some(UndeliveredReplies { replies, oldest_sent_at }) =
        store.undelivered_replies(install.clock.now()).await?
    {
        let are = if replies == 1 { "1 reply is" } else { &format!("{replies} replies are") };
        let since = checks::render_time(oldest_sent_at, &install.config.zone);
        ui::print_result(format!("\n{are} with WhatsApp, not yet on a phone, the oldest since {since}."))?;
    }
    for (outage, since) in store.open_outages().await? {
        if outage == Outage::NoSpace {
            let since = checks::render_time(since, &install.config.zone);
            ui::print_result(format!(
                "\nSince {since} {}. What is asked is kept; make room, on Docker's disk too.",
                render_outage(outage)
            ))?;
        }
    }
    let given_up = store.given_up_replies().await?;
    if !given_up.is_empty() {
        ui::print_result("\nReplies given up, the newest first:")?;
        let row = |GivenUp { group, written_at, why }: &GivenUp| {
            let group = group.as_ref().map_or("(removed)", GroupName::as_str);
            vec![
                checks::render_time(*written_at, &install.config.zone),
                group.to_owned(),
                ui::sanitize_name(why),
            ]
        };
        ui::print_table(&given_up.iter().map(row).collect::<Vec<_>>())?;
    }
    let stops = store.recent_agent_stops(install.clock.now()).await?;
    if !stops.is_empty() {
        ui::print_result("\nAgents that were stopped this week, the newest first:")?;
        let row = |AgentStop { group, why, at }: &AgentStop| {
            vec![
                checks::render_time(*at, &install.config.zone),
                group.to_string(),
                render_stop_reason(*why).to_owned(),
            ]
        };
        ui::print_table(&stops.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn render_stop_reason(why: Trouble) -> &'static str {
    if why == Trouble::DiskShare {
        "its files took more of the disk than one chat may; ask it to delete some"
    } else {
        "it used up what the system has for all programs; `nanokimi doctor` says what to set"
    }
}

/// What was sent and could not be read.
async fn unread_status(install: &Install, store: &Store) -> Result<String> {
    Ok(match store.count_unread().await? {
        None => "0".to_owned(),
        Some(UnreadCount { messages, since }) => {
            let since = checks::render_time(since, &install.config.zone);
            format!("{messages}, the oldest since {since}; your phone is asked for what it has of them")
        }
    })
}

/// How the egress proxy logs in to Kimi, and since when Kimi has refused it.
async fn kimi_status(install: &Install, store: &Store) -> Result<String> {
    let logins = install.load_accounts().watch_logins().borrow().clone();
    let account = match logins.usable_authorization() {
        Authorization::ApiKey(_) => "the key of MOONSHOT_API_KEY".to_owned(),
        Authorization::Login(_) if logins.accounts.len() > 1 => accounts_status(&logins),
        Authorization::Login(_) => "logged in".to_owned(),
        Authorization::Missing(why) => return Ok(why),
    };
    // Nothing is known of a new login before it is used.
    let of_kimi =
        |outage: &Outage| !matches!(outage, Outage::NotLoggedIn | Outage::NoDocker | Outage::NoSpace);
    let outages = store.open_outages().await?.into_iter().filter(|(outage, _)| of_kimi(outage));
    let outages = outages.map(|(outage, since)| {
        format!("{} since {}", render_outage(outage), checks::render_time(since, &install.config.zone))
    });
    Ok(std::iter::once(account).chain(outages).collect::<Vec<_>>().join("; "))
}

/// Such as `3 accounts, home first; not work, spare: nanokimi accounts list`.
fn accounts_status(logins: &AccountLogins) -> String {
    let first = logins.accounts.get(logins.active).map(|account| account.name.as_str()).unwrap_or_default();
    let out = logins.accounts.iter().filter(|account| !account.is_usable());
    let out = out.map(|account| account.name.as_str()).collect::<Vec<_>>().join(", ");
    let all = format!("{} accounts, {first} first", logins.accounts.len());
    if out.is_empty() { all } else { format!("{all}; not {out}: `nanokimi accounts list` says why") }
}

/// Where the gateway for coding tools listens, and for how many clients.
async fn gateway_status(install: &Install, store: &Store) -> Result<String> {
    let Some(address) = &install.config.gateway else { return Ok("off".to_owned()) };
    let keys = store.gateway_keys().await?.len();
    let are = if keys == 1 { "1 key" } else { &format!("{keys} keys") };
    Ok(format!("on {address} while nanokimi runs, with {are}"))
}

/// How many agents run, and what they hold of the memory that there is for them.
fn agents_status(install: &Install, groups: &[Group]) -> String {
    let folders: Vec<_> =
        groups.iter().map(|group| (group.name.clone(), install.paths.group_folder(&group.name))).collect();
    let held = memory::measure_agent_memory(&folders).held;
    let (held_mb, most_mb) = (held.values().sum::<u64>() / MIB, install.agents_memory_bytes() / MIB);
    match held.len() {
        0 => format!("0 run; there are {most_mb} MB for them"),
        number => format!("{number} run, with {held_mb} of {most_mb} MB"),
    }
}

/// Whether Docker answers now: the service waits for it, with all that is asked.
async fn docker_status(install: &Install) -> String {
    match timeout(DOCKER_LIMIT, install.require_docker()).await {
        Ok(Ok(_)) => "answers".to_owned(),
        Ok(Err(error)) => format!("{error}"),
        Err(_) => format!("does not answer within {} s; `nanokimi doctor` says more", DOCKER_LIMIT.as_secs()),
    }
}

fn render_outage(outage: Outage) -> &'static str {
    match outage {
        Outage::NoDocker => "Docker does not answer",
        Outage::NoSpace => "no agent can be started, because the disk is full",
        Outage::NotLoggedIn => "the login was refused",
        Outage::ClientRefused => "Kimi does not serve the agent program",
        Outage::AccountEnded => "Kimi has ended the account's access",
        Outage::NoMembership => "Kimi finds no active membership",
        Outage::Refused => "Kimi refuses the account or the agent program",
        Outage::RateLimited => "Kimi was asked too much",
        Outage::QuotaUsedUp => "the plan is used up",
        Outage::ModelRefused => "Kimi does not give the model",
    }
}

/// Whose account is linked, and how the link last stood.
async fn whatsapp_status(install: &Install, store: &Store, holder: Option<&str>) -> Result<String> {
    let noted = store.last_link_state().await?;
    match install.whatsapp_bridge().is_linked().await {
        Ok(true) => {}
        Ok(false) => return Ok(super::auth::exit_for_missing_link(Some(store), install).await?.sentence),
        // Its keys are the library's, which writes when it looks.
        Err(error) => return Ok(checks::render_error(&error)),
    }
    let account = store.linked_account().await?;
    let account =
        account.map_or_else(|| "an account".to_owned(), |account| whatsapp_once::account_name(&account));
    let zone = &install.config.zone;
    Ok(match noted {
        Some(LinkRecord { link, since }) => {
            format!(
                "{account}, {} since {}",
                whatsapp_once::render_link_state(&link, holder, zone),
                checks::render_time(since, zone)
            )
        }
        None => account,
    })
}
