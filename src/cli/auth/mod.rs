//! `nanokimi auth`: links a WhatsApp account, by QR code, pairing code or passkey; shows and removes the link.
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

use self::screen::{Screen, TICK};
use super::exit::{self, End};
use super::install::{self, Install};
use super::terminal::typed_lines;
use super::{link, log, ui};
use crate::bridge;
use crate::bridge::whatsapp::Task;
use crate::checks;
use crate::clock::Clock;
use crate::home;
use crate::store::{InstanceLock, LinkNote, Store};
use crate::types::{Link, Pairing};
use crate::writing::as_typed;

/// What is said of codes where there is no terminal.
const IN_A_PIPE: &str = "Without an option, the phone scans a QR code. On a terminal it is renewed in place, and gone \
                         afterwards; in a pipe each code is printed once, as it comes, for whoever reads along. The exit \
                         codes are in docs/operating.md.";

#[derive(clap::Args)]
#[command(after_help = IN_A_PIPE)]
pub struct Arguments {
    /// Link by a code to type into the phone, whose number this is: +34600111222
    #[arg(long, value_name = "PHONE", value_parser = ui::typed, conflicts_with_all = ["status", "logout"])]
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

pub async fn run(install: &Install, arguments: Arguments) -> Result<ExitCode> {
    // The screen belongs to the code; what the library warns of meanwhile is its own business.
    log::start("error");
    if arguments.status {
        return status(install).await;
    }
    if arguments.logout {
        return log_out(install, arguments.yes).await;
    }
    let phone = arguments.pair_code.as_deref().map(phone::digits).transpose()?;
    install.refuse_root()?;
    link_account(install, phone).await
}

async fn status(install: &Install) -> Result<ExitCode> {
    let store = install.existing_store()?;
    if !install.whatsapp().is_linked().await? {
        return Ok(ended(store.as_ref(), install).await?.tell());
    }
    let (account, noted) = match &store {
        Some(store) => (store.account().await?, store.link().await?),
        None => (None, None),
    };
    let account = account.map_or_else(|| "not told yet".to_owned(), |account| link::account_name(&account));
    let mut rows = vec![("account", account)];
    if let Some(LinkNote { link, since }) = noted {
        let holder = InstanceLock::holder(&install.paths.lock_file())?;
        rows.push(("link", link::state(&link, holder.as_deref(), &install.config.zone)));
        rows.push(("since", checks::time(since, &install.config.zone)));
    }
    let rows: Vec<_> = rows.into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    ui::table(&rows)?;
    Ok(ExitCode::SUCCESS)
}

/// Why no account is linked, as far as that is known.
pub async fn ended(store: Option<&Store>, install: &Install) -> Result<End> {
    let noted = match store {
        Some(store) => store.link().await?,
        None => None,
    };
    let logged_out = noted.filter(|noted| noted.link == Link::LoggedOut);
    let end = logged_out.and_then(|noted| exit::of_link(&noted.link, &install.config.zone));
    Ok(end.unwrap_or_else(End::not_linked))
}

async fn log_out(install: &Install, yes: bool) -> Result<ExitCode> {
    let _lock = install.lock("auth --logout")?;
    match install.whatsapp().is_linked().await {
        Ok(true) => {}
        Ok(false) => {
            ui::note("No WhatsApp account is linked.");
            return Ok(ExitCode::SUCCESS);
        }
        // There is still a link to get rid of, and no other way to.
        Err(error) => ui::note(format!("The keys of the link are damaged: {}.", checks::sentence(&error))),
    }
    let store = install.store()?;
    let account = store.account().await?;
    let account = account.map_or_else(|| "its account".to_owned(), |account| link::account_name(&account));
    if !yes && !ui::confirmed(&format!("Remove this device from {account}?"), "--yes")? {
        ui::note("Nothing was changed.");
        return Ok(ExitCode::SUCCESS);
    }
    let (bridge_end, end) = bridge::pair();
    let (answered, _) = mpsc::channel(1);
    let unlinking = install.whatsapp().run(bridge_end, Task::Unlink, install::asked_to_stop()?);
    let now = link::while_storing(install, &store, end.batches, answered, unlinking).await?;
    store.set_link(&Link::Unlinked, install.clock.now()).await?;
    if now != Link::Unlinked {
        bail!(
            "The keys of the link were moved aside, but WhatsApp could not be told: remove the device on the phone, under \
             WhatsApp → Settings → Linked devices"
        );
    }
    ui::note(format!("Unlinked from {account}. `nanokimi auth` links an account again."));
    Ok(ExitCode::SUCCESS)
}

async fn link_account(install: &Install, phone: Option<String>) -> Result<ExitCode> {
    let _lock = install.lock("auth")?;
    let whatsapp = install.whatsapp();
    if whatsapp.is_linked().await? {
        let account = install.store()?.account().await?;
        let account = account.map_or_else(|| "an account".to_owned(), |account| link::account_name(&account));
        ui::note(format!(
            "Linked already as {account}. Next: `nanokimi setup`; `nanokimi auth --logout` removes the link."
        ));
        return Ok(ExitCode::SUCCESS);
    }
    home::prepare(&install.paths)?;
    let store = install.store()?;
    let (answers, passkey) = mpsc::channel(1);
    let (bridge_end, end) = bridge::pair();
    let asked = install::asked_to_stop()?;
    let (give_up, given_up) = oneshot::channel::<()>();
    let stop = async {
        tokio::select! {
            () = asked => {}
            // Where what is to be shown cannot be, nobody can scan it.
            Ok(()) = given_up => {}
        }
    };
    let watching = async {
        let shown = watch_pairing(end.link, answers, install.clock).await;
        if shown.is_err() {
            give_up.send(()).ok();
        }
        shown
    };
    let linking = async {
        let run = whatsapp.run(bridge_end, Task::LinkAccount { phone, passkey }, stop);
        let (ended, shown) = tokio::join!(run, watching);
        shown?;
        ended
    };
    let (answered, _) = mpsc::channel(1);
    let now = link::while_storing(install, &store, end.batches, answered, linking).await?;
    store.set_link(&now, install.clock.now()).await?;
    match now {
        Link::Online => linked(&store).await,
        Link::Pairing(Pairing::Failed(failure)) => Ok(exit::of_pairing(&failure).tell()),
        Link::Unlinked | Link::Connecting | Link::Pairing(_) | Link::DiskFull => {
            let said = if install.whatsapp().is_linked().await? {
                "The phone has agreed, but WhatsApp has not told the chats yet. Next: `nanokimi setup` asks for them \
                 again; `nanokimi auth --logout` removes the link."
            } else {
                "Nothing was linked. `nanokimi auth` begins anew."
            };
            ui::note(said);
            Ok(ExitCode::FAILURE)
        }
        Link::LoggedOut | Link::Replaced | Link::Banned { .. } | Link::Outdated => {
            Ok(exit::of_link(&now, &install.config.zone).unwrap_or_else(End::not_linked).tell())
        }
    }
}

async fn linked(store: &Store) -> Result<ExitCode> {
    let account = store.account().await?;
    let account = account.map_or_else(|| "an account".to_owned(), |account| link::account_name(&account));
    let chats = store.known_chats().await?;
    let found = match chats.iter().filter(|chat| chat.id.is_whatsapp_group()).count() {
        1 => "1 group found".to_owned(),
        groups => format!("{groups} groups found"),
    };
    ui::note(format!("Linked as {account}. {found}. Next: `nanokimi setup`"));
    Ok(ExitCode::SUCCESS)
}

/// Shows what the person has to do, as it changes, and passes a passkey's answer on; until the bridge is gone.
async fn watch_pairing(
    mut link: watch::Receiver<Link>,
    answers: mpsc::Sender<String>,
    clock: Clock,
) -> Result<()> {
    let mut screen = Screen::new();
    let mut second = interval(TICK);
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut typed: Option<mpsc::Receiver<String>> = None;
    let mut answered = false;
    let mut now = link.borrow_and_update().clone();
    loop {
        if let Link::Pairing(pairing) = &now {
            screen.show(pairing, clock.now())?;
            match pairing {
                Pairing::Passkey { request } => {
                    ui::note(passkey::instructions(request)?);
                    typed.get_or_insert_with(typed_lines);
                    answered = false;
                }
                Pairing::PasskeyCode { code } => {
                    ui::note(format!(
                        "The phone shows a code now. Is it {}? Then type yes and press Enter; else end this with Ctrl-C.",
                        ui::plain(code)
                    ));
                    typed.get_or_insert_with(typed_lines);
                    answered = false;
                }
                Pairing::Agreed => {
                    ui::note("The phone has agreed. Fetching the chats … (up to some minutes; Ctrl-C ends)");
                }
                Pairing::Asking | Pairing::Qr { .. } | Pairing::Code { .. } | Pairing::Failed(_) => {}
            }
        } else {
            screen.leave();
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
                _ = second.tick() => if let Link::Pairing(pairing) = &now {
                    screen.again(pairing, clock.now())?;
                },
                line = next_line(&mut typed) => match line {
                    Some(line) => answered |= answer(&now, &line, &answers).await,
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

/// Passes on what the person says about the passkey, where it is asked for. Whether it was an answer.
async fn answer(now: &Link, line: &str, answers: &mpsc::Sender<String>) -> bool {
    match now {
        Link::Pairing(Pairing::Passkey { .. }) => match passkey::answer(line) {
            Ok(answer) => {
                ui::note("Sent. Look at the phone.");
                answers.send(answer).await.is_ok()
            }
            Err(error) => {
                ui::note(format!("{error}."));
                false
            }
        },
        Link::Pairing(Pairing::PasskeyCode { .. }) if as_typed(line).eq_ignore_ascii_case("yes") => {
            answers.send(line.to_owned()).await.is_ok()
        }
        Link::Pairing(_)
        | Link::Unlinked
        | Link::Connecting
        | Link::Online
        | Link::Replaced
        | Link::LoggedOut
        | Link::Banned { .. }
        | Link::Outdated
        | Link::DiskFull => false,
    }
}

/// The next line that is typed, once lines are asked for.
async fn next_line(typed: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match typed {
        Some(lines) => lines.recv().await,
        None => std::future::pending().await,
    }
}
