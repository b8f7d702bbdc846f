//! The page at `/` as a browser gets it: whole, small, and shut off from everybody else.

use reqwest::{Response, StatusCode, header::ACCEPT};
use sqlx::PgPool;

use crate::support::{TestApp, json};

const BROWSER: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8";

async fn visit(app: &TestApp, path: &str) -> Response {
    app.client.get(format!("{}{path}", app.url)).header(ACCEPT, BROWSER).send().await.unwrap()
}

#[sqlx::test]
async fn a_browser_gets_the_page_and_a_program_where_everything_is(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let page = visit(&app, "/").await;
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    assert_eq!(page.headers()["vary"], "Accept, Accept-Encoding");
    assert!(page.text().await.unwrap().starts_with("<!doctype html>"));
    let program = app.client.get(&app.url).send().await.unwrap();
    assert_eq!(program.headers()["vary"], "Accept");
    assert_eq!(json(program).await["name"], "fourstep");
}

#[sqlx::test]
async fn every_file_the_page_names_is_there_for_ever_and_every_document_under_the_policy(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let page = visit(&app, "/").await.text().await.unwrap();
    let named: Vec<&str> = page.split('"').filter(|word| word.starts_with("playground/")).collect();
    assert!(named.len() > 10, "{named:?}");
    for path in named.iter().map(|path| format!("/{path}")).chain(["/".to_owned()]) {
        let file = visit(&app, &path).await;
        assert_eq!(file.status(), StatusCode::OK, "{path}");
        let headers = file.headers();
        // A script or a style obeys the policy of the page that loads it.
        if !path.ends_with(".js") && !path.ends_with(".css") {
            let policy = headers["content-security-policy"].to_str().unwrap();
            assert!(
                policy.starts_with("default-src 'none'; script-src 'self';") && !policy.contains("unsafe"),
                "{policy}"
            );
            assert_eq!(headers["referrer-policy"], "no-referrer");
        }
        assert_eq!(headers["x-content-type-options"], "nosniff");
        let caching = if path == "/" { "no-cache" } else { "public, max-age=31536000, immutable" };
        assert_eq!(headers["cache-control"], caching, "{path}");
        let etag = headers["etag"].to_str().unwrap();
        let again = app.client.get(format!("{}{path}", app.url)).header(ACCEPT, BROWSER).header("If-None-Match", etag);
        assert_eq!(again.send().await.unwrap().status(), StatusCode::NOT_MODIFIED, "{path}");
    }
}

#[sqlx::test]
async fn files_are_compressed_for_those_who_can_read_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let page = visit(&app, "/").await.text().await.unwrap();
    let style = page.split('"').find(|word| word.ends_with("/style.css")).unwrap();
    let get = || app.client.get(format!("{}/{style}", app.url));
    let plain = get().send().await.unwrap();
    assert!(plain.headers().get("content-encoding").is_none());
    let plain = plain.bytes().await.unwrap();
    let packed = get().header("Accept-Encoding", "br, gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    let packed = packed.bytes().await.unwrap();
    assert!(packed.len() < plain.len() / 2, "{} of {}", packed.len(), plain.len());
    let mut unpacked = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed[..]), &mut unpacked).unwrap();
    assert_eq!(unpacked, plain);
}

#[sqlx::test]
async fn another_versions_file_is_given_but_not_kept(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let file = visit(&app, "/playground/0123456789abcdef/main.js").await;
    assert_eq!((file.status(), &file.headers()["cache-control"]), (StatusCode::OK, &"no-cache".parse().unwrap()));
    for nothing in
        ["/playground/0123456789abcdef/nothing.js", "/playground/x/../../Cargo.toml", "/playground/x/..%2fmod.rs"]
    {
        assert_eq!(visit(&app, nothing).await.status(), StatusCode::NOT_FOUND, "{nothing}");
    }
}
