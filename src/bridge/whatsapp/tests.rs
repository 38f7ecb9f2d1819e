//! What messages of all kinds mean, and that no message of any shape does harm.

mod kinds;

use proptest::prelude::*;
use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::chrono;
use whatsapp_rust::prelude::{Jid, MessageBuilderExt as _, MessageInfo, wa};
use whatsapp_rust::types::message::{EditAttribute, MessageCategory};

use super::contents::{self, MessageContent};
use super::inbound::{self, OwnAccount};
use super::wording::{clean_name, truncate_to_bytes};
use crate::types::{Event, Forwarded, IncomingMessage, MediaKind, Mention, SenderId};

use wa::message as kind;

const ANNA: &str = "15550001111@s.whatsapp.net";
const ANNA_LID: &str = "100000000000001@lid";
const FAMILY: &str = "120363000000000001@g.us";

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn me() -> OwnAccount {
    OwnAccount {
        phone: Some(jid("15550002222@s.whatsapp.net")),
        lid: Some(jid("100000000000002@lid")),
        name: "Kai's owner".to_owned(),
    }
}

/// A message of Anna's in the family's group.
fn info() -> MessageInfo {
    let mut info = MessageInfo { id: "3EB0".into(), push_name: "Anna".into(), ..Default::default() };
    info.source.chat = jid(FAMILY);
    info.source.sender = jid("100000000000001:7@lid");
    info.source.is_group = true;
    info.timestamp = chrono::DateTime::from_timestamp(1_800_000_000, 0).unwrap();
    info
}

fn events(info: &MessageInfo, message: &wa::Message) -> Vec<Event> {
    let name_of = |sender: &SenderId| (sender.as_str() == ANNA_LID).then(|| "Anna".to_owned());
    inbound::build_message_events(&me(), &name_of, info, message)
}

fn said(message: &wa::Message) -> IncomingMessage {
    match events(&info(), message).pop() {
        Some(Event::Message(said)) => said,
        other => panic!("{other:?}"),
    }
}

fn extended(text: &str, context: wa::ContextInfo) -> wa::Message {
    wa::Message::text_with_context(text, context)
}

fn some<T: Default>(value: T) -> MessageField<T> {
    MessageField::some(value)
}

fn image(caption: &str) -> wa::Message {
    image_with(caption, 50_000)
}

fn image_with(caption: &str, thumbnail_bytes: usize) -> wa::Message {
    let image = kind::ImageMessage {
        caption: Some(caption.to_owned()),
        mimetype: Some("image/jpeg".to_owned()),
        direct_path: Some("/v/1".to_owned()),
        media_key: Some(vec![1; 32]),
        file_sha256: Some(vec![2; 32]),
        file_enc_sha256: Some(vec![3; 32]),
        file_length: Some(4711),
        jpeg_thumbnail: Some(vec![9; thumbnail_bytes]),
        ..Default::default()
    };
    wa::Message { image_message: some(image), ..Default::default() }
}

#[test]
fn words_of_every_kind() {
    let place = |latitude, longitude, name: Option<&str>| {
        let location = kind::LocationMessage {
            degrees_latitude: latitude,
            degrees_longitude: longitude,
            name: name.map(str::to_owned),
            ..Default::default()
        };
        wa::Message { location_message: some(location), ..Default::default() }
    };
    let card = |name: &str, card: &str| kind::ContactMessage {
        display_name: Some(name.to_owned()),
        vcard: Some(card.to_owned()),
        ..Default::default()
    };
    let anna =
        card("Anna", "BEGIN:VCARD\r\nFN:Anna\r\nitem1.TEL;waid=15550001111:+1 555 000 1111\r\nEND:VCARD");
    let option = |name: &str| kind::poll_creation_message::Option {
        option_name: Some(name.to_owned()),
        ..Default::default()
    };
    let poll = kind::PollCreationMessage {
        name: Some("Pizza\nor pasta?".to_owned()),
        options: vec![option("Pizza"), option("Pasta")],
        ..Default::default()
    };
    let future = |message: wa::Message| kind::FutureProofMessage { message: some(message) };
    let cases = [
        ("text", wa::Message::text("Hello"), "Hello"),
        ("text with context", extended("Hello", wa::ContextInfo::default()), "Hello"),
        ("caption", image("The beach"), "The beach"),
        (
            "place",
            place(Some(40.7128), Some(-74.006), Some("NYC")),
            "[Location: 40.712800, -74.006000 — NYC]",
        ),
        ("place without a name", place(Some(0.0), Some(0.0), None), "[Location: 0.000000, 0.000000]"),
        (
            "contact",
            wa::Message { contact_message: some(anna.clone()), ..Default::default() },
            "[Contact: Anna, +1 555 000 1111]",
        ),
        (
            "contacts",
            wa::Message {
                contacts_array_message: some(kind::ContactsArrayMessage {
                    contacts: vec![anna, card("Bo", "")],
                    ..Default::default()
                }),
                ..Default::default()
            },
            "[Contact: Anna, +1 555 000 1111]\n[Contact: Bo]",
        ),
        (
            "poll",
            wa::Message { poll_creation_message_v3: some(poll), ..Default::default() },
            "[Poll: Pizza or pasta? — Pizza · Pasta]",
        ),
        (
            "disappearing, to be seen once",
            wa::Message {
                ephemeral_message: some(future(wa::Message {
                    view_once_message_v2: some(future(image("Once"))),
                    ..Default::default()
                })),
                ..Default::default()
            },
            "Once",
        ),
        ("a kind newer than the library", wa::Message::default(), "[A message of a kind that I cannot read]"),
    ];
    for (what, message, text) in cases {
        assert_eq!(said(&message).text, text, "{what}");
    }
    for (what, message) in [
        ("no text", wa::Message::text("")),
        ("half a place", place(Some(40.0), None, None)),
        ("nowhere", place(Some(999.0), Some(999.0), None)),
        ("not a number", place(Some(f64::NAN), Some(1.0), None)),
        (
            "keys",
            wa::Message {
                sender_key_distribution_message: some(kind::SenderKeyDistributionMessage::default()),
                ..Default::default()
            },
        ),
        (
            "a setting",
            wa::Message { protocol_message: some(kind::ProtocolMessage::default()), ..Default::default() },
        ),
        (
            "a vote",
            wa::Message {
                poll_update_message: some(kind::PollUpdateMessage::default()),
                ..Default::default()
            },
        ),
    ] {
        assert_eq!(events(&info(), &message), [], "{what}");
    }
}

#[test]
fn files_keep_only_what_finds_them() {
    let image = said(&image("")).media.unwrap();
    assert_eq!((image.kind, image.mime.as_str(), image.bytes), (MediaKind::Image, "image/jpeg", 4711));
    assert!(image.handle.len() < 200, "the thumbnail is not kept: {} bytes", image.handle.len());

    let audio = |ptt| kind::AudioMessage { ptt, ..Default::default() };
    let document = kind::DocumentMessage {
        file_name: Some("../\u{202e}fdp.exe\n".to_owned()),
        mimetype: Some("text/<script>\u{7f}".to_owned()),
        ..Default::default()
    };
    let huge = kind::VideoMessage { media_key: Some(vec![0; 10_000]), ..Default::default() };
    let sticker = kind::StickerMessage { mimetype: Some("image/webp".to_owned()), ..Default::default() };
    let cases = [
        (wa::Message { audio_message: some(audio(Some(true))), ..Default::default() }, MediaKind::Voice),
        (wa::Message { audio_message: some(audio(None)), ..Default::default() }, MediaKind::Audio),
        (wa::Message { ptv_message: some(huge), ..Default::default() }, MediaKind::Video),
        (wa::Message { sticker_message: some(sticker), ..Default::default() }, MediaKind::Sticker),
        (wa::Message { document_message: some(document), ..Default::default() }, MediaKind::Document),
    ];
    for (message, kind) in cases {
        let media = said(&message).media.unwrap();
        assert_eq!(media.kind, kind);
        assert!(media.handle.len() < 200);
        if kind == MediaKind::Document {
            assert_eq!(
                (media.name.as_deref(), media.mime.as_str()),
                (Some("../fdp.exe"), "application/octet-stream")
            );
        }
    }
}

#[test]
fn a_mention_of_the_account_counts_under_both_of_its_names_and_no_other() {
    let listed = |jid: &str| {
        extended(
            "hey",
            wa::ContextInfo { mentioned_jid: vec![ANNA.to_owned(), jid.to_owned()], ..Default::default() },
        )
    };
    for (message, mention) in [
        (listed("15550002222@s.whatsapp.net"), Mention::Me),
        (listed("15550002222:16@s.whatsapp.net"), Mention::Me),
        (listed("100000000000002@lid"), Mention::Me),
        (listed("100000000000002:1@lid"), Mention::Me),
        (listed("15550002222@c.us"), Mention::Me),
        (listed("15550002222@hosted"), Mention::Me),
        (listed("15550002222:99@hosted"), Mention::Me),
        (listed("100000000000002@hosted.lid"), Mention::Me),
        (listed("100000000000002:99@hosted.lid"), Mention::Me),
        (listed("15550002222@hosted.lid"), Mention::NotMe),
        (listed("15550002222@g.us"), Mention::NotMe),
        (listed("100000000000002@s.whatsapp.net"), Mention::NotMe),
        (listed("1555000222@s.whatsapp.net"), Mention::NotMe),
        (listed("nonsense"), Mention::NotMe),
        (wa::Message::text("hey @15550002222 check this"), Mention::Me),
        (wa::Message::text("@100000000000002!"), Mention::Me),
        (wa::Message::text("@155500022223"), Mention::NotMe),
        (wa::Message::text("15550002222"), Mention::NotMe),
        (wa::Message::text("@\u{2068}15550002222\u{2069} come"), Mention::Me),
        (wa::Message::text("https://example.org/@15550002222"), Mention::NotMe),
        (wa::Message::text("sip@15550002222"), Mention::NotMe),
        (wa::Message::text("`@15550002222`"), Mention::NotMe),
    ] {
        assert_eq!(said(&message).mention, mention, "{message:?}");
    }
}

#[test]
fn a_quote_says_what_it_answers() {
    let quoting = |quoted: wa::Message, author: &str| {
        let context = wa::ContextInfo {
            stanza_id: Some("3EB1".to_owned()),
            participant: Some(author.to_owned()),
            quoted_message: some(quoted),
            expiration: Some(86_400),
            ..Default::default()
        };
        said(&extended("This one", context))
    };
    for (quoted, text) in [
        (wa::Message::text("Lunch?"), "Lunch?"),
        (image(""), ""),
        (image("The beach"), "The beach"),
        (wa::Message::text(""), ""),
    ] {
        let has_file = quoted.image_message.is_set();
        let answer = quoting(quoted, "100000000000001:7@lid");
        let quote = answer.quote.unwrap();
        assert_eq!(
            (quote.id.as_str(), quote.sender_name.as_str(), quote.text.as_str()),
            ("3EB1", "Anna", text)
        );
        assert_eq!(quote.sender, Some(SenderId::new(ANNA_LID)));
        assert_eq!(
            quote.media.map(|media| (media.kind, media.bytes)),
            has_file.then_some((MediaKind::Image, 4711))
        );
        assert_eq!(answer.expires_secs, Some(86_400));
    }
    for (author, name) in
        [("15550002222@s.whatsapp.net", "Kai's owner"), ("5551234@s.whatsapp.net", "5551234"), ("", "")]
    {
        assert_eq!(quoting(wa::Message::text("x"), author).quote.unwrap().sender_name, name);
    }
}

#[test]
fn what_was_passed_on_is_known_by_its_mark() {
    for (is_forwarded, score, expected) in [
        (None, None, Forwarded::No),
        (Some(false), Some(0), Forwarded::No),
        (Some(true), None, Forwarded::Once),
        (Some(true), Some(0), Forwarded::Once),
        (None, Some(1), Forwarded::Once),
        (Some(true), Some(4), Forwarded::Once),
        (Some(true), Some(5), Forwarded::Many),
        (None, Some(127), Forwarded::Many),
    ] {
        let context = || wa::ContextInfo { is_forwarded, forwarding_score: score, ..Default::default() };
        assert_eq!(
            said(&extended("@Kai hello", context())).forwarded,
            expected,
            "{is_forwarded:?} {score:?}"
        );
        let mut picture = image("@Kai hello");
        picture.image_message.get_or_insert_default().context_info = some(context());
        assert_eq!(said(&picture).forwarded, expected, "{is_forwarded:?} {score:?}");
    }
}

fn changing(r#type: kind::protocol_message::Type, participant: &str, edited: Option<&str>) -> wa::Message {
    let key = wa::MessageKey {
        id: Some("3EB9".to_owned()),
        participant: Some(participant.to_owned()),
        ..Default::default()
    };
    let protocol = kind::ProtocolMessage {
        key: some(key),
        r#type: Some(r#type),
        edited_message: edited.map(|text| some(wa::Message::text(text))).unwrap_or_default(),
        ..Default::default()
    };
    wa::Message { protocol_message: some(protocol), ..Default::default() }
}

#[test]
fn an_edit_names_its_target_in_both_of_its_shapes() {
    let plain = changing(kind::protocol_message::Type::MESSAGE_EDIT, ANNA, Some("Tomorrow"));
    let wrapped = wa::Message {
        edited_message: some(kind::FutureProofMessage { message: some(plain.clone()) }),
        ..Default::default()
    };
    for message in [plain, wrapped] {
        let [Event::Edited(edit)] = &events(&info(), &message)[..] else { panic!("no edit") };
        assert_eq!((edit.target.as_str(), edit.message.text.as_str()), ("3EB9", "Tomorrow"));
        assert_eq!(edit.message.id.as_str(), "3EB0");
    }
    let empty = changing(kind::protocol_message::Type::MESSAGE_EDIT, ANNA, None);
    assert_eq!(events(&info(), &empty), []);
}

#[test]
fn only_an_administrator_takes_back_what_another_wrote() {
    let message = changing(kind::protocol_message::Type::REVOKE, "15550003333:2@s.whatsapp.net", None);
    for (edit, author) in [
        (EditAttribute::SenderRevoke, ANNA_LID),
        (EditAttribute::Empty, ANNA_LID),
        (EditAttribute::AdminRevoke, "15550003333@s.whatsapp.net"),
    ] {
        let info = MessageInfo { edit: edit.clone(), ..info() };
        let [Event::Deleted { chat, sender, target }] = &events(&info, &message)[..] else {
            panic!("{edit:?}")
        };
        assert_eq!((chat.as_str(), sender.as_str(), target.as_str()), (FAMILY, author, "3EB9"));
    }
}

#[test]
fn a_reaction_names_its_target() {
    let reaction = |id: Option<&str>, text: &str| {
        let key = wa::MessageKey { id: id.map(str::to_owned), ..Default::default() };
        let reaction =
            kind::ReactionMessage { key: some(key), text: Some(text.to_owned()), ..Default::default() };
        events(&info(), &wa::Message { reaction_message: some(reaction), ..Default::default() })
    };
    let [Event::Reacted(seen)] = &reaction(Some("3EB9"), "👍")[..] else { panic!("no reaction") };
    assert_eq!(
        (seen.target.as_str(), seen.emoji.as_str(), seen.sender_name.as_str()),
        ("3EB9", "👍", "Anna")
    );
    assert_eq!(reaction(None, "👍"), []);
    let [Event::Reacted(long)] = &reaction(Some("3EB9"), &"👍".repeat(1000))[..] else {
        panic!("no reaction")
    };
    assert!(long.emoji.len() <= 64);
}

#[test]
fn who_wrote_and_where_whatever_whatsapp_calls_them() {
    // The chat with oneself, under either name.
    for chat in ["15550002222@s.whatsapp.net", "100000000000002@lid"] {
        let mut info = info();
        info.source.is_group = false;
        info.source.is_from_me = true;
        info.source.chat = jid(chat);
        info.source.sender = jid("15550002222:3@s.whatsapp.net");
        info.push_name = String::new();
        let [Event::Message(note)] = &events(&info, &wa::Message::text("Buy milk"))[..] else {
            panic!("{chat}")
        };
        assert_eq!(note.chat.as_str(), "15550002222@s.whatsapp.net");
        assert_eq!(
            (note.sender.as_str(), note.sender_name.as_str()),
            ("15550002222@s.whatsapp.net", "Kai's owner")
        );
    }
    // A direct chat names itself after the other one, and says who that is.
    let mut info = info();
    info.source.is_group = false;
    info.source.chat = jid(ANNA_LID);
    info.source.sender_alt = Some(jid("15550001111:7@s.whatsapp.net"));
    let direct = events(&info, &wa::Message::text("Hi"));
    let [Event::SamePerson { one, other }, Event::Chat { id, name, members: None }, Event::Message(hi)] =
        &direct[..]
    else {
        panic!("{direct:?}")
    };
    assert_eq!((one.as_str(), other.as_str()), (ANNA_LID, ANNA));
    assert_eq!((id.as_str(), name.as_str()), (ANNA_LID, "Anna"));
    assert_eq!((hi.chat.as_str(), hi.sender.as_str()), (ANNA_LID, ANNA_LID));
    // Nobody is the same person as a group, or as themselves.
    info.source.sender_alt = Some(jid(FAMILY));
    assert_eq!(events(&info, &wa::Message::text("Hi")).len(), 2);
    // Without a name people have their number.
    info.push_name = "\u{202e}\n".to_owned();
    info.source.sender = jid("5551234@s.whatsapp.net");
    let Some(Event::Message(hi)) = events(&info, &wa::Message::text("Hi")).pop() else {
        panic!("no message")
    };
    assert_eq!(hi.sender_name, "5551234");
}

#[test]
fn another_name_of_a_number_is_the_same_person() {
    for (sender, chat, plain) in [
        ("15550001111:99@hosted", "15550001111@hosted", ANNA),
        ("15550001111@hosted", "15550001111:0@s.whatsapp.net", ANNA),
        ("15550001111:3@s.whatsapp.net", "15550001111@c.us", ANNA),
        ("15550001111@c.us", "15550001111@s.whatsapp.net", ANNA),
        ("100000000000001:99@hosted.lid", "100000000000001@hosted.lid", ANNA_LID),
    ] {
        let mut info = info();
        info.source.is_group = false;
        (info.source.sender, info.source.chat) = (jid(sender), jid(chat));
        let Some(Event::Message(hi)) = events(&info, &wa::Message::text("Hi")).pop() else {
            panic!("{sender}")
        };
        assert_eq!((hi.sender.as_str(), hi.chat.as_str()), (plain, plain), "{sender} in {chat}");
    }
    let pair =
        inbound::same_person_event(&jid("15550001111:99@hosted"), &jid("100000000000001:99@hosted.lid"));
    assert_eq!(pair, Some(Event::SamePerson { one: SenderId::new(ANNA), other: SenderId::new(ANNA_LID) }));
    // The chat with oneself has one name.
    let mut info = info();
    info.source.is_group = false;
    (info.source.sender, info.source.chat) = (jid("15550002222:99@hosted"), jid("15550002222@hosted"));
    let Some(Event::Message(note)) = events(&info, &wa::Message::text("Buy milk")).pop() else {
        panic!("no note")
    };
    assert_eq!(note.chat.as_str(), "15550002222@s.whatsapp.net");
}

#[test]
fn what_is_no_conversation_is_left_out() {
    for (chat, category) in [
        (FAMILY, MessageCategory::Peer),
        ("status@broadcast", MessageCategory::default()),
        ("1234567890@broadcast", MessageCategory::default()),
        ("120363000000000009@newsletter", MessageCategory::default()),
    ] {
        let mut info = info();
        info.source.chat = jid(chat);
        info.category = category;
        assert_eq!(events(&info, &wa::Message::text("Hello")), [], "{chat}");
    }
}

#[test]
fn what_is_too_much_is_cut() {
    let long = "ä".repeat(1_000_000);
    let text = said(&wa::Message::text(&long)).text;
    assert!((65_000..=65_536).contains(&text.chars().count()));
    let call = format!("{} @Kai and that?", "中".repeat(70_000));
    let text = said(&wa::Message::text(&call)).text;
    assert!(text.ends_with("中 @Kai and that?") && text.chars().count() <= 65_536);
    let context = wa::ContextInfo {
        mentioned_jid: vec!["100000000000009@lid".to_owned(); 10_000],
        stanza_id: Some("x".repeat(10_000)),
        quoted_message: some(wa::Message::text(&long)),
        ..Default::default()
    };
    assert_eq!(said(&extended("Hi", context)).quote, None, "nothing has such an id");
    let context = wa::ContextInfo {
        stanza_id: Some("3EB1".to_owned()),
        quoted_message: some(wa::Message::text(&long)),
        ..Default::default()
    };
    assert!(said(&extended("Hi", context)).quote.unwrap().text.chars().count() <= 65_536);
    let mut info = info();
    info.push_name = "n".repeat(1_000_000);
    info.timestamp = chrono::DateTime::<chrono::Utc>::MAX_UTC;
    let Some(Event::Message(hello)) = events(&info, &wa::Message::text("Hello")).pop() else {
        panic!("no message")
    };
    assert_eq!(hello.sender_name.chars().count(), 64);
    info.id = "x".repeat(129);
    assert_eq!(events(&info, &wa::Message::text("Hello")), []);
}

#[test]
fn wrappers_without_end_are_not_followed() {
    let mut message = wa::Message::text("Hello");
    for _ in 0..100 {
        message = wa::Message {
            ephemeral_message: some(kind::FutureProofMessage { message: some(message) }),
            ..Default::default()
        };
    }
    assert!(matches!(
        contents::read_content(contents::unwrap_message(&message)),
        MessageContent::Said { .. }
    ));
}

proptest! {
    /// Whatever bytes a stranger sends: what is made of them is bounded, and one event at most says
    /// something.
    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..2000), secs in any::<i64>(), name in ".{0,200}") {
        use whatsapp_rust::buffa::Message as _;
        let Ok(message) = wa::Message::decode_from_slice(&bytes) else { return Ok(()) };
        let mut info = info();
        info.push_name = name;
        info.timestamp = chrono::DateTime::from_timestamp(secs, 0).unwrap_or_default();
        prop_assert!(events(&info, &message).len() <= 1);
    }

    /// The same for what is almost a message: each field may hold anything.
    #[test]
    fn no_damaged_message_does_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40)) {
        use whatsapp_rust::buffa::Message as _;
        let context = wa::ContextInfo {
            stanza_id: Some("3EB1".to_owned()),
            participant: Some(ANNA.to_owned()),
            mentioned_jid: vec![ANNA.to_owned()],
            quoted_message: some(changing(kind::protocol_message::Type::MESSAGE_EDIT, ANNA, Some("x"))),
            ..Default::default()
        };
        let location = kind::LocationMessage {
            degrees_latitude: Some(1.0),
            degrees_longitude: Some(1.0),
            ..Default::default()
        };
        let message = wa::Message {
            location_message: some(location),
            protocol_message: changing(kind::protocol_message::Type::REVOKE, ANNA, None).protocol_message,
            ..image_with("The beach", 5)
        };
        for mut bytes in [message.encode_to_vec(), extended("Hi", context).encode_to_vec()] {
            for (place, byte) in &changes {
                let place = place.index(bytes.len());
                bytes[place] = *byte;
            }
            if let Ok(message) = wa::Message::decode_from_slice(&bytes) {
                prop_assert!(events(&info(), &message).len() <= 1);
            }
        }
    }

    /// A name stays one line that turns nothing around, and a cut text stays text.
    #[test]
    fn names_and_texts_are_bounded(text in "\\PC{0,300}|.{0,300}", limit in 4_usize..200) {
        let name = clean_name(&text);
        let harmful = name.chars().any(|c| c.is_control() || c == '\u{202e}');
        prop_assert!(name.chars().count() <= 64 && !harmful);
        let cut = truncate_to_bytes(&text, limit);
        prop_assert!(cut.len() <= limit);
        prop_assert!(cut == text || text.starts_with(cut.trim_end_matches('…')));
    }
}
