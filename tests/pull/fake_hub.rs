//! A hub on 127.0.0.1 that can be told to misbehave, and remembers what it was asked and which bytes it gave.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::Response,
};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use tokio::{net::TcpListener, sync::watch};

/// The commit that every test pins.
pub(crate) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const CHUNK: usize = 4096;

/// What the hub does with one GET request instead of answering it well.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Answers with this status, these headers and a body that is no file.
    Status(u16, Vec<(&'static str, String)>),
    /// Breaks the connection after so many bytes.
    Cut(usize),
    /// Sends nothing more after so many bytes.
    Hang(usize),
    /// Sends other bytes.
    Damage,
    /// Answers with bytes from somewhere else in the file.
    OtherRange,
}

/// A file on the hub. What is announced can differ from what is served.
#[derive(Clone, Debug)]
pub(crate) struct HubFile {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
    pub(crate) size: u64,
    pub(crate) commit: Option<&'static str>,
    /// Large files are described on a redirect, small ones on the answer itself.
    pub(crate) large: bool,
    /// Where the bytes are, if not here.
    pub(crate) storage: Option<SocketAddr>,
    pub(crate) ranges: bool,
    /// How long each 4 KiB take.
    pub(crate) pace: Duration,
    /// Answers of HEAD requests before the right one.
    pub(crate) head_faults: VecDeque<(u16, Vec<(&'static str, String)>)>,
    pub(crate) get_faults: VecDeque<Fault>,
    /// Ends every GET.
    pub(crate) always: Option<Fault>,
}

impl HubFile {
    /// In git itself, as the hub has configurations.
    pub(crate) fn small(bytes: &[u8]) -> Self {
        let mut hasher = Sha1::new();
        hasher.update(format!("blob {}\0", bytes.len()));
        hasher.update(bytes);
        Self {
            bytes: Bytes::copy_from_slice(bytes),
            etag: hex::encode(hasher.finalize()),
            size: bytes.len() as u64,
            commit: Some(COMMIT),
            large: false,
            storage: None,
            ranges: true,
            pace: Duration::ZERO,
            head_faults: VecDeque::new(),
            get_faults: VecDeque::new(),
            always: None,
        }
    }

    /// In large file storage, as the hub has weights: bytes that differ everywhere.
    pub(crate) fn large(size: usize) -> Self {
        let bytes: Vec<u8> =
            (0..size.div_ceil(32)).flat_map(|block| Sha256::digest(block.to_le_bytes())).take(size).collect();
        Self { etag: sha256(&bytes), large: true, ..Self::small(&bytes) }
    }

    pub(crate) fn with_faults(mut self, faults: impl IntoIterator<Item = Fault>) -> Self {
        self.get_faults = faults.into_iter().collect();
        self
    }
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) range: Option<String>,
    pub(crate) authorization: Option<String>,
}

#[derive(Default)]
struct Inner {
    files: Mutex<HashMap<String, HubFile>>,
    seen: Mutex<Vec<Seen>>,
    /// How often each byte of each file was given away.
    served: Mutex<HashMap<String, Vec<u32>>>,
    total: watch::Sender<u64>,
}

/// A running hub; it ends with the test.
#[derive(Clone)]
pub(crate) struct FakeHub {
    pub(crate) address: SocketAddr,
    inner: Arc<Inner>,
}

impl FakeHub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Inner::default());
        let app = Router::new().fallback(answer).with_state(inner.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, inner }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Puts a file at `owner/name` and a path, at the pinned commit, at its own, and on the branch `main`.
    pub(crate) fn put(&self, repository: &str, path: &str, file: HubFile) {
        let mut files = self.inner.files.lock().unwrap();
        for revision in [COMMIT, "main"].into_iter().chain(file.commit) {
            files.insert(format!("/{repository}/resolve/{revision}/{path}"), file.clone());
        }
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, method: &Method) -> usize {
        self.seen().iter().filter(|seen| seen.method == *method).count()
    }

    /// How many bytes were given away, and how many of these not for the first time.
    pub(crate) fn served(&self) -> (u64, u64) {
        let served = self.inner.served.lock().unwrap();
        let counts = || served.values().flatten().map(|count| u64::from(*count));
        (counts().sum(), counts().map(|count| count.saturating_sub(1)).sum())
    }

    /// Waits until so many bytes were given away in all.
    pub(crate) async fn has_served(&self, bytes: u64) {
        self.inner.total.subscribe().wait_for(|total| *total >= bytes).await.unwrap();
    }
}

async fn answer(State(hub): State<Arc<Inner>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let text = |name: HeaderName| request.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    hub.seen.lock().unwrap().push(Seen {
        method: request.method().clone(),
        path: path.clone(),
        range: text(header::RANGE),
        authorization: text(header::AUTHORIZATION),
    });
    if request.method() == Method::HEAD { describe(&hub, &path) } else { serve(&hub, &path, text(header::RANGE)) }
}

fn describe(hub: &Inner, path: &str) -> Response {
    let mut files = hub.files.lock().unwrap();
    let Some(file) = files.get_mut(path) else {
        return plain(404, &[("x-error-message", "Entry not found".to_owned())]);
    };
    if let Some((status, headers)) = file.head_faults.pop_front() {
        return plain(status, &headers);
    }
    let mut headers = Vec::new();
    headers.extend(file.commit.map(|commit| ("x-repo-commit", commit.to_owned())));
    if !file.large {
        headers.extend([("etag", format!("\"{}\"", file.etag)), ("content-length", file.size.to_string())]);
        return plain(200, &headers);
    }
    let location = file.storage.map_or(path.to_owned(), |storage| format!("http://{storage}{path}?signature=secret"));
    headers.extend([("location", location), ("etag", "\"of-the-redirect\"".to_owned())]);
    headers.extend([("x-linked-etag", format!("\"{}\"", file.etag)), ("x-linked-size", file.size.to_string())]);
    plain(302, &headers)
}

fn serve(hub: &Arc<Inner>, path: &str, range: Option<String>) -> Response {
    let (file, fault) = {
        let mut files = hub.files.lock().unwrap();
        let Some(file) = files.get_mut(path) else { return plain(404, &[]) };
        if let Some(storage) = file.storage {
            return plain(302, &[("location", format!("http://{storage}{path}?signature=secret"))]);
        }
        let fault = file.get_faults.pop_front().or_else(|| file.always.clone());
        (file.clone(), fault)
    };
    let size = file.bytes.len();
    let mut asked = range.filter(|_| file.ranges).map(|range| parse(&range, size));
    if let (Some(Fault::OtherRange), Some(asked)) = (&fault, &mut asked) {
        *asked = asked.start.saturating_sub(1)..asked.end - 1;
    }
    let mut limit = None;
    let mut bytes = file.bytes.clone();
    match &fault {
        Some(Fault::Status(status, headers)) => return plain(*status, headers),
        Some(Fault::Cut(after)) => limit = Some((*after, false)),
        Some(Fault::Hang(after)) => limit = Some((*after, true)),
        Some(Fault::Damage) => bytes = bytes.iter().map(|byte| !byte).collect(),
        Some(Fault::OtherRange) | None => {}
    }
    let extent = asked.clone().unwrap_or(0..size);
    let mut response = Response::builder().header(header::CONTENT_LENGTH, extent.len());
    if asked.is_some() {
        let content_range = format!("bytes {}-{}/{size}", extent.start, extent.end - 1);
        response = response.status(StatusCode::PARTIAL_CONTENT).header(header::CONTENT_RANGE, content_range);
    }
    let giving = Giving { hub: hub.clone(), path: path.to_owned(), bytes, extent, limit, pace: file.pace };
    let stream = futures_util::stream::unfold(giving, |mut giving| async {
        let chunk = giving.next().await?;
        Some((chunk, giving))
    });
    response.body(Body::from_stream(stream)).unwrap()
}

/// A body that is being sent.
struct Giving {
    hub: Arc<Inner>,
    path: String,
    bytes: Bytes,
    extent: Range<usize>,
    /// How many more bytes there will be, and whether the connection then hangs.
    limit: Option<(usize, bool)>,
    pace: Duration,
}

impl Giving {
    async fn next(&mut self) -> Option<Result<Bytes, io::Error>> {
        let start = self.extent.start;
        let mut end = (start + CHUNK).min(self.extent.end);
        if start == end {
            return None;
        }
        if let Some((left, hangs)) = &mut self.limit {
            end = end.min(start + *left);
            *left -= end - start;
            if start == end && *hangs {
                return std::future::pending::<Option<Result<Bytes, io::Error>>>().await;
            }
            if start == end {
                // What was written before must leave first: a reset throws away what is still on its way.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return Some(Err(io::Error::other("cut")));
            }
        }
        if !self.pace.is_zero() {
            tokio::time::sleep(self.pace).await;
        }
        self.extent.start = end;
        let mut served = self.hub.served.lock().unwrap();
        let counts = served.entry(self.path.clone()).or_insert_with(|| vec![0; self.bytes.len()]);
        counts[start..end].iter_mut().for_each(|count| *count += 1);
        self.hub.total.send_modify(|total| *total += (end - start) as u64);
        Some(Ok(self.bytes.slice(start..end)))
    }
}

fn parse(range: &str, size: usize) -> Range<usize> {
    let (first, last) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
    first.parse().unwrap()..(last.parse::<usize>().unwrap() + 1).min(size)
}

fn plain(status: u16, headers: &[(&'static str, String)]) -> Response {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    let mut response = Response::new(Body::from_stream(futures_util::stream::iter([Ok::<_, Infallible>("no file")])));
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    *response.headers_mut() = map;
    response
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
