//! The address the server listens on: free, held by a fourstep, or taken.

use std::{io, net::SocketAddr, time::Duration};

use fourstep::config::Config;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::Finding;

const PATIENCE: Duration = Duration::from_secs(2);

pub(super) async fn port(config: &Config) -> Finding {
    let subject = "port";
    let address = config.server.listen;
    match TcpListener::bind(address).await {
        Ok(_) => Finding::good(subject, format!("{address} is free")),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            if is_ours(address).await {
                Finding::good(subject, format!("{address} is held by a fourstep that is running"))
            } else {
                Finding::bad(
                    subject,
                    format!("{address} is taken by another program"),
                    format!(
                        "Stop it (`ss -ltnp 'sport = :{}'` names it), or choose another port with --listen.",
                        address.port()
                    ),
                )
            }
        }
        Err(error) => Finding::bad(
            subject,
            format!("{address} cannot be listened on: {error}"),
            "Choose another address with --listen: 127.0.0.1 for this machine only, 0.0.0.0 for all its networks; ports below 1024 need rights.",
        ),
    }
}

/// Whether whoever listens there answers as a fourstep does.
async fn is_ours(address: SocketAddr) -> bool {
    let ask = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(b"GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = Vec::new();
        connection.take(4096).read_to_end(&mut answer).await?;
        io::Result::Ok(String::from_utf8_lossy(&answer).contains("fourstep"))
    };
    matches!(tokio::time::timeout(PATIENCE, ask).await, Ok(Ok(true)))
}
