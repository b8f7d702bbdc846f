//! HTTP: axum, and nothing that is not about it.
//!
//! This page is the whole URL table. A handler translates and no more: it extracts a request, has `wire` read it, asks
//! the service, and has `wire` write the answer. Errors leave through `error`, every request passes `observe`.

mod admin;
mod body;
mod caller;
mod conditional;
mod connection;
mod eachlabs;
mod error;
mod estimate;
mod events;
mod extract;
mod face;
mod files;
mod form;
mod hangup;
mod idempotency;
mod metrics;
mod native;
mod observe;
mod openai;
mod openapi;
mod playground;
mod probes;
mod query;
mod replicate;
mod server;
mod summary;
mod timing;
mod trace;
mod uploads;
mod usage;
mod wanted;
mod webhooks;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Extension, Router,
    http::{
        HeaderValue,
        header::{AUTHORIZATION, X_CONTENT_TYPE_OPTIONS},
    },
    middleware,
    routing::{delete, get, patch, post, put},
};
use tower::ServiceBuilder;
use tower_http::{
    catch_panic::CatchPanicLayer, sensitive_headers::SetSensitiveRequestHeadersLayer,
    set_header::SetResponseHeaderLayer,
};

use crate::{
    domain::{Model, Prediction},
    service::PredictionService,
    wire::{BaseUrl, mounts},
};
use body::Bodies;
use caller::X_API_KEY;
use error::Error;
use extract::Mount;
use playground::site::File;

pub use metrics::serve_metrics;
pub use openapi::document as openapi;
pub use server::{listen, serve};

/// How the API presents itself and what it puts up with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where clients find this server. Without it URLs repeat the host the client asked for, over plain HTTP.
    pub public_url: Option<BaseUrl>,
    /// Connections at once. Further ones wait in the kernel until one ends, rather than being turned away.
    pub max_connections: usize,
    /// How long a request's head may take from its first byte.
    pub header_timeout: Duration,
    /// How long an answer may find no room on its way to a client that does not take it.
    pub send_timeout: Duration,
    /// How long a stream of events lasts, at least.
    pub event_stream: Duration,
    /// How long a client of OpenAI's is held for its pictures.
    pub openai_hold: Duration,
    /// Longest request body, bytes.
    pub body_limit: usize,
    /// The same of all that are under way together, but for short ones.
    pub bodies_limit: usize,
}

/// What every handler has at hand.
#[derive(Clone, Debug)]
struct Api {
    service: PredictionService,
    settings: Arc<Settings>,
    bodies: Bodies,
    /// What the API says of itself, once it was asked for.
    openapi: Arc<OnceLock<File>>,
}

/// The model that runs a prediction; `None` if the catalog has it no longer.
fn model_of<'a>(api: &'a Api, prediction: &Prediction) -> Option<&'a Model> {
    api.service.catalog().by_slug(&prediction.model)
}

fn router(service: PredictionService, settings: Settings) -> Router {
    let bodies = Bodies::new(settings.bodies_limit);
    around(routes()).with_state(Api { service, settings: Arc::new(settings), bodies, openapi: Arc::default() })
}

/// Every URL of the server.
fn routes() -> Router<Api> {
    let native = Router::new()
        .route("/predictions", get(native::list).post(native::create))
        .route("/predictions/{id}", get(native::get).put(native::create_with_id).delete(native::delete))
        .route("/predictions/{id}/cancel", post(native::cancel))
        .route("/predictions/{id}/events", get(events::follow))
        .route("/estimate", post(estimate::estimate))
        .route("/models", get(native::list_models))
        .route("/models/{*name}", get(native::get_model));
    let native = native
        .route("/usage", get(usage::get))
        .route("/metrics", get(metrics::get_with_key))
        .route("/files", get(uploads::list).post(uploads::create))
        .merge(webhook_routes())
        .merge(admin_routes());
    let replicate = Router::new()
        .route("/predictions", get(replicate::list).post(replicate::create))
        .route("/predictions/{id}", get(replicate::get))
        .route("/predictions/{id}/cancel", post(replicate::cancel))
        .route("/models/{owner}/{name}", get(replicate::get_model))
        .route("/models/{owner}/{name}/predictions", post(replicate::create_of_model))
        .route("/models/{owner}/{name}/versions", get(replicate::list_versions))
        .route("/models/{owner}/{name}/versions/{id}", get(replicate::get_version))
        .route("/collections", get(replicate::list_collections))
        .route("/hardware", get(replicate::list_hardware))
        .route("/account", get(replicate::get_account))
        .route("/files", get(uploads::list_of_replicate).post(uploads::create_of_replicate))
        .route("/files/{id}", get(uploads::get_of_replicate))
        .route("/files/{id}/download", get(uploads::download_of_replicate))
        .route("/webhooks/default/secret", get(webhooks::get_default_secret));
    let eachlabs = Router::new()
        .route("/prediction", post(eachlabs::create))
        .route("/prediction/", post(eachlabs::create))
        .route("/prediction/run", post(eachlabs::run))
        .route("/prediction/{id}", get(eachlabs::get))
        .route("/prediction/{id}/cancel", post(eachlabs::cancel))
        .route("/executions", get(eachlabs::list))
        .route("/webhooks", get(webhooks::list_log))
        .route("/webhooks/{execution_id}", get(webhooks::get_log))
        .route("/upload/presign", post(uploads::presign))
        .route("/upload/{id}/{ticket}", put(uploads::receive))
        .route("/model", get(eachlabs::get_model));
    let openai = Router::new()
        .route("/images/generations", post(openai::generate))
        .route("/images/edits", post(openai::edit))
        .route("/images/variations", post(openai::vary))
        .route("/models/{id}", get(openai::get_model));
    // Whoever knows a file's key may read it, and a probe has no key at all.
    let open = Router::new()
        .route("/", get(playground::root))
        .route("/playground/{digest}/{*path}", get(playground::asset))
        .route("/files/{*key}", get(files::get).delete(uploads::delete))
        .route("/livez", get(probes::live))
        .route("/readyz", get(probes::ready))
        .route("/healthz", get(probes::ready))
        .route("/health", get(probes::ready))
        .route("/version", get(probes::version))
        .route("/openapi.json", get(openapi::serve))
        .route("/docs", get(openapi::docs::page))
        .route("/docs/{digest}/{*path}", get(openapi::docs::asset));

    // A vendor's client is given its face's own path, or only the server; and some add `/v1` to what they are given.
    // Two vendors have this URL. At the root both are in one table, where it may stand only once.
    let files = Router::new().route("/files/{id}", delete(uploads::delete_of_vendor));
    let all = replicate.clone().merge(eachlabs.clone()).merge(openai.clone()).merge(files.clone());
    let replicate = replicate.merge(files.clone());
    let faces = mounted(mounts::SHARED, all)
        .merge(mounted(mounts::DOUBLED, replicate.clone()))
        .merge(mounted(mounts::REPLICATE, replicate))
        .merge(mounted(mounts::EACHLABS, eachlabs.merge(files)))
        .merge(mounted(mounts::OPENAI, openai));

    native.merge(open).merge(faces)
}

/// What was told of a prediction, and what signs it.
fn webhook_routes() -> Router<Api> {
    Router::new()
        .route("/predictions/{id}/webhook", get(webhooks::get))
        .route("/predictions/{id}/webhook/redeliver", post(webhooks::redeliver))
        .route("/webhooks/secret", get(webhooks::get_secret))
        .route("/webhooks/secret/rotate", post(webhooks::rotate_secret))
}

/// What operators do over HTTP; all of it needs the scope `admin`.
fn admin_routes() -> Router<Api> {
    Router::new()
        .route("/admin/keys", get(admin::list_keys).post(admin::create_key))
        .route("/admin/keys/{key}", delete(admin::revoke_key))
        .route("/admin/keys/{key}/rotate", post(admin::rotate_key))
        .route("/admin/keys/{key}/budget", put(admin::set_budget))
        .route("/admin/accounts", get(admin::list_accounts).post(admin::create_account))
        .route("/admin/accounts/{name}", patch(admin::change_account))
        .route("/admin/accounts/{name}/credits", post(admin::credit))
}

/// Vendors' faces under a path, which they know for the URLs in their answers; with the one URL all vendors have.
fn mounted(path: &'static str, faces: Router<Api>) -> Router<Api> {
    let faces = faces.route("/models", get(face::list_models));
    Router::new().nest(path, faces.layer(Extension(Mount(path))))
}

/// What every route is wrapped in, and what answers where there is none.
fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>) -> Router<S> {
    // All in one: the router would keep a box for each, of every request that waits. The first is the outermost.
    let layers = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([AUTHORIZATION, X_API_KEY]))
        .layer(middleware::from_fn(observe::observe))
        .layer(SetResponseHeaderLayer::if_not_present(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")))
        .layer(CatchPanicLayer::custom(error::panicked))
        .layer(middleware::from_fn(hangup::complete_writes));
    routes.fallback(async || Error::NoRoute).method_not_allowed_fallback(async || Error::MethodNotAllowed).layer(layers)
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, extract::Request, response::Response};
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_like_any_other() {
        async fn panic() -> Response {
            panic!("the secret reason")
        }
        let router = around(Router::<()>::new().route("/", get(panic).post(panic)));
        for method in ["GET", "POST"] {
            let request = Request::builder().method(method).header("X-Request-Id", "abc").body(Body::empty());
            let response = router.clone().oneshot(request.expect("a request")).await.expect("infallible");
            assert_eq!(response.status(), 500, "{method}");
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            let body = response.into_body().collect().await.expect("a body").to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            assert_eq!((&problem["code"], &problem["request_id"]), (&"internal".into(), &"abc".into()));
            assert!(!problem.to_string().contains("secret"));
        }
    }
}
