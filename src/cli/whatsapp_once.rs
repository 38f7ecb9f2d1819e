//! The link to WhatsApp for verbs that use it without the service: stores what the bridge tells, sends one
//! reply.

use std::time::Duration;

use anyhow::{Context, Result};
use jiff::tz::TimeZone;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

use super::auth::phone;
use super::install::Install;
use super::{exit, ui};
use crate::bridge::whatsapp::{Presence, WhatsAppBridge};
use crate::bridge::{self, Batch, Content, Order, Recipients};
use crate::config::OwnNumber;
use crate::login::config_toml;
use crate::store::{ReplyContent, Rules, SendAttempt, SendResult, Store};
use crate::types::{Answer, ChatId, DirectChatPolicy, Event, LinkState, LinkedAccount, MessageId};

/// Answers of WhatsApp's server that nobody has looked at yet.
pub const ANSWERS_IN_FLIGHT: usize = 64;
/// How long WhatsApp may take over one message, and again until it says that it has it.
const ANSWER_LIMIT: Duration = Duration::from_secs(20);

impl Install {
    /// The bridge to WhatsApp, as the settings have it.
    pub fn whatsapp_bridge(&self) -> WhatsAppBridge {
        WhatsAppBridge {
            folder: self.paths.whatsapp_keys_folder(),
            url: self.config.whatsapp_url.clone(),
            presence: match self.config.own_number {
                OwnNumber::Shared => Presence::Hidden,
                OwnNumber::Own => Presence::Shown,
            },
            clock: self.clock,
        }
    }
}

/// What WhatsApp's server says of messages that were sent.
pub type AnswerReceiver = mpsc::Receiver<(MessageId, Answer)>;

/// Does `work` while what the bridge tells is stored, as intake does in the service.
pub async fn run_while_storing<T>(
    install: &Install,
    store: &Store,
    batches: mpsc::Receiver<Batch>,
    answered: mpsc::Sender<(MessageId, Answer)>,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    tokio::select! {
        done = work => done,
        Err(error) = store_batches(install, store, batches, answered) => Err(error),
    }
}

async fn store_batches(
    install: &Install,
    store: &Store,
    mut batches: mpsc::Receiver<Batch>,
    answered: mpsc::Sender<(MessageId, Answer)>,
) -> Result<()> {
    while let Some(Batch { events, committed }) = batches.recv().await {
        let answers: Vec<_> = events.iter().filter_map(answer_from_event).collect();
        store.record_events(events, intake_rules(install), install.clock.now()).await?;
        committed.send(()).ok();
        for answer in answers {
            // Nobody may be waiting for it: then it is in the database, for the service.
            answered.try_send(answer).ok();
        }
    }
    Ok(())
}

/// The rules of the store, as in the service.
fn intake_rules(install: &Install) -> Rules {
    let config = &install.config;
    Rules {
        assistant: config.assistant_name.clone(),
        answer_within: config.answer_within,
        lang: config.lang,
        reply_prefix: config.reply_prefix(),
        zone: config.zone.clone(),
        engine: config.engine,
        models: config_toml::read_offered_models(
            &install.paths.engine_config_file(),
            config.model.as_deref(),
        ),
        // Nobody is asked anything while chats are being chosen.
        direct_chats: DirectChatPolicy::Listed,
    }
}

fn answer_from_event(event: &Event) -> Option<(MessageId, Answer)> {
    match event {
        Event::Answered { id, answer } => Some((id.clone(), *answer)),
        Event::Message(_)
        | Event::Edited(_)
        | Event::Deleted { .. }
        | Event::Reacted(_)
        | Event::Noted(_)
        | Event::Chat { .. }
        | Event::SamePerson { .. }
        | Event::Account(_)
        | Event::Unread(_)
        | Event::ReadAfterAll { .. }
        | Event::Receipt(_)
        | Event::PhoneMissed { .. }
        | Event::IdentityChanged { .. }
        | Event::Typing { .. } => None,
    }
}

/// How a message that waited went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliveryOutcome {
    /// WhatsApp has it.
    Acked,
    /// WhatsApp does not take it, with its code.
    Refused(u32),
    /// Not known yet: the service goes on with it.
    Waiting,
}

/// Sends what waits in a chat, each once WhatsApp has said that it has the one before.
pub async fn send_waiting_replies(
    install: &Install,
    store: &Store,
    chat: &ChatId,
    orders: &mpsc::Sender<Order>,
    answers: &mut AnswerReceiver,
) -> Result<DeliveryOutcome> {
    while let Some(reply) = store.next_queued_replies(Some(chat)).await?.pop() {
        let ReplyContent::Text { text, mentions } = reply.content.clone() else {
            return Ok(DeliveryOutcome::Waiting);
        };
        let SendAttempt::Begins = store.begin_attempt(&reply).await? else {
            return Ok(DeliveryOutcome::Waiting);
        };
        let (outcome, handed_over) = oneshot::channel();
        let (encoded, mut message) = oneshot::channel();
        let order = Order::Send(bridge::SendOrder {
            chat: chat.clone(),
            id: reply.id.clone(),
            content: Content::Text { text, mentions },
            quote: None,
            expires_secs: reply.expires_secs,
            recipients: Recipients::Remembered,
            encoded,
            outcome,
        });
        orders.send(order).await.ok().context("Failed to send: the bridge to WhatsApp has ended")?;
        let Ok(Ok(Ok(_))) = timeout(ANSWER_LIMIT, handed_over).await else {
            return Ok(DeliveryOutcome::Waiting);
        };
        let sent = SendResult::Sent { message: message.try_recv().unwrap_or_default() };
        store.record_attempt(&reply, sent, intake_rules(install), install.clock.now()).await?;
        match timeout(ANSWER_LIMIT, wait_for_answer_to(&reply.id, answers)).await {
            Ok(Some(Answer::Acked)) => {}
            Ok(Some(Answer::Nacked { code })) => return Ok(DeliveryOutcome::Refused(code)),
            Ok(None) | Err(_) => return Ok(DeliveryOutcome::Waiting),
        }
    }
    Ok(DeliveryOutcome::Acked)
}

async fn wait_for_answer_to(id: &MessageId, answers: &mut AnswerReceiver) -> Option<Answer> {
    loop {
        let (answered, answer) = answers.recv().await?;
        if answered == *id {
            return Some(answer);
        }
    }
}

/// An account as people know it: number and name.
pub fn account_name(account: &LinkedAccount) -> String {
    let number = phone::phone_number_from_id(account.id.as_str());
    match ui::sanitize_name(&account.name).as_str() {
        "" => number,
        name => format!("{number} ({name})"),
    }
}

/// How a link stands, in a word or a sentence; or how it last stood, if nothing works on the install.
pub fn render_link_state(link: &LinkState, holder: Option<&str>, zone: &TimeZone) -> String {
    match link {
        LinkState::Online if holder.is_some() => "online".to_owned(),
        LinkState::Online => "last online".to_owned(),
        LinkState::Connecting if holder.is_some() => "connecting".to_owned(),
        LinkState::Connecting => "not connected".to_owned(),
        LinkState::Pairing(_) => "being linked".to_owned(),
        LinkState::DiskFull => {
            "offline, because the disk is full; it comes back when there is room".to_owned()
        }
        LinkState::Unlinked
        | LinkState::LoggedOut
        | LinkState::Replaced
        | LinkState::Banned { .. }
        | LinkState::Outdated => exit::exit_for_link(link, zone).map_or_else(String::new, |end| end.sentence),
    }
}
