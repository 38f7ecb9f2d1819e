//! A bridge to the terminal: one chat, whose messages are typed lines and whose replies are shown.
//!
//! Never prints: what is to be seen goes to the front through a channel.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};

use super::channels::{
    Batch, BridgeEnd, Content, FetchError, HandedOver, Order, SendError, SendOrder, Typing,
};
use crate::clock::Clock;
use crate::types::{ChatId, Event, Forwarded, IncomingMessage, LinkState, Mention, MessageId, SenderId};

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
pub enum ConsoleOutput {
    /// What they typed is stored.
    Stored,
    Typing(Typing),
    Message(String),
}

impl Console {
    /// Runs until the service is gone, or nobody types or looks any more.
    pub async fn run_console(
        self,
        mut end: BridgeEnd,
        mut typed: mpsc::Receiver<String>,
        shown: mpsc::Sender<ConsoleOutput>,
    ) {
        let chat = Event::Chat { id: self.chat.clone(), name: self.title.clone(), members: None };
        end.link.send_replace(LinkState::Online);
        let (committed, _) = oneshot::channel();
        if end.batches.send(Batch { events: vec![chat], committed }).await.is_err() {
            return;
        }
        loop {
            let alive = tokio::select! {
                Some(line) = typed.recv() => self.submit_typed_line(&end.batches, line, &shown).await,
                order = end.orders.recv() => match order {
                    Some(order) => self.handle_order(order, &shown).await,
                    None => false,
                },
            };
            if !alive {
                return;
            }
        }
    }

    /// Hands a typed line in, again until it is stored. False if nobody takes it any more.
    async fn submit_typed_line(
        &self,
        batches: &mpsc::Sender<Batch>,
        line: String,
        shown: &mpsc::Sender<ConsoleOutput>,
    ) -> bool {
        let message = self.inbound_from_line(line, self.clock.now());
        loop {
            let (committed, stored) = oneshot::channel();
            let batch = Batch { events: vec![Event::Message(message.clone())], committed };
            if batches.send(batch).await.is_err() {
                return false;
            }
            if stored.await.is_ok() {
                return shown.send(ConsoleOutput::Stored).await.is_ok();
            }
            tokio::time::sleep(REDELIVERY_PAUSE).await;
        }
    }

    fn inbound_from_line(&self, text: String, now: Timestamp) -> IncomingMessage {
        IncomingMessage {
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

    /// Shows what belongs to this chat. False if nobody looks any more.
    async fn handle_order(&self, order: Order, shown: &mpsc::Sender<ConsoleOutput>) -> bool {
        match order {
            Order::Send(SendOrder { chat, content, outcome, .. }) if chat == self.chat => {
                let seen = shown.send(ConsoleOutput::Message(render_content(content))).await.is_ok();
                let result = if seen {
                    Ok(HandedOver::Seen)
                } else {
                    Err(SendError::Later("the terminal is gone".to_owned()))
                };
                outcome.send(result).ok();
                seen
            }
            Order::Send(SendOrder { outcome, .. }) => {
                outcome.send(Err(SendError::Later("this terminal shows another chat".to_owned()))).ok();
                true
            }
            Order::Typing { chat, shown: typing } if chat == self.chat => {
                shown.send(ConsoleOutput::Typing(typing)).await.is_ok()
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
fn render_content(content: Content) -> String {
    match content {
        Content::Text { text, .. } => text,
        Content::File(file) => format!("[{}] {}", file.name, file.caption).trim_end().to_owned(),
        Content::Reaction { emoji, .. } => format!("[{emoji}]"),
        Content::Encoded(_) => "[a file]".to_owned(),
    }
}
