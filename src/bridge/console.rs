//! A bridge to the terminal: one chat, whose messages are typed lines and whose replies are shown.
//!
//! Never prints: what is to be seen goes to the front through a channel.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::{Batch, BridgeEnd, Content, Event, FetchError, HandedOver, Link, Order, Send, SendError, Typing};
use crate::clock::Clock;
use crate::types::{ChatId, Forwarded, Inbound, Mention, MessageId, SenderId};

/// The pause before a line that could not be stored is handed in again.
const REDELIVERY_PAUSE: Duration = Duration::from_secs(1);

/// The chat at this terminal.
#[derive(Clone, Debug)]
pub struct Console {
    pub chat: ChatId,
    /// What the chat is called.
    pub title: String,
    /// How the person at the terminal is called in the chat.
    pub sender_name: String,
    pub clock: Clock,
}

/// What the person at the terminal sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shown {
    /// What they typed is stored.
    Stored,
    Typing(Typing),
    Message(String),
}

impl Console {
    /// Runs until the service is gone, or nobody types or looks any more.
    pub async fn run(
        self,
        mut end: BridgeEnd,
        mut typed: mpsc::Receiver<String>,
        shown: mpsc::Sender<Shown>,
    ) {
        let chat = Event::Chat { id: self.chat.clone(), name: self.title.clone(), members: None };
        end.link.send_replace(Link::Online);
        let (committed, _) = oneshot::channel();
        if end.batches.send(Batch { events: vec![chat], committed }).await.is_err() {
            return;
        }
        loop {
            let alive = tokio::select! {
                Some(line) = typed.recv() => self.pass_on(&end.batches, line, &shown).await,
                order = end.orders.recv() => match order {
                    Some(order) => self.carry_out(order, &shown).await,
                    None => false,
                },
            };
            if !alive {
                return;
            }
        }
    }

    /// Hands a typed line in, again until it is stored. False when there is nobody to take it.
    async fn pass_on(
        &self,
        batches: &mpsc::Sender<Batch>,
        line: String,
        shown: &mpsc::Sender<Shown>,
    ) -> bool {
        let message = self.message(line, self.clock.now());
        loop {
            let (committed, stored) = oneshot::channel();
            let batch = Batch { events: vec![Event::Message(message.clone())], committed };
            if batches.send(batch).await.is_err() {
                return false;
            }
            if stored.await.is_ok() {
                return shown.send(Shown::Stored).await.is_ok();
            }
            tokio::time::sleep(REDELIVERY_PAUSE).await;
        }
    }

    fn message(&self, text: String, now: Timestamp) -> Inbound {
        Inbound {
            chat: self.chat.clone(),
            id: MessageId::new(format!("console-{:016x}", rand::random::<u64>())),
            sender: SenderId::new("console:you"),
            sender_name: self.sender_name.clone(),
            text,
            sent_at: now,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    /// Shows what belongs to this chat. False when nobody looks any more.
    async fn carry_out(&self, order: Order, shown: &mpsc::Sender<Shown>) -> bool {
        match order {
            Order::Send(Send { chat, content, outcome, .. }) if chat == self.chat => {
                let seen = shown.send(Shown::Message(in_words(content))).await.is_ok();
                let result = if seen {
                    Ok(HandedOver::Seen)
                } else {
                    Err(SendError::Later("the terminal is gone".to_owned()))
                };
                outcome.send(result).ok();
                seen
            }
            Order::Send(Send { outcome, .. }) => {
                outcome.send(Err(SendError::Later("this terminal shows another chat".to_owned()))).ok();
                true
            }
            Order::Typing { chat, shown: typing } if chat == self.chat => {
                shown.send(Shown::Typing(typing)).await.is_ok()
            }
            Order::Repair(_) | Order::Typing { .. } | Order::Read { .. } | Order::AskAgain { .. } => true,
            Order::Fetch(fetch) => {
                // Nothing is ever attached to a typed line.
                fetch.outcome.send(Err(FetchError::Gone)).ok();
                true
            }
        }
    }
}

/// A message as a terminal can show it.
fn in_words(content: Content) -> String {
    match content {
        Content::Text { text, .. } => text,
        Content::File(file) => format!("[{}] {}", file.name, file.caption).trim_end().to_owned(),
        Content::Reaction { emoji, .. } => format!("[{emoji}]"),
        Content::Encoded(_) => "[a file]".to_owned(),
    }
}
