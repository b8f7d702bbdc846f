use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, body::Body, http::StatusCode, response::Redirect, routing::get};
use tokio::net::TcpListener;

use super::*;

const LIMIT: usize = 1000;

/// A server on this machine that nobody is to reach, and how many connections it has had.
pub(super) struct Canary {
    pub(super) address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl Canary {
    async fn start() -> Self {
        Self::listening_on("127.0.0.1:0").await
    }

    pub(super) async fn listening_on(address: &str) -> Self {
        let listener = TcpListener::bind(address).await.expect("a port");
        let (address, connections) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
        let counter = Arc::clone(&connections);
        tokio::spawn(async move {
            while listener.accept().await.is_ok() {
                counter.fetch_add(1, Relaxed);
            }
        });
        Self { address, connections }
    }

    pub(super) fn connections(&self) -> usize {
        self.connections.load(Relaxed)
    }
}

pub(super) fn settings(allowed: &[&str]) -> Settings {
    let allowed_networks = allowed.iter().map(|network| network.parse().expect("a network")).collect();
    Settings { allowed_networks, timeout: Duration::from_secs(5) }
}

/// A fetcher for which every name has these addresses.
fn with_answer(allowed: &[&str], addresses: Vec<SocketAddr>) -> Fetcher {
    let lookup: Lookup = Arc::new(move |_| {
        let addresses = addresses.clone();
        Box::pin(async move { io::Result::Ok(addresses) })
    });
    Fetcher::with_lookup(settings(allowed), lookup).expect("a client")
}

/// A server on this machine that may be reached.
async fn serve(routes: Router) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// Ways to write this machine, its network and its cloud's metadata service.
const INNER_HOSTS: [&str; 50] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7f.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "017700000001",
    "0177.0.0.01",
    "0",
    "0.0.0.0",
    "0x0",
    "10.0.0.1",
    "10.255.255.255",
    "167772161",
    "100.64.0.1",
    "100.127.255.255",
    "169.254.169.254",
    "2852039166",
    "0xa9fea9fe",
    "0xA9.0xFE.0xA9.0xFE",
    "0251.0376.0251.0376",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.168.0.1",
    "192.168.1.1.",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "[::]",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::127.0.0.1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::ffff:0:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b::169.254.169.254]",
    "[2002:7f00:1::]",
    "[2001:0:7f00:1::]",
    "[fd00::1]",
    "[fe80::1]",
];

#[tokio::test]
async fn no_way_to_write_an_inner_address_reaches_it() {
    let canary = Canary::start().await;
    let fetcher = Fetcher::new(settings(&[])).expect("a client");
    // Where some network is allowed, other ports are, and the address alone decides.
    let with_own_network = Fetcher::new(settings(&["203.0.113.7/32"])).expect("a client");
    let mut refused = 0;
    for host in INNER_HOSTS {
        for url in [format!("http://{host}/"), format!("http://{host}:{}/", canary.address.port())] {
            for fetcher in [&fetcher, &with_own_network] {
                let error = fetcher.get(&url, LIMIT).await.expect_err(&url);
                assert!(matches!(error, Error::NotPublic | Error::Url(_)), "{url}: {error}");
            }
            refused += 1;
        }
    }
    let others = [
        "localhost",
        "http://localhost/",
        "http://LOCALHOST/",
        "http://user@127.0.0.1/",
        "http://example.com@127.0.0.1/",
        "http://user:password@example.com/",
        "http://example.com:22/",
        "http://example.com:5432/",
        "https://example.com:8443/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "gopher://127.0.0.1/",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "unix:/run/postgresql",
        "http://",
        "//127.0.0.1/",
        "",
        " ",
        "http://[::1",
        "http://exa mple.com/",
    ];
    for url in others {
        let error = fetcher.get(url, LIMIT).await.expect_err(url);
        assert!(matches!(error, Error::NotPublic | Error::Url(_)), "{url}: {error}");
        refused += 1;
    }
    assert!(refused >= 80);
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_name_with_an_inner_address_among_public_ones_is_refused() {
    let canary = Canary::start().await;
    let public = SocketAddr::from(([93, 184, 216, 34], 0));
    for answer in [vec![canary.address], vec![public, canary.address], vec![canary.address, public]] {
        let error = with_answer(&[], answer).get("http://rebinding.example/", LIMIT).await.expect_err("refused");
        assert!(matches!(error, Error::NotPublic), "{error}");
    }
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_checked_like_the_first_url() {
    let canary = Canary::start().await;
    // Reached because it is allowed; where it leads to is not.
    let inner = format!("http://[::1]:{}/", canary.address.port());
    let routes = Router::new()
        .route("/away", get(move || async move { Redirect::temporary(&inner) }))
        .route("/file", get(async || Redirect::temporary("file:///etc/passwd")))
        .route("/round", get(async || Redirect::temporary("/round")))
        .route("/there", get(async || Redirect::permanent("picture")))
        .route("/picture", get(async || "bytes"));
    let address = serve(routes).await;
    let fetcher = Fetcher::new(settings(&["127.0.0.0/8"])).expect("a client");
    let get = async |path: &str| fetcher.get(&format!("http://{address}{path}"), LIMIT).await;
    assert!(matches!(get("/away").await, Err(Error::NotPublic)));
    assert!(matches!(get("/file").await, Err(Error::Url(_))));
    assert!(matches!(get("/round").await, Err(Error::Redirects)));
    assert_eq!(get("/there").await.expect("fetched"), b"bytes");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn a_redirect_to_nowhere_and_what_is_none_are_told_as_what_they_are() {
    let routes = Router::new()
        .route("/nowhere", get(async || StatusCode::FOUND))
        .route("/unwritable", get(async || (StatusCode::FOUND, [(LOCATION, "http://[")])))
        .route("/known", get(async || StatusCode::NOT_MODIFIED))
        .route("/choose", get(async || (StatusCode::MULTIPLE_CHOICES, [(LOCATION, "/picture")])));
    let address = serve(routes).await;
    let fetcher = Fetcher::new(settings(&["127.0.0.0/8"])).expect("a client");
    for (path, words) in [
        ("/nowhere", "was redirected with HTTP status 302 and without a usable Location"),
        ("/unwritable", "was redirected with HTTP status 302 and without a usable Location"),
        ("/known", "was answered with HTTP status 304"),
        ("/choose", "was answered with HTTP status 300"),
    ] {
        let error = fetcher.get(&format!("http://{address}{path}"), LIMIT).await.expect_err(path);
        assert_eq!(error.to_string(), words, "{path}");
    }
}

#[tokio::test]
async fn size_status_and_time_are_bounded() {
    let endless = || Body::from_stream(futures_util::stream::repeat_with(|| io::Result::Ok(vec![0u8; 4096])));
    let routes = Router::new()
        .route("/small", get(async || vec![7u8; LIMIT]))
        .route("/large", get(async || vec![7u8; LIMIT + 1]))
        .route("/endless", get(async move || endless()))
        .route("/silent", get(std::future::pending::<&str>));
    let address = serve(routes).await;
    let short = Settings { timeout: Duration::from_millis(300), ..settings(&["127.0.0.1/32"]) };
    let fetcher = Fetcher::new(short).expect("a client");
    let get = async |path: &str| fetcher.get(&format!("http://{address}{path}"), LIMIT).await;
    assert_eq!(get("/small").await.expect("fetched").len(), LIMIT);
    assert!(matches!(get("/large").await, Err(Error::TooLarge(LIMIT))));
    assert!(matches!(get("/endless").await, Err(Error::TooLarge(LIMIT))));
    assert!(matches!(get("/missing").await, Err(Error::Status(404))));
    assert!(matches!(get("/silent").await, Err(Error::TimedOut(_))));
}

#[test]
fn the_public_internet_is_public() {
    for address in ["1.1.1.1", "8.8.8.8", "93.184.216.34", "100.63.255.255", "172.32.0.1", "2606:4700:4700::1111"] {
        assert!(guard::is_public(address.parse().expect("an address")), "{address}");
    }
}
