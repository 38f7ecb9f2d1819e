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
/// How often it is asked, each time after a pause.
const ATTEMPTS: u32 = 3;
const PAUSE: Duration = Duration::from_secs(5);
/// The pause before intake is told once more: without the account nothing can be answered.
const AGAIN_PAUSE: Duration = Duration::from_secs(2);

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialSync {
    Account,
    AccountAndGroups,
}

/// Tells it; returns what was told.
pub async fn run_initial_sync(client: Arc<Client>, desk: IntakeSink, greeting: InitialSync) -> InitialSync {
    while let Err(error) = desk.submit_events(account_events(&client)).await {
        if desk.is_closed() {
            // The service stops. What it still has to say needs the line, and nobody else to listen.
            return InitialSync::Account;
        }
        tracing::warn!("{error:#}, handing it over again");
        sleep(AGAIN_PAUSE).await;
    }
    if greeting == InitialSync::Account {
        return greeting;
    }
    for attempt in 1..=ATTEMPTS {
        let told = match fetch_group_events(&client).await {
            Ok(events) => desk.submit_events(events).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => return InitialSync::AccountAndGroups,
            Err(error) => tracing::warn!(attempt, "Failed to tell which groups there are: {error:#}"),
        }
        sleep(PAUSE).await;
    }
    InitialSync::Account
}

/// Tells how one group is called now.
pub async fn announce_group(client: Arc<Client>, desk: IntakeSink, group: Jid) {
    let told = async {
        let asked = timeout(GROUPS_LIMIT, client.groups().get_metadata(&group)).await;
        let metadata = asked.context("Failed to wait for a group's name")??;
        let name = clean_name(&metadata.subject);
        desk.submit_events(group_chat_event(&group, name, metadata.participants.len())).await
    };
    if let Err(error) = told.await {
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
    let told = groups.iter().flat_map(|(group, metadata)| {
        group_chat_event(group, clean_name(&metadata.subject), metadata.participants.len())
    });
    Ok(told.collect())
}

/// A group without a name is none that a person could choose.
fn group_chat_event(group: &Jid, name: String, members: usize) -> Vec<Event> {
    if name.is_empty() {
        return Vec::new();
    }
    let id = inbound::to_chat_id(group);
    vec![Event::Chat { id, name, members: u32::try_from(members).ok() }]
}
