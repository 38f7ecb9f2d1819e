//! The link's database fails at different writes. Nothing that was written meanwhile is lost, and the bridge
//! goes on by itself once the database works again.

use nanokimi::bridge::{Event, HandedOver};
use nanokimi::types::LinkState;
use rusqlite::Connection;
use support::whatsapp_client::{Device, Files};
use tokio::time::timeout;
use whatsapp_server::PATIENCE;

use super::world::{ANNA, ANNAS_CHAT, Bridge, FAMILY, Folder, KAI, message, server, store};

/// Lets the table take this many more rows and no other row, as on a disk that becomes full.
fn fill_disk(folder: &Folder, table: &str, rows: u32) {
    let full = format!(
        "CREATE TABLE room (rows INTEGER); INSERT INTO room VALUES ({rows});
         CREATE TRIGGER full BEFORE INSERT ON {table} WHEN (SELECT rows FROM room) = 0
         BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END;
         CREATE TRIGGER filled AFTER INSERT ON {table} BEGIN UPDATE room SET rows = rows - 1; END;"
    );
    database(folder).execute_batch(&full).unwrap();
}

fn free_disk(folder: &Folder) {
    database(folder).execute_batch("DROP TRIGGER full; DROP TRIGGER filled; DROP TABLE room;").unwrap();
}

fn database(folder: &Folder) -> Connection {
    let database = Connection::open(folder.path().join("wa.db")).unwrap();
    database.busy_timeout(PATIENCE).unwrap();
    database
}

/// Texts that came before the link was lost.
async fn until_lost(bridge: &mut Bridge) -> Vec<String> {
    let mut came = Vec::new();
    let losing = async {
        while *bridge.end.link.borrow_and_update() == LinkState::Online {
            tokio::select! {
                changed = bridge.end.link.changed() => changed.expect("the bridge runs"),
                Some(batch) = bridge.end.batches.recv() => came.extend(texts(&store(batch))),
            }
        }
    };
    timeout(PATIENCE, losing).await.expect("the run is ended");
    came
}

fn texts(batch: &[Event]) -> Vec<String> {
    batch.iter().filter_map(message).map(|message| message.text).collect()
}

#[tokio::test]
async fn whatever_write_fails_all_that_was_written_comes_and_answers_go_out() {
    let server = server().await;
    let (folder, annas) = (Folder::new(), Files::new());
    Bridge::linked(&server, &folder).await.stop().await;
    let mut anna = Device::linked(&server, &annas, ANNA).await;
    let cases = [
        ("pending_inbound_messages", 0),
        ("pending_inbound_messages", 2),
        ("sessions", 0),
        ("sender_keys", 0),
    ];
    for (table, rows) in cases {
        let mut bridge = Bridge::serve(&server, &folder);
        bridge.wait_until_online().await;
        server.wait_until_settled(KAI).await;
        fill_disk(&folder, table, rows);
        let mut written = Vec::new();
        for number in 0..6 {
            let text = format!("{table} {rows}: {number}");
            anna.write(if number % 2 == 0 { FAMILY } else { KAI }, &text).await;
            written.push(text);
        }
        let mut came = until_lost(&mut bridge).await;
        free_disk(&folder);
        while !written.iter().all(|text| came.contains(text)) {
            came.extend(texts(&bridge.next_batch().await));
        }
        bridge.wait_until_online().await;
        let id = format!("3EB0{table}{rows}");
        assert_eq!(bridge.say(ANNAS_CHAT, &id, "All read.").await, Ok(HandedOver::Sent));
        assert_eq!(anna.next_message().await.info.id, id);
        bridge.stop().await;
    }
}
