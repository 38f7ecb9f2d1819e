//! Chats at the terminal: the ids that people type, and the titles that they read.

use anyhow::{Result, bail};

use super::auth::phone;
use super::ui;
use crate::store::KnownChat;
use crate::types::{ChatId, GroupName, LinkedAccount};
use crate::writing::normalize_typed_text;

/// What the owner's channel is called, unless they choose another name.
pub const MAIN: &str = "main";
/// The servers of WhatsApp's ids: of numbers, of the ids that hide them, of groups.
const SERVERS: [&str; 3] = ["s.whatsapp.net", "lid", "g.us"];

/// The chat of a group that only this terminal reaches.
pub fn console_chat_id(name: &GroupName) -> String {
    format!("console:{name}")
}

/// The id of a chat, which is not its name. A number may stand with the server that WhatsApp once had for it.
pub fn parse_chat_id(typed: &str) -> Result<ChatId> {
    let id = normalize_typed_text(typed);
    let id = id.strip_suffix("@c.us").map_or(id.clone(), |number| format!("{number}@s.whatsapp.net"));
    let is_id = id.split_once('@').is_some_and(|(user, server)| {
        let digits = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_digit());
        // Old groups are called after their founder's number and the time.
        let user_is_one = if server == "g.us" { user.split('-').all(digits) } else { digits(user) };
        user_is_one && SERVERS.contains(&server)
    });
    if !is_id {
        bail!(
            "{typed:?} is not the id of a chat, which looks like 34600111222@s.whatsapp.net or \
             120363041234567890@g.us; `nanokimi groups chats` shows them"
        );
    }
    Ok(ChatId::new(id))
}

/// A chat as people know it.
pub fn chat_title(chat: &KnownChat, account: Option<&LinkedAccount>) -> String {
    let own = account.is_some_and(|account| {
        let ids = [Some(&account.id), account.lid.as_ref()];
        ids.into_iter().flatten().any(|id| id.as_str() == chat.id.as_str())
    });
    if own {
        return "Message yourself".to_owned();
    }
    let name = match ui::sanitize_name(&chat.name) {
        name if name.is_empty() || name == chat.id.as_str() => phone::phone_number_from_id(chat.id.as_str()),
        name => name,
    };
    match chat.members {
        Some(1) => format!("{name} (1 member)"),
        Some(members) => format!("{name} ({members} members)"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SenderId;

    fn chat(id: &str, name: &str, members: Option<u32>) -> KnownChat {
        KnownChat { id: ChatId::new(id), name: name.to_owned(), members, registered: None }
    }

    #[test]
    fn chats_are_shown_as_people_know_them() {
        let chats = [
            chat("34600111222@s.whatsapp.net", "Ana", None),
            chat("1203630@g.us", "Family\u{1b}[2J", Some(12)),
            chat("1203631@g.us", "", Some(1)),
            chat("34600333444@s.whatsapp.net", "34600333444@s.whatsapp.net", None),
        ];
        let account = LinkedAccount {
            id: SenderId::new("34600111222@s.whatsapp.net"),
            lid: None,
            name: "Ana".to_owned(),
        };
        let titles: Vec<String> = chats.iter().map(|chat| chat_title(chat, Some(&account))).collect();
        assert_eq!(
            titles,
            ["Message yourself", "Family[2J (12 members)", "1203631@g.us (1 member)", "+34600333444"]
        );
    }
}
