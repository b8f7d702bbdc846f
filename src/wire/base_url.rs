//! Where this server is for its clients: the start of every absolute URL it hands out.

use std::{fmt, str::FromStr};

use http::{Uri, uri::Authority};

use super::mounts;

/// Scheme, host and perhaps a path, without a slash at the end: `https://example.com/fourstep`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl(String);

/// The text is not the URL of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be like https://example.com, without a user, a query or a fragment")]
pub struct MalformedBaseUrl;

impl BaseUrl {
    /// The server as a client addressed it: plain HTTP at the host its request named.
    pub fn from_host(host: &str) -> Result<Self, MalformedBaseUrl> {
        Ok(Self(format!("http://{}", authority(host)?)))
    }

    /// Where a file of the artifact store can be read.
    pub fn file(&self, key: &str) -> String {
        format!("{self}/files/{key}")
    }

    /// Whether the server is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }
}

/// Where a face is: the server, and the path under which a client reached the face. URLs in answers repeat that path, so
/// that a client stays where its configuration put it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaceUrl {
    /// The server, whose files are the same for every face.
    pub server: BaseUrl,
    /// Begins with a slash and does not end with one: `/replicate/v1`.
    pub mount: &'static str,
}

impl FaceUrl {
    /// A face by the path that was kept of it; at the shortest one if there is no such mount any more.
    pub fn at(server: BaseUrl, mount: &str) -> Self {
        let mount = mounts::ALL.into_iter().find(|known| *known == mount).unwrap_or(mounts::SHARED);
        Self { server, mount }
    }
}

impl fmt::Display for FaceUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}{}", self.server, self.mount)
    }
}

/// What `fourstep` is told of its public address.
impl FromStr for BaseUrl {
    type Err = MalformedBaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains('#') {
            return Err(MalformedBaseUrl);
        }
        let uri: Uri = text.parse().map_err(|_| MalformedBaseUrl)?;
        let scheme = uri.scheme_str().filter(|scheme| ["http", "https"].contains(scheme)).ok_or(MalformedBaseUrl)?;
        let authority = authority(uri.authority().map_or("", Authority::as_str))?;
        match uri.query() {
            Some(_) => Err(MalformedBaseUrl),
            None => Ok(Self(format!("{scheme}://{authority}{}", uri.path().trim_end_matches('/')))),
        }
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// A host and perhaps a port, and nothing that could be mistaken for more.
fn authority(text: &str) -> Result<Authority, MalformedBaseUrl> {
    let authority: Authority = text.parse().map_err(|_| MalformedBaseUrl)?;
    let after_host = text.strip_prefix(authority.host()).ok_or(MalformedBaseUrl)?;
    let is_port = after_host.is_empty() || authority.port_u16().is_some();
    if authority.host().is_empty() || !is_port { Err(MalformedBaseUrl) } else { Ok(authority) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_face_stays_where_its_client_reached_it() {
        let server: BaseUrl = "https://example.com".parse().expect("a URL");
        for mount in mounts::ALL {
            assert_eq!(FaceUrl::at(server.clone(), mount).mount, mount);
        }
        assert_eq!(FaceUrl::at(server, "/gone").mount, "/v1");
    }

    #[test]
    fn a_public_url_is_kept_without_its_last_slash() {
        for (given, kept) in [
            ("https://example.com", "https://example.com"),
            ("https://example.com/", "https://example.com"),
            ("http://[::1]:8000/four/step/", "http://[::1]:8000/four/step"),
        ] {
            assert_eq!(given.parse(), Ok(BaseUrl(kept.into())), "{given}");
        }
    }

    #[test]
    fn what_is_not_the_url_of_a_server_is_refused() {
        for text in ["", "/", "example.com", "ftp://a", "http://", "http://a@b", "http://a?b", "http://a/#b", "http:/a"]
        {
            assert_eq!(text.parse::<BaseUrl>(), Err(MalformedBaseUrl), "{text}");
        }
    }

    #[test]
    fn a_host_header_cannot_smuggle_anything_in() {
        assert_eq!(BaseUrl::from_host("127.0.0.1:8000"), Ok(BaseUrl("http://127.0.0.1:8000".into())));
        for host in [
            "",
            "user@host",
            "host/path",
            "host\"><script>",
            "a b",
            "host?x",
            "host#x",
            ":80",
            "host:port",
            "host:",
            "host:99999",
        ] {
            assert_eq!(BaseUrl::from_host(host), Err(MalformedBaseUrl), "{host}");
        }
    }
}
