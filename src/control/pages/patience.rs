//! How long a client may take: for its request, before its next one, to read its answer.
//!
//! hyper has a time for requests only, and none in which a client has to read. So the stream under
//! it has a deadline of its own, which is an error of reading or writing when it is over.

use std::cell::Cell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::pages_of;
use crate::config::plan::Pages;
use crate::shard::Frontend;

/// Time for a request where no timeout is set.
const REQUEST_MS: u32 = 10_000;
/// Time in which a client has to read something, where none is set.
const SILENCE_MS: u32 = 30_000;

/// What a client does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// It has not begun with a request.
    Idle,
    /// It has begun with one.
    Asking,
    /// It has asked, and gets its answer.
    Answered,
}

/// A client's phase and the times of its frontend.
#[derive(Debug)]
pub(super) struct Patience {
    phase: Cell<Phase>,
    request: Duration,
    keep_alive: Duration,
    silence: Duration,
}

impl Patience {
    /// For a client that has just come to a frontend of pages.
    pub(super) fn at(front: &Frontend) -> Option<Patience> {
        let timeout_client_ms = front.proxy.front.as_ref()?.timeout_client_ms;
        Some(Patience::new(timeout_client_ms, pages_of(front)?))
    }

    /// 0 is a time that isn't set.
    fn new(timeout_client_ms: u32, pages: &Pages) -> Patience {
        let first = |times: &[u32]| {
            let set = times.iter().copied().find(|time| *time > 0);
            Duration::from_millis(set.unwrap_or(0).into())
        };
        let (request, keep_alive) = (pages.timeout_request_ms, pages.timeout_keep_alive_ms);
        Patience {
            phase: Cell::new(Phase::Idle),
            request: first(&[request, timeout_client_ms, REQUEST_MS]),
            keep_alive: first(&[keep_alive, request, timeout_client_ms, REQUEST_MS]),
            silence: first(&[timeout_client_ms, SILENCE_MS]),
        }
    }

    /// Whether it has asked for something, and has begun with nothing since.
    pub(super) fn has_answered(&self) -> bool {
        self.phase.get() == Phase::Answered
    }

    /// A whole request has come.
    pub(super) fn asked(&self) {
        self.phase.set(Phase::Answered);
    }
}

/// What a deadline is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum For {
    Nothing,
    Request,
    Next,
    Reader,
}

/// A stream whose client has to be quick enough.
pub(super) struct Patient<S, C> {
    stream: S,
    patience: Rc<Patience>,
    /// Told of bytes read and written.
    count: C,
    deadline: Pin<Box<Sleep>>,
    waits_for: For,
}

impl<S, C> Patient<S, C> {
    pub(super) fn new(stream: S, patience: Rc<Patience>, count: C) -> Self {
        let deadline = Box::pin(tokio::time::sleep(patience.request));
        Patient {
            stream,
            patience,
            count,
            deadline,
            // The first request is not a next one.
            waits_for: For::Request,
        }
    }

    /// Looks at the deadline, which is set anew when it is for something else.
    fn late(&mut self, what: For, within: Duration, context: &mut Context<'_>) -> Poll<io::Error> {
        if self.waits_for != what {
            self.waits_for = what;
            self.deadline.as_mut().reset(Instant::now() + within);
        }
        ready!(self.deadline.as_mut().poll(context));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }
}

impl<S, C> AsyncRead for Patient<S, C>
where
    S: AsyncRead + Unpin,
    C: Fn(u64, u64) + Unpin,
{
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_read(context, buffer) {
            let read = buffer.filled().len() - before;
            (this.count)(u64::try_from(read).unwrap_or(0), 0);
            if read > 0 && this.patience.phase.get() != Phase::Asking {
                this.patience.phase.set(Phase::Asking);
                let within = this.patience.request;
                // From the first byte on, unless it is the first request: that has begun when the
                // client came.
                if this.waits_for != For::Request {
                    this.waits_for = For::Request;
                    this.deadline.as_mut().reset(Instant::now() + within);
                }
            }
            return Poll::Ready(result);
        }
        let patience = Rc::clone(&this.patience);
        let (what, within) = match (patience.phase.get(), this.waits_for) {
            (Phase::Idle | Phase::Asking, _) => (For::Request, patience.request),
            (Phase::Answered, _) => (For::Next, patience.keep_alive),
        };
        this.late(what, within, context).map(Err)
    }
}

impl<S, C> AsyncWrite for Patient<S, C>
where
    S: AsyncWrite + Unpin,
    C: Fn(u64, u64) + Unpin,
{
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Poll::Ready(result) = Pin::new(&mut this.stream).poll_write(context, bytes) {
            this.waits_for = For::Nothing;
            let written = result.as_ref().copied().unwrap_or(0);
            (this.count)(0, u64::try_from(written).unwrap_or(0));
            return Poll::Ready(result);
        }
        let within = this.patience.silence;
        this.late(For::Reader, within, context).map(Err)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
