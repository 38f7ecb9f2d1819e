//! An account is linked and unlinked, as a person does it.

use insta::assert_snapshot;
use rusqlite::Connection;
use whatsapp_server::{Passkeys, Refusal, Server};

use super::world::{FAMILY, Home, KAI, server};

#[tokio::test]
async fn the_code_on_the_screen_is_scanned_and_the_account_is_linked() {
    let server = server().await;
    let home = Home::new(&server);
    assert_snapshot!(home.run(&["auth", "--status"]).await.with_code(3).stderr, @"nanokimi: No WhatsApp account is linked; run `nanokimi auth`");
    let mut auth = home.start(&["auth"]);
    let code = auth.qr_code().await;
    server.scan_qr(KAI, &code).unwrap();
    let said = auth.ended().await.with_code(0);
    assert_eq!(said.stdout, "");
    assert_snapshot!(said.stderr, @"
    Asking WhatsApp for a code … (up to a minute; Ctrl-C ends)
    Scan within 60 s: WhatsApp → Settings → Linked devices → Link a device
    The phone has agreed. Fetching the chats … (up to some minutes; Ctrl-C ends)
    Linked as +15550002222 (Kai's owner). 1 group found. Next: `nanokimi setup`
    ");
    assert_eq!(server.devices(KAI), 1);

    assert_snapshot!(home.run(&["auth"]).await.with_code(0).stderr, @"Linked already as +15550002222 (Kai's owner). Next: `nanokimi setup`; `nanokimi auth --logout` removes the link.");
    let status = home.run(&["auth", "--status"]).await.with_code(0).stdout;
    let lines: Vec<&str> = status.lines().map(|line| line.split(" 20").next().unwrap()).collect();
    assert_snapshot!(lines.join("\n"), @"
    account  +15550002222 (Kai's owner)
    link     last online
    since
    ");
    let chats = home.run(&["groups", "chats"]).await.with_code(0);
    assert!(chats.stdout.contains(FAMILY) && chats.stdout.contains("Family (2 members)"), "{}", chats.stdout);
    assert!(chats.stdout.lines().nth(1).unwrap().ends_with("Message yourself"), "{}", chats.stdout);

    // As if `auth` was killed right after the phone had agreed.
    let database = Connection::open(home.path("nanokimi/store/nanokimi.db")).unwrap();
    database.execute_batch("DELETE FROM chats; DELETE FROM account").unwrap();
    assert_snapshot!(home.run(&["groups", "chats"]).await.with_code(0).stderr, @"WhatsApp has not told any chat yet; `nanokimi setup`, or the service, fetches them.");
}

#[tokio::test]
async fn the_code_that_is_typed_into_the_phone_links_the_account() {
    let server = server().await;
    let home = Home::new(&server);
    let mut auth = home.start(&["auth", "--pair-code", "\u{202a}+1\u{a0}555 000\u{2011}2222\u{202c}"]);
    let code = auth.wait_for("a code", |line| line.strip_prefix("    ").map(str::to_owned)).await;
    let groups: Vec<usize> = code.split('-').map(str::len).collect();
    assert_eq!(groups, [4, 4], "{code}");
    server.enter_code(KAI, &code.replace('-', "")).unwrap();
    auth.says("Linked as +15550002222 (Kai's owner).").await;
    auth.ended().await.with_code(0);
}

/// What a browser shows after its passkey has signed.
fn passkey_answer(server: &Server) -> String {
    let challenge = server.passkey_challenge();
    format!(
        r#"{{"id":"a2V5","rawId":"a2V5","type":"public-key","response":{{"clientDataJSON":"{challenge}","authenticatorData":"AA","signature":"AA","userHandle":null}}}}"#
    )
}

#[tokio::test]
async fn a_passkey_is_answered_by_the_persons_browser() {
    let server = server().await;
    server.demand_passkey(KAI, Passkeys::Accepted);
    let home = Home::new(&server);
    let mut auth = home.start(&["auth"]);
    server.scan_qr(KAI, &auth.qr_code().await).unwrap();
    auth.says(server.passkey_challenge()).await;
    auth.types("this is nothing").await;
    auth.says("That is not the whole line").await;
    auth.types(&passkey_answer(&server)).await;
    let shown = |line: &str| Some(line.split_once("Is it ")?.1.split_once('?')?.0.to_owned());
    let code = auth.wait_for("a code", shown).await;
    server.confirm_passkey_code(KAI, &code).unwrap();
    auth.types("yes").await;
    auth.says("Linked as +15550002222").await;
    auth.ended().await.with_code(0);
}

#[tokio::test]
async fn what_keeps_an_account_from_being_linked_has_a_code_and_a_remedy() {
    let server = server().await;
    let home = Home::new(&server);
    server.offer_qr_codes(0);
    let said = home.run(&["auth"]).await.with_code(7).stderr;
    assert!(said.ends_with("take the phone and run `nanokimi auth` again"), "{said}");
    server.offer_qr_codes(6);
    for (refusal, code, expected) in [
        (429, 8, "wait some hours, then run it again"),
        (452, 9, "check it with its country's code, or run `nanokimi auth` for a QR code"),
    ] {
        server.refuse_next_code(KAI, refusal);
        let said = home.run(&["auth", "--pair-code", &format!("+{KAI}")]).await.with_code(code).stderr;
        assert!(said.ends_with(expected), "{said}");
    }
    assert_eq!(home.run(&["auth", "--status"]).await.code, Some(3));
}

#[tokio::test]
async fn ctrl_c_links_nothing() {
    let server = server().await;
    let home = Home::new(&server);
    let mut auth = home.start(&["auth"]);
    auth.qr_code().await;
    auth.stop();
    let said = auth.ended().await.with_code(1);
    assert!(said.stderr.ends_with("Nothing was linked. `nanokimi auth` begins anew."), "{said:?}");
}

#[tokio::test]
async fn ctrl_c_after_the_phone_has_agreed_says_that_the_account_is_linked() {
    let server = server().await;
    let home = Home::new(&server);
    server.refuse_next_login(KAI, Refusal::Other(418));
    let mut auth = home.start(&["auth"]);
    server.scan_qr(KAI, &auth.qr_code().await).unwrap();
    auth.says("The phone has agreed.").await;
    auth.stop();
    let said = auth.ended().await.with_code(1).stderr;
    assert_snapshot!(said.lines().last().unwrap(), @"The phone has agreed, but WhatsApp has not told the chats yet. Next: `nanokimi setup` asks for them again; `nanokimi auth --logout` removes the link.");
}

#[tokio::test]
async fn an_answer_from_a_script_is_not_undone_by_its_end() {
    let server = server().await;
    server.demand_passkey(KAI, Passkeys::Refused);
    let home = Home::new(&server);
    let mut auth = home.start(&["auth"]);
    server.scan_qr(KAI, &auth.qr_code().await).unwrap();
    auth.says(server.passkey_challenge()).await;
    auth.types(&passkey_answer(&server)).await;
    auth.types_no_more();
    let said = auth.ended().await.with_code(1).stderr;
    assert!(
        said.contains("Sent. Look at the phone.") && said.contains("WhatsApp did not link this device"),
        "{said}"
    );
}

#[tokio::test]
async fn unlinking_asks_tells_whatsapp_and_leaves_no_keys() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let said = home.run(&["auth", "--logout"]).await.with_code(1).stderr;
    assert_snapshot!(said, @"nanokimi: Nobody is there to ask: Remove this device from +15550002222 (Kai's owner)? Add --yes to say yes");
    let said = home.run(&["auth", "--logout", "--yes"]).await.with_code(0).stderr;
    assert_snapshot!(said, @"Unlinked from +15550002222 (Kai's owner). `nanokimi auth` links an account again.");
    assert!(!home.path("nanokimi/store/auth").exists());
    assert_snapshot!(home.run(&["auth", "--logout"]).await.with_code(0).stderr, @"No WhatsApp account is linked.");
}

#[tokio::test]
async fn a_damaged_link_can_be_left_behind_and_made_anew() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let keys = home.path("nanokimi/store/auth");
    for rest in ["wa.db-wal", "wa.db-shm"] {
        std::fs::remove_file(keys.join(rest)).ok();
    }
    std::fs::write(keys.join("wa.db"), "no database, but many bytes ".repeat(100)).unwrap();
    let said = home.run(&["auth", "--logout", "--yes"]).await.with_code(1).stderr;
    assert!(said.starts_with("The keys of the link are damaged: "), "{said}");
    assert!(
        said.ends_with("remove the device on the phone, under WhatsApp → Settings → Linked devices"),
        "{said}"
    );
    let mut auth = home.start(&["auth"]);
    server.scan_qr(KAI, &auth.qr_code().await).unwrap();
    auth.ended().await.with_code(0);
}
