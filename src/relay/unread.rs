//! The container's side of a connection, given up when the container does not read what it is sent.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long an answer may lie there unread. An engine reads at once; a program that does not read holds a
/// connection to the other side for that long.
pub const UNREAD_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// A connection on which a write fails when nothing could be written for [`UNREAD_TIMEOUT`]. With that the
/// connection ends, and so does the one that the answer came from.
#[derive(Debug)]
pub struct UnreadTimeoutStream<S> {
    stream: S,
    /// Runs while the other side does not read.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> UnreadTimeoutStream<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, deadline: None }
    }

    fn enforce_unread_timeout<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(UNREAD_TIMEOUT)));
        deadline.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for UnreadTimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for UnreadTimeoutStream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.enforce_unread_timeout(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.enforce_unread_timeout(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_nobody_reads_is_given_up_and_what_is_read_slowly_is_not() {
        let (proxy, mut container) = duplex(4);
        let mut proxy = UnreadTimeoutStream::new(proxy);
        let reads = tokio::spawn(async move {
            for _ in 0..3 {
                sleep(UNREAD_TIMEOUT - Duration::from_secs(1)).await;
                container.read_exact(&mut [0; 4]).await.unwrap();
            }
            container
        });
        proxy.write_all(&[0; 16]).await.unwrap();
        let _container = reads.await.unwrap();
        let stopped = Instant::now();
        let error = proxy.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!(
            (error.kind(), stopped.elapsed().as_secs()),
            (io::ErrorKind::TimedOut, UNREAD_TIMEOUT.as_secs())
        );
    }
}
