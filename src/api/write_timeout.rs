//! A client's connection that breaks when the client reads nothing of its answer for too long: it would hold a place that
//! others need.
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

/// Time for which a client may read nothing of its answer, in milliseconds. Clients that follow logs may take longer.
const CONTROL_WRITE_TIMEOUT_MS: u64 = 10_000;

pub(crate) struct WriteTimeout<S> {
    stream: S,
    /// The client may stop reading for as long as it wants.
    may_pause: Arc<AtomicBool>,
    /// Else so long.
    time: Duration,
    /// The end of its time, while it does not read.
    timeout: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteTimeout<S> {
    pub(crate) fn new(stream: S, may_pause: Arc<AtomicBool>) -> WriteTimeout<S> {
        let time = Duration::from_millis(CONTROL_WRITE_TIMEOUT_MS);
        WriteTimeout { stream, may_pause, time, timeout: None }
    }

    /// What came of a write: one that waits has until the time is over.
    fn timed<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() || self.may_pause.load(Ordering::Acquire) {
            self.timeout = None;
            return written;
        }
        let time = self.time;
        let timeout = self.timeout.get_or_insert_with(|| Box::pin(tokio::time::sleep(time)));
        ready!(timeout.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteTimeout<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteTimeout<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.timed(cx, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, pieces);
        self.timed(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    /// What comes of an answer that nobody reads, if anything comes within `time`.
    fn unread(may_pause: bool, time: Duration) -> Option<io::ErrorKind> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build().unwrap();
        runtime.block_on(async {
            let (ours, _client) = UnixStream::pair().unwrap();
            let mut ours = WriteTimeout::new(ours, Arc::new(AtomicBool::new(may_pause)));
            ours.time = Duration::from_millis(20);
            let answer = vec![b'x'; 16 * 1024 * 1024];
            let written = tokio::time::timeout(time, ours.write_all(&answer)).await;
            written.ok().map(|written| written.unwrap_err().kind())
        })
    }

    #[test]
    fn an_answer_that_nobody_reads_is_given_up_unless_it_may_wait() {
        assert_eq!(unread(false, Duration::from_secs(60)), Some(io::ErrorKind::TimedOut));
        assert_eq!(unread(true, Duration::from_millis(200)), None);
    }
}
