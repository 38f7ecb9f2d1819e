//! Opens an install for a verb: finds its root, reads its settings, and puts the service together from them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow, bail};
use tokio::sync::{Notify, mpsc};

use super::machine;
use crate::bridge::Order;
use crate::checks;
use crate::clock::Clock;
use crate::config::Config;
use crate::container::Containers;
use crate::container::docker::Docker;
use crate::container::image;
use crate::container::memory;
use crate::container::spec::ContainerLimits;
use crate::folders::{self, AllowlistPlace};
use crate::gateway::{GatewaySetup, KimiApi, KimiCliHeaders};
use crate::login::{self, Accounts, Login, config_toml};
use crate::paths::Paths;
use crate::relay::KimiUpstream;
use crate::session::{self, SessionContext, Settings};
use crate::store::{InstanceLock, Store};
use crate::types::{Engine, EngineChoice, Group, GroupName, KimiHosts};

/// The service waits, it does not compute: two threads carry hundreds of chats, and cost little memory.
pub const WORKER_THREADS: usize = 2;
/// The folder beneath the person's own in which an install lies unless they say otherwise.
const DEFAULT_ROOT: &str = "nanokimi";

/// The allowlist of folders that may be lent to agents, in the person's own configuration: no agent sees that.
const ALLOWLIST: &str = "nanokimi/mount-allowlist.json";

/// An install's place and settings.
pub struct Install {
    pub paths: Paths,
    pub config: Config,
    pub environment: BTreeMap<String, String>,
    pub clock: Clock,
}

impl Install {
    /// Finds the install and reads its settings. Makes nothing.
    ///
    /// # Errors
    /// Says all that is wrong with the settings.
    pub fn open(home: Option<PathBuf>) -> Result<Self> {
        let (install, mistakes) = Self::open_with_mistakes(home)?;
        if !mistakes.is_empty() {
            bail!(
                "The settings of {} cannot be used. {}",
                install.paths.root().display(),
                mistakes.join(". ")
            );
        }
        Ok(install)
    }

    /// As [`Install::open`], but mistakes in the settings are returned beside it, and a default takes the
    /// place of each.
    pub fn open_with_mistakes(home: Option<PathBuf>) -> Result<(Self, Vec<String>)> {
        let environment = environment_with_runtime_dir();
        let paths = Paths::new(find_install_root(home, &environment)?);
        if paths.root().metadata().is_ok_and(|root| !root.is_dir()) {
            bail!(
                "{} is a file; name the folder of an install with --home or NANOKIMI_HOME",
                paths.root().display()
            );
        }
        let (env_file, unread) = match folders::read_env_file(&paths) {
            Ok(text) => (text, None),
            Err(error) => (String::new(), Some(checks::render_error(&error))),
        };
        let (config, mistakes) =
            Config::resolve_settings(&env_file, environment.clone(), machine::system_time_zone().as_deref());
        let mistakes = unread.into_iter().chain(mistakes).collect();
        Ok((Self { paths, config, environment, clock: Clock::System }, mistakes))
    }

    /// The database, made if there is none.
    pub fn open_store(&self) -> Result<Store> {
        Store::open(&self.paths.database_file())
    }

    /// The database, unless there is none yet.
    pub fn open_existing_store(&self) -> Result<Option<Store>> {
        Store::open_existing(&self.paths.database_file())
    }

    /// The database to look into, unless there is none yet; also on a disk that can only be read.
    pub fn open_store_to_read(&self) -> Result<Option<Store>> {
        Store::open_for_reading(&self.paths.database_file())
    }

    /// The database and a group in it, if there are both.
    pub async fn find_group(&self, name: &GroupName) -> Result<Option<(Store, Group)>> {
        let Some(store) = self.open_existing_store()? else { return Ok(None) };
        let group = store.group_by_name(name).await?;
        Ok(group.map(|group| (store, group)))
    }

    /// Where the owner says which folders may be lent to agents; `None` without a home.
    pub fn allowlist_place(&self) -> Option<AllowlistPlace> {
        let folder =
            |name: &str| self.environment.get(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = folder("HOME")?;
        let config = folder("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config"));
        Some(AllowlistPlace { file: config.join(ALLOWLIST), home })
    }

    /// The right to work on this install, which one process has at a time.
    pub fn lock_install(&self, verb: &str) -> Result<InstanceLock> {
        InstanceLock::acquire_lock(&self.paths.lock_file(), verb)
    }

    /// Docker, if it answers.
    pub async fn find_docker(&self) -> Result<Docker> {
        let runtime_dir = self.environment.get("XDG_RUNTIME_DIR").map(Path::new);
        Docker::connect_and_ping(self.config.docker_host.as_deref(), runtime_dir).await
    }

    /// Docker.
    ///
    /// # Errors
    /// Says how to start it.
    pub async fn require_docker(&self) -> Result<Docker> {
        self.find_docker().await.map_err(|error| self.add_docker_start_hint(error))
    }

    /// Docker for the service, which waits for a Docker that does not answer yet. If it answers, the agent
    /// image must be there.
    ///
    /// # Errors
    /// What does not end by itself: says what to do.
    pub async fn docker_for_service(&self) -> Result<Docker> {
        let runtime_dir = self.environment.get("XDG_RUNTIME_DIR").map(Path::new);
        let docker = Docker::for_docker_host(self.config.docker_host.as_deref(), runtime_dir)?;
        let Err(error) = docker.ping_docker().await else { return self.require_image(docker).await };
        let error = self.add_docker_start_hint(error);
        // Root has no Docker of its own, and on a fresh machine there is nothing yet that could wait for one.
        let is_roots = rustix::process::geteuid().is_root() && self.config.docker_host.is_none();
        if is_roots || self.open_existing_store()?.is_none() {
            return Err(error);
        }
        tracing::warn!("{error}. It is waited for");
        Ok(docker)
    }

    fn add_docker_start_hint(&self, error: anyhow::Error) -> anyhow::Error {
        match error.chain().nth(1) {
            Some(_) => anyhow!("{}. {}", checks::describe_docker_error(&error), self.how_to_start_docker()),
            // An error without a cause is about DOCKER_HOST itself, and says what to do.
            None => error,
        }
    }

    /// Refuses to link an account as root if the service could not run as root.
    ///
    /// # Errors
    /// Says who is to do it.
    pub fn refuse_root(&self) -> Result<()> {
        // A person who names another daemon, or links to a test's own server, knows what they do.
        let on_purpose = self.config.docker_host.is_some() || self.config.whatsapp_url.is_some();
        if rustix::process::geteuid().is_root() && !on_purpose {
            bail!("Run this as the account whose rootless Docker nanokimi uses, not as root");
        }
        Ok(())
    }

    pub fn how_to_start_docker(&self) -> &'static str {
        if self.config.docker_host.is_some() {
            "Start it there, or leave DOCKER_HOST out to use your own rootless Docker"
        } else if rustix::process::geteuid().is_root() {
            "Rootless Docker belongs to an ordinary account: log in as that one (`nanokimi demo` makes one)"
        } else {
            "Start it with `systemctl --user start docker`; docs/operating.md says how to set it up"
        }
    }

    /// Docker with the agent image.
    ///
    /// # Errors
    /// Says how to get what is missing.
    pub async fn docker_with_image(&self) -> Result<Docker> {
        self.require_image(self.require_docker().await?).await
    }

    async fn require_image(&self, docker: Docker) -> Result<Docker> {
        // A group that has chosen another engine, without its image, is told so when it calls; `doctor` says
        // it too.
        let engine = self.config.engine;
        if !docker.has_image(&image::agent_image_name(engine)).await? {
            bail!("The agent image of {engine} is not built yet; run `nanokimi build`");
        }
        Ok(docker)
    }

    /// The engines that this install works with: its own, and those that groups have chosen.
    pub async fn engines_in_use(&self) -> Result<Vec<Engine>> {
        let groups = match self.open_store_to_read()? {
            Some(store) => store.all_groups().await?,
            None => Vec::new(),
        };
        let mut engines = vec![self.config.engine];
        let chosen = groups.iter().filter_map(|group| group.engine.as_ref());
        for engine in chosen.filter_map(EngineChoice::engine) {
            if !engines.contains(&engine) {
                engines.push(engine);
            }
        }
        Ok(engines)
    }

    /// The key or login for the Kimi API, as it stands now.
    pub fn load_login(&self) -> Login {
        Login::load_from_disk(
            &self.paths,
            self.config.api_key.as_ref(),
            &self.config.oauth_host,
            self.clock.now(),
        )
    }

    /// All Kimi accounts, as they stand now.
    pub fn load_accounts(&self) -> Accounts {
        let key = self.config.api_key.as_ref();
        Accounts::load_from_disk(&self.paths, key, self.kimi_hosts(), self.clock.now())
    }

    /// Where Kimi's servers are.
    pub fn kimi_hosts(&self) -> KimiHosts {
        KimiHosts { oauth_host: self.config.oauth_host.clone(), api_base: self.config.api_base.clone() }
    }

    /// What the gateway for coding tools is made of.
    ///
    /// # Errors
    /// No login may be sent to the API's address, or this install has no device id and none can be made.
    pub async fn build_gateway_setup(&self, store: Store, upstream: &KimiUpstream) -> Result<GatewaySetup> {
        let machine = rustix::system::uname();
        let text = |text: &std::ffi::CStr| text.to_string_lossy().into_owned();
        Ok(GatewaySetup {
            store,
            clock: self.clock,
            zone: self.config.zone.clone(),
            kimi: KimiApi::new(upstream).await?,
            kimi_cli: KimiCliHeaders {
                version: self.config.kimi_cli_version.clone(),
                device_name: text(machine.nodename()),
                device_model: format!("Linux {} {}", text(machine.release()), text(machine.machine())),
                os_version: text(machine.version()),
                device_id: login::load_or_create_device_id(&self.paths.device_id_file())?,
            },
        })
    }

    /// How much memory agents may hold together.
    pub fn agents_memory_bytes(&self) -> u64 {
        self.config.agents_memory_mb.map_or_else(memory::agent_memory_budget, |mb| mb * 1024 * 1024)
    }

    /// Puts together what the service runs on.
    ///
    /// # Errors
    /// Everything else that would keep it from answering, such as the engine's configuration.
    pub async fn build_session_context(
        &self,
        docker: Docker,
        store: Store,
        orders: mpsc::Sender<Order>,
    ) -> Result<SessionContext<Docker>> {
        folders::prepare_install_folders(&self.paths)?;
        config_toml::ensure_engine_config(&self.paths.engine_config_file()).map_err(|error| {
            anyhow!("{}. Mend it, or remove it to get a new one", checks::render_error(&error))
        })?;
        let config = &self.config;
        let settings = Settings {
            install: store.install_id().await?,
            assistant: config.assistant_name.clone(),
            reply_prefix: config.reply_prefix(),
            lang: config.lang,
            zone: config.zone.clone(),
            engine: config.engine,
            container_limits: ContainerLimits {
                memory_bytes: config.agent_memory_mb * 1024 * 1024,
                cpus_milli: (config.agent_cpus * 1000.0) as i64,
                ..ContainerLimits::STANDARD
            },
            model: config.model.clone(),
            device_id: login::load_or_create_device_id(&self.paths.device_id_file())?,
            time_limits: session::machine::TimeLimits {
                idle: config.idle_timeout,
                turn: config.turn_timeout,
            },
            answer_within: config.answer_within,
            direct_chats: config.direct_chats,
            media_limit_bytes: config.media_limit_bytes,
            max_agents: config.max_agents,
            agents_memory_bytes: self.agents_memory_bytes(),
            allowlist: self.allowlist_place(),
            transcription: config.transcription.clone(),
        };
        let accounts = Arc::new(self.load_accounts());
        Ok(SessionContext {
            store,
            containers: docker,
            paths: self.paths.clone(),
            clock: self.clock,
            upstream: KimiUpstream::of_accounts(&accounts),
            accounts,
            settings: Arc::new(settings),
            orders,
            outbox_hint: Arc::new(Notify::new()),
            tasks_hint: Arc::new(Notify::new()),
            swept: Arc::default(),
        })
    }
}

/// The environment, read once.
pub fn read_environment() -> BTreeMap<String, String> {
    // What is not UTF-8 is no setting of ours.
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// As [`read_environment`], with the folder of the person's sockets if it is not named.
pub fn environment_with_runtime_dir() -> BTreeMap<String, String> {
    let mut environment = read_environment();
    // Not there after su or sudo, nor in a cron job; the folder is the same. One that is no path from the
    // root is to be ignored: the XDG base directory specification.
    if environment.get("XDG_RUNTIME_DIR").is_none_or(|folder| !Path::new(folder).is_absolute()) {
        environment.insert("XDG_RUNTIME_DIR".to_owned(), default_runtime_dir());
    }
    environment
}

/// The folder that systemd makes for a person's sockets.
fn default_runtime_dir() -> String {
    format!("/run/user/{}", rustix::process::getuid().as_raw())
}

/// The root of the install: as given, else this folder if it is an install, else `~/nanokimi`.
///
/// A person who looks around in a group's folder must not be led to an install that its agent has put there.
fn find_install_root(home: Option<PathBuf>, environment: &BTreeMap<String, String>) -> Result<PathBuf> {
    // Nobody means a folder called `~`; in a file, or behind an equals sign, the shell does not say which one
    // is meant.
    let from_root = |given: &Path| match given.strip_prefix("~") {
        Ok(beneath) => Ok(home_folder(environment)?.join(beneath)),
        Err(_) => Ok::<_, anyhow::Error>(given.to_owned()),
    };
    let here = || std::env::current_dir().context("Failed to find the current folder");
    if let Some(home) = home {
        return Ok(here()?.join(from_root(&home)?));
    }
    if let Some(given) = environment.get("NANOKIMI_HOME").filter(|home| !home.is_empty()) {
        let home = from_root(Path::new(given))?;
        if !home.is_absolute() {
            bail!("NANOKIMI_HOME={given} is not a whole path; write it from the beginning, with /");
        }
        return Ok(home);
    }
    let here = here()?;
    if folders::is_install_folder(&here) {
        return Ok(here);
    }
    Ok(home_folder(environment)?.join(DEFAULT_ROOT))
}

/// The person's own folder.
fn home_folder(environment: &BTreeMap<String, String>) -> Result<&Path> {
    match environment.get("HOME").filter(|home| !home.is_empty()).map(Path::new) {
        Some(home) if home.is_absolute() => Ok(home),
        Some(home) => bail!(
            "Failed to find an install: HOME is {home:?}, which is no path from the root; set it right, or use --home \
             FOLDER"
        ),
        None => bail!("Failed to find an install: HOME is not set; use --home FOLDER"),
    }
}

/// Listens, from this call on, for a wish that the process ends, by the person or the system; resolves with
/// it.
pub fn listen_for_stop_signal() -> Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind, name| signal(kind).with_context(|| format!("Failed to listen for {name}"));
    let mut interrupt = listen(SignalKind::interrupt(), "SIGINT")?;
    let mut terminate = listen(SignalKind::terminate(), "SIGTERM")?;
    let mut hang_up = listen(SignalKind::hangup(), "SIGHUP")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hang_up.recv() => {}
        }
    })
}
