//! The document against the server it describes: every example, every operation, every shape.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fourstep::{
    domain::Catalog,
    worker::{WorkerPool, predictor::Mock},
};
use reqwest::{
    Method, StatusCode,
    header::{HeaderMap, HeaderName},
};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use uuid::Uuid;

use crate::{
    shared_files::{FAR_AWAY, signature},
    support::{PATIENCE, TestApp, id, json},
};

pub(crate) fn document() -> Value {
    let catalog = Catalog::parse(include_str!("../../config/models.toml")).unwrap();
    fourstep::http::openapi(&catalog)
}

pub(crate) struct Operation {
    pub(crate) path: String,
    pub(crate) method: String,
    pub(crate) described: Value,
}

pub(crate) fn operations(document: &Value) -> Vec<Operation> {
    let items = document["paths"].as_object().unwrap().iter();
    let operations = items.flat_map(|(path, item)| {
        item.as_object().unwrap().iter().filter(|(method, _)| !method.starts_with("x-")).map(|(method, described)| {
            Operation { path: path.clone(), method: method.clone(), described: described.clone() }
        })
    });
    operations.collect()
}

/// A schema with all it refers to. In a closed one objects have no fields but those described.
fn validator(document: &Value, schema: &Value, closed: bool) -> jsonschema::Validator {
    let mut schemas = document["components"]["schemas"].clone();
    // What others consist of cannot be closed by itself.
    let mut parts = BTreeSet::new();
    for schema in schemas.as_object().unwrap().values() {
        references(&schema["allOf"], &mut parts);
    }
    for (name, schema) in schemas.as_object_mut().unwrap() {
        let is_part = parts.iter().any(|part| part.ends_with(&format!("/{name}")));
        if closed && !is_part && schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
            schema["additionalProperties"] = json!(false);
        }
    }
    let whole = json!({"allOf": [schema], "components": {"schemas": schemas}});
    jsonschema::draft202012::new(&whole).unwrap_or_else(|error| panic!("{error}: {schema}"))
}

pub(crate) fn assert_valid(document: &Value, schema: &Value, value: &Value, what: &str) {
    let errors: Vec<String> = validator(document, schema, true)
        .iter_errors(value)
        .map(|error| format!("{error} at {}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:?} in {value}");
}

/// Of the headers that mean something to clients, those of an answer are described, and those that it must have are there.
fn assert_headers(described: &Value, headers: &HeaderMap, what: &str) {
    let described: BTreeMap<String, &Value> =
        described.as_object().into_iter().flatten().map(|(name, header)| (name.to_lowercase(), header)).collect();
    let known = ["retry-after", "x-should-retry", "location", "idempotent-replayed", "etag"];
    for name in headers.keys().map(HeaderName::as_str) {
        let is_known = known.contains(&name) || name.starts_with("fourstep-");
        assert!(!is_known || described.contains_key(name), "{what}: {name} is not described");
    }
    for (name, header) in described {
        assert!(header["required"] != true || headers.contains_key(&name), "{what} lacks {name}");
    }
}

fn references(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str).map(str::to_owned));
            // An example may be a document of its own.
            let parts = fields.iter().filter(|(name, _)| !name.starts_with("example"));
            parts.for_each(|(_, value)| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn the_document_is_whole() {
    let document = document();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
    }
    let mut ids = BTreeSet::new();
    for Operation { path, method, described } in operations(&document) {
        let name = described["operationId"].as_str().unwrap();
        assert!(ids.insert(name.to_owned()), "{name} is there twice");
        let tag = &described["tags"][0];
        assert!(document["tags"].as_array().unwrap().iter().any(|known| known["name"] == *tag), "{tag} of {name}");
        for (status, response) in described["responses"].as_object().unwrap() {
            assert!(response.get("content").is_none_or(Value::is_object), "{method} {path} {status}");
            assert!(response["description"].as_str().is_some_and(|text| !text.is_empty()), "{method} {path} {status}");
        }
        // What stands in the path is a parameter, and the other way round.
        let parameters = described["parameters"].as_array().into_iter().flatten();
        let named: BTreeSet<&str> =
            parameters.filter(|one| one["in"] == "path").map(|one| one["name"].as_str().unwrap()).collect();
        let there: BTreeSet<&str> = path.split('{').skip(1).map(|part| part.split_once('}').unwrap().0).collect();
        assert_eq!(named, there, "{method} {path}");
    }
}

#[test]
fn every_operation_says_in_a_few_words_what_it_does() {
    let mut unclear = Vec::new();
    for Operation { path, method, described } in operations(&document()) {
        let words = described["summary"].as_str().unwrap_or_default();
        let is_clear = words.starts_with(|first: char| first.is_ascii_uppercase()) && words.split(' ').count() > 1;
        if !is_clear || words.len() > 60 || words.contains(['/', '`']) || words.ends_with('.') {
            unclear.push(format!("{method} {path}: {words:?}"));
        }
    }
    assert!(unclear.is_empty(), "{unclear:#?}");
}

#[test]
fn every_field_and_every_parameter_is_described() {
    fn fields(schema: &Value, what: &str, undescribed: &mut Vec<String>) {
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let words = field["description"].as_str();
            // What it refers to is described where it is.
            let refers = ["$ref", "oneOf", "allOf"].iter().any(|word| field.get(word).is_some());
            if words.is_none_or(str::is_empty) && !refers {
                undescribed.push(format!("{what}.{name}"));
            }
        }
        for part in ["allOf", "oneOf", "anyOf"] {
            schema[part].as_array().into_iter().flatten().for_each(|schema| fields(schema, what, undescribed));
        }
    }
    let document = document();
    let mut undescribed = Vec::new();
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        fields(schema, name, &mut undescribed);
    }
    for Operation { path, method, described } in operations(&document) {
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            if parameter["description"].as_str().is_none_or(str::is_empty) {
                undescribed.push(format!("{method} {path} {}", parameter["name"]));
            }
        }
    }
    assert!(undescribed.is_empty(), "{undescribed:#?}");
}

#[test]
fn every_example_is_what_its_schema_says() {
    let document = document();
    let mut seen = 0;
    for Operation { path, method, described } in operations(&document) {
        let bodies = [("body".to_owned(), &described["requestBody"]["content"])].into_iter();
        let responses = described["responses"].as_object().unwrap().iter();
        let responses = responses.map(|(status, response)| (status.clone(), &response["content"]));
        for (what, content) in bodies.chain(responses) {
            for (media_type, media) in content.as_object().into_iter().flatten() {
                let what = format!("{method} {path} {what} {media_type}");
                match media.get("example") {
                    Some(example) => {
                        assert_valid(&document, &media["schema"], example, &what);
                        if let Some(status) = example["status"].as_u64() {
                            assert!(what.contains(&format!(" {status} ")), "{what}: {example}");
                        }
                        seen += 1;
                    }
                    None => assert!(!media_type.contains("json") || path == "/openapi.json", "{what} has no example"),
                }
            }
        }
        let takes_body = described.get("requestBody").is_some();
        let media = described["requestBody"]["content"].as_object().and_then(|content| content.values().next());
        assert!(!takes_body || media.is_some_and(|media| media.get("example").is_some()), "{method} {path}");
    }
    assert!(seen > 200, "{seen} examples");
}

#[sqlx::test]
async fn every_url_takes_the_methods_that_are_described(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let document = document();
    for (path, item) in document["paths"].as_object().unwrap() {
        let (_, operation) = item.as_object().unwrap().iter().find(|(method, _)| !method.starts_with("x-")).unwrap();
        let refusals = &operation["responses"]["500"]["content"];
        let described = item.as_object().unwrap().keys().filter(|method| !method.starts_with("x-"));
        let mut described: BTreeSet<String> = described.map(|method| method.to_uppercase()).collect();
        if described.contains("GET") {
            described.insert("HEAD".to_owned());
        }
        let also = item["x-also-at"].as_array().into_iter().flatten().map(|path| path.as_str().unwrap());
        for path in also.chain([path.as_str()]) {
            let url = format!("{}{}", app.url, path.replace(['{', '}'], ""));
            let response = app.client.request(Method::from_bytes(b"PURGE").unwrap(), url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED, "{path}");
            let allowed = response.headers()["allow"].to_str().unwrap();
            let allowed: BTreeSet<String> = allowed.split(',').map(|method| method.trim().to_owned()).collect();
            // At the root some URLs belong to several vendors.
            assert!(described.is_subset(&allowed), "{path} takes {allowed:?}");
            assert!(path.starts_with("/v1") || allowed == described, "{path} takes {allowed:?}");
            // Whose that one is, a client's headers say.
            if !["/v1/models", "/v1/files/{id}"].contains(&path) {
                let media_type = response.headers()["content-type"].to_str().unwrap().to_owned();
                let media = refusals.get(&media_type).unwrap_or_else(|| panic!("{path}: {media_type}"));
                assert_valid(&document, &media["schema"], &json(response).await, path);
            }
        }
    }
}

#[sqlx::test]
async fn every_example_does_what_the_document_says(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let loads: Vec<fourstep::worker::Load> = vec![Box::new(|| Ok(Box::new(Mock::new(Duration::from_millis(1)))))];
    let workers = WorkerPool::start(&app.store, &app.artifacts, &crate::worker::settings(), loads).unwrap();
    let document: Value = json(app.client.get(format!("{}/openapi.json", app.url)).send().await.unwrap()).await;
    assert_eq!(document, self::document());
    let prediction = app.create(json!({"width": 256, "height": 256})).await;
    let made = json(app.get(&format!("/predictions/{}?wait=60", id(&prediction))).send().await.unwrap()).await;
    let file = made["output"][0].as_str().unwrap().split_once("/files/").unwrap().1.to_owned();
    let picture = app.client.get(made["output"][0].as_str().unwrap()).send().await.unwrap().bytes().await.unwrap();
    let make_key = || app.post("/admin/keys").json(&json!({"name": "other"})).send();
    let (key, rotated) = (json(make_key().await.unwrap()).await, json(make_key().await.unwrap()).await);
    let mut uploads = Vec::new();
    for _ in 0..3 {
        let upload = app.post("/files").body(picture.clone()).header("Content-Type", "image/png").send().await.unwrap();
        uploads.push(id(&json(upload).await));
    }
    let signature = signature(&app, "owner", &uploads[0], FAR_AWAY).await;
    let values = |path: &str, name: &str| match name {
        "owner" if path.ends_with("/download") => "owner".to_owned(),
        "expiry" => FAR_AWAY.to_string(),
        "signature" => signature.clone(),
        "id" if path.starts_with("/replicate/v1/files") => uploads[0].clone(),
        "id" if path.starts_with("/eachlabs/v1/files") => uploads[1].clone(),
        "id" if path.contains("/upload/") => Uuid::new_v4().to_string(),
        "ticket" => "none".to_owned(),
        "id" if path.contains("/versions/") => made["version"].as_str().unwrap().to_owned(),
        "id" if path.contains("/models/") => "sdxl-lightning-4step".to_owned(),
        "name" if path.contains("/accounts/") => "studio".to_owned(),
        "id" | "execution_id" => id(&made),
        "key" if path.contains("/files/") => file.clone(),
        // It has another name afterwards.
        "key" if path.ends_with("/rotate") => rotated["key"].as_str().unwrap().to_owned(),
        "key" => key["key"].as_str().unwrap().to_owned(),
        "owner" => "bytedance".to_owned(),
        "name" | "slug" => "sdxl-lightning-4step".to_owned(),
        _ => panic!("{name} of {path} has no value here"),
    };
    let mut operations = operations(&document);
    // Whatever is made by one is there for the next; what is revoked is so at the end.
    operations
        .sort_by_key(|operation| (operation.method == "delete", operation.path.clone(), operation.method == "get"));
    for Operation { path, method, described } in operations {
        let mut url = path.clone();
        let mut query = Vec::new();
        for parameter in described["parameters"].as_array().into_iter().flatten() {
            let name = parameter["name"].as_str().unwrap();
            match parameter["in"].as_str().unwrap() {
                "path" if method == "delete" && path == "/files/{key}" => url = format!("/files/{}", uploads[2]),
                "path" if method == "put" && name == "id" => url = url.replace("{id}", &Uuid::new_v4().to_string()),
                "path" => url = url.replace(&format!("{{{name}}}"), &values(&path, name)),
                "query" if parameter["required"] == true => query.push((name, values(&path, name))),
                _ => {}
            }
        }
        let mut request = app.request(method.to_uppercase().parse().unwrap(), &url).query(&query);
        if let Some(content) = described["requestBody"]["content"].as_object() {
            let (media_type, media) = content.iter().next().unwrap();
            request = if media_type == "application/octet-stream" {
                request.header("Content-Type", "image/png").body(picture.clone())
            } else if media_type == "multipart/form-data" {
                let mut form = b"--x\r\nContent-Disposition: form-data; name=\"prompt\"\r\n\r\na cat\r\n".to_vec();
                let name = if path.ends_with("/files") { "content" } else { "image" };
                let head =
                    format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"a.png\"\r\n\r\n");
                form.extend_from_slice(head.as_bytes());
                form.extend_from_slice(&picture);
                form.extend(b"\r\n--x--\r\n");
                request.header("Content-Type", "multipart/form-data; boundary=x").body(form)
            } else {
                request.json(&media["example"])
            };
        }
        let response = tokio::time::timeout(PATIENCE, request.send()).await.expect(&url).unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let what = format!("{method} {path} {status}");
        let expected = match described["operationId"].as_str().unwrap() {
            "webhooks_get" | "webhooks_redeliver" | "eachlabs_get_log" => status == StatusCode::NOT_FOUND,
            "eachlabs_cancel" => status == StatusCode::BAD_REQUEST,
            "eachlabs_receive" => status == StatusCode::NOT_FOUND,
            "openai_vary" => status == StatusCode::NOT_IMPLEMENTED,
            "server_ready" => true,
            _ => status.is_success(),
        };
        let bytes = response.bytes().await.unwrap();
        assert!(expected, "{what}: {}", String::from_utf8_lossy(&bytes));
        let answer = described["responses"].get(status.as_str()).unwrap_or_else(|| panic!("{what} is not described"));
        assert_headers(&answer["headers"], &headers, &what);
        let content = answer["content"].as_object().cloned().unwrap_or_else(Map::new);
        if content.is_empty() {
            assert!(bytes.is_empty(), "{what} has a body");
            continue;
        }
        let media_type = headers["content-type"].to_str().unwrap().split(';').next().unwrap();
        let media = content.get(media_type).unwrap_or_else(|| panic!("{what}: {media_type} is not described"));
        if media_type.ends_with("json") {
            assert_valid(&document, &media["schema"], &serde_json::from_slice(&bytes).unwrap(), &what);
        }
    }
    workers.drain(&app.store, PATIENCE).await;
}

#[sqlx::test]
async fn a_client_that_has_the_document_is_not_sent_it_again(pool: PgPool) {
    let app = TestApp::start(pool).await;
    let get = || app.client.get(format!("{}/openapi.json", app.url));
    let first = get().send().await.unwrap();
    assert_eq!(first.headers()["content-type"], "application/json");
    let etag = first.headers()["etag"].clone();
    let again = get().header("If-None-Match", &etag).send().await.unwrap();
    assert_eq!((again.status(), &again.headers()["etag"]), (StatusCode::NOT_MODIFIED, &etag));
    let packed = get().header("Accept-Encoding", "gzip").send().await.unwrap();
    assert_eq!(packed.headers()["content-encoding"], "gzip");
    assert!(packed.bytes().await.unwrap().len() * 4 < first.bytes().await.unwrap().len());
}
