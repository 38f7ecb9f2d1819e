//! `nanokimi groups`: the chats that the assistant serves, and those that it could.

mod lent_folders;
mod people;
mod set;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand as ClapSubcommand;

use self::set::Choices;
use super::chats::{chat_title, console_chat_id, parse_chat_id};
use super::install::Install;
use super::ui;
use crate::folders;
use crate::types::{ChatId, EngineChoice, ForwardPolicy, Group, GroupName, Role};
use crate::writing::parse_trigger_word;

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Show the groups
    List,
    /// Show the WhatsApp chats that could be groups, with their ids for `add`
    Chats,
    /// Show who has written in a group, and who may ask there
    People {
        /// The group's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
    /// Serve a chat as a group
    Add {
        /// The group's folder name: letters, digits, "-" and "_"
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
        /// The chat's id, as `chats` shows it [default: a chat at this terminal, for `nanokimi chat`]
        #[arg(long, value_name = "ID", value_parser = ui::parse_typed_text)]
        chat: Option<String>,
        /// The word after "@" that wakes the assistant there [default: the assistant's name]
        #[arg(long, value_name = "WORD", conflicts_with = "main")]
        trigger: Option<String>,
        /// Make it the main channel: your own chat, where every message is for the assistant
        #[arg(long)]
        main: bool,
    },
    /// Change how a group's agent works, from its next turn on
    Set {
        /// The group's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text, required_unless_present = "all")]
        name: Option<String>,
        /// Change all groups
        #[arg(long, conflicts_with = "name")]
        all: bool,
        #[command(flatten)]
        choices: Choices,
    },
    /// Stop serving a chat; its folder and history stay, and `add` takes them up again
    Remove {
        /// The group's name, as `list` shows it
        #[arg(value_parser = ui::parse_typed_text)]
        name: String,
    },
}

pub async fn run_groups_command(install: &Install, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::List => print_groups(install).await?,
        Verb::Chats => print_known_chats(install).await?,
        Verb::People { name } => people::print_people(install, &GroupName::parse(&name)?).await?,
        Verb::Add { name, chat, trigger, main } => {
            let name = GroupName::parse(&name)?;
            let chat = match chat {
                Some(chat) => parse_chat_id(&chat)?,
                None => ChatId::new(console_chat_id(&name)),
            };
            let trigger = trigger.as_deref().map(parse_trigger_word).transpose()?;
            let role = if main { Role::Main } else { Role::Member };
            let group = Group { trigger, ..Group::new(name, chat, role) };
            register_group(install, &group).await?;
            ui::print_info(format!("`nanokimi groups remove {}` undoes that.", group.name));
            warn_if_unknown_chat(install, &group).await?;
        }
        // Without a name it is `--all`, which clap sees to.
        Verb::Set { name, choices, .. } => match name {
            Some(name) => set::change_group(install, &GroupName::parse(&name)?, choices).await?,
            None => set::change_all_groups(install, choices).await?,
        },
        Verb::Remove { name } => unregister_group(install, &GroupName::parse(&name)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn print_groups(install: &Install) -> Result<()> {
    let groups = match install.open_store_to_read()? {
        Some(store) => store.all_groups().await?,
        None => Vec::new(),
    };
    if groups.is_empty() {
        ui::print_info(
            "No groups yet. `nanokimi setup` makes your main channel on WhatsApp, `nanokimi groups add main --main` \
             one at this terminal.",
        );
        return Ok(());
    }
    let mut rows =
        vec![["NAME", "LISTENS TO", "ENGINE", "WEB", "TOKENS A DAY", "CHAT"].map(str::to_owned).to_vec()];
    for group in &groups {
        let listens_to = match group.role {
            Role::Main => "everything".to_owned(),
            Role::Member => {
                let name = group.trigger_or(&install.config.assistant_name);
                match group.forwards {
                    ForwardPolicy::Told => format!("@{name}"),
                    ForwardPolicy::Call => format!("@{name}, forwarded too"),
                }
            }
        };
        let listens = format!("{listens_to}{}", people::describe_sender_policy(group.senders.may_ask));
        let engine = group.engine.as_ref().map_or(install.config.engine.name(), EngineChoice::name);
        rows.push(vec![
            group.name.to_string(),
            listens,
            engine.to_owned(),
            set::render_web_policy(&group.web).to_owned(),
            group.daily_tokens.map_or_else(|| "-".to_owned(), |tokens| tokens.to_string()),
            group.chat.to_string(),
        ]);
    }
    ui::print_table(&rows)?;
    for limits in groups.iter().filter_map(set::describe_limits) {
        ui::print_info(limits);
    }
    for group in groups.iter().filter(|group| !group.folders.is_empty()) {
        let place = install.allowlist_place();
        for decision in folders::decide_extra_folders(&install.paths, place.as_ref(), group, &groups) {
            ui::print_info(lent_folders::render_decision(group, &decision));
        }
    }
    Ok(())
}

async fn print_known_chats(install: &Install) -> Result<()> {
    let (chats, account) = match install.open_store_to_read()? {
        Some(store) => (store.known_chats().await?, store.linked_account().await?),
        None => (Vec::new(), None),
    };
    if chats.is_empty() {
        ui::print_info(if install.whatsapp_bridge().is_linked().await? {
            "WhatsApp has not told any chat yet; `nanokimi setup`, or the service, fetches them."
        } else {
            "No chats are known yet. `nanokimi auth` links WhatsApp and fetches them."
        });
        return Ok(());
    }
    let mut rows = vec![["ID", "GROUP", "CHAT"].map(str::to_owned).to_vec()];
    for chat in &chats {
        let group = chat.registered.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
        rows.push(vec![chat.id.to_string(), group, chat_title(chat, account.as_ref())]);
    }
    ui::print_table(&rows)?;
    ui::print_info("`nanokimi groups add NAME --chat ID` makes a chat a group.");
    Ok(())
}

/// Registers a group and makes its folders; if that fails, there is no group.
pub async fn register_group(install: &Install, group: &Group) -> Result<()> {
    folders::prepare_install_folders(&install.paths)?;
    let store = install.open_store()?;
    store.add_group(group, install.clock.now()).await?;
    if let Err(error) = folders::prepare_group_folders(&install.paths, group) {
        store.remove_group(&group.name).await?;
        return Err(error);
    }
    let folder = install.paths.group_folder(&group.name);
    ui::print_info(format!("Added {}. Its folder is {}.", group.name, folder.display()));
    Ok(())
}

/// A mistyped id is a chat in which nothing ever happens.
async fn warn_if_unknown_chat(install: &Install, group: &Group) -> Result<()> {
    let known = install.open_store()?.known_chats().await?;
    if !group.chat.is_console_chat() && !known.iter().any(|chat| chat.id == group.chat) {
        ui::print_info(format!(
            "Careful: {} is not among the chats that are known so far. If it is mistyped, nothing will ever come from \
             there; `nanokimi groups chats` shows the known ones.",
            group.chat
        ));
    }
    Ok(())
}

async fn unregister_group(install: &Install, name: &GroupName) -> Result<()> {
    let Some((store, group)) = install.find_group(name).await? else {
        bail!("There is no group {name}; `nanokimi groups list` shows those there are");
    };
    let allowed = people::render_allow_options(&store.people_of_group(&group).await?);
    store.remove_group(name).await?;
    ui::print_info(format!(
        "Removed {name}. What was still to be said there is not sent. Its folder and history are kept; `{}` takes them up.",
        render_add_command(&group, &allowed)
    ));
    Ok(())
}

/// The commands that make this group again; `allowed` are the options that allow its people again.
fn render_add_command(group: &Group, allowed: &str) -> String {
    let mut command = format!("nanokimi groups add {}", group.name);
    if !group.chat.is_console_chat() {
        command.push_str(&format!(" --chat {}", group.chat));
    }
    match (group.role, &group.trigger) {
        (Role::Main, _) => command.push_str(" --main"),
        (Role::Member, Some(trigger)) => {
            command.push_str(&format!(" --trigger {}", quote_for_shell(trigger)))
        }
        (Role::Member, None) => {}
    }
    let choices = set::render_set_options(group) + allowed;
    if !choices.is_empty() {
        command.push_str(&format!(" && nanokimi groups set {}{choices}", group.name));
    }
    command
}

/// A word as a shell takes it, whatever is in it.
fn quote_for_shell(word: &str) -> String {
    if word.chars().all(char::is_alphanumeric) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
