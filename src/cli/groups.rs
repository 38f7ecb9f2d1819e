//! `nanokimi groups`: the chats that the assistant serves.

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::Subcommand as ClapSubcommand;

use super::install::Install;
use super::ui;
use crate::home;
use crate::types::{ChatId, Group, GroupName, Role};

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Show the groups
    List,
    /// Serve a chat as a group
    Add {
        /// The group's folder name: letters, digits, "-" and "_"
        name: String,
        /// The chat's id [default: a chat at this terminal, for `nanokimi chat`]
        #[arg(long, value_name = "JID")]
        chat: Option<String>,
        /// The word after "@" that wakes the assistant there [default: the assistant's name]
        #[arg(long, value_name = "WORD", conflicts_with = "main")]
        trigger: Option<String>,
        /// Make it the main channel: your own chat, where every message is for the assistant
        #[arg(long)]
        main: bool,
    },
    /// Stop serving a chat; its folder and history stay, and `add` takes them up again
    Remove {
        /// The group's name, as `list` shows it
        name: String,
    },
}

pub async fn run(install: &Install, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::List => list(install).await?,
        Verb::Add { name, chat, trigger, main } => {
            let name = GroupName::parse(&name)?;
            let chat = match chat {
                Some(chat) => chat_id(&chat)?,
                None => ChatId::new(console_chat(&name)),
            };
            let trigger = trigger.map(|word| word.trim_start_matches('@').trim().to_owned());
            if trigger.as_deref() == Some("") {
                bail!("--trigger needs a word, such as Kai");
            }
            let role = if main { Role::Main } else { Role::Member };
            add(install, &Group { name, chat, role, trigger }).await?;
        }
        Verb::Remove { name } => remove(install, &GroupName::parse(&name)?).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The chat of a group that only this terminal reaches.
pub fn console_chat(name: &GroupName) -> String {
    format!("console:{name}")
}

/// The id of a chat, which is not its name.
fn chat_id(typed: &str) -> Result<ChatId> {
    let is_id = typed.contains('@') && !typed.chars().any(|c| c.is_whitespace() || c.is_control());
    if !is_id {
        bail!(
            "{typed:?} is not the id of a chat; an id looks like 34600111222@s.whatsapp.net or 1203630@g.us"
        );
    }
    Ok(ChatId::new(typed))
}

async fn list(install: &Install) -> Result<()> {
    let groups = match install.existing_store()? {
        Some(store) => store.groups().await?,
        None => Vec::new(),
    };
    if groups.is_empty() {
        ui::note("No groups yet. `nanokimi groups add main --main` makes the first.");
        return Ok(());
    }
    let mut rows = vec![["NAME", "LISTENS TO", "CHAT"].map(str::to_owned).to_vec()];
    for group in groups {
        let listens = match group.role {
            Role::Main => "everything".to_owned(),
            Role::Member => {
                format!("@{}", group.trigger_or(&install.config.assistant_name))
            }
        };
        rows.push(vec![group.name.to_string(), listens, group.chat.to_string()]);
    }
    ui::table(&rows)
}

/// Registers a group and makes its folders; where that fails, there is no group.
pub async fn add(install: &Install, group: &Group) -> Result<()> {
    home::prepare(&install.paths)?;
    let store = install.store()?;
    store.add_group(group, install.clock.now()).await?;
    if let Err(error) = home::prepare_group(&install.paths, group) {
        store.remove_group(&group.name).await?;
        return Err(error);
    }
    let folder = install.paths.group(&group.name);
    ui::note(format!("Added {}. Its folder is {}.", group.name, folder.display()));
    Ok(())
}

async fn remove(install: &Install, name: &GroupName) -> Result<()> {
    let Some((store, _)) = install.group(name).await? else {
        bail!("There is no group {name}; `nanokimi groups list` shows those there are");
    };
    store.remove_group(name).await?;
    ui::note(format!(
        "Removed {name}. Its folder and history are kept; `nanokimi groups add {name}` takes them up."
    ));
    Ok(())
}
