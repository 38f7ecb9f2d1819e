//! The person's terminal as the other side of the console bridge: typed lines in, replies out.

use std::time::Instant;

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::sync::mpsc;

use super::ui;
use crate::bridge::Typing;
use crate::bridge::console::ConsoleOutput;

/// Typed lines on their way to the bridge.
const LINES_IN_FLIGHT: usize = 16;

/// Lines typed at this terminal, until its end.
pub fn read_typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(LINES_IN_FLIGHT);
    tokio::spawn(async move {
        // By bytes: a file may hold anything.
        let mut typed = BufReader::new(tokio::io::stdin()).split(b'\n');
        while let Ok(Some(line)) = typed.next_segment().await {
            let line = String::from_utf8_lossy(&line);
            let line = line.trim();
            if !line.is_empty() && sender.send(line.to_owned()).await.is_err() {
                return;
            }
        }
    });
    lines
}

/// Prints what the bridge shows, with the time since the person's last message.
pub struct ChatScreen {
    asked: Instant,
    typing: Typing,
}

impl ChatScreen {
    pub fn new() -> Self {
        Self { asked: Instant::now(), typing: Typing::Off }
    }

    pub fn restart_timer(&mut self) {
        self.asked = Instant::now();
    }

    pub fn show_event(&mut self, shown: ConsoleOutput) -> Result<()> {
        match shown {
            ConsoleOutput::Stored => self.print_answer_stage("stored"),
            ConsoleOutput::Typing(typing) => {
                if typing == Typing::On && self.typing == Typing::Off {
                    self.print_answer_stage("typing…");
                }
                self.typing = typing;
            }
            ConsoleOutput::Message(text) => {
                ui::print_result(text)?;
                self.print_answer_stage("answered");
            }
        }
        Ok(())
    }

    fn print_answer_stage(&self, what: &str) {
        ui::print_info(format!("  [{:6.3} s] {what}", self.asked.elapsed().as_secs_f64()));
    }
}
