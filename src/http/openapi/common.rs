//! What the operations of a face have in common: where it is, what it needs, and how it refuses.

use serde_json::{Map, Value, json};

use super::headers;
use crate::{
    domain::{Catalog, Dialect},
    wire::{InputSchema, eachlabs, mounts, native, openai, replicate},
};

/// The faces by their tags, which begin with the face's name where it is a vendor's.
const TAGS: [(&str, &str); 10] = [
    ("Predictions", "Make pictures and wait for them."),
    ("Models", "What can be run."),
    ("Files", "Pictures to start from, sent ahead."),
    ("Webhooks", "Have the end told to you."),
    ("Usage", "What was used, and what it cost."),
    ("Admin", "For operators; needs a key with the scope `admin`."),
    ("Server", "For load balancers and programs; no key."),
    ("Replicate", "For Replicate's clients."),
    ("Eachlabs", "For Eachlabs' clients."),
    ("OpenAI", "For OpenAI's clients."),
];

/// Bodies that are refused for a field they do not know.
const CLOSED: [&str; 10] = [
    "native.CreatePrediction",
    "replicate.CreatePrediction",
    "openai.Generation",
    "openai.Edit",
    "admin.NewKey",
    "admin.Rotation",
    "admin.SetBudget",
    "admin.NewAccount",
    "admin.AccountChange",
    "admin.Credit",
];

/// What may be asked next about what an operation has made: the operation, where its answer has the id, and the others.
const LINKS: [(&str, &str, &[&str]); 8] = [
    (
        "predictions_create",
        "/id",
        &["predictions_get", "predictions_cancel", "predictions_delete", "predictions_follow"],
    ),
    ("predictions_create_with_id", "/id", &["predictions_get", "predictions_cancel"]),
    ("predictions_list", "/results/0/id", &["predictions_get"]),
    ("replicate_create", "/id", &["replicate_get", "replicate_cancel"]),
    ("replicate_create_of_model", "/id", &["replicate_get", "replicate_cancel"]),
    ("eachlabs_create", "/predictionID", &["eachlabs_get", "eachlabs_cancel"]),
    ("eachlabs_run", "/predictionID", &["eachlabs_get"]),
    ("replicate_create_file", "/id", &["replicate_get_file", "replicate_delete_file"]),
];

/// What a refusal looks like: its media type, its schema, and whether content at fault is 422, or 400 as some vendors
/// have it.
struct Refusals {
    media_type: &'static str,
    schema: &'static str,
    invalid: &'static str,
}

fn refusals(face: Dialect) -> Refusals {
    match face {
        Dialect::Native => {
            Refusals { media_type: "application/problem+json", schema: "native.Problem", invalid: "422" }
        }
        Dialect::Replicate => {
            Refusals { media_type: "application/problem+json", schema: "replicate.Problem", invalid: "422" }
        }
        Dialect::Eachlabs => Refusals { media_type: "application/json", schema: "eachlabs.Refused", invalid: "400" },
        Dialect::OpenAi => Refusals { media_type: "application/json", schema: "openai.Refused", invalid: "400" },
    }
}

/// One document of those of the faces.
pub(super) fn joined(faces: impl Iterator<Item = (Dialect, Value)>, catalog: &Catalog) -> Value {
    let (mut paths, mut schemas) = (Map::new(), error_schemas());
    for (face, mut document) in faces {
        let found = document["components"]["schemas"].as_object_mut().map(std::mem::take).unwrap_or_default();
        schemas.extend(found);
        for (path, mut item) in document["paths"].as_object_mut().map(std::mem::take).unwrap_or_default() {
            for (_, operation) in item.as_object_mut().into_iter().flatten() {
                complete(operation, face, &path);
            }
            let elsewhere = elsewhere(face, &path);
            if !elsewhere.is_empty() {
                item["x-also-at"] = elsewhere.into();
            }
            paths.insert(format!("{}{path}", mounts::own(face)), item);
        }
    }
    describe_inputs(&mut schemas, catalog);
    let tags: Vec<Value> =
        TAGS.iter().map(|(name, description)| json!({"name": name, "description": description})).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "fourstep",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A prediction API server for SDXL-Lightning. Keys go into `Authorization: Bearer` or `X-API-Key`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "tags": tags,
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer", "description": "An API key."}},
        },
    })
}

/// The other URLs of what is at this one.
fn elsewhere(face: Dialect, path: &str) -> Vec<String> {
    let others = mounts::others(face);
    let mut elsewhere: Vec<String> = others.iter().map(|mount| format!("{mount}{path}")).collect();
    match path {
        "/readyz" => elsewhere.extend(["/healthz", "/health"].map(str::to_owned)),
        // Their samples have a slash at the end, their clients have none.
        "/prediction" => {
            let mounts = std::iter::once(mounts::own(face)).chain(others.iter().copied());
            elsewhere.extend(mounts.map(|mount| format!("{mount}{path}/")));
        }
        _ => {}
    }
    elsewhere
}

fn error_schemas() -> Map<String, Value> {
    use utoipa::{PartialSchema, ToSchema};
    let mut found = Vec::new();
    macro_rules! add {
        ($($schema:ty),*) => {$(
            found.push((<$schema>::name().into_owned(), <$schema>::schema()));
            <$schema>::schemas(&mut found);
        )*};
    }
    add!(native::Problem, replicate::Problem, eachlabs::Refused, openai::Refused);
    found.into_iter().map(|(name, schema)| (name, json!(schema))).collect()
}

/// The input of the default model, as it is taken here, and as the vendors' clients may write it: with more fields, which
/// are ignored.
fn describe_inputs(schemas: &mut Map<String, Value>, catalog: &Catalog) {
    let model = catalog.answering(catalog.default_model());
    let mut input = json!(InputSchema::new(&model.limits));
    if let Some(input) = input.as_object_mut() {
        input.remove("$schema");
    }
    let mut open = input.clone();
    open["additionalProperties"] = true.into();
    open["title"] = "Input, with fields of the vendors' own".into();
    let seed = &mut open["properties"]["seed"];
    seed["description"] = format!("{} -1 means a random one.", seed["description"].as_str().unwrap_or_default()).into();
    seed["minimum"] = (-1).into();
    schemas.insert("Input".to_owned(), input);
    schemas.insert("VendorInput".to_owned(), open);
    for name in CLOSED {
        schemas[name]["additionalProperties"] = false.into();
    }
    for (name, schema) in schemas.iter_mut() {
        // Of ours every field is always there, null where it has no value.
        let is_answer = name.starts_with("native.") && name != "native.CreatePrediction";
        if let Some(properties) = schema.get("properties").and_then(Value::as_object).filter(|_| is_answer) {
            let always = properties.keys().filter(|field| *field != "invalid_fields");
            schema["required"] = always.cloned().collect::<Vec<_>>().into();
        }
    }
}

/// Puts in what does not depend on the handler.
fn complete(operation: &mut Value, face: Dialect, path: &str) {
    let name = operation["operationId"].as_str().unwrap_or_default().to_owned();
    let own = operation["tags"][0].as_str().unwrap_or_default().to_lowercase();
    let group = if face == Dialect::Native { own.as_str() } else { face.as_str() };
    operation["operationId"] = format!("{group}_{name}").into();
    let takes_key = operation.get("security").is_some();
    let takes_body = operation.get("requestBody").is_some();
    let takes_parameters = operation.get("parameters").is_some();
    let makes = ["create", "create_with_id", "create_of_model", "run", "generate", "edit"].contains(&name.as_str());
    let names_thing = path.contains('{') || path == "/model";
    let Refusals { media_type, schema, invalid } = refusals(face);
    let mut statuses = vec![("500", "Our fault.")];
    if takes_key {
        statuses.extend([
            ("401", "There is no key, or it is not valid."),
            ("403", "The key may not do this."),
            ("429", "Too many requests, or not now: `Retry-After` says when to come back."),
        ]);
    }
    if takes_body {
        statuses.extend([
            ("400", "The body is not what it should be."),
            ("408", "The body did not arrive in time."),
            ("413", "The body is too long."),
            ("415", "The body is of another type."),
            (if face == Dialect::Eachlabs { "422" } else { invalid }, "Something in it is at fault."),
        ]);
    }
    if takes_body || takes_parameters || takes_key {
        // The Host as well, which is in the answers' URLs.
        statuses.push((invalid, "Something in the request is at fault; the body says what."));
    }
    if makes {
        statuses.push(("402", "It may cost more than the account or the key may spend."));
        statuses.push(("409", "The id is taken."));
    }
    match face {
        // Its clients come back after 429 alone.
        Dialect::Eachlabs if names_thing => statuses.push(("429", "Not now: `Retry-After` says when to come back.")),
        Dialect::Eachlabs => {}
        _ if takes_key => statuses.push(("503", "Not now: `Retry-After` says when to come back.")),
        _ if names_thing => {
            statuses.push(("503", "The database or the files are away: `Retry-After` says when to come back."));
        }
        _ => {}
    }
    if names_thing || (makes && face != Dialect::Native) {
        statuses.push(("404", "There is no such thing, or it is somebody else's."));
    }
    if makes && face != Dialect::Replicate {
        statuses.push(("422", "The Idempotency-Key was used for another request."));
    }
    let links = LINKS.iter().find(|(from, ..)| operation["operationId"] == *from);
    let links = links.map(|(_, pointer, to)| {
        let link = |to: &&str| {
            let parameters = json!({"id": format!("$response.body#{pointer}")});
            ((*to).to_owned(), json!({"operationId": to, "parameters": parameters}))
        };
        Value::Object(to.iter().map(link).collect())
    });
    let responses = &mut operation["responses"];
    for (status, response) in responses.as_object_mut().into_iter().flatten() {
        if let Some(links) = links.clone().filter(|_| status.starts_with('2')) {
            response["links"] = links;
        }
    }
    for (status, description) in statuses {
        if responses.get(status).is_none() {
            responses[status] = json!({"description": description});
        }
    }
    headers::put(operation);
    for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
        if status.as_str() >= "400" {
            let is_there = response["content"].as_object().is_some_and(|content| !content.is_empty());
            let refusal = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
            match is_there {
                false => response["content"] = json!({media_type: refusal}),
                // What has an answer of its own may be refused for other reasons as well.
                true if response["content"].get(media_type).is_none() => response["content"][media_type] = refusal,
                true => {
                    let own = response["content"][media_type]["schema"].take();
                    response["content"][media_type]["schema"] = json!({"anyOf": [own, refusal["schema"]]});
                }
            }
        }
    }
}
