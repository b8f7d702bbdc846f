//! Files in a bucket, on a real S3 server that checks signatures: the whole way of a picture, what is said of a wrong
//! key, and an outage in the middle.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

use crate::{
    here,
    installed::javascript,
    process::{Program, TestFolder, url_of},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// The server's process. Gone when dropped.
struct S3 {
    process: Child,
    url: String,
    folder: PathBuf,
}

impl S3 {
    fn start(folder: &Path, port: u16) -> Self {
        let mut command = javascript(&here("s3_server.js"));
        command.arg(folder).arg(port.to_string()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut url).unwrap();
        assert!(url.starts_with("http://"), "{url:?}");
        Self { process, url: url.trim().to_owned(), folder: folder.to_owned() }
    }

    fn port(&self) -> u16 {
        self.url.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// What a program needs to know of it.
    fn variables<'a>(&'a self, secret: &'a str, step_ms: &'a str) -> [(&'a str, &'a str); 6] {
        [
            ("FOURSTEP_ARTIFACTS__URL", "s3://pictures/some/prefix"),
            ("AWS_ENDPOINT_URL_S3", &self.url),
            ("AWS_ACCESS_KEY_ID", "S3RVER"),
            ("AWS_SECRET_ACCESS_KEY", secret),
            ("FOURSTEP_MOCK_STEP_MS", step_ms),
            ("NO_PROXY", "127.0.0.1"),
        ]
    }

    /// How many files of predictions and uploads there are.
    fn objects(&self) -> usize {
        fn below(folder: &Path) -> usize {
            let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
            entries
                .map(|entry| match entry.path() {
                    path if path.is_dir() => below(&path),
                    path if path.ends_with("site-id._S3rver_object") => 0,
                    path => usize::from(path.to_str().unwrap().ends_with("._S3rver_object")),
                })
                .sum()
        }
        below(&self.folder)
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A fourstep that keeps its files there.
struct Server {
    program: Program,
    folder: TestFolder,
    client: Client,
}

impl Server {
    fn start(pool: &PgPool, s3: &S3, step_ms: &str) -> Self {
        let folder = TestFolder::new();
        let log = folder.0.join("log");
        let program = Program::serve_logging(&folder.0, &url_of(pool), &s3.variables("S3RVER", step_ms), &log);
        Self { program, folder, client: Client::new() }
    }

    fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        let key = fs::read_to_string(self.folder.0.join("key")).unwrap();
        self.client.request(method, format!("{}{path}", self.program.url)).bearer_auth(key.trim())
    }

    async fn create(&self, image: Option<&str>) -> Value {
        let body = json!({"input": {"prompt": "x", "width": 256, "height": 256, "image": image}});
        let response = self.request(reqwest::Method::POST, "/predictions").json(&body).send().await.unwrap();
        let status = response.status();
        let created: Value = response.json().await.unwrap();
        assert_eq!(status, StatusCode::ACCEPTED, "{created}");
        created
    }

    async fn ended(&self, created: &Value) -> Value {
        let path = format!("/predictions/{}?wait=60", created["id"].as_str().unwrap());
        self.request(reqwest::Method::GET, &path).send().await.unwrap().json().await.unwrap()
    }

    /// What it has said so far.
    fn log(&self) -> String {
        fs::read_to_string(self.folder.0.join("log")).unwrap()
    }

    async fn until_logged(&self, words: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < deadline, "in vain: {words}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[sqlx::test]
async fn pictures_go_through_a_bucket(pool: PgPool) {
    let bucket = TestFolder::new();
    let s3 = S3::start(&bucket.0, 0);
    let server = Server::start(&pool, &s3, "1");
    let drawn = server.ended(&server.create(None).await).await;
    assert_eq!(drawn["status"], "succeeded", "{drawn}");
    let url = drawn["output"][0].as_str().unwrap();
    assert!(url.starts_with(&server.program.url), "clients never see the bucket: {url}");

    let whole = server.client.get(url).send().await.unwrap();
    assert_eq!((whole.status(), &whole.headers()["content-type"]), (StatusCode::OK, &"image/png".parse().unwrap()));
    let (etag, bytes) = (whole.headers()["etag"].clone(), whole.bytes().await.unwrap());
    let head = server.client.head(url).send().await.unwrap();
    assert_eq!(head.headers()["content-length"], bytes.len().to_string());
    let part = server.client.get(url).header("Range", "bytes=1-3").send().await.unwrap();
    assert_eq!((part.status(), part.bytes().await.unwrap().as_ref()), (StatusCode::PARTIAL_CONTENT, &b"PNG"[..]));
    let known = server.client.get(url).header("If-None-Match", etag).send().await.unwrap();
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    let missing = server.client.get(format!("{url}x")).send().await.unwrap();
    assert_eq!(missing.status(), StatusCode::NOT_FOUND);

    // Sent ahead, started from, deleted.
    let sent = server.request(reqwest::Method::POST, "/files").body(bytes.clone()).send().await.unwrap();
    let sent: Value = sent.json().await.unwrap();
    let from_upload = server.ended(&server.create(sent["url"].as_str()).await).await;
    assert_eq!(from_upload["status"], "succeeded", "{from_upload}");
    assert_eq!(s3.objects(), 4, "two outputs, an upload, and the copy of it that was started from");
    let deleted = server.request(reqwest::Method::DELETE, &format!("/files/{}", sent["id"].as_str().unwrap()));
    assert_eq!(deleted.send().await.unwrap().status(), StatusCode::NO_CONTENT);
    assert_eq!(s3.objects(), 3);

    let is_old = "update predictions set completed_at = now() - interval '1 year', started_at = now() - interval '1 year', \
                  created_at = now() - interval '1 year'";
    sqlx::query(is_old).execute(&pool).await.unwrap();
    let bucket = fourstep::artifacts::Artifacts::in_bucket(&fourstep::artifacts::Bucket {
        name: "pictures".to_owned(),
        prefix: "some/prefix".to_owned(),
        endpoint: Some(s3.url.clone()),
        region: "us-east-1".to_owned(),
        credentials: Some(fourstep::artifacts::Credentials {
            id: "S3RVER".to_owned(),
            secret: "S3RVER".to_owned(),
            token: None,
        }),
    });
    let store = fourstep::store::Store::with_pool(pool.clone());
    fourstep::worker::prune(&store, &bucket.unwrap(), Duration::from_secs(3600)).await;
    assert_eq!(s3.objects(), 0, "retention");
    assert_eq!(server.client.get(url).send().await.unwrap().status(), StatusCode::NOT_FOUND);
    let removed = server.ended(&drawn).await;
    assert_eq!((&removed["data_removed"], &removed["output"]), (&true.into(), &Value::Null));
}

#[sqlx::test]
async fn a_wrong_key_is_told_at_the_start_and_by_doctor(pool: PgPool) {
    let (bucket, folder) = (TestFolder::new(), TestFolder::new());
    let s3 = S3::start(&bucket.0, 0);
    let run = |subcommand: &str, secret: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fourstep"));
        command.arg(subcommand).arg("--data-dir").arg(&folder.0).args(["--listen", "127.0.0.1:0"]);
        command.env("DATABASE_URL", url_of(&pool)).envs(s3.variables(secret, "1")).output().unwrap()
    };
    let serve = run("serve", "wrong");
    let said = String::from_utf8(serve.stderr).unwrap();
    assert!(!serve.status.success() && said.contains("s3://pictures/some/prefix cannot be used"), "{said}");
    assert!(said.contains("SignatureDoesNotMatch"), "{said}");

    let doctor = String::from_utf8(run("doctor", "wrong").stdout).unwrap();
    assert!(doctor.contains("BAD  files") && doctor.contains("artifacts.secret_access_key"), "{doctor}");
    let doctor = String::from_utf8(run("doctor", "S3RVER").stdout).unwrap();
    assert!(doctor.contains("ok   files      in s3://pictures/some/prefix"), "{doctor}");

    let mut shown = Command::new(env!("CARGO_BIN_EXE_fourstep"));
    shown.args(["config", "show", "--data-dir"]).arg(&folder.0).envs(s3.variables("not-to-be-seen", "1"));
    let shown = String::from_utf8(shown.output().unwrap().stdout).unwrap();
    assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("not-to-be-seen"), "{shown}");
}

#[sqlx::test]
async fn an_outage_is_waited_for_and_said(pool: PgPool) {
    let bucket = TestFolder::new();
    let s3 = S3::start(&bucket.0, 0);
    // Slow enough that a prediction still waits for the device when the store goes away.
    let server = Server::start(&pool, &s3, "250");
    let drawn = server.ended(&server.create(None).await).await;
    let url = drawn["output"][0].as_str().unwrap().to_owned();
    let picture = server.client.get(&url).send().await.unwrap().bytes().await.unwrap();
    // One to be stored when the store is away, and one to be started from a picture that is there.
    let waiting = [server.create(None).await, server.create(Some(&url)).await];
    let port = s3.port();
    drop(s3);

    let away = server.client.get(&url).send().await.unwrap();
    assert_eq!(away.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(away.headers()["retry-after"], "1");
    let upload = async || server.request(reqwest::Method::POST, "/files").body(picture.clone()).send().await.unwrap();
    assert_eq!(upload().await.status(), StatusCode::SERVICE_UNAVAILABLE);
    let body = json!({"input": {"prompt": "x", "image": url}});
    let refused = server.request(reqwest::Method::POST, "/predictions").json(&body).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    server.until_logged("The artifact store is away; a prediction waits for it").await;

    let _s3 = S3::start(&bucket.0, port);
    for waiting in waiting {
        let ended = server.ended(&waiting).await;
        assert_eq!(ended["status"], "succeeded", "{ended}");
        let read = server.client.get(ended["output"][0].as_str().unwrap()).send().await.unwrap();
        assert_eq!(read.status(), StatusCode::OK);
    }
    assert_eq!(server.client.get(&url).send().await.unwrap().bytes().await.unwrap(), picture);
    assert_eq!(upload().await.status(), StatusCode::CREATED);
    let uploads: i64 = sqlx::query_scalar("select count(*) from uploads").fetch_one(&pool).await.unwrap();
    assert_eq!(uploads, 1, "the one that was refused has left nothing");
}
