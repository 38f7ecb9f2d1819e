//! A client that speaks HTTP/1.1 by hand, over one connection that it keeps: a test sees each byte of an answer, and
//! a benchmark times nothing but the bytes.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longest head of an answer, and longest answer, in bytes.
const HEAD_MAX: usize = 64 * 1024;
const BODY_MAX: usize = 16 * 1024 * 1024;

/// A connection to a server on this machine.
#[derive(Debug)]
pub struct RawConnection {
    stream: BufReader<TcpStream>,
    host: String,
}

/// The head of an answer.
#[derive(Clone, Debug)]
pub struct RawHead {
    pub status: u16,
    /// The status line and the headers, as they came.
    pub text: String,
    length: BodyLength,
}

/// A whole answer.
#[derive(Clone, Debug)]
pub struct RawAnswer {
    pub head: RawHead,
    pub body: String,
}

#[derive(Clone, Copy, Debug)]
enum BodyLength {
    Known(usize),
    Chunked,
}

impl RawConnection {
    /// `host` is an address with a port, such as `127.0.0.1:8788`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn open(host: &str) -> Result<Self> {
        let stream =
            TcpStream::connect(host).await.with_context(|| format!("Failed to connect to {host}"))?;
        stream.set_nodelay(true).context("Failed to set up a connection")?;
        Ok(Self { stream: BufReader::new(stream), host: host.to_owned() })
    }

    /// Asks, and reads the whole answer.
    ///
    /// # Errors
    /// The connection broke, or the answer is no HTTP.
    pub async fn ask(&mut self, line: &str, headers: &[&str], body: &str) -> Result<RawAnswer> {
        self.send(line, headers, body).await?;
        let head = self.read_head().await?;
        let mut whole = Vec::new();
        while let Some(piece) = self.read_piece(&head, whole.len()).await? {
            whole.extend_from_slice(&piece);
            ensure!(whole.len() <= BODY_MAX, "The answer is too long");
        }
        Ok(RawAnswer { head, body: String::from_utf8(whole).context("The answer is not UTF-8")? })
    }

    /// `line` is a method and a path, such as `POST /v1/chat/completions`; each header is `name: value`.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn send(&mut self, line: &str, headers: &[&str], body: &str) -> Result<()> {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let (host, length) = (&self.host, body.len());
        let text = format!(
            "{line} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        self.stream.get_mut().write_all(text.as_bytes()).await.context("Failed to send a request")
    }

    /// # Errors
    /// The connection broke, or what comes is no HTTP.
    pub async fn read_head(&mut self) -> Result<RawHead> {
        let mut text = String::new();
        while !text.ends_with("\r\n\r\n") {
            let read = self.stream.read_line(&mut text).await.context("Failed to read an answer's head")?;
            ensure!(
                read > 0 && text.len() <= HEAD_MAX,
                "The connection ended within an answer's head: {text:?}"
            );
        }
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok());
        let headers = text.to_ascii_lowercase();
        let header = |name: &str| {
            headers.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
        };
        let length = match (header("transfer-encoding"), header("content-length")) {
            (Some("chunked"), _) => BodyLength::Chunked,
            (_, Some(length)) => BodyLength::Known(length.parse().context("The length is no number")?),
            (_, None) => bail!("An answer of unknown length: {text:?}"),
        };
        Ok(RawHead { status: status.with_context(|| format!("No HTTP: {text:?}"))?, text, length })
    }

    /// The next piece of a body of which `read` bytes were read before; `None` at its end.
    ///
    /// # Errors
    /// The connection broke, or what comes is no HTTP.
    pub async fn read_piece(&mut self, head: &RawHead, read: usize) -> Result<Option<Vec<u8>>> {
        let length = match head.length {
            BodyLength::Known(length) if read >= length => return Ok(None),
            BodyLength::Known(length) => length - read,
            BodyLength::Chunked => {
                let mut line = String::new();
                self.stream.read_line(&mut line).await.context("Failed to read a chunk's length")?;
                usize::from_str_radix(line.trim_end(), 16)
                    .with_context(|| format!("The connection ended within an answer, at {line:?}"))?
            }
        };
        ensure!(length <= BODY_MAX, "The answer is too long");
        let mut piece = vec![0; length];
        self.stream.read_exact(&mut piece).await.context("Failed to read a piece of an answer")?;
        if matches!(head.length, BodyLength::Chunked) {
            let mut end = [0; 2];
            self.stream.read_exact(&mut end).await.context("Failed to read a chunk's end")?;
            if length == 0 {
                return Ok(None);
            }
        }
        Ok(Some(piece))
    }
}

impl RawHead {
    /// A header's value, in lower case.
    pub fn header(&self, name: &str) -> Option<String> {
        let mut lines = self.text.lines().filter_map(|line| line.split_once(':'));
        lines
            .find(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.trim().to_ascii_lowercase())
    }
}
