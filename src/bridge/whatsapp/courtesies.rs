//! What people see of us besides messages: "typing…", "online", that a message was read. One after the other, beside
//! the messages, and nothing of it matters enough to be tried again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use whatsapp_rust::prelude::{Client, Jid};

use super::Presence;
use crate::bridge::Typing;
use crate::types::{ChatId, MessageId, SenderId};

/// Courtesies that wait for the network; what is more is left out.
const WAITING_MAX: usize = 64;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(10);
/// How long "typing…" is shown without being told again: a session tells it every ten seconds.
const TYPING_FADES: Duration = Duration::from_secs(30);

/// How long the library may take to show us online after the account got its name.
const LIBRARY_SHOWS_US: Duration = Duration::from_secs(5);

/// One of them.
#[derive(Debug)]
pub enum Courtesy {
    /// The connection is new.
    Arrived,
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

/// Where to hand them in. They are carried out until this is dropped.
pub struct Courtesies(mpsc::Sender<Courtesy>);

impl Courtesies {
    pub fn begin(client: Arc<Client>, presence: Presence) -> Self {
        let (sender, courtesies) = mpsc::channel(WAITING_MAX);
        tokio::spawn(Manners { client, presence, typing: HashMap::new(), settle: None }.run(courtesies));
        Self(sender)
    }

    pub fn hand_in(&self, courtesy: Courtesy) {
        if self.0.try_send(courtesy).is_err() {
            tracing::debug!("Left a courtesy out: too many are waiting");
        }
    }
}

struct Manners {
    client: Arc<Client>,
    presence: Presence,
    /// Where we are typing, and until when that is shown.
    typing: HashMap<ChatId, Instant>,
    /// When to say once more how we want to be seen.
    settle: Option<Instant>,
}

impl Manners {
    async fn run(mut self, mut courtesies: mpsc::Receiver<Courtesy>) {
        loop {
            let fades = self.typing.values().min().copied();
            let settle = self.settle;
            tokio::select! {
                courtesy = courtesies.recv() => match courtesy {
                    Some(courtesy) => self.show(courtesy).await,
                    None => return,
                },
                () = sleep_until(fades.unwrap_or_else(Instant::now)), if fades.is_some() => self.fade().await,
                () = sleep_until(settle.unwrap_or_else(Instant::now)), if settle.is_some() => self.settle().await,
            }
        }
    }

    async fn show(&mut self, courtesy: Courtesy) {
        match courtesy {
            Courtesy::Arrived => {
                self.typing.clear();
                self.settle().await;
            }
            Courtesy::Named => self.settle = Some(Instant::now() + LIBRARY_SHOWS_US),
            Courtesy::Typing { chat, shown: Typing::On } => {
                // Others see "typing…" only of somebody who is online.
                if self.typing.is_empty() && self.presence == Presence::Hidden {
                    self.go(Online::Yes).await;
                }
                self.typing.insert(chat.clone(), Instant::now() + TYPING_FADES);
                self.type_in(&chat, Typing::On).await;
            }
            Courtesy::Typing { chat, shown: Typing::Off } => self.stop_typing(&chat).await,
            Courtesy::Read { chat, sender, messages } => self.read(&chat, &sender, &messages).await,
        }
    }

    /// Is seen as the owner wants it while nothing happens.
    async fn settle(&mut self) {
        self.settle = None;
        match self.presence {
            Presence::Hidden if self.typing.is_empty() => self.go(Online::No).await,
            Presence::Hidden => {}
            Presence::Shown => self.go(Online::Yes).await,
        }
    }

    async fn fade(&mut self) {
        let now = Instant::now();
        let faded: Vec<ChatId> =
            self.typing.iter().filter(|(_, until)| **until <= now).map(|(chat, _)| chat.clone()).collect();
        for chat in faded {
            self.stop_typing(&chat).await;
        }
    }

    async fn stop_typing(&mut self, chat: &ChatId) {
        let typed = self.typing.remove(chat).is_some();
        self.type_in(chat, Typing::Off).await;
        if typed && self.typing.is_empty() && self.presence == Presence::Hidden {
            self.go(Online::No).await;
        }
    }

    async fn type_in(&self, chat: &ChatId, shown: Typing) {
        let Ok(jid) = chat.as_str().parse::<Jid>() else { return };
        let chatstate = self.client.chatstate();
        let done = match shown {
            Typing::On => timeout(LIMIT, chatstate.send_composing(&jid)).await.map(|done| done.is_ok()),
            Typing::Off => timeout(LIMIT, chatstate.send_paused(&jid)).await.map(|done| done.is_ok()),
        };
        note("typing", done.unwrap_or(false));
    }

    async fn go(&self, online: Online) {
        let presence = self.client.presence();
        let done = match online {
            Online::Yes => timeout(LIMIT, presence.set_available()).await.map(|done| done.is_ok()),
            Online::No => timeout(LIMIT, presence.set_unavailable()).await.map(|done| done.is_ok()),
        };
        note("presence", done.unwrap_or(false));
    }

    async fn read(&self, chat: &ChatId, sender: &SenderId, messages: &[MessageId]) {
        let (Ok(jid), Ok(sender)) = (chat.as_str().parse::<Jid>(), sender.as_str().parse::<Jid>()) else {
            return;
        };
        let author = chat.is_whatsapp_group().then_some(&sender);
        let ids: Vec<&str> = messages.iter().map(MessageId::as_str).collect();
        let done = timeout(LIMIT, self.client.mark_as_read(&jid, author, &ids)).await;
        note("read receipt", done.is_ok_and(|done| done.is_ok()));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Online {
    Yes,
    No,
}

fn note(what: &str, shown: bool) {
    if !shown {
        tracing::debug!("Failed to show {what}");
    }
}
