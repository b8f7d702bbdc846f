//! One client's connection: how long it may take to say what it wants, and to take what it is told.
//!
//! hyper has a single limit for that, which starts when the connection falls idle. But an idle connection should be kept
//! for longer than any proxy in front keeps its own, and half a request head for much shorter. So hyper's limit is for
//! idling, and this stream ends by itself when a head that has begun does not end.
//!
//! hyper has no limit at all for a client that does not read its answer, and reads nothing before that is sent. So this
//! stream also ends when what it has to send does not get on. An answer that is still being worked out, as a stream of
//! events between two of them, has nothing to send and may take its time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep},
};

/// Counts the beginnings and ends of answers on a connection: odd while one is being worked out. The stream and the
/// service of a connection share it, in the same task.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU64>);

impl Turn {
    /// The client has said what it wants; it is the server's turn until the guard is dropped.
    pub(super) fn answer(&self) -> AnswerGuard {
        self.0.fetch_add(1, Ordering::Relaxed);
        AnswerGuard(self.clone())
    }

    fn number(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn is_clients(number: u64) -> bool {
        number.is_multiple_of(2)
    }
}

/// Ends the server's turn.
#[derive(Debug)]
pub(super) struct AnswerGuard(Turn);

impl Drop for AnswerGuard {
    fn drop(&mut self) {
        self.0.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A connection that fails when a request's head takes too long, or its answer finds no room for too long.
pub(super) struct Connection {
    stream: TcpStream,
    timeouts: Timeouts,
    turn: Turn,
    /// Of the client's turn with this number.
    begun_head: Option<(u64, Deadline)>,
    /// Since the buffers on the way to the client are full.
    stuck: Option<Pin<Box<Sleep>>>,
}

/// How long a client may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeouts {
    /// To send the head of a request.
    pub(super) head: Duration,
    /// To make room for more of an answer.
    pub(super) send: Duration,
}

/// Most heads arrive whole and need no timer.
enum Deadline {
    At(Instant),
    Timer(Pin<Box<Sleep>>),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, timeouts: Timeouts, turn: Turn) -> Self {
        Self { stream, timeouts, turn, begun_head: None, stuck: None }
    }

    /// Ready when the head that has begun has taken too long.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let turn = self.turn.number();
        let Some((_, deadline)) = self.begun_head.as_mut().filter(|(begun, _)| *begun == turn) else {
            return Poll::Pending;
        };
        if let Deadline::At(instant) = deadline {
            *deadline = Deadline::Timer(Box::pin(tokio::time::sleep_until(*instant)));
        }
        match deadline {
            Deadline::Timer(timer) => timer.as_mut().poll(context),
            Deadline::At(_) => Poll::Pending,
        }
    }

    /// What a write came to, or an error when none got on for too long. Flushing and shutting down a socket never wait.
    fn poll_sent(&mut self, context: &mut Context<'_>, sent: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if sent.is_ready() {
            self.stuck = None;
            return sent;
        }
        let timeout = self.timeouts.send;
        ready!(self.stuck.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout))).as_mut().poll(context));
        // The kernel need not keep what is not taken either. If it does, no harm is done to others.
        let _ = SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let filled = buffer.filled().len();
        match Pin::new(&mut self.stream).poll_read(context, buffer) {
            Poll::Ready(result) => {
                let turn = self.turn.number();
                let has_begun = self.begun_head.as_ref().is_some_and(|(begun, _)| *begun == turn);
                if buffer.filled().len() > filled && Turn::is_clients(turn) && !has_begun {
                    self.begun_head = Some((turn, Deadline::At(Instant::now() + self.timeouts.head)));
                }
                Poll::Ready(result)
            }
            Poll::Pending => {
                ready!(self.poll_deadline(context));
                Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
            }
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_sent(context, sent)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_sent(context, sent)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
