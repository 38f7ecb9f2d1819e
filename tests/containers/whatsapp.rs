//! The whole way, with every part real: somebody writes on WhatsApp with a real client, the program receives
//! it, an agent in its container answers, and the client decrypts the answer. Only WhatsApp's server and the
//! model are our own, on this machine.

use support::whatsapp_client::{Device, Files, address};
use tokio::time::timeout;
use whatsapp_rust::download::MediaType;
use whatsapp_rust::media::{ImageOptions, image_message};
use whatsapp_rust::prelude::{Event, MessageExt};
use whatsapp_rust::types::presence::ChatPresence;
use whatsapp_rust::upload::UploadOptions;
use whatsapp_server::{PATIENCE, Server};

use crate::program::{KEY, Process, Program};

const ANNA: &str = "15550001111";
const KAI: &str = "15550002222";
const KAIS_CHAT: &str = "15550002222@s.whatsapp.net";
const FAMILY: &str = "120363000000000001@g.us";

/// Texts that must not be in a log at INFO: people's numbers and names, names of chats, messages, and the
/// key.
const CANARIES: [&str; 10] = [
    ANNA,
    KAI,
    "100000000000001",
    "100000000000002",
    "120363000000000001",
    "Annabel",
    "Family of the canary",
    "good morning",
    "beach",
    KEY,
];

/// Anna, the family's group, and the program, which runs on a linked account.
struct World {
    server: Server,
    anna: Device,
    program: Program,
    service: Process,
    _annas: Files,
}

impl World {
    async fn new() -> Self {
        let server = Server::start().await.unwrap();
        server.add_account(ANNA, "100000000000001", "Annabel");
        server.add_account(KAI, "100000000000002", "Owner");
        server.add_group(FAMILY, "Family of the canary", &[ANNA, KAI]);
        let program = Program::linked(&server, KAI).await;
        program.does(&["groups", "add", "main", "--main", "--chat", KAIS_CHAT]).await;
        program.does(&["groups", "add", "family", "--chat", FAMILY]).await;
        let annas = Files::new();
        let anna = Device::linked(&server, &annas, ANNA).await;
        let environment = [("NANOKIMI_WHATSAPP_URL", server.url()), ("LOG_LEVEL", "info".to_owned())];
        let environment = environment.each_ref().map(|(name, value)| (*name, value.as_str()));
        let mut service = program.starts(&["run"], &environment);
        service.prints("Connected to WhatsApp").await;
        Self { server, anna, program, service, _annas: annas }
    }

    /// The service stops. Its log has no private text.
    async fn ends(self) {
        let log = self.service.stops().await.join("\n");
        assert!(log.contains("INFO") && log.contains("The turn is over"), "{log}");
        let told: Vec<&str> = CANARIES.into_iter().filter(|canary| log.contains(canary)).collect();
        assert!(told.is_empty(), "the log tells {told:?}:\n{log}");
        self.anna.stop().await;
        self.program.ends().await;
    }
}

#[tokio::test]
async fn what_is_written_in_a_group_is_answered_there() {
    let mut world = World::new().await;
    let asked = world.anna.write(FAMILY, "@Kai SAY good morning").await;
    let typing = |event: &Event| {
        matches!(event, Event::ChatPresence(seen) if seen.state == ChatPresence::Composing).then_some(())
    };
    world.anna.wait_for("Kai types", typing).await;
    let answer = timeout(PATIENCE, world.anna.next_message()).await.unwrap();
    assert_eq!(answer.message.text_content(), Some("Kai: good morning"));
    let text = answer.message.get_base_message().extended_text_message.as_option().unwrap();
    let quotes = text.context_info.as_option().and_then(|context| context.stanza_id.clone());
    assert_eq!(quotes, Some(asked.clone()));
    world.server.wait_for_receipt_of_kind(KAI, &asked, "read").await;
    world.server.wait_for_chatstate(KAI, FAMILY, "paused").await;
    world.ends().await;
}

#[tokio::test]
async fn a_picture_reaches_the_agent_and_a_file_comes_back() {
    let mut world = World::new().await;
    let photo: Vec<u8> = (0..50_001_u32).map(|byte| (byte % 251) as u8).collect();
    let upload =
        world.anna.client.upload(photo.clone(), MediaType::Image, UploadOptions::new()).await.unwrap();
    let copy =
        r#"@Kai CALL Bash {"command": "cp /workspace/group/inbox/*/*.jpg /workspace/group/beach.jpg"}"#;
    let options = ImageOptions { caption: Some(copy.to_owned()), ..Default::default() };
    world.anna.client.send_message(address(FAMILY), image_message(upload, options)).await.unwrap();
    assert!(world.anna.next_message().await.message.text_content().unwrap().starts_with("Kai: tool said:"));
    assert_eq!(std::fs::read(world.program.paths().groups_folder().join("family/beach.jpg")).unwrap(), photo);

    world.anna.write(FAMILY, r#"@Kai SAY <file path="beach.jpg">The beach</file>"#).await;
    let image = world.anna.next_that("a picture", |message| message.message.image_message.is_set()).await;
    let image = image.message.get_base_message().image_message.as_option().unwrap().clone();
    assert_eq!(image.caption.as_deref(), Some("Kai: The beach"));
    assert_eq!(world.anna.client.download(&image).await.unwrap(), photo);
    world.ends().await;
}

#[tokio::test]
async fn the_owner_writes_to_themselves_and_kai_answers_there() {
    let world = World::new().await;
    world.server.phone_writes(KAI, KAIS_CHAT, "SAY good morning, owner").await;
    let seen = world.server.next_on_phone(KAI).await;
    assert_eq!(seen.text(), "Kai: good morning, owner");
    world.ends().await;
}
