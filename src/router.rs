//! Whether a message is a command, wakes Kai, only waits as context for the next prompt, or is nothing new.
//!
//! Decides from values alone. The caller looks up the sender and earlier messages.

mod permission;

use crate::commands::GivenCommand;
use crate::types::{ForwardPolicy, Forwarded, Group, IncomingMessage, Mention, Role};
use crate::writing::find_calls_by_name;

pub use permission::{AskPermission, RefusalReason, SenderListing};

/// What happens with a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageRoute {
    /// nanokimi itself does something; no agent ever reads the message.
    Command(GivenCommand),
    /// As [`WakeDecision::Wakes`].
    Wakes,
    /// As [`WakeDecision::Context`].
    Context,
    /// It calls Kai, and its author may not.
    Refused(RefusalReason),
    /// It has come before, is one of Kai's own, or is nothing that this group keeps. It is not stored.
    Dropped,
}

/// What is known of a message besides its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageFacts {
    /// It has come before, under any name of its sender, or it is one of Kai's own.
    pub is_known: bool,
    pub sender: SenderStanding,
    pub permission: AskPermission,
    pub quotes: QuotedAuthor,
}

/// Who the sender is, as far as commands need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderStanding {
    Owner,
    /// Somebody else, or an unknown person.
    Other,
}

/// What is known of a sender's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderFacts {
    /// One of them is the linked account's.
    pub is_linked_account: bool,
    /// One of them is the name of the chat, which then is a direct chat.
    pub is_other_side: bool,
    /// One of them is the name of the main channel, which then is a direct chat.
    pub is_main_channel: bool,
}

impl SenderStanding {
    /// Decides who the sender surely is. The linked account is the owner, since its phone can end the link. A
    /// person at a terminal of the server is the owner too. So is the other person in a direct chat that is
    /// the main channel: its owner chose that chat, and Kai may have an account of its own. A main channel
    /// that is a group may have other members, so only the account is the owner there.
    /// The person whose direct chat is the main channel is the owner in every other chat, too.
    pub fn in_group(group: &Group, sender: SenderFacts) -> Self {
        let has_own_channel =
            group.role == Role::Main && !group.chat.is_whatsapp_group() && sender.is_other_side;
        let is_owner = sender.is_linked_account || sender.is_main_channel || has_own_channel;
        if is_owner || group.chat.is_console_chat() { Self::Owner } else { Self::Other }
    }
}

/// What a message does for the group's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WakeDecision {
    /// A turn begins, or the running turn is told of it.
    Wakes,
    /// It is stored, and told with the next prompt.
    Context,
}

/// The author of the message that this one answers. The caller looks up Kai's own messages by their ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuotedAuthor {
    Kai,
    /// Another person's message, or this one answers nothing.
    Other,
}

/// A command is the whole text of a message that the owner wrote in this chat; the caption of a file is not a
/// command. Every other message wakes Kai, if its author may ask, or is context.
pub fn route_message(
    group: &Group,
    trigger: &str,
    message: &IncomingMessage,
    facts: MessageFacts,
) -> MessageRoute {
    if facts.is_known {
        return MessageRoute::Dropped;
    }
    let may_command = facts.sender == SenderStanding::Owner
        && message.forwarded == Forwarded::No
        && message.media.is_none();
    if may_command && let Some(given) = GivenCommand::from_text(&message.text) {
        return MessageRoute::Command(given);
    }
    match (wake_decision_for(group, trigger, message, facts.quotes), facts.permission) {
        (WakeDecision::Wakes, AskPermission::Granted) => MessageRoute::Wakes,
        (WakeDecision::Wakes, AskPermission::Refused(reason)) => MessageRoute::Refused(reason),
        (WakeDecision::Context, permission) if permission.is_kept(group.senders) => MessageRoute::Context,
        (WakeDecision::Context, _) => MessageRoute::Dropped,
    }
}

/// The main channel always wakes Kai. In other chats a message needs `@<trigger>`, a native mention, or a
/// quote of Kai. The words of a message that was passed on from another chat count only if the group's owner
/// wants that.
///
/// `trigger` is the name as the owner typed it, with or without `@`. It is searched as a whole word, in any
/// case.
pub fn wake_decision_for(
    group: &Group,
    trigger: &str,
    message: &IncomingMessage,
    quotes: QuotedAuthor,
) -> WakeDecision {
    let may_call = message.forwarded == Forwarded::No || group.forwards == ForwardPolicy::Call;
    let addressed = group.role == Role::Main
        || quotes == QuotedAuthor::Kai
        || (may_call && (message.mention == Mention::Me || contains_trigger(&message.text, trigger)));
    if addressed { WakeDecision::Wakes } else { WakeDecision::Context }
}

/// Whether `text` holds `@<trigger>` as a word, anywhere, in any case; the rule is that of `writing::find_calls_by_name`.
pub fn contains_trigger(text: &str, trigger: &str) -> bool {
    !find_calls_by_name(text, trigger).is_empty()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use proptest::prelude::*;

    use super::*;
    use crate::commands::Command;
    use crate::types::{
        ChatId, GroupName, Media, MediaKind, MessageId, OthersPolicy, SenderId, SenderPolicy, SenderRule,
    };

    fn message(text: &str) -> IncomingMessage {
        IncomingMessage {
            chat: ChatId::new("family@g.us"),
            id: MessageId::new("3EB0"),
            sender: SenderId::new("alice@lid"),
            sender_name: "Alice".to_owned(),
            text: text.to_owned(),
            sent_at: Timestamp::UNIX_EPOCH,
            mention: Mention::NotMe,
            forwarded: Forwarded::No,
            quote: None,
            media: None,
            expires_secs: None,
        }
    }

    fn group(role: Role) -> Group {
        Group::new(GroupName::parse("family").unwrap(), ChatId::new("family@g.us"), role)
    }

    fn woken_by(trigger: &str, text: &str) -> WakeDecision {
        wake_decision_for(&group(Role::Member), trigger, &message(text), QuotedAuthor::Other)
    }

    #[test]
    fn kai_is_called_by_name_anywhere_in_the_text() {
        for text in [
            "@Kai hello",
            "@kai hello",
            "@KAI hello",
            "hello @Kai",
            "what did we decide, @Kai?",
            "@Kai",
            "   @Kai hey",
            "line one\n@Kai line two",
            "@Kai's thing",
            "@Kai’s thing",
            "@Kai, come",
            "(@Kai)",
            "*@Kai*",
            "¿@Kai?",
            "hola.@Kai",
            "@@Kai",
            "@Kai.",
            "@Kai👍",
            "👍@Kai",
            "@Kai-please",
            "@Kai，你好",
            "@Kai\u{a0}hello",
            "@Kaiextra @Kai",
            "@Kai\0",
            // marks that only change the direction
            "\u{200f}@Kai مرحبا",
            "@Kai\u{200f}",
            "\u{200e}@Kai hello",
            "@\u{2068}Kai\u{2069} hello",
            "\u{2067}@Kai\u{2069}",
            "\u{61c}@\u{200e}Kai\u{61c}, hello",
            "\u{202a}@Kai\u{202c}",
            "hello\u{200f}@Kai",
            // an emoji and its marks
            "❤\u{fe0f}@Kai",
            "1\u{fe0f}\u{20e3}@Kai",
            // beside an address or code
            "https://example.org/a @Kai summarize",
            "(see https://example.org/a)@Kai",
            "foo@example.org @Kai",
            "`x` @Kai",
            "Ana/@Kai",
            "@Kai.",
            "@Kai.ok",
            "@Kai@Ana",
            "a ` b @Kai",
            // within a style
            "_@Kai, please_",
            "*_@Kai_*, please",
        ] {
            assert_eq!(woken_by("Kai", text), WakeDecision::Wakes, "{text:?}");
        }
    }

    #[test]
    fn what_only_resembles_the_name_does_not_call() {
        for text in [
            "",
            "@",
            "Kai",
            "hello",
            "@Ka",
            "@ Kai",
            "@Kaiextra hello",
            "@Kai2",
            "@Kai_bot",
            "@Kaié",
            "@Kaie\u{301}",
            "x@Kai",
            "1@Kai",
            "x_@Kai",
            "@Kai_x",
            "é@Kai",
            "mail@kai.com",
            "@K\u{430}i hello", // Cyrillic а
            "@\u{212a}ai",      // the Kelvin sign, which Unicode folds to k
            "@Ka\u{131}",       // dotless i
            "@\u{200b}Kai",     // zero-width space
            "@K\u{200d}ai",     // zero-width joiner
            "@Kai\u{200b}",     // invisible characters are word characters
            "\u{2060}@Kai",     // word joiner
            "@Kai\u{301}",      // a combining mark makes it another letter
            "@K\u{200f}ai",     // inside of the name even that makes another word
            "@\u{2068}K\u{2069}ai",
            "x@\u{200f}Kai",
            "https://medium.com/@kai/post-1", // addresses
            "medium.com/@kai",
            "look:https://www.tiktok.com/@kai?lang=es",
            "https://example.org/?to=@kai",
            "https://user:@kai.example/",
            "foo@kai.example",
            "foo.@kai.example",
            "foo+@kai.example",
            "mailto:@kai",
            "@kai@mastodon.social",
            "@kai.bsky.social",
            "`@Kai`", // code
            "run `ping @kai now`",
            "```\nnotify(\"@kai\")\n```",
            "\u{ff20}Kai",               // fullwidth ＠
            "@\u{ff2b}\u{ff41}\u{ff49}", // fullwidth letters
        ] {
            assert_eq!(woken_by("Kai", text), WakeDecision::Context, "{text:?}");
        }
    }

    #[test]
    fn the_owner_may_choose_another_name() {
        use WakeDecision::{Context, Wakes};
        for (trigger, text, expected) in [
            ("@Claw", "@Claw hello", Wakes),
            ("Claw", "@claw hello", Wakes),
            ("@Claw", "@Kai hello", Context),
            (" @Claw ", "hey @Claw", Wakes),
            ("José", "@José ven", Wakes),
            ("José", "@JOSÉ ven", Wakes),
            ("José", "@Jose ven", Context),
            ("Jose", "@José ven", Context),
            ("Jose", "@Jose\u{301} ven", Context),
            ("Ёж", "@ёЖ", Wakes),
            ("小Kai", "@小kai 你好", Wakes),
            ("Big Kai", "ask @big kai!", Wakes),
            ("Big Kai", "ask @big", Context),
            ("Big Kai", "@Big Kairo", Context),
            ("K.", "@K. and", Wakes),
            ("", "@ hello", Context),
            ("@", "@@ hello", Context),
            ("  ", "@   hello", Context),
        ] {
            assert_eq!(woken_by(trigger, text), expected, "{trigger:?} in {text:?}");
        }
    }

    #[test]
    fn the_main_channel_a_mention_and_a_quote_need_no_name() {
        use WakeDecision::{Context, Wakes};
        for (role, mention, quotes, expected) in [
            (Role::Main, Mention::NotMe, QuotedAuthor::Other, Wakes),
            (Role::Member, Mention::Me, QuotedAuthor::Other, Wakes),
            (Role::Member, Mention::NotMe, QuotedAuthor::Kai, Wakes),
            (Role::Member, Mention::NotMe, QuotedAuthor::Other, Context),
        ] {
            let message = IncomingMessage { mention, ..message("hey check this") };
            assert_eq!(
                wake_decision_for(&group(role), "Kai", &message, quotes),
                expected,
                "{role:?} {mention:?} {quotes:?}"
            );
        }
    }

    #[test]
    fn what_is_passed_on_calls_only_if_the_owner_wants_it() {
        use WakeDecision::{Context, Wakes};
        for (role, forwards, forwarded, text, mention, expected) in [
            (Role::Member, ForwardPolicy::Told, Forwarded::No, "@Kai hello", Mention::NotMe, Wakes),
            (Role::Member, ForwardPolicy::Told, Forwarded::Once, "@Kai hello", Mention::NotMe, Context),
            (Role::Member, ForwardPolicy::Told, Forwarded::Many, "@Kai hello", Mention::NotMe, Context),
            (Role::Member, ForwardPolicy::Told, Forwarded::Once, "hello", Mention::Me, Context),
            (Role::Member, ForwardPolicy::Call, Forwarded::Once, "@Kai hello", Mention::NotMe, Wakes),
            (Role::Member, ForwardPolicy::Call, Forwarded::Many, "hello", Mention::Me, Wakes),
            (Role::Member, ForwardPolicy::Call, Forwarded::Many, "hello", Mention::NotMe, Context),
            (Role::Main, ForwardPolicy::Told, Forwarded::Many, "hello", Mention::NotMe, Wakes),
        ] {
            let message = IncomingMessage { forwarded, mention, ..message(text) };
            let group = Group { forwards, ..group(role) };
            assert_eq!(
                wake_decision_for(&group, "Kai", &message, QuotedAuthor::Other),
                expected,
                "{forwards:?} {message:?}"
            );
        }
    }

    #[test]
    fn a_sticker_that_answers_kai_wakes() {
        assert_eq!(
            wake_decision_for(&group(Role::Member), "Kai", &message("[Sticker]"), QuotedAuthor::Kai),
            WakeDecision::Wakes
        );
    }

    #[test]
    fn only_the_owners_own_and_whole_word_is_a_command() {
        use SenderStanding::{Other, Owner};
        let command = |command, argument: Option<&str>| {
            MessageRoute::Command(GivenCommand { command, argument: argument.map(str::to_owned) })
        };
        let route = |role, sender, message: &IncomingMessage| {
            let permission = AskPermission::Granted;
            let facts = MessageFacts { is_known: false, sender, permission, quotes: QuotedAuthor::Other };
            route_message(&group(role), "Kai", message, facts)
        };
        for (role, sender, text, expected) in [
            (Role::Member, Owner, "/help", command(Command::Help, None)),
            (Role::Member, Owner, " /Ayuda\n", command(Command::Help, None)),
            (Role::Main, Owner, "/HELP", command(Command::Help, None)),
            (Role::Main, Owner, "/help me", MessageRoute::Wakes),
            (Role::Main, Owner, "/New  Trip to Rome ", command(Command::New, Some("Trip to Rome"))),
            (Role::Member, Owner, "/nuevo", command(Command::New, None)),
            (Role::Member, Owner, "/new\nand more", MessageRoute::Context),
            (Role::Main, Other, "/new", MessageRoute::Wakes),
            (Role::Main, Other, "/help", MessageRoute::Wakes),
            (Role::Member, Other, "/help", MessageRoute::Context),
            (Role::Member, Owner, "@Kai /help", MessageRoute::Wakes),
            (Role::Member, Owner, "/halp", MessageRoute::Context),
        ] {
            assert_eq!(route(role, sender, &message(text)), expected, "{role:?} {sender:?} {text:?}");
        }
        let passed_on = IncomingMessage { forwarded: Forwarded::Once, ..message("/help") };
        assert_eq!(route(Role::Member, Owner, &passed_on), MessageRoute::Context);
        let media = Media {
            kind: MediaKind::Image,
            mime: "image/jpeg".to_owned(),
            name: None,
            bytes: 1,
            handle: Vec::new(),
        };
        let captioned = IncomingMessage { media: Some(media), ..message("/help") };
        assert_eq!(route(Role::Member, Owner, &captioned), MessageRoute::Context);
    }

    #[test]
    fn the_owner_is_only_who_surely_is() {
        use SenderStanding::{Other, Owner};
        for (chat, role, is_linked_account, is_other_side, expected) in [
            ("family@g.us", Role::Member, true, false, Owner),
            ("family@g.us", Role::Member, false, false, Other),
            ("main@g.us", Role::Main, true, false, Owner),
            ("main@g.us", Role::Main, false, false, Other),
            ("main@g.us", Role::Main, false, true, Other),
            ("olga@s.whatsapp.net", Role::Main, false, true, Owner),
            ("olga@s.whatsapp.net", Role::Main, false, false, Other),
            ("olga@s.whatsapp.net", Role::Member, false, true, Other),
            ("console:family", Role::Member, false, false, Owner),
        ] {
            let group = Group { chat: ChatId::new(chat), ..group(role) };
            let sender = SenderFacts { is_linked_account, is_other_side, is_main_channel: false };
            assert_eq!(SenderStanding::in_group(&group, sender), expected, "{chat} {sender:?}");
        }
        let olga = SenderFacts { is_linked_account: false, is_other_side: false, is_main_channel: true };
        assert_eq!(SenderStanding::in_group(&group(Role::Member), olga), Owner, "wherever they write");
    }

    #[test]
    fn every_way_of_calling_passes_the_rule_about_senders() {
        let refused = AskPermission::Refused(RefusalReason::NotAllowed);
        let by_name = message("@Kai hello");
        let mention = IncomingMessage { mention: Mention::Me, ..message("hello") };
        let passed_on = IncomingMessage { forwarded: Forwarded::Once, ..by_name.clone() };
        let (no_quote, quote) = (QuotedAuthor::Other, QuotedAuthor::Kai);
        for (way, role, message, quotes) in [
            ("name", Role::Member, &by_name, no_quote),
            ("mention", Role::Member, &mention, no_quote),
            ("reply", Role::Member, &message("yes"), quote),
            ("forwarded", Role::Member, &passed_on, no_quote),
            ("main channel", Role::Main, &message("hello"), no_quote),
            ("a command that is none", Role::Main, &message("/help"), no_quote),
        ] {
            for others in [OthersPolicy::Context, OthersPolicy::Dropped] {
                let senders = SenderRule { may_ask: SenderPolicy::Listed, others, ..SenderRule::default() };
                let group = Group { forwards: ForwardPolicy::Call, senders, ..group(role) };
                let route = |permission, message: &IncomingMessage, quotes| {
                    let sender = SenderStanding::Other;
                    let facts = MessageFacts { is_known: false, sender, permission, quotes };
                    route_message(&group, "Kai", message, facts)
                };
                assert_eq!(route(AskPermission::Granted, message, quotes), MessageRoute::Wakes, "{way}");
                let expected = MessageRoute::Refused(RefusalReason::NotAllowed);
                assert_eq!(route(refused, message, quotes), expected, "{way}");
                if role == Role::Member {
                    let chatter = route(refused, &self::message("hello"), no_quote);
                    let kept = others == OthersPolicy::Context;
                    assert_eq!(chatter, if kept { MessageRoute::Context } else { MessageRoute::Dropped });
                }
            }
        }
    }

    #[test]
    fn what_is_known_is_dropped_whatever_it_says() {
        for text in ["/help", "@Kai hello", "hello"] {
            let facts = MessageFacts {
                is_known: true,
                sender: SenderStanding::Owner,
                permission: AskPermission::Granted,
                quotes: QuotedAuthor::Kai,
            };
            assert_eq!(
                route_message(&group(Role::Main), "Kai", &message(text), facts),
                MessageRoute::Dropped,
                "{text:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn nothing_that_anybody_types_makes_it_panic(trigger in any::<String>(), text in any::<String>()) {
            woken_by(&trigger, &text);
        }

        #[test]
        fn a_name_between_spaces_always_calls(
            name in "[\\p{L}\\p{N}]{1,8}( [\\p{L}\\p{N}]{1,8})?",
            before in "[^`]*",
            after in "[^`]*",
        ) {
            prop_assert_eq!(woken_by(&name, &format!("{before} @{name} {after}")), WakeDecision::Wakes);
        }

        #[test]
        fn a_name_inside_a_word_never_calls(before in "[a-zé_0-9\u{301}\u{200d}]{1,4}", after in "[ a-z]{0,8}") {
            // A style can begin and end with underscores only.
            prop_assume!(before.chars().any(|c| c != '_'));
            let inside = format!("{before}@Kai {after}");
            prop_assert_eq!(woken_by("Kai", &inside), WakeDecision::Context);
            let longer = format!("{after} @Kai{before}");
            prop_assert_eq!(woken_by("Kai", &longer), WakeDecision::Context);
        }

        #[test]
        fn without_the_sign_nobody_is_called(text in "[^@]*") {
            prop_assert_eq!(woken_by("Kai", &text), WakeDecision::Context);
        }
    }
}
