//! The main channel is chosen, the service runs with WhatsApp, and stops if only a person can help.

use insta::assert_snapshot;
use nanokimi::store::Store;
use nanokimi::types::LinkState;
use support::fake_docker::{self, Image};
use support::whatsapp_client::{Device, Files};
use whatsapp_rust::prelude::MessageExt;
use whatsapp_server::Interruption;

use super::world::{ANNA, FAMILY, Home, KAI, KAIS_CHAT, server};

#[tokio::test]
async fn setup_makes_the_chosen_chat_the_main_channel_and_kai_says_hello_there() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let phone = Files::new();
    let mut other = Device::linked(&server, &phone, KAI).await;
    let said = home.run(&["setup", "--main", KAIS_CHAT]).await.with_code(0);
    let folder = home.path("nanokimi/groups/main");
    assert_snapshot!(said.stderr.replace(folder.to_str().unwrap(), "FOLDER"), @"
    Connecting to WhatsApp …
    Added main. Its folder is FOLDER.
    Message yourself is your main channel now; `nanokimi groups remove main` undoes that.
    Kai has said hello there. Next: `nanokimi service install` keeps nanokimi running, `nanokimi groups chats` shows the chats that you can add.
    ");
    let hello = other.next_message().await;
    let text = hello.message.text_content().unwrap();
    assert!(text.starts_with("Kai: Hello, I am Kai, your assistant."), "{text}");

    let again = home.run(&["setup"]).await.with_code(0);
    assert!(
        again.stderr.starts_with("The main channel is main already (15550002222@s.whatsapp.net);"),
        "{again:?}"
    );
    let status = home.run(&["status"]).await.with_code(0).stdout;
    assert!(
        status.contains("replies to send      0\nreplies unconfirmed  0\nreplies given up     0\n"),
        "{status}"
    );
}

#[tokio::test]
async fn a_group_is_told_too_and_its_members_read_it() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let annas = Files::new();
    let mut anna = Device::linked(&server, &annas, ANNA).await;
    home.run(&["setup", "--main", FAMILY]).await.with_code(0);
    let hello = anna.next_message().await;
    assert!(hello.message.text_content().unwrap().starts_with("Kai: Hello, I am Kai"));
}

#[tokio::test]
async fn setup_that_nobody_answers_lists_the_chats() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let said = home.run(&["setup"]).await.with_code(1);
    assert_snapshot!(said.stderr, @"
    Connecting to WhatsApp …
    nanokimi: Nobody is there to choose; name the chat, as in `nanokimi setup --main 15550002222@s.whatsapp.net`. The chats are:
      15550002222@s.whatsapp.net  Message yourself
      120363000000000001@g.us  Family (2 members)
    ");
    let said = home.run(&["setup", "--main", "9@g.us"]).await.with_code(1);
    assert!(
        said.stderr
            .ends_with("9@g.us is no chat of this account; `nanokimi groups chats` shows those there are")
    );
}

/// A home whose service can run: linked, with a group, and with a Docker that cannot create containers.
async fn ready_home(server: &whatsapp_server::Server) -> Home {
    let home = Home::linked(server).await;
    home.run(&["groups", "add", "family", "--chat", FAMILY]).await.with_code(0);
    fake_docker::start(&home.path("run/docker.sock"), Image::Built);
    home
}

#[tokio::test]
async fn the_service_carries_whatsapp_until_it_is_asked_to_stop() {
    let server = server().await;
    let home = ready_home(&server).await;
    let mut service = home.start(&["run"]);
    service.says("Connected to WhatsApp").await;
    let status = home.run(&["status"]).await.with_code(0).stdout;
    assert!(status.contains("whatsapp             +15550002222 (Kai's owner), online since 20"), "{status}");
    let refused = home.run(&["auth"]).await.with_code(1).stderr;
    assert!(
        refused.ends_with("stop that one first: systemctl --user stop nanokimi, or Ctrl-C where it runs"),
        "{refused}"
    );
    service.stop();
    service.ended().await.with_code(0);
}

#[tokio::test]
async fn a_device_that_the_phone_removes_ends_the_service_with_a_sentence() {
    let server = server().await;
    let home = ready_home(&server).await;
    let mut service = home.start(&["run"]);
    service.says("Connected to WhatsApp").await;
    server.interrupt(KAI, Interruption::Unlinked);
    let logged_out = "nanokimi: WhatsApp has logged this device out: it was removed on the phone, or the account is locked. \
         Look at WhatsApp on the phone, then run `nanokimi auth`";
    assert_eq!(service.ended().await.with_code(3).stderr, logged_out);
    assert_eq!(home.run(&["run"]).await.with_code(3).stderr, logged_out);
    assert_eq!(home.run(&["auth", "--status"]).await.with_code(3).stderr, logged_out);
    let doctor = home.run(&["doctor"]).await.with_code(1).stdout;
    assert!(doctor.contains("BROKEN   WhatsApp has logged this device out"), "{doctor}");
}

/// The stream error `<conflict type="replaced"/>`. The service takes the link back once, after five minutes.
/// If that ends in the same way, it notes that it was replaced (tested in `bridge/links` and
/// `stories/delivery`). This test begins at that point.
#[tokio::test]
async fn conflict_type_replaced() {
    let server = server().await;
    let home = ready_home(&server).await;
    let doctor = home.run(&["doctor"]).await.stdout;
    assert!(doctor.contains("A WhatsApp account is linked; it last came online on 20"), "{doctor}");
    let store = Store::open(&home.path("nanokimi/store/nanokimi.db")).unwrap();
    store.record_link_state(&LinkState::Replaced, "2026-11-21T22:26:40Z".parse().unwrap()).await.unwrap();
    drop(store);
    let doctor = home.run(&["doctor"]).await.with_code(1).stdout;
    let found: Vec<&str> =
        doctor.lines().skip_while(|line| !line.contains("taken the link")).take(2).collect();
    assert_snapshot!(found.join("\n"), @"
    BROKEN   Another program has taken the link to WhatsApp over, on 2026-11-21 22:26 UTC
             → Stop that one for good, such as a copy of this install, then start nanokimi again
    ");
}
