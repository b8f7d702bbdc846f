//! Which face a URL belongs to, what a refusal looks like there, and the one URL that belongs to several.
//!
//! URLs that are nobody's and methods that no route takes are refused in the language of the face they would belong to:
//! a client understands only its own vendor's errors.

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    handler::Handler,
    http::{
        HeaderMap, HeaderValue, Method, Uri,
        header::{CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT, VARY},
    },
    response::Response,
};
use serde::Serialize;

use super::{Api, caller::X_API_KEY, eachlabs, openai, replicate};
use crate::{
    domain::Dialect,
    wire::{Refusal, eachlabs::Refused, mounts, native, openai as openai_wire, replicate as replicate_wire},
};

/// The face a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Face {
    dialect: Dialect,
    /// Whether a client asks what has become of a prediction, perhaps again and again.
    polls: bool,
}

impl Face {
    /// By the request's URL, whether there is such a URL or not; and by its headers where that does not tell.
    pub(super) fn of(request: &Request) -> Self {
        let dialect = dialect(request.uri(), request.headers());
        Self { dialect, polls: request.method() == Method::GET && request.uri().path().contains("/prediction/") }
    }

    /// Whose words it speaks.
    pub(super) const fn dialect(self) -> Dialect {
        self.dialect
    }

    /// Puts a refusal into its response.
    pub(super) fn write(self, refusal: Refusal, request_id: String, response: &mut Response) {
        const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
        match self.dialect {
            Dialect::Replicate => fill(response, PROBLEM, &replicate_wire::Problem::new(refusal)),
            Dialect::Eachlabs => {
                let (status, body) = Refused::new(refusal, self.polls);
                *response.status_mut() = status;
                fill(response, HeaderValue::from_static("application/json"), &body);
            }
            Dialect::OpenAi => {
                let (status, body) = openai_wire::Refused::new(refusal);
                *response.status_mut() = status;
                fill(response, HeaderValue::from_static("application/json"), &body);
            }
            Dialect::Native => fill(response, PROBLEM, &native::Problem::new(refusal, request_id)),
        }
    }
}

fn dialect(uri: &Uri, headers: &HeaderMap) -> Dialect {
    if let Some(named) = mounts::named_by(uri.path()) {
        return named;
    }
    let Some(below_v1) = mounts::below(mounts::SHARED, uri.path()) else {
        return Dialect::Native;
    };
    match below_v1.split('/').nth(1).unwrap_or_default() {
        "prediction" | "model" | "executions" | "upload" => Dialect::Eachlabs,
        "images" => Dialect::OpenAi,
        // The other vendor has one URL there.
        "webhooks" if !below_v1.starts_with("/webhooks/default/") => Dialect::Eachlabs,
        // Both vendors' clients delete files there.
        "files" if headers.contains_key(X_API_KEY) => Dialect::Eachlabs,
        "models" if below_v1 == "/models" => lister_of_models(uri, headers),
        // The other vendor's have an owner as well.
        "models" if below_v1.split('/').count() == 3 => Dialect::OpenAi,
        _ => Dialect::Replicate,
    }
}

/// Whose client asks for `/v1/models`: its answer is an array for one vendor, and for each of the others another kind of
/// page. Replicate's and OpenAI's clients say who they are; of Eachlabs' most do not.
fn lister_of_models(uri: &Uri, headers: &HeaderMap) -> Dialect {
    let agent = headers.get(USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let is_paged = uri.query().is_some_and(|query| {
        query.split('&').any(|pair| ["name=", "limit=", "offset="].iter().any(|name| pair.starts_with(name)))
    });
    let agent = agent.to_ascii_lowercase();
    if is_paged || headers.contains_key(X_API_KEY) {
        Dialect::Eachlabs
    } else if agent.starts_with("replicate") {
        Dialect::Replicate
    } else if agent.starts_with("openai/") || agent.starts_with("asyncopenai/") {
        Dialect::OpenAi
    } else {
        Dialect::Eachlabs
    }
}

/// `GET /models`, of whichever face.
pub(super) async fn list_models(
    State(api): State<Api>,
    Extension(face): Extension<Face>,
    request: Request,
) -> Response {
    let mut response = match face.dialect {
        Dialect::Replicate => replicate::list_models.call(request, api).await,
        Dialect::OpenAi => openai::list_models.call(request, api).await,
        _ => eachlabs::list_models.call(request, api).await,
    };
    response.headers_mut().insert(VARY, HeaderValue::from_static("Authorization, X-API-Key, User-Agent"));
    response
}

fn fill(response: &mut Response, content_type: HeaderValue, body: &impl Serialize) {
    let headers = response.headers_mut();
    // Of the empty body that this replaces.
    headers.remove(CONTENT_LENGTH);
    headers.insert(CONTENT_TYPE, content_type);
    *response.body_mut() = Body::from(serde_json::to_vec(body).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face_of(path: &str, headers: &[(&'static str, &'static str)]) -> Dialect {
        let mut request = Request::builder().uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Face::of(&request.body(Body::empty()).expect("a request")).dialect
    }

    #[test]
    fn a_url_belongs_to_a_face_whether_it_exists_or_not() {
        for (path, dialect) in [
            ("/", Dialect::Native),
            ("/predictions", Dialect::Native),
            ("/v10/predictions", Dialect::Native),
            ("/replicated", Dialect::Native),
            ("/v1", Dialect::Replicate),
            ("/v1/predictions/x", Dialect::Replicate),
            ("/v1/v1/prediction", Dialect::Replicate),
            ("/v1/models/a/b", Dialect::Replicate),
            ("/v1/nothing", Dialect::Replicate),
            ("/replicate", Dialect::Replicate),
            ("/replicate/v1/prediction", Dialect::Replicate),
            ("/v1/prediction", Dialect::Eachlabs),
            ("/v1/prediction/x/y/z", Dialect::Eachlabs),
            ("/v1/model?slug=x", Dialect::Eachlabs),
            ("/v1/upload/presign", Dialect::Eachlabs),
            ("/v1/files/x", Dialect::Replicate),
            ("/v1/models", Dialect::Eachlabs),
            ("/v1/webhooks", Dialect::Eachlabs),
            ("/v1/webhooks/x", Dialect::Eachlabs),
            ("/v1/webhooks/default/secret", Dialect::Replicate),
            ("/eachlabs/v1/predictions", Dialect::Eachlabs),
            ("/openai/v1/anything", Dialect::OpenAi),
            ("/v1/images/generations", Dialect::OpenAi),
            ("/v1/models/a", Dialect::OpenAi),
        ] {
            assert_eq!(face_of(path, &[]), dialect, "{path}");
        }
    }

    #[test]
    fn who_lists_the_models_is_known_by_key_query_and_name() {
        let replicate = ("user-agent", "replicate-python/1.0.7");
        for (path, headers, dialect) in [
            ("/v1/models", vec![replicate], Dialect::Replicate),
            ("/v1/models", vec![("user-agent", "Replicate/Python 2.0.0")], Dialect::Replicate),
            ("/v1/models", vec![("user-agent", "each-js/0.0.3")], Dialect::Eachlabs),
            ("/v1/models", vec![replicate, ("x-api-key", "k")], Dialect::Eachlabs),
            ("/v1/models?limit=5", vec![replicate], Dialect::Eachlabs),
            ("/v1/files/x", vec![("x-api-key", "k")], Dialect::Eachlabs),
            ("/v1/models?cursor=5", vec![replicate], Dialect::Replicate),
            ("/v1/models", vec![("user-agent", "OpenAI/Python 3.57.0")], Dialect::OpenAi),
            ("/v1/models", vec![("user-agent", "AsyncOpenAI/Python 3.57.0")], Dialect::OpenAi),
            ("/openai/v1/models", vec![replicate], Dialect::OpenAi),
            ("/replicate/v1/models?limit=5", vec![], Dialect::Replicate),
            ("/eachlabs/v1/models", vec![replicate], Dialect::Eachlabs),
        ] {
            assert_eq!(face_of(path, &headers), dialect, "{path} {headers:?}");
        }
    }
}
