//! What a voice note that was fetched says: its words, or in a phrase for the agent why there are none. Never
//! loses the message, and never waits for longer than the server may take.

use std::io::Read;
use std::sync::Arc;

use crate::folders;
use crate::notices;
use crate::panics::run_blocking;
use crate::session::SessionContext;
use crate::store::OutboxChange;
use crate::transcribe::{AUDIO_MAX_BYTES, Transcriber};
use crate::types::{Group, VoiceWords};

/// Why there are no words where the owner has set no server.
const NO_SERVER: &str = "nothing here turns voice notes into words";
/// Why there are no words where the server has failed.
pub const NOT_HEARD: &str = "the server that turns voice notes into words has failed";
const TOO_LARGE: &str = "it is too long to be turned into words";

/// The words of a file in the group's folder.
pub async fn hear_voice_note<C>(
    context: &SessionContext<C>,
    transcriber: Option<&Arc<Transcriber>>,
    group: &Group,
    path: &str,
) -> VoiceWords {
    let unheard = |reason: &str| VoiceWords::Unheard { reason: reason.to_owned() };
    let Some(transcriber) = transcriber else {
        tell_owner_once(context).await;
        return unheard(NO_SERVER);
    };
    let (folder, place) = (context.paths.group_folder(&group.name), path.to_owned());
    let audio = match run_blocking(move || read_audio(&folder, &place)).await {
        Ok(Some(audio)) => audio,
        Ok(None) => return unheard(TOO_LARGE),
        Err(_) => return unheard(NOT_HEARD),
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    match transcriber.transcribe_audio(&audio, name).await {
        Ok(words) => VoiceWords::Heard(words),
        Err(error) => {
            tracing::warn!("Failed to turn a voice note into words: {error:#}");
            unheard(NOT_HEARD)
        }
    }
}

/// The whole file; `None` if it is too large, or is not there any more.
fn read_audio(folder: &std::path::Path, path: &str) -> Option<Vec<u8>> {
    let (file, bytes) =
        folders::open_beneath(folder, path).ok().filter(|(_, bytes)| *bytes <= AUDIO_MAX_BYTES)?;
    let mut audio = Vec::with_capacity(usize::try_from(bytes).ok()?);
    file.take(AUDIO_MAX_BYTES).read_to_end(&mut audio).ok()?;
    Some(audio)
}

/// Voice notes could be words: the owner hears of that once.
async fn tell_owner_once<C>(context: &SessionContext<C>) {
    let settings = &context.settings;
    let notice = settings.with_reply_prefix(notices::voice_note_notice(settings.lang));
    match context.store.notify_owner_once(notice, context.clock.now()).await {
        Ok(OutboxChange::Changed) => context.outbox_hint.notify_one(),
        Ok(OutboxChange::Same) => {}
        Err(error) => tracing::warn!("Failed to tell the owner of voice notes: {error:#}"),
    }
}
