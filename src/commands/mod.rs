//! What the owner can tell nanokimi itself to do by a word in a chat, without an agent.
//!
//! Each command is a file: its words in every language, what it does, and its test. `router` decides which
//! messages are commands. Intake stores the message and the answer in one transaction, so the command is
//! answered once and at once, even while the agent works. To add a command, write its file and name it in
//! [`Command`], in [`Command::ALL`] and in [`Command::definition`]; `docs/contributing.md` has the whole list.

mod help;
mod status;
mod stop;
mod usage;
mod warm;

use jiff::Timestamp;

use crate::types::{Engine, Group, Lang, OfferedModels, Outage, TokenUsage};

/// The commands that exist, in the order in which `/help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Status,
    Usage,
    Stop,
    Warm,
}

/// The parts of a command.
struct CommandDefinition {
    english: &'static str,
    spanish: &'static str,
    /// What it does, as `/help` says it.
    summary: fn(Lang) -> &'static str,
    /// The answer in the chat where the command was given.
    answer: fn(&CommandContext<'_>) -> String,
    /// What it does besides.
    effect: CommandEffect,
    /// Of how many days its answer tells the tokens.
    days_told: u32,
}

/// What a command does besides its answer, in the same transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandEffect {
    Nothing,
    /// The chat's agent is started, as if somebody were about to ask for something.
    StartsAgent,
    /// The chat's running turn is stopped, and all that was asked before is over.
    StopsWork,
}

/// How a chat stands when a command comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatStanding {
    /// Since when a turn runs.
    pub turn_since: Option<Timestamp>,
    /// How many calls wait that no turn has taken.
    pub waiting: u64,
    /// What keeps all chats from being answered, the oldest first.
    pub outages: Vec<Outage>,
    /// What was used in the last days, as many as the command tells of; the last one is today.
    pub days: Vec<DayTokens>,
}

/// The tokens of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DayTokens {
    pub in_chat: TokenUsage,
    /// In all chats, this one among them.
    pub in_all: TokenUsage,
}

impl ChatStanding {
    /// What was used today.
    pub fn today(&self) -> DayTokens {
        self.days.last().copied().unwrap_or_default()
    }
}

/// The place where a command was given.
#[derive(Clone, Copy, Debug)]
pub struct CommandContext<'a> {
    pub group: &'a Group,
    pub standing: &'a ChatStanding,
    /// Kai's name in groups that have no trigger of their own.
    pub assistant: &'a str,
    /// The engine of groups that have chosen none.
    pub engine: Engine,
    pub models: &'a OfferedModels,
    pub lang: Lang,
    pub now: Timestamp,
}

impl Command {
    pub const ALL: [Self; 5] = [Self::Help, Self::Status, Self::Usage, Self::Stop, Self::Warm];

    fn definition(self) -> CommandDefinition {
        match self {
            Self::Help => help::DEFINITION,
            Self::Status => status::DEFINITION,
            Self::Usage => usage::DEFINITION,
            Self::Stop => stop::DEFINITION,
            Self::Warm => warm::DEFINITION,
        }
    }

    /// The command, if the whole text is one: its word in any of our languages, in any case.
    pub fn from_text(text: &str) -> Option<Self> {
        let typed = text.trim();
        if !typed.starts_with('/') {
            return None;
        }
        let typed = typed.to_lowercase();
        Self::ALL.into_iter().find(|command| {
            let CommandDefinition { english, spanish, .. } = command.definition();
            typed == english || typed == spanish
        })
    }

    /// The word that gives the command.
    pub fn word(self, lang: Lang) -> &'static str {
        let CommandDefinition { english, spanish, .. } = self.definition();
        match lang {
            Lang::En => english,
            Lang::Es => spanish,
        }
    }

    /// What it does, in one sentence.
    pub fn summary(self, lang: Lang) -> &'static str {
        (self.definition().summary)(lang)
    }

    /// Of how many days its answer tells the tokens.
    pub fn days_told(self) -> u32 {
        self.definition().days_told
    }

    /// What it does besides its answer.
    pub fn effect(self) -> CommandEffect {
        self.definition().effect
    }

    /// The answer in the chat where the command was given.
    pub fn answer_for(self, context: &CommandContext<'_>) -> String {
        (self.definition().answer)(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChatId, GroupName, Role};

    /// What a command answers in the group `family`, which stands like this.
    pub(super) fn answer_in_family(command: Command, standing: &ChatStanding, lang: Lang) -> String {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let group = Group { daily_tokens: Some(200_000), ..group };
        answer_in(&group, command, standing, lang)
    }

    pub(super) fn answer_in(group: &Group, command: Command, standing: &ChatStanding, lang: Lang) -> String {
        let models = OfferedModels { usual: Some("kimi-for-coding".to_owned()), names: Vec::new() };
        command.answer_for(&CommandContext {
            group,
            standing,
            assistant: "Kai",
            engine: Engine::KimiCode,
            models: &models,
            lang,
            now: "2026-11-22T20:03:10Z".parse().unwrap(),
        })
    }

    #[test]
    fn every_command_has_words_of_its_own_and_is_found_by_each() {
        let mut words = Vec::new();
        for command in Command::ALL {
            for lang in [Lang::En, Lang::Es] {
                let word = command.word(lang);
                let name = word.strip_prefix('/').unwrap_or_default();
                assert!(!name.is_empty() && name.chars().all(|c| c.is_lowercase()), "{word:?}");
                assert_eq!(Command::from_text(word), Some(command), "{word:?}");
                assert!(!command.summary(lang).is_empty());
                words.push((word, command));
            }
        }
        for (word, command) in &words {
            let same = words.iter().filter(|(other, _)| other == word);
            assert!(same.clone().all(|(_, other)| other == command), "{word:?} is two commands");
        }
    }
}
