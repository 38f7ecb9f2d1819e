//! The settings that sessions and the service obey, resolved once.

use std::time::Duration;

use jiff::tz::TimeZone;

use super::machine::TimeLimits;
use crate::container::spec::ContainerLimits;
use crate::folders::AllowlistPlace;
use crate::store::Rules;
use crate::types::{DirectChatPolicy, Engine, Group, InstallId, Lang, OfferedModels, TranscriptionServer};

#[derive(Clone, Debug)]
pub struct Settings {
    pub install: InstallId,
    /// The word that wakes Kai in groups without a trigger of their own; also the name in notices.
    pub assistant: String,
    /// In front of every reply: `Kai: `, or nothing if Kai has its own number.
    pub reply_prefix: String,
    pub lang: Lang,
    pub zone: TimeZone,
    /// The engine of groups that have not chosen one.
    pub engine: Engine,
    pub container_limits: ContainerLimits,
    /// The model's name for the engine, if it is not the one in `config.toml`.
    pub model: Option<String>,
    pub device_id: String,
    pub time_limits: TimeLimits,
    /// What called Kai longer ago than this, while nanokimi was away, is only context.
    pub answer_within: Duration,
    /// Which direct chats are served besides the main channel.
    pub direct_chats: DirectChatPolicy,
    /// Larger files are neither fetched from WhatsApp nor sent to it.
    pub media_limit_bytes: u64,
    /// The most containers that run at once.
    pub max_agents: usize,
    /// How much memory all containers may hold together.
    pub agents_memory_bytes: u64,
    /// Where the allowlist of folders that may be lent to agents is; `None` lends none.
    pub allowlist: Option<AllowlistPlace>,
    /// What turns voice notes into words.
    pub transcription: Option<TranscriptionServer>,
}

impl Settings {
    /// The engine of a group: its own choice, else the install's.
    pub fn engine_for_group(&self, group: &Group) -> Engine {
        group.engine_or(self.engine)
    }

    /// The model of a group, if it is not the one in `config.toml`.
    pub fn model_for_group<'a>(&'a self, group: &'a Group) -> Option<&'a str> {
        group.model.as_deref().or(self.model.as_deref())
    }

    /// The part that the store goes by.
    pub fn store_rules(&self) -> Rules {
        Rules {
            assistant: self.assistant.clone(),
            answer_within: self.answer_within,
            lang: self.lang,
            reply_prefix: self.reply_prefix.clone(),
            zone: self.zone.clone(),
            engine: self.engine,
            // Intake adds them, which answers commands.
            models: OfferedModels::default(),
            direct_chats: self.direct_chats,
        }
    }

    /// A sentence of nanokimi's own as it stands in a chat.
    pub fn with_reply_prefix(&self, sentence: String) -> String {
        format!("{}{sentence}", self.reply_prefix)
    }
}
