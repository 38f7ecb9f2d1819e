//! `nanokimi gateway`: lets coding tools on this machine use the Kimi login, each with a key of its own.

mod client;
mod keys;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Subcommand as ClapSubcommand;
use sd_notify::NotifyState;
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use super::install::{self, Install};
use super::systemd::notify_systemd;
use super::{log, ui};
use crate::config::with_setting;
use crate::folders;
use crate::gateway::{CodingClient, Gateway, GatewayServer, serve_while_enabled};
use crate::relay::{KimiUpstream, run_account_upkeep};
use crate::session::SessionContext;
use crate::store::Store;
use crate::types::GatewayAddress;

/// Linux takes no longer path of a unix socket.
const SOCKET_PATH_MAX_BYTES: usize = 107;
/// Where the gateway listens unless the owner says otherwise.
const DEFAULT_ADDRESS: &str = "127.0.0.1:8788";
const SETTING: &str = "GATEWAY_LISTEN";

#[derive(ClapSubcommand)]
pub enum Verb {
    /// Let the gateway listen whenever nanokimi runs
    Enable {
        /// An address of this machine [default: 127.0.0.1:8788]
        #[arg(long, value_name = "ADDRESS", value_parser = ui::parse_typed_text, conflicts_with = "unix")]
        listen: Option<String>,
        /// A unix socket, which is made there
        #[arg(long, value_name = "PATH")]
        unix: Option<PathBuf>,
    },
    /// Let it listen no more
    Disable,
    /// Run the gateway alone in the foreground, without WhatsApp and chats
    Run,
    /// Give clients keys, and take them away
    Keys {
        #[command(subcommand)]
        verb: keys::Verb,
    },
    /// Show what to put into the settings of a coding tool
    Config {
        /// opencode, claude, codex, aider, cline, zed or continue
        #[arg(value_name = "CLIENT", value_parser = CodingClient::parse)]
        client: CodingClient,
        /// Put it into OpenCode's own settings; all else in them stays
        #[arg(long)]
        write: bool,
        /// Take it out of them again
        #[arg(long, conflicts_with = "write")]
        undo: bool,
    },
}

pub async fn run_gateway_command(install: &Install, verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Enable { listen, unix } => enable_gateway(install, listen.as_deref(), unix)?,
        Verb::Disable => disable_gateway(install)?,
        Verb::Run => run_gateway_alone(install).await?,
        Verb::Keys { verb } => keys::run_keys_command(install, verb).await?,
        Verb::Config { client, write, undo } => client::run_config_command(install, client, write, undo)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn enable_gateway(install: &Install, listen: Option<&str>, unix: Option<PathBuf>) -> Result<()> {
    let address = match unix {
        Some(path) => {
            let path = std::path::absolute(path).context("Failed to find the socket's folder")?;
            let Some(path) = path.to_str() else {
                bail!("{} is not UTF-8; choose another path", path.display())
            };
            GatewayAddress::parse(&format!("unix:{path}"))?
        }
        None => GatewayAddress::parse(listen.unwrap_or(DEFAULT_ADDRESS))?,
    };
    match &address {
        GatewayAddress::Loopback(address) => {
            ensure!(
                address.port() != 0,
                "{address} has no port that clients could be told; choose one, such as 8788"
            );
        }
        GatewayAddress::Unix(path) => ensure!(
            path.as_os_str().len() <= SOCKET_PATH_MAX_BYTES,
            "The path of a socket has at most {SOCKET_PATH_MAX_BYTES} bytes; choose a shorter one than {}",
            path.display()
        ),
    };
    write_setting(install, Some(&address))?;
    ui::print_info(format!(
        "The gateway listens on {address} from the next start of nanokimi on; `nanokimi gateway run` starts it alone. \
         `nanokimi gateway keys add NAME` makes a key for a client, `nanokimi gateway disable` undoes this."
    ));
    Ok(())
}

fn disable_gateway(install: &Install) -> Result<()> {
    if install.config.gateway.is_none() {
        ui::print_info("The gateway is off already.");
        return Ok(());
    }
    write_setting(install, None)?;
    ui::print_info("The gateway is off from the next start of nanokimi on. The keys stay.");
    Ok(())
}

fn write_setting(install: &Install, address: Option<&GatewayAddress>) -> Result<()> {
    if install.environment.get(SETTING).is_some_and(|value| !value.is_empty()) {
        bail!("{SETTING} is set in the environment, which wins over .env; change it there");
    }
    let value = address.map(|address| {
        let text = address.to_string();
        // A path may have anything in it; in single quotes nothing but the quote itself means something.
        let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || ":./[]-_".contains(c));
        if is_plain { text } else { format!("'{text}'") }
    });
    if value.as_deref().is_some_and(|value| value.matches('\'').count() > 2) {
        bail!("The path of the socket has a quote in it; choose another");
    }
    let text = folders::read_env_file(&install.paths)?;
    folders::write_env_file(&install.paths, &with_setting(&text, SETTING, value.as_deref()))
}

/// The gateway alone, until the person or the system asks it to stop. It keeps the logins fresh, as the service does.
async fn run_gateway_alone(install: &Install) -> Result<()> {
    log::start_log(&install.config.log_level);
    let Some(address) = &install.config.gateway else {
        bail!("The gateway is off; `nanokimi gateway enable` turns it on");
    };
    let _lock = install.lock_install("gateway run")?;
    folders::prepare_install_folders(&install.paths)?;
    let store = install.open_store()?;
    let accounts = Arc::new(install.load_accounts());
    let upstream = KimiUpstream::of_accounts(&accounts);
    let gateway = build_gateway(install, &store, &upstream).await?;
    let asked = install::listen_for_stop_signal()?;
    let server = GatewayServer::bind(address).await?;
    ui::print_info(format!("The gateway listens on {}.", server.address()));
    notify_systemd(NotifyState::Ready);
    let (stop_upkeep, upkeep_stopped) = oneshot::channel();
    let upkeep = run_account_upkeep(accounts, upstream.account_pool(), install.clock, upkeep_stopped);
    let serving = async {
        tokio::select! {
            never = server.serve(gateway) => match never {},
            () = asked => {}
        }
        notify_systemd(NotifyState::Stopping);
        // A renewal that has begun is finished.
        stop_upkeep.send(()).ok();
    };
    tokio::join!(serving, upkeep);
    Ok(())
}

/// Serves the gateway beside the chats, if it is enabled. Dropping what is returned ends it.
pub async fn start_gateway_beside_chats<C>(install: &Install, context: &SessionContext<C>) -> JoinSet<()> {
    let mut serving = JoinSet::new();
    let Some(address) = install.config.gateway.clone() else { return serving };
    match build_gateway(install, &context.store, &context.upstream).await {
        Ok(gateway) => {
            serving.spawn(async move { match serve_while_enabled(&address, gateway).await {} });
        }
        // The chats need none.
        Err(error) => tracing::warn!("The gateway for coding tools cannot start: {error:#}"),
    }
    serving
}

async fn build_gateway(install: &Install, store: &Store, upstream: &KimiUpstream) -> Result<Arc<Gateway>> {
    let setup = install.build_gateway_setup(store.clone(), upstream).await?;
    Ok(Arc::new(Gateway::new(setup)))
}
