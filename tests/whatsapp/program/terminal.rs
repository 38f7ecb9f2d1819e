//! The program on a terminal of its own, made by `script`: the code is drawn in place, fits, and is removed.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use whatsapp_server::PATIENCE;

use super::world::{FAMILY, Home, KAI, scanned, server};

/// A frame begins at the top left of the screen. At its end the rest of the screen below is erased.
const FRAME: (&str, &str) = ("\u{1b}[H", "\u{1b}[J");
const SECOND_SCREEN: &str = "\u{1b}[?1049h";
const FIRST_SCREEN: &str = "\u{1b}[?1049l";

/// The program, with a person who uses it.
struct Terminal {
    child: Child,
    shown: String,
}

impl Terminal {
    fn start(home: &Home, rows: usize, columns: usize, arguments: &str) -> Self {
        let run =
            format!("stty rows {rows} cols {columns}; exec {} {arguments}", env!("CARGO_BIN_EXE_nanokimi"));
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &run, "/dev/null"]);
        home.settle(&mut command);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        Self { child: command.spawn().unwrap(), shown: String::new() }
    }

    /// What the person sees next, as soon as `seen` accepts it.
    async fn until<T>(&mut self, what: &str, seen: impl Fn(&str) -> Option<T>) -> T {
        let mut bytes = Vec::new();
        let reading = async {
            loop {
                let mut more = [0; 4096];
                let count = self.child.stdout.as_mut().unwrap().read(&mut more).await.unwrap();
                assert!(count > 0, "ended without {what}: {}", String::from_utf8_lossy(&bytes));
                bytes.extend(&more[..count]);
                if let Ok(text) = std::str::from_utf8(&bytes)
                    && let Some(found) = seen(text)
                {
                    return (found, text.to_owned());
                }
            }
        };
        let (found, text) =
            timeout(PATIENCE, reading).await.unwrap_or_else(|_| panic!("waited too long for {what}"));
        self.shown.push_str(&text);
        found
    }
}

impl Terminal {
    async fn types(&mut self, keys: &str) {
        self.child.stdin.as_mut().unwrap().write_all(keys.as_bytes()).await.unwrap();
    }

    async fn ended(mut self) {
        assert!(timeout(PATIENCE, self.child.wait()).await.unwrap().unwrap().success());
    }
}

/// The lines of the newest whole frame with these words.
fn frame(shown: &str, words: &str) -> Option<Vec<String>> {
    let frames = shown.split(FRAME.0).skip(1).filter_map(|frame| Some(frame.split_once(FRAME.1)?.0));
    let newest = frames.filter(|frame| frame.contains(words)).last()?;
    Some(newest.split("\r\n").map(|line| line.trim_end_matches("\u{1b}[K").to_owned()).collect())
}

async fn links_on_a_terminal(rows: usize, columns: usize) {
    let server = server().await;
    let home = Home::new(&server);
    let mut terminal = Terminal::start(&home, rows, columns, "auth");
    terminal.until("a sentence", |shown| shown.contains("Asking WhatsApp for a code …").then_some(())).await;
    let lines = terminal.until("a code", |shown| frame(shown, "Scan within")).await;
    assert!(terminal.shown.contains(SECOND_SCREEN) && lines.len() <= rows, "{lines:#?}");
    server.scan_qr(KAI, &scanned(&lines)).unwrap();
    terminal.until("the end", |shown| shown.contains("Next: `nanokimi setup`").then_some(())).await;
    let (_, after) = terminal.shown.rsplit_once(FIRST_SCREEN).expect("the code is gone");
    assert!(after.contains("Linked as +15550002222 (Kai's owner). 1 group found."), "{after}");
    terminal.ended().await;
}

#[tokio::test]
async fn on_a_small_terminal_the_code_fits_and_is_gone_afterwards() {
    links_on_a_terminal(24, 80).await;
}

#[tokio::test]
async fn on_a_large_terminal_the_code_is_as_large_as_can_be() {
    links_on_a_terminal(50, 100).await;
}

#[tokio::test]
async fn a_terminal_that_is_too_small_is_told_so() {
    let server = server().await;
    let home = Home::new(&server);
    let mut terminal = Terminal::start(&home, 10, 60, "auth");
    let lines = terminal.until("a sentence", |shown| frame(shown, "too small")).await;
    assert!(lines.len() <= 10 && lines.concat().contains("--pair-code PHONE"), "{lines:#?}");
}

#[tokio::test]
async fn the_arrow_keys_choose_the_main_channel() {
    let server = server().await;
    let home = Home::linked(&server).await;
    let mut terminal = Terminal::start(&home, 24, 80, "setup");
    let shown = |shown: &str| {
        (shown.contains("Message yourself") && shown.contains("Family (2 members)")).then_some(())
    };
    terminal.until("the chats", shown).await;
    // Down, and Enter.
    terminal.types("\u{1b}[B\r").await;
    terminal.until("the end", |shown| shown.contains("Kai has said hello there.").then_some(())).await;
    assert!(terminal.shown.contains("Family (2 members) is your main channel now"), "{}", terminal.shown);
    terminal.ended().await;
    let groups = home.run(&["groups", "list"]).await.with_code(0).stdout;
    let main = groups.lines().find(|line| line.starts_with("main  everything  "));
    assert!(main.is_some_and(|line| line.ends_with(FAMILY)), "{groups}");
}
