//! What the owner can tell nanokimi itself to do by a word in a chat, without an agent.
//!
//! Each command is a file: its words in every language, what it does, and its test. `router` decides which
//! messages are commands. Intake stores the message and the answer in one transaction, so the command is
//! answered once and at once, even while the agent works. To add a command, write its file and name it in
//! [`Command`], in [`Command::ALL`] and in [`Command::definition`]; `docs/contributing.md` has the whole list.

mod back;
mod compact;
mod help;
mod model;
mod new;
mod status;
mod stop;
mod tasks;
mod usage;
mod warm;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::types::{Engine, Group, Lang, OfferedModels, Outage, Task, TokenUsage, UsageChart};

/// The commands that exist, in the order in which `/help` lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Help,
    Status,
    Usage,
    Tasks,
    Stop,
    New,
    Back,
    Compact,
    Model,
    Warm,
}

/// The parts of a command.
struct CommandDefinition {
    english: &'static str,
    spanish: &'static str,
    /// What it does, as `/help` says it.
    summary: fn(Lang) -> &'static str,
    /// What may stand behind its word, as `/help` calls it.
    argument: Option<fn(Lang) -> &'static str>,
    /// What it says in the chat where it was given, and what it does besides.
    decide: fn(&CommandContext<'_>) -> CommandOutcome,
    /// Of how many days its answer tells the tokens.
    days_told: u32,
}

/// A command as it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenCommand {
    pub command: Command,
    /// What stood behind its word.
    pub argument: Option<String>,
}

/// What comes of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandOutcome {
    pub answer: String,
    pub effect: CommandEffect,
}

impl CommandOutcome {
    /// A command that only says something.
    fn from_answer(answer: impl Into<String>) -> Self {
        Self { answer: answer.into(), effect: CommandEffect::Nothing }
    }
}

/// What a command does besides its answer, in the same transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandEffect {
    Nothing,
    /// The chat's agent is started, as if somebody were about to ask for something.
    StartsAgent,
    /// The chat's running turn is stopped, and all that was asked before is over.
    StopsWork,
    /// From the next prompt on the agent is in this session, which may be a new one.
    ChangesSession(ChatSession),
    /// What the agent remembers in the current session is put into a summary.
    CompactsSession,
    /// From its next start on the chat's agent thinks with this model; `None` is the install's.
    ChoosesModel(Option<String>),
    /// The answer stands below this picture.
    ShowsChart(UsageChart),
}

/// One of a chat's sessions with its agent: what the agent remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatSession {
    /// The engine's id of it: a plain name.
    pub id: String,
    /// The owner's name for it, unique in its chat in any case.
    pub name: String,
    /// The highest is the one that was left last.
    pub left_nth: Option<i64>,
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
    /// The sessions that there are, the current one first.
    pub sessions: Vec<ChatSession>,
    /// The chat's tasks, in the main channel those of all chats, if the command tells of them. The next that
    /// is due comes first.
    pub tasks: Vec<Task>,
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
    /// What stood behind its word.
    pub argument: Option<&'a str>,
    /// Kai's name in groups that have no trigger of their own.
    pub assistant: &'a str,
    /// The engine of groups that have chosen none.
    pub engine: Engine,
    pub models: &'a OfferedModels,
    pub lang: Lang,
    pub now: Timestamp,
    /// Where the owner's days begin.
    pub zone: &'a TimeZone,
}

impl Command {
    pub const ALL: [Self; 10] = [
        Self::Help,
        Self::Status,
        Self::Usage,
        Self::Tasks,
        Self::Stop,
        Self::New,
        Self::Back,
        Self::Compact,
        Self::Model,
        Self::Warm,
    ];

    fn definition(self) -> CommandDefinition {
        match self {
            Self::Help => help::DEFINITION,
            Self::Status => status::DEFINITION,
            Self::Usage => usage::DEFINITION,
            Self::Tasks => tasks::DEFINITION,
            Self::Stop => stop::DEFINITION,
            Self::New => new::DEFINITION,
            Self::Back => back::DEFINITION,
            Self::Compact => compact::DEFINITION,
            Self::Model => model::DEFINITION,
            Self::Warm => warm::DEFINITION,
        }
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

    /// What may stand behind its word.
    pub fn argument(self, lang: Lang) -> Option<&'static str> {
        self.definition().argument.map(|argument| argument(lang))
    }

    /// What it says in the chat where it was given, and what it does besides.
    pub fn decide_outcome(self, context: &CommandContext<'_>) -> CommandOutcome {
        (self.definition().decide)(context)
    }
}

impl GivenCommand {
    /// The command, if the whole text is one: its word in any of our languages, in any case, and behind it, in
    /// the same line, what the command takes. A word behind a command that takes none makes it a message.
    pub fn from_text(text: &str) -> Option<Self> {
        let typed = text.trim();
        if !typed.starts_with('/') {
            return None;
        }
        let (word, behind) = typed.split_once(char::is_whitespace).unwrap_or((typed, ""));
        let word = word.to_lowercase();
        let command = Command::ALL.into_iter().find(|command| {
            let CommandDefinition { english, spanish, .. } = command.definition();
            word == english || word == spanish
        })?;
        let argument = behind.trim();
        if argument.is_empty() {
            return Some(Self { command, argument: None });
        }
        let takes_it = command.definition().argument.is_some() && !typed.contains(['\n', '\r']);
        takes_it.then(|| Self { command, argument: Some(argument.to_owned()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{ChatId, GroupName, Role};

    /// The command that a text without an argument is.
    pub(super) fn given(text: &str) -> Option<Command> {
        let GivenCommand { command, argument } = GivenCommand::from_text(text)?;
        assert_eq!(argument, None);
        Some(command)
    }

    /// What a command answers in the group `family`, which stands like this.
    pub(super) fn answer_in_family(command: Command, standing: &ChatStanding, lang: Lang) -> String {
        let group = Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member);
        let group = Group { daily_tokens: Some(200_000), ..group };
        answer_in(&group, command, standing, lang)
    }

    /// What comes of a command, as [`answer_in`] has its answer.
    pub(super) fn outcome_in(
        group: &Group,
        (command, argument): (Command, Option<&str>),
        standing: &ChatStanding,
        lang: Lang,
    ) -> CommandOutcome {
        let models = OfferedModels {
            usual: Some("kimi-for-coding".to_owned()),
            names: ["k3", "kimi-for-coding"].map(str::to_owned).to_vec(),
        };
        command.decide_outcome(&CommandContext {
            group,
            standing,
            argument,
            assistant: "Kai",
            engine: Engine::KimiCode,
            models: &models,
            lang,
            now: "2026-11-22T20:03:10Z".parse().unwrap(),
            zone: &TimeZone::UTC,
        })
    }

    pub(super) fn answer_in(group: &Group, command: Command, standing: &ChatStanding, lang: Lang) -> String {
        outcome_in(group, (command, None), standing, lang).answer
    }

    #[test]
    fn every_command_has_words_of_its_own_and_is_found_by_each() {
        let mut words = Vec::new();
        for command in Command::ALL {
            for lang in [Lang::En, Lang::Es] {
                let word = command.word(lang);
                let name = word.strip_prefix('/').unwrap_or_default();
                assert!(!name.is_empty() && name.chars().all(|c| c.is_lowercase()), "{word:?}");
                assert_eq!(given(word), Some(command), "{word:?}");
                let with_more = GivenCommand::from_text(&format!("{word} more"));
                assert_eq!(with_more.is_some(), command.argument(lang).is_some(), "{word:?}");
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
