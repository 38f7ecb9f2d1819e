//! `nanokimi auth`: links a WhatsApp account, by QR code, pairing code or passkey; shows and removes the
//! link.
//!
//! The only place that shows a code, and it shows it to a person: no log and no file ever has one.

mod passkey;
pub mod phone;
pub mod qr;
mod screen;

use std::process::ExitCode;

use anyhow::{Result, bail};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{MissedTickBehavior, interval};

use self::screen::{PairingScreen, TICK};
use super::exit::{self, ExitReport};
use super::install::{self, Install};
use super::terminal::read_typed_lines;
use super::{log, ui, whatsapp_once};
use crate::bridge;
use crate::bridge::whatsapp::BridgeTask;
use crate::checks;
use crate::clock::Clock;
use crate::folders;
use crate::store::{InstanceLock, LinkRecord, Store};
use crate::types::{LinkState, Pairing};
use crate::writing::normalize_typed_text;

/// What is said of codes when there is no terminal.
const IN_A_PIPE: &str = "Without an option, the phone scans a QR code. On a terminal it is renewed in place, and gone \
                         afterwards; in a pipe each code is printed once, as it comes, for whoever reads along. The exit \
                         codes are in docs/operating.md.";

#[derive(clap::Args)]
#[command(after_help = IN_A_PIPE)]
pub struct Arguments {
    /// Link by a code to type into the phone, whose number this is: +34600111222
    #[arg(long, value_name = "PHONE", value_parser = ui::parse_typed_text, conflicts_with_all = ["status", "logout"])]
    pair_code: Option<String>,
    /// Show which account is linked, and how the link last stood; asks nobody
    #[arg(long, conflicts_with = "logout")]
    status: bool,
    /// Remove this device from the account, and the keys of the link from this machine
    #[arg(long)]
    logout: bool,
    /// With --logout: do not ask
    #[arg(long, requires = "logout")]
    yes: bool,
}

pub async fn run_auth_command(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    // The screen belongs to the code: what the library warns of meanwhile is not shown.
    log::start_log("error");
    if arguments.status {
        return print_link_status(install).await;
    }
    if arguments.logout {
        return unlink_account(install, arguments.yes).await;
    }
    let phone = arguments.pair_code.as_deref().map(phone::parse_phone_number).transpose()?;
    install.refuse_root()?;
    link_whatsapp_account(install, phone).await
}

async fn print_link_status(install: &Install) -> Result<ExitCode> {
    let store = install.open_existing_store()?;
    if !install.whatsapp_bridge().is_linked().await? {
        return Ok(exit_for_missing_link(store.as_ref(), install).await?.report_exit());
    }
    let (account, noted) = match &store {
        Some(store) => (store.linked_account().await?, store.last_link_state().await?),
        None => (None, None),
    };
    let account =
        account.map_or_else(|| "not told yet".to_owned(), |account| whatsapp_once::account_name(&account));
    let mut rows = vec![("account", account)];
    if let Some(LinkRecord { link, since }) = noted {
        let holder = InstanceLock::current_holder(&install.paths.lock_file())?;
        rows.push(("link", whatsapp_once::render_link_state(&link, holder.as_deref(), &install.config.zone)));
        rows.push(("since", checks::render_time(since, &install.config.zone)));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    ui::print_table(&rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Why no account is linked, as far as that is known.
pub async fn exit_for_missing_link(store: Option<&Store>, install: &Install) -> Result<ExitReport> {
    let noted = match store {
        Some(store) => store.last_link_state().await?,
        None => None,
    };
    let logged_out = noted.filter(|noted| noted.link == LinkState::LoggedOut);
    let end = logged_out.and_then(|noted| exit::exit_for_link(&noted.link, &install.config.zone));
    Ok(end.unwrap_or_else(ExitReport::not_linked))
}

async fn unlink_account(install: &Install, yes: bool) -> Result<ExitCode> {
    let _lock = install.lock_install("auth --logout")?;
    match install.whatsapp_bridge().is_linked().await {
        Ok(true) => {}
        Ok(false) => {
            ui::print_info("No WhatsApp account is linked.");
            return Ok(ExitCode::SUCCESS);
        }
        // There is still a link to remove, and no other way to do it.
        Err(error) => {
            ui::print_info(format!("The keys of the link are damaged: {}.", checks::render_error(&error)))
        }
    }
    let store = install.open_store()?;
    let account = store.linked_account().await?;
    let account =
        account.map_or_else(|| "its account".to_owned(), |account| whatsapp_once::account_name(&account));
    if !yes && !ui::ask_yes_no(&format!("Remove this device from {account}?"), "--yes")? {
        ui::print_info("Nothing was changed.");
        return Ok(ExitCode::SUCCESS);
    }
    let (bridge_end, end) = bridge::create_bridge_ends();
    let (answered, _) = mpsc::channel(1);
    let unlinking = install.whatsapp_bridge().run_bridge(
        bridge_end,
        BridgeTask::Unlink,
        install::listen_for_stop_signal()?,
    );
    let now = whatsapp_once::run_while_storing(install, &store, end.batches, answered, unlinking).await?;
    store.record_link_state(&LinkState::Unlinked, install.clock.now()).await?;
    if now != LinkState::Unlinked {
        bail!(
            "The keys of the link were moved aside, but WhatsApp could not be told: remove the device on the phone, under \
             WhatsApp → Settings → Linked devices"
        );
    }
    ui::print_info(format!("Unlinked from {account}. `nanokimi auth` links an account again."));
    Ok(ExitCode::SUCCESS)
}

async fn link_whatsapp_account(install: &Install, phone: Option<String>) -> Result<ExitCode> {
    let _lock = install.lock_install("auth")?;
    let whatsapp = install.whatsapp_bridge();
    if whatsapp.is_linked().await? {
        let account = install.open_store()?.linked_account().await?;
        let account =
            account.map_or_else(|| "an account".to_owned(), |account| whatsapp_once::account_name(&account));
        ui::print_info(format!(
            "Linked already as {account}. Next: `nanokimi setup`; `nanokimi auth --logout` removes the link."
        ));
        return Ok(ExitCode::SUCCESS);
    }
    folders::prepare_install_folders(&install.paths)?;
    let store = install.open_store()?;
    let (answers, passkey) = mpsc::channel(1);
    let (bridge_end, end) = bridge::create_bridge_ends();
    let asked = install::listen_for_stop_signal()?;
    let (give_up, given_up) = oneshot::channel::<()>();
    let stop = async {
        tokio::select! {
            () = asked => {}
            // If the code cannot be shown, nobody can scan it.
            Ok(()) = given_up => {}
        }
    };
    let watching = async {
        let shown = show_pairing_until_done(end.link, answers, install.clock).await;
        if shown.is_err() {
            give_up.send(()).ok();
        }
        shown
    };
    let linking = async {
        let run = whatsapp.run_bridge(bridge_end, BridgeTask::LinkAccount { phone, passkey }, stop);
        let (ended, shown) = tokio::join!(run, watching);
        shown?;
        ended
    };
    let (answered, _) = mpsc::channel(1);
    let now = whatsapp_once::run_while_storing(install, &store, end.batches, answered, linking).await?;
    store.record_link_state(&now, install.clock.now()).await?;
    match now {
        LinkState::Online => print_linked_account(&store).await,
        LinkState::Pairing(Pairing::Failed(failure)) => Ok(exit::exit_for_pairing(&failure).report_exit()),
        LinkState::Unlinked | LinkState::Connecting | LinkState::Pairing(_) | LinkState::DiskFull => {
            let said = if install.whatsapp_bridge().is_linked().await? {
                "The phone has agreed, but WhatsApp has not told the chats yet. Next: `nanokimi setup` asks for them \
                 again; `nanokimi auth --logout` removes the link."
            } else {
                "Nothing was linked. `nanokimi auth` begins anew."
            };
            ui::print_info(said);
            Ok(ExitCode::FAILURE)
        }
        LinkState::LoggedOut | LinkState::Replaced | LinkState::Banned { .. } | LinkState::Outdated => {
            Ok(exit::exit_for_link(&now, &install.config.zone)
                .unwrap_or_else(ExitReport::not_linked)
                .report_exit())
        }
    }
}

async fn print_linked_account(store: &Store) -> Result<ExitCode> {
    let account = store.linked_account().await?;
    let account =
        account.map_or_else(|| "an account".to_owned(), |account| whatsapp_once::account_name(&account));
    let chats = store.known_chats().await?;
    let found = match chats.iter().filter(|chat| chat.id.is_whatsapp_group()).count() {
        1 => "1 group found".to_owned(),
        groups => format!("{groups} groups found"),
    };
    ui::print_info(format!("Linked as {account}. {found}. Next: `nanokimi setup`"));
    Ok(ExitCode::SUCCESS)
}

/// Shows what the person has to do, as it changes, and passes a passkey's answer on, until the bridge is
/// gone.
async fn show_pairing_until_done(
    mut link: watch::Receiver<LinkState>,
    answers: mpsc::Sender<String>,
    clock: Clock,
) -> Result<()> {
    let mut screen = PairingScreen::new();
    let mut second = interval(TICK);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut typed: Option<mpsc::Receiver<String>> = None;
    let mut answered = false;
    let mut now = link.borrow_and_update().clone();
    loop {
        if let LinkState::Pairing(pairing) = &now {
            screen.show_pairing(pairing, clock.now())?;
            match pairing {
                Pairing::Passkey { request } => {
                    ui::print_info(passkey::render_passkey_instructions(request)?);
                    typed.get_or_insert_with(read_typed_lines);
                    answered = false;
                }
                Pairing::PasskeyCode { code } => {
                    ui::print_info(format!(
                        "The phone shows a code now. Is it {}? Then type yes and press Enter; else end this with Ctrl-C.",
                        ui::sanitize_name(code)
                    ));
                    typed.get_or_insert_with(read_typed_lines);
                    answered = false;
                }
                Pairing::Agreed => {
                    ui::print_info(
                        "The phone has agreed. Fetching the chats … (up to some minutes; Ctrl-C ends)",
                    );
                }
                Pairing::Asking | Pairing::Qr { .. } | Pairing::Code { .. } | Pairing::Failed(_) => {}
            }
        } else {
            screen.clear_codes();
        }
        loop {
            tokio::select! {
                changed = link.changed() => match changed {
                    Ok(()) => {
                        let next = link.borrow_and_update().clone();
                        if next == now {
                            continue;
                        }
                        now = next;
                        break;
                    }
                    Err(_) => return Ok(()),
                },
                _ = second.tick() => if let LinkState::Pairing(pairing) = &now {
                    screen.redraw_pairing(pairing, clock.now())?;
                },
                line = next_typed_line(&mut typed) => match line {
                    Some(line) => answered |= forward_passkey_answer(&now, &line, &answers).await,
                    // What a script has answered was its last word, and a good one.
                    None if answered => typed = None,
                    None => bail!(
                        "WhatsApp asks for a passkey, and nobody is there to answer; run `nanokimi auth` in a terminal"
                    ),
                },
            }
        }
    }
}

/// Passes on what the person says about the passkey, if it is asked for. Returns whether it was an answer.
async fn forward_passkey_answer(now: &LinkState, line: &str, answers: &mpsc::Sender<String>) -> bool {
    match now {
        LinkState::Pairing(Pairing::Passkey { .. }) => match passkey::parse_passkey_answer(line) {
            Ok(answer) => {
                ui::print_info("Sent. Look at the phone.");
                answers.send(answer).await.is_ok()
            }
            Err(error) => {
                ui::print_info(format!("{error}."));
                false
            }
        },
        LinkState::Pairing(Pairing::PasskeyCode { .. })
            if normalize_typed_text(line).eq_ignore_ascii_case("yes") =>
        {
            answers.send(line.to_owned()).await.is_ok()
        }
        LinkState::Pairing(_)
        | LinkState::Unlinked
        | LinkState::Connecting
        | LinkState::Online
        | LinkState::Replaced
        | LinkState::LoggedOut
        | LinkState::Banned { .. }
        | LinkState::Outdated
        | LinkState::DiskFull => false,
    }
}

/// The next line that is typed, once lines are asked for.
async fn next_typed_line(typed: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match typed {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
