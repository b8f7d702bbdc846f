//! Examples. Those of answers are made by the code that makes the answers, of [`Samples`]; bodies of requests have no such
//! code, and are written out.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    super::probes::{Discovery, Live, Ready, Version},
    refusals::Operation,
    samples::Samples,
};
use crate::{
    domain::{Catalog, Dialect, InvalidField, Model, WebhookEvent},
    service::Readiness,
    wire::{FaceUrl, Refusal, RefusalCode, admin, eachlabs, mounts, native, openai, replicate, usage, webhook},
};

/// Puts an example beside every schema that has one, and into every body that is of that schema.
pub(super) fn put(document: &mut Value, catalog: &Catalog) {
    let examples = of_schemas(catalog);
    for (name, example) in &examples {
        if let Some(schema) = document["components"]["schemas"].get_mut(name) {
            schema["examples"] = json!([example]);
        }
    }
    let id = Samples::ID.parse().ok();
    for (path, item) in document["paths"].as_object_mut().into_iter().flatten() {
        let methods = item.as_object_mut().into_iter().flatten().filter(|(method, _)| !method.starts_with("x-"));
        for (method, operation) in methods {
            if let Some(body) = operation.get_mut("requestBody") {
                put_into(&mut body["content"], &examples);
            }
            let scope = operation["security"][0]["key"][0].as_str().and_then(|scope| scope.parse().ok());
            let refusing = id.map(|id| Operation { method, path, scope, id });
            for (status, response) in operation["responses"].as_object_mut().into_iter().flatten() {
                if let Some(content) = response.get_mut("content") {
                    put_into(content, &examples);
                }
                if let Some(refusing) = refusing.filter(|_| status.as_str() >= "400") {
                    refusing.put_into(response, status);
                }
            }
        }
    }
}

fn put_into(content: &mut Value, examples: &Map<String, Value>) {
    for (_, media) in content.as_object_mut().into_iter().flatten() {
        if let Some(example) = example(&media["schema"], examples) {
            media["example"] = example;
        }
    }
}

/// Of a schema that is a reference, or a list of them.
fn example(schema: &Value, examples: &Map<String, Value>) -> Option<Value> {
    if schema["type"] == "array" {
        // There are lists of nothing, for clients that ask for one.
        return Some(example(&schema["items"], examples).into_iter().collect());
    }
    let schema = schema["anyOf"].get(0).unwrap_or(schema);
    let name = schema["$ref"].as_str()?.rsplit('/').next()?;
    examples.get(name).cloned()
}

fn of_schemas(catalog: &Catalog) -> Map<String, Value> {
    let model = catalog.default_model();
    let Some(samples) = Samples::of(model) else { return Map::new() };
    let parts = [
        requests(model, &samples),
        of_native(model, &samples),
        of_replicate(model, &samples),
        of_eachlabs(model, &samples),
        of_openai(model, &samples),
        of_server(&samples),
    ];
    let parts = parts.into_iter().filter_map(|part| match part {
        Value::Object(documents) => Some(documents),
        _ => None,
    });
    parts.flatten().collect()
}

fn requests(model: &Model, Samples { input, .. }: &Samples) -> Value {
    json!({
        "Input": input,
        "VendorInput": input,
        "native.CreatePrediction": {"model": model.slug, "input": input},
        "replicate.CreatePrediction": {"version": model.version, "input": input},
        "eachlabs.CreatePrediction": {"model": model.slug, "version": "0.0.1", "input": input},
        "openai.Generation": {"prompt": "a lighthouse at dusk", "size": "256x256", "seed": 7},
        "openai.Edit": {"image": "the file's bytes", "prompt": "a lighthouse at dawn"},
        "upload.NativeForm": {"file": "the file's bytes", "metadata": "{\"shelf\": 7}"},
        "upload.ReplicateForm": {"content": "the file's bytes", "filename": "cat.png"},
        "upload.CreateForm": {"prompt": "a lighthouse at dawn", "image": "the file's bytes"},
        "upload.Picture": "the file's bytes",
        "upload.Presign": {"content_type": "image/png"},
        "admin.NewKey":
            {"name": "ci", "scopes": ["predictions:write", "predictions:read"], "budget": "5", "budget_period": "day"},
        "admin.Rotation": {"overlap_seconds": 3600},
        "admin.SetBudget": {"budget": "5", "budget_period": "month"},
        "admin.NewAccount": {"name": "studio", "mode": "prepaid", "max_in_flight": 10},
        "admin.AccountChange": {"max_in_flight": 20},
        "admin.Credit": {"amount": "10.00", "note": "welcome"},
    })
}

fn of_native(model: &Model, samples: &Samples) -> Value {
    let Samples { server, upload, told, signing, .. } = samples;
    let prediction = native::Prediction::new(&samples.prediction, Some(model), None, server);
    let document = native::Model::new(model, model, model.average_run(), server);
    let taken = Samples::DEVICE_TIME;
    let cost = model.price.cost_of(taken);
    json!({
        "native.Prediction": prediction,
        "native.Page_native.Prediction": native::Page { results: vec![&prediction], next: None },
        "native.Model": document,
        "native.Page_native.Model": native::Page { results: vec![&document], next: None },
        "native.Estimate": native::Estimate::new(model, (taken, Duration::ZERO), cost, "measured"),
        "native.Problem": native::Problem::new(refusal(), "5f2b8c1e".to_owned()),
        "native.File": native::File::new(upload, server),
        "native.Page_native.File": native::Page { results: vec![native::File::new(upload, server)], next: None },
        "native.Webhook": native::Webhook::new(told),
        "native.Secret": native::Secret::new(signing),
        "usage.Report": usage::Report::new(&samples.query, &samples.usage),
        "admin.Page_admin.Key": admin::Page { results: vec![admin::Key::new(&samples.key_record)] },
        "admin.Page_admin.Account": admin::Page { results: vec![admin::Account::new(&samples.account)] },
        "admin.Secret": admin::Secret::new(&samples.key),
    })
}

fn of_replicate(model: &Model, samples: &Samples) -> Value {
    let face = samples.face(mounts::REPLICATE);
    let prediction = || replicate::Prediction::new(&samples.prediction, Some(model), Some(samples.urls.clone()), &face);
    let (document, version) =
        (|| replicate::Model::new(model, &face), || replicate::Version::new(model, &model.version));
    let file = || replicate::File::new(&samples.upload, &face);
    json!({
        "replicate.Prediction": prediction(),
        "replicate.Page_replicate.Prediction": replicate::Page::new(vec![prediction()], None),
        "replicate.Model": document(),
        "replicate.Page_replicate.Model": replicate::Page::new(vec![document()], None),
        "replicate.Version": version(),
        "replicate.Page_replicate.Version": replicate::Page::new(vec![version()], None),
        "replicate.Account": replicate::Account::new("default".to_owned()),
        "replicate.File": file(),
        "replicate.Page_replicate.File": replicate::Page::new(vec![file()], None),
        "replicate.Page_String": replicate::Page::<String>::new(Vec::new(), None),
        "replicate.Problem": replicate::Problem::new(refusal()),
    })
}

fn of_eachlabs(model: &Model, samples: &Samples) -> Value {
    let Samples { server, prediction, told, .. } = samples;
    let face = samples.face(mounts::EACHLABS);
    let of_eachlabs = crate::domain::Prediction { dialect: Dialect::Eachlabs, ..prediction.clone() };
    let request = webhook::body(&of_eachlabs, WebhookEvent::Completed, Some(model), server, face.mount);
    let request = String::from_utf8(request.unwrap_or_default()).unwrap_or_default();
    let log = || eachlabs::Webhook::new(told, request.clone());
    json!({
        "eachlabs.Created": eachlabs::Created::new(prediction.id),
        "eachlabs.Finished": eachlabs::Finished::new(prediction, &face),
        "eachlabs.TimedOut": eachlabs::TimedOut::new(prediction.id),
        "eachlabs.Canceled": eachlabs::Canceled::new(prediction.id),
        "eachlabs.Prediction": eachlabs::Prediction::new(prediction, &face),
        "eachlabs.Executions": eachlabs::Executions {
            executions: vec![eachlabs::Execution::new(prediction, server)],
            total_count: 1,
            total_capped: false,
            offset: 0,
            limit: 20,
        },
        "eachlabs.Model": eachlabs::Model::new(model),
        "eachlabs.Presigned": eachlabs::Presigned::new(&samples.upload, "Zm91cnN0ZXA", &face),
        "eachlabs.Webhook": log().with_attempts(told),
        "eachlabs.Webhooks": eachlabs::Webhooks { webhooks: vec![log()], limit: 50, offset: 0 },
        "eachlabs.Refused": eachlabs::Refused::new(refusal(), false).1,
    })
}

fn of_openai(model: &Model, Samples { prediction, urls, .. }: &Samples) -> Value {
    let files = prediction.output.iter().flatten().zip(urls);
    let pictures = files.map(|(file, url)| openai::Image::at(file, url.clone())).collect();
    json!({
        "openai.Images": openai::Images::new(prediction, pictures),
        "openai.Model": openai::Model::new(model),
        "openai.Models": openai::Models::new(std::slice::from_ref(model)),
        "openai.Refused": openai::Refused::new(refusal()).1,
    })
}

fn of_server(Samples { server, .. }: &Samples) -> Value {
    json!({
        "server.Live": Live::OK,
        "server.Ready": Ready::of(Readiness { ready: false, phase: "loading".to_owned(), percent: 40 }),
        "server.Version": Version::ours(),
        "server.Discovery": Discovery::at(server),
    })
}

fn refusal() -> Refusal {
    let reason = "must be a multiple of 8";
    Refusal {
        code: RefusalCode::InvalidRequest,
        detail: format!("invalid input: input.width: {reason}"),
        invalid_fields: vec![InvalidField { field: "input.width".to_owned(), reason: reason.to_owned() }],
    }
}

impl Samples {
    fn face(&self, mount: &'static str) -> FaceUrl {
        FaceUrl { server: self.server.clone(), mount }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_shown_in_the_words_they_are_given_in() {
        let catalog = Catalog::parse(include_str!("../../../config/models.toml")).expect("a catalog");
        let examples = of_schemas(&catalog);
        assert_eq!(examples["eachlabs.Webhook"]["attempts"][0]["status"], "SUCCESS");
        assert!(examples["eachlabs.Webhooks"]["webhooks"][0].get("attempts").is_none());
        assert_eq!(examples["native.Webhook"]["deliveries"][0]["attempts"][0]["seconds"], 0.12);
        let told: Value = serde_json::from_str(examples["eachlabs.Webhook"]["request"].as_str().expect("a text"))
            .expect("what was told");
        assert_eq!((&told["exec_id"], &told["status"]), (&Samples::ID.into(), &"succeeded".into()));
        for output in [&examples["native.Prediction"]["output"][0], &told["output"][0]] {
            let url = output.as_str().expect("a URL");
            assert!(url.starts_with("https://images.example.com/files/outputs/"), "{url}");
        }
        let (native, listed) = (&examples["native.Prediction"], &examples["admin.Page_admin.Key"]["results"][0]["key"]);
        assert_eq!((&native["logs"], listed), (&"Using seed: 7\n".into(), &examples["admin.Secret"]["key"]));
    }
}
