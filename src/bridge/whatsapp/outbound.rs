//! Carries the service's orders out while the library runs: messages of different chats side by side, those of one
//! chat in their order; courtesies and files beside them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use whatsapp_rust::prelude::{Client, Jid, SendError as Refused, SendOptions, wa};

use super::Presence;
use super::courtesies::{Courtesies, Courtesy};
use super::hook;
use super::letter::{self, Author};
use super::media::{self, Fetching};
use super::unread;
use crate::bridge::{Content, FILE_MAX_BYTES, FetchError, HandedOver, Order, QuoteTo, Send, SendError};
use crate::clock::Clock;
use crate::panics::contain;
use crate::types::ChatId;

/// Chats that are sent to at the same time.
const SIDE_BY_SIDE: usize = 4;
/// Messages that wait for their turn; the outbox keeps the others.
const WAITING_MAX: usize = 64;
/// How long a message may take.
const SEND_LIMIT: Duration = Duration::from_secs(15);
/// How long one with a file may take.
const FILE_LIMIT: Duration = Duration::from_secs(5 * 60);

/// Whether messages can be handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    Open,
    Closed,
}

/// What is on its way out.
pub struct Outbound {
    client: Arc<Client>,
    clock: Clock,
    courtesies: Courtesies,
    fetching: Fetching,
    asking: JoinSet<()>,
    sending: JoinSet<ChatId>,
    busy: HashSet<ChatId>,
    /// Never an empty queue.
    waiting: HashMap<ChatId, VecDeque<Send>>,
    /// The chats of `waiting`, in the order in which they began to wait.
    order: VecDeque<ChatId>,
}

impl Outbound {
    pub fn new(client: Arc<Client>, presence: Presence, clock: Clock) -> Self {
        Self {
            courtesies: Courtesies::begin(client.clone(), presence),
            fetching: Fetching::new(client.clone()),
            client,
            clock,
            asking: JoinSet::new(),
            sending: JoinSet::new(),
            busy: HashSet::new(),
            waiting: HashMap::new(),
            order: VecDeque::new(),
        }
    }

    pub fn show(&self, courtesy: Courtesy) {
        self.courtesies.hand_in(courtesy);
    }

    pub fn take(&mut self, order: Order, line: Line) {
        match (order, line) {
            (order, Line::Closed) => later(order),
            (Order::Send(send), Line::Open) => self.queue(send),
            (Order::Typing { chat, shown }, Line::Open) => self.show(Courtesy::Typing { chat, shown }),
            (Order::Read { chat, sender, messages }, Line::Open) => {
                self.show(Courtesy::Read { chat, sender, messages });
            }
            (Order::Fetch(fetch), Line::Open) => self.fetching.begin(fetch),
            (Order::AskAgain { handle }, Line::Open) => {
                while self.asking.try_join_next().is_some() {}
                self.asking.spawn(ask_again(self.client.clone(), handle));
            }
        }
    }

    /// Waits until a message is done; never returns where none is on its way.
    pub async fn next_done(&mut self) {
        let Some(done) = self.sending.join_next().await else { return std::future::pending().await };
        if let Ok(chat) = done {
            self.busy.remove(&chat);
        }
        self.send_next();
    }

    fn queue(&mut self, send: Send) {
        if self.waiting.values().map(VecDeque::len).sum::<usize>() >= WAITING_MAX {
            send.outcome.send(Err(SendError::Later("too many messages are waiting".to_owned()))).ok();
            return;
        }
        let queue = self.waiting.entry(send.chat.clone()).or_default();
        if queue.is_empty() {
            self.order.push_back(send.chat.clone());
        }
        queue.push_back(send);
        self.send_next();
    }

    fn send_next(&mut self) {
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
            let (client, clock) = (self.client.clone(), self.clock);
            self.sending.spawn(async move {
                if contain(carry(&client, &clock, send)).await.is_err() {
                    tracing::error!("A message broke off; the outbox sends it again");
                }
                chat
            });
        }
    }
}

/// Answers an order that cannot be carried out now.
pub fn later(order: Order) {
    match order {
        Order::Send(send) => {
            send.outcome.send(Err(SendError::Later("WhatsApp is not connected".to_owned()))).ok();
        }
        Order::Fetch(fetch) => {
            fetch.outcome.send(Err(FetchError::Later)).ok();
        }
        Order::Typing { .. } | Order::Read { .. } | Order::AskAgain { .. } => {}
    }
}

/// Has the phone asked for a message; its answer is an event.
async fn ask_again(client: Arc<Client>, handle: Vec<u8>) {
    let asking = async {
        let envelope = Arc::new(unread::envelope(&handle)?);
        client.send_pdo_placeholder_resend_request(&envelope).await
    };
    match timeout(SEND_LIMIT, asking).await {
        Ok(Ok(())) => tracing::debug!("The phone is asked for a message that could not be read"),
        Ok(Err(error)) => tracing::debug!("Failed to ask the phone for a message: {error:#}"),
        Err(_) => tracing::debug!("The phone could not be asked for a message in time"),
    }
}

async fn carry(client: &Client, clock: &Clock, send: Send) {
    let Send { chat, id, content, quote, expires_secs, mut outcome } = send;
    let limit = match content {
        Content::File(_) => FILE_LIMIT,
        Content::Text { .. } | Content::Reaction { .. } => SEND_LIMIT,
    };
    let mut options = SendOptions::default().with_message_id(id.as_str());
    if let Some(secs) = expires_secs {
        options = options.with_ephemeral_expiration(secs);
    }
    let handed_over = async {
        let chat = address(chat.as_str())?;
        let message = message(client, clock, &chat, &content, quote.as_ref()).await?;
        let sent = client.send_message_with_options(chat, message, options).await;
        sent.map(|_| HandedOver::Sent).map_err(|error| refused(&error))
    };
    let result = tokio::select! {
        biased;
        // Whoever asked has stopped waiting, and asks again.
        () = outcome.closed() => return,
        result = timeout(limit, handed_over) => result,
    };
    let took_too_long =
        |_| Err(SendError::Later(format!("WhatsApp did not take it within {} s", limit.as_secs())));
    outcome.send(result.unwrap_or_else(took_too_long)).ok();
}

/// What is to be sent as WhatsApp's message; a file is uploaded for it.
async fn message(
    client: &Client,
    clock: &Clock,
    chat: &Jid,
    content: &Content,
    quote: Option<&QuoteTo>,
) -> Result<wa::Message, SendError> {
    match content {
        Content::Text { text, mentions } => Ok(letter::text(text, mentions, quote)),
        Content::File(file) if file.bytes > FILE_MAX_BYTES => {
            Err(SendError::Never("the file is too large".to_owned()))
        }
        Content::File(file) => {
            let uploaded = media::upload(client, file).await.map_err(|error| {
                tracing::debug!("Failed to upload a file: {error:#}");
                SendError::Later("the file could not be uploaded".to_owned())
            })?;
            Ok(letter::file(file, uploaded, quote))
        }
        Content::Reaction { target, sender, emoji } => {
            let author = address(sender.as_str())?;
            let who = if hook::me(client).is(&author) { Author::Us } else { Author::Somebody };
            Ok(letter::reaction(chat, target, &author, who, emoji, clock.now().as_millisecond()))
        }
    }
}

/// In words without names or numbers: they go into logs.
fn refused(error: &Refused) -> SendError {
    tracing::debug!("Failed to send a message: {error:#}");
    if matches!(error, Refused::InvalidRequest(_)) {
        return SendError::Never("WhatsApp does not send this to such a chat".to_owned());
    }
    let broken = matches!(error, Refused::Client(_) | Refused::Iq(_) | Refused::NotLoggedIn);
    let why = if broken { "the connection broke off" } else { "it could not be encrypted or sent" };
    SendError::Later(why.to_owned())
}

fn address(of: &str) -> Result<Jid, SendError> {
    of.parse::<Jid>()
        .ok()
        .filter(|jid| !jid.user.is_empty())
        .ok_or_else(|| SendError::Never("that is no address of WhatsApp's".to_owned()))
}
