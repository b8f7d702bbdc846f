//! Examples, made by the code that makes the answers.

use std::time::Duration;

use chrono::{TimeZone, Utc};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::{
    domain::{
        Artifact, Catalog, Dialect, Input, InvalidField, Model, NanoUsd, OutputFormat, Prediction, PredictionId, Status,
    },
    wire::{BaseUrl, FaceUrl, Refusal, eachlabs, native, openai, replicate},
};

const ID: &str = "0197f3a0-5bd3-7cc2-8e5c-3b1a2f4d5e6f";

/// Puts an example beside every schema that has one, and into every body that is of that schema.
pub(super) fn put(document: &mut Value, catalog: &Catalog) {
    let examples = of_schemas(catalog);
    for (name, example) in &examples {
        if let Some(schema) = document["components"]["schemas"].get_mut(name) {
            schema["examples"] = json!([example]);
        }
    }
    let operations = document["paths"].as_object_mut().into_iter().flatten().flat_map(|(_, item)| {
        item.as_object_mut().into_iter().flatten().filter(|(method, _)| !method.starts_with("x-"))
    });
    for (_, operation) in operations {
        if let Some(body) = operation.get_mut("requestBody") {
            put_into(&mut body["content"], &examples);
        }
        for (_, response) in operation["responses"].as_object_mut().into_iter().flatten() {
            put_into(&mut response["content"], &examples);
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
        return Some(json!([example(&schema["items"], examples)?]));
    }
    let schema = schema["anyOf"].get(0).unwrap_or(schema);
    let name = schema["$ref"].as_str()?.rsplit('/').next()?;
    examples.get(name).cloned()
}

fn of_schemas(catalog: &Catalog) -> Map<String, Value> {
    let model = catalog.default_model();
    let Some(prediction) = prediction(model) else { return Map::new() };
    let server: BaseUrl = match "https://images.example.com".parse() {
        Ok(server) => server,
        Err(_) => return Map::new(),
    };
    let face = |mount| FaceUrl { server: server.clone(), mount };
    let (replicate_url, eachlabs_url) = (face("/replicate/v1"), face("/eachlabs/v1"));
    let files = prediction.output.as_deref().unwrap_or_default();
    let output: Vec<String> = files.iter().map(|file| server.file(&file.key)).collect();
    let native_prediction = native::Prediction::new(&prediction, Some(model), None, &server);
    let replicate_prediction =
        replicate::Prediction::new(&prediction, Some(model), Some(output.clone()), &replicate_url);
    let native_model = native::Model::new(model, model, model.average_run(), &server);
    let refusal = || Refusal {
        status: StatusCode::UNPROCESSABLE_ENTITY,
        code: "invalid_request",
        detail: "invalid input: input.width: must be a multiple of 8".to_owned(),
        invalid_fields: vec![InvalidField {
            field: "input.width".to_owned(),
            reason: "must be a multiple of 8".to_owned(),
        }],
    };
    let picture = || openai::Image::at(&files[0], output[0].clone());
    let small = json!({"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "seed": 7});
    let estimate = native::Estimate::new(
        model,
        (Duration::from_secs(2), Duration::ZERO),
        model.price.cost_of(Duration::from_secs(2)),
        "measured",
    );
    let documents = json!({
        "Input": small,
        "VendorInput": small,
        "native.CreatePrediction": {"model": model.slug, "input": small},
        "native.Prediction": native_prediction,
        "native.Page_native.Prediction": native::Page { results: vec![&native_prediction], next: None },
        "native.Model": native_model,
        "native.Page_native.Model": native::Page { results: vec![&native_model], next: None },
        "native.Estimate": estimate,
        "native.Problem": native::Problem::new(refusal(), "5f2b8c1e".to_owned()),
        "replicate.CreatePrediction": {"version": model.version, "input": small},
        "replicate.Prediction": replicate_prediction,
        "replicate.Model": replicate::Model::new(model, &replicate_url),
        "replicate.Version": replicate::Version::new(model, &model.version),
        "replicate.Account": replicate::Account::new("default".to_owned()),
        "replicate.Problem": replicate::Problem::new(refusal()),
        "eachlabs.CreatePrediction": {"model": model.slug, "version": "0.0.1", "input": small},
        "eachlabs.Created": eachlabs::Created::new(prediction.id),
        "eachlabs.Finished": eachlabs::Finished::new(&prediction, &eachlabs_url),
        "eachlabs.TimedOut": eachlabs::TimedOut::new(prediction.id),
        "eachlabs.Canceled": eachlabs::Canceled::new(prediction.id),
        "eachlabs.Prediction": eachlabs::Prediction::new(&prediction, &eachlabs_url),
        "eachlabs.Model": eachlabs::Model::new(model),
        "eachlabs.Refused": eachlabs::Refused::new(refusal(), false).1,
        "openai.Generation": {"prompt": "a lighthouse at dusk", "size": "256x256", "seed": 7},
        "openai.Edit": {"image": "the file's bytes", "prompt": "a lighthouse at dawn"},
        "openai.Images": openai::Images::new(&prediction, vec![picture()]),
        "openai.Model": openai::Model::new(model),
        "openai.Models": openai::Models::new(std::slice::from_ref(model)),
        "openai.Refused": openai::Refused::new(refusal()).1,
        "admin.NewKey": {"name": "ci", "scopes": ["predictions:write", "predictions:read"], "budget": "5", "budget_period": "day"},
        "admin.Rotation": {"overlap_seconds": 3600},
        "admin.SetBudget": {"budget": "5", "budget_period": "month"},
        "admin.NewAccount": {"name": "studio", "mode": "prepaid", "max_in_flight": 10},
        "admin.AccountChange": {"max_in_flight": 20},
        "admin.Credit": {"amount": "10.00", "note": "welcome"},
    });
    match documents {
        Value::Object(documents) => documents,
        _ => Map::new(),
    }
}

/// One that has ended well.
fn prediction(model: &Model) -> Option<Prediction> {
    let raw_input = json!({"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "seed": 7});
    let (input, _) = Input::parse(&raw_input, &model.limits, &native::DEFAULTS, 7).ok()?;
    let id: PredictionId = ID.parse().ok()?;
    let (device_time, created_at) = (Duration::from_secs(2), Utc.timestamp_opt(1_780_000_000, 0).single()?);
    let output = Artifact {
        key: format!("{ID}/1-7f3b2c9d4e5a6b1c8d0e/out-0.png"),
        content_type: OutputFormat::Png.content_type().to_owned(),
        width: input.width,
        height: input.height,
        bytes: 61_440,
        seed: input.seed,
        safety: None,
    };
    Some(Prediction {
        id,
        account_id: 1,
        dialect: Dialect::Native,
        model: model.slug.clone(),
        version: model.version.clone(),
        raw_input,
        input,
        status: Status::Succeeded,
        output: Some(vec![output]),
        failure: None,
        logs: "Using seed: 7".to_owned(),
        attempt: 1,
        cancel_requested: false,
        device_time: Some(device_time),
        cost: Some(NanoUsd::new(model.price.cost_of(device_time).get())),
        created_at,
        started_at: Some(created_at + Duration::from_millis(20)),
        completed_at: Some(created_at + Duration::from_millis(2_050)),
        deadline: None,
        data_removed: false,
    })
}
