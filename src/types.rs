//! The nouns of nanokimi as values: ids that are made at the border, and the small enums that all layers use.
//!
//! Owns no behaviour beyond parsing and printing. Never performs I/O.

mod accounts;
mod engine;
mod folders;
mod gateway;
mod messages;
mod prompt;
mod room;
mod senders;
mod tasks;
mod transcription;
mod usage_chart;
mod web;

use std::fmt;

use anyhow::{Result, bail};

pub use accounts::{AccountId, AccountName, Cooldown, CooldownCause, KimiHosts};
pub use engine::{Engine, EngineChoice, OfferedModels};
pub use folders::{ExtraFolder, MountAccess};
pub use gateway::{ClientIdentity, GatewayAddress, GatewayKey, KeyName};
pub use messages::{
    Answer, Author, ChatNote, DeviceKind, Edit, Event, Forwarded, IncomingMessage, LinkState, LinkedAccount,
    Media, MediaKind, Mention, Pairing, PairingFailure, Quote, Reaction, Receipt, ReceiptKind,
    UnreadableMessage,
};
pub use prompt::{
    FileLocation, LastAnswer, MentionablePerson, PromptAuthor, PromptFile, PromptMessage, PromptQuote,
};
pub use room::DiskSpace;
pub use senders::{DirectChatPolicy, OthersPolicy, RefusalPolicy, SenderPolicy, SenderRule};
pub use tasks::{PauseReason, RunReason, Task, TaskContext, TaskRun, TaskRunState, TaskState};
pub use transcription::{TranscriptionServer, VoiceWords};
pub use usage_chart::{ChartDay, UsageChart};
pub use web::{HostName, WebPolicy, WebTraffic};

/// Longest folder name of a group, in characters: `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$`.
const GROUP_NAME_MAX: usize = 64;

/// Makes an id newtype over `String` that cannot be mixed up with another one.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            pub fn new(value: impl Into<String>) -> Self {
                Self(value.into())
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id!(
    /// A chat as the bridge names it: a WhatsApp JID without device suffix, or `console:<group>`.
    ChatId
);

impl ChatId {
    /// A chat with several people, as WhatsApp marks it.
    pub fn is_whatsapp_group(&self) -> bool {
        self.0.ends_with("@g.us")
    }

    /// A chat with one person, by their phone number or by the name that hides it.
    pub fn is_direct_whatsapp_chat(&self) -> bool {
        self.0.ends_with("@s.whatsapp.net") || self.0.ends_with("@lid")
    }

    /// A chat that lives in a terminal, not on WhatsApp.
    pub fn is_console_chat(&self) -> bool {
        self.0.starts_with("console:")
    }
}

id!(
    /// A message's id in its chat. The sender chooses it; for our replies the outbox does.
    MessageId
);
id!(
    /// The person who wrote a message, as the bridge names people: a JID without device suffix, or
    /// `console:you`.
    SenderId
);
id!(
    /// This install. It labels its containers, so that two installs on one Docker never touch each other's.
    InstallId
);
id!(
    /// One run of one container, new at every launch. It is a label, and part of the container's name.
    RunId
);

/// A group's folder name: its name on disk, on the command line and in container names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupName(String);

impl GroupName {
    /// Accepts `^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$` except the reserved `global`.
    ///
    /// # Errors
    /// Says which rule the name breaks, in words for the person that typed it.
    pub fn parse(name: &str) -> Result<Self> {
        if name.eq_ignore_ascii_case("global") {
            bail!("\"global\" is reserved for what all groups share; choose another name");
        }
        let shape = name.len() <= GROUP_NAME_MAX
            && name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
        if !shape {
            bail!(
                "{name:?} is not a group name; use 1 to {GROUP_NAME_MAX} letters, digits, \"-\" or \"_\", \
                 starting with a letter or digit"
            );
        }
        Ok(Self(name.to_owned()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for GroupName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Row id of a turn: one prompt to a group's agent, with everything that is steered into it, up to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TurnId(pub i64);

/// What an owner has told nanokimi about a chat: its folder, when Kai listens there, and how its agent works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub name: GroupName,
    pub chat: ChatId,
    pub role: Role,
    /// The word after `@` that wakes Kai here. `None`: the assistant's name.
    pub trigger: Option<String>,
    /// The engine of its agent. `None`: the install's engine.
    pub engine: Option<EngineChoice>,
    /// The model that it thinks with, by the name that Kimi knows. `None`: the install's model.
    pub model: Option<String>,
    pub web: WebPolicy,
    /// The most tokens, of prompts and answers together, that a day's turns may use. `None`: no limit.
    pub daily_tokens: Option<u64>,
    pub forwards: ForwardPolicy,
    pub senders: SenderRule,
    /// The most calls of one person, the owner left out, that are answered in an hour. `None`: no limit.
    pub turns_per_hour: Option<u32>,
    /// The most tokens that one turn may use. `None`: no limit.
    pub turn_tokens: Option<u64>,
    /// Folders of the host that its agent may see, if the allowlist lets it.
    pub folders: Vec<ExtraFolder>,
}

impl Group {
    /// A group whose owner has chosen nothing more.
    pub fn new(name: GroupName, chat: ChatId, role: Role) -> Self {
        Self {
            name,
            chat,
            role,
            trigger: None,
            engine: None,
            model: None,
            web: WebPolicy::default(),
            daily_tokens: None,
            forwards: ForwardPolicy::default(),
            senders: SenderRule::default(),
            turns_per_hour: None,
            turn_tokens: None,
            folders: Vec::new(),
        }
    }

    /// The engine of its agent: its own choice, else the install's. Another version may have written a choice
    /// that this nanokimi does not know; that counts as no choice.
    pub fn engine_or(&self, usual: Engine) -> Engine {
        self.engine.as_ref().and_then(EngineChoice::engine).unwrap_or(usual)
    }

    /// The word that wakes Kai here; `assistant` is the word of groups that have no word of their own.
    pub fn trigger_or<'a>(&'a self, assistant: &'a str) -> &'a str {
        self.trigger.as_deref().unwrap_or(assistant)
    }
}

/// What happens with a message that names Kai and is passed on from another chat.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ForwardPolicy {
    /// It waits for the next message that calls Kai: its author did not write it to Kai.
    #[default]
    Told,
    /// It calls Kai like any other message.
    Call,
}

/// Whether a group is the owner's own channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The owner's channel: every message is for Kai.
    Main,
    /// Any other chat: a message is for Kai if it triggers.
    Member,
}

/// Tokens of one or more requests to the model, as the Kimi API counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenUsage {
    /// All prompt tokens, the cached ones included.
    pub input: u64,
    /// The part of `input` that the server had cached.
    pub cached: u64,
    pub output: u64,
}

impl TokenUsage {
    /// What counts towards a daily limit: everything that the model read and wrote, cached or not.
    pub fn counted_tokens(self) -> u64 {
        self.input.saturating_add(self.output)
    }
}

impl std::ops::AddAssign for TokenUsage {
    fn add_assign(&mut self, more: Self) {
        self.input += more.input;
        self.cached += more.cached;
        self.output += more.output;
    }
}

/// The language of chat notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lang {
    En,
    Es,
}

/// A string that never appears in a log or an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: impl Into<String>) -> Self {
        Self(value.into())
    }

    /// The secret itself: only for the request header or the file that needs it.
    pub fn expose_secret(&self) -> &str {
        &self.0
    }

    /// The text without this secret. If the text was cut and ends with a beginning of the secret, that goes
    /// too.
    pub fn redact_from(&self, text: &str) -> String {
        let Self(secret) = self;
        if secret.is_empty() {
            return text.to_owned();
        }
        let text = text.replace(secret.as_str(), "…");
        let is_beginning =
            |length: &usize| secret.get(..*length).is_some_and(|beginning| text.ends_with(beginning));
        match (SECRETS_BEGINNING_MIN..secret.len()).rev().find(is_beginning) {
            Some(length) => format!("{}…", &text[..text.len() - length]),
            None => text,
        }
    }
}

/// Fewer bytes of a secret than these tell nothing of it. They may stand anywhere.
const SECRETS_BEGINNING_MIN: usize = 6;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How the egress proxy identifies the owner to the Kimi API, with the login as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// A key of the Moonshot platform. It is never renewed.
    ApiKey(Secret),
    /// The access token of a Kimi login. If it is refused, its user reports that and gets another one.
    Login(Secret),
    /// There is no usable login; the text says why and what to do.
    Missing(String),
}

/// Why a turn got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub trouble: Trouble,
    /// The words of the part that failed, for the log. Never shown in a chat.
    pub detail: String,
}

impl Failure {
    pub fn new(trouble: Trouble, detail: impl Into<String>) -> Self {
        Self { trouble, detail: detail.into() }
    }
}

/// The causes that a person can remove, or must be able to tell apart. `notices` has the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Docker does not answer.
    NoDocker,
    /// The agent image is missing.
    NoImage,
    /// The disk is full.
    NoSpace,
    /// The agent of this chat has filled more of the disk than a chat may fill.
    DiskShare,
    /// The kernel has no more of a resource that it limits for each user, or this agent has used it up.
    SystemLimit,
    /// The container could not start, for any other reason.
    LaunchFailed,
    /// Before it was ready, the engine ended or printed something that is not its protocol.
    NeverReady,
    /// The engine ended in the middle of a turn.
    EngineDied,
    /// The engine printed something that is not its protocol.
    EngineGarbage,
    /// The turn took longer than `TURN_MINUTES`.
    TurnTooLong,
    /// No model is configured (wire -32001).
    NoModel,
    /// The model cannot take this input, such as an image (wire -32002).
    Unsupported,
    /// The login is missing, expired or refused (HTTP 401).
    NotLoggedIn,
    /// The Kimi API does not serve the program that asks (HTTP 403 with words about it): it does not list
    /// this engine, or no longer does.
    ClientRefused,
    /// Kimi has ended this account's access (HTTP 403 with words about it).
    AccountEnded,
    /// The account has no membership, or its membership cannot be verified (HTTP 402).
    NoMembership,
    /// The Kimi API refuses, and does not say if the reason is the account or the program (HTTP 403).
    Refused,
    /// Too many requests (HTTP 429).
    RateLimited,
    /// The quota of the plan or of the account is used up (HTTP 402, 403 and 429 with words about it).
    QuotaUsedUp,
    /// The Kimi API does not offer this model (HTTP 404).
    ModelRefused,
    /// The request is larger than the egress proxy or the API accepts (HTTP 413).
    TooLarge,
    /// The Kimi API is overloaded or broken (HTTP 5xx).
    Overloaded,
    /// The Kimi API does not accept the request (other HTTP 4xx).
    BadRequest,
    /// The Kimi API cannot be reached.
    Unreachable,
    /// The model's answer is empty.
    EmptyAnswer,
    /// Anything else that the engine reports.
    Internal,
}

/// Troubles that concern all chats at once and that another try does not end: a person must repair the Kimi
/// account, Docker or the disk, or some time must pass. Messages that come meanwhile are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    NoDocker,
    NoSpace,
    NotLoggedIn,
    ClientRefused,
    AccountEnded,
    NoMembership,
    Refused,
    RateLimited,
    QuotaUsedUp,
    ModelRefused,
}

impl Outage {
    pub const ALL: [Self; 10] = [
        Self::NoDocker,
        Self::NoSpace,
        Self::NotLoggedIn,
        Self::ClientRefused,
        Self::AccountEnded,
        Self::NoMembership,
        Self::Refused,
        Self::RateLimited,
        Self::QuotaUsedUp,
        Self::ModelRefused,
    ];

    /// The outage that this trouble means, if it means one.
    pub fn from_trouble(trouble: Trouble) -> Option<Self> {
        Self::ALL.into_iter().find(|outage| outage.trouble() == trouble)
    }

    /// Whether the cause may be in the messages, so that it may concern one chat only.
    pub fn may_depend_on_messages(self) -> bool {
        match self {
            Self::ClientRefused | Self::Refused | Self::RateLimited | Self::ModelRefused => true,
            Self::NoDocker
            | Self::NoSpace
            | Self::NotLoggedIn
            | Self::AccountEnded
            | Self::NoMembership
            | Self::QuotaUsedUp => false,
        }
    }

    pub fn trouble(self) -> Trouble {
        match self {
            Self::NoDocker => Trouble::NoDocker,
            Self::NoSpace => Trouble::NoSpace,
            Self::NotLoggedIn => Trouble::NotLoggedIn,
            Self::ClientRefused => Trouble::ClientRefused,
            Self::AccountEnded => Trouble::AccountEnded,
            Self::NoMembership => Trouble::NoMembership,
            Self::Refused => Trouble::Refused,
            Self::RateLimited => Trouble::RateLimited,
            Self::QuotaUsedUp => Trouble::QuotaUsedUp,
            Self::ModelRefused => Trouble::ModelRefused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn group_names_are_plain_folder_names() {
        for good in ["main", "family-chat", "Team_42", "CON", &"a".repeat(64)] {
            assert!(GroupName::parse(good).is_ok(), "{good:?} is a good name");
        }
        for bad in [
            "",
            ".",
            "..",
            "-rf",
            "../../etc",
            "/tmp",
            "global",
            "Global",
            "a/b",
            "a\0b",
            "é",
            "a b",
            "$(id)",
            ";",
            "a\n",
            "_x",
            &"a".repeat(65),
        ] {
            assert!(GroupName::parse(bad).is_err(), "{bad:?} is a bad name");
        }
    }

    #[test]
    fn a_secret_is_cut_out_of_a_text_wherever_that_was_cut() {
        let secret = Secret::new("sk-canary-of-the-owner");
        for (text, left) in [
            ("the key sk-canary-of-the-owner is bad", "the key … is bad"),
            ("the key sk-canary-of-the", "the key …"),
            ("the key sk-can", "the key …"),
            ("the key sk-ca", "the key sk-ca"),
            ("sk-canary-of-the-ownersk-canary-", "……"),
        ] {
            assert_eq!(secret.redact_from(text), left);
        }
        assert_eq!(Secret::new("").redact_from("all of it"), "all of it");
    }

    #[test]
    fn secrets_are_not_printed() {
        for secret in [Authorization::ApiKey, Authorization::Login] {
            let shown = format!("{:?}", secret(Secret::new("sk-canary")));
            assert!(!shown.contains("canary"), "{shown}");
        }
    }
}
