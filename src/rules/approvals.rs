//! What only the owner can allow or answer: for how long they may, what they said, and what follows.
//!
//! An agent's action that is held is kept whole, with the id of the question in the main channel. The owner
//! answers that message, by quoting it or by a reaction on it; nothing else that anybody writes allows
//! anything. The rule is looked at again when the answer comes, and what is allowed is done in the transaction
//! that stores the answer: so it is done once, or not at all.

use jiff::{SignedDuration, Timestamp};

use super::{Rules, absence};
use crate::notices::{self, HeldWords, PersonWords};
use crate::router::{SenderStanding, WakeDecision};
use crate::types::{ChatId, Forwarded, Group, GroupName, IncomingMessage, Role};

/// The most questions of one agent that wait for the owner.
pub const OPEN_PER_GROUP_MAX: u32 = 3;
/// The most questions of whether a direct chat is to be served that wait for the owner.
pub const OPEN_CHATS_MAX: u32 = 5;
/// The longest text that a question shows, in characters: the owner is to see all of it.
pub const HELD_TEXT_MAX: usize = 1_000;

/// How long the owner may allow an action.
const ACTION_OPEN_FOR: SignedDuration = SignedDuration::from_mins(10);
/// How long the owner may answer what allows nothing by itself, or concerns a person who waits.
const QUESTION_OPEN_FOR: SignedDuration = SignedDuration::from_hours(24);
/// A wall clock that was set back by more than this says nothing of how long a question is open.
const CLOCK_SET_BACK: SignedDuration = SignedDuration::from_mins(1);
/// What the tones of skin do to a thumb, and the mark that makes an emoji of a sign.
const EMOJI_MARKS: [char; 6] = ['\u{1f3fb}', '\u{1f3fc}', '\u{1f3fd}', '\u{1f3fe}', '\u{1f3ff}', '\u{fe0f}'];
/// What stands in the place of a phone number that WhatsApp has not told.
const UNKNOWN_NUMBER: &str = "?";
/// Characters of a question that a sentence repeats.
const QUESTION_TOLD_CHARS: usize = 80;

/// What waits for the owner, with all that doing it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HeldAction {
    /// To say `text`, as the chat will show it, in a chat that Kai does not serve.
    SendMessage { chat: ChatId, text: String },
    /// To serve a group's chat no longer.
    RemoveGroup { group: GroupName, chat: ChatId },
    /// To serve a direct chat in which somebody has written.
    ServeChat { chat: ChatId },
    /// To hear the owner's answer to an agent's question.
    AskOwner { question: String },
}

impl HeldAction {
    /// How long the owner may answer.
    pub fn open_for(&self) -> SignedDuration {
        match self {
            Self::SendMessage { .. } | Self::RemoveGroup { .. } => ACTION_OPEN_FOR,
            Self::ServeChat { .. } | Self::AskOwner { .. } => QUESTION_OPEN_FOR,
        }
    }

    fn words<'a>(&'a self, asker: Option<&'a GroupName>, about: &'a str) -> HeldWords<'a> {
        match self {
            Self::SendMessage { text, .. } => HeldWords::SendMessage { chat: about, text },
            Self::RemoveGroup { group, .. } => HeldWords::RemoveGroup { group },
            Self::ServeChat { .. } => HeldWords::ServeChat { person: read_person(about) },
            Self::AskOwner { question } => {
                HeldWords::AskOwner { group: asker.map_or("", GroupName::as_str), question }
            }
        }
    }
}

/// A question to the owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Its row: no two questions ever have the same.
    pub id: i64,
    /// The group whose agent has asked; `None` if nanokimi itself has.
    pub asker: Option<GroupName>,
    pub action: HeldAction,
    /// The chat or the person that it is about, as the question named it.
    pub about: String,
    pub asked_at: Timestamp,
    pub expires_at: Timestamp,
    pub state: ApprovalState,
}

/// Where a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApprovalState {
    Open,
    Granted,
    Refused,
    Expired,
    /// Allowed, and not done: what it was about has changed since.
    Void,
}

impl ApprovalState {
    /// As the database has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Granted => "granted",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::Void => "void",
        }
    }
}

/// What the owner said to a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerReply<'a> {
    /// A message that quotes it.
    Words(&'a str),
    /// A reaction on it.
    Emoji(&'a str),
}

/// What is known when an answer comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApprovalStanding {
    /// The role of the group that has asked, as it is now; `None` if it is gone.
    pub asker_role: Option<Role>,
    /// The group that serves the chat in question now.
    pub served_by: Option<GroupName>,
    /// The name that a direct chat would be served under; `None` if a group has it.
    pub free_name: Option<GroupName>,
}

/// What follows from an answer, or from its absence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApprovalChange {
    pub state: ApprovalState,
    pub effect: ApprovalEffect,
    /// What the owner is told.
    pub notice: String,
    /// What the agent that has asked is told.
    pub note: Option<AgentNote>,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApprovalEffect {
    Nothing,
    SendMessage {
        chat: ChatId,
        text: String,
    },
    RemoveGroup(GroupName),
    /// The chat is served as a group of this name, and is told so.
    ServeChat {
        chat: ChatId,
        name: GroupName,
        greeting: String,
    },
}

/// What an agent reads from nanokimi itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentNote {
    pub text: String,
    pub wake: WakeDecision,
}

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Yes,
    No,
}

impl Verdict {
    /// The verdict, if the whole text is one.
    fn from_text(text: &str) -> Option<Self> {
        let word = text.trim().trim_end_matches(['.', '!']).to_lowercase();
        match word.as_str() {
            "yes" | "sí" | "si" | "si\u{301}" => Some(Self::Yes),
            "no" => Some(Self::No),
            _ => Self::from_emoji(&word),
        }
    }

    fn from_emoji(emoji: &str) -> Option<Self> {
        match emoji.trim().trim_end_matches(EMOJI_MARKS) {
            "👍" => Some(Self::Yes),
            "👎" => Some(Self::No),
            _ => None,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
        }
    }
}

impl Approval {
    /// Whether an answer counts still. A clock that was set back does not make it count for longer.
    pub fn is_open_at(&self, now: Timestamp) -> bool {
        let is_before = now.duration_since(self.asked_at) < -CLOCK_SET_BACK;
        self.state == ApprovalState::Open && now < self.expires_at && !is_before
    }

    /// The rule once more: what may be asked for when the question was put need not be allowed now.
    fn is_still_allowed(&self, standing: &ApprovalStanding) -> bool {
        let is_of_main = standing.asker_role == Some(Role::Main);
        match &self.action {
            HeldAction::SendMessage { .. } => is_of_main,
            HeldAction::RemoveGroup { group, .. } => is_of_main && standing.served_by.as_ref() == Some(group),
            HeldAction::ServeChat { .. } => standing.served_by.is_none() && standing.free_name.is_some(),
            HeldAction::AskOwner { .. } => standing.asker_role.is_some(),
        }
    }
}

/// Whether a message can be an answer to a question: the owner's own words, in the main channel, and nothing but
/// words. `sender` is as commands need it.
pub fn may_answer(group: &Group, sender: SenderStanding, message: &IncomingMessage) -> bool {
    group.role == Role::Main
        && sender == SenderStanding::Owner
        && message.forwarded == Forwarded::No
        && message.media.is_none()
}

/// Whether a message in a chat that Kai does not serve is reason to ask if he is to serve it: it is a direct chat,
/// the person there has written it, and lately.
pub fn may_ask_of_chat(message: &IncomingMessage, rules: &Rules, now: Timestamp) -> bool {
    message.chat.is_direct_whatsapp_chat() && !absence::is_past_answer_window(rules, message.sent_at, now)
}

/// The question as the main channel shows it.
pub fn owner_question(rules: &Rules, asker: Option<&GroupName>, action: &HeldAction, about: &str) -> String {
    rules.prefix_notice(&notices::owner_question(rules.lang, action.words(asker, about)))
}

/// Decides what the owner's reply to a question does; `None` if it is no answer, but a message like others.
pub fn decide_answer(
    approval: &Approval,
    reply: OwnerReply<'_>,
    standing: &ApprovalStanding,
    rules: &Rules,
    now: Timestamp,
) -> Option<ApprovalChange> {
    let verdict = match reply {
        OwnerReply::Words(text) => Verdict::from_text(text),
        OwnerReply::Emoji(emoji) => Verdict::from_emoji(emoji),
    };
    let words = match (&approval.action, reply, verdict) {
        (HeldAction::AskOwner { .. }, OwnerReply::Words(text), _) if !text.trim().is_empty() => text.trim(),
        (_, _, Some(verdict)) => verdict.word(),
        (_, _, None) => return None,
    };
    if !approval.is_open_at(now) {
        // What is neither yes nor no is no late answer, but something new to say.
        verdict?;
        // A question that nobody answered in time is closed by whichever comes first: this, or the clock.
        let state = match approval.state {
            ApprovalState::Open => ApprovalState::Expired,
            ended @ (ApprovalState::Granted
            | ApprovalState::Refused
            | ApprovalState::Expired
            | ApprovalState::Void) => ended,
        };
        let notice = rules.prefix_notice(notices::question_over_notice(rules.lang));
        return Some(ApprovalChange { state, effect: ApprovalEffect::Nothing, notice, note: None });
    }
    let state = match (&approval.action, verdict) {
        _ if !approval.is_still_allowed(standing) => ApprovalState::Void,
        (HeldAction::AskOwner { .. }, _) | (_, Some(Verdict::Yes)) => ApprovalState::Granted,
        (_, Some(Verdict::No) | None) => ApprovalState::Refused,
    };
    Some(end_approval(approval, state, words, standing, rules))
}

/// What follows when nobody has answered in time.
pub fn decide_expiry(approval: &Approval, rules: &Rules) -> ApprovalChange {
    end_approval(approval, ApprovalState::Expired, "", &ApprovalStanding::default(), rules)
}

fn end_approval(
    approval: &Approval,
    state: ApprovalState,
    words: &str,
    standing: &ApprovalStanding,
    rules: &Rules,
) -> ApprovalChange {
    let held = approval.action.words(approval.asker.as_ref(), &approval.about);
    let effect = match (&approval.action, state) {
        (HeldAction::SendMessage { chat, text }, ApprovalState::Granted) => {
            ApprovalEffect::SendMessage { chat: chat.clone(), text: text.clone() }
        }
        (HeldAction::RemoveGroup { group, .. }, ApprovalState::Granted) => {
            ApprovalEffect::RemoveGroup(group.clone())
        }
        (HeldAction::ServeChat { chat }, ApprovalState::Granted) => match &standing.free_name {
            Some(name) => serve_chat(chat, name.clone(), rules),
            None => ApprovalEffect::Nothing,
        },
        (_, _) => ApprovalEffect::Nothing,
    };
    let notice = match (&effect, state) {
        (ApprovalEffect::ServeChat { name, .. }, _) => notices::chat_served_notice(rules.lang, name),
        (_, ApprovalState::Granted) => notices::granted_notice(rules.lang, held),
        (_, ApprovalState::Refused) => notices::refused_notice(rules.lang, held),
        (_, ApprovalState::Expired) => notices::expired_notice(rules.lang, held),
        (_, ApprovalState::Open | ApprovalState::Void) => {
            notices::question_void_notice(rules.lang).to_owned()
        }
    };
    let note = approval.asker.as_ref().and_then(|_| note_for_agent(approval, state, words));
    ApprovalChange { state, effect, notice: rules.prefix_notice(&notice), note }
}

/// A direct chat becomes a group.
pub fn serve_chat(chat: &ChatId, name: GroupName, rules: &Rules) -> ApprovalEffect {
    let greeting = rules.prefix_notice(&notices::chat_greeting(rules.lang, &rules.assistant));
    ApprovalEffect::ServeChat { chat: chat.clone(), name, greeting }
}

/// What the owner is told if all direct chats are served, and this one is from now on.
pub fn served_chat_notice(rules: &Rules, person: &str, name: &GroupName) -> String {
    rules.prefix_notice(&notices::new_chat_served_notice(rules.lang, read_person(person), name))
}

/// A person as a question keeps them: the phone number that WhatsApp has told, or `?`, and then the name that they
/// gave themselves, which can be anything. [`read_person`] takes them apart.
pub fn describe_person(name: &str, number: Option<&str>) -> String {
    let number = number.map_or_else(|| UNKNOWN_NUMBER.to_owned(), |number| format!("+{number}"));
    format!("{number} {}", name.trim()).trim_end().to_owned()
}

/// The person that [`describe_person`] has written. What an earlier version has written is a name.
fn read_person(person: &str) -> PersonWords<'_> {
    let (number, name) = person.split_once(' ').unwrap_or((person, ""));
    match number {
        UNKNOWN_NUMBER => PersonWords { name, number: None },
        number if number.starts_with('+') => PersonWords { name, number: Some(number) },
        _ => PersonWords { name: person, number: None },
    }
}

/// The name of the group that a direct chat becomes: after its person, as [`describe_person`] has them, with the
/// number of the question. So no group had it before, whose folder might still be there.
pub fn direct_chat_group_name(person: &str, question: i64) -> Option<GroupName> {
    let PersonWords { name, number } = read_person(person);
    let name = if name.is_empty() { number.unwrap_or_default() } else { name }.to_lowercase();
    let plain: String = name.chars().filter(char::is_ascii_alphanumeric).take(20).collect();
    let stem = if plain.is_empty() { "chat" } else { plain.as_str() };
    GroupName::parse(&format!("{stem}-{question}")).ok()
}

/// What the agent reads of the end. The answer to its question wakes it; what was done for it without its help
/// it hears with the next message.
fn note_for_agent(approval: &Approval, state: ApprovalState, words: &str) -> Option<AgentNote> {
    let what = match &approval.action {
        HeldAction::SendMessage { .. } => format!("to send a message to {}", approval.about),
        HeldAction::RemoveGroup { group, .. } => format!("to remove the group {group}"),
        HeldAction::ServeChat { .. } => return None,
        HeldAction::AskOwner { question } => {
            let question: String = question.chars().take(QUESTION_TOLD_CHARS).collect();
            let text = match state {
                ApprovalState::Granted => format!("The owner answers your question “{question}”: {words}"),
                ApprovalState::Expired => format!(
                    "The owner has not answered your question “{question}” within a day. Say so to whoever waits."
                ),
                ApprovalState::Open | ApprovalState::Refused | ApprovalState::Void => return None,
            };
            return Some(AgentNote { text, wake: WakeDecision::Wakes });
        }
    };
    let text = match state {
        ApprovalState::Granted => format!("You wanted {what}. The owner has allowed it, and it was done."),
        ApprovalState::Refused => {
            format!("You wanted {what}. The owner does not allow it. It was not done; do not work around it.")
        }
        ApprovalState::Expired => format!(
            "You wanted {what}. The owner has not allowed it in time. It was not done; do not work around it."
        ),
        ApprovalState::Open | ApprovalState::Void => {
            format!(
                "You wanted {what}. It was not done, as things have changed since; do not work around it."
            )
        }
    };
    Some(AgentNote { text, wake: WakeDecision::Context })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::rules;
    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;

    fn name(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn minute(minute: i64) -> Timestamp {
        NOW + SignedDuration::from_mins(minute)
    }

    fn question_of(asker: &str, action: HeldAction) -> Approval {
        Approval {
            id: 7,
            asker: Some(name(asker)),
            expires_at: NOW + action.open_for(),
            action,
            about: "Friends".to_owned(),
            asked_at: NOW,
            state: ApprovalState::Open,
        }
    }

    fn message() -> Approval {
        let text = "Kai: The party is on Friday.".to_owned();
        question_of("main", HeldAction::SendMessage { chat: ChatId::new("friends@g.us"), text })
    }

    fn of_main() -> ApprovalStanding {
        ApprovalStanding { asker_role: Some(Role::Main), ..ApprovalStanding::default() }
    }

    fn answer(approval: &Approval, reply: OwnerReply<'_>, now: Timestamp) -> Option<ApprovalChange> {
        decide_answer(approval, reply, &of_main(), &rules(), now)
    }

    #[test]
    fn yes_and_no_are_words_and_thumbs_and_nothing_else_is() {
        use ApprovalState::{Granted, Refused};
        for (text, expected) in [
            ("yes", Some(Granted)),
            (" Yes!\n", Some(Granted)),
            ("YES.", Some(Granted)),
            ("sí", Some(Granted)),
            ("Si\u{301}", Some(Granted)),
            ("si", Some(Granted)),
            ("👍", Some(Granted)),
            ("👍🏽", Some(Granted)),
            ("👍\u{fe0f}", Some(Granted)),
            ("no", Some(Refused)),
            ("No.", Some(Refused)),
            ("👎🏿", Some(Refused)),
            ("yes please", None),
            ("yes and also to Ana", None),
            ("not yes", None),
            ("yes?", None),
            ("ok", None),
            ("y", None),
            ("", None),
            ("👍👎", None),
            ("\u{202e}yes", None),
        ] {
            let state = answer(&message(), OwnerReply::Words(text), NOW).map(|change| change.state);
            assert_eq!(state, expected, "{text:?}");
        }
        for (emoji, expected) in
            [("👍", Some(Granted)), ("👍🏻", Some(Granted)), ("👎", Some(Refused)), ("❤️", None), ("", None)]
        {
            let state = answer(&message(), OwnerReply::Emoji(emoji), NOW).map(|change| change.state);
            assert_eq!(state, expected, "{emoji:?}");
        }
    }

    #[test]
    fn what_was_allowed_is_done_as_it_was_asked() {
        let change = answer(&message(), OwnerReply::Words("yes"), minute(9)).unwrap();
        let text = "Kai: The party is on Friday.".to_owned();
        assert_eq!(change.effect, ApprovalEffect::SendMessage { chat: ChatId::new("friends@g.us"), text });
        assert_eq!(change.note.unwrap().wake, WakeDecision::Context);
        let refused = answer(&message(), OwnerReply::Emoji("👎"), minute(9)).unwrap();
        assert_eq!((refused.state, refused.effect), (ApprovalState::Refused, ApprovalEffect::Nothing));
        assert!(refused.note.unwrap().text.contains("do not work around it"));
    }

    #[test]
    fn too_late_twice_or_with_another_clock_does_nothing() {
        for (approval, now) in [
            (message(), minute(10)),
            (message(), minute(100)),
            (message(), minute(-2)),
            (Approval { state: ApprovalState::Granted, ..message() }, minute(1)),
            (Approval { state: ApprovalState::Refused, ..message() }, minute(1)),
            (Approval { state: ApprovalState::Expired, ..message() }, minute(1)),
            (Approval { state: ApprovalState::Void, ..message() }, minute(1)),
        ] {
            let change = answer(&approval, OwnerReply::Words("yes"), now).unwrap();
            assert_eq!(change.effect, ApprovalEffect::Nothing, "{approval:?} {now}");
            assert_ne!(change.state, ApprovalState::Open);
            assert!(change.notice.contains("over"), "{}", change.notice);
        }
    }

    #[test]
    fn the_rule_is_looked_at_again_when_the_answer_comes() {
        let group = name("friends");
        let removal = HeldAction::RemoveGroup { group: group.clone(), chat: ChatId::new("friends@g.us") };
        let chat = HeldAction::ServeChat { chat: ChatId::new("ana@lid") };
        let question = HeldAction::AskOwner { question: "May we?".to_owned() };
        let standing = |asker_role, served_by: Option<&str>, free_name: Option<&str>| ApprovalStanding {
            asker_role,
            served_by: served_by.map(name),
            free_name: free_name.map(name),
        };
        let (main, member) = (Some(Role::Main), Some(Role::Member));
        for (action, standing, is_done) in [
            (message().action, standing(main, None, None), true),
            (message().action, standing(main, Some("friends"), None), true),
            (message().action, standing(member, None, None), false),
            (message().action, standing(None, None, None), false),
            (removal.clone(), standing(main, Some("friends"), None), true),
            (removal.clone(), standing(main, Some("others"), None), false),
            (removal.clone(), standing(main, None, None), false),
            (removal, standing(member, Some("friends"), None), false),
            (chat.clone(), standing(None, None, Some("ana-7")), true),
            (chat.clone(), standing(None, Some("ana"), Some("ana-7")), false),
            (chat, standing(None, None, None), false),
            (question.clone(), standing(member, None, None), true),
            (question, standing(None, None, None), false),
        ] {
            let approval = question_of("main", action);
            let change =
                decide_answer(&approval, OwnerReply::Words("yes"), &standing, &rules(), NOW).unwrap();
            let expected = if is_done { ApprovalState::Granted } else { ApprovalState::Void };
            assert_eq!(change.state, expected, "{approval:?} {standing:?}");
        }
    }

    #[test]
    fn an_agents_question_takes_any_words() {
        let question = question_of("family", HeldAction::AskOwner { question: "Which hotel?".to_owned() });
        for (reply, words) in [
            (OwnerReply::Words(" The Ritz\n"), "The Ritz"),
            (OwnerReply::Words("no"), "no"),
            (OwnerReply::Emoji("👍"), "yes"),
        ] {
            let note = answer(&question, reply, minute(60)).unwrap().note.unwrap();
            assert_eq!(note.wake, WakeDecision::Wakes);
            assert_eq!(note.text, format!("The owner answers your question “Which hotel?”: {words}"));
        }
        assert_eq!(answer(&question, OwnerReply::Emoji("❤️"), NOW), None);
        assert_eq!(answer(&question, OwnerReply::Words("  "), NOW), None);
        let note = decide_expiry(&question, &rules()).note.unwrap();
        assert_eq!(note.wake, WakeDecision::Wakes, "somebody waits for it");
        // Once it is over, what is no late answer is said to Kai.
        let over = Approval { state: ApprovalState::Granted, ..question };
        assert_eq!(answer(&over, OwnerReply::Words("And book a table there, please"), minute(60)), None);
        let late = answer(&over, OwnerReply::Words("no"), minute(60)).unwrap();
        assert!(late.notice.contains("over"), "{}", late.notice);
    }

    proptest! {
        /// Whatever somebody calls themselves, the number is the one that WhatsApp has told.
        #[test]
        fn a_name_is_no_number(name in "[+?0-9 ()a-zé”»]{0,20}", number in prop::option::of("[0-9]{5,12}")) {
            let person = describe_person(&name, number.as_deref());
            let read = read_person(&person);
            prop_assert_eq!(read.name, name.trim());
            let told = number.map(|number| format!("+{number}"));
            prop_assert_eq!(read.number, told.as_deref());
        }
    }

    #[test]
    fn a_direct_chats_group_is_named_after_its_person() {
        for (person, expected) in [
            ("Ana", "ana-7"),
            ("? Ana", "ana-7"),
            ("+34600000001 Ana", "ana-7"),
            ("+34600000001", "34600000001-7"),
            ("?", "chat-7"),
            ("Ana María López Fernández de la Vega", "anamaralpezfernndezd-7"),
            ("../../etc", "etc-7"),
            ("安娜", "chat-7"),
            ("", "chat-7"),
            ("global", "global-7"),
        ] {
            assert_eq!(direct_chat_group_name(person, 7), Some(name(expected)), "{person:?}");
        }
    }
}
