//! The command line: the only module that parses arguments and prints. One file per verb.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed (the reason is on stderr),
//! 2 the command line was not understood, and those of `exit`.

mod accounts;
mod auth;
mod build;
mod chat;
mod chats;
mod demo;
mod discreet;
mod doctor;
mod exit;
mod gateway;
mod groups;
mod install;
mod log;
mod login;
mod machine;
mod run;
mod service;
mod setup;
mod status;
mod systemd;
mod tasks;
mod terminal;
mod ui;
mod usage;
mod whatsapp_once;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

use install::Install;
pub use log::log_subscriber;

/// The exit code of a command line that was not understood.
const NOT_UNDERSTOOD: u8 = 2;

/// A WhatsApp assistant for your own server: one binary, one rootless container per chat.
#[derive(Parser)]
#[command(
    name = "nanokimi",
    version,
    disable_help_subcommand = true,
    arg_required_else_help = true,
    help_expected = true
)]
struct Arguments {
    /// The folder of this install [default: NANOKIMI_HOME, else this folder if it is one, else ~/nanokimi]
    #[arg(long, global = true, value_name = "FOLDER", display_order = ui::LAST_IN_HELP)]
    home: Option<PathBuf>,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Try nanokimi: makes this machine ready and talks to a practice model, without any account
    Demo(demo::Arguments),
    /// Link your WhatsApp account, as another device of it
    Auth(auth::Arguments),
    /// Log in to Kimi, by a code that you take to any browser
    Login(login::Arguments),
    /// Let another Kimi account answer when the first is used up
    Accounts {
        #[command(subcommand)]
        verb: accounts::Verb,
    },
    /// Choose your main channel among your WhatsApp chats
    Setup(setup::Arguments),
    /// Build the agent image
    Build,
    /// Run the service in the foreground
    Run,
    /// Talk to a group's agent from this terminal
    Chat(chat::Arguments),
    /// List, add, change and remove the chats that the assistant serves
    Groups {
        #[command(subcommand)]
        verb: groups::Verb,
    },
    /// Plan what the assistant does on time, and show what came of it
    Tasks {
        #[command(subcommand)]
        verb: tasks::Verb,
    },
    /// Let coding tools on this machine use the Kimi login
    Gateway {
        #[command(subcommand)]
        verb: gateway::Verb,
    },
    /// Keep nanokimi running with systemd
    Service {
        #[command(subcommand)]
        verb: service::Verb,
    },
    /// Show what this install does and what waits
    Status,
    /// Show the tokens and turns of each group, by day
    Usage(usage::Arguments),
    /// Look for what is wrong, and say how to mend it
    Doctor,
}

/// Runs nanokimi as it was called.
pub fn main() -> ExitCode {
    log::install_panic_hook();
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) if error.use_stderr() => {
            // Not by clap itself: it repeats what was typed.
            ui::print_info(error.to_string().trim_end());
            return ExitCode::from(NOT_UNDERSTOOD);
        }
        Err(help) => help.exit(),
    };
    match run_with_runtime(arguments) {
        Ok(code) => code,
        // The program that reads the results, such as `head`, has had enough.
        Err(error) if error.is::<ui::ResultPipeClosed>() => ExitCode::FAILURE,
        Err(error) => {
            ui::print_error(&error);
            ExitCode::FAILURE
        }
    }
}

fn run_with_runtime(arguments: Arguments) -> Result<ExitCode> {
    // Before the runtime has threads: it runs programs and changes users.
    if let Verb::Demo(demo) = &arguments.verb {
        let environment = install::read_environment();
        if let Some(code) = demo::prepare_machine(demo, &environment)? {
            return Ok(code);
        }
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .worker_threads(install::WORKER_THREADS)
        .build()
        .context("Failed to start the runtime")?;
    let done = runtime.block_on(dispatch_verb(arguments));
    // A read from the terminal cannot be broken off: it must not keep the process.
    runtime.shutdown_background();
    done
}

async fn dispatch_verb(arguments: Arguments) -> Result<ExitCode> {
    let home = arguments.home;
    match arguments.verb {
        Verb::Demo(demo) => demo::run_demo_command(demo).await,
        Verb::Auth(auth) => auth::run_auth_command(&Install::open(home)?, auth).await,
        Verb::Login(login) => login::run_login_command(&Install::open(home)?, login).await,
        Verb::Accounts { verb } => accounts::run_accounts_command(&Install::open(home)?, verb).await,
        Verb::Setup(setup) => setup::run_setup_command(&Install::open(home)?, setup).await,
        Verb::Build => build::run_build_command(&Install::open(home)?).await,
        Verb::Run => run::run_service_in_foreground(&Install::open(home)?).await,
        Verb::Chat(chat) => chat::run_chat_command(&Install::open(home)?, chat).await,
        Verb::Groups { verb } => groups::run_groups_command(&Install::open(home)?, verb).await,
        Verb::Tasks { verb } => tasks::run_tasks_command(&Install::open(home)?, verb).await,
        Verb::Gateway { verb } => gateway::run_gateway_command(&Install::open(home)?, verb).await,
        Verb::Service { verb } => service::run_service_command(home, verb).await,
        Verb::Status => status::run_status_command(&Install::open(home)?).await,
        Verb::Usage(usage) => usage::run_usage_command(&Install::open(home)?, usage).await,
        Verb::Doctor => doctor::run_doctor_command(home).await,
    }
}
