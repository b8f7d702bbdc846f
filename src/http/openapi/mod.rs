//! What this API is, for machines: an OpenAPI 3.1 document, made of the handlers and of the types they answer with.
//!
//! What an operation alone knows stands above its handler. What all of a face's have in common, how it refuses, is put
//! in by `common`, the headers of answers by `headers`, and examples by `examples` and `refusals`: those of answers are made by the code that makes the answers.

mod common;
pub(super) mod docs;
mod examples;
mod headers;
mod refusals;
mod samples;

use axum::{extract::State, http::HeaderMap, response::Response};
use serde_json::Value;
use utoipa::{
    OpenApi,
    openapi::{
        ObjectBuilder, RefOr, Required, Schema,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{SchemaType, Type},
    },
};

use super::{
    Api, admin, eachlabs, estimate, events, files, metrics, native, openai,
    playground::{ASK_AGAIN, send, site::File},
    probes, replicate, uploads, usage, webhooks,
};
use crate::domain::{Catalog, Dialect};

#[derive(OpenApi)]
#[openapi(paths(
    native::create,
    native::create_with_id,
    native::get,
    native::list,
    native::cancel,
    native::delete,
    events::follow,
    estimate::estimate,
    native::list_models,
    native::get_model,
    webhooks::get,
    webhooks::redeliver,
    webhooks::get_secret,
    webhooks::rotate_secret,
    usage::get,
    metrics::get_with_key,
    admin::list_keys,
    admin::create_key,
    admin::revoke_key,
    admin::rotate_key,
    admin::set_budget,
    admin::list_accounts,
    admin::create_account,
    admin::change_account,
    admin::credit,
    files::get,
    uploads::create,
    uploads::list,
    uploads::delete,
    probes::discover,
    probes::live,
    probes::ready,
    probes::version,
    docs::page,
    serve
))]
struct Native;

#[derive(OpenApi)]
#[openapi(paths(
    replicate::create,
    replicate::create_of_model,
    replicate::get,
    replicate::list,
    replicate::cancel,
    replicate::list_models,
    replicate::get_model,
    replicate::list_versions,
    replicate::get_version,
    replicate::get_account,
    replicate::list_hardware,
    replicate::list_collections,
    uploads::create_of_replicate,
    uploads::list_of_replicate,
    uploads::get_of_replicate,
    uploads::download_of_replicate,
    uploads::delete_of_vendor,
    webhooks::get_default_secret
))]
struct Replicate;

#[derive(OpenApi)]
#[openapi(paths(
    eachlabs::create,
    eachlabs::run,
    eachlabs::get,
    eachlabs::cancel,
    eachlabs::list,
    eachlabs::list_models,
    eachlabs::get_model,
    uploads::presign,
    uploads::receive,
    uploads::delete_of_vendor,
    webhooks::list_log,
    webhooks::get_log
))]
struct Eachlabs;

#[derive(OpenApi)]
#[openapi(paths(openai::generate, openai::edit, openai::vary, openai::list_models, openai::get_model))]
struct OpenAi;

/// The document, for a server of these models.
pub fn document(catalog: &Catalog) -> Value {
    let of_face = |face| match face {
        Dialect::Native => Native::openapi(),
        Dialect::Replicate => Replicate::openapi(),
        Dialect::Eachlabs => Eachlabs::openapi(),
        Dialect::OpenAi => OpenAi::openapi(),
    };
    let faces = Dialect::ALL.into_iter().map(|face| (face, serde_json::to_value(of_face(face)).unwrap_or_default()));
    let mut document = common::joined(faces, catalog);
    examples::put(&mut document, catalog);
    document
}

/// A header that may be left out, for what reads it to describe itself.
pub(super) fn header(name: &str, words: &str) -> Parameter {
    let text = ObjectBuilder::new().schema_type(SchemaType::from_iter([Type::String, Type::Null]));
    parameter(ParameterIn::Header, name, words, text)
}

/// The same of the query or wherever, and of any type.
pub(super) fn parameter(place: ParameterIn, name: &str, words: &str, schema: impl Into<RefOr<Schema>>) -> Parameter {
    ParameterBuilder::new()
        .parameter_in(place)
        .name(name)
        .required(Required::False)
        .description(Some(words))
        .schema(Some(schema))
        .build()
}

/// `GET /openapi.json`
#[utoipa::path(
    get,
    path = "/openapi.json",
    summary = "Read this document",
    tag = "Server",
    responses(
        (status = 200, description = "This document.", body = Object),
        (status = 304, description = "Not modified."),
    ),
)]
pub(super) async fn serve(State(api): State<Api>, headers: HeaderMap) -> Response {
    let make = || File::new("application/json", document(api.service.catalog()).to_string().into());
    send(api.openapi.get_or_init(make), &headers, ASK_AGAIN, "Accept-Encoding")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The pages' own files, whose names change with them.
    const OF_PAGES: [&str; 2] = ["/playground/{digest}/{path}", "/docs/{digest}/{path}"];

    #[test]
    fn the_document_has_every_url_of_the_server_and_no_other() {
        let catalog = Catalog::parse(include_str!("../../../config/models.toml")).expect("a catalog");
        let document = document(&catalog);
        let mut described = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            described.insert(path.clone());
            let also = item["x-also-at"].as_array().into_iter().flatten();
            described.extend(also.map(|path| path.as_str().expect("a path").to_owned()));
        }
        described.extend(OF_PAGES.map(str::to_owned));
        // axum tells what it routes only in this form.
        let routes = format!("{:?}", super::super::routes());
        let (_, paths) = routes.split_once("paths: {").expect("axum's table of paths");
        let (paths, _) = paths.split_once("} }").expect("its end");
        let paths = paths.split('"').skip(1).step_by(2).map(|path| path.replace("{*", "{"));
        let routed: BTreeSet<String> = paths.filter(|path| !path.contains("__private__")).collect();
        assert!(routed.len() > 60, "{routes}");
        let undescribed: Vec<_> = routed.difference(&described).collect();
        assert!(
            undescribed.is_empty(),
            "not in the document: {undescribed:#?}; put `#[utoipa::path]` on their handlers and name these in this file"
        );
        let unrouted: Vec<_> = described.difference(&routed).collect();
        assert!(unrouted.is_empty(), "in the document, and not in the table of URLs: {unrouted:#?}");
    }
}
