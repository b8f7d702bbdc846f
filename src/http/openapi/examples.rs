//! Examples, made by the code that makes the answers.

use std::time::Duration;

use chrono::{SecondsFormat, TimeZone, Utc};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::refusals::Operation;
use crate::{
    domain::{
        Artifact, Catalog, Checksums, Dialect, Input, InvalidField, Model, NanoUsd, OutputFormat, Prediction,
        PredictionId, Status, Upload,
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
    let id = ID.parse().ok();
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
    let Some(upload) = upload() else { return Map::new() };
    let picture = || openai::Image::at(&files[0], output[0].clone());
    let small = json!({"prompt": "a lighthouse at dusk", "width": 256, "height": 256, "seed": 7});
    let estimate = native::Estimate::new(
        model,
        (Duration::from_secs(2), Duration::ZERO),
        model.price.cost_of(Duration::from_secs(2)),
        "measured",
    );
    let moment = prediction.created_at.to_rfc3339_opts(SecondsFormat::Micros, true);
    let told = json!({
        "prediction_id": prediction.id, "url": "https://example.com/told", "created_at": moment,
        "deliveries": [{
            "id": ID, "event": "completed", "state": "delivered", "created_at": moment, "next_attempt_at": null,
            "attempts": [{
                "made_at": moment, "seconds": 0.12, "succeeded": true, "status_code": 204, "response": "", "error": null,
            }],
        }],
    });
    let log = json!({
        "execution_id": ID, "url": "https://example.com/told", "request": "{}",
        "headers": {"Content-Type": "application/json"}, "source": "prediction", "created_at": moment,
        "attempts": [{
            "status": "success", "status_code": 200, "response": "", "error_message": null, "created_at": moment,
        }],
    });
    let key = json!({
        "key": "fs_1a2b3c4d", "account": "default", "name": "ci", "scopes": ["predictions:read"],
        "budget": {"amount": 5.0, "period": "day", "spent": 0.5, "held": 0.0},
        "created_at": moment, "expires_at": null, "revoked_at": null,
    });
    let account = json!({
        "name": "studio", "mode": "prepaid", "balance": 10.0, "held": 0.0, "max_in_flight": 10, "created_at": moment,
    });
    let ours = json!({
        "Input": small,
        "VendorInput": small,
        "native.CreatePrediction": {"model": model.slug, "input": small},
        "native.Prediction": native_prediction,
        "native.Page_native.Prediction": native::Page { results: vec![&native_prediction], next: None },
        "native.Model": native_model,
        "native.Page_native.Model": native::Page { results: vec![&native_model], next: None },
        "native.Estimate": estimate,
        "native.Problem": native::Problem::new(refusal(), "5f2b8c1e".to_owned()),
        "native.File": native::File::new(&upload, &server),
        "native.Page_native.File": native::Page { results: vec![native::File::new(&upload, &server)], next: None },
        "upload.NativeForm": {"file": "the file's bytes", "metadata": "{\"shelf\": 7}"},
        "upload.ReplicateForm": {"content": "the file's bytes", "filename": "cat.png"},
        "upload.CreateForm": {"prompt": "a lighthouse at dawn", "image": "the file's bytes"},
        "upload.Picture": "the file's bytes",
        "upload.Presign": {"content_type": "image/png"},
    });
    let vendors = json!({
        "replicate.CreatePrediction": {"version": model.version, "input": small},
        "replicate.Prediction": replicate_prediction,
        "replicate.Model": replicate::Model::new(model, &replicate_url),
        "replicate.Version": replicate::Version::new(model, &model.version),
        "replicate.Account": replicate::Account::new("default".to_owned()),
        "replicate.File": replicate::File::new(&upload, &replicate_url),
        "replicate.Page_replicate.File":
            replicate::Page::new(vec![replicate::File::new(&upload, &replicate_url)], None),
        "eachlabs.Presigned": eachlabs::Presigned::new(&upload, "Zm91cnN0ZXA", &eachlabs_url),
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
    });
    let lists = json!({
        "native.Webhook": told,
        "native.Secret": {"key": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"},
        "replicate.Page_replicate.Prediction": replicate::Page::new(vec![&replicate_prediction], None),
        "replicate.Page_replicate.Model":
            replicate::Page::new(vec![replicate::Model::new(model, &replicate_url)], None),
        "replicate.Page_replicate.Version":
            replicate::Page::new(vec![replicate::Version::new(model, &model.version)], None),
        "replicate.Page_String": replicate::Page::<String>::new(Vec::new(), None),
        "eachlabs.Executions": eachlabs::Executions {
            executions: vec![eachlabs::Execution::new(&prediction, &server)],
            total_count: 1,
            total_capped: false,
            offset: 0,
            limit: 20,
        },
        "eachlabs.Webhook": log,
        "eachlabs.Webhooks": {"webhooks": [log], "limit": 50, "offset": 0},
        "usage.Report": {
            "from": "2026-01-01", "to": "2026-01-31", "group_by": "day",
            "results": [{"group": "2026-01-31", "succeeded": 2, "failed": 0, "canceled": 0, "predict_time": 4.0, "cost": 0.00616}],
            "total": {"succeeded": 2, "failed": 0, "canceled": 0, "predict_time": 4.0, "cost": 0.00616},
        },
        "server.Live": {"status": "ok"},
        "server.Ready": {"ready": false, "phase": "loading", "percent": 40},
        "server.Version": {"name": "fourstep", "version": env!("CARGO_PKG_VERSION")},
        "server.Discovery": {
            "name": "fourstep", "version": env!("CARGO_PKG_VERSION"), "predictions": format!("{server}/predictions"),
            "models": format!("{server}/models"), "replicate": format!("{server}/replicate/v1"),
            "eachlabs": format!("{server}/eachlabs/v1"), "openai": format!("{server}/openai/v1"),
            "ready": format!("{server}/readyz"), "docs": format!("{server}/docs"),
            "openapi": format!("{server}/openapi.json"),
        },
        "admin.Page_admin.Key": {"results": [key]},
        "admin.Page_admin.Account": {"results": [account]},
        "admin.Secret": {"key": "fs_1a2b3c4d", "secret": "fs_1a2b3c4d_…"},
        "admin.NewKey": {"name": "ci", "scopes": ["predictions:write", "predictions:read"], "budget": "5", "budget_period": "day"},
        "admin.Rotation": {"overlap_seconds": 3600},
        "admin.SetBudget": {"budget": "5", "budget_period": "month"},
        "admin.NewAccount": {"name": "studio", "mode": "prepaid", "max_in_flight": 10},
        "admin.AccountChange": {"max_in_flight": 20},
        "admin.Credit": {"amount": "10.00", "note": "welcome"},
    });
    let parts = [ours, vendors, lists].into_iter().filter_map(|part| match part {
        Value::Object(documents) => Some(documents),
        _ => None,
    });
    parts.flatten().collect()
}

/// A picture that has arrived.
fn upload() -> Option<Upload> {
    let created_at = Utc.timestamp_opt(1_780_000_000, 0).single()?;
    Some(Upload {
        id: ID.parse().ok()?,
        account_id: 1,
        name: "cat.png".to_owned(),
        content_type: OutputFormat::Png.content_type().to_owned(),
        size: 61_440,
        checksums: Some(Checksums {
            sha256: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            md5: "098f6bcd4621d373cade4e832627b4f6".to_owned(),
        }),
        metadata: json!({"shelf": 7}),
        key: format!("uploads/{ID}/7f3b2c9d4e5a6b1c8d0e/picture.png"),
        created_at,
        expires_at: created_at + Duration::from_secs(86_400),
    })
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
