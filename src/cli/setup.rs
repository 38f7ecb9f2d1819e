//! `nanokimi setup`: chooses the main channel among the chats of the linked account, and lets Kai say hello
//! there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dialoguer::console::Term;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::chats::{self, MAIN, chat_title};
use super::groups::register_group;
use super::install::{self, Install};
use super::whatsapp_once::{self, ANSWERS_IN_FLIGHT, AnswerReceiver, DeliveryOutcome};
use super::{auth, exit, log, ui};
use crate::bridge::whatsapp::BridgeTask;
use crate::bridge::{self, Order};
use crate::notices;
use crate::panics::run_blocking;
use crate::store::{KnownChat, Store};
use crate::types::{ChatId, Group, GroupName, LinkState, LinkedAccount, Role};

/// How long WhatsApp may take until the link is there.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Chats on one page of the list: a small terminal shows them and the question.
const CHATS_PER_PAGE: usize = 15;

/// Chooses your main channel, where every message is for the assistant, among the chats of the linked
/// account.
#[derive(clap::Args)]
pub struct Arguments {
    /// The chat's id, instead of choosing it from a list
    #[arg(long, value_name = "ID", value_parser = ui::parse_typed_text)]
    main: Option<String>,
}

pub async fn run_setup_command(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start_log("error");
    let chat = arguments.main.as_deref().map(chats::parse_chat_id).transpose()?;
    if !install.whatsapp_bridge().is_linked().await? {
        return Ok(auth::exit_for_missing_link(install.open_existing_store()?.as_ref(), install)
            .await?
            .report_exit());
    }
    install.refuse_root()?;
    let _lock = install.lock_install("setup")?;
    let store = install.open_store()?;
    if let Some(main) = store.all_groups().await?.into_iter().find(|group| group.role == Role::Main) {
        return report_existing_main(&main);
    }
    let (bridge_end, end) = bridge::create_bridge_ends();
    let (answered, answers) = mpsc::channel(ANSWERS_IN_FLIGHT);
    let (stop, stopped) = oneshot::channel::<()>();
    let asked = install::listen_for_stop_signal()?;
    let over = async {
        tokio::select! {
            () = asked => {}
            _ = stopped => {}
        }
    };
    let carrying = tokio::spawn(install.whatsapp_bridge().run_bridge(bridge_end, BridgeTask::Serve, over));
    let connected = SetupConnection { install, store: &store, orders: end.orders, answers };
    let work = async {
        let done = connected.set_up_main_channel(end.link, chat).await;
        stop.send(()).ok();
        let carried = carrying.await.context("Failed to end the connection to WhatsApp")?;
        // If the bridge broke, that is the reason why nothing could be done.
        store.record_link_state(&carried?, install.clock.now()).await?;
        done
    };
    whatsapp_once::run_while_storing(install, &store, end.batches, answered, work).await
}

fn report_existing_main(main: &Group) -> Result<ExitCode> {
    let name = &main.name;
    if main.chat.is_console_chat() {
        bail!(
            "The main channel is {name}, a chat at this terminal; `nanokimi groups remove {name}` makes room for one \
             on WhatsApp, and keeps its folder"
        );
    }
    ui::print_info(format!(
        "The main channel is {name} already ({}); `nanokimi groups remove {name}` makes room for another. {NEXT}",
        main.chat
    ));
    Ok(ExitCode::SUCCESS)
}

const NEXT: &str = "Next: `nanokimi service install` keeps nanokimi running, `nanokimi groups chats` shows the chats \
                    that you can add.";

/// What is at hand while the link is there.
struct SetupConnection<'a> {
    install: &'a Install,
    store: &'a Store,
    orders: mpsc::Sender<Order>,
    answers: AnswerReceiver,
}

impl SetupConnection<'_> {
    async fn set_up_main_channel(
        mut self,
        link: watch::Receiver<LinkState>,
        chat: Option<ChatId>,
    ) -> Result<ExitCode> {
        ui::print_info("Connecting to WhatsApp …");
        match timeout(CONNECT_LIMIT, wait_for_link_outcome(link)).await {
            Ok(LinkState::Online) => {}
            Ok(link) => {
                let end = exit::exit_for_link(&link, &self.install.config.zone);
                return Ok(end.context("Failed to connect to WhatsApp")?.report_exit());
            }
            Err(_) => bail!(
                "WhatsApp did not let this device in within {} s; check this machine's connection with `curl -I \
                 https://web.whatsapp.com`, and try again",
                CONNECT_LIMIT.as_secs()
            ),
        }
        let chats = self.store.known_chats().await?;
        let account = self.store.linked_account().await?;
        let Some(chosen) = choose_main_chat(chats, account.as_ref(), chat).await? else {
            ui::print_info("Nothing was chosen, and nothing was changed.");
            return Ok(ExitCode::FAILURE);
        };
        let name = GroupName::parse(MAIN)?;
        let main = Group::new(name, chosen.id.clone(), Role::Main);
        register_group(self.install, &main).await?;
        let title = chat_title(&chosen, account.as_ref());
        ui::print_info(format!(
            "{title} is your main channel now; `nanokimi groups remove {MAIN}` undoes that."
        ));
        self.send_hello(&main.chat).await
    }

    /// The first message in the main channel, which shows that the way there works.
    async fn send_hello(&mut self, chat: &ChatId) -> Result<ExitCode> {
        let config = &self.install.config;
        let hello = format!(
            "{}{}",
            config.reply_prefix(),
            notices::welcome_notice(config.lang, &config.assistant_name)
        );
        self.store.notify_chat(chat, &hello, self.install.clock.now()).await?;
        let name = &config.assistant_name;
        let delivered = whatsapp_once::send_waiting_replies(
            self.install,
            self.store,
            chat,
            &self.orders,
            &mut self.answers,
        )
        .await?;
        let (outcome, code) = match delivered {
            DeliveryOutcome::Acked => (format!("{name} has said hello there."), ExitCode::SUCCESS),
            DeliveryOutcome::Waiting => (
                format!(
                    "WhatsApp has not confirmed {name}'s first message yet; the service goes on with it."
                ),
                ExitCode::SUCCESS,
            ),
            DeliveryOutcome::Refused(code) => (
                format!(
                    "WhatsApp refused {name}'s first message (code {code}): choose a chat in which somebody has \
                     written to this account, after `nanokimi groups remove {MAIN}`."
                ),
                ExitCode::FAILURE,
            ),
        };
        ui::print_info(format!("{outcome} {NEXT}"));
        Ok(code)
    }
}

/// The link, once it is there or will not be.
async fn wait_for_link_outcome(mut link: watch::Receiver<LinkState>) -> LinkState {
    let is_settled = |link: &LinkState| !matches!(link, LinkState::Connecting | LinkState::Pairing(_));
    match link.wait_for(is_settled).await {
        Ok(link) => link.clone(),
        Err(_) => LinkState::Connecting,
    }
}

/// The chat that is to be the main channel; `None` if the person went away.
async fn choose_main_chat(
    chats: Vec<KnownChat>,
    account: Option<&LinkedAccount>,
    named: Option<ChatId>,
) -> Result<Option<KnownChat>> {
    if let Some(id) = named {
        let Some(chat) = chats.into_iter().find(|chat| chat.id == id) else {
            bail!("{id} is no chat of this account; `nanokimi groups chats` shows those there are")
        };
        return Ok(Some(chat));
    }
    let titles: Vec<String> = chats.iter().map(|chat| chat_title(chat, account)).collect();
    if chats.is_empty() {
        bail!("WhatsApp has not told any chat yet; write to yourself on WhatsApp, and try again");
    }
    if !ui::is_stdin_terminal() || ui::terminal_size().is_none() {
        let listed: Vec<String> =
            chats.iter().zip(&titles).map(|(chat, title)| format!("  {}  {title}", chat.id)).collect();
        bail!(
            "Nobody is there to choose; name the chat, as in `nanokimi setup --main {}`. The chats are:\n{}",
            chats[0].id,
            listed.join("\n")
        );
    }
    let chosen = run_blocking(move || {
        let question = "Which chat is your main channel, where every message is for the assistant? (arrow keys, Enter; q ends)";
        let list = dialoguer::Select::new().with_prompt(question).items(&titles).default(0);
        list.max_length(CHATS_PER_PAGE).report(false).interact_opt()
    })
    .await
    .context("Failed to ask")?;
    // Ctrl-C leaves the list without a cursor.
    Term::stderr().show_cursor().ok();
    Ok(chosen.ok().flatten().and_then(|index| chats.into_iter().nth(index)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(id: &str, name: &str, members: Option<u32>) -> KnownChat {
        KnownChat { id: ChatId::new(id), name: name.to_owned(), members, registered: None }
    }

    fn chats() -> Vec<KnownChat> {
        vec![
            chat("34600111222@s.whatsapp.net", "Ana", None),
            chat("1203630@g.us", "Family\u{1b}[2J", Some(12)),
            chat("1203631@g.us", "", Some(1)),
            chat("34600333444@s.whatsapp.net", "34600333444@s.whatsapp.net", None),
        ]
    }

    #[tokio::test]
    async fn a_chat_that_is_named_must_be_known() {
        let named = |id: &str| choose_main_chat(chats(), None, Some(ChatId::new(id)));
        assert_eq!(named("1203630@g.us").await.unwrap().unwrap().members, Some(12));
        let error = named("9@g.us").await.unwrap_err().to_string();
        insta::assert_snapshot!(error, @"9@g.us is no chat of this account; `nanokimi groups chats` shows those there are");
    }
}
