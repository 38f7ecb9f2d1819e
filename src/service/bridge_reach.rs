//! What the bridge of a run can reach.

use crate::types::ChatId;

/// Which chats the bridge of this run can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeReach {
    /// All of WhatsApp's.
    All,
    /// Only this one, which is not WhatsApp's. Replies to others stay in the outbox, untried.
    Only(ChatId),
    /// No chat: the install has no WhatsApp.
    Nothing,
}
