//! Sockets: accepts connections, runs HTTP/1.1 on them, and lets them end well at a shutdown.
//!
//! hyper directly rather than `axum::serve`, which has no limit on slow clients, none on connections, and no end to a
//! shutdown. Whoever calls decides when to stop; held requests have ended by then because the service drains first.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, extract::Request};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::sync::CancellationToken;
use tower::Service;

use super::{
    Settings,
    connection::{Connection, Timeouts, Turn},
    router,
};
use crate::service::PredictionService;

/// Connections the kernel keeps for us until we accept them.
const BACKLOG: i32 = 4096;
/// What hyper keeps of a connection at most; it never gives back what it has once taken.
const MAX_BUFFER: usize = 64 * 1024;
/// After this much silence the kernel asks whether the other side is still there.
const TCP_KEEPALIVE: Duration = Duration::from_secs(30);
/// How long a connection may idle. Proxies in front commonly keep theirs for 60 seconds; they must be the first to let
/// go, or they will send requests into connections that are just being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(75);
/// How long answers may take to reach their clients at a shutdown.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Until the next try when there is nothing left to accept a connection with.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Opens the port. Clients may connect from now on, and wait until [`serve`] accepts them.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    // A restarted server need not wait for the old one's connections to be forgotten.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Serves until `shutdown`, then until the answers under way are sent or five seconds are over. When it returns, no
/// connection is left.
///
/// Held requests end at a shutdown because the service drains, which is to come first.
pub async fn serve(listener: TcpListener, service: PredictionService, settings: Settings, shutdown: CancellationToken) {
    let timeouts = Timeouts { head: settings.header_timeout, send: settings.send_timeout };
    let limits = Limits { max_connections: settings.max_connections, timeouts };
    raise_file_limit(limits.max_connections);
    serve_routes(listener, router(service, settings), limits, shutdown).await;
}

/// What a listener puts up with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    max_connections: usize,
    timeouts: Timeouts,
}

impl Limits {
    /// For a listener that a handful of machines know.
    pub(super) const FEW: Self = Self {
        max_connections: 64,
        timeouts: Timeouts { head: Duration::from_secs(10), send: Duration::from_secs(60) },
    };
}

/// Serves any routes in that way.
pub(super) async fn serve_routes(listener: TcpListener, router: Router, limits: Limits, shutdown: CancellationToken) {
    let Limits { max_connections, timeouts } = limits;
    let open = Arc::new(Semaphore::new(max_connections));
    let graceful = GracefulShutdown::new();
    let cut = CancellationToken::new();
    let http = http1();
    loop {
        let permit = tokio::select! {
            permit = Arc::clone(&open).acquire_owned() => permit,
            () = shutdown.cancelled() => break,
        };
        let stream = tokio::select! {
            stream = accept(&listener) => stream,
            () = shutdown.cancelled() => break,
        };
        let turn = Turn::default();
        let connection = Connection::new(stream, timeouts, turn.clone());
        let router = router.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let (turn, answer) = (turn.answer(), router.clone().call(request));
            async move {
                let _turn = turn;
                answer.await as Result<_, Infallible>
            }
        });
        let connection = graceful.watch(http.serve_connection(TokioIo::new(connection), service));
        let cut = cut.clone();
        tokio::spawn(async move {
            let _permit = permit;
            tokio::select! {
                // A client that breaks off is no news.
                ended = connection => drop(ended),
                () = cut.cancelled() => {}
            }
        });
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("Some requests did not end in time; their connections were cut");
        cut.cancel();
    }
    // Each connection gives its permit back when it ends.
    let _ = open.acquire_many(u32::try_from(max_connections).unwrap_or(u32::MAX)).await;
}

fn http1() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT).max_buf_size(MAX_BUFFER);
    http
}

/// The next connection, however long it takes to get one.
async fn accept(listener: &TcpListener) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Neither is worth refusing a client for.
                let _ = stream.set_nodelay(true);
                let _ = SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(TCP_KEEPALIVE));
                return stream;
            }
            // The client was gone before it was its turn.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            // Out of file descriptors or memory: what ends meanwhile makes room.
            Err(error) => {
                tracing::error!(%error, "A connection could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
}

/// Lets the process open as many files as it ever may; the default on most systems is 1024.
fn raise_file_limit(max_connections: usize) {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return;
    };
    let limit = match setrlimit(Resource::RLIMIT_NOFILE, hard, hard) {
        Ok(()) => hard,
        Err(_) => soft,
    };
    if limit <= max_connections as u64 {
        tracing::warn!("Only {limit} files may be open, fewer than the {max_connections} connections to be allowed");
    }
}
