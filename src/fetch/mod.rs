//! Fetches what strangers name, the URL of an input image, and posts to the receivers of webhooks (`post`). Nobody reaches
//! the operator's own network through it.
//!
//! A URL is checked before each hop (`guard`), a name is resolved by a resolver that hands out only addresses it has
//! checked (`resolver`), so that the connection goes where the check looked, and redirects are followed here, each one
//! checked like the first. Size and time are capped.

#[cfg(test)]
mod disguises;
mod guard;
mod post;
mod resolver;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use http::{
    HeaderValue,
    header::{ACCEPT, LOCATION, USER_AGENT},
};
use ipnet::IpNet;
use reqwest::{Client, Response, Url, redirect};

pub use post::Answer;

use self::{
    guard::{Guard, Reach},
    resolver::{CheckedResolver, Lookup},
};

/// A redirect leads to the file; a fourth leads in circles.
const MOST_REDIRECTS: usize = 3;
/// The statuses that lead elsewhere. The others of their kind, as 304, have no file and no other place for it.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How far the fetcher may go.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Networks of one's own that may be reached, on any port. All others must be public and on port 80 or 443.
    pub allowed_networks: Vec<IpNet>,
    /// The longest a fetch may take, redirects and body included.
    pub timeout: Duration,
}

/// Why something was not fetched. The words are for whoever named the URL, and tell nothing of what is behind it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not a URL that is fetched from anywhere.
    #[error("{0}")]
    Url(&'static str),
    /// It leads to an address that is not public.
    #[error("leads to an address that is not public")]
    NotPublic,
    /// Its host could not be found or reached.
    #[error("could not be reached")]
    Unreachable(#[source] reqwest::Error),
    /// The host answered with something else than the file.
    #[error("was answered with HTTP status {0}")]
    Status(u16),
    /// Redirected too often.
    #[error("was redirected more than {MOST_REDIRECTS} times")]
    Redirects,
    /// Redirected, and not told where to.
    #[error("was redirected with HTTP status {0} and without a usable Location")]
    NoLocation(u16),
    /// The body has more bytes than allowed.
    #[error("is larger than {0} bytes")]
    TooLarge(usize),
    /// It took too long.
    #[error("took longer than {} seconds", .0.as_secs())]
    TimedOut(Duration),
    /// This process cannot make requests at all.
    #[error("the HTTP client could not be made")]
    Client(#[source] reqwest::Error),
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Fetcher {
    guard: Arc<Guard>,
    timeout: Duration,
    /// For the public internet.
    public: Client,
    /// For unusual ports, which only the operator's own networks may have.
    own: Client,
}

impl Fetcher {
    /// A fetcher that resolves names as this machine does.
    pub fn new(settings: Settings) -> Result<Self, Error> {
        Self::with_lookup(settings, resolver::of_this_machine())
    }

    fn with_lookup(settings: Settings, lookup: Lookup) -> Result<Self, Error> {
        let guard = Arc::new(Guard::new(settings.allowed_networks));
        let client = |reach| {
            let resolver = CheckedResolver::new(Arc::clone(&guard), reach, Arc::clone(&lookup));
            Client::builder()
                .dns_resolver(Arc::new(resolver))
                .redirect(redirect::Policy::none())
                // A proxy would resolve names itself, unchecked.
                .no_proxy()
                .connect_timeout(CONNECT_TIMEOUT)
                .build()
                .map_err(Error::Client)
        };
        let (public, own) = (client(Reach::Public)?, client(Reach::Own)?);
        Ok(Self { guard, timeout: settings.timeout, public, own })
    }

    /// The bytes at `url`, at most `limit`.
    pub async fn get(&self, url: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let fetching = async {
            let mut url = Url::parse(url).map_err(|_| Error::Url("is not a URL"))?;
            for _ in 0..=MOST_REDIRECTS {
                let response = self.request(&url).await?;
                let status = response.status();
                if REDIRECTS.contains(&status.as_u16()) {
                    let next = response.headers().get(LOCATION).and_then(|next| next.to_str().ok());
                    url = next.and_then(|next| url.join(next).ok()).ok_or(Error::NoLocation(status.as_u16()))?;
                    continue;
                }
                if !status.is_success() {
                    return Err(Error::Status(status.as_u16()));
                }
                return body(response, limit).await;
            }
            Err(Error::Redirects)
        };
        tokio::time::timeout(self.timeout, fetching).await.map_err(|_| Error::TimedOut(self.timeout))?
    }

    /// One hop.
    async fn request(&self, url: &Url) -> Result<Response, Error> {
        let client = match self.guard.check(url)? {
            Reach::Public => &self.public,
            Reach::Own => &self.own,
        };
        let request = client
            .get(url.clone())
            .header(USER_AGENT, HeaderValue::from_static("fourstep"))
            .header(ACCEPT, HeaderValue::from_static("image/*"));
        request.send().await.map_err(|error| match is_refusal(&error) {
            true => Error::NotPublic,
            false => Error::Unreachable(error.without_url()),
        })
    }
}

async fn body(mut response: Response, limit: usize) -> Result<Vec<u8>, Error> {
    // Said beforehand: nothing needs to be read. Not said, or wrong: counted below.
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(Error::TooLarge(limit));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| Error::Unreachable(error.without_url()))? {
        if bytes.len() + chunk.len() > limit {
            return Err(Error::TooLarge(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// Whether the resolver refused, which reqwest wraps into errors of its own.
fn is_refusal(error: &reqwest::Error) -> bool {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<resolver::Refused>() {
            return true;
        }
        cause = error.source();
    }
    false
}
