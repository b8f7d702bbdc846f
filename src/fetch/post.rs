//! Posting to what strangers name: a webhook's receiver. Guarded like a fetch, and never redirected.

use std::time::Duration;

use http::{HeaderMap, header::USER_AGENT};
use reqwest::Url;
use tokio::time::{Instant, timeout_at};

use super::{Error, Fetcher, Reach, is_refusal};

/// A receiver's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status, redirections included: they are not followed.
    pub status: u16,
    /// Its head.
    pub headers: HeaderMap,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

impl Fetcher {
    /// Checks a URL that will be posted to, as far as it can be without asking for the addresses of its name. Returns
    /// its host and port.
    pub fn check_receiver(&self, url: &str) -> Result<String, Error> {
        let url = parse(url)?;
        self.guard.check(&url)?;
        match (url.host_str(), url.port_or_known_default()) {
            (Some(host), Some(port)) => Ok(format!("{host}:{port}")),
            _ => Err(Error::Url("must name a host")),
        }
    }

    /// Posts `body` to `url` within `timeout` and reads at most `limit` bytes of the answer.
    pub async fn post(
        &self,
        url: &str,
        headers: HeaderMap,
        body: Vec<u8>,
        limit: usize,
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let url = parse(url)?;
        let client = match self.guard.check(&url)? {
            Reach::Public => &self.public,
            Reach::Own => &self.own,
        };
        let request = client.post(url).header(USER_AGENT, "fourstep").headers(headers).body(body);
        let deadline = Instant::now() + timeout;
        let answered = timeout_at(deadline, request.send()).await.map_err(|_| Error::TimedOut(timeout))?;
        let mut response = answered.map_err(|error| match is_refusal(&error) {
            true => Error::NotPublic,
            false => Error::Unreachable(error.without_url()),
        })?;
        let mut bytes = Vec::new();
        let reading = async {
            while let Ok(Some(chunk)) = response.chunk().await {
                bytes.extend_from_slice(&chunk);
                if bytes.len() >= limit {
                    break;
                }
            }
        };
        // The status is what counts: an answer that breaks off, or does not end, is an answer.
        let _ = timeout_at(deadline, reading).await;
        bytes.truncate(limit);
        Ok(Answer { status: response.status().as_u16(), headers: response.headers().clone(), body: bytes })
    }
}

fn parse(url: &str) -> Result<Url, Error> {
    Url::parse(url).map_err(|_| Error::Url("is not a URL"))
}

#[cfg(test)]
mod tests {
    use super::super::Settings;
    use super::*;

    #[test]
    fn a_receiver_is_a_host_and_a_port_that_may_be_reached() {
        let settings = Settings { allowed_networks: Vec::new(), timeout: Duration::from_secs(1) };
        let fetcher = Fetcher::new(settings).expect("a client");
        for (url, receiver) in [
            ("https://example.com/a?b", "example.com:443"),
            ("http://EXAMPLE.com", "example.com:80"),
            ("http://[2606:4700::1]/", "[2606:4700::1]:80"),
        ] {
            assert_eq!(fetcher.check_receiver(url).expect(url), receiver);
        }
        for url in
            ["http://example.com:22/", "http://127.0.0.1/", "ftp://example.com", "https://a@example.com/", "", "x"]
        {
            assert!(fetcher.check_receiver(url).is_err(), "{url}");
        }
    }
}
