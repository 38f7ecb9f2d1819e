//! `nanokimi chat`: talk to a group's agent from this terminal, with the configured model.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::install::{self, Install};
use super::terminal::{ChatScreen, read_typed_lines};
use super::{log, ui};
use crate::bridge;
use crate::bridge::console::{Console, ConsoleOutput};
use crate::commands::GivenCommand;
use crate::container::Containers;
use crate::router;
use crate::service::{self, BridgeReach};
use crate::session::SessionContext;
use crate::store::Store;
use crate::types::{ChatId, Group, GroupName, Role};

/// How often the chat checks whether all is answered, once nothing more is said.
const ANSWERS_LOOK: Duration = Duration::from_millis(50);
/// What an answer may take beyond its turn: the container's start, and the notice if the turn took too long.
const PATIENCE_BEYOND_TURN: Duration = Duration::from_secs(60);
/// What is shown on its way to the screen.
const SHOWN_IN_FLIGHT: usize = 64;

#[derive(clap::Args)]
pub struct Arguments {
    /// The group to talk in
    #[arg(long, value_name = "NAME", default_value = "main", value_parser = ui::parse_typed_text)]
    group: String,
    /// Say this, wait for the answer, and end
    #[arg(long, value_name = "TEXT")]
    say: Option<String>,
}

pub async fn run_chat_command(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start_log("warn");
    let name = GroupName::parse(&arguments.group)?;
    let Some((store, group)) = install.find_group(&name).await? else {
        let main = if name.as_str() == "main" { " --main" } else { "" };
        bail!(
            "There is no group {name}; `nanokimi groups add {name}{main}` makes it, `nanokimi groups list` shows those \
             there are"
        );
    };
    if !group.chat.is_console_chat() {
        bail!(
            "The chat of {name} is on WhatsApp: write there. For a chat at this terminal, make a group of its own with \
             `nanokimi groups add terminal`, then `nanokimi chat --group terminal`"
        );
    }
    if let Some(text) = &arguments.say {
        ensure_wakes_assistant(&group, &install.config.assistant_name, text)?;
    }
    let docker = install.docker_with_image().await?;
    let _lock = install.lock_install("chat")?;
    let (bridge_end, end) = bridge::create_bridge_ends();
    let context = install.build_session_context(docker, store, end.orders.clone()).await?;
    if arguments.say.is_none() {
        let how = match group.role {
            Role::Main => "Every message is answered".to_owned(),
            Role::Member => {
                let trigger = group.trigger_or(&install.config.assistant_name);
                format!("\"@{trigger} …\" is answered, the rest is context")
            }
        };
        let end = if ui::is_stdin_terminal() { "; Ctrl-D ends" } else { "" };
        ui::print_info(format!("This is {name}. {how}{end}."));
    }
    let script = match arguments.say {
        Some(text) => ChatScript::Exchange(text),
        None => ChatScript::Talk { first: None },
    };
    let answered = serve_terminal_chat(context, bridge_end, end, group, script).await?;
    Ok(match answered {
        WasAnswered::Yes => ExitCode::SUCCESS,
        WasAnswered::No => ExitCode::FAILURE,
    })
}

/// Whether what was said got a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WasAnswered {
    Yes,
    No,
}

/// What happens in the conversation.
pub enum ChatScript {
    /// This is said, answered, and that is all.
    Exchange(String),
    /// The person talks, until they leave; a file or program that is read instead waits for the answers.
    Talk { first: Option<String> },
}

/// What the end of the lines means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEndOfInput {
    Leave,
    WaitForAnswers,
}

/// Runs the service with this terminal as its bridge: for one exchange, or until the person leaves.
pub async fn serve_terminal_chat<C: Containers>(
    context: SessionContext<C>,
    bridge_end: bridge::BridgeEnd,
    end: bridge::ServiceEnd,
    group: Group,
    script: ChatScript,
) -> Result<WasAnswered> {
    let store = context.store.clone();
    let given_up_before = store.queue_counts().await?.parked;
    let (began, chat) = (context.clock.now(), group.chat.clone());
    let console = Console {
        chat: group.chat.clone(),
        title: group.name.to_string(),
        sender_name: "You".to_owned(),
        clock: context.clock,
    };
    let (lines, line_receiver) = mpsc::channel(1);
    let (shown_sender, shown) = mpsc::channel(SHOWN_IN_FLIGHT);
    tokio::spawn(console.run_console(bridge_end, line_receiver, shown_sender));
    let (ready, is_ready) = oneshot::channel();
    let (leave, left) = oneshot::channel();
    let talk = TerminalChat {
        store: store.clone(),
        chat: group.chat.clone(),
        began,
        patience: context.settings.time_limits.turn + PATIENCE_BEYOND_TURN,
        lines,
        said: 0,
        unstored: 0,
        screen: ChatScreen::new(),
        answered: WasAnswered::No,
    };
    let conversation = tokio::spawn(async move {
        if is_ready.await.is_err() {
            return Ok(WasAnswered::No);
        }
        let (first, typed, at_end) = match script {
            // No line follows: its end is there from the beginning.
            ChatScript::Exchange(text) => (Some(text), mpsc::channel(1).1, AtEndOfInput::WaitForAnswers),
            ChatScript::Talk { first } if ui::is_stdin_terminal() => {
                (first, read_typed_lines(), AtEndOfInput::Leave)
            }
            ChatScript::Talk { first } => (first, read_typed_lines(), AtEndOfInput::WaitForAnswers),
        };
        talk.run_until_end(first, typed, at_end, shown, leave).await
    });
    let asked = install::listen_for_stop_signal()?;
    let stop = async {
        tokio::select! {
            () = asked => {}
            _ = left => {}
        }
    };
    service::run_service(context, end, BridgeReach::Only(group.chat), ready, stop).await?;
    let answered = conversation.await.context("Failed to hold the conversation")??;
    let given_up = store.queue_counts().await?.parked > given_up_before;
    let is_kept = store.is_kept_by_outage(&chat, began).await?;
    Ok(if given_up || is_kept { WasAnswered::No } else { answered })
}

/// Whether the assistant would answer this text in this group at all.
pub fn ensure_wakes_assistant(group: &Group, assistant: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        bail!("There is nothing to say: put the message after --say, in quotes");
    }
    let trigger = group.trigger_or(assistant);
    if group.role == Role::Main
        || router::contains_trigger(text, trigger)
        || GivenCommand::from_text(text).is_some()
    {
        return Ok(());
    }
    bail!("Nobody would answer that in {}: say \"@{trigger} …\"", group.name)
}

/// The person's side of a conversation.
struct TerminalChat {
    store: Store,
    chat: ChatId,
    began: Timestamp,
    /// How long to wait for the next answer once nothing more is said.
    patience: Duration,
    lines: mpsc::Sender<String>,
    /// Lines that were handed in.
    said: usize,
    /// Those of them that are not stored yet.
    unstored: usize,
    screen: ChatScreen,
    answered: WasAnswered,
}

impl TerminalChat {
    /// Passes on what is typed and shows what comes, until the lines end and that means leaving, or until the
    /// service ends.
    async fn run_until_end(
        mut self,
        first: Option<String>,
        mut typed: mpsc::Receiver<String>,
        at_end: AtEndOfInput,
        mut shown: mpsc::Receiver<ConsoleOutput>,
        leave: oneshot::Sender<()>,
    ) -> Result<WasAnswered> {
        match first {
            Some(first) => self.send_line(first).await,
            None => ui::print_prompt("> "),
        }
        let mut ended = false;
        let mut give_up = pin!(sleep(self.patience));
        loop {
            tokio::select! {
                // What is to be shown comes first, so that it never piles up.
                biased;
                event = shown.recv() => match event {
                    Some(event) => {
                        give_up.as_mut().reset(Instant::now() + self.patience);
                        self.handle_console_event(event)?;
                    }
                    None => return Ok(self.answered),
                },
                line = typed.recv(), if !ended => match line {
                    Some(line) => self.send_line(line).await,
                    None => {
                        give_up.as_mut().reset(Instant::now() + self.patience);
                        ended = true;
                    }
                },
                all_said = self.wait_for_answers(at_end), if ended => {
                    all_said?;
                    break;
                }
                () = &mut give_up, if ended => {
                    ui::print_info(format!(
                        "Nothing came for {} minutes. What was said is kept; the next `nanokimi chat` goes on with it.",
                        self.patience.as_secs() / 60
                    ));
                    self.answered = WasAnswered::No;
                    break;
                }
            }
        }
        leave.send(()).ok();
        // The service ends in order: what it still says is shown.
        while let Some(event) = shown.recv().await {
            self.handle_console_event(event)?;
        }
        Ok(match (at_end, self.answered) {
            // A person at the terminal saw for themselves what was answered.
            (AtEndOfInput::Leave, _) | (AtEndOfInput::WaitForAnswers, WasAnswered::Yes) => WasAnswered::Yes,
            (AtEndOfInput::WaitForAnswers, WasAnswered::No) if self.said == 0 => WasAnswered::Yes,
            (AtEndOfInput::WaitForAnswers, WasAnswered::No) => {
                ui::print_info("No answer came.");
                WasAnswered::No
            }
        })
    }

    async fn send_line(&mut self, line: String) {
        self.screen.restart_timer();
        self.said += 1;
        self.unstored += 1;
        // If nobody takes it, the service has ended, which is noticed next.
        self.lines.send(line).await.ok();
    }

    fn handle_console_event(&mut self, event: ConsoleOutput) -> Result<()> {
        let (is_stored, is_message) =
            (matches!(event, ConsoleOutput::Stored), matches!(event, ConsoleOutput::Message(_)));
        self.screen.show_event(event)?;
        if is_stored {
            self.unstored = self.unstored.saturating_sub(1);
        }
        if is_message {
            self.answered = WasAnswered::Yes;
            ui::print_prompt("> ");
        }
        Ok(())
    }

    /// Resolves when it is time to leave: at once, or when what was typed is stored and what called the
    /// assistant is answered. May be dropped and asked again at any time.
    async fn wait_for_answers(&self, at_end: AtEndOfInput) -> Result<()> {
        match at_end {
            AtEndOfInput::Leave => Ok(()),
            AtEndOfInput::WaitForAnswers => {
                while self.unstored > 0 || self.store.count_unfinished_work(&self.chat).await? > 0 {
                    if self.unstored == 0 && self.store.is_kept_by_outage(&self.chat, self.began).await? {
                        ui::print_info("What was said is kept; the next `nanokimi chat` goes on with it.");
                        return Ok(());
                    }
                    sleep(ANSWERS_LOOK).await;
                }
                Ok(())
            }
        }
    }
}
