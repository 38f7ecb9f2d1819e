//! The image that the agent image starts from: Python's official one, or, if no container registry can be
//! reached, the same made by mmdebstrap from Debian's packages and kept for the next build.

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::body_try_stream;
use bollard::query_parameters::CreateImageOptionsBuilder;
use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, Stream, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use super::{BuildOptions, BuildProgress, BuildStage, LastLines, context};
use crate::container::docker::{Docker, is_disk_full_message};

const OFFICIAL: &str = "python:3.13-slim-trixie";
/// A registry that has not answered for so long cannot be reached.
const FIRST_WORD: Duration = Duration::from_secs(15);
/// Docker reports a download's progress several times a second; silence for so long means that it is stuck.
const NEXT_WORD: Duration = Duration::from_secs(120);
/// Docker answers an import only when it has all of it; the packages may come over a slow line.
const IMPORT_TIMEOUT: Duration = Duration::from_secs(60 * 60);
/// How long a failed mmdebstrap's last lines are waited for.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Bytes read at once from mmdebstrap on their way to Docker.
const CHUNK: usize = 256 * 1024;

const SUITE: &str = "trixie";
/// `tzdata` and `ca-certificates` are in the official image too; the recipe adds what is missing there.
const PACKAGES: &str = "ca-certificates,curl,git,python3,python3-venv,ripgrep,tzdata";
/// Half of a small image is manuals and translations that no agent reads.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*"];
/// Not /tmp, which may be in memory on a small server.
const WORK_FOLDER: &str = "/var/tmp";

/// Finds, fetches or makes the base; returns its name.
///
/// # Errors
/// Neither way works.
pub async fn ensure_base_image(
    docker: &Docker,
    options: &BuildOptions,
    progress: &mut impl FnMut(BuildProgress),
) -> Result<String> {
    let own = own_base_image_name();
    for name in [OFFICIAL, own.as_str()] {
        if docker.has_image(name).await? {
            return Ok(name.to_owned());
        }
    }
    progress(BuildProgress::Stage(BuildStage::PullBase));
    match pull_base_image(docker, progress).await {
        Ok(()) => return Ok(OFFICIAL.to_owned()),
        Err(error) if is_disk_full_message(&format!("{error:#}")) => {
            return Err(
                error.context("Failed to fetch the base image: the disk is full; it needs about 2 GB")
            );
        }
        Err(error) => progress(BuildProgress::Line(format!("No container registry: {error:#}"))),
    }
    progress(BuildProgress::Stage(BuildStage::MakeBase));
    make_base_image(docker, &own, options, progress).await?;
    Ok(own)
}

/// The base from Debian's packages, named after how it is made.
fn own_base_image_name() -> String {
    let parts = [SUITE, PACKAGES].into_iter().chain(LEFT_OUT).map(str::as_bytes);
    format!("nanokimi-base:{}", &context::hash_parts(parts)[..12])
}

async fn pull_base_image(docker: &Docker, progress: &mut impl FnMut(BuildProgress)) -> Result<()> {
    let request = CreateImageOptionsBuilder::default().from_image(OFFICIAL).build();
    let client = docker.new_api_client()?;
    let mut events = Box::pin(client.create_image(Some(request), None, None));
    let mut patience = FIRST_WORD;
    loop {
        match timeout(patience, events.next()).await {
            Ok(Some(event)) => {
                let event = event?;
                // The many lines of a running download carry figures. Lines without figures are milestones.
                let running = event.progress_detail.is_some_and(|detail| detail.total.is_some());
                if let (Some(status), false) = (event.status, running) {
                    progress(BuildProgress::Line(status));
                }
            }
            Ok(None) => return Ok(()),
            Err(_) => bail!("no answer for {} seconds", patience.as_secs()),
        }
        patience = NEXT_WORD;
    }
}

async fn make_base_image(
    docker: &Docker,
    name: &str,
    options: &BuildOptions,
    progress: &mut impl FnMut(BuildProgress),
) -> Result<()> {
    let mut child = match mmdebstrap_command(options).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!(
            "No container registry can be reached, and mmdebstrap, which makes the base image from Debian's \
             packages instead, is not installed; install it (sudo apt install mmdebstrap) and build again"
        ),
        Err(error) => return Err(error).context("Failed to start mmdebstrap"),
    };
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (Some(stdout), Some(stderr)) = (stdout, stderr) else { bail!("Failed to read from mmdebstrap") };
    let request = CreateImageOptionsBuilder::default().from_src("-").repo(name).build();
    let importer = docker.new_api_client()?.with_timeout(IMPORT_TIMEOUT);
    let archive = body_try_stream(stream_child_archive(child, stdout));
    let import = async {
        let mut events = Box::pin(importer.create_image(Some(request), Some(archive), None));
        while let Some(event) = events.next().await {
            event?;
        }
        Ok::<(), bollard::errors::Error>(())
    };
    let mut said = LastLines::default();
    let outcome = {
        let mut import = std::pin::pin!(import);
        let mut lines = std::pin::pin!(report_stderr_lines(stderr, &mut said, progress));
        tokio::select! {
            outcome = &mut import => {
                // After a failure, the cause is in what mmdebstrap printed last. After a success, nothing is
                // missing.
                if outcome.is_err() {
                    timeout(LAST_WORDS, lines).await.ok();
                }
                outcome
            }
            () = &mut lines => import.await,
        }
    };
    outcome.map_err(|error| said.build_error(&format!("mmdebstrap could not make the base image ({error})")))
}

fn mmdebstrap_command(options: &BuildOptions) -> Command {
    let mut command = Command::new("mmdebstrap");
    let mode = if rustix::process::geteuid().is_root() { "root" } else { "unshare" };
    command.arg(format!("--mode={mode}")).arg("--variant=minbase").arg(format!("--include={PACKAGES}"));
    command.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
    // Without a mirror's name it takes Debian's own, with the security updates.
    command.args([SUITE, "-"]);
    command.env_clear().envs([
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
        ("TMPDIR", WORK_FOLDER),
    ]);
    let proxies = [
        ("http_proxy", &options.http_proxy),
        ("https_proxy", &options.https_proxy),
        ("no_proxy", &options.no_proxy),
    ];
    for (name, value) in proxies {
        if let Some(value) = value {
            command.env(name, OsStr::new(value));
        }
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// What the program writes, ending in an error unless it ends well: half an archive would otherwise pass for
/// a whole one.
fn stream_child_archive(
    child: Child,
    stdout: ChildStdout,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::try_unfold((child, stdout), |(mut child, mut stdout)| async move {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        if stdout.read_buf(&mut chunk).await? > 0 {
            return Ok(Some((chunk.freeze(), (child, stdout))));
        }
        let end = child.wait().await?;
        if end.success() { Ok(None) } else { Err(io::Error::other(format!("it ended with {end}"))) }
    })
}

async fn report_stderr_lines(
    stderr: ChildStderr,
    said: &mut LastLines,
    progress: &mut impl FnMut(BuildProgress),
) {
    let mut lines = BufReader::new(stderr).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        said.push(&line);
        progress(BuildProgress::Line(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn archived(script: &str) -> (Vec<u8>, Option<String>) {
        let mut child = Command::new("sh")
            .args(["-c", script])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut chunks = Box::pin(stream_child_archive(child, stdout));
        let mut bytes = Vec::new();
        while let Some(chunk) = chunks.next().await {
            match chunk {
                Ok(chunk) => bytes.extend(chunk),
                Err(error) => return (bytes, Some(error.to_string())),
            }
        }
        (bytes, None)
    }

    #[tokio::test]
    async fn half_an_archive_never_passes_for_a_whole_one() {
        assert_eq!(archived("printf whole").await, (b"whole".to_vec(), None));
        let (bytes, error) = archived("printf ha; exit 3").await;
        assert_eq!(bytes, b"ha");
        assert!(error.unwrap().contains("exit status: 3"));
    }

    #[test]
    fn the_own_base_is_named_after_how_it_is_made() {
        let name = own_base_image_name();
        assert!(name.starts_with("nanokimi-base:") && name.len() == "nanokimi-base:".len() + 12, "{name}");
    }
}
