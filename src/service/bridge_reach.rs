//! What the bridge of a run can reach.

use crate::types::ChatId;

/// Which chats the bridge of this run can reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BridgeReach {
    /// All of WhatsApp's.
    All,
    /// Only this one, which is not WhatsApp's; replies to others stay in the outbox, untried.
    Only(ChatId),
    /// None: the install has no WhatsApp.
    Nothing,
}
