//! Makes of a stored reply the content that the bridge sends. Opens files in the folder of the group that sends them.
//!
//! A file that cannot be sent becomes a sentence in the chat, so that nobody waits for it in vain.

use crate::bridge::{Content, FILE_MAX_BYTES, OutgoingFile, SendError};
use crate::container::Containers;
use crate::folders::{self, OpenError};
use crate::notices::{self, FileRefused};
use crate::panics::run_blocking;
use crate::paths::GROUP_IN_CONTAINER;
use crate::render;
use crate::session::SessionContext;
use crate::store::{DueReply, QuotedMessage, ReplyContent};
use crate::types::{MediaKind, UsageChart};

use super::file_types;
use super::media::bytes_to_megabytes;

/// What to hand to the bridge.
///
/// # Errors
/// The reply cannot be sent now, or never.
pub async fn build_content<C: Containers>(
    context: &SessionContext<C>,
    reply: &DueReply,
) -> Result<Content, SendError> {
    if let Some(message) = &reply.message {
        return Ok(Content::Encoded(message.clone()));
    }
    match (&reply.content, &reply.quote) {
        (ReplyContent::Text { text, mentions }, _) => {
            Ok(Content::Text { text: text.clone(), mentions: mentions.clone() })
        }
        (ReplyContent::UsageChart { chart, caption }, _) => {
            draw_chart(context, chart, caption).map(Content::File)
        }
        (ReplyContent::Reaction { emoji }, Some(QuotedMessage { id, sender, .. })) => {
            Ok(Content::Reaction { target: id.clone(), sender: sender.clone(), emoji: emoji.clone() })
        }
        (ReplyContent::Reaction { .. }, None) => {
            Err(SendError::Never("there is nothing to react to".to_owned()))
        }
        (ReplyContent::File { path, caption }, _) => {
            match open_outgoing_file(context, reply, path, caption).await? {
                Ok(file) => Ok(Content::File(file)),
                Err(why) => Ok(content_instead_of_file(context, caption, why)),
            }
        }
    }
}

/// Opens a file of the group whose agent sends it, or says why it is not sent.
async fn open_outgoing_file<C: Containers>(
    context: &SessionContext<C>,
    reply: &DueReply,
    path: &str,
    caption: &str,
) -> Result<Result<OutgoingFile, FileRefused>, SendError> {
    // `Never` is only for what cannot change: this machine may be short of something for a moment.
    let not_registered = || SendError::Never("its chat is not registered any more".to_owned());
    let group = context
        .store
        .group_by_chat(&reply.chat)
        .await
        .map_err(|error| SendError::Later(format!("{error:#}")))?;
    let group = group.ok_or_else(not_registered)?;
    let folder = context.paths.group_folder(reply.author.as_ref().unwrap_or(&group.name));
    let path = relative_to_group(path).to_owned();
    let name = path.rsplit('/').next().unwrap_or_default().to_owned();
    let opened = run_blocking(move || folders::open_beneath(&folder, &path)).await;
    let limit_bytes = context.settings.media_limit_bytes.min(FILE_MAX_BYTES);
    Ok(match opened.map_err(|error| SendError::Later(error.to_string()))? {
        Ok((_, bytes)) if bytes > limit_bytes => {
            Err(FileRefused::TooLarge { mb: bytes_to_megabytes(limit_bytes) })
        }
        Ok((file, bytes)) => {
            let (kind, mime) = file_types::media_type_for_name(&name);
            Ok(OutgoingFile { kind, mime: mime.to_owned(), name, caption: caption.to_owned(), file, bytes })
        }
        Err(OpenError::NotThere) => Err(FileRefused::NotThere),
        Err(OpenError::NotAFile) => Err(FileRefused::NotAFile),
        Err(OpenError::Failed(error)) => {
            return Err(SendError::Later(format!("its file cannot be read: {error}")));
        }
    })
}

/// A picture that nobody has saved.
fn draw_chart<C>(
    context: &SessionContext<C>,
    chart: &UsageChart,
    caption: &str,
) -> Result<OutgoingFile, SendError> {
    let picture = render::draw_usage_chart(chart, notices::usage_chart_words(context.settings.lang))
        .map_err(|error| SendError::Never(format!("its picture cannot be drawn: {error:#}")))?;
    let file = folders::file_in_memory(&picture)
        .map_err(|error| SendError::Later(format!("its picture cannot be kept: {error}")))?;
    Ok(OutgoingFile {
        kind: MediaKind::Image,
        mime: "image/png".to_owned(),
        name: "usage.png".to_owned(),
        caption: caption.to_owned(),
        file,
        bytes: picture.len() as u64,
    })
}

/// The path relative to the group's folder, also if it was given as the agent sees it. What it leads to is
/// decided when it is opened.
fn relative_to_group(path: &str) -> &str {
    let path = path.strip_prefix(GROUP_IN_CONTAINER).and_then(|rest| rest.strip_prefix('/')).unwrap_or(path);
    path.strip_prefix("./").unwrap_or(path)
}

fn content_instead_of_file<C>(context: &SessionContext<C>, caption: &str, why: FileRefused) -> Content {
    let settings = &context.settings;
    let text = notices::file_not_sent_notice(settings.lang, &settings.reply_prefix, caption, why);
    Content::Text { text, mentions: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_may_be_given_as_the_agent_sees_it() {
        for (path, expected) in [
            ("chart.png", "chart.png"),
            ("charts/2026.png", "charts/2026.png"),
            ("./chart.png", "chart.png"),
            ("/workspace/group/chart.png", "chart.png"),
            ("/workspace/group/./chart.png", "chart.png"),
            // Not in the group's folder: left as it is, and refused when it is opened.
            ("/workspace/groupchart.png", "/workspace/groupchart.png"),
            ("/workspace/group", "/workspace/group"),
            ("/workspace/global/KIMI.md", "/workspace/global/KIMI.md"),
            ("../x", "../x"),
        ] {
            assert_eq!(relative_to_group(path), expected, "{path:?}");
        }
    }
}
