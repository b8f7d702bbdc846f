//! Requests to the hub: a file's metadata and ranges of its bytes.
//!
//! Redirects are followed here and not by the HTTP library, because what the hub says of a file stands on the redirect
//! itself, and because the token must go to no host but the one it is for. Every answer's status is looked at. Writes
//! nothing to disk; `download` does.

use std::ops::Range;

use chrono::Utc;
use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{
        ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RANGE,
        RETRY_AFTER,
    },
};
use reqwest::{Response, Url};

use super::{
    ByteSize, Error, Token, Transfer,
    digest::Digest,
    retry::{Failure, Patience},
};
use crate::domain::{WeightFile, retry_after};

/// Of a file. No disk has as many, and sums of it are still numbers.
const MOST_BYTES: u64 = 1 << 60;
const MOST_REDIRECTS: usize = 10;
const COMMIT_DIGITS: usize = 40;
const USER_AGENT: &str = concat!("fourstep/", env!("CARGO_PKG_VERSION"));

/// Speaks to one hub.
#[derive(Clone, Debug)]
pub(super) struct Client {
    http: reqwest::Client,
    endpoint: Url,
    token: Option<Token>,
    transfer: Transfer,
}

/// A file as the hub describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Metadata {
    /// The commit that the revision means.
    pub(super) commit: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// What came back for a range.
pub(super) enum Body {
    /// The range that was asked for.
    Asked(Response),
    /// The whole file: this server knows no ranges.
    Whole,
}

impl Client {
    pub(super) fn new(endpoint: &str, token: Option<Token>, transfer: Transfer) -> Result<Self, Error> {
        let refused = || Error::Endpoint { endpoint: endpoint.to_owned() };
        let url = Url::parse(endpoint).map_err(|_| refused())?;
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(refused());
        }
        let http = reqwest::Client::builder()
            .user_agent(USER_AGENT)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(transfer.stall)
            .read_timeout(transfer.stall)
            .build()
            .map_err(|error| Error::Unreachable { url: endpoint.to_owned(), reason: reason(&error) })?;
        Ok(Self { http, endpoint: url, token, transfer })
    }

    pub(super) fn transfer(&self) -> &Transfer {
        &self.transfer
    }

    /// What the hub says of a file, asked until it answers.
    pub(super) async fn metadata(&self, file: &WeightFile) -> Result<Metadata, Error> {
        Patience::new(&self.transfer).until_done(|| self.ask(file)).await
    }

    async fn ask(&self, file: &WeightFile) -> Result<Metadata, Failure> {
        let mut url = self.url(file, &file.revision)?;
        let mut described = Description::default();
        for _ in 0..MOST_REDIRECTS {
            let response = self.send(Method::HEAD, &url, None).await?;
            described.read(response.headers());
            match next_hop(&response)? {
                Some(next) if !described.is_complete() => url = next,
                Some(_) => return described.metadata(file, &url),
                None => {
                    let response = self.check(response, file).await?;
                    described.read_file(response.headers());
                    return described.metadata(file, &url);
                }
            }
        }
        Err(Failure::Lasting(wrong(&url, "too many redirects")))
    }

    /// Asks for bytes of a file at the commit its metadata named.
    pub(super) async fn get(
        &self,
        file: &WeightFile,
        metadata: &Metadata,
        range: &Range<u64>,
    ) -> Result<Body, Failure> {
        let whole = *range == (0..metadata.size);
        let asked = (!whole).then(|| format!("bytes={}-{}", range.start, range.end - 1));
        let mut url = self.url(file, &metadata.commit)?;
        for _ in 0..MOST_REDIRECTS {
            let response = self.send(Method::GET, &url, asked.as_deref()).await?;
            if let Some(next) = next_hop(&response)? {
                url = next;
                continue;
            }
            let response = self.check(response, file).await?;
            return check_extent(response, &url, range, metadata.size);
        }
        Err(Failure::Lasting(wrong(&url, "too many redirects")))
    }

    async fn send(&self, method: Method, url: &Url, range: Option<&str>) -> Result<Response, Failure> {
        // Compressed bytes would be neither of the size nor of the hash that was announced.
        let mut request = self.http.request(method, url.clone()).header(ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            request = request.header(RANGE, range);
        }
        if let Some(token) = self.token.as_ref().filter(|_| url.origin() == self.endpoint.origin()) {
            let bearer = format!("Bearer {}", token.expose());
            let mut value = HeaderValue::try_from(bearer)
                .map_err(|_| Failure::Lasting(wrong(url, "the token holds characters that no header may")))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        request
            .send()
            .await
            .map_err(|error| Failure::passing(Error::Unreachable { url: shown(url), reason: reason(&error) }))
    }

    /// Refuses what is no success, in words that say what to do.
    async fn check(&self, response: Response, file: &WeightFile) -> Result<Response, Failure> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let url = response.url().clone();
        let headers = response.headers();
        let message = text(headers, "x-error-message").unwrap_or_default().to_owned();
        let wait = text(headers, RETRY_AFTER.as_str()).and_then(|value| retry_after(value, Utc::now()));
        let of_hub = url.origin() == self.endpoint.origin();
        let name = format!("{}/{}", file.repository, file.path);
        let repository = file.repository.clone();
        let error = match status {
            StatusCode::UNAUTHORIZED if of_hub && self.token.is_none() => {
                Error::TokenMissing { file: name, repository }
            }
            StatusCode::UNAUTHORIZED if of_hub => Error::TokenRefused { file: name, repository },
            StatusCode::FORBIDDEN if of_hub => {
                Error::Gated { file: name, page: format!("{}/{repository}", shown(&self.endpoint)), message }
            }
            StatusCode::NOT_FOUND => Error::NotFound { file: format!("{name} at {}", file.revision), message },
            _ => {
                let error = Error::Status { url: shown(&url), status: status.as_u16(), message };
                // A signed address that was redirected to may have expired: asking the hub again gives a new one.
                let expired = !of_hub && matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
                let passing = status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
                if passing || expired {
                    return Err(Failure::Passing { error, wait });
                }
                error
            }
        };
        Err(Failure::Lasting(error))
    }

    fn url(&self, file: &WeightFile, revision: &str) -> Result<Url, Failure> {
        let mut url = self.endpoint.clone();
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(file.repository.split('/'));
                segments.push("resolve").push(revision).extend(file.path.split('/'));
            }
            Err(()) => return Err(Failure::Lasting(Error::Endpoint { endpoint: self.endpoint.to_string() })),
        }
        Ok(url)
    }
}

/// What the answers to a HEAD request say, gathered over its redirects.
#[derive(Default)]
struct Description {
    commit: Option<String>,
    etag: Option<String>,
    size: Option<u64>,
}

impl Description {
    /// What the hub says of the file it links to; the first to say it is the hub itself.
    fn read(&mut self, headers: &HeaderMap) {
        let own = |name| text(headers, name).map(str::to_owned);
        self.commit = self.commit.take().or_else(|| own("x-repo-commit"));
        self.etag = self.etag.take().or_else(|| own("x-linked-etag"));
        self.size = self.size.or_else(|| number(headers, "x-linked-size"));
    }

    /// What the answer that is the file itself says.
    fn read_file(&mut self, headers: &HeaderMap) {
        self.etag = self.etag.take().or_else(|| text(headers, ETAG.as_str()).map(str::to_owned));
        self.size = self.size.or_else(|| number(headers, CONTENT_LENGTH.as_str()));
    }

    fn is_complete(&self) -> bool {
        self.etag.is_some() && self.size.is_some()
    }

    fn metadata(self, file: &WeightFile, url: &Url) -> Result<Metadata, Failure> {
        let refused = |reason: &str| Failure::Lasting(wrong(url, reason));
        let pinned = is_commit(&file.revision).then(|| file.revision.clone());
        let commit = match (self.commit.filter(|commit| is_commit(commit)), pinned) {
            (Some(answered), Some(pinned)) if answered != pinned => {
                return Err(refused(&format!("it is of commit {answered}, and {pinned} was asked for")));
            }
            (Some(commit), _) | (None, Some(commit)) => commit,
            (None, None) => return Err(refused("it names no commit (X-Repo-Commit)")),
        };
        let etag = self.etag.unwrap_or_default();
        let digest = Digest::parse(&etag)
            .ok_or_else(|| refused(&format!("its ETag {etag:?} is no hash to verify the file with")))?;
        let size = self.size.ok_or_else(|| refused("it does not say how large the file is"))?;
        if size > MOST_BYTES {
            return Err(refused(&format!("it says that the file has {}", ByteSize(size))));
        }
        Ok(Metadata { commit, digest, size })
    }
}

/// Whether a revision is a commit, which always means the same bytes.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == COMMIT_DIGITS && revision.bytes().all(|digit| digit.is_ascii_hexdigit())
}

/// Where a redirect leads, if the response is one.
fn next_hop(response: &Response) -> Result<Option<Url>, Failure> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let url = response.url();
    let next = text(response.headers(), LOCATION.as_str())
        .and_then(|location| url.join(location).ok())
        .filter(|next| matches!(next.scheme(), "http" | "https"))
        .ok_or_else(|| Failure::Lasting(wrong(url, "a redirect that leads nowhere")))?;
    if url.scheme() == "https" && next.scheme() == "http" {
        return Err(Failure::Lasting(wrong(url, "a redirect from https to http, which is not followed")));
    }
    Ok(Some(next))
}

/// Makes sure that the bytes to come are the ones that were asked for.
fn check_extent(response: Response, url: &Url, range: &Range<u64>, size: u64) -> Result<Body, Failure> {
    let refused = |reason: String| Failure::passing(wrong(url, &reason));
    let headers = response.headers();
    if let Some(encoding) = text(headers, CONTENT_ENCODING.as_str()).filter(|encoding| *encoding != "identity") {
        return Err(refused(format!("it is compressed ({encoding}) against our wish")));
    }
    let length = number(headers, CONTENT_LENGTH.as_str());
    if response.status() == StatusCode::PARTIAL_CONTENT {
        let expected = format!("bytes {}-{}/{size}", range.start, range.end - 1);
        let found = text(headers, CONTENT_RANGE.as_str()).unwrap_or_default();
        if found != expected {
            return Err(refused(format!("it is of {found:?} and not of {expected:?}")));
        }
        return Ok(Body::Asked(response));
    }
    if let Some(length) = length.filter(|length| *length != size) {
        return Err(refused(format!("it is of {length} bytes, and {size} were announced")));
    }
    Ok(if *range == (0..size) { Body::Asked(response) } else { Body::Whole })
}

fn wrong(url: &Url, reason: &str) -> Error {
    Error::Answer { url: shown(url), reason: reason.to_owned() }
}

/// Without the query, which may hold a signature, and a name or password, which are nobody's business.
pub(super) fn shown(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    // Refused only where there can be neither.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.as_str().trim_end_matches('/').to_owned()
}

/// An HTTP error's last cause, which says more than "error sending request".
pub(super) fn reason(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    if error.is_timeout() { format!("nothing arrived for too long ({cause})") } else { cause.to_string() }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn number(headers: &HeaderMap, name: &str) -> Option<u64> {
    text(headers, name)?.trim().parse().ok()
}
