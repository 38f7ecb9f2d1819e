//! A thousand messages in fifty groups at once, while the connection is lost three times.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::chats::{Chats, KAI};
use crate::service;

const MESSAGES: usize = 1_000;
const GROUPS: usize = 50;
/// After so many messages the connection is lost.
const DROPS: [usize; 3] = [250, 500, 750];
/// How long nothing may come before it counts as lost.
const PATIENCE: Duration = Duration::from_secs(90);

pub async fn run() {
    let chats = Chats::new(GROUPS).await;
    let (stop, stopped) = oneshot::channel();
    let (home, url) = (chats.home.path().to_owned(), chats.server.url());
    let service = tokio::spawn(async move { service::run(&home, &url, stopped).await });
    chats.server.wait_until_online(KAI).await;
    let began = Instant::now();
    for number in 0..MESSAGES {
        if DROPS.contains(&number) {
            chats.server.drop_connection(KAI);
        }
        chats.ask(number).await;
    }
    let counts = chats.count(MESSAGES, PATIENCE).await;
    let (drops, secs) = (DROPS.len(), began.elapsed().as_secs());
    counts.report(&format!("burst: {GROUPS} groups, {drops} connections lost, {secs} s"));
    stop.send(()).unwrap();
    service.await.unwrap();
}
