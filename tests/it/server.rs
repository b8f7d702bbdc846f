//! Sockets: slow clients, many clients, and a shutdown with clients on the line.

use std::{io::ErrorKind, time::Duration};

use fourstep::{artifacts::Artifacts, domain::PredictionId, http::Settings};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::PgPool;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
};
use uuid::Uuid;

use crate::support::{PATIENCE, TestApp, json};

const HEADER_TIMEOUT: Duration = Duration::from_millis(200);
const SEND_TIMEOUT: Duration = Duration::from_millis(200);

/// One request on a connection that stays open; returns when its answer begins.
async fn exchange(stream: &mut TcpStream) {
    stream.write_all(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = [0; 1024];
    let length = stream.read(&mut answer).await.unwrap();
    assert!(answer[..length].starts_with(b"HTTP/1.1 200"));
}

/// Returns when the server has closed the connection.
async fn closed(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut byte)).await.expect("the server closes");
    assert!(matches!(read, Ok(0) | Err(_)), "the server said something");
}

#[sqlx::test]
async fn a_client_that_dawdles_over_its_head_is_cut_off(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.header_timeout = HEADER_TIMEOUT).await;
    let mut stalls = TcpStream::connect(app.address()).await.unwrap();
    stalls.write_all(b"GET /livez HTTP/1.1\r\nHo").await.unwrap();
    closed(&mut stalls).await;

    // A byte now and then is not enough, on a connection that was well-behaved before, either.
    let mut trickles = TcpStream::connect(app.address()).await.unwrap();
    exchange(&mut trickles).await;
    let trickle = async {
        while trickles.write_all(b"a").await.is_ok() {
            tokio::time::sleep(HEADER_TIMEOUT / 10).await;
        }
    };
    tokio::time::timeout(PATIENCE, trickle).await.expect("the server closes");
}

#[sqlx::test]
async fn an_idle_connection_and_a_slow_answer_are_not_dawdling(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.header_timeout = HEADER_TIMEOUT).await;
    let mut idle = TcpStream::connect(app.address()).await.unwrap();
    exchange(&mut idle).await;
    // This is the time that must not matter.
    let held = app.get(&format!("/predictions/{}?wait=1", app.create_small().await)).send().await.unwrap();
    assert_eq!(held.status(), StatusCode::OK);
    exchange(&mut idle).await;
}

/// A client that takes in little at a time.
async fn connect_with_little_room(app: &TestApp) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(app.address().parse().unwrap()).await.unwrap()
}

/// Asks, without a key, for more than all buffers on the way together; returns when an answer begins.
async fn ask_for_much(stream: &mut TcpStream) {
    let requests = "GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n".repeat(200);
    stream.write_all(requests.as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 16]).await.unwrap();
}

#[sqlx::test]
async fn a_client_that_does_not_take_its_answer_makes_room_for_another(pool: PgPool) {
    let few = |settings: &mut Settings| (settings.max_connections, settings.send_timeout) = (1, SEND_TIMEOUT);
    let app = TestApp::start_with(pool, few).await;
    let mut greedy = connect_with_little_room(&app).await;
    ask_for_much(&mut greedy).await;
    let mut next = TcpStream::connect(app.address()).await.unwrap();
    tokio::time::timeout(PATIENCE, exchange(&mut next)).await.expect("the next client's turn");
    // What was not taken is not kept for it.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(PATIENCE, greedy.read_to_end(&mut rest)).await.expect("the server has closed");
    assert_eq!(read.unwrap_err().kind(), ErrorKind::ConnectionReset);
}

#[sqlx::test]
async fn a_client_that_waits_for_news_longer_than_an_answer_may_be_left_is_not_cut_off(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.send_timeout = SEND_TIMEOUT).await;
    let id = app.create_small().await;
    let mut events = app.get(&format!("/predictions/{id}/events")).send().await.unwrap();
    assert!(events.chunk().await.unwrap().is_some());
    // This is the time that must not matter: several times what nothing at all may take.
    let held = app.get(&format!("/predictions/{id}?wait=1")).send().await.unwrap();
    assert_eq!(held.status(), StatusCode::OK);
    app.run_one().await;
    let mut told = Vec::new();
    while let Some(chunk) = events.chunk().await.unwrap() {
        told.extend(chunk);
    }
    assert!(String::from_utf8_lossy(&told).contains("event: finished"));
}

#[sqlx::test]
async fn a_connection_too_many_waits_for_its_turn(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.max_connections = 1).await;
    let mut first = TcpStream::connect(app.address()).await.unwrap();
    exchange(&mut first).await;
    let mut second = TcpStream::connect(app.address()).await.unwrap();
    let mut turn = std::pin::pin!(exchange(&mut second));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut turn).await.is_err(), "answered out of turn");
    drop(first);
    tokio::time::timeout(PATIENCE, turn).await.expect("answered in turn");
}

#[sqlx::test]
async fn what_is_not_http_is_refused_and_the_server_lives_on(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let endless = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}", "x".repeat(1 << 20));
    let garbage: [&[u8]; 6] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nbroken header\r\n\r\n",
        b"POST /predictions HTTP/1.1\r\nHost: x\r\nContent-Length: many\r\n\r\n",
        endless.as_bytes(),
    ];
    for bytes in garbage {
        let mut stream = TcpStream::connect(app.address()).await.unwrap();
        // It may be closed before everything is said.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the server closes");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(app.get("/livez").send().await.unwrap().status(), StatusCode::OK);
}

#[sqlx::test]
async fn at_a_shutdown_held_requests_are_answered_and_idle_connections_closed(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut idle = TcpStream::connect(app.address()).await.unwrap();
    exchange(&mut idle).await;
    let mut silent = TcpStream::connect(app.address()).await.unwrap();
    let held = app.get(&format!("/predictions/{}?wait=60", app.create_small().await));
    let held = tokio::spawn(held.send());
    let created = app.post("/predictions?wait=60").json(&json!({}));
    let created = tokio::spawn(created.send());
    app.until_watched(2).await;

    let address = app.address().to_owned();
    app.shut_down().await;
    let held = held.await.unwrap().unwrap();
    assert_eq!(held.status(), StatusCode::OK);
    assert_eq!(json(held).await["status"], "starting");
    let created = created.await.unwrap().unwrap();
    assert_eq!(created.status(), StatusCode::ACCEPTED);
    assert_eq!(json(created).await["status"], "starting");
    closed(&mut idle).await;
    closed(&mut silent).await;
    assert!(TcpStream::connect(address).await.is_err());
}

#[sqlx::test]
async fn a_client_that_does_not_take_its_answer_does_not_hold_up_a_shutdown(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let key = format!("{}/out-0.png", Artifacts::attempt_folder(PredictionId::generate(), 1).unwrap());
    // More than all buffers on the way together.
    app.artifacts.put(&key, vec![0; 64 << 20]).await.unwrap();
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    stream.write_all(format!("GET /files/{key} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
    stream.read_exact(&mut [0; 16]).await.unwrap();
    app.shut_down().await;
}

#[sqlx::test]
async fn bytes_that_nobody_announced_are_refused_before_they_are_sent(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let url = format!("/v1/upload/{}/x", Uuid::new_v4());
    let head = format!("PUT {url} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 1024];
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await.expect("an answer without a body");
    assert!(answer[..read.unwrap()].starts_with(b"HTTP/1.1 404"));
}
