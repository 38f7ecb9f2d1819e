//! What a message says, whatever its kind, and what goes along with it. Pure, over protobufs that strangers
//! made: everything is bounded before it is kept.

use whatsapp_rust::prelude::wa;

use super::kinds::{Layer, UNREADABLE, parse_layer};
pub use super::kinds::{ONLY_THE_PHONE, SEEN_ONCE, find_context_info};
use super::wording::shorten_middle;
use crate::types::Media;

/// How deep wrappers are looked into; WhatsApp's clients make three at most.
const WRAPPERS_MAX: usize = 8;

/// What a message says.
#[derive(Clone, Debug, PartialEq)]
pub enum MessageContent<'m> {
    Said {
        text: String,
        media: Option<Media>,
    },
    /// Something was done that people see in the chat, to this message if it is to one.
    Done {
        text: String,
        to: Option<&'m wa::MessageKey>,
    },
    /// It only keeps the clients in step, or says nothing.
    Nothing,
}

/// The message inside of its wrappers: disappearing, to be seen once, sent by another device.
pub fn unwrap_message(message: &wa::Message) -> &wa::Message {
    let mut inner = message;
    for _ in 0..WRAPPERS_MAX {
        let Layer::Wraps(next) = parse_layer(inner) else { break };
        inner = next;
    }
    inner
}

/// The message that a comment is on, if there is a comment in the wrappers.
pub fn commented_message_key(message: &wa::Message) -> Option<&wa::MessageKey> {
    let mut inner = message;
    for _ in 0..WRAPPERS_MAX {
        if let Some(comment) = inner.comment_message.as_option() {
            return comment.target_message_key.as_option();
        }
        let Layer::Wraps(next) = parse_layer(inner) else { break };
        inner = next;
    }
    None
}

/// What the unwrapped message says.
pub fn read_content(message: &wa::Message) -> MessageContent<'_> {
    match parse_layer(message) {
        Layer::Said { text, media: None } if text.is_empty() => MessageContent::Nothing,
        Layer::Said { text, media } => MessageContent::Said { text: shorten_middle(&text), media },
        Layer::Done { text, to } => MessageContent::Done { text, to },
        // Deeper than any client wraps.
        Layer::Wraps(_) => MessageContent::Said { text: UNREADABLE.to_owned(), media: None },
        Layer::InStep => MessageContent::Nothing,
    }
}

/// A quoted message: its words and its file.
pub fn read_quoted_content(message: &wa::Message) -> (String, Option<Media>) {
    match read_content(unwrap_message(message)) {
        MessageContent::Said { text, media } => (text, media),
        MessageContent::Done { text, .. } => (text, None),
        MessageContent::Nothing => (String::new(), None),
    }
}
