//! The texts that are too long for a prompt: each becomes a file in its group's folder, which the prompt
//! names.

use std::io::{self, Write as _};
use std::path::PathBuf;

use jiff::tz::TimeZone;

use crate::folders;
use crate::panics::run_blocking;
use crate::paths::InboxFile;
use crate::render::prompt::{Prompt, TruncatedText};
use crate::store::{Claim, RowId, Store};

/// Writes the texts that a prompt of this claim would cut, and notes in the claim where they are. If a text
/// cannot be written, the prompt has only its beginning and says how much is left out.
pub async fn save_cut_texts(store: &Store, folder: PathBuf, zone: &TimeZone, claim: &mut Claim) {
    let cut = Prompt { zone, names: &[], earlier: &[], messages: &claim.messages }.truncated_texts();
    for (place, which) in cut {
        let (Some(row), Some(message)) = (claim.rows.get(place).copied(), claim.messages.get_mut(place))
        else {
            continue;
        };
        let (ending, text, whole) = match (which, &mut message.quote) {
            (TruncatedText::Own, _) => (".txt", message.text.clone(), &mut message.whole),
            (TruncatedText::Quoted, Some(quote)) => ("-quoted.txt", quote.text.clone(), &mut quote.whole),
            (TruncatedText::Quoted, None) => continue,
        };
        let file = InboxFile::new(message.sent_at, zone, row.number(), ending);
        let path = file.relative_path();
        let folder = folder.clone();
        let written = run_blocking(move || save_text_file(folder, row, &file, &text)).await;
        match written.map_err(io::Error::other).flatten() {
            Ok(()) => *whole = Some(path.clone()),
            Err(error) => {
                tracing::warn!(message = row.number(), "Failed to save a long text: {error}");
                continue;
            }
        }
        // If the author takes the message back, its file goes, too.
        if which == TruncatedText::Own
            && let Err(error) = store.record_text_path(row, path).await
        {
            tracing::warn!(message = row.number(), "Failed to note where a long text is: {error:#}");
        }
    }
}

fn save_text_file(folder: PathBuf, row: RowId, file: &InboxFile, text: &str) -> io::Result<()> {
    // Leaves room for the database and Docker.
    if folders::free_space_of_folder(&folder)?.is_low() {
        return Err(io::ErrorKind::StorageFull.into());
    }
    let unfinished = folders::create_beneath(
        &folder,
        &file.parent_folders(),
        &format!(".{:06x}-text.part", row.number()),
    )?;
    unfinished.clone_handle()?.write_all(text.as_bytes())?;
    unfinished.persist_as(&file.name)
}
