//! From the library to intake: what WhatsApp delivered is handed over inside of the library's durability
//! hook, and the library tells WhatsApp only when intake has it on disk. What was not stored comes again;
//! that is idempotent, since intake knows each message by its id.
//!
//! Never calls the library from inside of the hook: the library holds the sender's lock there.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::sleep;
use whatsapp_rust::prelude::{Client, InboundMessage, MessageInfo, wa};
use whatsapp_rust::types::events::UnavailableType;
use whatsapp_rust::{InboundDurabilityHook, async_trait};

use super::announced::Announced;
use super::inbound::{self, OwnAccount};
use super::unread;
use super::wording::clean_name;
use crate::bridge::channels::Batch;
use crate::panics::catch_panic_in_call;
use crate::types::{Event, MessageId};

/// The pause before what was not stored is handed over once more.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Whether something is on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreResult {
    Stored,
    NotStored,
}

/// The way to intake.
#[derive(Clone, Debug)]
pub struct IntakeSink {
    batches: mpsc::Sender<Batch>,
    pub announced: Announced,
    /// Something was not stored, and WhatsApp has to deliver it again.
    pub redelivery: Arc<Notify>,
}

impl IntakeSink {
    pub fn new(batches: mpsc::Sender<Batch>) -> Self {
        Self { batches, announced: Announced::default(), redelivery: Arc::default() }
    }

    /// Hands the events over and waits until they are on disk.
    ///
    /// # Errors
    /// They were not stored, or nobody takes them any more.
    pub async fn submit_events(&self, events: Vec<Event>) -> Result<()> {
        let events = self.announced.retain_new_events(events);
        if events.is_empty() {
            return Ok(());
        }
        let submitted = events.clone();
        let (committed, stored) = oneshot::channel();
        self.batches.send(Batch { events, committed }).await.ok().context("Failed to reach intake")?;
        stored.await.ok().context("Failed to store what WhatsApp delivered")?;
        self.announced.record_announced(&submitted);
        Ok(())
    }

    /// Whether nobody takes anything any more: the service is about to stop.
    pub fn is_closed(&self) -> bool {
        self.batches.is_closed()
    }

    /// Hands events over of which nobody needs to know whether they are on disk.
    pub async fn submit_unconfirmed(&self, events: Vec<Event>) {
        let (committed, _) = oneshot::channel();
        // If intake is gone, the run is about to end.
        self.batches.send(Batch { events, committed }).await.ok();
    }

    /// Hands over what nobody delivers a second time, until it is stored, or nobody takes anything any more.
    pub async fn submit_with_retry(&self, events: Vec<Event>) -> StoreResult {
        loop {
            match self.submit_events(events.clone()).await {
                Ok(()) => return StoreResult::Stored,
                Err(_) if self.is_closed() => return StoreResult::NotStored,
                Err(error) => tracing::warn!("{error:#}, handing it over again"),
            }
            sleep(RETRY_PAUSE).await;
        }
    }

    /// What stands for a message that linked devices do not get.
    pub fn unavailable_message_events(
        &self,
        client: &Client,
        info: &MessageInfo,
        kind: UnavailableType,
    ) -> Vec<Event> {
        inbound::build_unavailable_events(
            &own_account(client),
            &|sender| self.announced.sender_name_of(sender),
            info,
            kind,
        )
    }

    /// The events in what the library delivers.
    pub fn events_from_batch(&self, client: &Client, batch: &[InboundMessage]) -> Vec<Event> {
        let me = own_account(client);
        let name_of = |sender: &_| self.announced.sender_name_of(sender);
        let events = |inbound: &InboundMessage| {
            let read = |message: &wa::Message| {
                catch_panic_in_call(|| inbound::build_message_events(&me, &name_of, &inbound.info, message))
            };
            // A message whose reading panics would come again and again; it becomes one that nobody can read.
            let unreadable = |_| {
                tracing::error!("A message broke off while it was read");
                read(&wa::Message::default())
            };
            read(&inbound.message).or_else(unreadable).unwrap_or_default()
        };
        let read_after_all = |InboundMessage { info, .. }: &InboundMessage| {
            let (chat, id) = (me.canonical_chat_id(&info.source.chat), MessageId::new(&info.id));
            let was_unread = info.unavailable_request_id.is_some() || self.announced.is_unread(&chat, &id);
            was_unread.then_some(Event::ReadAfterAll { chat, id })
        };
        batch.iter().flat_map(|inbound| events(inbound).into_iter().chain(read_after_all(inbound))).collect()
    }

    /// That this message could not be read, unless it is nothing that a person would miss.
    pub fn unread_message_event(&self, client: &Client, info: &MessageInfo) -> Option<Event> {
        unread::build_unread_event(
            &own_account(client),
            &|sender| self.announced.sender_name_of(sender),
            info,
        )
    }
}

/// The account as the library knows it now.
pub fn own_account(client: &Client) -> OwnAccount {
    let bare = |jid: Option<whatsapp_rust::Jid>| jid.map(|jid| jid.to_non_ad());
    OwnAccount { phone: bare(client.pn()), lid: bare(client.lid()), name: clean_name(&client.push_name()) }
}

#[async_trait]
impl InboundDurabilityHook for IntakeSink {
    async fn on_messages(&self, client: Arc<Client>, batch: &[InboundMessage]) -> Result<()> {
        let events = self.events_from_batch(&client, batch);
        if let Err(error) = self.submit_events(events).await {
            tracing::warn!(messages = batch.len(), "{error:#}; WhatsApp delivers it again");
            // At the next start anyway; a new connection now would cut off the last replies.
            if !self.is_closed() {
                self.redelivery.notify_one();
            }
            bail!("Failed to hand a batch over");
        }
        Ok(())
    }
}
