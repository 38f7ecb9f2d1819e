//! `nanokimi status`: what this install serves, what waits, what was used.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use tokio::time::timeout;

use super::install::Install;
use super::{link, ui};
use crate::checks;
use crate::container::memory;
use crate::store::{GivenUp, InstanceLock, LinkNote, QueueCounts, Stop, Store, Undelivered, UnreadCount};
use crate::types::{Authorization, Group, GroupName, Outage, Trouble};

/// How long Docker may take to answer who only looks.
const DOCKER_LIMIT: Duration = Duration::from_secs(5);
const MIB: u64 = 1024 * 1024;

pub async fn run(install: &Install) -> Result<ExitCode> {
    let root = install.paths.root().display().to_string();
    let Some(store) = install.store_to_look()? else {
        ui::note(format!(
            "There is no install in {root} yet. `nanokimi auth` begins one; `nanokimi demo` is a first look."
        ));
        return Ok(ExitCode::SUCCESS);
    };
    let QueueCounts { waiting, claimed, parked, unsent, unanswered, nacked, dead, usage } =
        store.queue_counts().await?;
    let groups = store.groups().await?;
    let holder = InstanceLock::holder(&install.paths.lock_file())?;
    let whatsapp = whatsapp(install, &store, holder.as_deref()).await?;
    let service = holder.unwrap_or_else(|| {
        "not running; `nanokimi service install` (or `nanokimi run`) starts it".to_owned()
    });
    let rows = [
        ("install", root),
        ("service", service),
        ("whatsapp", whatsapp),
        ("docker", docker(install).await),
        ("kimi", kimi(install, &store).await?),
        ("groups", groups.len().to_string()),
        ("agents", agents(install, &groups)),
        ("messages waiting", waiting.to_string()),
        ("being answered", claimed.to_string()),
        ("messages unread", unread(install, &store).await?),
        ("given up", parked.to_string()),
        ("replies to send", unsent.to_string()),
        ("replies unconfirmed", unanswered.to_string()),
        ("replies given up", (nacked + dead).to_string()),
        ("tokens", format!("{} in ({} cached), {} out", usage.input, usage.cached, usage.output)),
    ];
    ui::table(&rows.map(|(name, value)| vec![name.to_owned(), value]))?;
    if let Some(Undelivered { replies, oldest_sent_at }) = store.undelivered(install.clock.now()).await? {
        let are = if replies == 1 { "1 reply is" } else { &format!("{replies} replies are") };
        let since = checks::time(oldest_sent_at, &install.config.zone);
        ui::result(format!("\n{are} with WhatsApp, not yet on a phone, the oldest since {since}."))?;
    }
    for (outage, since) in store.outages().await? {
        if outage == Outage::NoSpace {
            let since = checks::time(since, &install.config.zone);
            ui::result(format!(
                "\nSince {since} {}. What is asked is kept; make room, on Docker's disk too.",
                outage_words(outage)
            ))?;
        }
    }
    let given_up = store.given_up().await?;
    if !given_up.is_empty() {
        ui::result("\nReplies given up, the newest first:")?;
        let row = |GivenUp { group, written_at, why }: &GivenUp| {
            let group = group.as_ref().map_or("(removed)", GroupName::as_str);
            vec![checks::time(*written_at, &install.config.zone), group.to_owned(), ui::plain(why)]
        };
        ui::table(&given_up.iter().map(row).collect::<Vec<_>>())?;
    }
    let stops = store.stops(install.clock.now()).await?;
    if !stops.is_empty() {
        ui::result("\nAgents that were stopped this week, the newest first:")?;
        let row = |Stop { group, why, at }: &Stop| {
            vec![checks::time(*at, &install.config.zone), group.to_string(), stop_words(*why).to_owned()]
        };
        ui::table(&stops.iter().map(row).collect::<Vec<_>>())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn stop_words(why: Trouble) -> &'static str {
    if why == Trouble::DiskShare {
        "its files took more of the disk than one chat may; ask it to delete some"
    } else {
        "it used up what the system has for all programs; `nanokimi doctor` says what to set"
    }
}

/// What was sent and could not be read.
async fn unread(install: &Install, store: &Store) -> Result<String> {
    Ok(match store.unread().await? {
        None => "0".to_owned(),
        Some(UnreadCount { messages, since }) => {
            let since = checks::time(since, &install.config.zone);
            format!("{messages}, the oldest since {since}; your phone is asked for what it has of them")
        }
    })
}

/// How the door identifies itself to Kimi, and since when nobody can be answered for it.
async fn kimi(install: &Install, store: &Store) -> Result<String> {
    let account = match &*install.login().authorization().borrow() {
        Authorization::ApiKey(_) => "the key of MOONSHOT_API_KEY".to_owned(),
        Authorization::Login(_) => "logged in".to_owned(),
        Authorization::Missing(why) => return Ok(why.clone()),
    };
    // Of a login that is there again nothing is known before it is used.
    let of_kimi =
        |outage: &Outage| !matches!(outage, Outage::NotLoggedIn | Outage::NoDocker | Outage::NoSpace);
    let outages = store.outages().await?.into_iter().filter(|(outage, _)| of_kimi(outage));
    let outages = outages.map(|(outage, since)| {
        format!("{} since {}", outage_words(outage), checks::time(since, &install.config.zone))
    });
    Ok(std::iter::once(account).chain(outages).collect::<Vec<_>>().join("; "))
}

/// How many agents run, and what they hold of the memory that there is for them.
fn agents(install: &Install, groups: &[Group]) -> String {
    let folders: Vec<_> =
        groups.iter().map(|group| (group.name.clone(), install.paths.group(&group.name))).collect();
    let held = memory::look(&folders).held;
    let (held_mb, most_mb) = (held.values().sum::<u64>() / MIB, install.agents_memory_bytes() / MIB);
    match held.len() {
        0 => format!("0 run; there are {most_mb} MB for them"),
        number => format!("{number} run, with {held_mb} of {most_mb} MB"),
    }
}

/// Whether Docker answers now: the service waits for it, with all that is asked.
async fn docker(install: &Install) -> String {
    match timeout(DOCKER_LIMIT, install.docker()).await {
        Ok(Ok(_)) => "answers".to_owned(),
        Ok(Err(error)) => format!("{error}"),
        Err(_) => format!("does not answer within {} s; `nanokimi doctor` says more", DOCKER_LIMIT.as_secs()),
    }
}

fn outage_words(outage: Outage) -> &'static str {
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
async fn whatsapp(install: &Install, store: &Store, holder: Option<&str>) -> Result<String> {
    let noted = store.link().await?;
    match install.whatsapp().is_linked().await {
        Ok(true) => {}
        Ok(false) => return Ok(super::auth::ended(Some(store), install).await?.sentence),
        // Its keys are the library's, which writes when it looks.
        Err(error) => return Ok(checks::sentence(&error)),
    }
    let account = store.account().await?;
    let account = account.map_or_else(|| "an account".to_owned(), |account| link::account_name(&account));
    let zone = &install.config.zone;
    Ok(match noted {
        Some(LinkNote { link, since }) => {
            format!("{account}, {} since {}", link::state(&link, holder, zone), checks::time(since, zone))
        }
        None => account,
    })
}
