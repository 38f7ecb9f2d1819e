//! What happens with messages, turns and replies: decisions as functions of what is known and of the time.
//!
//! `store` reads what is known, asks here, and applies the result, all in one transaction. No code here knows
//! a database or looks at a clock.
//!
//! | | |
//! |---|---|
//! | [`inbox`] | a message, and the changes that its author makes later |
//! | [`absence`] | what was asked too long ago |
//! | [`delivery`] | a reply, after an attempt to send it and after WhatsApp's answer |
//! | [`tasks`] | a task, what is due of it, and the end of a run |
//! | [`approvals`] | what only the owner can allow or answer |
//! | [`refusals`] | what people hear whose calls are refused |
//! | [`turns`] | the messages of a turn that has ended |
//! | [`extra_folders`] | which folders of the host a container may see |
//! | [`outage`] | a trouble of all chats, and the people who are told of it |
//! | [`accounts`] | which of several Kimi accounts answers |

pub mod absence;
pub mod accounts;
pub mod approvals;
pub mod delivery;
pub mod extra_folders;
pub mod inbox;
pub mod outage;
pub mod refusals;
pub mod tasks;
pub mod turns;

use std::time::Duration;

use jiff::tz::TimeZone;

use crate::types::{DirectChatPolicy, Engine, Lang, OfferedModels};

/// The values that decide about messages, and how nanokimi itself speaks in chats.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The trigger of groups that have no trigger of their own, and Kai's name.
    pub assistant: String,
    /// A call that is older than this is only context.
    pub answer_within: Duration,
    pub lang: Lang,
    /// The text in front of everything that is said: `Kai: `, or nothing.
    pub reply_prefix: String,
    /// Where people's days begin.
    pub zone: TimeZone,
    /// The engine of groups that have chosen none.
    pub engine: Engine,
    pub models: OfferedModels,
    /// Which direct chats are served.
    pub direct_chats: DirectChatPolicy,
}

impl Rules {
    /// A notice as the chat shows it.
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
            zone: TimeZone::UTC,
            engine: Engine::KimiCode,
            models: OfferedModels::default(),
            direct_chats: DirectChatPolicy::Listed,
        }
    }
}
