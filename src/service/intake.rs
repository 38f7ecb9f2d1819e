//! Takes what the bridge delivers into the inbox, and tells the bridge only when it is on disk.
//!
//! Whatever has queued up is one commit: a burst costs one write to the disk, not one per message.

use anyhow::Result;
use std::sync::Arc;

use tokio::sync::{Notify, mpsc, oneshot};

use super::ahead::AheadHint;
use super::media;
use crate::bridge::Batch;
use crate::commands::GivenCommand;
use crate::container::Containers;
use crate::login::config_toml;
use crate::session::SessionContext;
use crate::store::{IntakeResult, OutboxChange, StoppedTurn, is_caused_by_data};
use crate::types::{Event, GroupName, IncomingMessage};

/// Most batches that are stored by one commit.
const BATCHES_PER_COMMIT: usize = 64;
/// What the agent reads in the place of a message that the database does not take.
const NOT_STORED: &str = "[A message that could not be stored]";

/// Where what was stored is passed on.
pub struct IntakeHints {
    /// The groups that have something new to answer.
    pub woken: mpsc::Sender<GroupName>,
    /// The groups that may ask for something soon.
    pub expected: mpsc::Sender<AheadHint>,
    /// The turns that the owner has stopped.
    pub turn_stops: mpsc::Sender<StoppedTurn>,
    /// That there are messages that could not be read.
    pub unread: Arc<Notify>,
}

/// Runs until told to stop, or until the bridge is gone.
pub async fn run_intake<C: Containers>(
    host: SessionContext<C>,
    mut batches: mpsc::Receiver<Batch>,
    hints: IntakeHints,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut taken = Vec::with_capacity(BATCHES_PER_COMMIT);
    loop {
        let count = tokio::select! {
            count = batches.recv_many(&mut taken, BATCHES_PER_COMMIT) => count,
            _ = &mut stopped => return,
        };
        if count == 0 {
            tracing::warn!("The bridge is gone: no message comes in any more");
            stopped.await.ok();
            return;
        }
        commit_batches(&host, &mut taken, &hints).await;
    }
}

/// Stores the batches together; if that fails, each event by itself, so that one which can never be stored
/// does not keep the others.
async fn commit_batches<C: Containers>(
    host: &SessionContext<C>,
    batches: &mut Vec<Batch>,
    hints: &IntakeHints,
) {
    let events = batches.iter().flat_map(|batch| &batch.events).cloned().collect();
    match record_event_batch(host, events).await {
        Ok(taken) => {
            // A bridge that stopped waiting delivers again, which is a no-op.
            for batch in batches.drain(..) {
                batch.committed.send(()).ok();
            }
            handle_stored_events(host, taken, hints).await;
        }
        Err(error) => {
            tracing::error!("Failed to store messages together: {error:#}");
            for Batch { events, committed } in batches.drain(..) {
                match store_each_event(host, events, hints).await {
                    Ok(()) => {
                        committed.send(()).ok();
                    }
                    // Its bridge is not answered.
                    Err(error) => {
                        tracing::error!(
                            "Failed to store messages, the bridge delivers them again: {error:#}"
                        );
                    }
                }
            }
        }
    }
}

/// Stores what can be stored, and of a message that cannot that there was one.
async fn store_each_event<C: Containers>(
    host: &SessionContext<C>,
    events: Vec<Event>,
    hints: &IntakeHints,
) -> Result<()> {
    for event in events {
        let taken = match record_event_batch(host, vec![event.clone()]).await {
            Err(error) if is_caused_by_data(&error) => {
                tracing::error!("Left out something that came, as it cannot be stored: {error:#}");
                record_event_batch(host, placeholder_for_event(event).into_iter().collect()).await?
            }
            taken => taken?,
        };
        handle_stored_events(host, taken, hints).await;
    }
    Ok(())
}

async fn record_event_batch<C>(host: &SessionContext<C>, events: Vec<Event>) -> Result<IntakeResult> {
    let mut rules = host.settings.store_rules();
    // Only a command needs them. Read each time: the owner may change the file while the service runs.
    if events.iter().any(is_command) {
        let file = host.paths.engine_config_file();
        rules.models = config_toml::read_offered_models(&file, host.settings.model.as_deref());
    }
    host.store.record_events(events, rules, host.clock.now()).await
}

/// Whether this may be a command, whoever has written it.
fn is_command(event: &Event) -> bool {
    matches!(event, Event::Message(message) if GivenCommand::from_text(&message.text).is_some())
}

/// What is stored of an event that cannot be stored: of a message, that it came.
fn placeholder_for_event(event: Event) -> Option<Event> {
    match event {
        Event::Message(message) => Some(Event::Message(IncomingMessage {
            text: NOT_STORED.to_owned(),
            quote: None,
            media: None,
            ..message
        })),
        Event::Edited(_)
        | Event::Deleted { .. }
        | Event::Reacted(_)
        | Event::Noted(_)
        | Event::Chat { .. }
        | Event::SamePerson { .. }
        | Event::Account(_)
        | Event::Answered { .. }
        | Event::Unread(_)
        | Event::ReadAfterAll { .. }
        | Event::Receipt(_)
        | Event::PhoneMissed { .. }
        | Event::IdentityChanged { .. }
        | Event::Typing { .. } => None,
    }
}

async fn handle_stored_events<C: Containers>(
    host: &SessionContext<C>,
    taken: IntakeResult,
    hints: &IntakeHints,
) {
    let IntakeResult { woken, expected, warmed, stopped, outbox, unread, asked, taken_back } = taken;
    // First: the chat has been told that they are over.
    for turn in stopped {
        hints.turn_stops.send(turn).await.ok();
    }
    if outbox == OutboxChange::Changed {
        host.outbox_hint.notify_one();
    }
    if unread {
        hints.unread.notify_one();
    }
    if asked {
        host.tasks_hint.notify_one();
    }
    for (group, path) in taken_back {
        media::remove_media_file(host, &group, path).await;
    }
    for group in woken {
        hints.woken.send(group).await.ok();
    }
    for group in warmed {
        hints.expected.send(AheadHint { group, is_asked_for: true }).await.ok();
    }
    for group in expected {
        // It is worth no wait.
        hints.expected.try_send(AheadHint { group, is_asked_for: false }).ok();
    }
}
