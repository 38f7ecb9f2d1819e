//! What intake was told in this run already: which names are one person's, and how chats are called. Each is
//! told once, and again when it has changed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::panics::lock_unpoisoned;
use crate::types::{ChatId, Event, MessageId, SenderId};

/// Most pairs, and most names, that are remembered: ten large groups. Beyond that they are told once more.
const REMEMBERED_MAX: usize = 10_000;

/// Shared by all that tell intake something.
#[derive(Clone, Debug, Default)]
pub struct Announced(Arc<Mutex<AnnouncedFacts>>);

#[derive(Debug, Default)]
struct AnnouncedFacts {
    people: HashSet<(SenderId, SenderId)>,
    chats: HashMap<ChatId, (String, Option<u32>)>,
    /// What could not be read.
    unread: HashSet<(ChatId, MessageId)>,
    /// How the senders of messages call themselves.
    names: HashMap<SenderId, String>,
}

impl Announced {
    /// Leaves out what intake knows.
    pub fn retain_new_events(&self, mut events: Vec<Event>) -> Vec<Event> {
        let facts = self.lock_facts();
        events.retain(|event| match event {
            Event::SamePerson { one, other } => {
                !facts.people.contains(&(one.clone(), other.clone()))
                    && !facts.people.contains(&(other.clone(), one.clone()))
            }
            Event::Chat { id, name, members } => facts.chats.get(id) != Some(&(name.clone(), *members)),
            Event::Message(_)
            | Event::Edited(_)
            | Event::Deleted { .. }
            | Event::Reacted(_)
            | Event::Noted(_)
            | Event::Account(_)
            | Event::Answered { .. }
            | Event::Unread(_)
            | Event::ReadAfterAll { .. }
            | Event::Receipt(_)
            | Event::PhoneMissed { .. }
            | Event::IdentityChanged { .. }
            | Event::Typing { .. } => true,
        });
        events
    }

    /// Intake has these on disk.
    pub fn record_announced(&self, events: &[Event]) {
        let mut facts = self.lock_facts();
        for event in events {
            match event {
                Event::SamePerson { one, other } => {
                    if facts.people.len() >= REMEMBERED_MAX {
                        facts.people.clear();
                    }
                    facts.people.insert((one.clone(), other.clone()));
                }
                Event::Chat { id, name, members } => {
                    if facts.chats.len() >= REMEMBERED_MAX {
                        facts.chats.clear();
                    }
                    facts.chats.insert(id.clone(), (name.clone(), *members));
                }
                Event::Message(message) => {
                    if facts.names.len() >= REMEMBERED_MAX {
                        facts.names.clear();
                    }
                    facts.names.insert(message.sender.clone(), message.sender_name.clone());
                }
                Event::Unread(unread) => {
                    if facts.unread.len() >= REMEMBERED_MAX {
                        facts.unread.clear();
                    }
                    facts.unread.insert((unread.chat.clone(), unread.id.clone()));
                }
                Event::ReadAfterAll { chat, id } => {
                    facts.unread.remove(&(chat.clone(), id.clone()));
                }
                Event::Edited(_)
                | Event::Deleted { .. }
                | Event::Reacted(_)
                | Event::Noted(_)
                | Event::Account(_)
                | Event::Answered { .. }
                | Event::Receipt(_)
                | Event::PhoneMissed { .. }
                | Event::IdentityChanged { .. }
                | Event::Typing { .. } => {}
            }
        }
    }

    /// Whether intake was told that this message could not be read.
    pub fn is_unread(&self, chat: &ChatId, id: &MessageId) -> bool {
        self.lock_facts().unread.contains(&(chat.clone(), id.clone()))
    }

    pub fn sender_name_of(&self, sender: &SenderId) -> Option<String> {
        self.lock_facts().names.get(sender).cloned()
    }

    /// Whether intake was told how this chat is called.
    pub fn knows_chat_name(&self, chat: &ChatId) -> bool {
        self.lock_facts().chats.contains_key(chat)
    }

    fn lock_facts(&self) -> MutexGuard<'_, AnnouncedFacts> {
        lock_unpoisoned(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(one: &str, other: &str) -> Event {
        Event::SamePerson { one: SenderId::new(one), other: SenderId::new(other) }
    }

    fn chat(name: &str, members: Option<u32>) -> Event {
        Event::Chat { id: ChatId::new("family@g.us"), name: name.to_owned(), members }
    }

    #[test]
    fn each_is_told_once_and_again_when_it_changed() {
        let announced = Announced::default();
        let first = vec![pair("1@s.whatsapp.net", "9@lid"), chat("Family", Some(3))];
        assert_eq!(announced.retain_new_events(first.clone()), first);
        assert_eq!(announced.retain_new_events(first.clone()), first, "nobody has stored it yet");
        announced.record_announced(&first);
        assert_eq!(announced.retain_new_events(first), []);
        assert_eq!(announced.retain_new_events(vec![pair("9@lid", "1@s.whatsapp.net")]), []);
        let renamed = vec![chat("The family", Some(3))];
        assert_eq!(announced.retain_new_events(renamed.clone()), renamed);
    }
}
