//! Fetches the files of messages that wake Kai, between intake and dispatch.
//!
//! ```text
//! intake ──woken group──▶ media ──nothing (more) to fetch──▶ dispatch
//!                           └──▶ Order::Fetch, one file of a group at a time ──▶ groups/<group>/inbox/…
//! ```
//! A claim never passes a file that is still wanted. So each end of a fetch is recorded, and only then is
//! dispatch told. Groups do not wait for each other, nor does anything that needs no file.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::bridge_reach::BridgeReach;
use super::{file_types, voice_notes};
use crate::bridge::{FetchError, FetchOrder, LinkState, Order, Typing};
use crate::container::Containers;
use crate::folders::{self, PartialFile};
use crate::panics::{self, WorkPanicked, catch_panic};
use crate::paths::InboxFile;
use crate::session::SessionContext;
use crate::store::{AttachedTo, RowId, WantedFile};
use crate::transcribe::Transcriber;
use crate::types::{DiskSpace, Group, GroupName, MediaKind, VoiceWords};

/// The most files of one prompt, and the most bytes of them as declared: what a busy day in a family's chat
/// holds.
const FILES_MAX: usize = 20;
const FILES_MAX_BYTES: u64 = 100 * 1024 * 1024;
/// The most fetches at a time over all groups. On a small server's line more would only slow each other down.
const FETCHES_AT_ONCE: usize = 2;
/// How long the bridge may take over one file. A little more than it gives itself, which is enough for 32 MB
/// over a slow line.
const FETCH_LIMIT: Duration = Duration::from_secs(6 * 60);
/// The pauses before WhatsApp is asked for a file once more.
const RETRY_PAUSES: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(8)];
/// As often as a session shows "typing…" during a turn.
const TYPING_EVERY: Duration = Duration::from_secs(8);
/// The pause after the database failed.
const ERROR_PAUSE: Duration = Duration::from_secs(5);

/// Why a file is missing that WhatsApp may still have.
const NOT_IN_TIME: &str = "could not be fetched in time";
/// Why a file is missing that there is no room for.
const DISK_FULL: &str = "the server's disk is full";
/// Why a file is missing that came but is not there.
const NOT_SAVED: &str = "could not be saved in the inbox folder";
/// Room on the disk that no file takes: the database and Docker have to go on. An agent can use up the number
/// of files with empty files.
const KEPT_FREE: DiskSpace = DiskSpace { bytes: 1024 * 1024 * 1024, entries: 10_000 };

/// Where files come from.
#[derive(Clone, Debug)]
pub struct MediaSource {
    pub orders: mpsc::Sender<Order>,
    pub link: watch::Receiver<LinkState>,
    pub reach: BridgeReach,
}

/// Runs until it is told to stop, or until nobody sends or takes hints any more. What is being fetched then
/// is fetched again at the next start.
pub async fn run_media<C: Containers>(
    context: SessionContext<C>,
    source: MediaSource,
    mut woken: mpsc::Receiver<GroupName>,
    hints: mpsc::Sender<GroupName>,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut media = MediaScheduler {
        fetcher: MediaFetcher {
            transcriber: context
                .settings
                .transcription
                .clone()
                .map(|server| Arc::new(Transcriber::new(server))),
            context,
            source,
            slots: Arc::new(Semaphore::new(FETCHES_AT_ONCE)),
        },
        hints,
        fetching: HashSet::new(),
        again: HashSet::new(),
        tasks: JoinSet::new(),
    };
    let work = async {
        media.resume_waiting_groups().await;
        loop {
            tokio::select! {
                Some(group) = woken.recv() => media.fetch_or_forward_hint(group).await,
                Some(Ok(ended)) = media.tasks.join_next() => media.handle_fetch_end(ended).await,
                // Intake has ended, and nothing is on its way.
                else => return,
            }
        }
    };
    tokio::select! {
        () = work => { stopped.await.ok(); }
        _ = &mut stopped => {}
    }
}

struct MediaScheduler<C> {
    fetcher: MediaFetcher<C>,
    hints: mpsc::Sender<GroupName>,
    /// The groups that `tasks` fetch for. One task per group at most.
    fetching: HashSet<GroupName>,
    /// Groups to look at again after that: they were woken meanwhile, or the database failed.
    again: HashSet<GroupName>,
    tasks: JoinSet<(GroupName, Result<(), WorkPanicked>)>,
}

impl<C: Containers> MediaScheduler<C> {
    /// Looks at every group that an earlier run left waiting.
    async fn resume_waiting_groups(&mut self) {
        let groups = loop {
            match self.fetcher.context.store.groups_with_pending_calls().await {
                Ok(groups) => break groups,
                Err(error) => tracing::error!("Failed to look for waiting messages, trying again: {error:#}"),
            }
            sleep(ERROR_PAUSE).await;
        };
        for group in groups {
            self.fetch_or_forward_hint(group).await;
        }
    }

    /// Passes the hint on, or first fetches what the group's next prompt needs.
    async fn fetch_or_forward_hint(&mut self, name: GroupName) {
        if self.fetching.contains(&name) {
            self.again.insert(name);
            return;
        }
        match self.fetcher.reachable_wanted_files(&name).await {
            Ok(Some((group, wanted))) => {
                let fetcher = self.fetcher.clone();
                self.spawn_group_task(name, async move { fetcher.fetch_group_files(&group, wanted).await });
            }
            Ok(None) => {
                self.hints.send(name).await.ok();
            }
            Err(error) => {
                tracing::error!("Failed to look for files to fetch, trying again: {error:#}");
                self.again.insert(name.clone());
                self.spawn_group_task(name, sleep(ERROR_PAUSE));
            }
        }
    }

    fn spawn_group_task(&mut self, name: GroupName, work: impl Future<Output = ()> + Send + 'static) {
        self.fetching.insert(name.clone());
        self.tasks.spawn(async move { (name, catch_panic(work).await) });
    }

    async fn handle_fetch_end(&mut self, (name, ended): (GroupName, Result<(), WorkPanicked>)) {
        self.fetching.remove(&name);
        if let Err(WorkPanicked) = ended {
            tracing::error!(group = %name, "Fetching files broke off, trying again");
            // Its files are still wanted, and nothing behind them is claimed.
            self.again.insert(name.clone());
            self.spawn_group_task(name, sleep(ERROR_PAUSE));
            return;
        }
        // At once, even if more has come since: otherwise a chat that sends without a pause would never be
        // answered.
        self.hints.send(name.clone()).await.ok();
        if self.again.remove(&name) {
            self.fetch_or_forward_hint(name).await;
        }
    }
}

#[derive(Clone)]
struct MediaFetcher<C> {
    context: SessionContext<C>,
    source: MediaSource,
    slots: Arc<Semaphore>,
    transcriber: Option<Arc<Transcriber>>,
}

impl<C: Containers> MediaFetcher<C> {
    /// The files that a group waits for, if there are any and this run's bridge can fetch them.
    async fn reachable_wanted_files(&self, name: &GroupName) -> Result<Option<(Group, Vec<WantedFile>)>> {
        let wanted = self.context.store.wanted_files(name).await?;
        if wanted.is_empty() {
            return Ok(None);
        }
        let Some(group) = self.context.store.group_by_name(name).await? else { return Ok(None) };
        let in_reach = match &self.source.reach {
            BridgeReach::All => true,
            BridgeReach::Only(chat) => *chat == group.chat,
            BridgeReach::Nothing => false,
        };
        Ok(in_reach.then_some((group, wanted)))
    }

    /// Fetches these files of a group, and shows meanwhile that Kai is typing. Returns when each fetch has
    /// ended.
    async fn fetch_group_files(&self, group: &Group, wanted: Vec<WantedFile>) {
        let work = async {
            let (wanted, left_out) = partition_within_limits(wanted, self.context.settings.media_limit_bytes);
            if !left_out.is_empty() {
                let files = left_out.iter().map(|file| (file.row, file.whose)).collect();
                self.leave_out_files(files, "too many files at once").await;
            }
            for file in wanted {
                let outcome = catch_panic(self.fetch_file(group, &file)).await;
                // A second try would break off in the same way, and the group would never be answered.
                let outcome = outcome.unwrap_or_else(|_| Err(NOT_SAVED.to_owned()));
                if let Ok(path) = &outcome {
                    self.record_voice_words(group, &file, path).await;
                }
                self.record_fetch_outcome(group, &file, outcome).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = self.keep_typing_shown(group) => {}
        }
    }

    async fn keep_typing_shown(&self, group: &Group) {
        loop {
            let typing = Order::Typing { chat: group.chat.clone(), shown: Typing::On };
            self.source.orders.try_send(typing).ok();
            sleep(TYPING_EVERY).await;
        }
    }

    /// Has a voice note turned into words, before its message may be claimed.
    async fn record_voice_words(&self, group: &Group, file: &WantedFile, path: &str) {
        if file.media.kind != MediaKind::Voice {
            return;
        }
        let heard = voice_notes::hear_voice_note(&self.context, self.transcriber.as_ref(), group, path);
        let words = catch_panic(heard)
            .await
            .unwrap_or_else(|_| VoiceWords::Unheard { reason: voice_notes::NOT_HEARD.to_owned() });
        retry_until_recorded(|| self.context.store.record_voice_words(file.row, file.whose, words.clone()))
            .await;
    }

    /// Records how a fetch ended. Until then the group's messages wait.
    async fn record_fetch_outcome(&self, group: &Group, file: &WantedFile, outcome: Result<String, String>) {
        match outcome {
            Ok(path) => {
                let saved = || self.context.store.record_saved_file(file.row, file.whose, path.clone());
                if retry_until_recorded(saved).await {
                    tracing::debug!(message = file.row.number(), "Fetched a file");
                } else if file.path.as_ref() != Some(&path) {
                    remove_media_file(&self.context, &group.name, path).await;
                }
            }
            Err(reason) => self.leave_out_files(vec![(file.row, file.whose)], &reason).await,
        }
    }

    async fn leave_out_files(&self, files: Vec<(RowId, AttachedTo)>, reason: &str) {
        tracing::info!(files = files.len(), reason, "Left files out");
        retry_until_recorded(|| self.context.store.record_missing_files(files.clone(), reason.to_owned()))
            .await;
    }

    /// Fetches one file. Returns its path in the group's folder, or why it is missing, in words for the
    /// agent.
    async fn fetch_file(&self, group: &Group, file: &WantedFile) -> Result<String, String> {
        if let Some(path) = self.find_fetched_file(group, file).await {
            return Ok(path);
        }
        let limit_bytes = self.context.settings.media_limit_bytes;
        let too_large = || format!("larger than {} MB", bytes_to_megabytes(limit_bytes));
        if file.media.bytes > limit_bytes {
            return Err(too_large());
        }
        let Ok(_slot) = self.slots.acquire().await else { return Err(NOT_IN_TIME.to_owned()) };
        let (paths, its) = (self.context.paths.clone(), group.clone());
        // The first message of a group may come before its agent was ever started.
        let free = run_blocking_io(move || {
            folders::prepare_group_folders(&paths, &its).map_err(io::Error::other)?;
            folders::free_space_of_folder(&paths.group_folder(&its.name))
        });
        if KEPT_FREE.is_beyond(free.await.map_err(reason_not_saved)?) {
            return Err(DISK_FULL.to_owned());
        }
        let place = InboxTarget::for_wanted_file(self, file);
        let mut pauses = RETRY_PAUSES.into_iter();
        loop {
            let unfinished = place.create_part_file(self, group).await.map_err(reason_not_saved)?;
            match self.fetch_from_bridge(file, &unfinished, limit_bytes).await? {
                Ok(_) => return place.finish_part_file(unfinished).await.map_err(reason_not_saved),
                Err(FetchError::Gone) => return Err("WhatsApp does not have it any more".to_owned()),
                Err(FetchError::TooLarge) => return Err(too_large()),
                Err(FetchError::Damaged) => return Err("could not be decrypted".to_owned()),
                Err(FetchError::Later) => {}
            }
            let Some(pause) = pauses.next() else { return Err(NOT_IN_TIME.to_owned()) };
            sleep(pause).await;
        }
    }

    /// The file that was fetched before for the message itself, if the agent has left it where it was.
    async fn find_fetched_file(&self, group: &Group, file: &WantedFile) -> Option<String> {
        let path = file.path.clone()?;
        let folder = self.context.paths.group_folder(&group.name);
        let opened = {
            let path = path.clone();
            run_blocking_io(move || Ok(folders::open_beneath(&folder, &path).is_ok())).await
        };
        opened.unwrap_or(false).then_some(path)
    }

    /// One try. Waits while the link is down: no answer could be sent either.
    async fn fetch_from_bridge(
        &self,
        file: &WantedFile,
        unfinished: &PartialFile,
        limit_bytes: u64,
    ) -> Result<Result<u64, FetchError>, String> {
        let mut link = self.source.link.clone();
        if link.wait_for(|link| *link == LinkState::Online).await.is_err() {
            return Err(NOT_IN_TIME.to_owned());
        }
        let into = unfinished.clone_handle().map_err(reason_not_saved)?;
        let (outcome, answer) = oneshot::channel();
        let order = Order::Fetch(FetchOrder { media: file.media.clone(), into, limit_bytes, outcome });
        let asked = async {
            self.source.orders.send(order).await.ok();
            // If the bridge drops it, it was interrupted.
            answer.await.unwrap_or(Err(FetchError::Later))
        };
        timeout(FETCH_LIMIT, asked).await.map_err(|_| NOT_IN_TIME.to_owned())
    }
}

/// Where a message's file is saved: a name that we make, the same at every try.
struct InboxTarget {
    file: InboxFile,
    /// The name until the file is whole.
    part: String,
}

impl InboxTarget {
    fn for_wanted_file<C>(
        fetcher: &MediaFetcher<C>,
        WantedFile { row, whose, media, sent_at, .. }: &WantedFile,
    ) -> Self {
        let extension = file_types::incoming_extension(media.kind, &media.mime);
        let (ending, part) = match whose {
            AttachedTo::Message => (format!(".{extension}"), format!(".{:06x}.part", row.number())),
            AttachedTo::Quoted => {
                (format!("-quoted.{extension}"), format!(".{:06x}-quoted.part", row.number()))
            }
        };
        Self { file: InboxFile::new(*sent_at, &fetcher.context.settings.zone, row.number(), &ending), part }
    }

    async fn create_part_file<C>(&self, fetcher: &MediaFetcher<C>, group: &Group) -> io::Result<PartialFile> {
        let (folder, file, part) =
            (fetcher.context.paths.group_folder(&group.name), self.file.clone(), self.part.clone());
        run_blocking_io(move || folders::create_beneath(&folder, &file.parent_folders(), &part)).await
    }

    async fn finish_part_file(&self, unfinished: PartialFile) -> Result<String, io::Error> {
        let name = self.file.name.clone();
        run_blocking_io(move || unfinished.persist_as(&name)).await?;
        Ok(self.file.relative_path())
    }
}

/// Removes a file whose message was taken back.
pub async fn remove_media_file<C>(context: &SessionContext<C>, group: &GroupName, path: String) {
    let folder = context.paths.group_folder(group);
    if let Err(error) = run_blocking_io(move || folders::remove_beneath(&folder, &path)).await {
        tracing::warn!(%group, "Failed to remove a file that was taken back: {error}");
    }
}

/// Writes to the database, however long that takes.
async fn retry_until_recorded<T, F: Future<Output = Result<T>>>(record: impl Fn() -> F) -> T {
    loop {
        match record().await {
            Ok(recorded) => return recorded,
            Err(error) => tracing::error!("Failed to record a file, trying again: {error:#}"),
        }
        sleep(ERROR_PAUSE).await;
    }
}

async fn run_blocking_io<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    panics::run_blocking(work).await.map_err(io::Error::other)?
}

/// Why a file is missing that the disk did not take.
fn reason_not_saved(error: io::Error) -> String {
    tracing::warn!("Failed to save a file that came: {error}");
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let reason = if full { DISK_FULL } else { NOT_SAVED };
    reason.to_owned()
}

/// The newest files within the limits of one prompt, and the rest. A file over the limit is never fetched,
/// and takes no other file's place.
fn partition_within_limits(wanted: Vec<WantedFile>, limit_bytes: u64) -> (Vec<WantedFile>, Vec<WantedFile>) {
    let (mut files, mut bytes) = (0, 0_u64);
    wanted.into_iter().partition(|file| {
        if file.media.bytes <= limit_bytes {
            files += 1;
            bytes = bytes.saturating_add(file.media.bytes);
        }
        files <= FILES_MAX && bytes <= FILES_MAX_BYTES
    })
}

/// A limit in the unit that people read.
pub fn bytes_to_megabytes(bytes: u64) -> u64 {
    bytes / (1024 * 1024)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::types::{Media, MediaKind};

    const MB: u64 = 1024 * 1024;

    fn within(bytes: &[u64]) -> Vec<i64> {
        let wanted = bytes.iter().zip(0..).map(|(bytes, row)| WantedFile {
            row: RowId::from_number(row),
            media: Media {
                kind: MediaKind::Image,
                mime: String::new(),
                name: None,
                bytes: *bytes,
                handle: Vec::new(),
            },
            sent_at: Timestamp::UNIX_EPOCH,
            whose: AttachedTo::Message,
            path: None,
        });
        let (within, left_out) = partition_within_limits(wanted.collect(), 32 * MB);
        assert_eq!(within.len() + left_out.len(), bytes.len());
        within.iter().map(|file| file.row.number()).collect()
    }

    #[test]
    fn a_disk_without_files_left_is_as_full_as_one_without_bytes() {
        let DiskSpace { bytes: kept_bytes, entries: kept_entries } = KEPT_FREE;
        for (bytes, entries, expected) in [
            (kept_bytes, u64::MAX, true),
            (kept_bytes, kept_entries, true),
            (kept_bytes - 1, u64::MAX, false),
            (u64::MAX, kept_entries - 1, false),
            (u64::MAX, 0, false),
        ] {
            assert_eq!(!KEPT_FREE.is_beyond(DiskSpace { bytes, entries }), expected, "{bytes} {entries}");
        }
    }

    #[test]
    fn the_newest_files_of_a_prompt_are_fetched_and_no_more() {
        assert_eq!(within(&[1; 30]), (0..20).collect::<Vec<_>>());
        assert_eq!(within(&[30 * MB, 30 * MB, 30 * MB, 30 * MB, 1]), [0, 1, 2]);
        assert_eq!(within(&[500 * MB, 30 * MB, u64::MAX, MB]), [0, 1, 2, 3]);
        assert_eq!(within(&[]), [0; 0]);
    }
}
