//! What intake is told when a connection is new: whose link this is, and which chats there are.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::time::{sleep, timeout};
use whatsapp_rust::prelude::{Client, Jid};

use super::inbound;
use super::intake_sink::{IntakeSink, own_account};
use super::wording::clean_name;
use crate::types::{Event, LinkedAccount};

/// How long WhatsApp may take to name the groups.
const GROUPS_LIMIT: Duration = Duration::from_secs(30);
/// How often WhatsApp is asked, and the pause after each failure.
const ATTEMPTS: u32 = 3;
const GROUPS_RETRY_PAUSE: Duration = Duration::from_secs(5);
/// The pause before intake is told once more: without the account nothing can be answered.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialSync {
    Account,
    AccountAndGroups,
}

/// Tells intake; returns how much was told.
pub async fn run_initial_sync(client: Arc<Client>, intake: IntakeSink, sync: InitialSync) -> InitialSync {
    while let Err(error) = intake.submit_events(account_events(&client)).await {
        if intake.is_closed() {
            // The service stops. Its last messages need the connection, and intake is gone.
            return InitialSync::Account;
        }
        tracing::warn!("{error:#}, handing it over again");
        sleep(RETRY_PAUSE).await;
    }
    if sync == InitialSync::Account {
        return sync;
    }
    for attempt in 1..=ATTEMPTS {
        let announced = match fetch_group_events(&client).await {
            Ok(events) => intake.submit_events(events).await,
            Err(error) => Err(error),
        };
        match announced {
            Ok(()) => return InitialSync::AccountAndGroups,
            Err(error) => tracing::warn!(attempt, "Failed to tell which groups there are: {error:#}"),
        }
        sleep(GROUPS_RETRY_PAUSE).await;
    }
    InitialSync::Account
}

/// Tells how one group is called now.
pub async fn announce_group(client: Arc<Client>, intake: IntakeSink, group: Jid) {
    let announcing = async {
        let asked = timeout(GROUPS_LIMIT, client.groups().get_metadata(&group)).await;
        let metadata = asked.context("Failed to wait for a group's name")??;
        let name = clean_name(&metadata.subject);
        intake.submit_events(group_chat_event(&group, name, metadata.participants.len())).await
    };
    if let Err(error) = announcing.await {
        tracing::debug!("Failed to tell a group's name: {error:#}");
    }
}

fn account_events(client: &Client) -> Vec<Event> {
    let me = own_account(client);
    let Some(phone) = &me.phone else { return Vec::new() };
    let id = inbound::to_sender_id(phone);
    let lid = me.lid.as_ref().map(inbound::to_sender_id);
    let mut events = vec![Event::Account(LinkedAccount { id, lid, name: me.name.clone() })];
    events.extend(me.lid.as_ref().and_then(|lid| inbound::same_person_event(phone, lid)));
    let name = if me.name.is_empty() { clean_name(&phone.user) } else { me.name.clone() };
    events.push(Event::Chat { id: inbound::to_chat_id(phone), name, members: None });
    events
}

async fn fetch_group_events(client: &Client) -> Result<Vec<Event>> {
    let asked = timeout(GROUPS_LIMIT, client.groups().get_participating()).await;
    let groups = asked.context("Failed to wait for the groups")??;
    let events = groups.iter().flat_map(|(group, metadata)| {
        group_chat_event(group, clean_name(&metadata.subject), metadata.participants.len())
    });
    Ok(events.collect())
}

/// A group without a name is left out: no person could choose it.
fn group_chat_event(group: &Jid, name: String, members: usize) -> Vec<Event> {
    if name.is_empty() {
        return Vec::new();
    }
    let id = inbound::to_chat_id(group);
    vec![Event::Chat { id, name, members: u32::try_from(members).ok() }]
}
