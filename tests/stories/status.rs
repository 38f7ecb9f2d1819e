//! The owner asks how Kai is and what it has used: answered at once, whatever the agents do.

use std::time::Duration;

use nanokimi::types::{Lang, MediaKind};
use support::scripted_engine::Behaviour;
use support::test_service::What;

use crate::commands::{linked, world_of};
use crate::world::World;

/// Without the version, which changes.
fn without_version(said: &str) -> String {
    said.replace(env!("CARGO_PKG_VERSION"), "1.2.3")
}

#[tokio::test(start_paused = true)]
async fn status_tells_what_runs_what_waits_and_what_was_used() {
    let mut world = world_of("Olga").await;
    world.has_used("family", 12_000, 345).await;
    world.limit("family", Some(200_000)).await;
    world.says("family", "Ana", "@Kai look for a hotel").await;
    let turn = world.prompt().await;
    world.passes(Duration::from_secs(9)).await;
    world.says("family", "Ana", "@Kai near the sea").await;
    world.says("family", "Olga", "/status").await;
    insta::assert_snapshot!(without_version(&world.hears_in("family").await), @r"
    Kai: I have been working on something here for less than a minute. One message waits.
    Nothing keeps me from answering.
    Tokens here today: 12345 of 200000.
    I run on kimi-cli with the model kimi-for-coding, in nanokimi 1.2.3.
    ");
    turn.answer("Found one.");
    assert_eq!(world.hears_in("family").await, "Kai: Found one.");
    world.prompt().await.answer("By the sea.");
    assert_eq!(world.hears_in("family").await, "Kai: By the sea.");
    // Somebody else gets nothing.
    world.says("family", "Ana", "/status").await;
    world.silence(Duration::from_secs(600)).await;
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn status_is_answered_while_nobody_else_can_be() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.forgets_the_key();
    world.settings(|settings| settings.lang = Lang::Es);
    world.start().await;
    world.hears_in("main").await;
    world.tells(vec![linked("Olga")]).await;
    world.says("main", "Olga", "/estado").await;
    insta::assert_snapshot!(without_version(&world.hears_in("main").await), @r"
    Kai: No estoy haciendo nada en este chat.
    Ahora no puedo responder en ningún chat. No tengo iniciada la sesión en Kimi, o ha caducado.
    Tokens aquí hoy: 0, sin límite.
    Funciono con kimi-cli y el modelo kimi-for-coding, en nanokimi 1.2.3.
    ");
    world.ends().await;
}

#[tokio::test(start_paused = true)]
async fn usage_tells_of_today_and_of_the_last_days_here_and_in_all_chats() {
    let mut world = world_of("Olga").await;
    world.has_used("family", 1_000, 10).await;
    world.has_used("main", 5_000, 50).await;
    world.until("2026-11-22T12:00:00Z").await;
    world.has_used("family", 2_000, 20).await;
    world.says("family", "Olga", "/usage").await;
    let heard = world.hears().await;
    assert!(
        matches!(&heard.what, What::File { kind: MediaKind::Image, mime, name, bytes }
            if mime == "image/png" && name == "usage.png" && bytes.starts_with(b"\x89PNG\r\n")),
        "{heard:?}"
    );
    insta::assert_snapshot!(heard.text, @r"
    Kai: Tokens today: 2000 in (2000 cached), 20 out; in this chat 2000 in (2000 cached), 20 out.
    In the last 14 days: 8000 in (8000 cached), 80 out; in this chat 3000 in (3000 cached), 30 out.
    ");
    world.until("2026-12-05T12:00:00Z").await;
    world.says("family", "Olga", "/uso").await;
    insta::assert_snapshot!(world.hears_in("family").await, @r"
    Kai: Tokens today: 0 in (0 cached), 0 out; in this chat 0 in (0 cached), 0 out.
    In the last 14 days: 2000 in (2000 cached), 20 out; in this chat 2000 in (2000 cached), 20 out.
    ");
    world.ends().await;
}
