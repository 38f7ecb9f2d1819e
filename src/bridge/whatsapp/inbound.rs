//! From WhatsApp's messages to events. Pure: knows the linked account, and asks nobody.

use jiff::Timestamp;
use whatsapp_rust::prelude::{Jid, MessageInfo, wa};
use whatsapp_rust::types::events::UnavailableType;
use whatsapp_rust::types::message::{EditAttribute, MessageCategory};
use whatsapp_rust::wacore_binary::JidExt as _;
use whatsapp_rust::wacore_binary::Server;

use super::contents::{self, MessageContent};
use super::wording::{clean_name, truncate_to_bytes};
use crate::router::contains_trigger;
use crate::types::{
    ChatId, ChatNote, Edit, Event, Forwarded, IncomingMessage, Mention, MessageId, Quote, Reaction, SenderId,
};

use wa::message::protocol_message::Type;

/// Most mentions of one message that are looked at: a WhatsApp group has 1024 members at most.
const MENTIONS_MAX: usize = 1024;
/// Most bytes of an id that is kept; WhatsApp's have 32.
const ID_MAX: usize = 128;
/// From so many chats on WhatsApp shows "Forwarded many times".
const FORWARDED_MANY: u32 = 5;
/// Most bytes of a reaction: the longest emoji has 35.
const EMOJI_MAX: usize = 64;

/// The linked account, by both of its names.
#[derive(Clone, Debug, Default)]
pub struct OwnAccount {
    /// Without device.
    pub phone: Option<Jid>,
    /// Without device.
    pub lid: Option<Jid>,
    pub name: String,
}

impl OwnAccount {
    pub fn is_own_jid(&self, jid: &Jid) -> bool {
        let jid = normalize_jid(jid);
        [&self.phone, &self.lid].into_iter().flatten().any(|me| normalize_jid(me) == jid)
    }

    /// The chat as nanokimi knows it: the one with oneself has one name only.
    pub fn canonical_chat_id(&self, chat: &Jid) -> ChatId {
        match &self.phone {
            Some(phone) if self.is_own_jid(chat) => self::to_chat_id(phone),
            Some(_) | None => self::to_chat_id(chat),
        }
    }

    fn is_mentioned(&self, text: &str, context: Option<&wa::ContextInfo>) -> bool {
        let listed = context.into_iter().flat_map(|context| context.mentioned_jid.iter().take(MENTIONS_MAX));
        let mut listed = listed.filter_map(|jid| jid.parse::<Jid>().ok());
        let names = [&self.phone, &self.lid];
        listed.any(|jid| self.is_own_jid(&jid))
            || names.into_iter().flatten().any(|me| contains_trigger(text, &me.user))
    }
}

/// The events of a message: which names are one person's, and what was said. `name_of` gives the name that a
/// sender has chosen.
pub fn build_message_events(
    me: &OwnAccount,
    name_of: &dyn Fn(&SenderId) -> Option<String>,
    info: &MessageInfo,
    message: &wa::Message,
) -> Vec<Event> {
    let source = &info.source;
    let chat = &source.chat;
    if is_non_chat_message(info) {
        return Vec::new();
    }
    let mut events = same_person_events(me, info);
    if !source.is_from_me && !source.is_group && !me.is_own_jid(chat) {
        let name = clean_name(&info.push_name);
        if !name.is_empty() {
            events.push(Event::Chat { id: me.canonical_chat_id(chat), name, members: None });
        }
    }
    let commented = contents::commented_message_key(message);
    events.extend(
        InboundEnvelope { me, name_of, info, commented }.build_event(contents::unwrap_message(message)),
    );
    events
}

/// What stands for a message of which WhatsApp only says that it is there, and that linked devices do not get
/// it.
pub fn build_unavailable_events(
    me: &OwnAccount,
    name_of: &dyn Fn(&SenderId) -> Option<String>,
    info: &MessageInfo,
    kind: UnavailableType,
) -> Vec<Event> {
    let text = match kind {
        UnavailableType::ViewOnce => contents::SEEN_ONCE,
        UnavailableType::Hosted | UnavailableType::Bot => contents::ONLY_THE_PHONE,
        // The library asks the phone for it.
        UnavailableType::Unknown => return Vec::new(),
    };
    let message = wa::Message { conversation: Some(text.to_owned()), ..Default::default() };
    build_message_events(me, name_of, info, &message)
}

/// Whether a message belongs to no chat between people.
pub fn is_non_chat_message(info: &MessageInfo) -> bool {
    let chat = &info.source.chat;
    info.category == MessageCategory::Peer
        || chat.is_status_broadcast()
        || chat.is_broadcast_list()
        || chat.is_newsletter()
        || info.id.len() > ID_MAX
}

/// A message's envelope, with what is known about it.
pub struct InboundEnvelope<'a> {
    pub me: &'a OwnAccount,
    pub name_of: &'a dyn Fn(&SenderId) -> Option<String>,
    pub info: &'a MessageInfo,
    /// The message that it comments on, if it is a comment.
    pub commented: Option<&'a wa::MessageKey>,
}

impl InboundEnvelope<'_> {
    fn build_event(&self, message: &wa::Message) -> Option<Event> {
        if let Some(protocol) = message.protocol_message.as_option() {
            return self.build_change_event(protocol);
        }
        if let Some(reaction) = message.reaction_message.as_option() {
            let target = parse_message_id(reaction.key.as_option()?.id.as_deref())?;
            let emoji = truncate_to_bytes(reaction.text.as_deref().unwrap_or_default(), EMOJI_MAX);
            return Some(Event::Reacted(Reaction {
                chat: self.chat_id(),
                id: MessageId::new(&self.info.id),
                sender: self.sender_id(),
                sender_name: self.sender_name(),
                target,
                emoji,
                sent_at: self.sent_at(),
            }));
        }
        if let MessageContent::Done { text, to } = contents::read_content(message) {
            return Some(Event::Noted(ChatNote {
                chat: self.chat_id(),
                id: MessageId::new(&self.info.id),
                sender: self.sender_id(),
                sender_name: self.sender_name(),
                target: to.and_then(|key| parse_message_id(key.id.as_deref())),
                text,
                sent_at: self.sent_at(),
            }));
        }
        self.build_inbound(message).map(Event::Message)
    }

    fn build_change_event(&self, protocol: &wa::message::ProtocolMessage) -> Option<Event> {
        let key = protocol.key.as_option();
        let target = || parse_message_id(key?.id.as_deref());
        if protocol.r#type == Some(Type::REVOKE) {
            // An administrator takes back the message of another member, named by the key.
            let author = key.and_then(|key| key.participant.as_deref()?.parse::<Jid>().ok());
            let sender = match author {
                Some(author) if self.info.edit == EditAttribute::AdminRevoke => to_sender_id(&author),
                Some(_) | None => self.sender_id(),
            };
            return Some(Event::Deleted { chat: self.chat_id(), sender, target: target()? });
        }
        if protocol.r#type == Some(Type::MESSAGE_EDIT) {
            let message =
                self.build_inbound(contents::unwrap_message(protocol.edited_message.as_option()?))?;
            return Some(Event::Edited(Edit { target: target()?, message }));
        }
        None
    }

    fn build_inbound(&self, message: &wa::Message) -> Option<IncomingMessage> {
        let MessageContent::Said { text, media } = contents::read_content(message) else { return None };
        let context = contents::find_context_info(message);
        let mention = if self.me.is_mentioned(&text, context) { Mention::Me } else { Mention::NotMe };
        let expires = context.and_then(|context| context.expiration).or(self.info.ephemeral_expiration);
        Some(IncomingMessage {
            chat: self.chat_id(),
            id: MessageId::new(&self.info.id),
            sender: self.sender_id(),
            sender_name: self.sender_name(),
            mention,
            forwarded: context.map_or(Forwarded::No, forwarded_level),
            quote: context.and_then(|context| self.build_quote(context)).or_else(|| self.comment_as_quote()),
            text,
            sent_at: self.sent_at(),
            media,
            expires_secs: expires.filter(|secs| *secs > 0),
        })
    }

    fn build_quote(&self, context: &wa::ContextInfo) -> Option<Quote> {
        let id = parse_message_id(context.stanza_id.as_deref())?;
        let author = context.participant.as_deref().and_then(|author| author.parse::<Jid>().ok());
        let sender_name = author.as_ref().map(|author| self.display_name_of(author)).unwrap_or_default();
        let quoted = context.quoted_message.as_option().map(contents::read_quoted_content);
        let (text, media) = quoted.unwrap_or_default();
        Some(Quote { id, sender: author.as_ref().map(to_sender_id), sender_name, text, media })
    }

    /// A comment answers what it is on.
    fn comment_as_quote(&self) -> Option<Quote> {
        let id = parse_message_id(self.commented?.id.as_deref())?;
        Some(Quote { id, sender: None, sender_name: String::new(), text: String::new(), media: None })
    }

    pub fn chat_id(&self) -> ChatId {
        self.me.canonical_chat_id(&self.info.source.chat)
    }

    pub fn sender_id(&self) -> SenderId {
        to_sender_id(&self.info.source.sender)
    }

    pub fn sender_name(&self) -> String {
        let name = clean_name(&self.info.push_name);
        if name.is_empty() { self.display_name_of(&self.info.source.sender) } else { name }
    }

    /// The name that somebody has chosen, else their number.
    fn display_name_of(&self, jid: &Jid) -> String {
        let known = || (self.name_of)(&to_sender_id(jid)).filter(|name| !name.is_empty());
        if self.me.is_own_jid(jid) && !self.me.name.is_empty() {
            return self.me.name.clone();
        }
        known().unwrap_or_else(|| clean_name(&jid.user))
    }

    pub fn sent_at(&self) -> Timestamp {
        Timestamp::from_second(self.info.timestamp.timestamp()).unwrap_or(Timestamp::UNIX_EPOCH)
    }
}

/// Whether a message was passed on from another chat, and how often.
fn forwarded_level(context: &wa::ContextInfo) -> Forwarded {
    match context.forwarding_score.unwrap_or_default() {
        FORWARDED_MANY.. => Forwarded::Many,
        score if score > 0 || context.is_forwarded == Some(true) => Forwarded::Once,
        _ => Forwarded::No,
    }
}

/// The pairs of names that the envelope says belong together.
fn same_person_events(me: &OwnAccount, info: &MessageInfo) -> Vec<Event> {
    let source = &info.source;
    let mut pairs = vec![(&source.sender, source.sender_alt.as_ref())];
    if !source.is_group && !me.is_own_jid(&source.chat) {
        // The chat is named after the other person: the sender, or the person that another device of ours
        // wrote to.
        let other = if source.is_from_me { source.recipient_alt.as_ref() } else { Some(&source.sender) };
        pairs.push((&source.chat, other));
        pairs.push((&source.chat, info.peer_recipient_pn.as_ref().filter(|_| source.is_from_me)));
    }
    let pairs = pairs.into_iter().filter_map(|(one, other)| Some((one, other?)));
    pairs.filter_map(|(one, other)| same_person_event(one, other)).collect()
}

/// `None` unless these are a phone number and a LID.
pub fn same_person_event(one: &Jid, other: &Jid) -> Option<Event> {
    let two_names = matches!(
        (normalize_jid(one).server, normalize_jid(other).server),
        (Server::Pn, Server::Lid) | (Server::Lid, Server::Pn)
    );
    two_names.then(|| Event::SamePerson { one: to_sender_id(one), other: to_sender_id(other) })
}

/// The one name of a person's number, or of their LID: the same for all their devices, also if a business
/// lets others run one (`@hosted`, `@hosted.lid`), and however it is written (WhatsApp once wrote `@c.us`).
fn normalize_jid(jid: &Jid) -> Jid {
    let server = match jid.server {
        Server::Hosted | Server::Legacy => Server::Pn,
        Server::HostedLid => Server::Lid,
        Server::Pn
        | Server::Lid
        | Server::Group
        | Server::Broadcast
        | Server::Newsletter
        | Server::Messenger
        | Server::Interop
        | Server::Bot
        | Server::Call => jid.server,
    };
    Jid { server, ..jid.to_non_ad() }
}

pub fn to_chat_id(jid: &Jid) -> ChatId {
    ChatId::new(normalize_jid(jid).to_non_ad_string())
}

pub fn to_sender_id(jid: &Jid) -> SenderId {
    SenderId::new(normalize_jid(jid).to_non_ad_string())
}

fn parse_message_id(id: Option<&str>) -> Option<MessageId> {
    id.filter(|id| !id.is_empty() && id.len() <= ID_MAX).map(MessageId::new)
}
