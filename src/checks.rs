//! What `nanokimi doctor` looks at. Each check finds one thing, and says what it is and how to mend it.
//!
//! Never changes anything that lasts.

mod gateway;
mod kernel;
mod kimi;
mod lent_folders;
mod words;

use std::io;
use std::os::unix::fs::PermissionsExt;

use anyhow::Result;
use jiff::tz::TimeZone;

pub use gateway::check_gateway;
pub use kimi::check_kimi_account;
pub use lent_folders::check_lent_folders;
pub use words::{describe_docker_error, render_error, render_time};

use crate::bridge::whatsapp::WhatsAppBridge;
use crate::container::docker::{DaemonFacts, DaemonRights, Docker, EnforcedLimits};
use crate::container::image;
use crate::folders;
use crate::paths::Paths;
use crate::store::{LinkRecord, Store};
use crate::types::{DiskSpace, Engine, Group, LinkState, Role};

/// If a disk has less room than this, that is worth a warning: an image build takes about as much.
const ROOM_WANTED: DiskSpace = DiskSpace { bytes: 2 * 1024 * 1024 * 1024, entries: 20_000 };

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub state: Severity,
    pub what: String,
    /// What to do about it. Empty if all is well or `what` says it.
    pub fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    Good,
    /// Works, but the owner should know.
    Warning,
    /// Keeps the assistant from answering.
    Broken,
}

impl Finding {
    pub fn good(what: impl Into<String>) -> Self {
        Self { state: Severity::Good, what: what.into(), fix: String::new() }
    }

    pub fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: Severity::Warning, what: what.into(), fix: fix.into() }
    }

    pub fn broken(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { state: Severity::Broken, what: what.into(), fix: fix.into() }
    }
}

/// Looks at the settings. `mistakes` were found when they were read.
pub fn check_settings(paths: &Paths, mistakes: Vec<String>) -> Vec<Finding> {
    if mistakes.is_empty() {
        return vec![Finding::good(format!("The settings of {} are good", paths.root().display()))];
    }
    let mut findings: Vec<Finding> =
        mistakes.into_iter().map(|mistake| Finding::broken(mistake, "")).collect();
    if let Some(last) = findings.last_mut() {
        last.fix = format!("Mend {}, or the environment", paths.env_file().display());
    }
    findings
}

/// Looks at the Docker daemon and the agent image. `start` says how a daemon that does not answer is started.
pub async fn check_docker(connected: Result<Docker>, engines: &[Engine], start: &str) -> Vec<Finding> {
    let docker = match connected {
        Ok(docker) => docker,
        Err(error) => return vec![Finding::broken(describe_docker_error(&error), start)],
    };
    let mut findings = match docker.fetch_daemon_facts().await {
        Ok(facts) => check_daemon(&facts),
        Err(error) => vec![Finding::broken(render_error(&error), start)],
    };
    for &engine in engines {
        findings.push(match docker.has_image(&image::agent_image_name(engine)).await {
            Ok(true) => Finding::good(format!("The agent image of {engine} is built")),
            Ok(false) => {
                Finding::broken(format!("The agent image of {engine} is not built"), "Run `nanokimi build`")
            }
            Err(error) => Finding::broken(render_error(&error), "Run `nanokimi build`"),
        });
    }
    findings
}

/// Looks at the engines in use. `chosen` is the engine of groups that have not chosen one.
pub fn check_engines(engines: &[Engine], chosen: Engine) -> Vec<Finding> {
    let ended = engines.iter().filter_map(|engine| Some((*engine, engine.successor()?)));
    let findings = ended.map(|(engine, successor)| {
        let fix = if engine == chosen {
            format!("Write ENGINE={successor} into .env, run `nanokimi groups set --all --engine {successor}` and `nanokimi build`, and start nanokimi again")
        } else {
            format!("Run `nanokimi groups set --all --engine {successor}`, then `nanokimi build`")
        };
        Finding::warning(
            format!("The engine {engine} has ended: nobody mends it any more, and Kimi may stop serving it on any day"),
            fix,
        )
    });
    findings.collect()
}

fn check_daemon(facts: &DaemonFacts) -> Vec<Finding> {
    let mut findings = vec![match facts.rights {
        DaemonRights::Rootless => Finding::good(format!("Docker {} is rootless", facts.version)),
        DaemonRights::Rootful => Finding::warning(
            format!(
                "Docker {} runs as root: whoever breaks out of a container owns this machine",
                facts.version
            ),
            "Use rootless Docker: dockerd-rootless-setuptool.sh install, and no DOCKER_HOST",
        ),
    }];
    // Docker's own disk has the images, and what containers write outside of their group's folder.
    if let Ok(free) = folders::free_space_of_folder(&facts.data_root) {
        findings.extend(low_disk_finding(free, "Docker's disk"));
    }
    // A daemon that runs as root, and with it all other chats, does not need what one agent uses up.
    if facts.rights == DaemonRights::Rootless {
        findings.extend(kernel::check_kernel_limits(|path| std::fs::read_to_string(path).ok()));
    }
    if let EnforcedLimits::AllBut(ignored) = &facts.limits {
        findings.push(Finding::warning(
            format!("Docker ignores limits on {} here: an agent could use all there is", ignored.join(", ")),
            "Boot with cgroup v2 and delegate its controllers: docs/operating.md says how",
        ));
    }
    findings
}

/// Looks at the link to WhatsApp: whether there is one, its last state, and who could read its keys.
pub async fn check_whatsapp(whatsapp: &WhatsAppBridge, paths: &Paths, zone: &TimeZone) -> Vec<Finding> {
    let mut findings = check_key_permissions(paths);
    let noted = match Store::open_for_reading(&paths.database_file()) {
        Ok(Some(store)) => store.last_link_state().await.ok().flatten(),
        // The groups' check says what is wrong with it.
        Ok(None) | Err(_) => None,
    };
    findings.push(match whatsapp.is_linked().await {
        Ok(true) => link_finding(noted, zone),
        Ok(false) if noted.is_some_and(|noted| noted.link == LinkState::LoggedOut) => Finding::broken(
            "WhatsApp has logged this device out: it was removed on the phone, or the account is locked",
            "Look at WhatsApp on the phone, then run `nanokimi auth`",
        ),
        Ok(false) => Finding::warning("No WhatsApp account is linked", "Run `nanokimi auth`"),
        Err(error) => Finding::broken(
            render_error(&error),
            "Restore store/auth/ only together with the rest of store/, or run `nanokimi auth --logout` and link again",
        ),
    });
    findings
}

/// Whoever can read the keys can be the linked device.
fn check_key_permissions(paths: &Paths) -> Vec<Finding> {
    let folder = paths.whatsapp_keys_folder();
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_open = |path: &std::path::PathBuf| {
        path.symlink_metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
    };
    let open = std::iter::once(folder.clone()).chain(entries).find(is_open);
    open.into_iter()
        .map(|path| {
            Finding::broken(
                format!("{} can be opened by others, who could write as you on WhatsApp", path.display()),
                format!("Run chmod -R go= {}", folder.display()),
            )
        })
        .collect()
}

/// How the link of a linked account last stood.
fn link_finding(noted: Option<LinkRecord>, zone: &TimeZone) -> Finding {
    let Some(LinkRecord { link, since }) = noted else {
        return Finding::good("A WhatsApp account is linked");
    };
    let since = render_time(since, zone);
    match link {
        LinkState::Online => {
            Finding::good(format!("A WhatsApp account is linked; it last came online on {since}"))
        }
        LinkState::Connecting | LinkState::Pairing(_) | LinkState::Unlinked => Finding::warning(
            format!("A WhatsApp account is linked, but there was no connection to WhatsApp since {since}"),
            "Start nanokimi; if it does run, check this machine's connection with curl -I https://web.whatsapp.com",
        ),
        LinkState::Replaced => Finding::broken(
            format!("Another program has taken the link to WhatsApp over, on {since}"),
            "Stop that one for good, such as a copy of this install, then start nanokimi again",
        ),
        LinkState::LoggedOut => Finding::broken(
            format!("WhatsApp logged this device out on {since}"),
            "Look at WhatsApp on the phone, then run `nanokimi auth`",
        ),
        LinkState::Banned { until } => Finding::broken(
            format!("WhatsApp has banned this account until {}", render_time(until, zone)),
            "Look at WhatsApp on the phone, and wait until then",
        ),
        LinkState::DiskFull => Finding::broken(
            format!(
                "The disk is full, so that nanokimi is offline since {since}; WhatsApp keeps what is sent"
            ),
            "Make room on that disk: 96 MB and 2,000 inodes are enough for it to come back by itself",
        ),
        LinkState::Outdated => Finding::broken(
            format!("WhatsApp does not let this version of nanokimi in any more, since {since}"),
            "Install a newer nanokimi",
        ),
    }
}

/// Looks at the database and the groups in it. Never makes a database.
pub async fn check_groups(paths: &Paths) -> Vec<Finding> {
    let groups = match Store::open_for_reading(&paths.database_file()) {
        Ok(None) => {
            let what = format!("There is no install in {} yet", paths.root().display());
            return vec![Finding::warning(what, "Run `nanokimi auth`, then `nanokimi setup`")];
        }
        Ok(Some(store)) => verify_and_read_groups(&store).await,
        Err(error) => Err(error),
    };
    match groups {
        // The error says itself what to do.
        Err(error) => vec![Finding::broken(render_error(&error), "")],
        Ok(groups) if groups.iter().any(|group| group.role == Role::Main) => {
            vec![Finding::good(format!("The database is good; groups: {}", groups.len()))]
        }
        Ok(_) => vec![Finding::warning("There is no main channel", "Run `nanokimi setup`")],
    }
}

async fn verify_and_read_groups(store: &Store) -> Result<Vec<Group>> {
    store.check_integrity().await?;
    store.all_groups().await
}

/// Looks at the disk that the install is on, or will be: whether it can be written to, and how much room it
/// has.
pub fn check_disk(paths: &Paths) -> Vec<Finding> {
    let Some(folder) = paths.root().ancestors().find(|folder| folder.exists()) else { return Vec::new() };
    let mut findings = Vec::new();
    if let Err(error) = rustix::fs::access(folder, rustix::fs::Access::WRITE_OK) {
        let error = anyhow::Error::new(io::Error::from(error));
        findings.push(Finding::broken(
            format!("Nothing can be written in {}: {}", folder.display(), render_error(&error)),
            "Run nanokimi as the user whose folder it is, or choose another with --home",
        ));
    }
    if let Ok(free) = folders::free_space_of_folder(folder) {
        let good = || Finding::good(format!("{} GB are free on the disk", free.bytes / 1024 / 1024 / 1024));
        findings.push(low_disk_finding(free, "the disk").unwrap_or_else(good));
    }
    findings
}

/// A finding if the disk has little room.
fn low_disk_finding(free: DiskSpace, disk: &str) -> Option<Finding> {
    if !ROOM_WANTED.is_beyond(free) {
        return None;
    }
    let what = if free.bytes < ROOM_WANTED.bytes {
        format!("Only {} MB are free on {disk}", free.bytes / 1024 / 1024)
    } else {
        format!("Only {} more files fit on {disk}, whatever their size", free.entries)
    };
    let finding = if free.is_low() { Finding::broken } else { Finding::warning };
    Some(finding(what, "Make room: a full disk stops every chat"))
}
