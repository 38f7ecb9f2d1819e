//! `nanokimi setup`: chooses the main channel among the chats of the linked account, and lets Kai say hello there.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use dialoguer::console::Term;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::exit;
use super::groups::{self, MAIN};
use super::install::{self, Install};
use super::link::{self, ANSWERS_IN_FLIGHT, Answers, Delivered};
use super::{auth, log, ui};
use crate::bridge::whatsapp::Task;
use crate::bridge::{self, Order};
use crate::notices;
use crate::panics::blocking;
use crate::store::{KnownChat, Store};
use crate::types::{Account, ChatId, Group, GroupName, Link, Role};

/// How long WhatsApp may take until the link is there.
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// Chats on one page of the list: a small terminal shows them and the question.
const CHATS_PER_PAGE: usize = 15;

/// Chooses your main channel, where every message is for the assistant, among the chats of the linked account.
#[derive(clap::Args)]
pub struct Arguments {
    /// The chat's id, instead of choosing it from a list
    #[arg(long, value_name = "ID", value_parser = ui::typed)]
    main: Option<String>,
}

pub async fn run(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    log::start("error");
    let chat = arguments.main.as_deref().map(groups::chat_id).transpose()?;
    if !install.whatsapp().is_linked().await? {
        return Ok(auth::ended(install.existing_store()?.as_ref(), install).await?.tell());
    }
    install.refuse_root()?;
    let _lock = install.lock("setup")?;
    let store = install.store()?;
    if let Some(main) = store.groups().await?.into_iter().find(|group| group.role == Role::Main) {
        return there_is_one(&main);
    }
    let (bridge_end, end) = bridge::pair();
    let (answered, answers) = mpsc::channel(ANSWERS_IN_FLIGHT);
    let (stop, stopped) = oneshot::channel::<()>();
    let asked = install::asked_to_stop()?;
    let over = async {
        tokio::select! {
            () = asked => {}
            _ = stopped => {}
        }
    };
    let carrying = tokio::spawn(install.whatsapp().run(bridge_end, Task::Serve, over));
    let connected = Connected { install, store: &store, orders: end.orders, answers };
    let work = async {
        let done = connected.set_up(end.link, chat).await;
        stop.send(()).ok();
        let carried = carrying.await.context("Failed to end the connection to WhatsApp")?;
        // What broke the bridge is why nothing could be done.
        store.set_link(&carried?, install.clock.now()).await?;
        done
    };
    link::while_storing(install, &store, end.batches, answered, work).await
}

fn there_is_one(main: &Group) -> Result<ExitCode> {
    let name = &main.name;
    if main.chat.is_console() {
        bail!(
            "The main channel is {name}, a chat at this terminal; `nanokimi groups remove {name}` makes room for one \
             on WhatsApp, and keeps its folder"
        );
    }
    ui::note(format!(
        "The main channel is {name} already ({}); `nanokimi groups remove {name}` makes room for another. {NEXT}",
        main.chat
    ));
    Ok(ExitCode::SUCCESS)
}

const NEXT: &str = "Next: `nanokimi service install` keeps nanokimi running, `nanokimi groups chats` shows the chats \
                    that you can add.";

/// What is at hand while the link is there.
struct Connected<'a> {
    install: &'a Install,
    store: &'a Store,
    orders: mpsc::Sender<Order>,
    answers: Answers,
}

impl Connected<'_> {
    async fn set_up(mut self, link: watch::Receiver<Link>, chat: Option<ChatId>) -> Result<ExitCode> {
        ui::note("Connecting to WhatsApp …");
        match timeout(CONNECT_LIMIT, settled(link)).await {
            Ok(Link::Online) => {}
            Ok(link) => {
                let end = exit::of_link(&link, &self.install.config.zone);
                return Ok(end.context("Failed to connect to WhatsApp")?.tell());
            }
            Err(_) => bail!(
                "WhatsApp did not let this device in within {} s; check this machine's connection with `curl -I \
                 https://web.whatsapp.com`, and try again",
                CONNECT_LIMIT.as_secs()
            ),
        }
        let chats = self.store.known_chats().await?;
        let account = self.store.account().await?;
        let Some(chosen) = choose(chats, account.as_ref(), chat).await? else {
            ui::note("Nothing was chosen, and nothing was changed.");
            return Ok(ExitCode::FAILURE);
        };
        let name = GroupName::parse(MAIN)?;
        let main = Group::new(name, chosen.id.clone(), Role::Main);
        groups::add(self.install, &main).await?;
        let title = title(&chosen, account.as_ref());
        ui::note(format!("{title} is your main channel now; `nanokimi groups remove {MAIN}` undoes that."));
        self.say_hello(&main.chat).await
    }

    /// The first message in the main channel, which shows that the way there works.
    async fn say_hello(&mut self, chat: &ChatId) -> Result<ExitCode> {
        let config = &self.install.config;
        let hello =
            format!("{}{}", config.reply_prefix(), notices::hello(config.lang, &config.assistant_name));
        self.store.say(chat, &hello, self.install.clock.now()).await?;
        let name = &config.assistant_name;
        let delivered =
            link::deliver(self.install, self.store, chat, &self.orders, &mut self.answers).await?;
        let (told, code) = match delivered {
            Delivered::Acked => (format!("{name} has said hello there."), ExitCode::SUCCESS),
            Delivered::Waiting => (
                format!(
                    "WhatsApp has not confirmed {name}'s first message yet; the service goes on with it."
                ),
                ExitCode::SUCCESS,
            ),
            Delivered::Refused(code) => (
                format!(
                    "WhatsApp refused {name}'s first message (code {code}): choose a chat in which somebody has \
                     written to this account, after `nanokimi groups remove {MAIN}`."
                ),
                ExitCode::FAILURE,
            ),
        };
        ui::note(format!("{told} {NEXT}"));
        Ok(code)
    }
}

/// The link, once it is there or will not be.
async fn settled(mut link: watch::Receiver<Link>) -> Link {
    let is_settled = |link: &Link| !matches!(link, Link::Connecting | Link::Pairing(_));
    match link.wait_for(is_settled).await {
        Ok(link) => link.clone(),
        Err(_) => Link::Connecting,
    }
}

/// The chat that is to be the main channel; none where the person went away.
async fn choose(
    chats: Vec<KnownChat>,
    account: Option<&Account>,
    named: Option<ChatId>,
) -> Result<Option<KnownChat>> {
    if let Some(id) = named {
        let Some(chat) = chats.into_iter().find(|chat| chat.id == id) else {
            bail!("{id} is no chat of this account; `nanokimi groups chats` shows those there are")
        };
        return Ok(Some(chat));
    }
    let titles: Vec<String> = chats.iter().map(|chat| title(chat, account)).collect();
    if chats.is_empty() {
        bail!("WhatsApp has not told any chat yet; write to yourself on WhatsApp, and try again");
    }
    if !ui::somebody_types() || ui::room().is_none() {
        let listed: Vec<String> =
            chats.iter().zip(&titles).map(|(chat, title)| format!("  {}  {title}", chat.id)).collect();
        bail!(
            "Nobody is there to choose; name the chat, as in `nanokimi setup --main {}`. The chats are:\n{}",
            chats[0].id,
            listed.join("\n")
        );
    }
    let chosen = blocking(move || {
        let question = "Which chat is your main channel, where every message is for the assistant? (arrow keys, Enter; q ends)";
        let list = dialoguer::Select::new().with_prompt(question).items(&titles).default(0);
        list.max_length(CHATS_PER_PAGE).report(false).interact_opt()
    })
    .await
    .context("Failed to ask")?;
    // Whoever leaves with Ctrl-C leaves the list without a cursor.
    Term::stderr().show_cursor().ok();
    Ok(chosen.ok().flatten().and_then(|index| chats.into_iter().nth(index)))
}

/// A chat as people know it.
pub fn title(chat: &KnownChat, account: Option<&Account>) -> String {
    let own = account.is_some_and(|account| {
        let ids = [Some(&account.id), account.lid.as_ref()];
        ids.into_iter().flatten().any(|id| id.as_str() == chat.id.as_str())
    });
    if own {
        return "Message yourself".to_owned();
    }
    let name = match ui::plain(&chat.name) {
        name if name.is_empty() || name == chat.id.as_str() => auth::phone::of_id(chat.id.as_str()),
        name => name,
    };
    match chat.members {
        Some(1) => format!("{name} (1 member)"),
        Some(members) => format!("{name} ({members} members)"),
        None => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::SenderId;

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

    fn account() -> Account {
        Account { id: SenderId::new("34600111222@s.whatsapp.net"), lid: None, name: "Ana".to_owned() }
    }

    #[test]
    fn chats_are_shown_as_people_know_them() {
        let titles: Vec<String> = chats().iter().map(|chat| title(chat, Some(&account()))).collect();
        assert_eq!(
            titles,
            ["Message yourself", "Family[2J (12 members)", "1203631@g.us (1 member)", "+34600333444"]
        );
    }

    #[tokio::test]
    async fn a_chat_that_is_named_must_be_known() {
        let named = |id: &str| choose(chats(), None, Some(ChatId::new(id)));
        assert_eq!(named("1203630@g.us").await.unwrap().unwrap().members, Some(12));
        let error = named("9@g.us").await.unwrap_err().to_string();
        insta::assert_snapshot!(error, @"9@g.us is no chat of this account; `nanokimi groups chats` shows those there are");
    }
}
