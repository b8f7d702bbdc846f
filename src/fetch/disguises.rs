//! Tests of what an inner address can hide behind: a name that changes its mind, a scope, a number, another family.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use axum::{Router, http::header::CONNECTION, response::IntoResponse, routing::get};
use ipnet::IpNet;
use proptest::prelude::*;
use tokio::net::TcpListener;

use super::{
    guard::SPECIAL,
    tests::{Canary, settings},
    *,
};

#[tokio::test]
async fn a_name_that_changes_its_mind_is_looked_at_again() {
    // The first answer is an address that may be reached, every later one this machine.
    let redirect = async || ([(CONNECTION, "close"), (LOCATION, "/")], http::StatusCode::FOUND).into_response();
    let good = TcpListener::bind("127.0.0.2:0").await.expect("a port");
    let port = good.local_addr().expect("an address").port();
    let canary = Canary::listening_on(&format!("127.0.0.1:{port}")).await;
    tokio::spawn(async move { axum::serve(good, Router::new().route("/", get(redirect))).await });

    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let lookup: Lookup = Arc::new(move |_| {
        let host: [u8; 4] = if counter.fetch_add(1, Relaxed) == 0 { [127, 0, 0, 2] } else { [127, 0, 0, 1] };
        Box::pin(async move { io::Result::Ok(vec![SocketAddr::from((host, 0))]) })
    });
    let fetcher = Fetcher::with_lookup(settings(&["127.0.0.2/32"]), lookup).expect("a client");
    for _ in 0..2 {
        let error = fetcher.get(&format!("http://rebinding.example:{port}/"), 1000).await.expect_err("refused");
        assert!(matches!(error, Error::NotPublic), "{error}");
    }
    assert!(asked.load(Relaxed) >= 3, "each connection has its own look");
    assert_eq!(canary.connections(), 0);
}

#[tokio::test]
async fn names_of_inner_services_and_scoped_addresses_are_refused() {
    let canary = Canary::listening_on("127.0.0.1:0").await;
    let address = canary.address;
    let lookup: Lookup = Arc::new(move |_| Box::pin(async move { io::Result::Ok(vec![address]) }));
    let fetcher = Fetcher::with_lookup(settings(&[]), lookup).expect("a client");
    for host in [
        "metadata.google.internal",
        "METADATA.google.internal.",
        "metadata",
        "instance-data",
        "instance-data.ec2.internal",
        "kubernetes.default.svc",
        "host.docker.internal",
        "localhost",
        "localhost.",
        "localhost.localdomain",
        "127.0.0.1.nip.io",
        "xn--fsq.example",
        "ｌｏｃａｌｈｏｓｔ",
        "local\u{ad}host",
        "[fe80::1%25lo]",
        "[fe80::1%lo]",
        "[::1%25lo]",
        "[::ffff:127.0.0.1%25lo]",
        "[v1.fe80::1]",
        "127.0.0.1%00.example.com",
        "127.0.0.1\\@example.com",
        "example.com#@127.0.0.1",
    ] {
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{host}/latest/meta-data/");
            let error = fetcher.get(&url, 1000).await.expect_err(&url);
            assert!(matches!(error, Error::NotPublic | Error::Url(_)), "{url}: {error}");
        }
    }
    assert_eq!(canary.connections(), 0);
}

/// The ways an IPv4 address can be written in a URL.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let [a, b, c, d] = address.octets();
    let number = u32::from(address);
    let low = number & 0x00FF_FFFF;
    vec![
        address.to_string(),
        format!("{address}."),
        number.to_string(),
        format!("{number:#x}"),
        format!("{number:#X}"),
        format!("0{number:o}"),
        format!("{a}.{low}"),
        format!("{a}.{b}.{}", u16::from_be_bytes([c, d])),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("{a}。{b}．{c}｡{d}"),
        format!("[::ffff:{address}]"),
        format!("[::{address}]"),
        format!("[64:ff9b::{address}]"),
        format!("[64:ff9b:1::{address}]"),
        format!("[2002:{:x}:{:x}::1]", u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        format!("[fe80::5efe:{address}]"),
    ]
}

/// An address inside one of the special networks.
fn special() -> impl Strategy<Value = IpAddr> {
    (prop::sample::select(&SPECIAL[..]), any::<u128>()).prop_map(|(network, bits)| {
        match network.parse::<IpNet>().expect("a network") {
            IpNet::V4(network) => {
                let host = u32::from(network.hostmask()) & bits as u32;
                Ipv4Addr::from(u32::from(network.network()) | host).into()
            }
            IpNet::V6(network) => {
                let host = u128::from(network.hostmask()) & bits;
                Ipv6Addr::from(u128::from(network.network()) | host).into()
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn no_spelling_of_a_special_address_is_let_through(address in special()) {
        prop_assert!(!guard::is_public(address));
        let hosts = match address {
            IpAddr::V4(address) => spellings(address),
            IpAddr::V6(address) => vec![format!("[{address}]")],
        };
        let guard = Guard::new(Vec::new());
        for host in hosts {
            let url = format!("http://{host}/");
            // What is no URL is not fetched either.
            let refused = Url::parse(&url).map_or(true, |url| guard.check(&url).is_err());
            prop_assert!(refused, "{url}");
        }
    }

    #[test]
    fn whatever_is_not_global_unicast_is_refused(bits: u128) {
        let address = Ipv6Addr::from(bits);
        let is_global = bits >> 125 == 1;
        // An IPv4 address in the form of an IPv6 one is judged as what it is.
        prop_assume!(address.to_ipv4_mapped().is_none());
        prop_assert!(is_global || !guard::is_public(address.into()));
    }

    #[test]
    fn a_public_address_is_public_however_it_is_spelled(bits: u32) {
        let address = Ipv4Addr::from(bits);
        prop_assume!(guard::is_public(address.into()));
        let guard = Guard::new(Vec::new());
        for host in &spellings(address)[..10] {
            let url = Url::parse(&format!("http://{host}/")).expect("a URL");
            prop_assert!(guard.check(&url).is_ok(), "{url}");
        }
    }
}
