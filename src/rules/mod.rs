//! What becomes of messages, turns and replies: decisions as functions of what is known and of the time.
//!
//! `store` reads what is known, asks here, and applies what comes back, all in one transaction. Nothing here
//! knows a database, and nothing looks at a clock.
//!
//! | | |
//! |---|---|
//! | [`inbox`] | a message, and what its author does to it later |
//! | [`absence`] | what was asked too long ago |
//! | [`delivery`] | a reply, after an attempt to send it and after WhatsApp's answer |
//! | [`turns`] | the messages of a turn that has ended |
//! | [`outage`] | what keeps all chats from being answered, and who is told of it |

pub mod absence;
pub mod delivery;
pub mod inbox;
pub mod outage;
pub mod turns;

use std::time::Duration;

use crate::types::Lang;

/// What decides about messages, and how nanokimi itself speaks in chats.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The trigger of groups that have none of their own, and what Kai is called.
    pub assistant: String,
    /// What called Kai longer ago than this is only context.
    pub answer_within: Duration,
    pub lang: Lang,
    /// In front of everything that is said: `Kai: `, or nothing.
    pub reply_prefix: String,
}

impl Rules {
    /// A notice as it stands in a chat.
    pub fn prefix_notice(&self, sentence: &str) -> String {
        format!("{}{sentence}", self.reply_prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn rules() -> Rules {
        Rules {
            assistant: "Kai".to_owned(),
            answer_within: Duration::from_secs(24 * 60 * 60),
            lang: Lang::En,
            reply_prefix: "Kai: ".to_owned(),
        }
    }
}
