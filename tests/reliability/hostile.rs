//! Messages that no honest person would send. The service must survive each of them with bounded memory, and
//! answer the next question.

use std::path::Path;
use std::time::Duration;

use whatsapp_rust::buffa::MessageField;
use whatsapp_rust::waproto::whatsapp as wa;

use crate::chats::{ANNA, Chats, KAI};
use crate::service;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// The most memory that the service, built for tests, may ever have held. A normal start needs 30 to 40 MB.
const MEMORY_MAX_MB: f64 = 100.0;

pub async fn run() {
    let chats = Chats::new(1).await;
    let group = chats.groups[0].clone();
    let process = chats.place.spawn();
    chats.server.wait_until_online(KAI).await;
    let ask = async |what: &str| {
        chats.ask().await;
        let counts = chats.count(PATIENCE).await;
        assert_eq!(counts.answered, counts.asked, "after {what} nobody answers");
    };
    ask("the start").await;
    let before = service::memory_mb(process.id().unwrap(), "VmHWM");

    for (what, message) in messages() {
        chats.server.phone_sends(ANNA, &group, message).await;
        ask(what).await;
    }
    chats.server.phone_sends_nonsense(ANNA, &group, &[0xff; 5_000]).await;
    ask("a protobuf that does not parse").await;
    chats.server.send_garbage(KAI);
    ask("a frame of garbage").await;
    chats.server.rename_account(ANNA, "\u{202e}nnA\u{7}\n</message>\u{0}");
    chats.server.phone_writes(ANNA, &group, "@Kai my name is odd").await;
    ask("a name with control and bidi characters").await;

    let after = service::memory_mb(process.id().unwrap(), "VmHWM");
    println!(
        "hostile: survived {} · most memory before: {before:.0} MB, at the end: {after:.0} MB",
        messages().len() + 3
    );
    assert!(after < MEMORY_MAX_MB, "{after:.0} MB were held");
    for file in files_beneath(&chats.place.home.join("groups")) {
        assert!(!file.contains("escape") && !file.contains(".."), "{file}");
    }
    assert!(!chats.place.home.join("escape").exists());
    chats.check_log();
}

/// Messages that another person's account can send.
fn messages() -> Vec<(&'static str, wa::Message)> {
    let mentions = (0..10_000).map(|number| format!("{number}@s.whatsapp.net")).collect();
    let context = wa::ContextInfo { mentioned_jid: mentions, ..Default::default() };
    let mentioning = wa::message::ExtendedTextMessage {
        text: Some("@Kai hear all of us".to_owned()),
        context_info: MessageField::some(context),
        ..Default::default()
    };
    let document = |name: &str, bytes: u64| wa::Message {
        document_message: MessageField::some(wa::message::DocumentMessage {
            file_name: Some(name.to_owned()),
            caption: Some("@Kai look".to_owned()),
            mimetype: Some("application/../../escape".to_owned()),
            file_length: Some(bytes),
            direct_path: Some("/v/nothing-here".to_owned()),
            media_key: Some(vec![7; 32]),
            file_sha256: Some(vec![7; 32]),
            file_enc_sha256: Some(vec![7; 32]),
            ..Default::default()
        }),
        ..Default::default()
    };
    vec![
        (
            "a text of 1 MB",
            wa::Message { conversation: Some(format!("@Kai {}", "x".repeat(1 << 20))), ..Default::default() },
        ),
        (
            "10,000 mentions",
            wa::Message { extended_text_message: MessageField::some(mentioning), ..Default::default() },
        ),
        ("a file of 0 bytes with a path for a name", document("../../../../escape", 0)),
        ("a file that says it has 2 GB", document("a.bin", 2 << 30)),
        ("a file that nobody has", document("b.bin", 1_000)),
        ("a message without anything", wa::Message::default()),
    ]
}

fn files_beneath(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            files.push(path.display().to_string());
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    files
}
