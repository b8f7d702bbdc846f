//! Keys: who gets in, and that one owner's predictions do not exist for another.

use fourstep::{domain::ApiKey, service, store};
use futures_util::{StreamExt, future::join_all, stream};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    openapi::{document, operations},
    receiver::Receiver,
    support::{TestApp, black_png, eventually, id, json, waiting_for_a_lock},
};

/// Every route that needs a key. `{id}` stands for a prediction's id.
pub(crate) const GUARDED: [(Method, &str); 10] = [
    (Method::POST, "/predictions"),
    (Method::GET, "/predictions"),
    (Method::GET, "/predictions/{id}"),
    (Method::GET, "/predictions/{id}?wait=60"),
    (Method::GET, "/predictions/{id}/events"),
    (Method::PUT, "/predictions/{id}"),
    (Method::DELETE, "/predictions/{id}"),
    (Method::POST, "/predictions/{id}/cancel"),
    (Method::GET, "/models"),
    (Method::GET, "/models/sdxl-lightning-4step"),
];

#[sqlx::test]
async fn a_key_is_taken_from_each_of_three_headers(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let headers = [
        ("Authorization", format!("Bearer {}", app.key)),
        ("Authorization", format!("Token {}", app.key)),
        ("X-API-Key", app.key.clone()),
    ];
    for (name, value) in headers {
        let response = app.client.get(format!("{}/models", app.url)).header(name, value).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{name}");
    }
}

#[sqlx::test]
async fn nobody_gets_in_without_a_valid_key(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let unknown = ApiKey::generate().unwrap();
    // Found by its public part, and yet not it.
    let mut forged = [2; 32];
    forged[0] = 3;
    let lookup = [9; 8];
    app.store.create_key("other", "real", &ApiKey::from_entropy(lookup, [2; 32])).await.unwrap();
    let forged = ApiKey::from_entropy(lookup, forged);
    let credentials = [
        None,
        Some("Bearer".to_owned()),
        Some("Bearer nonsense".to_owned()),
        Some(format!("Basic {}", app.key)),
        Some(format!("Bearer {}", unknown.expose())),
        Some(format!("Bearer {}", forged.expose())),
    ];
    for (method, path) in GUARDED {
        let url = format!("{}{}", app.url, path.replace("{id}", &Uuid::new_v4().to_string()));
        for credentials in &credentials {
            let mut request = app.client.request(method.clone(), &url).body("not even JSON");
            if let Some(credentials) = credentials {
                request = request.header("Authorization", credentials);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path} {credentials:?}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"fourstep\"");
            assert_eq!(json(response).await["code"], "unauthorized");
        }
    }
}

#[sqlx::test]
async fn a_foreign_prediction_does_not_exist(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let stranger = ApiKey::generate().unwrap();
    app.store.create_key("stranger", "test", &stranger).await.unwrap();
    for (method, path) in GUARDED.iter().filter(|(_, path)| path.contains("{id}")) {
        let url = format!("{}{}", app.url, path.replace("{id}", &id));
        let request = app.client.request(method.clone(), url).bearer_auth(stranger.expose()).json(&json!({}));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{method} {path}");
        assert!(!response.text().await.unwrap().contains("a cat"));
    }
    let url = format!("{}/predictions", app.url);
    let listed = json(app.client.get(url).bearer_auth(stranger.expose()).send().await.unwrap()).await;
    assert_eq!(listed["results"], json!([]));
    assert_eq!(app.prediction(&id).await["status"], "starting");
}

#[sqlx::test]
async fn what_is_open_needs_no_key(pool: PgPool) {
    let app = TestApp::start(pool).await;
    for path in ["/", "/livez", "/version"] {
        assert_eq!(
            app.client.get(format!("{}{path}", app.url)).send().await.unwrap().status(),
            StatusCode::OK,
            "{path}"
        );
    }
}

/// Every route of the vendors' faces that needs a key, on one of its mounts.
pub(crate) const VENDORS: [(Method, &str); 18] = [
    (Method::POST, "/v1/predictions"),
    (Method::GET, "/v1/predictions"),
    (Method::GET, "/replicate/v1/predictions/{id}"),
    (Method::POST, "/v1/v1/predictions/{id}/cancel"),
    (Method::GET, "/replicate/v1/models"),
    (Method::GET, "/v1/models/bytedance/sdxl-lightning-4step"),
    (Method::POST, "/v1/models/bytedance/sdxl-lightning-4step/predictions"),
    (Method::GET, "/v1/models/bytedance/sdxl-lightning-4step/versions"),
    (Method::GET, "/v1/models/bytedance/sdxl-lightning-4step/versions/0"),
    (Method::GET, "/v1/collections"),
    (Method::GET, "/v1/hardware"),
    (Method::GET, "/v1/account"),
    (Method::POST, "/v1/files"),
    (Method::POST, "/v1/prediction/"),
    (Method::POST, "/eachlabs/v1/prediction/run"),
    (Method::GET, "/v1/prediction/{id}"),
    (Method::POST, "/eachlabs/v1/prediction/{id}/cancel"),
    (Method::GET, "/v1/executions"),
];

#[sqlx::test]
async fn the_vendors_faces_let_in_the_same_and_show_them_the_same(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let id = app.create_small().await;
    let stranger = ApiKey::generate().unwrap();
    app.store.create_key("stranger", "test", &stranger).await.unwrap();
    for (method, path) in VENDORS {
        let url = format!("{}{}", app.url, path.replace("{id}", &id));
        let nobody = app.client.request(method.clone(), &url).body("not even JSON").send().await.unwrap();
        assert_eq!(nobody.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
        assert_eq!(nobody.headers()["www-authenticate"], "Bearer realm=\"fourstep\"");
        if path.contains("{id}") {
            // What was made on one face is there on every other, for its owner.
            let request = || app.client.request(method.clone(), &url);
            assert_eq!(request().bearer_auth(stranger.expose()).send().await.unwrap().status(), 404, "{method} {path}");
            assert_eq!(request().bearer_auth(&app.key).send().await.unwrap().status(), 200, "{method} {path}");
        } else if method == Method::GET {
            let listed = app.client.get(&url).bearer_auth(stranger.expose()).send().await.unwrap();
            assert!(!listed.text().await.unwrap().contains(&id), "{path}");
        }
    }
}

/// By what the API says of itself, so that no route is forgotten.
#[sqlx::test]
async fn what_is_somebody_elses_is_not_found_on_any_route_there_is(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let receiver = Receiver::start().await;
    let prediction = app.create_hooked(&receiver).await;
    let upload = app.post("/files").header("Content-Type", "application/octet-stream").body(black_png(256, 256));
    let upload = json(upload.send().await.unwrap()).await;
    let stranger = ApiKey::generate().unwrap();
    app.store.create_key("stranger", "test", &stranger).await.unwrap();
    let mut asked = 0;
    let document = document();
    for operation in operations(&document) {
        let is_keyed = operation.described["security"].as_array().is_some_and(|security| !security.is_empty());
        let is_owned = is_keyed && !operation.path.contains("/models/") && !operation.path.starts_with("/admin/");
        let also = document["paths"][&operation.path]["x-also-at"].as_array().into_iter().flatten();
        let mounts = also.map(|path| path.as_str().unwrap()).chain([operation.path.as_str()]);
        for path in mounts.filter(|path| is_owned && path.contains('{')) {
            let id = if path.contains("/files/") { id(&upload) } else { prediction.clone() };
            let (before, rest) = path.split_once('{').unwrap();
            let url = format!("{}{before}{id}{}", app.url, rest.split_once('}').unwrap().1);
            let method: Method = operation.method.to_uppercase().parse().unwrap();
            let request = app.client.request(method.clone(), url).bearer_auth(stranger.expose()).json(&json!({}));
            let response = request.send().await.unwrap();
            // Eachlabs says that a file is deleted of whatever is not there.
            let is_deleted = method == Method::DELETE && path.starts_with("/eachlabs/");
            let expected = if is_deleted { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND };
            assert_eq!(response.status(), expected, "{method} {path}");
            assert!(!response.text().await.unwrap().contains("a cat"), "{method} {path}");
            asked += 1;
        }
    }
    assert!(asked >= 14, "{asked} routes");
    assert_eq!(app.prediction(&prediction).await["status"], "starting", "and nothing has happened to it");
    assert_eq!(app.client.get(upload["url"].as_str().unwrap()).send().await.unwrap().status(), StatusCode::OK);
}

/// Made up so that only the database can tell.
fn made_up(number: u64) -> ApiKey {
    ApiKey::from_entropy(number.to_be_bytes(), [7; 32])
}

#[sqlx::test]
async fn keys_that_were_made_up_leave_room_for_those_that_are_known(pool: PgPool) {
    /// More than are remembered of any kind.
    const MADE_UP: u64 = 11_000;
    let app = TestApp::start(pool).await;
    let refused = stream::iter(0..MADE_UP).map(|number| {
        let service = app.service.clone();
        async move { service.authenticate(made_up(number).expose()).await }
    });
    let refused =
        refused.buffer_unordered(256).all(async |refused| matches!(refused, Err(service::Error::Unauthorized)));
    assert!(refused.await);
    app.service.authenticate(&app.key).await.unwrap();
    // Nothing is left to ask.
    app.pool.close().await;
    assert_eq!(app.service.authenticate(&app.key).await.unwrap(), app.caller);
}

#[sqlx::test]
async fn keys_that_were_made_up_take_one_connection_however_many_there_are(pool: PgPool) {
    const MADE_UP: u64 = 500;
    let app = TestApp::start(pool).await;
    let new = ApiKey::generate().unwrap();
    let made = app.store.create_key("new", "new", &new).await.unwrap();
    app.service.authenticate(&app.key).await.unwrap();
    let mut lock = app.pool.begin().await.unwrap();
    sqlx::query("lock table api_keys in access exclusive mode").execute(&mut *lock).await.unwrap();
    let ask = |key: ApiKey| {
        let service = app.service.clone();
        tokio::spawn(async move { service.authenticate(key.expose()).await })
    };
    let refused: Vec<_> = (0..MADE_UP).map(|number| ask(made_up(number))).collect();
    let mut asking = 0_i64;
    eventually("somebody asks", async || {
        asking = waiting_for_a_lock(&mut lock, "%api_keys%").await;
        asking > 0
    })
    .await;
    assert_eq!(asking, 1, "of {MADE_UP} who have come");
    // Who is known goes on meanwhile, and who is new waits for no more than the others' statement.
    assert_eq!(app.get("/predictions").send().await.unwrap().status(), StatusCode::OK);
    let new = ask(new);
    lock.commit().await.unwrap();
    assert_eq!(new.await.unwrap().unwrap(), made);
    for refused in refused {
        assert!(matches!(refused.await.unwrap(), Err(service::Error::Unauthorized)));
    }
}

#[sqlx::test]
async fn a_key_that_the_database_cannot_even_look_for_takes_no_other_with_it(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let known = ApiKey::parse(&app.key).unwrap();
    // No text of Postgres' can hold the third.
    let finds = [known.lookup(), "unknown", "\0", known.lookup()].map(|lookup| app.store.find_key(lookup));
    let [first, unknown, refused, last] = join_all(finds).await.try_into().unwrap();
    assert!(first.unwrap().is_some() && unknown.unwrap().is_none() && last.unwrap().is_some());
    assert!(matches!(refused, Err(store::Error::Database(_))), "{refused:?}");
}
