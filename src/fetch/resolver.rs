//! Name resolution that hands out only addresses it has checked. What is connected to is what was looked at: a second
//! answer of the name server, which may differ, is never asked for.

use std::{io, net::SocketAddr, sync::Arc};

use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::guard::{Guard, Reach};

/// How names become addresses.
pub(super) type Lookup = Arc<dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> + Send + Sync>;

/// One of a name's addresses may not be reached.
#[derive(Debug, thiserror::Error)]
#[error("the name has an address that is not public")]
pub(super) struct Refused;

/// As the system does.
pub(super) fn of_this_machine() -> Lookup {
    Arc::new(|name| Box::pin(async move { Ok(tokio::net::lookup_host((name, 0)).await?.collect()) }))
}

pub(super) struct CheckedResolver {
    guard: Arc<Guard>,
    reach: Reach,
    lookup: Lookup,
}

impl CheckedResolver {
    pub(super) const fn new(guard: Arc<Guard>, reach: Reach, lookup: Lookup) -> Self {
        Self { guard, reach, lookup }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (guard, reach) = (Arc::clone(&self.guard), self.reach);
        let looking_up = (self.lookup)(name.as_str().to_owned());
        Box::pin(async move {
            let addresses = looking_up.await?;
            // A name with one private address among public ones is a trap, not a mistake.
            if !addresses.iter().all(|address| guard.admits(address.ip(), reach)) {
                return Err(Refused.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}
