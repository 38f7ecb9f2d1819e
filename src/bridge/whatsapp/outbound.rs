//! Carries the service's orders out while the library runs: messages of different chats side by side, those
//! of one chat in their order; presence updates and files beside them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use whatsapp_rust::buffa::Message as _;
use whatsapp_rust::prelude::{Client, Jid, SendError as Refused, SendOptions, wa};
use whatsapp_rust::{Freshness, Server};

use super::intake_sink;
use super::media::{self, MediaDownloads};
use super::outgoing_message::{self, TargetAuthor};
use super::presence::{Presence, PresenceQueue, PresenceUpdate};
use super::sessions::{self, DeviceReach, InFlightMessages};
use super::unread;
use crate::bridge::channels::{
    Content, FILE_MAX_BYTES, FetchError, HandedOver, Order, QuoteTo, Recipients, RepairOrder, SendError,
    SendOrder,
};
use crate::clock::Clock;
use crate::panics::catch_panic;
use crate::types::{ChatId, Event, MessageId, SenderId};

/// Chats that are sent to at the same time.
const SIDE_BY_SIDE: usize = 4;
/// Messages that wait for their turn; the outbox keeps the others.
const WAITING_MAX: usize = 64;
/// How long a message may take.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// How long one with a file may take.
const FILE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// How long a group's message may be sealed anew for members without keys.
const SEAL_LIMIT: Duration = Duration::from_secs(2 * 60);

/// Whether messages can be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendGate {
    Open,
    Closed,
}

/// Messages that wait to be sealed anew, one after the other.
const REPAIRS_WAITING_MAX: usize = 64;

/// What is on its way out.
pub struct Outbound {
    context: SendContext,
    repairs: mpsc::Sender<RepairOrder>,
    /// The tasks that seal messages anew; they end with this.
    follow_ups: JoinSet<()>,
    presence: PresenceQueue,
    downloads: MediaDownloads,
    resend_requests: JoinSet<()>,
    sending: JoinSet<FinishedSend>,
    busy: HashSet<ChatId>,
    /// Never an empty queue.
    waiting: HashMap<ChatId, VecDeque<SendOrder>>,
    /// The chats of `waiting`, in the order in which they began to wait.
    order: VecDeque<ChatId>,
}

impl Outbound {
    /// `event_sender` leads to intake, for what it is to know of the messages.
    pub fn new(
        client: Arc<Client>,
        presence: Presence,
        clock: Clock,
        event_sender: mpsc::Sender<Vec<Event>>,
    ) -> Self {
        let (repairs, waiting) = mpsc::channel(REPAIRS_WAITING_MAX);
        let mut follow_ups = JoinSet::new();
        follow_ups.spawn(repair_queued_messages(client.clone(), waiting));
        Self {
            presence: PresenceQueue::spawn_worker(client.clone(), presence),
            downloads: MediaDownloads::new(client.clone()),
            context: SendContext { client, clock, event_sender, in_flight: InFlightMessages::default() },
            repairs,
            follow_ups,
            resend_requests: JoinSet::new(),
            sending: JoinSet::new(),
            busy: HashSet::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    /// WhatsApp has answered a message, with a hash of the devices that it knows.
    pub fn on_server_ack(&mut self, id: &MessageId, hash: Option<&str>) {
        let Some(sent) = self.context.in_flight.compare_ack_hash(id, hash) else { return };
        while self.follow_ups.try_join_next().is_some() {}
        let context = self.context.clone();
        self.follow_ups.spawn(async move {
            let missed = sessions::resend_to_new_devices(&context.client, &sent).await;
            context.report_missed_phones(sessions::phone_missed_events(&sent.id, missed));
        });
    }

    pub fn queue_presence_update(&self, update: PresenceUpdate) {
        self.presence.queue_update(update);
    }

    pub fn handle_order(&mut self, order: Order, gate: SendGate) {
        match (order, gate) {
            (order, SendGate::Closed) => refuse_order(order),
            (Order::Send(send), SendGate::Open) => self.queue_message(send),
            (Order::Repair(repair), SendGate::Open) => {
                if let Err(refused) = self.repairs.try_send(repair) {
                    refuse_order(Order::Repair(refused.into_inner()));
                }
            }
            (Order::Typing { chat, shown }, SendGate::Open) => {
                self.queue_presence_update(PresenceUpdate::Typing { chat, shown })
            }
            (Order::Read { chat, sender, messages }, SendGate::Open) => {
                self.queue_presence_update(PresenceUpdate::Read { chat, sender, messages });
            }
            (Order::Fetch(fetch), SendGate::Open) => self.downloads.start_download(fetch),
            (Order::AskAgain { handle }, SendGate::Open) => {
                while self.resend_requests.try_join_next().is_some() {}
                self.resend_requests.spawn(request_phone_resend(self.context.client.clone(), handle));
            }
        }
    }

    /// Waits until a message is done; never returns if none is on its way.
    pub async fn wait_for_finished_send(&mut self) {
        let Some(done) = self.sending.join_next().await else { return std::future::pending().await };
        if let Ok(FinishedSend { chat, sent }) = done {
            self.busy.remove(&chat);
            if let Some(sent) = sent {
                self.spawn_follow_up(sent);
            }
        }
        self.send_queued_messages();
    }

    /// Members without keys for a group's message get it one by one. That takes as long as WhatsApp likes,
    /// and nothing waits for it.
    fn spawn_follow_up(&mut self, sent: SentMessage) {
        while self.follow_ups.try_join_next().is_some() {}
        let context = self.context.clone();
        self.follow_ups.spawn(async move {
            let SentMessage { chat, id, message, mut missed } = sent;
            if chat.server == Server::Group {
                let sealing = sessions::resend_to_keyless_members(&context.client, &chat, &id, &message);
                match timeout(SEAL_LIMIT, sealing).await {
                    Ok(keyless) => missed.extend(keyless),
                    Err(_) => tracing::info!("Failed to reach members without keys in time"),
                }
            }
            context.report_missed_phones(sessions::phone_missed_events(&id, missed));
        });
    }

    fn queue_message(&mut self, send: SendOrder) {
        if self.waiting.values().map(VecDeque::len).sum::<usize>() >= WAITING_MAX {
            send.outcome.send(Err(SendError::Later("too many messages are waiting".to_owned()))).ok();
            return;
        }
        let queue = self.waiting.entry(send.chat.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(send.chat.clone());
        }
        queue.push_back(send);
        self.send_queued_messages();
    }

    fn send_queued_messages(&mut self) {
        while self.sending.len() < SIDE_BY_SIDE {
            let Some(place) = self.order.iter().position(|chat| !self.busy.contains(chat)) else { return };
            let Some(chat) = self.order.remove(place) else { return };
            let Some(queue) = self.waiting.get_mut(&chat) else { continue };
            let next = queue.pop_front();
            if queue.is_empty() {
                self.waiting.remove(&chat);
            } else {
                self.order.push_back(chat.clone());
            }
            let Some(send) = next else { continue };
            self.busy.insert(chat.clone());
            let context = self.context.clone();
            self.sending.spawn(async move {
                let sent = catch_panic(send_one_message(&context, send)).await.unwrap_or_else(|_| {
                    tracing::error!("A message broke off; the outbox sends it again");
                    None
                });
                FinishedSend { chat, sent }
            });
        }
    }
}

/// Answers an order that cannot be carried out now.
pub fn refuse_order(order: Order) {
    match order {
        Order::Send(send) => {
            send.outcome.send(Err(SendError::Later("WhatsApp is not connected".to_owned()))).ok();
        }
        Order::Repair(repair) => {
            repair.outcome.send(Err(SendError::Later("WhatsApp is not connected".to_owned()))).ok();
        }
        Order::Fetch(fetch) => {
            fetch.outcome.send(Err(FetchError::Later)).ok();
        }
        Order::Typing { .. } | Order::Read { .. } | Order::AskAgain { .. } => {}
    }
}

/// Has the phone asked for a message; its answer is an event.
async fn request_phone_resend(client: Arc<Client>, handle: Vec<u8>) {
    let request = async {
        let envelope = Arc::new(unread::decode_resend_handle(&handle)?);
        client.send_pdo_placeholder_resend_request(&envelope).await
    };
    match timeout(SEND_LIMIT, request).await {
        Ok(Ok(())) => tracing::debug!("The phone is asked for a message that could not be read"),
        Ok(Err(error)) => {
            tracing::info!("Failed to ask the phone for a message that could not be read");
            tracing::debug!("Why: {error:#}");
        }
        Err(_) => tracing::info!("The phone could not be asked in time for a message that could not be read"),
    }
}

/// What every message needs on its way.
#[derive(Clone)]
struct SendContext {
    client: Arc<Client>,
    clock: Clock,
    event_sender: mpsc::Sender<Vec<Event>>,
    in_flight: InFlightMessages,
}

impl SendContext {
    fn report_missed_phones(&self, events: Vec<Event>) {
        if !events.is_empty() && self.event_sender.try_send(events).is_err() {
            tracing::warn!("Intake is far behind: left out who has missed a message");
        }
    }
}

async fn repair_queued_messages(client: Arc<Client>, mut waiting: mpsc::Receiver<RepairOrder>) {
    while let Some(repair) = waiting.recv().await {
        if !repair.outcome.is_closed() {
            let repaired = sessions::repair_message(&client, &repair).await;
            repair.outcome.send(repaired).ok();
        }
    }
}

/// A message that is done.
struct FinishedSend {
    chat: ChatId,
    /// `None` if WhatsApp did not take it.
    sent: Option<SentMessage>,
}

/// A message that WhatsApp has taken, and the people who will miss it, as far as was known before.
struct SentMessage {
    chat: Jid,
    id: MessageId,
    message: wa::Message,
    missed: Vec<SenderId>,
}

async fn send_one_message(context: &SendContext, send: SendOrder) -> Option<SentMessage> {
    let SendOrder { chat, id, content, quote, expires_secs, recipients, encoded, mut outcome } = send;
    let client = &context.client;
    let limit = match content {
        Content::File(_) => FILE_LIMIT,
        Content::Text { .. } | Content::Reaction { .. } | Content::Encoded(_) => SEND_LIMIT,
    };
    let mut options = SendOptions::default().with_message_id(id.as_str());
    if let Some(secs) = expires_secs {
        options = options.with_ephemeral_expiration(secs);
    }
    if recipients == Recipients::LookedUp {
        options = options
            .with_device_freshness(Freshness::Refresh)
            .with_group_metadata_freshness(Freshness::Refresh);
    }
    let handed_over = async {
        let chat = parse_address(chat.as_str())?;
        let missed = find_missed_phones(client, &chat, recipients).await?;
        let message = build_outgoing_message(client, &context.clock, &chat, &content, quote.as_ref()).await?;
        context.in_flight.track_message(client, &chat, &id, &message).await;
        let sent = client.send_message_with_options(chat.clone(), message.clone(), options).await;
        sent.map_err(|error| classify_send_error(&error))?;
        Ok((chat, message, missed))
    };
    let result = tokio::select! {
        biased;
        // The service has stopped waiting, and asks again.
        () = outcome.closed() => return None,
        result = timeout(limit, handed_over) => result,
    };
    let took_too_long =
        |_| Err(SendError::Later(format!("WhatsApp did not take it within {} s", limit.as_secs())));
    match result.unwrap_or_else(took_too_long) {
        Ok((chat, message, missed)) => {
            encoded.send(message.encode_to_vec()).ok();
            outcome.send(Ok(HandedOver::Sent)).ok();
            Some(SentMessage { chat, id, message, missed })
        }
        Err(error) => {
            outcome.send(Err(error)).ok();
            None
        }
    }
}

/// The people who will miss a direct message. If nobody could read it, that is an error.
async fn find_missed_phones(
    client: &Client,
    chat: &Jid,
    recipients: Recipients,
) -> Result<Vec<SenderId>, SendError> {
    let is_person = matches!(chat.server, Server::Pn | Server::Lid);
    if !is_person || intake_sink::own_account(client).is_own_jid(chat) {
        return Ok(Vec::new());
    }
    match sessions::resolve_reach(client, chat, recipients).await? {
        DeviceReach::Phone => Ok(Vec::new()),
        DeviceReach::CompanionsOnly => Ok(vec![super::inbound::to_sender_id(chat)]),
        DeviceReach::Nobody => Err(SendError::NoKeys),
    }
}

/// What is to be sent as WhatsApp's message; a file is uploaded for it.
async fn build_outgoing_message(
    client: &Client,
    clock: &Clock,
    chat: &Jid,
    content: &Content,
    quote: Option<&QuoteTo>,
) -> Result<wa::Message, SendError> {
    match content {
        Content::Text { text, mentions } => Ok(outgoing_message::build_outgoing_text(text, mentions, quote)),
        Content::Encoded(bytes) => wa::Message::decode_from_slice(bytes)
            .map_err(|_| SendError::Never("what was sent before cannot be read".to_owned())),
        Content::File(file) if file.bytes > FILE_MAX_BYTES => {
            Err(SendError::Never("the file is too large".to_owned()))
        }
        Content::File(file) => {
            let uploaded = media::upload_file(client, file).await.map_err(|error| {
                tracing::debug!("Failed to upload a file: {error:#}");
                SendError::Later("the file could not be uploaded".to_owned())
            })?;
            Ok(outgoing_message::build_outgoing_file(file, uploaded, quote))
        }
        Content::Reaction { target, sender, emoji } => {
            let author = parse_address(sender.as_str())?;
            let who = if intake_sink::own_account(client).is_own_jid(&author) {
                TargetAuthor::Us
            } else {
                TargetAuthor::Somebody
            };
            Ok(outgoing_message::build_outgoing_reaction(
                chat,
                target,
                &author,
                who,
                emoji,
                clock.now().as_millisecond(),
            ))
        }
    }
}

/// In words without names or numbers: they go into logs.
fn classify_send_error(error: &Refused) -> SendError {
    tracing::debug!("Failed to send a message: {error:#}");
    if matches!(error, Refused::InvalidRequest(_)) {
        return SendError::Never("WhatsApp does not send this to such a chat".to_owned());
    }
    if sessions::is_missing_keys_error(error) {
        return SendError::NoKeys;
    }
    let broken = matches!(error, Refused::Client(_) | Refused::Iq(_) | Refused::NotLoggedIn);
    let why = if broken { "the connection broke off" } else { "it could not be encrypted or sent" };
    SendError::Later(why.to_owned())
}

fn parse_address(of: &str) -> Result<Jid, SendError> {
    of.parse::<Jid>()
        .ok()
        .filter(|jid| !jid.user.is_empty())
        .ok_or_else(|| SendError::Never("that is no address of WhatsApp's".to_owned()))
}
