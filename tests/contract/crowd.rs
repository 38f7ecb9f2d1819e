//! Many at once: what a night away, or a busy evening, leaves for a device.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use support::whatsapp_client::{Device, Files};
use whatsapp_rust::prelude::MessageExt;
use whatsapp_server::Server;

const AUTHORS: [&str; 3] = ["15550001111", "15550003333", "15550004444"];
const KAI: &str = "15550002222";
const GROUPS: usize = 50;
const MESSAGES: usize = 1000;

/// Ten times what it takes on an idle machine with two cores.
const IN_TIME: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_thousand_messages_in_fifty_groups_come_once_and_in_the_order_of_their_groups() {
    let server = Server::start().await.unwrap();
    server.add_account(KAI, "100000000000002", "Kai");
    for (number, author) in AUTHORS.into_iter().enumerate() {
        server.add_account(author, &format!("10000000000001{number}"), "Somebody");
    }
    let group = |number: usize| format!("1203630000000001{number:02}@g.us");
    for number in 0..GROUPS {
        server.add_group(&group(number), "A group", &[AUTHORS[number % AUTHORS.len()], KAI]);
    }
    let files = Files::new();
    let mut kai = Device::linked(&server, &files, KAI).await;
    server.wait_until_settled(KAI).await;

    let began = Instant::now();
    let write = async {
        for number in 0..MESSAGES {
            let place = number % GROUPS;
            server.phone_writes(AUTHORS[place % AUTHORS.len()], &group(place), &number.to_string()).await;
        }
    };
    let hear = async {
        let mut heard: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for _ in 0..MESSAGES {
            let message = kai.next_message().await;
            let number = message.message.text_content().unwrap().parse().unwrap();
            heard.entry(message.info.source.chat.to_string()).or_default().push(number);
        }
        heard
    };
    let ((), heard) = tokio::join!(write, hear);
    server.wait_until_settled(KAI).await;
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());

    assert_eq!(heard.len(), GROUPS);
    for (place, numbers) in heard.values().enumerate() {
        let expected: Vec<usize> = (place..MESSAGES).step_by(GROUPS).collect();
        assert_eq!(*numbers, expected, "group {place}");
    }
}
