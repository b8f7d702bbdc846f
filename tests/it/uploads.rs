//! Uploads: sent on every face, used as the image of a prediction, kept for a while, and never more than an account may have.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use fourstep::{
    artifacts::Artifacts,
    domain::{ApiKey, Failure, FailureCode, Outcome, PredictionId},
    store::Room,
    worker::{expire_uploads, prune, sweep_files},
};
use image::{ImageFormat, Rgb, RgbImage};
use reqwest::{
    Method, Response, StatusCode,
    multipart::{Form, Part},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::support::{TestApp, UPLOADS, bucket_at, eventually, json};

fn encoded(width: u32, height: u32, format: ImageFormat) -> Vec<u8> {
    let mut file = std::io::Cursor::new(Vec::new());
    RgbImage::from_pixel(width, height, Rgb([255; 3])).write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn png() -> Vec<u8> {
    encoded(300, 200, ImageFormat::Png)
}

/// Bytes that no compression makes fewer.
fn large_png(seed: u32) -> Vec<u8> {
    let mut state = seed | 1;
    let image = RgbImage::from_fn(128, 128, |_, _| {
        Rgb(std::array::from_fn(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state as u8
        }))
    });
    let mut file = std::io::Cursor::new(Vec::new());
    image.write_to(&mut file, ImageFormat::Png).unwrap();
    file.into_inner()
}

impl TestApp {
    /// Uploads a file as it is on the native face.
    async fn upload(&self, bytes: Vec<u8>) -> Response {
        self.post("/files").header("Content-Type", "application/octet-stream").body(bytes).send().await.unwrap()
    }

    async fn uploaded(&self, bytes: Vec<u8>) -> Value {
        let response = self.upload(bytes).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        json(response).await
    }

    /// Creates a prediction from this image; the status and the answer.
    async fn start_from(&self, key: &str, image: &str) -> (StatusCode, Value) {
        let body = json!({"input": {"prompt": "x", "image": image}});
        let request = self.client.post(format!("{}/predictions", self.url)).bearer_auth(key).json(&body);
        let response = request.send().await.unwrap();
        (response.status(), json(response).await)
    }

    async fn counted_bytes(&self) -> i64 {
        sqlx::query_scalar("select coalesce(sum(bytes), 0)::bigint from uploaded_bytes")
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }

    async fn stored_files(&self) -> usize {
        use futures_util::TryStreamExt;
        let groups: Vec<Vec<String>> = self.artifacts.list_older(Duration::ZERO).try_collect().await.unwrap();
        groups.into_iter().flatten().count()
    }

    async fn stranger(&self) -> String {
        let key = ApiKey::generate().unwrap();
        self.store.create_key("stranger", "test", &key).await.unwrap();
        key.expose().to_owned()
    }
}

#[sqlx::test]
async fn an_upload_is_what_a_prediction_can_start_from(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let uploaded = app.uploaded(png()).await;
    assert_eq!((&uploaded["content_type"], &uploaded["size"]), (&"image/png".into(), &png().len().into()));
    let (id, url) = (uploaded["id"].as_str().unwrap(), uploaded["url"].as_str().unwrap());
    let read = app.client.get(url).send().await.unwrap();
    assert_eq!(read.headers()["content-type"], "image/png");
    assert_eq!(read.headers()["x-content-type-options"], "nosniff");
    assert_eq!(read.bytes().await.unwrap(), png());
    // By its id, by its URL, by any name this server may have, and as Replicate's clients name it.
    for image in [
        id.to_owned(),
        url.to_owned(),
        url.replace(&app.url, "https://images.example.com/api"),
        format!("{}/v1/files/{id}", app.url),
        format!("https://images.example.com/replicate/v1/files/{id}"),
    ] {
        let (status, created) = app.start_from(&app.key, &image).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{image}: {created}");
        assert_eq!(created["input"]["image"], image);
        let claim = app.claim().await;
        assert_eq!((claim.input.width, claim.input.height), (384, 256));
        // A copy of its own, so that the upload may go.
        assert_eq!(app.artifacts.load(claim.input.image.as_ref().unwrap()).await.unwrap(), png());
        app.finish(&claim).await;
    }
}

#[sqlx::test]
async fn an_output_is_what_another_prediction_can_start_from(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    app.run_one().await;
    let output = app.prediction(&id).await["output"][0].as_str().unwrap().to_owned();
    let (status, created) = app.start_from(&app.key, &output).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{created}");
    let (status, problem) = app.start_from(&app.stranger().await, &output).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].to_string().contains("not yours"), "{problem}");
}

#[sqlx::test]
async fn nobody_starts_from_somebody_elses_upload(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let uploaded = app.uploaded(png()).await;
    let (id, url) = (uploaded["id"].as_str().unwrap(), uploaded["url"].as_str().unwrap());
    let stranger = app.stranger().await;
    for image in [id, url, &url.replace("picture", "other"), &format!("https://127.0.0.1/v1/files/{id}")] {
        let (status, problem) = app.start_from(&stranger, image).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{image}");
        let reason = problem["invalid_fields"][0]["reason"].as_str().unwrap();
        assert!(reason.contains("not yours") || reason.contains("not public"), "{problem}");
    }
    for (method, path) in [
        (Method::DELETE, format!("/files/{id}")),
        (Method::GET, format!("/v1/files/{id}")),
        (Method::DELETE, format!("/v1/files/{id}")),
    ] {
        let request = app.client.request(method.clone(), format!("{}{path}", app.url)).bearer_auth(&stranger);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::NOT_FOUND, "{method} {path}");
    }
    assert_eq!(app.client.get(url).send().await.unwrap().status(), StatusCode::OK, "it is still there");
}

#[sqlx::test]
async fn a_form_brings_a_file_or_a_whole_prediction(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let file = || Part::bytes(png()).file_name("../../etc/photo.png");
    let form = Form::new().part("file", file()).text("metadata", r#"{"a": 1}"#);
    let response = app.post("/files").multipart(form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let uploaded = json(response).await;
    assert_eq!((&uploaded["name"], &uploaded["metadata"]), (&"photo.png".into(), &json!({"a": 1})));

    let form = Form::new()
        .part("image", file())
        .text("prompt", "a cat")
        .text("seed", "7")
        .text("input", r#"{"num_outputs": 2}"#);
    let response = app.post("/predictions").multipart(form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let claim = app.claim().await;
    assert_eq!((claim.input.prompt.as_str(), claim.input.num_outputs, claim.input.width), ("a cat", 2, 384));
    assert_eq!(claim.input.seeds().next(), Some(7));
    assert_eq!(app.artifacts.load(claim.input.image.as_ref().unwrap()).await.unwrap(), png());

    for (path, form, field) in [
        ("/predictions", Form::new().part("image", Part::bytes(b"no".to_vec()).file_name("a")), "input.image"),
        ("/predictions", Form::new().text("input", "{"), "input"),
        ("/files", Form::new().text("name", "x"), "file"),
        ("/files", Form::new().part("file", file()).text("other", "x"), "other"),
    ] {
        let response = app.post(path).multipart(form).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "{field}");
        assert_eq!(json(response).await["invalid_fields"][0]["field"], field);
    }
}

#[sqlx::test]
async fn replicates_files_have_all_that_its_clients_read(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let file = Part::bytes(encoded(8, 8, ImageFormat::Jpeg)).file_name("a.bin").mime_str("application/octet-stream");
    let metadata = Part::bytes(b"{}".to_vec()).file_name("blob").mime_str("application/json");
    let form = Form::new().part("content", file.unwrap()).part("metadata", metadata.unwrap());
    let response = app.post("/v1/files").multipart(form).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    let created = json(response).await;
    assert_eq!((&created["name"], &created["content_type"]), (&"a.bin".into(), &"image/jpeg".into()));
    let id = created["id"].as_str().unwrap();
    assert_eq!(created["urls"]["get"], format!("{}/v1/files/{id}", app.url));
    assert_eq!(created["checksums"]["sha256"].as_str().unwrap().len(), 64);
    assert_eq!(created["etag"], created["checksums"]["md5"]);

    assert_eq!(json(app.get(&format!("/v1/files/{id}")).send().await.unwrap()).await, created);
    assert_eq!(json(app.get("/v1/files").send().await.unwrap()).await["results"], json!([created]));
    let delete = async || app.request(Method::DELETE, &format!("/v1/files/{id}")).send().await.unwrap();
    assert_eq!(delete().await.status(), StatusCode::NO_CONTENT);
    let again = delete().await;
    assert_eq!((again.status(), &json(again).await["status"]), (StatusCode::NOT_FOUND, &404.into()));
    assert_eq!(app.stored_files().await, 0);
    assert_eq!(app.counted_bytes().await, 0);
}

#[sqlx::test]
async fn eachlabs_uploads_are_announced_and_then_sent(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let presign = async |content_type: &str| {
        json(app.post("/v1/upload/presign").json(&json!({"content_type": content_type})).send().await.unwrap()).await
    };
    let presigned = presign("image/png").await;
    assert_eq!(presigned["required_headers"], json!({}));
    let (sent_to, read_at) = (presigned["presigned_url"].as_str().unwrap(), presigned["public_url"].as_str().unwrap());
    let read = async || app.client.get(read_at).send().await.unwrap();
    let send = async |url: &str, bytes: Vec<u8>| {
        app.client.put(url).header("Content-Type", "image/png").body(bytes).send().await.unwrap()
    };
    assert_eq!(read().await.status(), StatusCode::NOT_FOUND);

    let wrong = send(sent_to, encoded(8, 8, ImageFormat::Jpeg)).await;
    assert_eq!(wrong.status(), StatusCode::BAD_REQUEST);
    assert!(json(wrong).await["error"].as_str().unwrap().contains("must be image/png, as was announced"));
    assert_eq!(send(&sent_to[..sent_to.len() - 1], png()).await.status(), StatusCode::NOT_FOUND, "another ticket");
    assert_eq!(send(sent_to, png()).await.status(), StatusCode::OK);
    assert_eq!(send(sent_to, png()).await.status(), StatusCode::NOT_FOUND, "its bytes never change");
    let live = read().await;
    assert_eq!((live.status(), &live.headers()["content-type"]), (StatusCode::OK, &"image/png".parse().unwrap()));

    let body = json!({"model": "sdxl-lightning-4step", "input": {"image_url": read_at}});
    let created = app.post("/v1/prediction").json(&body).send().await.unwrap();
    assert_eq!(created.status(), StatusCode::OK);

    let delete = async |id: &str| {
        let request = app.client.delete(format!("{}/v1/files/{id}", app.url)).header("X-API-Key", &app.key);
        request.send().await.unwrap()
    };
    let id = presigned["id"].as_str().unwrap();
    for _ in 0..2 {
        assert_eq!(delete(id).await.status(), StatusCode::NO_CONTENT);
    }
    assert_eq!(read().await.status(), StatusCode::NOT_FOUND);
    let unknown = delete("x").await;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    assert_eq!(json(unknown).await["error"], "invalid argument");

    for (body, error) in [
        (json!({}), "content_type is required"),
        (json!({"content_type": "text/html"}), "content_type must be one of image/png, image/jpeg, image/webp"),
    ] {
        let refused = app.post("/v1/upload/presign").json(&body).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
        assert_eq!(json(refused).await["error"], error);
    }
}

#[sqlx::test]
async fn what_is_no_picture_is_refused_at_once(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let enormous = {
        let mut png = encoded(8, 8, ImageFormat::Png);
        png[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        let checksum = crc32fast::hash(&png[12..29]);
        png[29..33].copy_from_slice(&checksum.to_be_bytes());
        png
    };
    for (bytes, words) in [
        (b"<svg onload=alert(1)/>".to_vec(), "PNG, JPEG or WebP"),
        (Vec::new(), "PNG, JPEG or WebP"),
        (png()[..40].to_vec(), "cannot be decoded"),
        (enormous, "not 60000x60000"),
        (bomb(), "cannot be decoded"),
    ] {
        let refused = app.upload(bytes).await;
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY, "{words}");
        let problem = json(refused).await;
        assert_eq!(problem["invalid_fields"][0]["field"], "body");
        assert!(problem["invalid_fields"][0]["reason"].as_str().unwrap().contains(words), "{problem}");
    }
    assert_eq!(app.stored_files().await, 0);
    let anonymous = app.client.post(format!("{}/files", app.url)).body(png()).send().await.unwrap();
    assert_eq!(anonymous.status(), StatusCode::UNAUTHORIZED);
}

/// A picture of 8 by 8 pixels with a color profile of a gigabyte, in a megabyte of file.
fn bomb() -> Vec<u8> {
    use flate2::{Compression, write::ZlibEncoder};
    let mut zeros = ZlibEncoder::new(Vec::new(), Compression::fast());
    std::io::copy(&mut std::io::Read::take(std::io::repeat(0), 64 << 20), &mut zeros).unwrap();
    let mut chunk = b"iCCPx\0\0".to_vec();
    chunk.extend(zeros.finish().unwrap());
    let png = encoded(8, 8, ImageFormat::Png);
    let mut bomb = png[..33].to_vec();
    bomb.extend(u32::try_from(chunk.len() - 4).unwrap().to_be_bytes());
    bomb.extend(&chunk);
    bomb.extend(crc32fast::hash(&chunk).to_be_bytes());
    // Its pixels are cut off, so that it is refused however its profile is read.
    bomb
}

#[sqlx::test]
async fn an_account_has_no_more_uploads_than_it_may(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let each = large_png(1).len() as u64;
    let fit = (UPLOADS.quota / each) as usize;
    let all = futures_util::future::join_all((0..10).map(|seed| app.upload(large_png(seed * 2 + 1)))).await;
    let statuses: Vec<_> = all.iter().map(Response::status).collect();
    let accepted = statuses.iter().filter(|status| **status == StatusCode::CREATED).count();
    assert!((1..=fit + 1).contains(&accepted), "{accepted} of {fit} fit: {statuses:?}");
    assert!(app.counted_bytes().await <= UPLOADS.quota.cast_signed());
    for refused in all.into_iter().filter(|response| response.status() != StatusCode::CREATED) {
        assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
        let problem = json(refused).await;
        assert_eq!(problem["code"], "storage_full");
        assert!(problem["detail"].as_str().unwrap().contains("100000 bytes"), "{problem}");
    }
    // What was refused has left nothing, and what is deleted makes room.
    assert_eq!(app.stored_files().await, accepted);
    let listed = json(app.get("/files").send().await.unwrap()).await;
    let listed = listed["results"].as_array().unwrap().clone();
    assert_eq!(listed.len(), accepted);
    let deleted = app.request(Method::DELETE, &format!("/files/{}", listed[0]["id"].as_str().unwrap()));
    assert_eq!(deleted.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    app.uploaded(large_png(99)).await;
}

#[sqlx::test]
async fn uploads_expire_and_those_never_sent_are_forgotten(pool: PgPool) {
    let app = TestApp::start(pool.clone()).await;
    let uploaded = app.uploaded(png()).await;
    app.post("/v1/upload/presign").json(&json!({"content_type": "image/png"})).send().await.unwrap();
    expire_uploads(&app.store, &app.artifacts).await;
    let rows = async || -> i64 { sqlx::query_scalar("select count(*) from uploads").fetch_one(&pool).await.unwrap() };
    assert_eq!(rows().await, 2, "not yet");

    sqlx::query("update uploads set expires_at = now() where stored_at is not null").execute(&pool).await.unwrap();
    let (status, _) = app.start_from(&app.key, uploaded["id"].as_str().unwrap()).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "what has expired is not used, swept or not");
    sqlx::query("update uploads set created_at = now() - interval '1 hour' where stored_at is null")
        .execute(&pool)
        .await
        .unwrap();
    expire_uploads(&app.store, &app.artifacts).await;
    assert_eq!((rows().await, app.stored_files().await, app.counted_bytes().await), (0, 0, 0));
    let gone = app.client.get(uploaded["url"].as_str().unwrap()).send().await.unwrap();
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[sqlx::test]
async fn files_without_a_row_are_swept_and_no_others(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let uploaded = app.uploaded(png()).await;
    // One that has ended, one that runs, one that waits, each with an image.
    let image = uploaded["id"].as_str().unwrap();
    for _ in 0..3 {
        assert_eq!(app.start_from(&app.key, image).await.0, StatusCode::ACCEPTED);
    }
    let ended = app.claim().await;
    app.finish(&ended).await;
    let running = app.claim().await;
    let folder = Artifacts::attempt_folder(running.id, running.attempt).unwrap();
    let put = async |key: String| app.artifacts.put(&key, b"bytes".to_vec()).await.unwrap();
    put(format!("{folder}/out-0.png")).await;
    let needed = app.stored_files().await;
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap(), 0);

    // An input stored just before a crash, an output of an attempt that was fenced, an upload whose row is gone.
    put(Artifacts::input_key(PredictionId::generate()).unwrap()).await;
    put(Artifacts::input_key(ended.id).unwrap()).await;
    put(format!("{}/out-0.png", Artifacts::attempt_folder(ended.id, 1).unwrap())).await;
    put(format!("uploads/{}/random/picture.png", PredictionId::generate())).await;
    // What is not ours is left alone.
    put("notes/readme.txt".to_owned()).await;
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::from_secs(3600)).await.unwrap(), 0, "they are young");
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap(), 4);
    assert_eq!(app.stored_files().await, needed);
    assert_eq!(app.artifacts.load("notes/readme.txt").await.unwrap(), b"bytes");

    app.finish(&running).await;
    prune(&app.store, &app.artifacts, Duration::ZERO).await;
    sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap();
    assert_eq!(app.stored_files().await, 2, "the upload, and the image of the one that waits");
}

#[sqlx::test]
async fn images_of_what_was_canceled_or_failed_are_swept_before_they_expire(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let uploaded = app.uploaded(png()).await;
    // The first sweep says whose the files are.
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap(), 0);
    let failure = || Failure { code: FailureCode::Internal, message: "no".to_owned() };
    let (mut kept, mut swept) = (Vec::new(), Vec::new());
    for (outcome, is_kept) in [
        (None, true),
        (Some(Outcome::Failed { failure: failure(), device_time: Duration::ZERO }), false),
        (Some(Outcome::Canceled { device_time: Duration::ZERO }), false),
    ] {
        assert_eq!(app.start_from(&app.key, uploaded["id"].as_str().unwrap()).await.0, StatusCode::ACCEPTED);
        let claim = app.claim().await;
        match outcome {
            Some(outcome) => app.end(&claim, outcome).await,
            None => app.finish(&claim).await,
        }
        if is_kept { &mut kept } else { &mut swept }.push(claim.input.image.unwrap());
    }
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap(), 0, "an end may still be lost");
    sqlx::query("update predictions set completed_at = completed_at - interval '2 minutes'")
        .execute(&app.pool)
        .await
        .unwrap();
    assert_eq!(sweep_files(&app.store, &app.artifacts, Duration::ZERO).await.unwrap(), 2);
    for (keys, is_there) in [(kept, true), (swept, false)] {
        for key in keys {
            assert_eq!(app.artifacts.load(&key).await.is_ok(), is_there, "{key}");
        }
    }
}

/// A request that waits for the bucket's answer.
struct Asked {
    /// Method and path.
    what: String,
    stream: TcpStream,
}

impl Asked {
    /// The next request.
    async fn of(bucket: &TcpListener) -> Self {
        let (mut stream, _) = bucket.accept().await.unwrap();
        let mut request = BufReader::new(&mut stream);
        let (mut what, mut length) = (String::new(), 0);
        request.read_line(&mut what).await.unwrap();
        loop {
            let mut header = String::new();
            request.read_line(&mut header).await.unwrap();
            match header.to_ascii_lowercase().split_once(':') {
                Some(("content-length", value)) => length = value.trim().parse().unwrap(),
                Some(_) => {}
                None => break,
            }
        }
        request.read_exact(&mut vec![0; length]).await.unwrap();
        Self { what, stream }
    }

    async fn answer(mut self, status: &str) {
        let body = "<DeleteResult/>";
        let head = format!("HTTP/1.1 {status}\r\nETag: \"1\"\r\nConnection: close\r\nContent-Length: {}", body.len());
        self.stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await.unwrap();
        self.stream.shutdown().await.unwrap();
    }
}

/// A server over a bucket that the test answers for, and a file that was announced there: its id, and where to send it.
async fn announced_over(pool: PgPool, bucket: &TcpListener) -> (TestApp, String, String) {
    let app = TestApp::start_with_bucket(pool, bucket_at(bucket)).await;
    let body = json!({"content_type": "image/png"});
    let presigned = json(app.post("/v1/upload/presign").json(&body).send().await.unwrap()).await;
    let [id, url] = ["id", "presigned_url"].map(|field| presigned[field].as_str().unwrap().to_owned());
    (app, id, url)
}

#[sqlx::test]
async fn of_two_who_send_one_upload_at_once_one_is_told_to_wait(pool: PgPool) {
    let bucket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (app, id, url) = announced_over(pool, &bucket).await;
    let send = |bytes: Vec<u8>| tokio::spawn(app.client.put(&url).body(bytes).send());
    let large = large_png(1);
    let first = send(large.clone());
    // The bucket tries it twice before it gives up.
    let asked = Asked::of(&bucket).await;
    assert!(asked.what.starts_with("PUT "), "{}", asked.what);

    // A few bytes are not to be counted in place of the many that come.
    let second = send(png()).await.unwrap().unwrap();
    assert_eq!((second.status(), &second.headers()["retry-after"]), (StatusCode::CONFLICT, &"1".parse().unwrap()));
    let error = json(second).await["error"].as_str().unwrap().to_owned();
    assert!(error.contains("being stored already"), "{error}");

    // What could not be stored may be sent again at once.
    asked.answer("403 Forbidden").await;
    Asked::of(&bucket).await.answer("403 Forbidden").await;
    assert_eq!(first.await.unwrap().unwrap().status(), StatusCode::INTERNAL_SERVER_ERROR);
    let again = send(large.clone());
    let asked = Asked::of(&bucket).await;
    assert_eq!(send(png()).await.unwrap().unwrap().status(), StatusCode::CONFLICT);
    asked.answer("200 OK").await;
    assert_eq!(again.await.unwrap().unwrap().status(), StatusCode::OK);
    assert_eq!(app.counted_bytes().await, large.len() as i64);
    let stored = json(app.get(&format!("/v1/files/{id}")).send().await.unwrap()).await;
    assert_eq!(stored["size"], large.len(), "{stored}");
    assert_eq!(send(png()).await.unwrap().unwrap().status(), StatusCode::NOT_FOUND, "its bytes never change");
}

/// A request whose body, of so many bytes, does not come to its end.
async fn begin(app: &TestApp, head: &str, length: usize, sent: usize) -> TcpStream {
    let mut stream = TcpStream::connect(app.address()).await.unwrap();
    let head = format!("{head}\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![b' '; sent]).await.unwrap();
    stream
}

#[sqlx::test]
async fn while_an_upload_is_sent_no_other_body_is_read_for_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"content_type": "image/png"});
    let presigned = json(app.post("/v1/upload/presign").json(&body).send().await.unwrap()).await;
    let url = presigned["presigned_url"].as_str().unwrap();
    let path = url.strip_prefix(&app.url).unwrap();
    let send = async || app.client.put(url).body(b"<svg/>".to_vec()).send().await.unwrap().status();
    let first = begin(&app, &format!("PUT {path} HTTP/1.1"), 1000, 10).await;
    eventually("the first has begun", async || send().await == StatusCode::CONFLICT).await;
    drop(first);
    eventually("it is the next one's turn", async || send().await == StatusCode::BAD_REQUEST).await;
    assert_eq!(app.client.put(url).body(png()).send().await.unwrap().status(), StatusCode::OK);
}

#[sqlx::test]
async fn bodies_under_way_have_no_more_together_than_they_may(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.bodies_limit = 500_000).await;
    let head =
        format!("POST /predictions HTTP/1.1\r\nContent-Type: application/json\r\nAuthorization: Bearer {}", app.key);
    let first = begin(&app, &head, 600_000, 450_000).await;
    let prompt = |length: usize| json!({"input": {"prompt": "a cat", "width": 256, "height": 256}, "filler": "x".repeat(length)});
    let create = async |length: usize| app.post("/predictions").json(&prompt(length)).send().await.unwrap();
    eventually("the first has come so far", async || create(100_000).await.status() == 503).await;
    let refused = create(100_000).await;
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(json(refused).await["code"], "overloaded");
    // What is small is taken all the same.
    app.create_small().await;
    drop(first);
    eventually("there is room again", async || create(100_000).await.status() != 503).await;
}

#[sqlx::test]
async fn who_waits_for_a_result_no_longer_counts_the_body(pool: PgPool) {
    let app = TestApp::start_with(pool, |settings| settings.bodies_limit = 150_000).await;
    let image = format!("data:image/png;base64,{}", BASE64_STANDARD.encode(large_png(1)));
    assert!((65_536..150_000).contains(&image.len()), "{}", image.len());
    let body = json!({"input": {"prompt": "a cat", "width": 256, "height": 256, "image": image}});
    let mut waiting = Vec::new();
    for number in 1..=5 {
        waiting.push(tokio::spawn(app.post("/predictions").header("Prefer", "wait=60").json(&body).send()));
        app.until_watched(number).await;
    }
    waiting.iter().for_each(|one| one.abort());
}

#[sqlx::test]
async fn who_crashed_while_storing_an_upload_keeps_it_from_nobody_for_long(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let body = json!({"content_type": "image/png"});
    let presigned = json(app.post("/v1/upload/presign").json(&body).send().await.unwrap()).await;
    let send = async || app.client.put(presigned["presigned_url"].as_str().unwrap()).body(png()).send().await.unwrap();
    let id = presigned["id"].as_str().unwrap().parse().unwrap();
    let Room::Made(lost) = app.store.make_room(id, 50_000, UPLOADS.quota).await.unwrap() else { panic!("no room") };
    assert_eq!(send().await.status(), StatusCode::CONFLICT);
    sqlx::query("update uploads set writing_since = now() - interval '6 minutes'").execute(&app.pool).await.unwrap();
    // It was not dead after all, but comes too late.
    let mine = app.store.make_room(id, 1, UPLOADS.quota).await.unwrap();
    assert!(matches!(mine, Room::Made(_)));
    app.store.give_up_writing(id, lost).await.unwrap();
    assert!(app.store.finish_upload(id, lost, [0; 32], [0; 16]).await.unwrap().is_none());
    assert_eq!(send().await.status(), StatusCode::CONFLICT);
    sqlx::query("update uploads set writing_since = now() - interval '6 minutes'").execute(&app.pool).await.unwrap();
    assert_eq!(send().await.status(), StatusCode::OK);
    assert_eq!(app.counted_bytes().await, png().len() as i64);
}

#[sqlx::test]
async fn an_upload_deleted_while_it_is_stored_leaves_no_file(pool: PgPool) {
    let bucket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (app, id, url) = announced_over(pool, &bucket).await;
    let sent = tokio::spawn(app.client.put(&url).body(png()).send());
    let put = Asked::of(&bucket).await;
    let delete = app.request(Method::DELETE, &format!("/files/{id}"));
    let deleted = tokio::spawn(delete.send());
    // There is nothing to delete yet.
    Asked::of(&bucket).await.answer("200 OK").await;
    assert_eq!(deleted.await.unwrap().unwrap().status(), StatusCode::NO_CONTENT);
    put.answer("200 OK").await;
    let deletes = Asked::of(&bucket).await;
    assert!(!deletes.what.starts_with("PUT "), "{}", deletes.what);
    deletes.answer("200 OK").await;
    assert_eq!(sent.await.unwrap().unwrap().status(), StatusCode::NOT_FOUND);
    assert_eq!(app.counted_bytes().await, 0);
}

#[sqlx::test]
async fn a_chore_is_taken_on_by_one(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let hour = Duration::from_secs(3600);
    let asked = futures_util::future::join_all((0..10).map(|_| app.store.take_chore("dishes", hour))).await;
    assert_eq!(asked.into_iter().filter(|taken| *taken.as_ref().unwrap()).count(), 1);
    assert!(!app.store.take_chore("dishes", hour).await.unwrap());
    assert!(app.store.take_chore("laundry", hour).await.unwrap());
}
