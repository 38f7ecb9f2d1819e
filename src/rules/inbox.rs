//! What happens with a message, and with the changes that its author makes later.
//!
//! A message that waits is changed in its row. A message that was read cannot be changed any more, so a new
//! row tells the agent of the edit. A change may come before its message; then the message is stored in its
//! newest form. Nothing here ever causes a second answer to one text.

use jiff::Timestamp;

use super::{Rules, absence};
use crate::commands::{ChatStanding, CommandContext, CommandEffect, CommandOutcome, GivenCommand};
use crate::notices;
use crate::render::prompt;
use crate::router::{self, MessageRoute};
use crate::types::{ChatNote, Group, IncomingMessage, Media, MessageId, Quote, Reaction, SenderId};

pub use crate::router::{
    AskPermission, MessageFacts, QuotedAuthor, RefusalReason, SenderFacts, SenderListing, SenderStanding,
    WakeDecision,
};

/// What is known when a message comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownMessage {
    pub facts: MessageFacts,
    /// Its newest edit, if the edit came first.
    pub edit: Option<EarlierEdit>,
    /// How its chat stands. It is looked up only for a command of the owner's.
    pub standing: ChatStanding,
}

/// An edit that came before its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlierEdit {
    pub row: i64,
    pub text: String,
    /// No agent has read it yet.
    pub is_pending: bool,
    pub wake: WakeDecision,
}

/// What happens with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageChange {
    Dropped,
    /// It is stored, no agent ever reads it, and this text is said.
    Command(CommandChange),
    Stored(StoredMessage),
    /// It called Kai, its author may not, and the group keeps nothing of theirs.
    Refused(RefusalReason),
}

/// What a command causes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CommandChange {
    /// It is carried out, and this text is said.
    Answered { answer: String, effect: CommandEffect },
    /// It came too late to be carried out: the chat is told that Kai was away.
    Missed,
}

/// How a message is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    pub text: String,
    pub call: CallDecision,
    /// Whether it waits to be read; if not, it is finished.
    pub is_pending: bool,
    /// The row of its edit, which waited too and is now finished: this row has the new text.
    pub replaced_edit: Option<i64>,
}

/// What a text does for the group's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallDecision {
    pub wake: WakeDecision,
    /// It called Kai too long ago: it is context, and its chat is told that Kai was away.
    pub is_missed: bool,
    /// It calls Kai and its author may not: it is context, and the author may be told.
    pub refusal: Option<RefusalReason>,
}

impl CallDecision {
    /// Without looking at the text or at the time.
    fn settled(wake: WakeDecision) -> Self {
        Self { wake, is_missed: false, refusal: None }
    }

    fn from_wake(wake: WakeDecision, message: &IncomingMessage, rules: &Rules, now: Timestamp) -> Self {
        let is_missed =
            wake == WakeDecision::Wakes && absence::is_past_answer_window(rules, message.sent_at, now);
        let wake = if is_missed { WakeDecision::Context } else { wake };
        Self { wake, is_missed, refusal: None }
    }

    fn refused(reason: RefusalReason) -> Self {
        Self { wake: WakeDecision::Context, is_missed: false, refusal: Some(reason) }
    }
}

/// Decides what happens with a message that comes in a chat of this group.
pub fn decide_message(
    group: &Group,
    message: &IncomingMessage,
    known: KnownMessage,
    rules: &Rules,
    now: Timestamp,
) -> MessageChange {
    let KnownMessage { facts, edit, standing } = known;
    let trigger = group.trigger_or(&rules.assistant);
    let call = match router::route_message(group, trigger, message, facts) {
        MessageRoute::Dropped => return MessageChange::Dropped,
        MessageRoute::Refused(reason) if !facts.permission.is_kept(group.senders) => {
            return MessageChange::Refused(reason);
        }
        MessageRoute::Refused(reason) => CallDecision::refused(reason),
        MessageRoute::Command(given) if edit.is_none() => {
            return MessageChange::Command(decide_command(&given, (group, &standing), message, rules, now));
        }
        // Its newest text counts, and an edit is never a command.
        MessageRoute::Command(_) | MessageRoute::Context => CallDecision::settled(WakeDecision::Context),
        MessageRoute::Wakes => CallDecision::from_wake(WakeDecision::Wakes, message, rules, now),
    };
    MessageChange::Stored(match edit {
        None => StoredMessage { text: message.text.clone(), call, is_pending: true, replaced_edit: None },
        // The newest text replaces the old one, and there is one answer to it.
        Some(EarlierEdit { row, text, is_pending: true, wake }) => {
            let edited = IncomingMessage { text: text.clone(), ..message.clone() };
            let call = match (wake, facts.permission.for_counted_call()) {
                (WakeDecision::Wakes, AskPermission::Granted) => CallDecision::settled(wake),
                (WakeDecision::Wakes, AskPermission::Refused(reason)) => CallDecision::refused(reason),
                (WakeDecision::Context, _) => {
                    decide_wake(group, &edited, facts.permission, facts.quotes, rules, now)
                }
            };
            StoredMessage { text, call, is_pending: true, replaced_edit: Some(row) }
        }
        // The edit was read already. But a file is still new.
        Some(EarlierEdit { text, is_pending: false, .. }) => StoredMessage {
            text,
            call: CallDecision::settled(WakeDecision::Context),
            is_pending: message.media.is_some(),
            replaced_edit: None,
        },
    })
}

fn decide_command(
    given: &GivenCommand,
    (group, standing): (&Group, &ChatStanding),
    message: &IncomingMessage,
    rules: &Rules,
    now: Timestamp,
) -> CommandChange {
    if absence::is_past_answer_window(rules, message.sent_at, now) {
        return CommandChange::Missed;
    }
    let Rules { assistant, lang, engine, models, .. } = rules;
    let argument = given.argument.as_deref();
    let (engine, lang, zone) = (*engine, *lang, &rules.zone);
    let context = CommandContext { group, standing, argument, assistant, engine, models, lang, now, zone };
    let CommandOutcome { answer, effect } = given.command.decide_outcome(&context);
    CommandChange::Answered { answer: rules.prefix_notice(&answer), effect }
}

/// What a text that is no command does: it wakes Kai, unless its author may not ask, or it called too long ago.
fn decide_wake(
    group: &Group,
    message: &IncomingMessage,
    permission: AskPermission,
    quotes: QuotedAuthor,
    rules: &Rules,
    now: Timestamp,
) -> CallDecision {
    let wake = router::wake_decision_for(group, group.trigger_or(&rules.assistant), message, quotes);
    match (wake, permission.refusal()) {
        (WakeDecision::Wakes, Some(reason)) => CallDecision::refused(reason),
        (WakeDecision::Wakes | WakeDecision::Context, _) => {
            CallDecision::from_wake(wake, message, rules, now)
        }
    }
}

/// What is known when an edit comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownEdit {
    /// It has come before, or its message is one of Kai's own.
    pub is_known: bool,
    /// A later edit of the same message came first.
    pub has_newer: bool,
    /// The row of the message, or of an earlier edit of it, if that row waits.
    pub pending_row: Option<i64>,
    pub permission: AskPermission,
    pub quotes: QuotedAuthor,
}

/// What happens with an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EditChange {
    Dropped,
    /// Only its id is stored.
    Superseded,
    /// Its text replaces the text that waits.
    ReplacesText {
        row: i64,
        call: CallDecision,
    },
    /// A row of its own tells the agent of it.
    Follows(CallDecision),
}

/// Decides what happens with an edit; `message` is the message in its newest form. An edit is never a
/// command.
pub fn decide_edit(
    group: &Group,
    message: &IncomingMessage,
    known: KnownEdit,
    rules: &Rules,
    now: Timestamp,
) -> EditChange {
    if known.is_known || !known.permission.is_kept(group.senders) {
        return EditChange::Dropped;
    }
    if known.has_newer {
        return EditChange::Superseded;
    }
    let call = decide_wake(group, message, known.permission, known.quotes, rules, now);
    match known.pending_row {
        Some(row) => EditChange::ReplacesText { row, call },
        None => EditChange::Follows(call),
    }
}

/// A reaction in words. A reaction never calls Kai; it is told with the next message that does.
pub fn note_of_reaction(reaction: &Reaction) -> ChatNote {
    let Reaction { chat, id, sender, sender_name, target, emoji, sent_at } = reaction.clone();
    let text = prompt::render_reaction(&emoji);
    ChatNote { chat, id, sender, sender_name, target: Some(target), text, sent_at }
}

/// What we have said ourselves, as the agent reads it: a text, or a file with its caption.
pub fn own_text_for_agent(text: String, path: Option<&str>) -> String {
    prompt::render_own_reply(text, false, path)
}

/// The text of a message as the agent reads it.
pub fn text_for_agent(text: &str, is_edit: bool) -> String {
    if is_edit { prompt::render_edited_text(text) } else { text.to_owned() }
}

/// The text for a chat whose messages could not be read.
pub fn unreadable_messages_notice(rules: &Rules, messages: u64, senders: &[String]) -> String {
    rules.prefix_notice(&notices::unreadable_messages_notice(rules.lang, messages, senders))
}

/// A message that another message refers to, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownQuote {
    pub id: MessageId,
    pub source: QuoteSource,
    pub sender: Option<SenderId>,
    pub sender_name: String,
    pub text: String,
    pub media: Option<Media>,
    /// The place where its file was saved before.
    pub path: Option<String>,
}

/// The source that says what a quoted message was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuoteSource {
    /// It is one of our own.
    Kai,
    /// It came in this chat.
    Chat,
    /// Only the client that quotes it.
    Client,
}

impl KnownQuote {
    /// A message of which only this is known.
    pub fn unknown_message(id: &MessageId, sender_name: &str) -> Self {
        Self {
            id: id.clone(),
            source: QuoteSource::Client,
            sender: None,
            sender_name: sender_name.to_owned(),
            text: String::new(),
            media: None,
            path: None,
        }
    }

    /// One of our own messages: its text, or else its kind.
    pub fn own_reply(id: &MessageId, text: String, is_reaction: bool, path: Option<&str>) -> Self {
        let text = prompt::render_own_reply(text, is_reaction, path);
        Self { source: QuoteSource::Kai, text, ..Self::unknown_message(id, "") }
    }

    /// If nothing is left of a message, it was deleted.
    pub fn mark_deleted(self) -> Self {
        let is_gone = self.text.is_empty() && self.media.is_none();
        Self { text: if is_gone { prompt::DELETED.to_owned() } else { self.text }, ..self }
    }

    pub fn from_client_quote(quote: &Quote) -> Self {
        Self {
            id: quote.id.clone(),
            source: QuoteSource::Client,
            sender: quote.sender.clone(),
            sender_name: quote.sender_name.clone(),
            text: quote.text.clone(),
            media: quote.media.clone(),
            path: None,
        }
    }

    /// The same without its file, for a caller that does not need the file.
    pub fn without_file(self) -> Self {
        Self { media: None, path: None, ..self }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::super::tests::rules;
    use super::*;
    use crate::types::{ChatId, Forwarded, GroupName, MediaKind, Mention, Role};

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const NEW: MessageFacts = MessageFacts {
        is_known: false,
        sender: SenderStanding::Other,
        permission: AskPermission::Granted,
        quotes: QuotedAuthor::Other,
    };
    const OWNERS: MessageFacts = MessageFacts { sender: SenderStanding::Owner, ..NEW };

    fn family() -> Group {
        Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), Role::Member)
    }

    fn message(text: &str) -> IncomingMessage {
        IncomingMessage {
            chat: ChatId::new("family@g.us"),
            id: MessageId::new("1"),
            sender: SenderId::new("ana@lid"),
            sender_name: "Ana".to_owned(),
            text: text.to_owned(),
            sent_at: NOW,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    fn days_old(text: &str) -> IncomingMessage {
        IncomingMessage { sent_at: NOW - SignedDuration::from_hours(48), ..message(text) }
    }

    fn decide(message: &IncomingMessage, facts: MessageFacts, edit: Option<EarlierEdit>) -> MessageChange {
        let known = KnownMessage { facts, edit, standing: ChatStanding::default() };
        decide_message(&family(), message, known, &rules(), NOW)
    }

    fn stored(change: MessageChange) -> StoredMessage {
        match change {
            MessageChange::Stored(stored) => stored,
            MessageChange::Dropped | MessageChange::Command(_) | MessageChange::Refused(_) => {
                panic!("{change:?}")
            }
        }
    }

    fn photo() -> Media {
        let mime = "image/jpeg".to_owned();
        Media { kind: MediaKind::Image, mime, name: None, bytes: 7, handle: Vec::new() }
    }

    #[test]
    fn a_call_wakes_unless_it_is_too_old_and_then_the_chat_hears_of_it() {
        use WakeDecision::{Context, Wakes};
        for (message, wake, is_missed) in [
            (message("@Kai hello"), Wakes, false),
            (message("hello"), Context, false),
            (days_old("@Kai hello"), Context, true),
            (days_old("hello"), Context, false),
        ] {
            let stored = stored(decide(&message, NEW, None));
            assert_eq!(stored.call, CallDecision { wake, is_missed, refusal: None }, "{message:?}");
            assert!(stored.is_pending && stored.replaced_edit.is_none());
        }
    }

    #[test]
    fn a_command_is_answered_or_missed_and_never_stored_for_an_agent() {
        let change = decide(&message("/help"), OWNERS, None);
        let MessageChange::Command(CommandChange::Answered { answer, .. }) = &change else {
            panic!("{change:?}")
        };
        assert!(answer.starts_with("Kai: ") && answer.contains("@Kai"), "{answer}");
        let missed = decide(&days_old("/help"), OWNERS, None);
        assert_eq!(missed, MessageChange::Command(CommandChange::Missed));
        assert_eq!(stored(decide(&message("/help"), NEW, None)).call.wake, WakeDecision::Context);
    }

    #[test]
    fn an_edit_that_came_before_its_message_gives_it_its_text_and_one_answer() {
        use WakeDecision::{Context, Wakes};
        let edit =
            |is_pending, wake| Some(EarlierEdit { row: 7, text: "newer".to_owned(), is_pending, wake });
        for (edit, old, wake, is_pending, replaced_edit) in [
            (edit(true, Wakes), "hello", Wakes, true, Some(7)),
            (edit(true, Context), "@Kai hello", Context, true, Some(7)),
            (edit(false, Wakes), "@Kai hello", Context, false, None),
        ] {
            let kept = stored(decide(&message(old), NEW, edit.clone()));
            let call = CallDecision::settled(wake);
            let expected = StoredMessage { text: "newer".to_owned(), call, is_pending, replaced_edit };
            assert_eq!(kept, expected, "{edit:?}");
        }
        let pictured = IncomingMessage { media: Some(photo()), ..message("@Kai hello") };
        assert!(stored(decide(&pictured, NEW, edit(false, Wakes))).is_pending, "the picture is news");
    }

    #[test]
    fn an_edit_replaces_what_waits_follows_what_was_read_and_gives_way_to_a_later_one() {
        let calls = CallDecision::settled(WakeDecision::Wakes);
        for (is_known, has_newer, pending_row, expected) in [
            (true, false, Some(7), EditChange::Dropped),
            (true, true, None, EditChange::Dropped),
            (false, true, Some(7), EditChange::Superseded),
            (false, false, Some(7), EditChange::ReplacesText { row: 7, call: calls }),
            (false, false, None, EditChange::Follows(calls)),
        ] {
            let (permission, quotes) = (AskPermission::Granted, QuotedAuthor::Other);
            let known = KnownEdit { is_known, has_newer, pending_row, permission, quotes };
            assert_eq!(
                decide_edit(&family(), &message("@Kai now"), known, &rules(), NOW),
                expected,
                "{known:?}"
            );
        }
    }

    #[test]
    fn of_whom_may_not_ask_nothing_calls_and_nothing_is_kept_where_the_owner_wants_that() {
        use crate::types::{OthersPolicy, SenderPolicy, SenderRule};
        let reason = RefusalReason::NotAllowed;
        let permission = AskPermission::Refused(reason);
        let facts = MessageFacts { permission, ..NEW };
        let rule = |others| SenderRule { may_ask: SenderPolicy::Owner, others, ..SenderRule::default() };
        let called = message("@Kai hello");
        let edit = EarlierEdit {
            row: 7,
            text: "@Kai newer".to_owned(),
            is_pending: true,
            wake: WakeDecision::Wakes,
        };
        let known_edit = KnownEdit {
            is_known: false,
            has_newer: false,
            pending_row: None,
            permission,
            quotes: QuotedAuthor::Kai,
        };

        let group = Group { senders: rule(OthersPolicy::Context), ..family() };
        for edit in
            [None, Some(edit.clone()), Some(EarlierEdit { wake: WakeDecision::Context, ..edit.clone() })]
        {
            let change = decide_message(
                &group,
                &called,
                KnownMessage { facts, edit: edit.clone(), standing: ChatStanding::default() },
                &rules(),
                NOW,
            );
            assert_eq!(stored(change).call, CallDecision::refused(reason), "{edit:?}");
        }
        // A person who may not ask is not told that Kai was away.
        let late = decide_message(
            &group,
            &days_old("@Kai hello"),
            KnownMessage { facts, edit: None, standing: ChatStanding::default() },
            &rules(),
            NOW,
        );
        assert!(!stored(late).call.is_missed);
        let change = decide_edit(&group, &called, known_edit, &rules(), NOW);
        assert_eq!(change, EditChange::Follows(CallDecision::refused(reason)));

        let group = Group { senders: rule(OthersPolicy::Dropped), ..family() };
        let known = |edit| KnownMessage { facts, edit, standing: ChatStanding::default() };
        assert_eq!(
            decide_message(&group, &called, known(Some(edit)), &rules(), NOW),
            MessageChange::Refused(reason)
        );
        assert_eq!(
            decide_message(&group, &message("hi"), known(None), &rules(), NOW),
            MessageChange::Dropped
        );
        assert_eq!(decide_edit(&group, &called, known_edit, &rules(), NOW), EditChange::Dropped);
    }

    #[test]
    fn what_is_quoted_is_told_in_words_even_if_it_had_none() {
        let id = MessageId::new("1");
        for (text, is_reaction, path, told) in [
            ("hello", false, None, "hello"),
            ("👍", true, None, "[Reaction: 👍]"),
            ("", false, Some("a.pdf"), "[File: a.pdf]"),
            ("the plan", false, Some("a.pdf"), "[File: a.pdf] the plan"),
        ] {
            let quote = KnownQuote::own_reply(&id, text.to_owned(), is_reaction, path);
            assert_eq!((quote.text.as_str(), quote.source), (told, QuoteSource::Kai));
        }
        let gone = KnownQuote::unknown_message(&id, "Ana");
        assert_eq!(gone.clone().mark_deleted().text, "[deleted message]");
        let pictured = KnownQuote { media: Some(photo()), ..gone };
        assert_eq!(pictured.mark_deleted().text, "");
        assert_eq!(
            (text_for_agent("hi", true), text_for_agent("hi", false)),
            ("[Edited] hi".into(), "hi".into())
        );
    }

    fn facts() -> impl Strategy<Value = MessageFacts> {
        let facts = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
        facts.prop_map(|(is_known, is_owner, is_refused, quotes_kai)| {
            let refused = AskPermission::Refused(RefusalReason::NotAllowed);
            MessageFacts {
                is_known,
                permission: if is_refused && !is_owner { refused } else { AskPermission::Granted },
                sender: if is_owner { SenderStanding::Owner } else { SenderStanding::Other },
                quotes: if quotes_kai { QuotedAuthor::Kai } else { QuotedAuthor::Other },
            }
        })
    }

    fn edit() -> impl Strategy<Value = Option<EarlierEdit>> {
        let edit = (".*", any::<bool>(), any::<bool>()).prop_map(|(text, is_pending, wakes)| {
            let wake = if wakes { WakeDecision::Wakes } else { WakeDecision::Context };
            EarlierEdit { row: 7, text, is_pending, wake }
        });
        prop::option::of(edit)
    }

    proptest! {
        #[test]
        fn no_message_is_lost_told_twice_or_answered_late(
            text in prop_oneof![".*", "@Kai .*", Just("/help".to_owned())],
            hours in -100_i64..100, facts in facts(), edit in edit(),
        ) {
            let sent_at = NOW - SignedDuration::from_hours(hours);
            match decide(&IncomingMessage { sent_at, ..message(&text) }, facts, edit.clone()) {
                MessageChange::Dropped => prop_assert!(facts.is_known),
                MessageChange::Refused(_) => prop_assert!(false, "this group keeps what others write"),
                MessageChange::Command(change) => {
                    prop_assert_eq!(facts.sender, SenderStanding::Owner);
                    prop_assert_eq!(change == CommandChange::Missed, hours > 24);
                }
                MessageChange::Stored(stored) => {
                    prop_assert!(!facts.is_known);
                    let is_refused = facts.permission != AskPermission::Granted;
                    prop_assert!(!is_refused || stored.call.wake == WakeDecision::Context);
                    prop_assert!(is_refused || stored.call.refusal.is_none());
                    prop_assert!(!(stored.call.is_missed && stored.call.wake == WakeDecision::Wakes));
                    prop_assert!(!stored.call.is_missed || hours > 24);
                    let read = edit.as_ref().is_some_and(|edit| !edit.is_pending);
                    prop_assert_eq!(stored.is_pending, !read, "what nobody has read waits");
                    prop_assert_eq!(stored.replaced_edit.is_some(), edit.as_ref().is_some_and(|edit| edit.is_pending));
                    prop_assert_eq!(stored.text, edit.map_or(text, |edit| edit.text));
                }
            }
        }
    }
}
