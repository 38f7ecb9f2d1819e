//! `nanokimi chat`: talk to a group's agent from this terminal, with the configured model.

use std::pin::pin;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};

use super::install::{self, Install};
use super::terminal::{Screen, typed_lines};
use super::{log, ui};
use crate::bridge;
use crate::bridge::console::{Console, Shown};
use crate::container::Containers;
use crate::router;
use crate::service::{self, Reach};
use crate::session::Host;
use crate::store::Store;
use crate::types::{ChatId, Group, GroupName, Role};

/// How often it is looked whether all is answered, once nothing more is said.
const ANSWERS_LOOK: Duration = Duration::from_millis(50);
/// What an answer may take beyond its turn: the container's start, and the notice where the turn took too long.
const PATIENCE_BEYOND_TURN: Duration = Duration::from_secs(60);
/// What is shown on its way to the screen.
const SHOWN_IN_FLIGHT: usize = 64;

#[derive(clap::Args)]
pub struct Arguments {
    /// The group to talk in
    #[arg(long, value_name = "NAME", default_value = "main", value_parser = ui::typed)]
    group: String,
    /// Say this, wait for the answer, and end
    #[arg(long, value_name = "TEXT")]
    say: Option<String>,
}

pub async fn run(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start("warn");
    let name = GroupName::parse(&arguments.group)?;
    let Some((store, group)) = install.group(&name).await? else {
        let main = if name.as_str() == "main" { " --main" } else { "" };
        bail!(
            "There is no group {name}; `nanokimi groups add {name}{main}` makes it, `nanokimi groups list` shows those \
             there are"
        );
    };
    if !group.chat.is_console() {
        bail!(
            "The chat of {name} is on WhatsApp: write there. For a chat at this terminal, make a group of its own with \
             `nanokimi groups add terminal`, then `nanokimi chat --group terminal`"
        );
    }
    if let Some(text) = &arguments.say {
        must_wake(&group, &install.config.assistant_name, text)?;
    }
    let docker = install.docker_with_image().await?;
    let _lock = install.lock("chat")?;
    let (bridge_end, end) = bridge::pair();
    let host = install.host(docker, store, end.orders.clone()).await?;
    if arguments.say.is_none() {
        let how = match group.role {
            Role::Main => "Every message is answered".to_owned(),
            Role::Member => {
                let trigger = group.trigger_or(&install.config.assistant_name);
                format!("\"@{trigger} …\" is answered, the rest is context")
            }
        };
        let end = if ui::somebody_types() { "; Ctrl-D ends" } else { "" };
        ui::note(format!("This is {name}. {how}{end}."));
    }
    let script = match arguments.say {
        Some(text) => Script::Exchange(text),
        None => Script::Talk { first: None },
    };
    let answered = converse(host, bridge_end, end, group, script).await?;
    Ok(match answered {
        Answered::Yes => ExitCode::SUCCESS,
        Answered::No => ExitCode::FAILURE,
    })
}

/// Whether what was said got a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    Yes,
    No,
}

/// What happens in the conversation.
pub enum Script {
    /// This is said, answered, and that is all.
    Exchange(String),
    /// The person talks, until they leave; a file or program that is read instead waits for the answers.
    Talk { first: Option<String> },
}

/// What the end of the lines means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AtEnd {
    Leave,
    WaitForAnswers,
}

/// Runs the service with this terminal as its bridge: for one exchange, or until the person leaves.
pub async fn converse<C: Containers>(
    host: Host<C>,
    bridge_end: bridge::BridgeEnd,
    end: bridge::ServiceEnd,
    group: Group,
    script: Script,
) -> Result<Answered> {
    let store = host.store.clone();
    let given_up_before = store.queue_counts().await?.parked;
    let (began, chat) = (host.clock.now(), group.chat.clone());
    let console = Console {
        chat: group.chat.clone(),
        title: group.name.to_string(),
        sender_name: "You".to_owned(),
        clock: host.clock,
    };
    let (lines, line_receiver) = mpsc::channel(1);
    let (shown_sender, shown) = mpsc::channel(SHOWN_IN_FLIGHT);
    tokio::spawn(console.run(bridge_end, line_receiver, shown_sender));
    let (ready, is_ready) = oneshot::channel();
    let (leave, left) = oneshot::channel();
    let talk = Talk {
        store: store.clone(),
        chat: group.chat.clone(),
        began,
        patience: host.settings.time_limits.turn + PATIENCE_BEYOND_TURN,
        lines,
        said: 0,
        unstored: 0,
        screen: Screen::new(),
        answered: Answered::No,
    };
    let conversation = tokio::spawn(async move {
        if is_ready.await.is_err() {
            return Ok(Answered::No);
        }
        let (first, typed, at_end) = match script {
            // No line follows: its end is there from the beginning.
            Script::Exchange(text) => (Some(text), mpsc::channel(1).1, AtEnd::WaitForAnswers),
            Script::Talk { first } if ui::somebody_types() => (first, typed_lines(), AtEnd::Leave),
            Script::Talk { first } => (first, typed_lines(), AtEnd::WaitForAnswers),
        };
        talk.hold(first, typed, at_end, shown, leave).await
    });
    let asked = install::asked_to_stop()?;
    let stop = async {
        tokio::select! {
            () = asked => {}
            _ = left => {}
        }
    };
    service::run(host, end, Reach::Only(group.chat), ready, stop).await?;
    let answered = conversation.await.context("Failed to hold the conversation")??;
    let given_up = store.queue_counts().await?.parked > given_up_before;
    let is_kept = store.keeps(&chat, began).await?;
    Ok(if given_up || is_kept { Answered::No } else { answered })
}

/// Whether the assistant would answer this text in this group at all.
pub fn must_wake(group: &Group, assistant: &str, text: &str) -> Result<()> {
    if text.trim().is_empty() {
        bail!("There is nothing to say: put the message after --say, in quotes");
    }
    let trigger = group.trigger_or(assistant);
    if group.role == Role::Main || router::calls(text, trigger) {
        return Ok(());
    }
    bail!("Nobody would answer that in {}: say \"@{trigger} …\"", group.name)
}

/// The person's side of a conversation.
struct Talk {
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
    screen: Screen,
    answered: Answered,
}

impl Talk {
    /// Passes on what is typed and shows what comes, until the lines end and that means leaving, or until the
    /// service ends.
    async fn hold(
        mut self,
        first: Option<String>,
        mut typed: mpsc::Receiver<String>,
        at_end: AtEnd,
        mut shown: mpsc::Receiver<Shown>,
        leave: oneshot::Sender<()>,
    ) -> Result<Answered> {
        match first {
            Some(first) => self.say(first).await,
            None => ui::prompt("> "),
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
                        self.show(event)?;
                    }
                    None => return Ok(self.answered),
                },
                line = typed.recv(), if !ended => match line {
                    Some(line) => self.say(line).await,
                    None => {
                        give_up.as_mut().reset(Instant::now() + self.patience);
                        ended = true;
                    }
                },
                all_said = self.all_said(at_end), if ended => {
                    all_said?;
                    break;
                }
                () = &mut give_up, if ended => {
                    ui::note(format!(
                        "Nothing came for {} minutes. What was said is kept; the next `nanokimi chat` goes on with it.",
                        self.patience.as_secs() / 60
                    ));
                    self.answered = Answered::No;
                    break;
                }
            }
        }
        leave.send(()).ok();
        // The service ends in order: what it still says is shown.
        while let Some(event) = shown.recv().await {
            self.show(event)?;
        }
        Ok(match (at_end, self.answered) {
            // Whoever sits there saw for themselves what was answered.
            (AtEnd::Leave, _) | (AtEnd::WaitForAnswers, Answered::Yes) => Answered::Yes,
            (AtEnd::WaitForAnswers, Answered::No) if self.said == 0 => Answered::Yes,
            (AtEnd::WaitForAnswers, Answered::No) => {
                ui::note("No answer came.");
                Answered::No
            }
        })
    }

    async fn say(&mut self, line: String) {
        self.screen.asked();
        self.said += 1;
        self.unstored += 1;
        // Where nobody takes it the service has ended, which is noticed next.
        self.lines.send(line).await.ok();
    }

    fn show(&mut self, event: Shown) -> Result<()> {
        let (is_stored, is_message) = (matches!(event, Shown::Stored), matches!(event, Shown::Message(_)));
        self.screen.show(event)?;
        if is_stored {
            self.unstored = self.unstored.saturating_sub(1);
        }
        if is_message {
            self.answered = Answered::Yes;
            ui::prompt("> ");
        }
        Ok(())
    }

    /// Resolves when it is time to leave: at once, or when what was typed is stored and what called the assistant
    /// is answered. May be dropped and asked again at any time.
    async fn all_said(&self, at_end: AtEnd) -> Result<()> {
        match at_end {
            AtEnd::Leave => Ok(()),
            AtEnd::WaitForAnswers => {
                while self.unstored > 0 || self.store.still_to_come(&self.chat).await? > 0 {
                    if self.unstored == 0 && self.store.keeps(&self.chat, self.began).await? {
                        ui::note("What was said is kept; the next `nanokimi chat` goes on with it.");
                        return Ok(());
                    }
                    sleep(ANSWERS_LOOK).await;
                }
                Ok(())
            }
        }
    }
}
