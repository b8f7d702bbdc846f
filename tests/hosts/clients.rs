//! Two accounts with a client of each server, whose webhooks one receiver is told.

use std::time::Duration;

use sqlx::PgPool;
use tokio::net::TcpListener;

use crate::{checker::History, load::another_key, network, process::Client, receiver::Receiver, site::Site};

/// For everything acknowledged to end, after the last fault.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Clients {
    /// Of the first account.
    pub(crate) firsts: [Client; 2],
    /// Of the second.
    pub(crate) seconds: [Client; 2],
    receiver: Receiver,
}

impl Clients {
    pub(crate) async fn of(site: &Site, pool: &PgPool) -> Self {
        let receiver = Receiver::on(TcpListener::bind((network::address(1), 0)).await.unwrap());
        let firsts = site.clients().map(|client| client.telling(&receiver.url()));
        let another = another_key(pool).await;
        let seconds = firsts.each_ref().map(|client| client.with_key(&another));
        Self { firsts, seconds, receiver }
    }

    /// Every law, when all is over.
    pub(crate) async fn check(&mut self, history: &mut History, pool: &PgPool, site: &Site) {
        history.check(pool, &site.artifacts(), PATIENCE).await;
        history.check_webhooks(pool, &mut self.receiver, PATIENCE).await;
        history.check_owners(pool, &[self.firsts[0].clone(), self.seconds[1].clone()]).await;
    }
}
