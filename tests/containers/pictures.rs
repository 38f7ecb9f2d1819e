//! Pictures that people send, as each engine shows them to the model.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use nanokimi::agent::Engine;
use nanokimi::types::MediaKind;
use support::container_world::World;
use support::test_service::media;

/// One red pixel.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

#[tokio::test]
async fn a_picture_is_seen_by_the_model() {
    for engine in Engine::ALL {
        let mut world = World::with(engine).await;
        world.chats.hold_file(b"photo", &BASE64_STANDARD.decode(PNG).unwrap());
        world.sends("family", "@Kai SAY how small", media(MediaKind::Image, "image/png", b"photo")).await;
        assert_eq!(world.hears_in("family").await, "Kai: how small");
        let request = world.practice.received_requests().pop().unwrap().body.to_string();
        assert!(request.contains(&format!("data:image/png;base64,{PNG}")), "{request}");
        world.ends().await;
    }
}
