//! What people see of us besides messages: "typing…", "online", that a message was read. One after the other,
//! beside the messages, and without retries: none of it matters enough.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use whatsapp_rust::prelude::{Client, Jid};

use crate::bridge::channels::Typing;
use crate::types::{ChatId, MessageId, SenderId};

/// Updates that wait for the network; further ones are left out.
const WAITING_MAX: usize = 64;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long "typing…" is shown without another order: a session gives one every ten seconds.
const TYPING_FADES: Duration = Duration::from_secs(30);

/// How long the library may take to show us online after the account got its name.
const LIBRARY_SHOWS_US: Duration = Duration::from_secs(5);

/// Whether the account shows itself online all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Kai shares the owner's number: unavailable but for typing, so that the phone keeps its notifications.
    Hidden,
    /// Kai has a number of its own.
    Shown,
}

/// One update.
#[derive(Debug)]
pub enum PresenceUpdate {
    /// The connection is new.
    Connected,
    /// The account has got its name, at which the library shows us online in its own time.
    Named,
    Typing {
        chat: ChatId,
        shown: Typing,
    },
    Read {
        chat: ChatId,
        sender: SenderId,
        messages: Vec<MessageId>,
    },
}

/// Takes updates in; they are carried out until this is dropped.
pub struct PresenceQueue(mpsc::Sender<PresenceUpdate>);

impl PresenceQueue {
    pub fn spawn_worker(client: Arc<Client>, presence: Presence) -> Self {
        let (sender, updates) = mpsc::channel(WAITING_MAX);
        tokio::spawn(
            PresenceWorker { client, presence, typing: HashMap::new(), idle_presence_at: None }
                .run_presence_worker(updates),
        );
        Self(sender)
    }

    pub fn queue_update(&self, update: PresenceUpdate) {
        if self.0.try_send(update).is_err() {
            tracing::debug!("Left a presence update out: too many are waiting");
        }
    }
}

struct PresenceWorker {
    client: Arc<Client>,
    presence: Presence,
    /// The chats in which we are typing, and until when that is shown.
    typing: HashMap<ChatId, Instant>,
    /// When to say once more how we want to be seen.
    idle_presence_at: Option<Instant>,
}

impl PresenceWorker {
    async fn run_presence_worker(mut self, mut updates: mpsc::Receiver<PresenceUpdate>) {
        loop {
            let fades = self.typing.values().min().copied();
            let settle = self.idle_presence_at;
            tokio::select! {
                update = updates.recv() => match update {
                    Some(update) => self.apply_update(update).await,
                    None => return,
                },
                () = sleep_until(fades.unwrap_or_else(Instant::now)), if fades.is_some() => self.expire_typing().await,
                () = sleep_until(settle.unwrap_or_else(Instant::now)), if settle.is_some() => self.send_idle_presence().await,
            }
        }
    }

    async fn apply_update(&mut self, update: PresenceUpdate) {
        match update {
            PresenceUpdate::Connected => {
                self.typing.clear();
                self.send_idle_presence().await;
            }
            PresenceUpdate::Named => self.idle_presence_at = Some(Instant::now() + LIBRARY_SHOWS_US),
            PresenceUpdate::Typing { chat, shown: Typing::On } => {
                // Others see "typing…" only if we are online.
                if self.typing.is_empty() && self.presence == Presence::Hidden {
                    self.send_availability(true).await;
                }
                self.typing.insert(chat.clone(), Instant::now() + TYPING_FADES);
                self.send_typing(&chat, Typing::On).await;
            }
            PresenceUpdate::Typing { chat, shown: Typing::Off } => self.stop_typing(&chat).await,
            PresenceUpdate::Read { chat, sender, messages } => {
                self.send_read_receipt(&chat, &sender, &messages).await
            }
        }
    }

    /// Shows us as the owner wants it while nothing happens.
    async fn send_idle_presence(&mut self) {
        self.idle_presence_at = None;
        match self.presence {
            Presence::Hidden if self.typing.is_empty() => self.send_availability(false).await,
            Presence::Hidden => {}
            Presence::Shown => self.send_availability(true).await,
        }
    }

    async fn expire_typing(&mut self) {
        let now = Instant::now();
        let faded: Vec<ChatId> =
            self.typing.iter().filter(|(_, until)| **until <= now).map(|(chat, _)| chat.clone()).collect();
        for chat in faded {
            self.stop_typing(&chat).await;
        }
    }

    async fn stop_typing(&mut self, chat: &ChatId) {
        let typed = self.typing.remove(chat).is_some();
        self.send_typing(chat, Typing::Off).await;
        if typed && self.typing.is_empty() && self.presence == Presence::Hidden {
            self.send_availability(false).await;
        }
    }

    async fn send_typing(&self, chat: &ChatId, shown: Typing) {
        let Ok(jid) = chat.as_str().parse::<Jid>() else { return };
        let chatstate = self.client.chatstate();
        let done = match shown {
            Typing::On => timeout(LIMIT, chatstate.send_composing(&jid)).await.map(|done| done.is_ok()),
            Typing::Off => timeout(LIMIT, chatstate.send_paused(&jid)).await.map(|done| done.is_ok()),
        };
        log_failed_update("typing", done.unwrap_or(false));
    }

    async fn send_availability(&self, online: bool) {
        let presence = self.client.presence();
        let done = if online {
            timeout(LIMIT, presence.set_available()).await.map(|done| done.is_ok())
        } else {
            timeout(LIMIT, presence.set_unavailable()).await.map(|done| done.is_ok())
        };
        log_failed_update("presence", done.unwrap_or(false));
    }

    async fn send_read_receipt(&self, chat: &ChatId, sender: &SenderId, messages: &[MessageId]) {
        let (Ok(jid), Ok(sender)) = (chat.as_str().parse::<Jid>(), sender.as_str().parse::<Jid>()) else {
            return;
        };
        let author = chat.is_whatsapp_group().then_some(&sender);
        let ids: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let done = timeout(LIMIT, self.client.mark_as_read(&jid, author, &ids)).await;
        log_failed_update("read receipt", done.is_ok_and(|done| done.is_ok()));
    }
}

fn log_failed_update(what: &str, shown: bool) {
    if !shown {
        tracing::debug!("Failed to show {what}");
    }
}
