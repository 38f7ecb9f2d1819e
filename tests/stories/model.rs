//! The owner chooses the model of a chat.

use nanokimi::types::Role;
use support::scripted_engine::Behaviour;

use crate::commands::linked;
use crate::world::World;

async fn is_asked(world: &mut World, group: &str) {
    world.says(group, "Ana", "@Kai hello").await;
    world.prompt().await.answer("Hello.");
    assert_eq!(world.hears_in(group).await, "Kai: Hello.");
}

#[tokio::test(start_paused = true)]
async fn the_next_start_of_the_chats_engine_uses_it_and_no_other_chat_does() {
    let mut world = World::without_service(Behaviour::Held).await;
    world.settings(|settings| settings.model = Some("k3".to_owned()));
    world.add_group("work", Role::Member).await;
    world.start().await;
    world.tells(vec![linked("Olga")]).await;
    is_asked(&mut world, "family").await;
    world.says("family", "Olga", "/model").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: In this chat I think with k3. There is: k3, kimi-for-coding. /model and a name chooses one.");
    world.says("family", "Olga", "/model k4").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: There is no such model. I have changed nothing. There is: k3, kimi-for-coding. /model and a name chooses one.");
    is_asked(&mut world, "family").await;
    world.says("family", "Olga", "/modelo Kimi-for-coding").await;
    insta::assert_snapshot!(world.hears_in("family").await, @"Kai: From your next message on I think with kimi-for-coding in this chat.");
    is_asked(&mut world, "family").await;
    is_asked(&mut world, "work").await;
    world.says("family", "Olga", "/status").await;
    assert!(world.hears_in("family").await.contains("with the model kimi-for-coding,"));
    // Somebody else chooses nothing.
    world.says("family", "Ana", "/model k3").await;
    is_asked(&mut world, "family").await;
    world.says("family", "Olga", "/model k3").await;
    world.hears_in("family").await;
    is_asked(&mut world, "family").await;
    let models = world.docker.models();
    let models: Vec<&str> = models.iter().flatten().map(String::as_str).collect();
    assert_eq!(models, ["k3", "kimi-for-coding", "k3", "k3"]);
    assert_eq!(world.docker.launches(), ["family", "family", "work", "family"]);
    world.ends().await;
}
