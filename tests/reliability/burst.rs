//! Very many messages in fifty groups at once, while the connection is lost three times.

use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::chats::{Chats, KAI};
use crate::service;

const GROUPS: usize = 50;
/// How often the connection is lost, after equal numbers of messages.
const DROPS: usize = 3;
/// If no answer comes for this long, the open questions count as lost.
const PATIENCE: Duration = Duration::from_secs(90);

pub async fn run(messages: usize) {
    let chats = Chats::new(GROUPS).await;
    let (stop, stopped) = oneshot::channel();
    let (home, url) = (chats.place.home.clone(), chats.server.url());
    let service = tokio::spawn(async move { service::run(&home, &url, stopped).await });
    chats.server.wait_until_online(KAI).await;
    let began = Instant::now();
    for part in 0..=DROPS {
        if part > 0 {
            chats.server.drop_connection(KAI);
        }
        for _ in 0..messages / (DROPS + 1) {
            chats.ask().await;
        }
    }
    let counts = chats.count(PATIENCE).await;
    let secs = began.elapsed().as_secs();
    chats.report(&format!("burst: {GROUPS} groups, {DROPS} connections lost, {secs} s"), &counts);
    stop.send(()).unwrap();
    service.await.unwrap();
}
