//! The paths of one install: pure names beneath one root. `folders` creates them.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::types::{AccountId, GroupName};

/// The folder of what came, in a group's folder: each day of its own.
const INBOX: &str = "inbox";
/// In the folder of the separate histories; no engine is called so.
pub const ISOLATED_SESSIONS: &str = "isolated";
/// A group's folder as its agent sees it.
pub const GROUP_IN_CONTAINER: &str = "/workspace/group";

/// The place of something that came with a message, in a group's folder: a name made by us, the same at every
/// try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InboxFile {
    /// The day on which the message was sent.
    day: String,
    pub name: String,
}

impl InboxFile {
    /// `number` is the message's own, `ending` tells its files apart.
    pub fn new(sent_at: Timestamp, zone: &TimeZone, number: i64, ending: &str) -> Self {
        let sent_at = sent_at.to_zoned(zone.clone());
        Self {
            day: sent_at.strftime("%Y-%m-%d").to_string(),
            name: format!("{}-{number:06x}{ending}", sent_at.strftime("%H%M%S")),
        }
    }

    /// The folders on the way there.
    pub fn parent_folders(&self) -> [&str; 2] {
        [INBOX, &self.day]
    }

    /// Relative to the group's folder.
    pub fn relative_path(&self) -> String {
        format!("{INBOX}/{}/{}", self.day, self.name)
    }
}

/// The root of an install (`--home`, `NANOKIMI_HOME`, …) and the names beneath it. Absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    root: PathBuf,
}

impl Paths {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Settings and the API key; never in a container.
    pub fn env_file(&self) -> PathBuf {
        self.root.join(".env")
    }

    /// The host's memory and secrets; never in a container.
    pub fn store_folder(&self) -> PathBuf {
        self.root.join("store")
    }

    pub fn database_file(&self) -> PathBuf {
        self.store_folder().join("nanokimi.db")
    }

    /// The keys of the link to WhatsApp; never in a container.
    pub fn whatsapp_keys_folder(&self) -> PathBuf {
        self.store_folder().join("auth")
    }

    /// Where the service hears that another process has changed tasks.
    pub fn task_signal_socket(&self) -> PathBuf {
        self.store_folder().join("tasks.sock")
    }

    /// Held locked by the one `nanokimi` that works on this install; holds its process id.
    pub fn lock_file(&self) -> PathBuf {
        self.store_folder().join("nanokimi.lock")
    }

    /// The real Kimi login and the engine's `config.toml`. Only the latter is ever mounted.
    pub fn credentials_folder(&self) -> PathBuf {
        self.root.join("data/credentials")
    }

    pub fn engine_config_file(&self) -> PathBuf {
        self.credentials_folder().join("config.toml")
    }

    /// The owner's Kimi login, in kimi-cli's format; never in a container.
    pub fn login_file(&self) -> PathBuf {
        self.credentials_folder().join("kimi-code.json")
    }

    /// What is known of each Kimi account, but for its tokens.
    pub fn accounts_file(&self) -> PathBuf {
        self.credentials_folder().join("kimi-accounts.json")
    }

    /// The login and the device id of a further Kimi account; never in a container.
    pub fn account_folder(&self, account: &AccountId) -> PathBuf {
        self.credentials_folder().join("accounts").join(account.as_str())
    }

    /// kimi-cli's device id, sent with every model request; the same for all containers of an install.
    pub fn device_id_file(&self) -> PathBuf {
        self.credentials_folder().join("device_id")
    }

    pub fn groups_folder(&self) -> PathBuf {
        self.root.join("groups")
    }

    /// The agent's world: its prompt and files.
    pub fn group_folder(&self, group: &GroupName) -> PathBuf {
        self.groups_folder().join(group.as_str())
    }

    /// What all groups may read.
    pub fn global_folder(&self) -> PathBuf {
        self.groups_folder().join("global")
    }

    /// The stand-in credentials of a group's container.
    pub fn agent_credentials_folder(&self, group: &GroupName) -> PathBuf {
        self.agent_folder(group).join("credentials")
    }

    /// The copy of [`Paths::engine_config_file`] that this group's container reads.
    pub fn agent_config_file(&self, group: &GroupName) -> PathBuf {
        self.agent_folder(group).join("config.toml")
    }

    /// The copy of [`Paths::global_folder`] that this group's container reads, unless it is the main
    /// channel's.
    pub fn agent_global_folder(&self, group: &GroupName) -> PathBuf {
        self.agent_folder(group).join("global")
    }

    /// What is to be removed of a group's agents: moved here first, where no container reaches it.
    pub fn agent_trash_folder(&self, group: &GroupName) -> PathBuf {
        self.agent_folder(group).join("trash")
    }

    /// Histories and instructions on which no engine of a group has started any more.
    pub fn set_aside_folder(&self, group: &GroupName) -> PathBuf {
        self.agent_folder(group).join("set-aside")
    }

    /// What is kept of a group's agents; only what lies beneath it is ever mounted.
    pub fn agent_folder(&self, group: &GroupName) -> PathBuf {
        self.all_agents_folder().join(group.as_str())
    }

    pub fn all_agents_folder(&self) -> PathBuf {
        self.root.join("data/agents")
    }

    /// The engine's histories of a group.
    pub fn sessions_folder(&self, group: &GroupName) -> PathBuf {
        self.all_sessions_folder().join(group.as_str())
    }

    pub fn all_sessions_folder(&self) -> PathBuf {
        self.root.join("data/sessions")
    }

    /// The histories of a group with an engine that keeps them apart from [`Paths::sessions_folder`]. Not
    /// beneath those: an agent can write there, and put a link in the place of a folder.
    pub fn separate_sessions_folder(&self, group: &GroupName, folder: &str) -> PathBuf {
        self.agent_folder(group).join("sessions").join(folder)
    }

    /// The history of a task that runs in a session of its own: one at a time, with every engine.
    pub fn isolated_sessions_folder(&self, group: &GroupName) -> PathBuf {
        self.separate_sessions_folder(group, ISOLATED_SESSIONS)
    }

    /// The folder of a group's egress proxy, which holds its socket and nothing else.
    pub fn egress_folder(&self, group: &GroupName) -> PathBuf {
        self.root.join("data/run").join(group.as_str())
    }
}
