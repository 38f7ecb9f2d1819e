//! Measures the memory of a linked service while no messages come. The program is the one of a release. This
//! test has linked its home, since only tests accept the loopback server's certificate.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::sleep;

use crate::chats::{Chats, KAI};
use crate::service;

/// How long the service rests before it is measured.
const REST: Duration = Duration::from_secs(60);

pub async fn run(program: &Path) {
    let chats = Chats::new(1).await;
    let mut command = Command::new(program);
    command.arg("--home").arg(&chats.place.home).arg("run").env("NANOKIMI_WHATSAPP_URL", chats.server.url());
    let process = command.stdin(Stdio::null()).kill_on_drop(true).spawn().unwrap();
    chats.server.wait_until_online(KAI).await;
    sleep(REST).await;
    let megabytes = |name| service::memory_mb(process.id().unwrap(), name);
    let size = std::fs::metadata(program).unwrap().len() as f64 / 1024.0 / 1024.0;
    println!(
        "idle for {} s, linked: memory {:.1} MB (RSS), of which {:.1} MB its own and {:.1} MB files · program {size:.1} MB",
        REST.as_secs(),
        megabytes("VmRSS"),
        megabytes("RssAnon"),
        megabytes("RssFile"),
    );
}
