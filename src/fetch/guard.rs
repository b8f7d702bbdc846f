//! Which URLs and addresses may be reached.
//!
//! Source of the networks: IANA's IPv4 and IPv6 Special-Purpose Address Registries (RFC 6890 and updates), and the IPv6
//! Global Unicast block.

use std::{net::IpAddr, sync::LazyLock};

use ipnet::IpNet;
use reqwest::Url;

use super::Error;

/// All of IPv6 that is given out to anybody; loopback, link-local, private and IPv4-carrying forms lie outside.
const GLOBAL_UNICAST: &str = "2000::/3";
/// What is special in either family. IPv6 transition addresses are because IPv4 ones hide in them.
pub(super) const SPECIAL: [&str; 20] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    // A public address in name only: from inside Azure it is the platform's own service (learn.microsoft.com,
    // "What is IP address 168.63.129.16?").
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
];

static NOT_PUBLIC: LazyLock<Vec<IpNet>> =
    LazyLock::new(|| SPECIAL.iter().map(|network| network.parse().expect("a network")).collect());
static PUBLIC_V6: LazyLock<IpNet> = LazyLock::new(|| GLOBAL_UNICAST.parse().expect("a network"));

/// Where a URL may lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// The public internet and the networks that are allowed.
    Public,
    /// Only the networks that are allowed.
    Own,
}

/// The rules.
#[derive(Debug)]
pub(super) struct Guard {
    allowed: Vec<IpNet>,
}

/// Whether an address belongs to the public internet.
pub(super) fn is_public(address: IpAddr) -> bool {
    let address = address.to_canonical();
    (address.is_ipv4() || PUBLIC_V6.contains(&address)) && !NOT_PUBLIC.iter().any(|network| network.contains(&address))
}

impl Guard {
    pub(super) const fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Checks all of a URL but the addresses of its name, which [`Guard::admits`] is asked about once they are known.
    pub(super) fn check(&self, url: &Url) -> Result<Reach, Error> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(Error::Url("must begin with https:// or http://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Error::Url("must not contain a user name or a password"));
        }
        let reach = match url.port_or_known_default() {
            Some(80 | 443) => Reach::Public,
            _ if self.allowed.is_empty() => return Err(Error::Url("must be on port 80 or 443")),
            _ => Reach::Own,
        };
        // An address needs no resolver, which would have checked it. The URL's parser has already understood the
        // decimal, octal and hexadecimal ways to write one.
        let address = url.host_str().and_then(|host| {
            let host = host.trim_start_matches('[').trim_end_matches(']');
            host.parse::<IpAddr>().ok()
        });
        match address {
            Some(address) if !self.admits(address, reach) => Err(Error::NotPublic),
            _ => Ok(reach),
        }
    }

    /// Whether a connection to this address may be opened.
    pub(super) fn admits(&self, address: IpAddr, reach: Reach) -> bool {
        let address = address.to_canonical();
        let is_own = self.allowed.iter().any(|network| network.contains(&address));
        is_own || reach == Reach::Public && is_public(address)
    }
}
